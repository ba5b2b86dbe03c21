//! What the library says beside results and errors: its warnings, and all of it by `-v` and `-vv`.

use std::fmt::{Debug, Write as _};

use dps_client::Error;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::Context,
    prelude::*,
};

use crate::{
    given::{VERBOSE, wrong},
    output, report,
};

/// Which levels of tracing `-v` prints.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Verbosity {
    /// Tells more on standard error; -vv tells all, with what the libraries say
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Verbosity {
    /// 0, 1 or 2 and above: the flag as often as it was given, or else the variable.
    pub(crate) fn level(self) -> Result<u8, Error> {
        match (self.verbose, VERBOSE.find(None)?) {
            (0, Some(given)) => {
                given.text.parse().map_err(|_| wrong(given.from, &given.text, "give 0, 1 or 2"))
            }
            (flags, _) => Ok(flags),
        }
    }
}

/// Begins to trace, 0 our own warnings, 1 what is our own, 2 all. Only those are listened to who keep secrets to themselves.
pub(crate) fn start(level: u8) {
    let targets = match level {
        0 => {
            let ours = Targets::new().with_target("dps", LevelFilter::WARN);
            let _ = tracing_subscriber::registry().with(Warnings.with_filter(ours)).try_init();
            return;
        }
        1 => Targets::new().with_target("dps", LevelFilter::DEBUG),
        _ => Targets::new()
            .with_target("dps", LevelFilter::TRACE)
            .with_target("rustls", LevelFilter::DEBUG)
            .with_target("reqwest", LevelFilter::DEBUG)
            .with_target("hyper_util", LevelFilter::TRACE),
    };
    let lines = fmt::layer().with_writer(|| output::Traces).with_ansi(false);
    // An error means that somebody traces already: nobody else does.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}

#[cfg(feature = "emulator")]
/// Begins to tell what is lost, and nothing else.
pub(crate) fn start_for_errors() {
    let ours = Targets::new().with_target("dps", LevelFilter::ERROR);
    let _ = tracing_subscriber::registry().with(Warnings.with_filter(ours)).try_init();
}

/// Prints each warning as one of the command's own.
struct Warnings;

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut warning = Warning::default();
        event.record(&mut warning);
        report::warn(&format!("{}{}", warning.message, warning.fields));
    }
}

/// The words of a warning, and what belongs to them.
#[derive(Default)]
struct Warning {
    message: String,
    fields: String,
}

impl Visit for Warning {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " ({name}: {value:?})"),
        };
    }
}
