//! `dps agent`: one process that owns the device's identity, for programs in any language.

#[cfg_attr(not(unix), path = "agent/no_service_manager.rs")]
mod service_manager;

use std::{
    path::Path,
    process::ExitCode,
    rc::Rc,
    time::{Duration, SystemTime},
};

use dps_client::{CertificateFolder, Error, Printable};
use dps_provisioner::{
    Agent, Assignment, AssignmentFile, NextStep, Order, Provisioner, Surroundings,
};
use tokio::time::interval;

use self::service_manager::{ServiceManager, Signals};
use crate::{
    files::Source,
    given::{self, Given, named, wrong},
    handover::{self, Handed, HandoverFlags},
    interrupt::Interrupts,
    kept,
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
five minutes. What of that fails is done again with the next registration, as
after SIGHUP. To systemd it says when the device is assigned, what it does,
and that it is alive. A file that is in the folder of LoadCredential= need
only be named. All other flags are those of `dps register`.

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

/// What the agent does besides registering.
#[derive(Clone, Debug)]
pub(crate) struct Duty {
    certificate: Option<CertificateFolder>,
}

impl Duty {
    pub(crate) fn folder(&self) -> Option<&CertificateFolder> {
        self.certificate.as_ref()
    }

    /// The device, whose certificate is kept too.
    pub(crate) fn watched(self, device: Provisioner) -> Provisioner {
        match self.certificate {
            Some(folder) => device.certificate(folder),
            None => device,
        }
    }
}

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
        let handover = self.handover.plan_with(self.registration.wants_json()?, files)?;
        let certificate = given::REQUEST_CERTIFICATE.find(self.request_certificate.as_ref())?;
        let certificate = certificate.map(|given| {
            CertificateFolder::open(&given.text).map_err(|error| named(given.from, "", error))
        });
        Ok(Plan::agent(state, Duty { certificate: certificate.transpose()? }, handover))
    }
}

/// systemd names several folders with colons between them.
fn first(folders: &str) -> &str {
    folders.split(':').next().unwrap_or(folders)
}

/// Runs until it is told to end.
pub(crate) async fn keep(mut agent: Agent, mut around: Around) -> ExitCode {
    around.signals = match Signals::listen() {
        Ok(signals) => Some(signals),
        Err(error) => {
            let error = wrong("SIGHUP, SIGUSR1, SIGUSR2", "", &error.to_string());
            return around.reporter.failed(&error, &around.context);
        }
    };
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
    signals: Option<Signals>,
    manager: Rc<ServiceManager>,
    is_ready: bool,
    /// Whether it was told to end while a program ran.
    is_over: bool,
}

impl Around {
    pub(crate) fn new(
        reporter: Reporter,
        context: Context,
        interrupts: Interrupts,
        handover: Option<handover::Ready>,
    ) -> Self {
        let manager = Rc::new(ServiceManager::from_environment());
        let (signals, is_ready, is_over) = (None, false, false);
        let handover = handover.map(|handover| handover.within(COMMAND_TIME));
        Self { reporter, context, interrupts, handover, signals, manager, is_ready, is_over }
    }
}

impl Surroundings for Around {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn order(&mut self) -> Option<Order> {
        let told = async {
            match &mut self.signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = std::future::ready(()), if self.is_over => None,
            () = self.interrupts.next() => None,
            order = told => {
                if order == Order::HubConnected {
                    self.manager.say("STATUS=connected to its hub");
                }
                Some(order)
            }
        }
    }

    async fn assigned(&mut self, assignment: &Assignment) {
        let mut success = Success::stored(assignment);
        if let Some(handover) = self.handover.clone() {
            let handed = handover.carry_out(&mut success, &mut self.interrupts).await;
            self.is_over = handed.is_none();
        }
        // What went wrong is said, and the agent goes on.
        let _ = self.reporter.succeeded(&success);
        let hub = Printable::brief(&assignment.result.assigned_hub);
        let failure = success.handed.as_ref().and_then(Handed::failure);
        if let Some(failure) = failure {
            self.manager.say(&format!("STATUS={}", Printable::brief(&failure)));
            return;
        }
        let ready = if self.is_ready { "" } else { "READY=1\n" };
        self.is_ready = true;
        self.manager.say(&format!("{ready}STATUS=assigned to {hub}"));
    }

    fn failed(&mut self, error: &Error, retry_in: Duration) {
        let seconds = report::whole_seconds(retry_in);
        // How it failed is said as `dps register` says it; the exit code is of no use here.
        let _ = self.reporter.failed(error, &self.context);
        report::warn(&format!("it is tried again in {seconds} s"));
        let error = Printable::brief(&error.to_string()).to_string();
        self.manager.say(&format!("STATUS={error}; tried again in {seconds} s"));
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
