//! `--key pkcs11:..`, with SoftHSM of the Debian package softhsm2.

use std::process::Command;

use rcgen::KeyPair;

use crate::{
    softhsm::SoftHsm,
    support::{Emulator, Folder, KEY, TRANSPORTS, run, text},
};

/// A PIN that no message may have.
const WRONG: &str = "hunter2-hunter2";

/// An emulator that knows the certificate of `dev`, whose key is in a token.
struct Bench {
    emulator: Emulator,
    hsm: SoftHsm,
    files: Folder,
    chain: String,
}

impl Bench {
    /// Without SoftHSM it ends the test: as a failure in CI, as a skip that says so elsewhere.
    fn new() -> Option<Self> {
        let files = Folder::new();
        let hsm = SoftHsm::new(files.path("").as_ref())?;
        let key = KeyPair::generate().unwrap();
        hsm.import("dev", "01", &key.serialize_pem());
        hsm.import("other", "02", &KeyPair::generate().unwrap().serialize_pem());
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "dev");
        let certificate = params.self_signed(&key).unwrap().pem();
        let chain = files.file("chain.pem", &certificate);
        let emulator = Emulator::configured(&format!(
            "[[enrollment]]\nregistration-id = \"dev\"\ncertificate = '''{certificate}'''\n"
        ));
        Some(Self { emulator, hsm, files, chain })
    }

    /// `dps register --json -vv` with this key.
    fn register(&self, transport: &str, key: &str) -> Command {
        let id = ["--registration-id", "dev", "-vv", "--cert", &self.chain, "--key", key];
        let mut command = self.emulator.register_over(transport, &id);
        command.env(SoftHsm::VARIABLE, self.hsm.config());
        command
    }
}

#[test]
fn a_key_in_a_token_registers_on_each_transport_and_its_pin_is_not_repeated() {
    let Some(bench) = Bench::new() else { return };
    let pin = bench.files.file("pin", format!("{}\n", SoftHsm::PIN));
    let module = SoftHsm::library().unwrap().display().to_string();
    for transport in TRANSPORTS {
        let ended = run(&mut bench.register(transport, &bench.hsm.uri("dev")));
        assert_eq!(text(&ended.assigned(), "deviceId"), "dev", "{transport}");
        assert!(!ended.stderr.contains("pin-value=1"), "{ended:?}");
    }
    let source = format!("pkcs11:object=dev?pin-source=file:{pin}");
    run(bench.register("http", &source).args(["--pkcs11-module", &module])).assigned();
    run(bench
        .register("http", "pkcs11:object=dev")
        .args(["--pkcs11-pin-file", &pin])
        .env("DPS_PKCS11_MODULE", &module))
    .assigned();
    run(bench
        .register("http", "pkcs11:object=dev")
        .env("DPS_PKCS11_PIN_FILE", &pin)
        .env("DPS_PKCS11_MODULE", &module))
    .assigned();
}

