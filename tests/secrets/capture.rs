//! Keeps all that is traced and logged in this process, at the most detailed level and from every target, and all that
//! a test shows of a value.

use std::{
    error::Error as StdError,
    fmt::Debug,
    io::{self, Write},
    panic,
    sync::{Mutex, MutexGuard, PoisonError},
};

use log::{LevelFilter, Log, Metadata, Record};
use tracing_subscriber::fmt::format::FmtSpan;

static OUTPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Begins, for the whole process.
pub(crate) fn start() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(|| Output)
        .finish();
    // Not `init`, which may set a logger too, depending on who else is built.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log::set_logger(&Logger).unwrap();
    log::set_max_level(LevelFilter::Trace);
    // Whoever reports a failed test has the message by other means.
    panic::set_hook(Box::new(|info| writeln!(Output, "{info}").unwrap()));
}

/// Where in the output one is.
pub(crate) fn mark() -> usize {
    output().len()
}

/// What came since.
pub(crate) fn since(mark: usize) -> Vec<u8> {
    output().get(mark..).unwrap_or_default().to_vec()
}

/// Whatever a program may print of a value.
pub(crate) fn show(value: &impl Debug) {
    writeln!(Output, "{value:?}\n{value:#?}\n{value:x?}").unwrap();
}

/// Whatever a program may print of an error; and what it says when it dies of it.
#[expect(clippy::panic, reason = "a program that dies of an error is what is watched")]
pub(crate) fn show_error<E: StdError>(error: &E) {
    show(error);
    let mut next: Option<&dyn StdError> = Some(error);
    while let Some(error) = next {
        writeln!(Output, "{error}\n{error:?}").unwrap();
        next = error.source();
    }
    let died = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        panic!("called `Result::unwrap()` on an `Err` value: {error:?}");
    }));
    assert!(died.is_err(), "it was to panic");
}

fn output() -> MutexGuard<'static, Vec<u8>> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to what is kept.
pub(crate) struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        output().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        writeln!(Output, "{} {}: {}", record.level(), record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}
