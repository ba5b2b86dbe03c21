//! `dps cert renew`: a new pair in place of the former one, or the former one as it was.

use std::{
    collections::BTreeMap,
    fs,
    ops::RangeInclusive,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use dps_client::{CertificateFolder, GroupKey};
use dps_emulator::{
    Behavior, CaCertificates, CertificatePolicy, Emulator, Enrollment, EventKind, Fault,
    GroupAttestation, Method, RetryAfter,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    request_certificate::{openssl, verify_by_openssl},
    softhsm::SoftHsm,
    support::{Ended, Folder, KEY, Running, TRANSPORTS, closed_endpoint, dps, run, text},
};

const BOOTSTRAP: &str = "bootstrap";
const ISSUED: &str = "issued";

/// A service that knows its devices by a group key at first, and by the certificates that it has issued.
struct Service {
    emulator: Emulator,
    folder: Folder,
    ca: String,
    group_key: String,
    _runtime: Runtime,
}

impl Service {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let key: GroupKey = KEY.parse().unwrap();
        let bootstrap = Enrollment::group(BOOTSTRAP, GroupAttestation::symmetric_key(key))
            .certificate_policy(CertificatePolicy::issue_for_days(1));
        let emulator = Emulator::builder().enrollment(bootstrap).start();
        let emulator = runtime.block_on(emulator).unwrap();
        let ca = CaCertificates::from_pem(&emulator.issuing_ca_pem().unwrap()).unwrap();
        let issued = Enrollment::group(ISSUED, GroupAttestation::x509(ca))
            .certificate_policy(CertificatePolicy::issue_for_days(1));
        emulator.add_enrollment(issued).unwrap();
        let folder = Folder::new();
        let (ca, group_key) =
            (folder.file("ca.pem", emulator.ca_pem()), folder.file("group.key", KEY));
        Self { emulator, folder, ca, group_key, _runtime: runtime }
    }

    fn path(&self) -> String {
        self.folder.path("certificate")
    }

    fn stored(&self) -> CertificateFolder {
        CertificateFolder::open(self.path()).unwrap()
    }

    fn endpoint(&self, transport: &str) -> String {
        let port = match transport {
            "mqtt" => self.emulator.mqtt_port(),
            "amqp" => self.emulator.amqp_port(),
            _ => self.emulator.https_port(),
        };
        format!("localhost:{port}")
    }

    /// What both commands need to reach it.
    fn reached(&self, mut command: Command, transport: &str) -> Command {
        command.args(["--transport", transport, "--endpoint", &self.endpoint(transport)]);
        command.args(["--ca-file", &self.ca, "--id-scope", self.emulator.id_scope().as_str()]);
        command
    }

    fn registering(&self, transport: &str) -> Command {
        let path = self.path();
        let command = dps(&["register", "--json", "--request-certificate", &path]);
        let mut command = self.reached(command, transport);
        command.args(["--registration-id", "dev", "--group-key-file", &self.group_key]);
        command
    }

    fn register(&self, transport: &str) {
        let ended = run(&mut self.registering(transport));
        assert_eq!(ended.code, 0, "{transport}: {ended:?}");
    }

    fn renew(&self, transport: &str) -> Command {
        self.reached(dps(&["cert", "renew", &self.path(), "--json"]), transport)
    }

    /// How the devices proved who they are since then.
    fn methods_since(&self, sequence: u64) -> Vec<Method> {
        let events = self.emulator.events().since(sequence).into_iter();
        let methods = events.filter_map(|event| match event.kind {
            EventKind::Authenticated { method, .. } => Some(method),
            _ => None,
        });
        methods.collect()
    }

    /// Everything in the folder but the lock.
    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let names = ["chain.pem", "key.pem"];
        names
            .map(|name| (name.to_owned(), fs::read(Path::new(&self.path()).join(name)).unwrap()))
            .into()
    }
}

