//! The file: what is stored is read back, and whatever is there instead, a device boots or is told what to do.
use std::{fs, path::Path, time::SystemTime};

use dps_client::{Error, RegistrationRequest};
use dps_provisioner::{AssignmentFile, Due, HubRefusal, NextStep, Provisioner};

use crate::support::{Fake, Folder, HOUR, ID, at, identity};

fn request() -> RegistrationRequest {
    RegistrationRequest::new(ID.parse().unwrap())
}

async fn register(device: &mut Provisioner, fake: &Fake) -> Result<(), Error> {
    device.register(&fake.client(), request(), None, || at(0)).await.map(drop)
}

fn open(path: &Path) -> Result<Provisioner, Error> {
    Provisioner::open(AssignmentFile::new(path)?, identity())
}

#[tokio::test]
async fn an_assignment_is_read_back_without_the_network_and_for_its_owner_alone() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    let mut device = open(&path).unwrap();
    assert_eq!(device.registration_due(at(0)), Some(Due::Missing));
    register(&mut device, &fake).await.unwrap();
    assert!(device.not_stored().is_none() && device.registration_due(at(0)).is_none());
    let again = open(&path).unwrap();
    assert_eq!(again.assignment(), device.assignment());
    assert_eq!(again.assignment().unwrap().result.assigned_hub, "one.example");
    assert_eq!(again.assignment().unwrap().stored_at, at(0));
    assert_eq!((again.registration_due(at(9 * HOUR)), fake.calls()), (None, 1));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(folder.names(), ["assignment.json", "assignment.json.lock"]);
}

#[tokio::test]
async fn however_a_file_is_damaged_a_device_registers_anew_and_the_file_is_kept_aside() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    register(&mut open(&path).unwrap(), &fake).await.unwrap();
    let whole = fs::read(&path).unwrap();
    let assignment = open(&path).unwrap().assignment().cloned();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len() - 1).map(|end| whole[..end].to_vec()).collect();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        damaged.push(bytes);
    }
    damaged.extend([
        vec![0; whole.len()],
        vec![0xff; 4096],
        b"{".to_vec(),
        [&whole[..], b"}"].concat(),
    ]);
    let (mut refused, mut unharmed) = (0, 0);
    for bytes in &damaged {
        // A file system may put one on the disk at once that is cut to nothing and written again.
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        match open(&path) {
            // Only the number of the version can become that of a newer one.
            Err(error) => {
                assert!(error.to_string().contains("version"), "{error}");
                refused += 1;
            }
            // White space at the end is none of the content.
            Ok(device) if device.damage().is_none() => {
                assert_eq!(device.assignment().cloned(), assignment);
                unharmed += 1;
            }
            Ok(device) => {
                assert_eq!(device.registration_due(at(0)), Some(Due::Damaged));
                assert_eq!(device.assignment(), None);
            }
        }
    }
    assert!(refused < 10 && unharmed < 10, "{refused} {unharmed} of {}", damaged.len());
    let (cut, fake) = (&whole[..whole.len() / 2], Fake::new("two.example"));
    fs::write(&path, cut).unwrap();
    let mut device = open(&path).unwrap();
    assert!(device.damage().unwrap().starts_with("it is no JSON"), "{:?}", device.damage());
    register(&mut device, &fake).await.unwrap();
    assert_eq!(open(&path).unwrap().assignment().unwrap().result.assigned_hub, "two.example");
    assert_eq!(fs::read(folder.path("assignment.json.damaged")).unwrap(), cut);
}

