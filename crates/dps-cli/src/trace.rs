//! `-v` and `-vv`.

use dps_client::Error;
use tracing_subscriber::{filter::LevelFilter, filter::Targets, fmt, prelude::*};

use crate::{
    given::{VERBOSE, wrong},
    output,
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

/// Begins to trace, 1 what is our own, 2 all. Only those are listened to who keep secrets to themselves.
pub(crate) fn start(level: u8) {
    let targets = match level {
        0 => return,
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
