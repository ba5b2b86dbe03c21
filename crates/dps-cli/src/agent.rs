//! `dps agent`: one process that owns the device's identity, for programs in any language.

#[cfg_attr(not(unix), path = "agent/no_service_manager.rs")]
mod service_manager;

use std::{
    path::Path,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dps_client::{CertificateFolder, Error, ErrorKind, Printable};
use dps_provisioner::{
    Agent, Assignment, AssignmentFile, Backoff, NextStep, Order, RecoveryPolicy, Surroundings,
};
use tokio::time::{Instant, interval, sleep, sleep_until};

use self::service_manager::{ServiceManager, Signals};
use crate::{
    files::Source,
    given::{self, Given, named, wrong},
    handover::{self, Handed, HandoverFlags},
    interrupt::Interrupts,
    kept::{self, Kept},
    progress::Progress,
    proof::Proofs,
    register::{Plan, Registration},
    report::{self, Context, Reporter, Success},
};

const DETAILS: &str = "\
It registers the device unless an assignment is stored, and runs until
SIGTERM. A certificate in the folder of --request-certificate is renewed at
two thirds of its life. A registration or a renewal that fails is tried again,
less and less often. It is told by signals:

  SIGHUP   register again, a minute after the last attempt at the earliest
  SIGUSR1  the hub refused the device: it registers again in 5 minutes, and
           after each refusal that follows a registration in twice the time,
           up to an hour; a signal meanwhile changes nothing
  SIGUSR2  the hub let the device in: none of that is due any more

A key, a certificate or a flag that was changed takes a restart.

After each registration, and at the start if an assignment is stored, it
writes assignment.json, as `dps register --json` prints it, and device.env,
with DPS_ASSIGNED_HUB and more, into the folder of --output-dir, and what
--output names; then it runs the command of --exec, which is killed after
five minutes. What of that fails is tried again, less and less often. To
systemd it says when the files are written, before the command runs, what it
does, and that it is alive. A file that is in the folder of LoadCredential=
need only be named. All other flags are those of `dps register`.

Exit codes: 0 when it was told to end, 2 when it can't begin.

Examples:
  dps agent --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --state pump-17.json --output-dir run
  systemctl enable --now dps-agent@pump";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    /// File that keeps the assignment; without it assignment.json in the folder STATE_DIRECTORY, which systemd names
    #[arg(long, value_name = "FILE")]
    state: Option<String>,
    /// Folder for assignment.json and device.env; without it RUNTIME_DIRECTORY, which systemd names
    #[arg(long, value_name = "DIR")]
    output_dir: Option<String>,
    /// Folder for a certificate that the service issues, and which is renewed
    #[arg(long, value_name = "DIR")]
    request_certificate: Option<String>,
    #[command(flatten)]
    handover: HandoverFlags,
    #[command(flatten)]
    registration: Registration,
}

/// The name of the file that is written, and of the one that is kept if no other is given.
const ASSIGNMENT: &str = "assignment.json";

/// How long a command of `--exec` may take. One that hung would keep the agent from renewing the certificate.
const COMMAND_TIME: Duration = Duration::from_secs(300);

/// When what failed of handing over is tried again.
const TRY_AGAIN: Backoff = Backoff {
    initial: Duration::from_secs(1),
    cap: Duration::from_secs(3600),
    jitter: 0.0,
    max_attempts: None,
};

/// When a service manager that had no room is told again.
const SAY_AGAIN: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    arguments.registration.run(|| arguments.plan())
}

impl Arguments {
    fn plan(&self) -> Result<Plan, Error> {
        let state = match kept::file(self.state.as_ref())? {
            Some(state) => state,
            None => {
                let folder = given::variable("STATE_DIRECTORY")?.ok_or_else(|| {
                    wrong(
                        given::STATE.flag,
                        "",
                        "it is missing; name the file that keeps the assignment",
                    )
                })?;
                AssignmentFile::new(Path::new(first(&folder)).join(ASSIGNMENT))?
            }
        };
        let output_dir = given::OUTPUT_DIR.find(self.output_dir.as_ref())?;
        let runtime = given::variable("RUNTIME_DIRECTORY")?;
        let runtime = runtime
            .map(|folders| Given { from: "RUNTIME_DIRECTORY", text: first(&folders).to_owned() });
        let files = output_dir.or(runtime).map(|Given { from, text }| {
            if !Path::new(&text).is_dir() {
                return Err(wrong(from, &text, "there is no such folder; make it"));
            }
            let file = |format: &str, name| {
                let path = Path::new(&text).join(name).display().to_string();
                (format.to_owned(), Source { from, path })
            };
            Ok(vec![file("json", ASSIGNMENT), file("env", "device.env")])
        });
        let files = files.transpose()?.unwrap_or_default();
        let handover = self.handover.plan_with(self.registration.wants_json()?, files, true)?;
        let certificate = given::REQUEST_CERTIFICATE.find(self.request_certificate.as_ref())?;
        let certificate = certificate.map(|given| {
            CertificateFolder::open(&given.text).map_err(|error| named(given.from, "", error))
        });
        Ok(Plan::agent(state, certificate.transpose()?, handover))
    }
}