#[test]
fn what_is_wrong_with_a_token_or_its_uri_is_said_without_the_pin() {
    let Some(bench) = Bench::new() else { return };
    let module = SoftHsm::library().unwrap().display().to_string();
    for (uri, kind, says) in [
        (
            "pkcs11:object=dev?pin-value=PIN&module-path=MODULE",
            "credential",
            "the token \"dps\": it refused the PIN",
        ),
        (
            "pkcs11:token=no?pin-value=PIN&module-path=MODULE",
            "credential",
            "no token matches \"token=no\"; there is token=dps;serial=",
        ),
        (
            "pkcs11:object=dev?pin-value=PIN&module-path=/no/such.so",
            "credential",
            "the PKCS#11 module /no/such.so can't be loaded",
        ),
        ("pkcs11:object=dev?pin-value=PIN", "credential", "no PKCS#11 module is named"),
        (
            "pkcs11:object=dev?module-path=MODULE",
            "credential",
            "it wants a PIN, and none was given",
        ),
        (
            "pkcs11:object=no?pin-value=1234&module-path=MODULE",
            "credential",
            "no private key matches \"object=no\"; there is object=",
        ),
        (
            "pkcs11:object=other?pin-value=1234&module-path=MODULE",
            "configuration",
            "it is not the key of the certificate",
        ),
        (
            "pkcs11:objekt=dev?pin-value=PIN",
            "configuration",
            "--key: there is no attribute `objekt`",
        ),
        (
            "pkcs11:object=dev;pin-value=PIN",
            "configuration",
            "--key: `pin-value`: it belongs behind the `?`",
        ),
        (
            "pkcs11:object=dev?pin-value=PIN&PIN",
            "configuration",
            "--key: attribute 2 behind the `?` has no `=`",
        ),
        (
            "pkcs11:object=dev?pin-source=PIN",
            "configuration",
            "--key: `pin-source`: give `file:` and the path",
        ),
        (
            "pkcs11:object=dev?pin-source=file:/no/such",
            "configuration",
            "PIN file \"/no/such\": the file can't be read",
        ),
    ] {
        let uri = uri.replace("PIN", WRONG).replace("MODULE", &module);
        for (flag, given) in [(uri.as_str(), None), ("", Some(&uri))] {
            let mut command = bench.register("http", flag);
            if let Some(given) = given {
                let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
                let named = arguments.iter().position(|word| word == "--key").unwrap();
                let rest = [&arguments[..named], &arguments[named + 2..]].concat();
                command = crate::support::dps(&[]);
                command.args(rest).env(SoftHsm::VARIABLE, bench.hsm.config()).env("DPS_KEY", given);
            }
            let ended = run(&mut command);
            let error = ended.failed(kind);
            let says =
                if given.is_some() { says.replace("--key", "DPS_KEY") } else { says.to_owned() };
            assert!(text(&error, "message").contains(&says), "{uri}: {error}");
            assert_eq!(error["retryable"], false, "{error}");
            assert!(!format!("{ended:?}").contains(WRONG), "{uri}: {ended:?}");
        }
    }
    let error =
        run(bench.register("http", "pkcs11:object=dev").args(["--pkcs11-pin-file", "/no/such"]));
    let error = error.failed("configuration");
    assert!(
        text(&error, "message").starts_with("--pkcs11-pin-file \"/no/such\": the file"),
        "{error}"
    );
}

#[test]
fn a_uri_with_a_pin_is_handed_over_without_it() {
    let Some(bench) = Bench::new() else { return };
    let (toml, env) = (bench.files.path("config.toml"), bench.files.path("dps.env"));
    let outputs = ["--output", "iotedge-toml", &toml, "--output", "env", &env];
    let ended = run(bench.register("http", &bench.hsm.uri("dev")).args(outputs));
    assert_eq!(ended.code, 0, "{ended:?}");
    let uri = bench.hsm.uri("dev").replace(&format!("pin-value={}&", SoftHsm::PIN), "");
    for file in [toml, env] {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&uri) && !text.contains("pin-value"), "{file}: {text}");
    }
}

#[test]
fn an_issued_certificate_whose_key_is_in_a_token_is_handed_over_with_the_uri_of_the_key() {
    let Some(bench) = Bench::new() else { return };
    let emulator = Emulator::behaving("certificate-policy = \"issue\"\n");
    let (toml, folder) = (bench.files.path("config.toml"), bench.files.path("certificate"));
    let state = bench.files.path("assignment.json");
    let hub = format!("localhost:{}", emulator.ready["mqttPort"]);
    let uri = bench.hsm.uri("dev");
    // The second time the assignment is stored, and the given key would not be let in.
    for (source, key) in [("registered", KEY), ("stored", "d3Jvbmcga2V5IG9mIHRoZSBkZXZpY2UgZGV2")] {
        let mut command = emulator.register_dev_over("mqtt", &["--state", &state]);
        command.args(["--request-certificate", &folder, "--request-key", &uri]);
        command.args(["--output", "iotedge-toml", &toml, "--connect", "--hub-endpoint", &hub]);
        command.env("DPS_SYMMETRIC_KEY", key);
        let ended = run(command.env(SoftHsm::VARIABLE, bench.hsm.config()));
        let result = ended.json();
        assert_eq!((ended.code, text(&result, "source")), (0, source), "{ended:?}");
        let written = std::fs::read_to_string(&toml).unwrap();
        let name = uri.replace(&format!("pin-value={}&", SoftHsm::PIN), "");
        assert!(written.contains(&format!("identity_pk = \"{name}\"\n")), "{written}");
        assert!(written.contains(&format!("identity_cert = \"file://{folder}/chain.pem\"\n")));
    }
}
