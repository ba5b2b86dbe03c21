//! The doctor: each of its checks finds the fault that is planted for it, on loopback, and none fires where all is well.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod any_transport;
#[path = "../server_certificates/make.rs"]
#[expect(dead_code, reason = "other tests need the rest of it")]
mod make;
#[path = "../server_certificates/server.rs"]
#[expect(dead_code, reason = "other tests need the rest of it")]
mod presenting;
mod rows;
mod scene;
#[path = "../wrong_port/server.rs"]
#[expect(dead_code, reason = "other tests need the rest of it")]
mod speaking;
mod stable;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use dps_client::{ErrorKind, Transport};
use dps_conformance::{ProxyScript, TestProxy};
use dps_doctor::{CHECKS, Finding, Hop, Limits, Report, Selection, Status, Verdict, examine};
use tokio::task::JoinSet;

use rows::{Row, rows};
use scene::Scene;
use stable::stable;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");

fn finding<'a>(report: &'a Report, id: &str) -> &'a Finding {
    let mut found = report.findings().iter().filter(|finding| finding.check.id == id);
    let finding = found.next();
    assert!(finding.is_some(), "{id} is not in {report:?}");
    finding.unwrap()
}

/// The row as the document has it, or what of it is not as the row expects.
async fn found(row: Row) -> Result<(&'static str, String), String> {
    let Row { check, fault, status, says, plant } = row;
    let report = plant.await;
    let finding = finding(&report, check);
    let advice = finding.advice.as_deref().unwrap_or_default();
    let words = format!("{} {advice}", finding.seen);
    // What is wrong with a setting says what to do in its own words.
    let is_advised = !advice.is_empty() || finding.kind == Some(ErrorKind::Configuration);
    let is_told = report.verdict() != Verdict::Healthy
        && (report.verdict() == Verdict::Broken) == report.failure().is_some();
    if finding.status != status || !words.contains(says) || !is_advised || !is_told {
        return Err(format!("{check}, {fault}: {status} and {says:?}, but {finding:#?}"));
    }
    let (seen, advice) = (stable(&finding.seen), stable(advice));
    Ok((check, format!("| `{check}` | {fault} | {status} | {seen} | {advice} |\n")))
}

/// All rows, planted beside each other, in the order of the table of checks.
async fn all_found() -> BTreeMap<usize, Vec<String>> {
    let mut planted = JoinSet::new();
    for (number, row) in rows().into_iter().enumerate() {
        planted.spawn(async move { (number, found(row).await) });
    }
    let mut lines: Vec<_> = planted.join_all().await;
    lines.sort_by_key(|(number, _)| *number);
    let faults: Vec<&String> = lines.iter().filter_map(|(_, line)| line.as_ref().err()).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let mut by_check: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (id, line) in lines.into_iter().filter_map(|(_, line)| line.ok()) {
        let place = CHECKS.iter().position(|check| check.id == id).unwrap();
        by_check.entry(place).or_default().push(line);
    }
    by_check
}

