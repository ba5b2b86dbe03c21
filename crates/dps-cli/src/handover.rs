//! `--output` and `--exec` of `dps register`: what another program gets once the device is assigned.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use dps_client::{Error, disk, internal as secret};
use dps_provisioner::{Format, HandOver, Template};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    apart, device_file,
    files::Source,
    given::{EXEC, Given, Level, OUTPUT, SHOW_KEYS, Setting, named, variable, wrong},
    hook::{self, Ran},
    interrupt::Interrupts,
    proof::Proofs,
    report::Success,
};

/// More than any of the forms takes, in bytes, for a look whether there is room.
const ROOM: usize = 16 * 1024;
/// Stands in front of a template's name.
const TEMPLATE: &str = "template:";

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Handing over")]
pub(crate) struct HandoverFlags {
    /// Writes a file for another program once the device is assigned, at once and for its owner alone. FORMAT is json,
    /// env, connection-string, iotedge-toml or template:TEMPLATE, a file with placeholders like {{assignedHub}}; `-` is
    /// standard output. Can be given several times
    #[arg(long, num_args = 2, value_names = ["FORMAT", "FILE"])]
    output: Vec<String>,
    /// Lets --output write a key to standard output
    #[arg(long)]
    show_keys: bool,
    /// Runs a command by the shell once the device is assigned and all files are written: it has DPS_ASSIGNED_HUB,
    /// DPS_DEVICE_ID and more in its environment, never a key, and standard error for what it prints
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
}

/// What is to be handed over, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    outputs: Vec<Output>,
    exec: Option<Given>,
    exec_is_from_file: bool,
}

#[derive(Clone, Debug)]
struct Output {
    /// Without the format.
    file: Source,
    /// As it was given.
    format: String,
    /// `None` for the registration's JSON.
    form: Option<Format>,
    shows_keys: bool,
}

/// What became of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Handed {
    outputs: Vec<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<Ran>,
    /// For standard output, in place of the result.
    #[serde(skip)]
    pub(crate) printed: Option<Zeroizing<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    format: String,
    file: String,
    /// What is wrong, unless it is written.
    message: Option<String>,
}

impl HandoverFlags {
    /// The first flag that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let flags = [(OUTPUT, !self.output.is_empty()), (EXEC, self.exec.is_some())];
        flags.into_iter().find_map(|(setting, is_given)| is_given.then_some(setting.flag))
    }

    /// Reads templates and checks the places, so that nothing of it is likely to fail once the device is assigned.
    pub(crate) fn plan(&self, json: bool) -> Result<Option<Plan>, Error> {
        self.plan_with(json, Vec::new(), false)
    }

    /// The same with more files, each behind its format. `waits` says whether what has no room on the disk now is written
    /// later.
    pub(crate) fn plan_with(
        &self,
        json: bool,
        more: Vec<(String, Source)>,
        waits: bool,
    ) -> Result<Option<Plan>, Error> {
        let shows_keys = SHOW_KEYS.is_on(self.show_keys)?;
        let outputs = pairs(&self.output)?.into_iter().chain(more);
        let outputs = outputs.map(|(format, file)| Output::new(format, file, shows_keys, waits));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        for (number, output) in outputs.iter().enumerate() {
            let mut before = outputs.iter().take(number);
            if output.file.is_stdin() && before.any(|other| other.file.is_stdin()) {
                return Err(output.file.wrong("another output has this file"));
            }
            if output.file.is_stdin() && json {
                return Err(output
                    .file
                    .wrong("standard output has the result of --json; name a file"));
            }
        }
        let exec = EXEC.find(self.exec.as_ref())?;
        if let Some(Given { from, text }) = &exec
            && text.trim().is_empty()
        {
            return Err(wrong(from, "", "it is empty; give a command"));
        }
        let exec_is_from_file = EXEC.level(self.exec.is_some())? == Some(Level::File);
        Ok((!outputs.is_empty() || exec.is_some()).then_some(Plan {
            outputs,
            exec,
            exec_is_from_file,
        }))
    }
}