/// Checks when it is said that it is tried next.
fn try_next_within(hours: RangeInclusive<u64>, object: &Value) {
    let at = text(object, "tryNextAt").to_owned();
    let output = Command::new("date").args(["-d", &at, "+%s"]).output().unwrap();
    let seconds: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // The command ended some time ago.
    let within = now + hours.start() * 3600 - 300..=now + hours.end() * 3600;
    assert!(within.contains(&seconds), "{at} is not within {hours:?} hours of {now}");
}

#[test]
fn a_renewal_over_each_transport_brings_a_new_pair_by_the_former_one() {
    for transport in TRANSPORTS {
        let service = Service::start();
        service.register(transport);
        let mut former = service.content();
        for number in 2..4 {
            let before = service.emulator.events().len();
            let ended = run(&mut service.renew(transport));
            let object = ended.json();
            assert_eq!(ended.code, 0, "{transport}: {ended:?}");
            assert_eq!(object["registrationId"], "dev", "{transport}");
            assert_eq!(object["certificate"]["status"], "stored", "{transport}");
            assert_eq!(service.methods_since(before), [Method::X509], "{transport}");
            let new = service.content();
            assert!(new.iter().all(|(name, content)| former[name] != *content), "{transport}");
            verify_by_openssl(&service.folder, &format!("{}/chain.pem", service.path()));
            service.stored().load().unwrap().identity().unwrap();
            let pairs = fs::read_dir(format!("{}/pairs", service.path())).unwrap();
            let mut pairs: Vec<_> =
                pairs.map(|pair| pair.unwrap().file_name().into_string().unwrap()).collect();
            pairs.sort();
            assert_eq!(pairs, [(number - 1).to_string(), number.to_string()], "{transport}");
            former = new;
        }
        let before = service.emulator.events().len();
        let mut command = service.renew(transport);
        let ended = run(command.args(["--group-key-file", &service.group_key]));
        assert_eq!(ended.code, 0, "{transport}: {ended:?}");
        assert_eq!(service.methods_since(before), [Method::SymmetricKey], "{transport}");
        assert_ne!(service.content(), former, "{transport}");
    }
}

#[test]
fn a_renewal_that_fails_keeps_the_pair_and_says_when_to_try_next() {
    let service = Service::start();
    service.register("http");
    let former = service.content();
    let kept = |ended: &Ended| {
        assert_eq!(service.content(), former, "{ended:?}");
        assert_eq!(fs::read_dir(format!("{}/pairs", service.path())).unwrap().count(), 1);
    };

    let unreachable = |mut command: Command| {
        command.args(["cert", "renew", &service.path(), "--id-scope", "0ne00AABBCC"]);
        command.args(["--endpoint", &closed_endpoint()]);
        command
    };
    let ended = run(unreachable(dps(&[])).arg("--json"));
    assert_eq!(ended.code, 4, "{ended:?}");
    try_next_within(2..=4, &ended.json()["error"]);
    kept(&ended);
    let ended = run(&mut unreachable(dps(&[])));
    let says = ["the former certificate is valid until 20", "; try again at 20"];
    assert!(says.iter().all(|says| ended.stderr.contains(says)), "{ended:?}");

    let fault = Fault::refuse(429).retry_after(RetryAfter::Seconds(8 * 3600)).forever();
    service.emulator.set_behavior(ISSUED, Behavior::new().on_register(fault)).unwrap();
    let ended = run(&mut service.renew("http"));
    assert_eq!(ended.code, 7, "{ended:?}");
    try_next_within(8..=12, &ended.json()["error"]);
    kept(&ended);

    let fault = Fault::without("registrationState.issuedCertificateChain");
    service.emulator.set_behavior(ISSUED, Behavior::new().on_register(fault)).unwrap();
    let ended = run(&mut service.renew("http"));
    assert_eq!(ended.code, 9, "{ended:?}");
    assert_eq!(ended.json()["certificate"]["status"], "missing");
    try_next_within(2..=4, &ended.json()["certificate"]);
    kept(&ended);

    service.emulator.remove_enrollment(ISSUED).unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = authority.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let others = GroupAttestation::x509(CaCertificates::from_pem(&authority).unwrap());
    service.emulator.add_enrollment(Enrollment::group("others", others)).unwrap();
    let ended = run(&mut service.renew("http"));
    assert_eq!(ended.code, 3, "{ended:?}");
    let error = &ended.json()["error"];
    assert!(text(error, "hint").contains("the device was shipped with; give that"), "{error}");
    try_next_within(2..=4, error);
    kept(&ended);

    service.emulator.set_enabled(BOOTSTRAP, false).unwrap();
    let mut command = service.renew("http");
    let ended = run(command.args(["--group-key-file", &service.group_key]));
    assert_eq!(ended.code, 3, "{ended:?}");
    try_next_within(2..=4, &ended.json()["error"]);
    kept(&ended);
}

