//! Where any transport would do, as with `auto`: the way ends only where none gets through, as for a registration.

use std::{future::ready, sync::Arc, time::Duration};

use dps_client::{Attestation, ErrorKind, SasSigner, TpmAnswer, TpmAttestation, TpmKeys};
use dps_conformance::{ProxyScript, TestProxy};
use dps_doctor::{Hop, Report, Selection, Status, Subject, Verdict, examine, examine_until};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::{
    finding,
    scene::{self, Scene},
    speaking::{Layer, Manner, Server},
};

/// A registered device for which any transport would do, that trusts another server too.
async fn device(scene: &Scene, trusted: Option<&Server>) -> Subject {
    scene::answer_lookups();
    scene.register().await;
    let mut subject = scene.subject();
    subject.any_transport = true;
    subject.endpoint = "localhost".parse();
    subject.limits.step = Duration::from_secs(6);
    subject.limits.aside = subject.limits.step;
    if let Some(server) = trusted {
        subject.roots = server.config().roots.with_pem(scene.emulator.ca_pem().as_bytes());
    }
    subject
}

fn port(server: &Server) -> u16 {
    server.config().endpoint.port().unwrap()
}

async fn assert_it_gets_through(subject: &Subject, over: &str) -> Report {
    let report = examine(subject, &Selection::all()).await;
    assert_eq!(report.verdict(), Verdict::Warnings, "{report:#?}");
    let login = &finding(&report, "service.credential").seen;
    assert!(login.starts_with(&format!("{over} lets")), "{over}: {login}");
    assert_eq!(finding(&report, "settings.transport").seen, "auto");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_open_and_bad_is_passed_over() {
    let scene = Scene::new().await;
    let no_tls = Server::start(Layer::Tcp, "", Manner::AnswersAndCloses).await;
    let (_taken, closed) = scene::closed();
    let mut subject = device(&scene, None).await;
    (subject.ports.https, subject.ports.mqtt) = (closed, port(&no_tls));
    let report = assert_it_gets_through(&subject, "amqp").await;
    assert_eq!(finding(&report, "port.443").status, Status::Warning);
    assert_eq!(finding(&report, "port.8883").status, Status::Warning);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stands_and_is_dead_is_passed_over() {
    for manner in [Manner::AnswersAndCloses, Manner::Greets] {
        let scene = Scene::new().await;
        let dead = Server::start(Layer::Tls, "", manner).await;
        let mut subject = device(&scene, Some(&dead)).await;
        subject.ports.mqtt = port(&dead);
        let report = assert_it_gets_through(&subject, "amqp").await;
        assert_eq!(finding(&report, "port.8883").status, Status::Warning, "{manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_asks_for_on_one_port_is_sent_on_another() {
    let scene = Scene::with_certificate(|line| line).await;
    let inspecting = Server::start(Layer::Tls, "", Manner::Answers).await;
    let (_taken, closed) = scene::closed();
    let mut subject = device(&scene, Some(&inspecting)).await;
    (subject.ports.https, subject.ports.mqtt) = (port(&inspecting), closed);
    let report = assert_it_gets_through(&subject, "amqp").await;
    assert_eq!(finding(&report, "tls.client-certificate").status, Status::Ok);
    assert_eq!(finding(&report, "service.enrollment").status, Status::Warning);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_passes_one_port_is_enough() {
    let scene = Scene::new().await;
    let proxy = TestProxy::start(ProxyScript::OnlyTo(scene.emulator.amqp_port())).await;
    let mut subject = device(&scene, None).await;
    subject.proxy = Ok(proxy.choice(""));
    let report = assert_it_gets_through(&subject, "amqp").await;
    assert_eq!(finding(&report, "proxy.tunnel").status, Status::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_service_ends_the_way_over_any_transport() {
    let scene = Scene::new().await;
    let mut subject = device(&scene, None).await;
    subject.credential = Ok(scene::other_key().into());
    let report = examine(&subject, &Selection::all()).await;
    let failure = report.failure().unwrap();
    assert_eq!((failure.check.id, failure.kind), ("service.credential", Some(ErrorKind::Rejected)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_none_gets_through_it_ends_as_the_registration_does() {
    let scene = Scene::new().await;
    let (_taken, closed) = scene::closed();
    let silent = Server::start(Layer::Tcp, "", Manner::Greets).await;
    for of_amqp in [closed, port(&silent)] {
        let mut subject = device(&scene, None).await;
        subject.limits.step = Duration::from_secs(1);
        (subject.ports.https, subject.ports.mqtt, subject.ports.amqp) = (closed, closed, of_amqp);
        let report = examine(&subject, &Selection::all()).await;
        assert_eq!((report.verdict(), report.ends_at()), (Verdict::Broken, Some(Hop::Network)));
        assert_eq!(report.failure().unwrap().kind, Some(ErrorKind::Connection));
    }
}

/// What comes to this port goes to that one. Says when so many connections have come.
async fn relay(to: u16, count: usize) -> (u16, oneshot::Receiver<()>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (all_came, came) = oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut connections, mut all_came) = (JoinSet::new(), Some(all_came));
        while let Ok((mut device, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                copy_bidirectional(&mut device, &mut server).await.unwrap_or_default();
            });
            if connections.len() == count {
                all_came.take().unwrap().send(()).unwrap();
            }
        }
    });
    (port, came, tasks)
}

#[tokio::test]
async fn what_was_seen_is_told_when_the_search_for_the_way_is_cut_short() {
    for is_stopped in [true, false] {
        let scene = Scene::new().await;
        let (_taken, closed) = scene::closed();
        let dead = Server::start(Layer::Tls, "", Manner::Greets).await;
        // The ports are looked at over two connections, and the device says who it is over a third.
        let (relay, is_asked, _relaying) = relay(port(&dead), 3).await;
        let mut subject = device(&scene, Some(&dead)).await;
        (subject.ports.https, subject.ports.mqtt, subject.ports.amqp) = (closed, relay, relay);
        subject.limits.step = Duration::from_secs(600);
        let stop = async {
            is_asked.await.unwrap();
            if !is_stopped {
                // The time goes by from here on.
                tokio::time::pause();
                std::future::pending().await
            }
        };
        let report = examine_until(&subject, &Selection::all(), stop).await;
        assert_eq!(report.is_whole(), !is_stopped);
        let refused = finding(&report, "port.443");
        assert_eq!(refused.status, Status::Failed, "{report:#?}");
        assert!(refused.seen.contains("refused"), "{report:#?}");
        assert_eq!(finding(&report, "tls.name").status, Status::Ok, "{report:#?}");
        if !is_stopped {
            // The first was given up for the second, and the search ended with that.
            assert_eq!(finding(&report, "service.answer").seen, "no answer within 6 s");
            tokio::time::resume();
        }
    }
}

/// A TPM that is there.
struct Tpm;

impl TpmAttestation for Tpm {
    fn keys(&self) -> TpmAnswer<'_, TpmKeys> {
        Box::pin(ready(Ok(TpmKeys::from_bytes(vec![1; 316], vec![2; 284]))))
    }

    fn activate<'a>(&'a self, _: &'a [u8]) -> TpmAnswer<'a, Arc<dyn SasSigner>> {
        Box::pin(ready(Ok(Arc::new(scene::other_key()) as Arc<dyn SasSigner>)))
    }

    fn store<'a>(&'a self, _: &'a [u8]) -> TpmAnswer<'a, ()> {
        Box::pin(ready(Ok(())))
    }
}

#[tokio::test]
async fn with_a_tpm_silence_is_waited_out_as_a_registration_does() {
    let scene = Scene::new().await;
    let dead = Server::start(Layer::Tls, "", Manner::Greets).await;
    let (relay, is_asked, _relaying) = relay(port(&dead), 2).await;
    let mut subject = device(&scene, Some(&dead)).await;
    subject.ports.amqp = relay;
    subject.credential = Ok(Attestation::from_tpm(Tpm));
    subject.limits.step = Duration::from_secs(30);
    let time_goes_by = async {
        is_asked.await.unwrap();
        tokio::time::pause();
        std::future::pending().await
    };
    let report = examine_until(&subject, &Selection::all(), time_goes_by).await;
    let failure = report.failure().unwrap();
    assert_eq!((failure.check.id, failure.kind), ("service.answer", Some(ErrorKind::Timeout)));
    assert_eq!(failure.seen, "no answer within 30 s");
}
