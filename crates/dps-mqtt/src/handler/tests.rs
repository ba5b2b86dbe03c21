use dps_attestation::SymmetricKey;
use dps_state_machine::PeerActivity;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    time::{Instant, timeout},
};

use super::*;

const ACCEPTED: &[u8] = b"\x20\x02\x00\x00";
const SUBSCRIBED: &[u8] = b"\x90\x03\x00\x01\x01";
/// Of the request: the subscription has the packet id 1.
const ACKNOWLEDGED: &[u8] = b"\x40\x02\x00\x02";

/// What a service does after it has read a flight.
enum Then {
    Close,
    Silence,
}
use Then::{Close, Silence};

/// Sends a registration in one flight to a service that says this, and waits for at most a minute. Returns what came of
/// it, after how many seconds, and what the service did while the request waited.
async fn sent_in_one_flight(
    says: &[u8],
    then: Then,
) -> (Option<Result<Option<Response>, Error>>, u64, Option<PeerActivity>) {
    let (client, mut server) = duplex(64 * 1024);
    let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
    let config = dps_connect::Config::new("0ne00AABBCC".parse().unwrap(), key.into());
    let request = RegistrationRequest::new("pump-17".parse().unwrap());
    let progress = Progress::default();
    let peer = Peer::of(&config, 8883).unwrap();
    let exchange = Exchange {
        request: Request::Register(&request),
        request_id: "7",
        peer: &peer,
        progress: &progress,
    };
    let mut connect = BytesMut::new();
    codec::connect(&mut connect, &config, request.registration_id(), 60, None).unwrap();
    let id = request.registration_id().clone();
    let mut connection = Connection::new(Box::new(client), id, 60, connect);
    let begin = Instant::now();
    let service = async {
        let mut flight = [0; 4096];
        assert!(server.read(&mut flight).await.unwrap() > 0);
        server.write_all(says).await.unwrap();
        if matches!(then, Silence) {
            // Pings are answered: only the request is not.
            while server.read(&mut flight).await.is_ok_and(|read| read > 0) {
                let _ = server.write_all(b"\xd0\x00").await;
            }
        }
        drop(server);
    };
    let asked = async {
        let asked =
            timeout(Duration::from_secs(60), exchange.ask_in_one_flight(&mut connection)).await;
        drop(connection);
        (asked.ok(), begin.elapsed().as_secs(), progress.activity())
    };
    let (asked, ()) = tokio::join!(asked, service);
    asked
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_is_lost_or_refused_leads_to_a_start_step_by_step() {
    let connack_then = |bytes: &[u8]| [ACCEPTED, bytes].concat();
    for (name, says, then, seconds) in [
        ("a close at once", vec![], Close, 0),
        ("a close after CONNACK", ACCEPTED.to_vec(), Close, 0),
        ("DISCONNECT after CONNACK", connack_then(b"\xe0\x00"), Silence, 0),
        ("DISCONNECT 130 after CONNACK", connack_then(b"\xe0\x01\x82"), Silence, 0),
        ("CONNACK 130: protocol error", b"\x20\x02\x00\x82".to_vec(), Close, 0),
        ("CONNACK 129: malformed packet", b"\x20\x03\x00\x81\x00".to_vec(), Close, 0),
        ("SUBACK 130: protocol error", connack_then(b"\x90\x03\x00\x01\x82"), Close, 0),
        ("silence", vec![], Silence, 10),
        ("silence after CONNACK", ACCEPTED.to_vec(), Silence, 10),
        ("a lost publication", connack_then(SUBSCRIBED), Silence, 10),
    ] {
        let (outcome, after, _) = sent_in_one_flight(&says, then).await;
        assert!(matches!(outcome, Some(Ok(None))), "{name}: {outcome:?}");
        assert_eq!(after, seconds, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_was_taken_is_not_sent_again() {
    let started = [ACCEPTED, SUBSCRIBED].concat();
    let (outcome, ..) = sent_in_one_flight(&started, Close).await;
    assert!(matches!(&outcome, Some(Err(Error::Connection(e))) if e.lost), "{outcome:?}");

    let acknowledged = [ACCEPTED, SUBSCRIBED, ACKNOWLEDGED].concat();
    let (outcome, after, activity) = sent_in_one_flight(&acknowledged, Silence).await;
    assert!(outcome.is_none(), "it waits: {outcome:?}");
    assert_eq!((after, activity), (60, Some(PeerActivity::Acknowledged)));

    for (says, status) in [(&b"\x20\x02\x00\x05"[..], 401), (b"\x20\x02\x00\x97", 429)] {
        let (outcome, ..) = sent_in_one_flight(says, Close).await;
        let Some(Ok(Some(response))) = outcome else { panic!("{says:?}: {outcome:?}") };
        assert_eq!(response.status, status, "{says:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_belong_to_no_request_are_counted() {
    let stray = |topic: &str| {
        let length = u8::try_from(topic.len()).unwrap();
        [&[0x30, length + 2, 0, length][..], topic.as_bytes()].concat()
    };
    for (topics, activity) in [
        (&[][..], PeerActivity::Acknowledged),
        (&["$dps/registrations/res/200/?$rid=8"], PeerActivity::UnmatchedAnswers(1)),
        (&["$dps/registrations/res/200/?rid=8", "other"], PeerActivity::UnmatchedAnswers(2)),
    ] {
        let strays: Vec<u8> = topics.iter().copied().flat_map(stray).collect();
        let says = [ACCEPTED, SUBSCRIBED, ACKNOWLEDGED, &strays].concat();
        let (outcome, _, seen) = sent_in_one_flight(&says, Silence).await;
        assert!(outcome.is_none(), "{topics:?}: {outcome:?}");
        assert_eq!(seen, Some(activity), "{topics:?}");
    }
}
