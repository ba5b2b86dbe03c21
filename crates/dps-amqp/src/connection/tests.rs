//! What depends on the clock, over a stream in memory, and what the transport itself can't be made to do yet.

use dps_attestation::SymmetricKey;
use dps_state_machine::Progress;
use tokio::io::{AsyncWrite, DuplexStream, duplex};
use zeroize::Zeroizing;

use super::{sasl::Mechanism, *};
use crate::codec::{hex::bytes, message};

/// A service that wants to hear from us each second.
const IMPATIENT: &str = "414d515000010000 00000018 02000000 005310c00b05a10040404070000003e8";
const STARTED: &str = "0000002202000000005311d0000000120000000460000043700000080070ffffffff \
     0000002402000000005312d00000001400000003a10c6470732d72657175657374734341 \
     0000002702000000005313d000000017000000074370000008004370ffffffff434370000003e8 \
     0000002b02000000005312d00000001b0000000aa10b6470732d616e737765727352014240404040404043";

fn device() -> (Config, RegistrationId) {
    let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
    (Config::new("0ne00AABBCC".parse().unwrap(), key.into()), "pump-17".parse().unwrap())
}

async fn start(service: &mut DuplexStream, io: DuplexStream, login: Login) -> Started {
    let (config, id) = device();
    let opened = [bytes(IMPATIENT), bytes(STARTED)].concat();
    let started = Connection::start(Box::new(io), &config, &id, login, true);
    let (started, sent) = tokio::join!(started, service.write_all(&opened));
    sent.unwrap();
    started.unwrap()
}

/// A connection that has started, and the service's end of it.
async fn started() -> (Connection, DuplexStream) {
    let (io, mut service) = duplex(64 * 1024);
    let Started::Ready(connection) = start(&mut service, io, Login::None).await else {
        panic!("it starts");
    };
    // What it said to start.
    let mut said = [0; 1024];
    let _ = service.read(&mut said).await.unwrap();
    (*connection, service)
}

fn request() -> Vec<u8> {
    message::query(&dps_state_machine::OperationId::new("4.op").unwrap(), "id")
}

#[tokio::test(start_paused = true)]
async fn the_service_hears_from_us_while_we_wait() {
    let (mut connection, mut service) = started().await;
    let began = Instant::now();
    let service = async {
        let mut heard = Vec::new();
        let mut said = [0; 1024];
        for _ in 0..4 {
            let size = service.read(&mut said).await.unwrap();
            heard.push((size, began.elapsed().as_millis()));
        }
        drop(service);
        heard
    };
    let progress = Progress::default();
    let (asked, heard) = tokio::join!(connection.ask(request(), "id", &progress), service);
    assert!(matches!(asked, Err(Broken::Lost(..))));
    // The request, and an empty frame of eight bytes each half of the time.
    let (sizes, times): (Vec<_>, Vec<_>) = heard.into_iter().unzip();
    assert_eq!((&sizes[1..], &times[..]), (&[8, 8, 8][..], &[0, 500, 1000, 1500][..]));
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_we_were_silent_too_long_is_not_used_again() {
    let (mut connection, _service) = started().await;
    assert!(connection.is_usable().await);
    tokio::time::advance(Duration::from_millis(999)).await;
    assert!(connection.is_usable().await);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!connection.is_usable().await);
    assert!(connection.end().await.is_ok(), "nothing is said on it");
}

#[tokio::test(start_paused = true)]
async fn what_came_in_the_meantime_decides_whether_a_connection_is_used_again() {
    for (name, late, usable) in [
        ("a heartbeat", "00000008 02000000", true),
        ("an acceptance", "0000001c 02000000 005315d00000000c000000054143434100532445", true),
        ("an answer", "00000021 02000000 005314d00000000d00000006520143a0013043424200537045", true),
        ("detach", "00000016 02000000 005316d000000006000000024341", false),
        ("end", "0000000c 02000000 00531745", false),
        ("close", "0000000c 02000000 00531845", false),
        ("a frame that is too short", "00000007", false),
    ] {
        let (mut connection, mut service) = started().await;
        service.write_all(&bytes(late)).await.unwrap();
        assert_eq!(connection.is_usable().await, usable, "{name}: {late}");
    }
    let (mut connection, service) = started().await;
    drop(service);
    assert!(!connection.is_usable().await);
}

