//! `--tpm` and `dps tpm`, with a software TPM: `swtpm` of the Debian package of that name.

use dps_client::SymmetricKey;
use dps_emulator::{Attestation, Emulator, Enrollment};
use tokio::runtime::Runtime;

use crate::{
    support::{Folder, dps, run},
    swtpm::Swtpm,
};

/// Ends the test when the software TPM is missing: as a failure in CI, as a skip that says so elsewhere.
macro_rules! swtpm {
    () => {
        match Swtpm::start() {
            Some(swtpm) => swtpm,
            None => return,
        }
    };
}

#[test]
fn a_tpm_is_shown_registers_and_signs_for_the_hub() {
    let (swtpm, files) = (swtpm!(), Folder::new());
    let shown = run(&mut dps(&["tpm", "show", "--json", "--tpm", &swtpm.address()])).json();
    let text = |name: &str| shown[name].as_str().unwrap().to_owned();
    let (id, endorsement_key) = (text("registrationId"), text("endorsementKey"));
    assert_eq!(id.len(), 52, "{shown}");
    assert!(endorsement_key.starts_with("AToAAQAL"), "{shown}");
    let lines = run(&mut dps(&["tpm", "show", "--tpm", &swtpm.address()]));
    assert!(lines.stdout.contains(&format!("endorsement key:  {endorsement_key}\n")), "{lines:?}");

    let runtime = Runtime::new().unwrap();
    let attestation = Attestation::tpm(endorsement_key.parse().unwrap());
    let enrollment = Enrollment::individual(id.parse().unwrap(), attestation);
    let starting = Emulator::builder().enrollment(enrollment).start();
    let emulator = runtime.block_on(starting).unwrap();
    let ca = files.file("ca.pem", emulator.ca_pem());
    for (transport, port) in [
        ("http", emulator.https_port()),
        ("amqp", emulator.amqp_port()),
        ("amqp-ws", emulator.https_port()),
    ] {
        let endpoint = format!("localhost:{port}");
        let assigned = run(&mut dps(&[
            "register",
            "--json",
            "--transport",
            transport,
            "--endpoint",
            &endpoint,
            "--ca-file",
            &ca,
            "--id-scope",
            emulator.id_scope().as_str(),
            "--tpm",
            &swtpm.address(),
        ]))
        .assigned();
        assert_eq!(assigned["registrationId"], *id, "{transport}");

        let hub = assigned["assignedHub"].as_str().unwrap();
        let signed = run(&mut dps(&[
            "tpm",
            "sign",
            "--tpm",
            &swtpm.address(),
            "--hub",
            hub,
            "--device-id",
            &id,
            "--expiry",
            "4102444800",
        ]));
        let resource = format!("{hub}%2Fdevices%2F{id}");
        let key: SymmetricKey = emulator.hub_key(&id).unwrap();
        let signature = key.signature(&format!("{resource}\n4102444800"));
        let signature =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature.expose());
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se=4102444800\n");
        assert_eq!(signed.stdout, token, "{transport}: {signed:?}");
    }
}

#[test]
fn what_a_tpm_can_not_do_is_said_before_any_io() {
    let (swtpm, files) = (swtpm!(), Folder::new());
    let register = |more: &[&str]| {
        let arguments = ["register", "--json", "--id-scope", "0ne1", "--endpoint", "localhost:1"];
        run(&mut dps(&[&arguments[..], more].concat()))
    };
    let error =
        register(&["--tpm", &swtpm.address(), "--transport", "mqtt"]).failed("configuration");
    assert!(error["message"].as_str().unwrap().contains("use http, amqp or amqp-ws"), "{error}");
    for (flag, value, says) in [
        ("--tpm", "tpmrm0", "--tpm \"tpmrm0\": give"),
        ("--tpm-storage-handle", "0x81010001", "handle of the storage root key"),
        ("--tpm-identity-handle", "seven", "--tpm-identity-handle \"seven\": give a persistent"),
        (
            "--tpm-owner-password-file",
            "/no/such",
            "--tpm-owner-password-file \"/no/such\": the file",
        ),
    ] {
        let more = match flag {
            "--tpm" => vec![flag, value],
            _ => vec!["--tpm", "/dev/tpmrm0", flag, value],
        };
        let error = register(&more).failed("configuration");
        assert!(error["message"].as_str().unwrap().contains(says), "{flag}: {error}");
    }
    let key = files.file("k", "a2V5IG9mIHRoZSB0ZXN0cyBvZiB0aGUgY29tbWFuZA==");
    let error = register(&["--tpm", &swtpm.address(), "--symmetric-key-file", &key]);
    let error = error.failed("configuration");
    assert!(
        error["message"].as_str().unwrap().contains("--symmetric-key-file and --tpm"),
        "{error}"
    );
}

#[test]
fn a_tpm_that_fails_has_an_exit_code_of_its_own() {
    let swtpm = swtpm!();
    let missing = ["tpm", "show", "--json", "--tpm", "swtpm:/no/such/socket"];
    let error = run(&mut dps(&missing)).failed("credential");
    assert!(error["message"].as_str().unwrap().contains("/no/such/socket"), "{error}");
    let sign = ["tpm", "sign", "--hub", "h", "--device-id", "d", "--tpm", &swtpm.address()];
    let unsigned = run(&mut dps(&sign));
    assert_eq!(unsigned.code, 8, "{unsigned:?}");
    assert!(unsigned.stderr.contains("0x81000100"), "{unsigned:?}");
}