/// systemd names several folders with colons between them.
fn first(folders: &str) -> &str {
    folders.split(':').next().unwrap_or(folders)
}

/// Whether what ended the preparations may be gone later, as with a TPM or a token that comes late.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::Credential
}

/// Says that it failed so, for the time of this number in a row, and when it is tried again.
pub(crate) fn try_again(
    error: &Error,
    failures: u32,
    reporter: Reporter,
    context: &Context,
) -> Duration {
    let wait = wait_after(error, failures);
    say_failed(error, wait, reporter, context, &ServiceManager::from_environment());
    wait
}

/// How long the preparations wait that failed so, for the time of this number in a row. A TPM that comes late is there within
/// seconds. One that refuses a password counts that, and locks itself when it is tried each minute.
fn wait_after(error: &Error, failures: u32) -> Duration {
    let RecoveryPolicy { reconnect, recover, .. } = RecoveryPolicy::default();
    let cap = if error.is_retryable() { reconnect.cap } else { recover.cap };
    Backoff { cap, ..reconnect }.wait(failures, 0.0).unwrap_or(cap)
}

fn say_failed(
    error: &Error,
    retry_in: Duration,
    reporter: Reporter,
    context: &Context,
    manager: &ServiceManager,
) {
    let seconds = report::whole_seconds(retry_in);
    // How it failed is said as `dps register` says it; the exit code is of no use here.
    let _ = reporter.failed(error, context);
    report::warn(&format!("it is tried again in {seconds} s"));
    let error = Printable::brief(&error.to_string()).to_string();
    manager.say(&format!("STATUS={error}; tried again in {seconds} s"));
}

/// From now on no signal that tells the agent something ends it.
pub(crate) fn listen() -> Result<Signals, Error> {
    Signals::listen().map_err(|error| wrong("SIGHUP, SIGUSR1, SIGUSR2", "", &error.to_string()))
}

/// Runs until it is told to end.
pub(crate) async fn keep(mut agent: Agent, mut around: Around) -> ExitCode {
    let manager = Rc::clone(&around.manager);
    manager.say("STATUS=looking for the assignment");
    // Who runs the agent's loop also says that it is alive.
    let alive = async {
        match manager.watchdog() {
            None => std::future::pending().await,
            Some(every) => {
                let mut ticks = interval(every);
                loop {
                    ticks.tick().await;
                    manager.say("WATCHDOG=1");
                }
            }
        }
    };
    tokio::select! {
        () = agent.run(&mut around) => {}
        () = alive => {}
    }
    manager.say("STOPPING=1");
    ExitCode::SUCCESS
}

/// What tells the agent and what it tells.
pub(crate) struct Around {
    reporter: Reporter,
    context: Context,
    interrupts: Interrupts,
    handover: Option<handover::Ready>,
    proofs: Proofs,
    progress: Arc<Progress>,
    signals: Signals,
    manager: Rc<ServiceManager>,
    readiness: Readiness,
    unfinished: Option<Unfinished>,
    /// The same, once the agent was told to hand it over anew.
    again: Option<Unfinished>,
    /// Whether it was told to end while a program ran.
    is_over: bool,
}

impl Around {
    pub(crate) fn new(
        reporter: Reporter,
        context: Context,
        interrupts: Interrupts,
        handover: Option<handover::Ready>,
        proofs: Proofs,
        progress: Arc<Progress>,
        signals: Signals,
    ) -> Self {
        let manager = Rc::new(ServiceManager::from_environment());
        let readiness = Readiness { manager: Rc::clone(&manager), is_told: false, owed: None };
        Self {
            reporter,
            context,
            interrupts,
            handover: handover.map(|handover| handover.within(COMMAND_TIME)),
            proofs,
            progress,
            signals,
            manager,
            readiness,
            unfinished: None,
            again: None,
            is_over: false,
        }
    }
}

/// What of an assignment is not handed over yet.
struct Unfinished {
    assignment: Assignment,
    /// How long the registration took that has brought it, if one has.
    took: Option<Duration>,
    /// So often in a row it failed.
    failures: u32,
    /// When it is tried again.
    at: Instant,
}

/// What the service manager is told of the device.
struct Readiness {
    manager: Rc<ServiceManager>,
    is_told: bool,
    /// That the device is ready, when it had no room for that.
    owed: Option<String>,
}