#[test]
fn a_file_of_a_newer_version_or_of_another_program_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let path = folder.path("assignment.json");
    for (content, expected) in [
        (
            r#"{"version": 2, "sha256": "", "content": {}}"#,
            "of version 2, and this program reads version 1",
        ),
        (r#"{"version": 7, "all": "else is other"}"#, "of version 7"),
        (r#"{"name": "pump"}"#, "another program"),
        ("[1, 2]", "another program"),
        ("\"text\"", "another program"),
        ("17", "another program"),
        ("SQLite format 3\0\u{10}", "another program"),
        ("-----BEGIN PRIVATE KEY-----\n", "another program"),
    ] {
        fs::write(&path, content).unwrap();
        let message = open(&path).unwrap_err().to_string();
        assert!(message.starts_with("assignment file ") && message.contains(expected), "{message}");
        assert!(message.contains("assignment.json") && message.contains("another"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    assert_eq!(folder.names(), ["assignment.json"]);
}

#[tokio::test]
async fn a_place_that_keeps_nothing_is_found_before_anything_is_sent() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    fs::create_dir(folder.path("folder")).unwrap();
    let places = ["", "-", "/", "no/", "/dev/null"].map(|place| Path::new(place).to_owned());
    let mut places: Vec<_> = places.into_iter().collect();
    places.extend(
        ["folder", "none/assignment.json", "folder/.", "folder/"].map(|name| folder.path(name)),
    );
    places.push(folder.path(&"x".repeat(300)));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path("target"), folder.path("link")).unwrap();
        places.push(folder.path("link"));
    }
    for place in places {
        let error = match open(&place) {
            Ok(mut device) => register(&mut device, &fake).await.unwrap_err(),
            Err(error) => error,
        };
        let message = error.to_string();
        assert!(matches!(error, Error::Configuration(_)), "{place:?}: {message}");
        assert!(message.starts_with("assignment file"), "{place:?}: {message}");
    }
    assert_eq!((fake.calls(), folder.path("target").exists()), (0, false));
}

#[tokio::test]
async fn another_identity_is_registered_and_the_former_one_is_of_no_use_to_it() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    register(&mut open(&path).unwrap(), &fake).await.unwrap();
    let mut scope = identity();
    scope.id_scope = "0ne00FFFFFF".parse().unwrap();
    let mut id = identity();
    id.registration_id = "pump-18".parse().unwrap();
    let mut endpoint = identity();
    endpoint.endpoint = "private.example:8443".parse().unwrap();
    for other in [scope, id, endpoint] {
        let device = Provisioner::open(AssignmentFile::new(&path).unwrap(), other).unwrap();
        assert_eq!(device.registration_due(at(0)), Some(Due::IdentityChanged));
        assert_eq!(device.assignment(), None);
    }
    assert_eq!(open(&path).unwrap().registration_due(at(0)), None);
}

#[tokio::test]
async fn a_registration_that_fails_or_is_dropped_leaves_the_former_assignment_in_use() {
    let folder = Folder::new();
    let path = folder.path("assignment.json");
    let mut device = open(&path).unwrap();
    register(&mut device, &Fake::new("one.example")).await.unwrap();
    let before = fs::read(&path).unwrap();
    let error = register(&mut device, &Fake::refusing()).await.unwrap_err();
    assert!(matches!(error, Error::Rejected(_)), "{error}");
    let silent = Fake::silent();
    {
        let dropped = register(&mut device, &silent);
        let mut dropped = std::pin::pin!(dropped);
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(dropped.as_mut().poll(cx)));
        assert!(polled.await.is_pending());
        // Meanwhile another process is told, and one that only reads is not held up.
        let mut second = open(&path).unwrap();
        assert_eq!(second.registration_due(at(0)), None);
        let message = register(&mut second, &silent).await.unwrap_err().to_string();
        assert!(message.contains("another process has its lock"), "{message}");
    }
    assert_eq!(silent.calls(), 1);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(device.assignment(), open(&path).unwrap().assignment());
    let foreign = RegistrationRequest::new("pump-18".parse().unwrap());
    let client = silent.client();
    let message = device.register(&client, foreign, None, || at(0)).await.unwrap_err().to_string();
    assert!(message.contains("pump-18") && message.contains("pump-17"), "{message}");
}