/// Each format with its file: those of flags, or else the one of the variable, or else those of the configuration file.
fn pairs(flags: &[String]) -> Result<Vec<(String, Source)>, Error> {
    let Setting { flag, variable: name } = OUTPUT;
    if OUTPUT.level(!flags.is_empty())? == Some(Level::Flag) {
        let pairs = flags.chunks(2).filter_map(|pair| Some((pair.first()?, pair.get(1)?)));
        let named = |file: &String| Source { from: flag, path: file.clone() };
        return Ok(pairs.map(|(format, file)| (format.clone(), named(file))).collect());
    }
    let given = match variable(name)? {
        Some(text) => vec![Source::new(name, &text)],
        None => OUTPUT.files(&[])?,
    };
    let split = |given: Source| match given.path.split_once(char::is_whitespace) {
        Some((format, file)) => {
            let path = file.trim_start().to_owned();
            Ok((format.to_owned(), Source { from: given.from, path }))
        }
        None => Err(given.wrong("give the format and the file, like: env /run/pump/dps.env")),
    };
    given.into_iter().map(split).collect()
}

impl Output {
    fn new(format: String, file: Source, shows_keys: bool, waits: bool) -> Result<Self, Error> {
        let form = match format.as_str() {
            "json" => None,
            "env" => Some(Format::Env),
            "connection-string" => Some(Format::ConnectionString),
            "iotedge-toml" => Some(Format::IotEdgeToml),
            other => match other.strip_prefix(TEMPLATE) {
                Some(path) => Some(Format::Template(template(&Source::new(file.from, path))?)),
                None if other == "template" => {
                    let reason = "name the template with it, as template:TEMPLATE";
                    return Err(wrong(file.from, other, reason));
                }
                None => {
                    let reason = "there is no such format; choose from json, env, connection-string, iotedge-toml and template:TEMPLATE";
                    return Err(wrong(file.from, other, reason));
                }
            },
        };
        if file.path.is_empty() {
            return Err(file.wrong("the path is empty; name a file, or - for standard output"));
        }
        if !file.is_stdin() {
            ensure_place(&file, waits)?;
        }
        Ok(Self { file, format, form, shows_keys })
    }

    fn content(&self, device: &HandOver<'_>, json: &str) -> Result<Zeroizing<String>, Error> {
        match &self.form {
            None => Ok(Zeroizing::new(json.to_owned())),
            Some(form) => form.render(device),
        }
    }
}

fn template(file: &Source) -> Result<Template, Error> {
    let text = file.text(&file.read()?)?;
    text.parse().map_err(|error| match error {
        Error::Configuration(error) => {
            let value = Some(&error.value).filter(|value| !value.is_empty());
            let value = value.map(|value| format!("{{{{{value}}}}}: ")).unwrap_or_default();
            file.wrong(&format!("{value}{}", error.reason))
        }
        other => other,
    })
}

/// Checks that a file can be replaced or made.
pub(crate) fn ensure_place(file: &Source, waits: bool) -> Result<(), Error> {
    if secret::kind(&file.path).is_some() && !Path::new(&file.path).exists() {
        return Err(file.wrong("name a file to write to"));
    }
    let place = place(&file.path);
    if place.metadata().is_ok_and(|there| !there.is_file()) {
        return Err(file.wrong("it is no regular file; name one, or - for standard output"));
    }
    match disk::try_room(&place, ROOM) {
        Err((_, error)) if waits && disk::may_pass(&error) => Ok(()),
        tried => tried.map_err(|failure| file.wrong(&in_words(&failure))),
    }
}

fn in_words((path, error): &disk::Failure) -> String {
    format!("{} can't be written: {error}{}", path.display(), disk::advice(error))
}

/// Where a file is or will be, if a link leads to it.
fn place(path: &str) -> PathBuf {
    apart::real_path(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path))
}

/// A plan that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    plan: Plan,
    /// How long the command may take.
    limit: Option<Duration>,
}

