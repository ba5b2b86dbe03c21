//! Where `dps emulate` writes its events.

use std::{
    fs::File,
    io::{self, Write},
    sync::mpsc,
};

use super::unwritable;
use crate::report;

/// A file whose failure to be written is reported.
pub(super) struct EventFile {
    pub(super) file: File,
    pub(super) from: &'static str,
    pub(super) path: String,
}

impl Write for EventFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.write(line).inspect_err(|error| {
            let error = unwritable(self.from, &self.path, error);
            report::warn(&format!("{error}; no more events are written"));
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Standard output, from when the other end of the channel is gone.
pub(super) struct AfterReady {
    pub(super) wait: Option<mpsc::Receiver<()>>,
}

impl Write for AfterReady {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(wait) = self.wait.take() {
            // Nothing is ever sent: this is the end of the channel.
            let _ = wait.recv();
        }
        io::stdout().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