#[tokio::test]
async fn what_the_hub_did_outlives_a_restart_until_the_device_is_connected() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    register(&mut open(&path).unwrap(), &fake).await.unwrap();
    // One process for each connection: 50 that fail lead to a registration.
    for nth in 1..=50 {
        let mut device = open(&path).unwrap();
        assert_eq!(device.registration_due(at(HOUR)), None, "{nth}");
        let next = device.report(HubRefusal::Unreachable, at(0));
        assert_eq!(matches!(next, NextStep::Register { .. }), nth == 50, "{nth}: {next:?}");
    }
    let device = open(&path).unwrap();
    assert_eq!(device.hub().failed_connects, 50);
    // It is due once the wait is over; until then, and while it fails, the assignment is there.
    assert_eq!(device.registration_due(at(59)), None);
    assert_eq!(device.registration_due(at(72)), Some(Due::HubRefused));
    assert!(device.assignment().is_some());
    let mut device = open(&path).unwrap();
    register(&mut device, &fake).await.unwrap();
    let mut device = open(&path).unwrap();
    assert_eq!((device.registration_due(at(HOUR)), device.hub().failed_connects), (None, 0));
    // A refusal of the device is an episode that a registration does not end.
    for (nth, wait) in [(1, 300), (2, 600)] {
        let next = device.report(HubRefusal::UnknownDevice, at(0));
        let NextStep::Register { after } = next else { panic!("{next:?}") };
        assert!((wait..=wait * 5 / 4).contains(&after.as_secs()), "{after:?}");
        register(&mut device, &fake).await.unwrap();
        assert_eq!(open(&path).unwrap().hub().refusals, nth);
    }
    let _ = device.report(HubRefusal::UnknownDevice, at(0));
    device.report_connected();
    let device = open(&path).unwrap();
    assert_eq!((device.hub().refusals, device.registration_due(at(9 * HOUR))), (0, None));
}

#[tokio::test]
async fn what_changes_nothing_is_not_written_again() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    let mut device = open(&path).unwrap();
    register(&mut device, &fake).await.unwrap();
    fs::remove_file(&path).unwrap();
    device.report_connected();
    let _ = device.report(HubRefusal::Lost, SystemTime::now());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_refusal_while_a_registration_is_pending_neither_puts_it_off_nor_counts() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    register(&mut open(&path).unwrap(), &fake).await.unwrap();
    // A device that starts each minute, and that its hub refuses each time.
    let mut registered = Vec::new();
    for minute in 0..=150 {
        let now = minute * 60;
        let mut device = open(&path).unwrap();
        if device.registration_due(at(now)) == Some(Due::HubRefused) {
            device.register(&fake.client(), request(), None, || at(now)).await.unwrap();
            registered.push(now);
        }
        let left = match device.report(HubRefusal::NotAuthorized, at(now)) {
            NextStep::Register { after } => after.as_secs(),
            next => panic!("{next:?}"),
        };
        // Neither does a connection that fails meanwhile.
        assert!(matches!(
            device.report(HubRefusal::Unreachable, at(now)),
            NextStep::Register { after } if after.as_secs() <= left
        ));
        assert_eq!(device.hub().refusals as usize, registered.len() + 1, "{minute}");
    }
    // 5, 10, 20, 40 and 60 minutes, up to a quarter more, and up to a minute until the next start.
    assert!((4..=5).contains(&registered.len()), "{registered:?}");
    for (pair, wait) in registered.windows(2).zip([600, 1200, 2400, 3600]) {
        assert!((wait..=wait * 5 / 4 + 60).contains(&(pair[1] - pair[0])), "{registered:?}");
    }
    // One that could not be made stays due.
    let mut device = open(&path).unwrap();
    let _ = device.report(HubRefusal::Moved, at(9 * HOUR));
    assert_eq!(device.registration_due(at(9 * HOUR)), Some(Due::HubRefused));
    // One that was connected since has none to make.
    let _ = device.report(HubRefusal::Lost, at(9 * HOUR));
    assert_eq!(device.registration_due(at(99 * HOUR)), None);
}

