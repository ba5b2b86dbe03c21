//! The stored assignment and the real service on loopback, on every transport.
use std::{fs, path::Path, time::SystemTime};

use dps_client::{
    Attestation, RegistrationRequest, Settings, SymmetricKey, Transport, client,
    client_with_fallback,
    emulator::{Emulator, EmulatorExt as _},
};
use dps_provisioner::{AssignmentFile, Identity, Provisioner};

#[tokio::test]
async fn a_device_registers_once_and_boots_without_the_service_on_every_transport() {
    for transport in Transport::ALL {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("boot-{transport}.json"));
        let _ = fs::remove_file(&path);
        let file = AssignmentFile::new(&path).unwrap();
        let emulator =
            Emulator::builder().with_any_device(None, None).unwrap().start().await.unwrap();
        let config = emulator.config(transport).unwrap();
        let request = RegistrationRequest::new("pump-17".parse().unwrap());
        let identity = Identity::of(&config, &request);
        // Its first credential is refused: which one was taken is stored too.
        let mut wrong = config.clone();
        wrong.attestation = "d3Jvbmcga2V5IG9mIHB1bXAtMTc=".parse::<SymmetricKey>().unwrap().into();
        let right: Attestation = config.attestation.clone();
        let client = client_with_fallback(transport, wrong, [right], Settings::default()).unwrap();
        let mut device = Provisioner::open(file.clone(), identity.clone()).unwrap();
        device.register(&client, request, Some(transport), SystemTime::now).await.unwrap();
        client.end_session().await.unwrap();
        emulator.stop().await;

        let device = Provisioner::open(file, identity).unwrap();
        assert_eq!(device.registration_due(SystemTime::now()), None, "{transport}");
        let assignment = device.assignment().unwrap();
        assert_eq!(assignment.result.device_id, "pump-17", "{transport}");
        assert_eq!(assignment.result.credential, 1, "{transport}");
        assert_eq!(assignment.transport, Some(transport));
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn the_credential_that_was_taken_is_found_again_among_others() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("taken.json");
    let _ = fs::remove_file(&path);
    let key = |text: &str| Attestation::from(text.parse::<SymmetricKey>().unwrap());
    let (right, wrong) = (key("cmlnaHQga2V5IG9mIHB1bXAtMTc="), key("d3Jvbmcga2V5IG9mIHB1bXAtMTc="));
    let signer = || Attestation::from_signer(SymmetricKey::random().unwrap());
    let builder = Emulator::builder().with_any_device(None, None).unwrap();
    let emulator = builder.start().await.unwrap();
    let mut config = emulator.config(Transport::Http).unwrap();
    let others = [config.attestation.clone()];
    config.attestation = wrong.clone();
    let request = RegistrationRequest::new("pump-17".parse().unwrap());
    let identity = Identity::of(&config, &request);
    let client =
        client_with_fallback(Transport::Http, config, others, Settings::default()).unwrap();
    for (given, now, place) in [
        (vec![wrong.clone(), right.clone()], vec![wrong.clone(), right.clone()], Some(1)),
        (vec![wrong.clone(), right.clone()], vec![right.clone(), wrong.clone()], Some(0)),
        (vec![wrong.clone(), right.clone()], vec![wrong.clone()], None),
        // What has no fingerprint, or was not named, has its number alone.
        (vec![signer(), signer()], vec![signer(), signer()], Some(1)),
        (vec![], vec![right.clone(), wrong.clone()], Some(1)),
        (vec![], vec![right.clone()], None),
    ] {
        let open = || {
            let file = AssignmentFile::new(&path).unwrap();
            Provisioner::open(file, identity.clone()).unwrap().credentials(given.clone())
        };
        let (client, request) = (&client, request.clone());
        open().register(client, request, None, SystemTime::now).await.unwrap();
        let taken = open().assignment().unwrap().credential_among(&now);
        assert_eq!(taken, place, "{given:?} {now:?}");
    }
    fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_service_that_is_away_leaves_the_stored_assignment_in_use_on_every_transport() {
    for transport in Transport::ALL {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("away-{transport}.json"));
        let _ = fs::remove_file(&path);
        let emulator =
            Emulator::builder().with_any_device(None, None).unwrap().start().await.unwrap();
        let config = emulator.config(transport).unwrap();
        let request = RegistrationRequest::new("pump-17".parse().unwrap());
        let file = AssignmentFile::new(&path).unwrap();
        let mut device = Provisioner::open(file, Identity::of(&config, &request)).unwrap();
        let client = client(transport, config, Settings::default()).unwrap();
        let first = device.register(&client, request.clone(), None, SystemTime::now).await;
        let first = first.unwrap().clone();
        client.end_session().await.unwrap();
        emulator.stop().await;
        let stored = fs::read(&path).unwrap();
        device.register(&client, request, None, SystemTime::now).await.unwrap_err();
        assert_eq!(device.assignment(), Some(&first), "{transport}");
        assert_eq!(fs::read(&path).unwrap(), stored, "{transport}");
        fs::remove_file(&path).unwrap();
    }
}
