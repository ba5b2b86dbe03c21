//! The service in a process of its own: this program once more, controlled by a pipe.
//!
//! The first line in is the [`Plan`], the first line out is what a client must know. Then each line in is a request
//! about the process, and the line out its answer. The process ends with its input.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _, stdin, stdout},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dps_client::Transport;
use dps_conformance::config_for;
use dps_emulator::{
    Attestation, CaCertificates, Emulator, Enrollment, GroupAttestation, GroupKey, Limits,
    SymmetricKey,
};
use serde_json::{Value, json};

use crate::{
    HEAP, Result,
    process_usage::{Inside, ProcessUsage},
    registration_kinds::Kind,
};

/// The word that makes this program the service.
pub(crate) const COMMAND: &str = "service";

/// What the service is to be.
pub(crate) struct Plan {
    /// The most connections at once.
    pub(crate) max_connections: usize,
    /// The time for a handshake, for a head, and for a body; `None`: the emulator's own defaults.
    pub(crate) patience: Option<Duration>,
    /// The most descriptors of the process; `None`: those of this one.
    pub(crate) descriptors: Option<usize>,
    /// Who vouches for devices with certificates.
    pub(crate) group_ca: String,
}

/// A running service.
pub(crate) struct Service {
    child: Child,
    pipes: Mutex<Option<Pipes>>,
    pub(crate) id_scope: String,
    pub(crate) ca_pem: String,
    ports: BTreeMap<String, u16>,
    keys: BTreeMap<String, String>,
}

/// Where it is asked, and where it answers.
struct Pipes {
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Service {
    /// Starts it and waits until it serves.
    pub(crate) fn start(plan: &Plan) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = match plan.descriptors {
            None => Command::new(program),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
                shell.arg(program);
                shell
            }
        };
        let mut child =
            command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut requests = child.stdin.take().ok_or("a child without an input")?;
        let mut answers = BufReader::new(child.stdout.take().ok_or("a child without an output")?);
        let patience = plan.patience.map(|patience| patience.as_millis());
        let request = json!([plan.max_connections, patience, plan.group_ca]);
        writeln!(requests, "{request}")?;
        let ready: Value = serde_json::from_str(&line(&mut answers)?)?;
        let text = |name: &str| ready.get(name).and_then(Value::as_str).unwrap_or_default();
        let part = |name: &str| ready.get(name).cloned().unwrap_or_default();
        Ok(Self {
            id_scope: text("idScope").to_owned(),
            ca_pem: text("caPem").to_owned(),
            ports: serde_json::from_value(part("ports"))?,
            keys: serde_json::from_value(part("keys"))?,
            child,
            pipes: Mutex::new(Some(Pipes { requests, answers })),
        })
    }

    /// Where a transport is served.
    pub(crate) fn port(&self, transport: Transport) -> Result<u16> {
        let port = self.ports.get(transport.as_str()).copied();
        port.ok_or_else(|| format!("{transport} is not served").into())
    }

    /// The group key of the devices of a kind.
    pub(crate) fn key(&self, kind: Kind) -> Result<&str> {
        let key = self.keys.get(kind.name()).map(String::as_str);
        key.ok_or_else(|| format!("there is no group for {}", kind.name()).into())
    }

    /// The service's process now.
    pub(crate) fn process_usage(&self) -> Result<ProcessUsage> {
        let inside = self.ask("process_usage")?;
        ProcessUsage::of_process(self.child.id(), serde_json::from_str(&inside)?)
    }

    /// From now on the peak is of what comes.
    pub(crate) fn reset_peak(&self) -> Result<()> {
        self.ask("reset-peak").map(drop)
    }

    fn ask(&self, request: &str) -> Result<String> {
        let mut pipes = self.pipes();
        let Pipes { requests, answers } = pipes.as_mut().ok_or("the service is over")?;
        writeln!(requests, "{request}").map_err(|error| format!("the service is gone: {error}"))?;
        line(answers)
    }

    fn pipes(&self) -> MutexGuard<'_, Option<Pipes>> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The end of its input is the end of the service; should it hang, it goes all the same.
        drop(self.pipes().take());
        for _ in 0..200 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    match answers.read_line(&mut line)? {
        0 => Err("the service has died".into()),
        _ => Ok(line),
    }
}

/// The service's side.
pub(crate) fn run() -> Result<()> {
    let mut requests = stdin().lock().lines();
    let plan = requests.next().ok_or("no plan")??;
    let (max_connections, patience, group_ca): (usize, Option<u64>, String) =
        serde_json::from_str(&plan)?;
    let mut limits = Limits::default();
    limits.max_connections = max_connections;
    if let Some(patience) = patience.map(Duration::from_millis) {
        limits.handshake_timeout = patience;
        limits.idle_timeout = patience;
        limits.body_timeout = patience;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (emulator, keys) = runtime.block_on(start(limits, &group_ca))?;
    let mut answers = stdout().lock();
    writeln!(answers, "{}", ready(&emulator, &keys)?)?;
    for request in requests {
        if request? == "reset-peak" {
            HEAP.reset_peak_usage();
        }
        let inside = serde_json::to_string(&Inside::of_this_process(runtime.handle()).0)?;
        writeln!(answers, "{inside}")?;
    }
    runtime.block_on(emulator.stop());
    Ok(())
}

/// One group for each kind of registration, one for devices with certificates, and one device on its own.
async fn start(limits: Limits, group_ca: &str) -> Result<(Emulator, BTreeMap<String, GroupKey>)> {
    let mut config = Emulator::builder().limits(limits).admin_port(0);
    let mut keys = BTreeMap::new();
    for kind in Kind::ALL {
        let key = GroupKey::random()?;
        let group = GroupAttestation::symmetric_key(key.clone());
        let mut enrollment = Enrollment::group(kind.name(), group).behavior(kind.behavior());
        if kind == Kind::Disabled {
            enrollment = enrollment.disabled();
        }
        config = config.enrollment(enrollment);
        keys.insert(kind.name().to_owned(), key);
    }
    let ca = GroupAttestation::x509(CaCertificates::from_pem(group_ca)?);
    let alone = Attestation::symmetric_key(SymmetricKey::random()?);
    let emulator = config
        .enrollment(Enrollment::group("certificates", ca))
        .enrollment(Enrollment::individual(Kind::LOCKED_OUT.parse()?, alone))
        .start()
        .await?;
    Ok((emulator, keys))
}

fn ready(emulator: &Emulator, keys: &BTreeMap<String, GroupKey>) -> Result<Value> {
    let throwaway = SymmetricKey::random()?;
    let ports: BTreeMap<&str, Option<u16>> = Transport::ALL
        .into_iter()
        .filter(|transport| transport.is_built())
        .map(|transport| {
            let config = config_for(emulator, transport, throwaway.clone().into());
            (transport.as_str(), config.endpoint.port())
        })
        .collect();
    let keys: BTreeMap<&str, String> =
        keys.iter().map(|(name, key)| (name.as_str(), key.expose_base64().to_string())).collect();
    Ok(json!({
        "ports": ports,
        "keys": keys,
        "idScope": emulator.id_scope().as_str(),
        "caPem": emulator.ca_pem(),
    }))
}