#[test]
fn a_renewal_that_moves_the_device_is_kept_and_handed_over() {
    let service = Service::start();
    let files = Folder::new();
    let [state, env] = ["s.json", "dps.env"].map(|name| files.path(name));
    let with_state = |mut command: Command| {
        command.args(["--state", &state]);
        command
    };
    let first = run(&mut with_state(service.registering("http"))).json();
    let former = service.content();
    let hook = format!("printf %s \"$DPS_ASSIGNED_HUB\" > '{}'", files.path("hub"));
    let mut command = with_state(service.renew("http"));
    command.args(["--output", "env", &env]).env("DPS_EXEC", &hook);
    let ended = run(&mut command);
    assert_eq!(ended.code, 0, "{ended:?}");
    let renewed = ended.json();
    assert_eq!(renewed["source"], "registered", "{renewed}");
    assert_ne!(service.content(), former);
    let env = fs::read_to_string(&env).unwrap();
    let hub = text(&renewed, "assignedHub");
    assert!(env.contains(&format!("DPS_ASSIGNED_HUB='{hub}'")), "{env}");
    assert_eq!(fs::read_to_string(files.path("hub")).unwrap(), hub);
    let kept = run(&mut with_state(service.registering("http"))).json();
    assert_eq!((&kept["source"], &kept["assignedHub"]), (&json!("stored"), &json!(hub)), "{kept}");
    assert_ne!(kept["operationId"], first["operationId"], "what the renewal brought is kept");
    for flags in [["--exec", "true"], ["--state", "s.json"]] {
        let ended = run(service.renew("http").args(["--hub", "hub.localhost"]).args(flags));
        assert_eq!(ended.code, 2, "{flags:?}: {ended:?}");
    }
}

#[test]
fn what_is_missing_for_a_renewal_is_said_before_anything_is_sent() {
    let service = Service::start();
    let none = run(&mut service.renew("http")).failed("configuration");
    let says = "no certificate was stored in it yet; `dps register --request-certificate` gets";
    assert!(text(&none, "message").contains(says), "{none}");
    assert!(!Path::new(&service.path()).exists());
    service.register("http");
    let lock = service.stored().prepare().unwrap();
    let locked = run(&mut service.renew("http")).failed("configuration");
    assert!(text(&locked, "message").contains("another process has the lock"), "{locked}");
    drop(lock);
    let hub = run(service.renew("http").args(["--hub", ""])).failed("configuration");
    assert!(text(&hub, "message").starts_with("--hub: "), "{hub}");
    let scope = run(&mut dps(&["cert", "renew", "--json", &service.path()]));
    let scope = scope.failed("configuration");
    assert!(text(&scope, "message").contains("--id-scope: it is missing"), "{scope}");

    let expired = Folder::new();
    let path = expired.path("certificate");
    crate::cert::store(&expired, Duration::from_secs(7200), Duration::from_secs(3600));
    let command = dps(&["cert", "renew", "--json", &path]);
    let error = run(&mut service.reached(command, "http")).failed("configuration");
    let says = "its certificate expired at 20";
    assert!(text(&error, "message").contains(says), "{error}");
    assert!(text(&error, "message").contains("--symmetric-key-file"), "{error}");
    let mut command = service.reached(dps(&["cert", "renew", "--json", &path]), "http");
    let ended = run(command.args(["--group-key-file", &service.group_key]));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.json()["registrationId"], "pump-17");
}