#[tokio::test]
async fn a_clock_that_was_wrong_when_the_hub_refused_puts_nothing_off() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    register(&mut open(&path).unwrap(), &fake).await.unwrap();
    for then in [80 * 365 * 24 * HOUR, HOUR] {
        let mut device = open(&path).unwrap();
        device.report_connected();
        let _ = device.report(HubRefusal::NotAuthorized, at(then));
        assert_eq!(device.registration_due(at(then)), None);
        assert_eq!(open(&path).unwrap().registration_due(at(0)), Some(Due::HubRefused), "{then}");
    }
}

#[tokio::test]
async fn a_report_never_brings_back_an_assignment_that_another_process_has_replaced() {
    let (folder, north, south) =
        (Folder::new(), Fake::new("north.example"), Fake::new("south.example"));
    let path = folder.path("assignment.json");
    let hub = |path: &Path| open(path).unwrap().assignment().unwrap().result.assigned_hub.clone();
    register(&mut open(&path).unwrap(), &south).await.unwrap();
    let mut device = open(&path).unwrap();
    {
        // The other process has the lock while the first report comes.
        let mut other = open(&path).unwrap();
        let silent = Fake::silent();
        let mut registering = std::pin::pin!(register(&mut other, &silent));
        std::future::poll_fn(|cx| std::task::Poll::Ready(registering.as_mut().poll(cx).is_ready()))
            .await;
        let next = device.report(HubRefusal::NotAuthorized, at(0));
        assert!(matches!(next, NextStep::Register { .. }), "{next:?}");
        assert!(device.not_stored().unwrap().is_retryable());
    }
    device_registers_elsewhere(&path, &north).await;
    let next = device.report(HubRefusal::NotAuthorized, at(1));
    assert!(matches!(next, NextStep::ConnectToHub { .. }), "{next:?}");
    assert_eq!(device.assignment().unwrap().result.assigned_hub, "north.example");
    assert_eq!((hub(&path), device.hub().refusals), ("north.example".to_owned(), 0));
    assert_eq!(device.registration_due(at(9 * HOUR)), None);
    // Who asks is told without a report, once.
    device_registers_elsewhere(&path, &south).await;
    device.report_connected();
    assert_eq!(hub(&path), "south.example");
    assert!(!device.refresh());
    // What other processes count is counted on.
    let _ = open(&path).unwrap().report(HubRefusal::Unreachable, at(0));
    let _ = device.report(HubRefusal::Unreachable, at(0));
    assert_eq!(open(&path).unwrap().hub().failed_connects, 2);
}

async fn device_registers_elsewhere(path: &Path, fake: &Fake) {
    let mut other = open(path).unwrap();
    let client = fake.client();
    let later = at(HOUR + fake.calls() as u64);
    other.register(&client, request(), None, || later).await.unwrap();
}

#[tokio::test]
async fn a_report_of_one_device_does_not_replace_what_another_device_has_stored() {
    let (folder, fake) = (Folder::new(), Fake::new("one.example"));
    let path = folder.path("assignment.json");
    let mut device = open(&path).unwrap();
    register(&mut device, &fake).await.unwrap();
    let mut scope = identity();
    scope.id_scope = "0ne00FFFFFF".parse().unwrap();
    let file = AssignmentFile::new(&path).unwrap();
    let mut other = Provisioner::open(file.clone(), scope.clone()).unwrap();
    register(&mut other, &fake).await.unwrap();
    let _ = device.report(HubRefusal::NotAuthorized, at(0));
    assert!(device.not_stored().unwrap().to_string().contains("another device"));
    assert!(!device.refresh());
    assert_eq!(file.load().unwrap().unwrap().identity, scope);
}