impl Readiness {
    /// The files are written.
    fn assigned(&mut self, hub: &str) {
        let ready = if self.is_told { "" } else { "READY=1\n" };
        self.say(format!("{ready}STATUS=assigned to {}", Printable::brief(hub)));
    }

    fn say(&mut self, text: String) {
        self.is_told |= self.manager.say(&text);
        self.owed = Some(text).filter(|_| !self.is_told);
    }
}

impl Around {
    /// Writes the files, says that they are, and runs the command. What fails is tried again, as [`Self::order`] says.
    async fn hand_over(&mut self, assignment: &Assignment, took: Option<Duration>, failures: u32) {
        let mut success = self.success(assignment, took);
        let hub = assignment.result.assigned_hub.as_str();
        match self.handover.clone() {
            None => self.readiness.assigned(hub),
            Some(handover) => {
                let readiness = &mut self.readiness;
                let written = |handed: &Handed| {
                    if handed.failure().is_none() {
                        readiness.assigned(hub);
                    }
                };
                let handed = handover
                    .carry_out(&mut success, &self.proofs, &mut self.interrupts, written)
                    .await;
                self.is_over = handed.is_none();
            }
        }
        // What went wrong is said, and the agent goes on.
        let _ = self.reporter.succeeded(&success);
        self.unfinished = None;
        if let Some(failure) = success.handed.as_ref().and_then(Handed::failure) {
            let failures = failures.saturating_add(1);
            let wait = TRY_AGAIN.wait(failures, 0.0).unwrap_or(TRY_AGAIN.cap);
            let seconds = report::whole_seconds(wait);
            report::warn(&format!("it is tried again in {seconds} s"));
            let failure = Printable::brief(&failure).to_string();
            self.manager.say(&format!("STATUS={failure}; tried again in {seconds} s"));
            let (assignment, at) = (assignment.clone(), Instant::now() + wait);
            self.unfinished = Some(Unfinished { assignment, took, failures, at });
        }
    }

    /// What is told of an assignment: that it is stored, unless a registration has brought it, which took so long.
    fn success(&self, assignment: &Assignment, took: Option<Duration>) -> Success {
        let mut success = Success::stored(assignment, None);
        success.registered = self.proofs.of_stored(assignment);
        success.credentials = self.proofs.count();
        success.certificate = self.proofs.certificate(&success.registration_id);
        if let Some(took) = took {
            success.kept = Some(Kept::new(assignment, kept::Source::Registered));
            success.elapsed = took;
        }
        success
    }
}

impl Surroundings for Around {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn order(&mut self) -> Option<Order> {
        loop {
            let again = self.unfinished.as_ref().map(|unfinished| unfinished.at);
            tokio::select! {
                biased;
                () = std::future::ready(()), if self.is_over => return None,
                () = self.interrupts.next() => return None,
                order = self.signals.next() => {
                    if order == Order::HubConnected {
                        self.manager.say("STATUS=connected to its hub");
                    }
                    return Some(order);
                }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.again = self.unfinished.take();
                    return Some(Order::HandOver);
                }
                () = sleep(SAY_AGAIN), if self.readiness.owed.is_some() => {
                    if let Some(owed) = self.readiness.owed.take() {
                        self.readiness.say(owed);
                    }
                }
            }
        }
    }

    async fn assigned(&mut self, assignment: &Assignment) {
        let took = self.progress.took();
        let again = self.again.take().filter(|again| again.assignment == *assignment);
        let (took, failures) = again.map_or((took, 0), |again| (again.took, again.failures));
        self.hand_over(assignment, took, failures).await;
    }

    fn failed(&mut self, error: &Error, retry_in: Duration) {
        let _ = self.progress.took();
        say_failed(error, retry_in, self.reporter, &self.context, &self.manager);
    }

    fn next_step(&mut self, next: NextStep) {
        // What it is told of a hub leads to nothing else, but when another process has registered the device meanwhile.
        if let NextStep::Register { after } = next {
            let seconds = report::whole_seconds(after);
            let next = format!("the hub refused the device; it registers again in {seconds} s");
            report::warn(&next);
            self.manager.say(&format!("STATUS={next}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use dps_client::CredentialError;

    use super::*;

    #[test]
    fn what_trying_again_does_not_mend_is_tried_each_hour_in_the_end() {
        let refused = Error::from(CredentialError::new("the password is wrong"));
        let busy = Error::from(CredentialError::new("the TPM is busy").retryable());
        for (error, seconds) in [(&refused, [1, 2, 4, 2048, 3600]), (&busy, [1, 2, 4, 60, 60])] {
            let waits = [1, 2, 3, 12, 40].map(|failures| wait_after(error, failures).as_secs());
            assert_eq!(waits, seconds, "{error}");
        }
    }
}
