//! `dps cert`: the certificate that a registration brought, and when it is to be renewed.

use std::{
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use dps_client::{
    CertificateFolder, CertificateSummary, Endpoint, Error, Printable, StoredCertificate,
};
use serde::Serialize;

use crate::{
    clock,
    given::{self, wrong},
    handover::HandoverFlags,
    kept,
    output::print,
    register::{Plan, Registration},
    report::{self, Context, Reporter},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  dps cert status certificate
  dps cert needs-renewal certificate && echo due

`dps cert COMMAND --help` has more.";

const STATUS_DETAILS: &str = "\
The certificate is due for renewal at two thirds of its life, or up to a
tenth of the rest later: how much comes from the certificate, so that the
devices of a fleet are not due at one moment.

Examples:
  dps cert status certificate
  dps cert status --json certificate";

const NEEDS_RENEWAL_DETAILS: &str = "\
Without --within it is due when `dps cert status` says so.

Exit codes:
    0 due for renewal
    1 not due yet
    2 configuration: bad usage, or no certificate that can be read

Examples:
  dps cert needs-renewal certificate
  dps cert needs-renewal --within 0.5 certificate";

const RENEW_DETAILS: &str = "\
The stored certificate is the credential and names the device, unless others
are given. The new pair comes into use at one moment; until then, and when
the renewal fails, the former one stays in use. All flags, variables and exit
codes are those of `dps register`.

A renewal registers the device, which may get another hub by that: --state,
--output and --exec keep it and hand it over as `dps register` does.

Examples:
  dps cert renew certificate --id-scope 0ne00AABBCC

  # With the credential that the device was shipped with.
  dps cert renew certificate --id-scope 0ne00AABBCC \\
      --symmetric-key-file pump-17.key

  # A certificate whose key is in a PKCS#11 token.
  dps cert renew certificate --id-scope 0ne00AABBCC \\
      --request-key 'pkcs11:token=dps;object=pump?pin-source=file:pin'

  # Of a device whose assignment is kept and handed over.
  dps cert renew certificate --id-scope 0ne00AABBCC \\
      --state assignment.json --output env dps.env

  # By the hub that the device is assigned to.
  dps cert renew certificate --hub north.azure-devices.net

  # For a timer.
  if dps cert needs-renewal certificate; then
      dps cert renew certificate --id-scope 0ne00AABBCC; fi";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Prints who a stored certificate is for, how long it is valid and when it is due for renewal
    #[command(after_help = STATUS_DETAILS)]
    Status(Status),
    /// Says by its exit code whether a stored certificate is due for renewal
    #[command(after_help = NEEDS_RENEWAL_DETAILS)]
    NeedsRenewal(NeedsRenewal),
    /// Registers for a new certificate in place of a stored one, with a new key
    #[command(after_help = RENEW_DETAILS)]
    Renew(Box<Renew>),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// The folder that the certificate is stored in
    #[arg(value_name = "DIR")]
    dir: String,
    /// Prints one JSON object on one line of standard output, failures included
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NeedsRenewal {
    /// The folder that the certificate is stored in
    #[arg(value_name = "DIR")]
    dir: String,
    /// Due once this much of the life is over, exactly: from 0 to 1
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    within: Option<String>,
    /// Prints one JSON object on one line of standard output, failures included
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    /// The folder that the certificate is stored in
    #[arg(value_name = "DIR")]
    dir: String,
    /// Has the hub issue it, over MQTT, in place of the service (a preview of IoT Hub); needs no ID scope
    #[arg(long, value_name = "HOST")]
    hub: Option<String>,
    /// The device's id at the hub; the registration id without it
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// Where the hub is; its own name without it
    #[arg(long, value_name = "HOST[:PORT]")]
    hub_endpoint: Option<String>,
    /// File that keeps the assignment, which is replaced
    #[arg(long, value_name = "FILE", conflicts_with = "hub")]
    state: Option<String>,
    #[command(flatten)]
    handover: HandoverFlags,
    #[command(flatten)]
    registration: Registration,
}

pub(crate) fn run(command: &Command) -> ExitCode {
    match command {
        Command::Status(status) => tell(status.json, |json, now| status.tell(json, now)),
        Command::NeedsRenewal(needs_renewal) => {
            tell(needs_renewal.json, |json, now| needs_renewal.tell(json, now))
        }
        Command::Renew(renew) => renew.registration.run(|| renew.plan()),
    }
}

impl Renew {
    fn plan(&self) -> Result<Plan, Error> {
        let folder = CertificateFolder::open(&self.dir)?;
        let Some(hub) = given::HUB.find(self.hub.as_ref())? else {
            let needless = [
                (given::DEVICE_ID.flag, self.device_id.is_some()),
                (given::HUB_ENDPOINT.flag, self.hub_endpoint.is_some()),
            ];
            return match needless.iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => Err(wrong(flag, "", "it needs --hub too")),
                None => {
                    let state = kept::file(self.state.as_ref())?;
                    let handover = self.handover.plan(self.registration.wants_json()?)?;
                    Ok(Plan::renew(folder, state, handover))
                }
            };
        };
        // A hub assigns nothing.
        if let Some(flag) = self.handover.given() {
            return Err(wrong(flag, "", "it does not go with --hub"));
        }
        hub.parse::<Endpoint>()?;
        let device_id = given::DEVICE_ID.find(self.device_id.as_ref())?.map(|given| given.text);
        let endpoint = given::HUB_ENDPOINT.find(self.hub_endpoint.as_ref())?;
        let endpoint = endpoint.map(|given| given.parse()).transpose()?;
        Ok(Plan::renew(folder, None, None).at_hub(hub.text, device_id, endpoint))
    }
}

/// Tells it as JSON or for people.
fn tell(json: bool, what: impl FnOnce(bool, SystemTime) -> Result<ExitCode, Error>) -> ExitCode {
    let failed = |json, error| Reporter::new(json).failed(&error, &Context::default());
    match given::JSON.is_on(json) {
        Ok(json) => what(json, SystemTime::now()).unwrap_or_else(|error| failed(json, error)),
        Err(error) => failed(false, error),
    }
}

impl Status {
    fn tell(&self, json: bool, now: SystemTime) -> Result<ExitCode, Error> {
        let folder = CertificateFolder::open(&self.dir)?;
        let stored = folder.load()?;
        let status = StatusJson::new(&folder, &stored, now);
        Ok(print(&if json { report::json(&status) } else { status.lines() }))
    }
}

impl NeedsRenewal {
    fn tell(&self, json: bool, now: SystemTime) -> Result<ExitCode, Error> {
        let within = given::WITHIN.find(self.within.as_ref())?;
        let within = within.map(|given| fraction(&given)).transpose()?;
        let due_at = CertificateFolder::open(&self.dir)?.load()?.renewal_due(within);
        let due = Due::new(due_at, now);
        let printed = match json {
            true => print(&report::json(&due)),
            false => print(&format!("{}\n", due.words())),
        };
        Ok(if printed == ExitCode::SUCCESS && !due.renewal_due {
            ExitCode::from(1)
        } else {
            printed
        })
    }
}

fn fraction(given: &given::Given) -> Result<f64, Error> {
    let parsed = given.text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
    parsed.ok_or_else(|| wrong(given.from, &given.text, "give a number from 0 to 1, like 0.5"))
}

/// When the certificate is to be renewed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Due {
    renewal_due: bool,
    renewal_due_at: Option<String>,
}