#[test]
fn a_renewal_that_is_killed_at_any_moment_leaves_a_pair_that_loads() {
    let service = Service::start();
    service.register("http");
    let start = Instant::now();
    assert_eq!(run(&mut service.renew("http")).code, 0);
    let whole = start.elapsed();
    let (mut ended, mut killed) = (0, 0);
    for number in 0..50 {
        let mut running = Running::start(&mut service.renew("http"));
        // A moment within a renewal, another one each time.
        let moment = Instant::now() + whole.mul_f64(f64::from(number * 31 % 50) / 50.0);
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        running.child().kill().unwrap();
        match running.status().success() {
            true => ended += 1,
            false => killed += 1,
        }
        service.stored().load().unwrap().identity().unwrap();
    }
    assert!(killed > 0, "{ended} came to their end first");
    assert_eq!(run(&mut service.renew("http")).code, 0);
    assert_eq!(fs::read_dir(format!("{}/pairs", service.path())).unwrap().count(), 2);
}

/// The lines of a unit that have this key, with the specifiers of the instance `certificate` replaced.
fn lines(unit: &str, key: &str, state: &str) -> Vec<String> {
    let text = fs::read_to_string(unit).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let lines = lines.map(|line| {
        let line =
            line.replace("%S/dps/%i", state).replace("/usr/bin/dps", env!("CARGO_BIN_EXE_dps"));
        line.replace("$$", "$")
    });
    lines.collect()
}

#[test]
fn the_units_for_systemd_are_sound_and_their_commands_renew_when_it_is_due() {
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd");
    let service = Service::start();
    let [unit, timer] = ["service", "timer"].map(|kind| format!("dps-cert-renew@.{kind}"));
    for name in [&unit, &timer] {
        let text = fs::read_to_string(format!("{units}/{name}")).unwrap();
        service.folder.file(name, text.replace("/usr/bin/dps", env!("CARGO_BIN_EXE_dps")));
    }
    let agent = fs::read_to_string(format!("{units}/dps-agent@.service")).unwrap();
    let agent = agent.replace("/usr/bin/dps", env!("CARGO_BIN_EXE_dps"));
    service.folder.file("dps-agent@.service", agent);
    // Where systemd is not there, the commands are still run.
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    verify.args([service.folder.path("dps-agent@pump.service")]);
    verify.args([service.folder.path("dps-cert-renew@pump.service")]);
    verify.args([service.folder.path("dps-cert-renew@pump.timer")]);
    if let Ok(output) = verify.output() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("/dps-"), "{said}");
    }

    let unit = format!("{units}/{unit}");
    let environment = [
        ("DPS_ID_SCOPE", service.emulator.id_scope().to_string()),
        ("DPS_ENDPOINT", service.endpoint("http")),
        ("DPS_CA_FILE", service.ca.clone()),
    ];
    let ran = |key| {
        let [line] = &lines(&unit, key, &service.path())[..] else { panic!("{key}") };
        let mut command = Command::new("sh");
        command.args(["-c", line]).envs(environment.iter().map(|(name, value)| (name, value)));
        run(&mut command)
    };
    // There is none: that must not pass for one that is not due.
    assert_eq!(ran("ExecCondition").code, 0);
    let none = ran("ExecStart");
    assert!(none.code == 2 && none.stderr.contains("no certificate was stored"), "{none:?}");
    service.register("http");
    assert_eq!(ran("ExecCondition").code, 1);
    let former = service.content();
    let renewed = ran("ExecStart");
    assert_eq!(renewed.code, 0, "{renewed:?}");
    assert_ne!(service.content(), former);
}

