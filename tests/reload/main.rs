//! Certificates and keys that are replaced on disk while the program runs: the next handshake takes them, and what is
//! half written takes nothing away. Each case runs on every transport; the emulator tells which certificate it was shown.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod renewals;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

use dps_client::{
    Attestation, Client, Config, Error, ErrorKind, RegistrationRequest, Step, SymmetricKeyFile,
    Transport, X509Files, client,
};
use dps_conformance::{
    Authority, DEVICE, Device, config_for, fast, run_on_every_transport, settle, transport_case,
};
use dps_emulator::{
    Behavior, CaCertificates, Delivery, Emulator, Enrollment, EventKind, Fault, GroupAttestation,
    Operation, SymmetricKey, Thumbprint,
};

use crate::renewals::no_renewal_of_many_in_a_row_fails;

fn main() -> ExitCode {
    // Most of a case's time is waiting.
    run_on_every_transport(
        8,
        [
            transport_case!(a_replaced_pair_is_shown_at_the_next_handshake),
            transport_case!(a_half_written_pair_leaves_the_old_one_in_use),
            transport_case!(a_deleted_pair_leaves_the_old_one_in_use),
            transport_case!(renamed_files_are_taken),
            transport_case!(a_session_that_loses_its_connection_goes_on_with_the_new_pair),
            transport_case!(what_would_be_sent_is_checked_before_any_io),
            transport_case!(a_replaced_symmetric_key_signs_the_next_token),
            transport_case!(no_renewal_of_many_in_a_row_fails),
        ],
        [],
    )
}

/// A service that knows a factory, and a device whose identity is in two files.
struct Bench {
    transport: Transport,
    line: Authority,
    emulator: Emulator,
    chain: PathBuf,
    key: PathBuf,
    config: Config,
    /// Whose identity was written first.
    first: Device,
}

impl Bench {
    async fn new(transport: Transport, case: &str) -> Self {
        Self::behaving(transport, case, Behavior::new()).await
    }

    async fn behaving(transport: Transport, case: &str, behavior: Behavior) -> Self {
        let root = Authority::root("Factory root");
        let line = root.intermediate("Line 4");
        let ca = CaCertificates::from_pem(&root.pem).unwrap();
        let factory = Enrollment::group("factory", GroupAttestation::x509(ca)).behavior(behavior);
        let emulator = Emulator::builder().enrollment(factory).start().await.unwrap();
        let first = line.device(DEVICE).with_chain([&line]);
        let folder = folder(transport, case);
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        fs::write(&chain, first.chain_pem()).unwrap();
        fs::write(&key, first.key_pem()).unwrap();
        let attestation: Attestation = X509Files::open(&chain, &key).unwrap().into();
        let config = config_for(&emulator, transport, attestation);
        Self { transport, line, emulator, chain, key, config, first }
    }

    fn another_device(&self) -> Device {
        self.line.device(DEVICE).with_chain([&self.line])
    }

    fn client(&self) -> Client {
        client(self.transport, self.config.clone(), fast()).unwrap()
    }

    /// Registers on a connection of its own, and says which certificates were shown.
    async fn shown_by(&self, client: &Client) -> Vec<String> {
        let before = self.emulator.events().len();
        register(client).await.unwrap();
        settle(client).await;
        self.shown_since(before)
    }

    /// The thumbprints of the certificates that the emulator was shown.
    fn shown_since(&self, sequence: u64) -> Vec<String> {
        let events = self.emulator.events().since(sequence).into_iter();
        events
            .filter_map(|event| match event.kind {
                EventKind::TlsEstablished { thumbprint, .. } => thumbprint,
                _ => None,
            })
            .collect()
    }
}