fn document(found: &BTreeMap<usize, Vec<String>>) -> String {
    let mut text = String::from(
        "# dps doctor: each check, a fault, and what it says\n\n\
         Made by a test that plants each fault on loopback (`UPDATE_DOCS=1 cargo test -p dps-conformance --test doctor`), and fails when\n\
         this page is out of date. What is of this machine or this moment is in capitals, like PORT. A check whose ground is gone is skipped,\n\
         and says what failed before it.\n\n\
         | check | looks at |\n|---|---|\n",
    );
    for check in CHECKS {
        let _ = writeln!(text, "| `{}` | {} |", check.id, check.looks_at);
    }
    text.push_str(
        "\n| check | planted fault | ends | it says | what to do next |\n|---|---|---|---|---|\n",
    );
    text.extend(found.values().flatten().map(String::as_str));
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[cfg_attr(not(target_os = "linux"), ignore = "only Linux has a port that is silent on loopback")]
async fn every_check_finds_its_planted_fault_in_the_words_of_the_document() {
    scene::answer_lookups();
    let found = all_found().await;
    let without: Vec<&str> = CHECKS
        .iter()
        .enumerate()
        .filter(|(place, _)| !found.contains_key(place))
        .map(|(_, check)| check.id)
        .collect();
    assert!(without.is_empty(), "no fault is planted for {without:?}");
    let current = document(&found);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &current).unwrap();
    }
    let checked_in = std::fs::read_to_string(DOCUMENT).unwrap();
    for (line, (now, then)) in current.lines().zip(checked_in.lines()).enumerate() {
        assert_eq!(now, then, "docs/doctor.md line {}", line + 1);
    }
    assert_eq!(current.len(), checked_in.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_where_all_is_well_on_any_transport_with_any_credential() {
    scene::answer_lookups();
    for transport in Transport::ALL {
        for scene in [Scene::new().await, Scene::with_certificate(|line| line).await] {
            scene.register().await;
            let mut subject = scene.subject();
            subject.transport = Ok(transport);
            let report = examine(&subject, &Selection::all()).await;
            let odd: Vec<&Finding> = report
                .findings()
                .iter()
                .filter(|finding| !matches!(finding.status, Status::Ok | Status::Skipped))
                .collect();
            assert!(odd.is_empty(), "{transport}: {odd:?}");
            assert_eq!((report.verdict(), report.ends_at()), (Verdict::Healthy, None));
            assert_eq!(report.findings().len(), CHECKS.len(), "{transport}");
            // The hub is called hub.localhost, and is where the emulator is.
            assert_eq!(finding(&report, "hub.name").seen, scene::HOST, "{transport}");
            let hops: Vec<Hop> = report.path().into_iter().map(|(hop, _)| hop).collect();
            let way = [Hop::Device, Hop::Network, Hop::Tls, Hop::Service, Hop::Hub];
            assert_eq!(hops, way, "{transport}");
            for id in ["port.443", "port.8883", "port.5671", "websocket.amqp", "service.credential"]
            {
                assert_eq!(finding(&report, id).status, Status::Ok, "{transport}: {id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_behind_a_proxy_that_works() {
    let scene = Scene::new().await;
    scene.register().await;
    let proxy = TestProxy::start(ProxyScript::Authenticated).await;
    let mut subject = scene.subject();
    subject.endpoint = "localhost".parse();
    subject.hub = Some("localhost".parse());
    subject.proxy = Ok(proxy.choice("user:pa%3Ass@"));
    let report = examine(&subject, &Selection::all()).await;
    assert_eq!(report.verdict(), Verdict::Healthy, "{report:#?}");
    let hops: Vec<Hop> = report.path().into_iter().map(|(hop, _)| hop).collect();
    assert!(hops.starts_with(&[Hop::Device, Hop::Proxy, Hop::Network]), "{hops:?}");
    for id in ["proxy.authentication", "port.8883", "service.credential", "hub.443"] {
        assert_eq!(finding(&report, id).status, Status::Ok, "{id}");
    }
    assert!(!format!("{report:?}").contains("pa:ss"), "the password");
    assert!(proxy.tunnels() > 0);
}

#[tokio::test]
async fn what_fails_hides_what_depends_on_it_and_nothing_else() {
    scene::answer_lookups();
    let scene = Scene::new().await;
    let mut subject = scene.subject();
    subject.credential = "!".parse::<dps_client::SymmetricKey>().map(Into::into);
    subject.endpoint = "nowhere.test".parse();
    let report = examine(&subject, &Selection::all()).await;
    assert_eq!(report.ends_at(), Some(Hop::Device));
    assert_eq!(report.failure().unwrap().kind, Some(ErrorKind::Configuration));
    assert_eq!(finding(&report, "name.lookup").status, Status::Failed);
    for id in ["port.443", "tls.name", "service.answer", "hub.name"] {
        let finding = finding(&report, id);
        assert_eq!(finding.status, Status::Skipped, "{id}");
        assert_eq!(finding.seen, "credential.read failed", "{id}");
    }
    assert_eq!(finding(&report, "clock.year").status, Status::Ok);
}

#[tokio::test]
async fn a_part_of_the_checks_looks_at_no_more_than_it_needs() {
    scene::answer_lookups();
    let scene = Scene::new().await;
    let selection: Selection = "tls.name,clock.year".parse().unwrap();
    let report = examine(&scene.subject(), &selection).await;
    let ids: Vec<&str> = report.findings().iter().map(|finding| finding.check.id).collect();
    assert_eq!(ids, ["clock.year", "tls.name"]);
    assert!(scene.requests().is_empty(), "the service was asked nothing");
    // What stops a check that was asked for is told too.
    let mut subject = scene.subject();
    subject.endpoint = "nowhere.test".parse();
    let report = examine(&subject, &selection).await;
    let ids: Vec<&str> = report.findings().iter().map(|finding| finding.check.id).collect();
    assert_eq!(ids, ["clock.year", "name.lookup", "tls.name"]);
    assert_eq!(finding(&report, "tls.name").seen, "name.lookup failed");
}

#[tokio::test]
async fn nothing_is_registered_and_no_secret_is_in_a_report() {
    scene::answer_lookups();
    let scene = Scene::new().await;
    let mut subject = scene.subject();
    let key = scene.key.expose_base64();
    for refused in [false, true] {
        if refused {
            subject.credential = Ok(scene::other_key().into());
        }
        let report = examine(&subject, &Selection::all()).await;
        let text = format!("{report:?} {subject:?}");
        assert!(!text.contains(key.as_str()) && !text.contains("sig="), "{text}");
    }
    assert!(scene.requests().iter().all(|operation| *operation == dps_emulator::Operation::Lookup));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(target_os = "linux"), ignore = "only Linux has a port that is silent on loopback")]
async fn a_silent_port_that_is_not_needed_breaks_nothing() {
    scene::answer_lookups();
    let scene = Scene::new().await;
    scene.register().await;
    let (_hole, port) = scene::silent().await;
    let mut subject = scene.subject();
    // What a step that is needed takes is not bounded here: the machine may be busy.
    subject.limits.aside = Limits::within(Duration::from_secs(9)).aside;
    subject.ports.mqtt = port;
    let report = examine(&subject, &Selection::all()).await;
    assert_eq!(report.verdict(), Verdict::Warnings, "{report:#?}");
    for id in ["port.8883", "hub.8883"] {
        let finding = finding(&report, id);
        assert_eq!(finding.status, Status::Warning, "{id}");
        assert!(finding.elapsed < subject.limits.step, "{id}: {:?}", finding.elapsed);
    }
}

#[test]
fn a_step_has_more_time_where_the_registration_has() {
    for (total, step, aside) in [(300, 50, 5), (60, 10, 5), (20, 5, 5), (6, 2, 2)] {
        let limits = Limits::within(Duration::from_secs(total));
        assert_eq!(limits.total, Duration::from_secs(total));
        let of_step = [limits.step, limits.aside].map(|time| time.as_secs());
        assert_eq!(of_step, [step, aside], "{total}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_time_is_bounded() {
    scene::answer_lookups();
    let scene = Scene::unreachable();
    let mut subject = scene;
    subject.endpoint = "silent.test".parse();
    subject.limits.total = Duration::from_secs(3);
    subject.limits.step = Duration::from_secs(3600);
    let begun = tokio::time::Instant::now();
    let report = examine(&subject, &Selection::all()).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    let failure = report.failure().unwrap();
    assert_eq!((failure.check.id, failure.kind), ("name.lookup", Some(ErrorKind::Timeout)));
    assert!(failure.seen.contains("3 s"), "{}", failure.seen);
}