#[test]
fn a_key_in_a_token_stays_there_and_renews_its_certificate() {
    let service = Service::start();
    let files = Folder::new();
    let Some(hsm) = SoftHsm::new(files.path("").as_ref()) else { return };
    let key = KeyPair::generate().unwrap();
    hsm.import("dev", "01", &key.serialize_pem());
    let uri = hsm.uri("dev");
    let by_token = |mut command: Command| {
        command.args(["-vv", "--request-key", &uri]).env(SoftHsm::VARIABLE, hsm.config());
        command
    };
    let folder = CertificateFolder::open(service.path()).unwrap();
    let mut former = Vec::new();
    for transport in TRANSPORTS {
        let registered = folder.load().is_ok();
        let ended = run(&mut by_token(match registered {
            true => service.renew(transport),
            false => service.registering(transport),
        }));
        assert_eq!(ended.code, 0, "{transport}: {ended:?}");
        assert_eq!(ended.json()["certificate"]["keyFile"], Value::Null, "{ended:?}");
        assert!(!ended.stderr.contains("pin-value=1"), "{ended:?}");
        let stored = folder.load().unwrap();
        assert!(stored.key_pem().is_none() && !folder.key_path().exists(), "{transport}");
        assert_ne!(stored.chain_pem(), former, "{transport}");
        former = stored.chain_pem().to_vec();
        verify_by_openssl(&service.folder, &folder.chain_path().display().to_string());
    }
    let status = run(&mut dps(&["cert", "status", "--json", &service.path()])).json();
    assert_eq!((&status["keyFile"], &status["keyFits"]), (&Value::Null, &Value::Null));
    let lines = run(&mut dps(&["cert", "status", &service.path()])).stdout;
    assert!(lines.ends_with("key         not stored here\n"), "{lines}");
    let error = run(&mut service.renew("http")).failed("configuration");
    assert!(text(&error, "message").contains("say with --request-key where it is"), "{error}");
    assert_eq!(folder.load().unwrap().chain_pem(), former);
}

#[test]
fn a_key_that_is_given_is_the_one_of_the_certificate() {
    let service = Service::start();
    let pem = KeyPair::generate().unwrap().serialize_pem();
    let key = service.folder.file("own.key", &pem);
    let ended = run(service.registering("http").args(["--request-key", &key]));
    assert_eq!(ended.code, 0, "{ended:?}");
    let public = |file: &str| openssl(&["pkey", "-pubout", "-in", file]);
    assert_eq!(public(&key), public(&format!("{}/key.pem", service.path())));
    let ended = run(service.renew("http").env("DPS_REQUEST_KEY", &key));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(public(&key), public(&format!("{}/key.pem", service.path())));
    let ended = run(&mut service.renew("http"));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_ne!(public(&key), public(&format!("{}/key.pem", service.path())));

    let former = service.content();
    let refused = |given: &str, kind: &str, says: &str| {
        let error = run(service.renew("http").args(["--request-key", given])).failed(kind);
        assert!(text(&error, "message").contains(says), "{says}: {error}");
        assert_eq!(service.content(), former);
    };
    refused("/no/such", "configuration", "--request-key \"/no/such\": the file can't be read");
    refused(&service.group_key, "configuration", "--request-key");
    refused("tpm:7", "configuration", "--request-key");
    let command = dps(&["register", "--json", "--registration-id", "dev", "--request-key", &key]);
    let mut command = service.reached(command, "http");
    let error = run(command.args(["--group-key-file", &service.group_key]));
    let error = error.failed("configuration");
    assert!(text(&error, "message").contains("it needs --request-certificate too"), "{error}");
}