/// A mechanism of several steps, as a TPM has one.
struct Steps(u8);

impl Mechanism for Steps {
    fn name(&self) -> &'static str {
        "STEPS"
    }

    fn hostname(&self) -> &str {
        "0ne00AABBCC/registrations/pump-17"
    }

    fn initial_response(&mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(b"first".to_vec())
    }

    fn respond<'a>(&'a mut self, challenge: &'a [u8]) -> sasl::Answer<'a> {
        self.0 += 1;
        let answer = match self.0 {
            0..=2 => Ok(Zeroizing::new([b"answer to ", challenge].concat())),
            _ => Err(Malformed::new("a step too many").into()),
        };
        Box::pin(async { answer })
    }
}

/// SASL up to its outcome, one challenge for each number.
async fn log_in_by_steps(challenges: &[u8]) -> (Result<Started, Broken>, Vec<u8>) {
    let (io, mut service) = duplex(64 * 1024);
    let (config, id) = device();
    let service = async {
        let mut said = vec![0; 1024];
        let mut size = service.read(&mut said).await.unwrap();
        service
            .write_all(&bytes("414d515003010000 0000001502010000005340c00801a3055354455053"))
            .await
            .unwrap();
        for challenge in challenges {
            let frame = [bytes("0000001102010000005342c00401a001"), vec![*challenge]].concat();
            service.write_all(&frame).await.unwrap();
            match service.read(&mut said[size..]).await.unwrap() {
                0 => break,
                more => size += more,
            }
        }
        let welcome = [
            bytes("0000001602010000005344d000000006000000015000"),
            bytes(IMPATIENT),
            bytes(STARTED),
        ];
        // Whoever was asked too much is gone.
        let _ = service.write_all(&welcome.concat()).await;
        said.truncate(size);
        (said, service)
    };
    let login = Login::Known(Box::new(Steps(0)));
    let started = Connection::start(Box::new(io), &config, &id, login, true);
    let (started, (said, _service)) = tokio::join!(started, service);
    (started, said)
}

#[tokio::test]
async fn a_mechanism_may_take_several_steps() {
    let (started, said) = log_in_by_steps(b"ab").await;
    assert!(matches!(started, Ok(Started::Ready(_))));
    let says = |words: &[u8]| said.windows(words.len()).any(|part| part == words);
    assert!(says(b"STEPS") && says(b"first") && says(b"answer to a") && says(b"answer to b"));
    assert!(says(b"0ne00AABBCC/registrations/pump-17"));

    let (started, _) = log_in_by_steps(b"abc").await;
    assert!(
        matches!(started, Err(Broken::Nonsense(reason)) if reason.to_string().contains("too many"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_read_after_writing_has_failed() {
    let (config, id) = device();
    // Nothing is said: the connection is lost, in time.
    let (read, _silent) = duplex(1024);
    let (io, login) =
        (tokio::io::join(read, Deaf), Login::of(&config, &id, &Progress::default()).await.unwrap());
    let started = Connection::start(Box::new(io), &config, &id, login, true).await;
    let Err(Broken::Lost(error)) = started else { panic!("it is lost") };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

    // A no is said: it counts.
    let (read, mut words) = duplex(1024);
    let no = "414d515003010000 0000002402010000005340d00000001400000001f00000000b00000001a305504c41494e 0000001602010000005344d000000006000000015001";
    words.write_all(&bytes(no)).await.unwrap();
    let io = tokio::io::join(read, Deaf);
    let started = Connection::start(
        Box::new(io),
        &config,
        &id,
        Login::of(&config, &id, &Progress::default()).await.unwrap(),
        true,
    )
    .await;
    assert!(matches!(started, Ok(Started::Refused(response)) if response.status == 401));
}

/// Nothing can be written to it.
struct Deaf;

impl AsyncWrite for Deaf {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
