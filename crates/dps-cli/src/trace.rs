//! `-v` and `-vv`.

use tracing_subscriber::{filter::LevelFilter, filter::Targets, fmt, prelude::*};

/// How much is told of what happens inside.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Verbosity {
    /// Traces to standard error; -vv does so in detail, with what the libraries say
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Verbosity {
    /// Begins to trace, if that was asked for. Only those are listened to who keep secrets to themselves.
    pub(crate) fn start(self) {
        let targets = match self.verbose {
            0 => return,
            1 => Targets::new().with_target("dps", LevelFilter::DEBUG),
            _ => Targets::new()
                .with_target("dps", LevelFilter::TRACE)
                .with_target("rustls", LevelFilter::DEBUG)
                .with_target("reqwest", LevelFilter::DEBUG)
                .with_target("hyper_util", LevelFilter::TRACE),
        };
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        // An error means that somebody traces already: nobody else does.
        let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
    }
}
