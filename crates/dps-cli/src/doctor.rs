//! `dps doctor`.

use std::{process::ExitCode, time::Instant};

use dps_client::Error;
use dps_doctor::{Selection, examine_until};

use crate::{
    given, register,
    report::{self, Context, Reporter},
    runtime, trace,
};

mod printed;

const DETAILS: &str = "\
It takes what `dps register` takes, by the same flags and variables, and looks
at all that a registration would meet: settings, clock, credential, proxy,
name, ports, TLS, WebSocket, the service and the hub. Nothing is registered or
changed at the service. A place that a registration writes to is tried, and
nothing is left there.

The ports of all transports are looked at. The chosen transport decides, and
the device says over it who it is; for auto each is tried, in its order, and
the way ends only where none gets through. What is wrong with the others is a
warning. Of several credentials the first one is looked at.

Exit codes:
    0 healthy, with or without warnings
    2 configuration, 3 rejected, 4 connection, 5 timeout, 6 protocol,
    7 rejected for now, 8 credential: what a registration would end with
   10 a registration gets through, and the hub can't be reached
  130 cancelled by SIGINT (Ctrl-C)
  143 cancelled by SIGTERM
    1 there was nothing to look at, or standard output can't be written

Examples:
  # What does this network block?
  dps doctor --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --transport mqtt

  # Only TLS, and whether port 8883 is open; each check is shown.
  dps doctor --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --only tls,port.8883 -v

  # For a ticket.
  dps doctor --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --json > doctor.json";

#[derive(Debug, clap::Args)]
// The flags of `dps register` are a group of this name too.
#[group(skip)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    /// Makes only these checks, and those that they depend on: ids like tls.name, or groups like tls
    #[arg(long, value_name = "ID[,ID]")]
    only: Option<String>,
    #[command(flatten)]
    register: register::Arguments,
}

/// How much is said, and in which form.
#[derive(Clone, Copy, Debug)]
struct Manner {
    json: bool,
    quiet: bool,
    verbose: bool,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let json = arguments.register.registration().wants_json();
    let reporter = Reporter::new(json.as_ref().is_ok_and(|json| *json));
    let report = json.and_then(|json| {
        let manner = arguments.manner(json)?;
        let selection = arguments.selection()?;
        let report = runtime::block_on(|mut interrupts| async move {
            let subject = tokio::select! {
                biased;
                () = interrupts.next() => Err(Error::Cancelled),
                subject = arguments.register.subject(start) => subject,
            }?;
            Ok(examine_until(&subject, &selection, interrupts.next()).await)
        })?;
        match report.is_whole() || !json {
            true => Ok((report, manner)),
            false => Err(Error::Cancelled),
        }
    });
    match report {
        Ok((report, manner)) => printed::print(&report, manner),
        Err(error) => reporter.failed(&error, &Context::default()),
    }
}

impl Arguments {
    fn manner(&self, json: bool) -> Result<Manner, Error> {
        let registration = self.register.registration();
        let quiet = registration.wants_quiet()?;
        let level = registration.verbosity()?;
        // Warnings of the library are findings here.
        if level > 1 {
            trace::start(level - 1);
        }
        if !quiet {
            given::unknown_variables().iter().for_each(|warning| report::warn(warning));
        }
        Ok(Manner { json, quiet, verbose: level > 0 })
    }

    fn selection(&self) -> Result<Selection, Error> {
        let only = given::ONLY.find(self.only.as_ref())?;
        only.map_or_else(|| Ok(Selection::all()), |given| given.parse())
    }
}