impl Plan {
    /// The files that are written.
    pub(crate) fn written(&self) -> impl Iterator<Item = &Source> {
        self.outputs.iter().map(|output| &output.file)
    }

    /// The templates.
    pub(crate) fn read(&self) -> impl Iterator<Item = Source> {
        let template = |output: &Output| {
            let path = output.format.strip_prefix(TEMPLATE)?;
            Some(Source::new(output.file.from, path))
        };
        self.outputs.iter().filter_map(template)
    }

    /// Checks, before the registration, that a device that proves itself so can be handed over.
    pub(crate) fn ready(self, proofs: &Proofs) -> Result<Ready, Error> {
        for Output { file, format, form, shows_keys } in &self.outputs {
            let Some(form) = form else { continue };
            for credential in &proofs.expected() {
                form.check(credential).map_err(|error| named(file.from, format, error))?;
            }
            let has_key = proofs.given().iter().any(|credential| form.has_key(credential));
            if file.is_stdin() && has_key && !shows_keys {
                let reason = "it has the device's key, which everybody would see there; name a file, or give --show-keys too";
                return Err(wrong(file.from, format, reason));
            }
        }
        Ok(Ready { plan: self, limit: None })
    }
}

impl Ready {
    /// The same, whose command is killed after this time.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Writes all files, tells `written` how that went, then runs the program. Whatever goes wrong, the device is assigned.
    /// `None` when an interrupt ended it.
    pub(crate) async fn carry_out(
        self,
        success: &mut Success,
        proofs: &Proofs,
        interrupts: &mut Interrupts,
        written: impl FnOnce(&Handed),
    ) -> Option<()> {
        let taken = success.registered.credential;
        let credential = proofs.handed_over(&success.registration_id, taken);
        let device = HandOver {
            registration_id: &success.registration_id,
            result: &success.registered,
            transport: success.transport().parse().ok(),
            credential: &credential,
        };
        let mut handed = Handed::default();
        for output in &self.plan.outputs {
            let content = output.content(&device, &success.json());
            let message = match content.map_err(|error| error.to_string()) {
                Err(message) => Some(message),
                Ok(content) if output.file.is_stdin() => {
                    handed.printed = Some(content);
                    None
                }
                Ok(content) => disk::replace(&place(&output.file.path), content.as_bytes())
                    .map_err(|failure| in_words(&failure))
                    .err(),
            };
            let (format, file) = (output.format.clone(), output.file.path.clone());
            handed.outputs.push(Written { format, file, message });
        }
        written(&handed);
        // A command finds what was written, or is not run.
        if let Some(Given { text: command, .. }) = self.plan.exec
            && handed.failure().is_none()
        {
            // What the configuration file names is in its folder.
            let folder = device_file::path().filter(|_| self.plan.exec_is_from_file);
            let folder = folder.and_then(Path::parent);
            handed.exec = Some(tokio::select! {
                biased;
                () = interrupts.next() => return None,
                ran = hook::run(&command, folder, self.limit, device.variables()) => ran,
            });
        }
        success.handed = Some(handed);
        Some(())
    }
}

impl Handed {
    /// What went wrong, unless all went well.
    pub(crate) fn failure(&self) -> Option<String> {
        let outputs = self.outputs.iter().filter_map(|written| {
            let message = written.message.as_ref()?;
            Some(format!("the {} for {} was not written: {message}", written.format, written.file))
        });
        let exec = self.exec.iter().filter_map(|ran| {
            Some(format!("{:?} did not do its work: {}", ran.command, ran.message.as_ref()?))
        });
        let failures: Vec<String> = outputs.chain(exec).collect();
        (!failures.is_empty()).then(|| {
            format!("the device is assigned, but not handed over: {}", failures.join("; "))
        })
    }

    /// What was done, as rows for people.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let written = self.outputs.iter().filter(|written| written.message.is_none());
        let written =
            written.map(|written| ("written", format!("{} to {}", written.format, written.file)));
        let ran = self.exec.iter().filter(|ran| ran.message.is_none());
        written.chain(ran.map(|ran| ("ran", ran.command.clone()))).collect()
    }
}