impl Due {
    fn new(due_at: SystemTime, now: SystemTime) -> Self {
        Self { renewal_due: now >= due_at, renewal_due_at: clock::rfc3339(due_at) }
    }

    fn words(&self) -> String {
        let at = self.renewal_due_at.as_deref().unwrap_or_default();
        match self.renewal_due {
            true => format!("due since {at}"),
            false => format!("not due before {at}"),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson<'a> {
    #[serde(flatten)]
    leaf: CertificateJson<'a>,
    /// From 0 to 1 while it is valid, in thousandths.
    life_used: f64,
    /// Negative when it has expired, in tenths.
    days_left: f64,
    #[serde(flatten)]
    due: Due,
    chain: Vec<CertificateJson<'a>>,
    chain_file: String,
    key_file: Option<String>,
    key_fits: Option<bool>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateJson<'a> {
    subject: &'a str,
    issuer: &'a str,
    not_before: Option<String>,
    not_after: Option<String>,
}

impl<'a> From<&'a CertificateSummary> for CertificateJson<'a> {
    fn from(summary: &'a CertificateSummary) -> Self {
        Self {
            subject: &summary.subject,
            issuer: &summary.issuer,
            not_before: clock::rfc3339(summary.not_before),
            not_after: clock::rfc3339(summary.not_after),
        }
    }
}

impl<'a> StatusJson<'a> {
    fn new(folder: &CertificateFolder, stored: &'a StoredCertificate, now: SystemTime) -> Self {
        let leaf = stored.leaf();
        let path = |path: std::path::PathBuf| path.display().to_string();
        Self {
            leaf: leaf.into(),
            life_used: rounded(stored.life_used(now), 1000.0),
            days_left: rounded(days_between(now, leaf.not_after), 10.0),
            due: Due::new(stored.renewal_due(None), now),
            chain: [leaf].into_iter().chain(stored.issuers()).map(Into::into).collect(),
            chain_file: path(folder.chain_path()),
            key_file: stored.key_pem().map(|_| path(folder.key_path())),
            key_fits: stored.key_pem().map(|_| stored.identity().is_ok()),
        }
    }

    fn lines(&self) -> String {
        let Self { leaf, life_used, days_left, chain, chain_file, .. } = self;
        let date = |date: &Option<String>| date.clone().unwrap_or_default();
        let chain: Vec<&str> = chain.iter().map(|certificate| certificate.subject).collect();
        let key = match (&self.key_file, self.key_fits) {
            (Some(file), Some(true)) => format!("{file}, fits the certificate"),
            (Some(file), _) => format!("{file}, does not fit the certificate"),
            (None, _) => "not stored here".to_owned(),
        };
        let left = match *days_left {
            _ if *life_used < 0.0 => "not valid yet, or the clock is wrong".to_owned(),
            days if days < 0.0 => format!("expired {} days ago", -days),
            days => format!("{days} days left"),
        };
        let rows = [
            ("subject", leaf.subject.to_owned()),
            ("issuer", leaf.issuer.to_owned()),
            ("not before", date(&leaf.not_before)),
            ("not after", date(&leaf.not_after)),
            ("life used", format!("{} %, {left}", rounded(life_used.max(0.0) * 100.0, 10.0))),
            ("renewal", self.due.words()),
            ("chain", format!("{} ({chain_file})", chain.join(", "))),
            ("key", key),
        ];
        rows.iter().fold(String::new(), |mut text, (name, value)| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name:<12}{}", Printable::whole(value));
            text
        })
    }
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

fn days_between(now: SystemTime, then: SystemTime) -> f64 {
    let days = |length: Duration| length.as_secs_f64() / 86_400.0;
    match then.duration_since(now) {
        Ok(left) => days(left),
        Err(over) => -days(over.duration()),
    }
}