fn folder(transport: Transport, case: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{case}-{transport}"));
    let _none_yet = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

async fn register(client: &Client) -> Result<dps_client::RegistrationResult, Error> {
    client.register(RegistrationRequest::new(DEVICE.parse().unwrap())).await
}

/// The one certificate that is to be shown.
fn only(device: &Device) -> Vec<String> {
    vec![Thumbprint::of_pem(&device.certificate).unwrap().to_string()]
}

async fn a_replaced_pair_is_shown_at_the_next_handshake(transport: Transport) {
    let bench = Bench::new(transport, "replaced").await;
    let client = bench.client();
    assert_eq!(bench.shown_by(&client).await, only(&bench.first));
    assert_eq!(bench.shown_by(&client).await, only(&bench.first));
    let mut second = bench.another_device();
    for _ in 0..3 {
        fs::write(&bench.chain, second.chain_pem()).unwrap();
        fs::write(&bench.key, second.key_pem()).unwrap();
        // On the very same client, and again: a resumed TLS session would go on as the old one.
        assert_eq!(bench.shown_by(&client).await, only(&second));
        assert_eq!(bench.shown_by(&client).await, only(&second));
        second = bench.another_device();
    }
}

async fn a_half_written_pair_leaves_the_old_one_in_use(transport: Transport) {
    let bench = Bench::new(transport, "half").await;
    let client = bench.client();
    assert_eq!(bench.shown_by(&client).await, only(&bench.first));
    let second = bench.another_device();
    let (chain, key) = (second.chain_pem(), second.key_pem());
    let half = |text: &str| text[..text.len() / 2].to_owned();
    for (chain_file, key_file) in [
        (None, Some(half(key))),
        (None, Some(key.to_owned())),
        (Some(String::new()), None),
        (Some(half(&second.certificate)), None),
        // The leaf is there, the intermediate is not yet.
        (Some(second.certificate.clone()), None),
        (Some(format!("{}{}", second.certificate, half(&second.chain))), None),
        (Some(chain.clone()), Some(half(key))),
    ] {
        for (file, content) in [(&bench.chain, &chain_file), (&bench.key, &key_file)] {
            if let Some(content) = content {
                fs::write(file, content).unwrap();
            }
        }
        assert_eq!(
            bench.shown_by(&client).await,
            only(&bench.first),
            "{chain_file:?} {key_file:?}"
        );
    }
    fs::write(&bench.key, key).unwrap();
    assert_eq!(bench.shown_by(&client).await, only(&second));
}

async fn a_deleted_pair_leaves_the_old_one_in_use(transport: Transport) {
    let bench = Bench::new(transport, "deleted").await;
    let client = bench.client();
    fs::remove_file(&bench.chain).unwrap();
    assert_eq!(bench.shown_by(&client).await, only(&bench.first));
    fs::remove_file(&bench.key).unwrap();
    assert_eq!(bench.shown_by(&client).await, only(&bench.first));
    let second = bench.another_device();
    fs::write(&bench.key, second.key_pem()).unwrap();
    assert_eq!(bench.shown_by(&client).await, only(&bench.first));
    fs::write(&bench.chain, second.chain_pem()).unwrap();
    assert_eq!(bench.shown_by(&client).await, only(&second));
}

async fn renamed_files_are_taken(transport: Transport) {
    let bench = Bench::new(transport, "renamed").await;
    let client = bench.client();
    let second = bench.another_device();
    for (file, content) in
        [(&bench.chain, second.chain_pem()), (&bench.key, second.key_pem().into())]
    {
        assert_eq!(bench.shown_by(&client).await, only(&bench.first));
        fs::write(file.with_extension("new"), content).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }
    assert_eq!(bench.shown_by(&client).await, only(&second));
}

async fn a_session_that_loses_its_connection_goes_on_with_the_new_pair(transport: Transport) {
    let lost = Behavior::new().polls(2).on_register(Fault::deliver(Delivery::CloseAfter));
    let bench = Bench::behaving(transport, "lost", lost).await;
    let second = bench.another_device();
    // Written while the first connection stands: it keeps the identity that it was made with.
    let files = (bench.chain.clone(), bench.key.clone());
    let contents = Mutex::new(Some((second.chain_pem(), second.key_pem().to_owned())));
    let client = bench.client();
    client.observe(move |step: &Step| {
        if matches!(step, Step::Assigning { .. })
            && let Some((chain, key)) = contents.lock().unwrap().take()
        {
            fs::write(&files.0, chain).unwrap();
            fs::write(&files.1, key).unwrap();
        }
    });
    let shown = bench.shown_by(&client).await;
    assert_eq!(shown, [only(&bench.first), only(&second)].concat());
    let queries = bench.emulator.events().snapshot();
    assert!(queries.iter().any(|event| event.is_request(Operation::Query)), "it was polled");
}

async fn what_would_be_sent_is_checked_before_any_io(transport: Transport) {
    let bench = Bench::new(transport, "preflight").await;
    let client = bench.client();
    let foreign = bench.line.device("dev-2").with_chain([&bench.line]);
    fs::write(&bench.chain, foreign.chain_pem()).unwrap();
    fs::write(&bench.key, foreign.key_pem()).unwrap();
    let error = register(&client).await.unwrap_err();
    settle(&client).await;
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("CN=dev-2"), "{error}");
    assert!(bench.emulator.events().is_empty(), "nothing was sent");
    fs::write(&bench.chain, bench.first.chain_pem()).unwrap();
    fs::write(&bench.key, bench.first.key_pem()).unwrap();
    assert_eq!(bench.shown_by(&client).await, only(&bench.first));
}

async fn a_replaced_symmetric_key_signs_the_next_token(transport: Transport) {
    let enrolled = |key: &SymmetricKey| {
        let attestation = dps_emulator::Attestation::symmetric_key(key.clone());
        Enrollment::individual(DEVICE.parse().unwrap(), attestation)
    };
    let (old, new) = (SymmetricKey::random().unwrap(), SymmetricKey::random().unwrap());
    let emulator = Emulator::builder().enrollment(enrolled(&old)).start().await.unwrap();
    let file = folder(transport, "key").join("device.key");
    fs::write(&file, &*old.expose_base64()).unwrap();
    let attestation = SymmetricKeyFile::open(&file).unwrap().into();
    let client = client(transport, config_for(&emulator, transport, attestation), fast()).unwrap();
    let attempt = async || {
        let outcome = register(&client).await;
        settle(&client).await;
        outcome.map(drop)
    };
    attempt().await.unwrap();
    let text = new.expose_base64();
    for damaged in ["", &text[..43], &text[..44], &text[..text.len() - 1]] {
        fs::write(&file, damaged).unwrap();
        attempt().await.unwrap();
    }
    fs::remove_file(&file).unwrap();
    attempt().await.unwrap();

    emulator.remove_enrollment(DEVICE).unwrap();
    emulator.add_enrollment(enrolled(&new)).unwrap();
    let error = attempt().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    fs::write(&file, &*text).unwrap();
    attempt().await.unwrap();
}
