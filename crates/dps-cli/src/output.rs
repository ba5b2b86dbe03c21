//! Standard output and standard error. A reader that does not read holds up neither a registration nor the emulator, and
//! an interrupt ends what waits for such a reader.

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
    sync::{
        Condvar, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use dps_client::internal::masked;

/// What may wait for a slow reader of standard error, in bytes; of what comes then only the count is kept.
const BACKLOG: usize = 1024 * 1024;
/// So much is written at once.
const PIECE: usize = 4096;
/// A reader that takes nothing for so long is waited for no longer at the end.
const PATIENCE: Duration = Duration::from_millis(500);
/// Begins the line anew, and lets the terminal cut it rather than wrap it.
const LINE_ANEW: &str = "\r\u{1b}[2K";
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";

static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    bytes: Vec::new(),
    dropped: 0,
    is_writing: false,
    is_broken: false,
    line_is_open: false,
    pieces: 0,
});
static CHANGED: Condvar = Condvar::new();
static WRITER: Once = Once::new();
/// Odd while standard output is being written to.
static WRITES: AtomicU32 = AtomicU32::new(0);

/// What waits for the reader of standard error.
struct Waiting {
    bytes: Vec<u8>,
    /// How many texts were dropped.
    dropped: u64,
    is_writing: bool,
    /// Nobody will read it any more.
    is_broken: bool,
    /// Whether a line that changes stands there.
    line_is_open: bool,
    /// Counts what was written.
    pieces: u64,
}

/// Writes to standard output. A reader that has gone away is no failure of ours, a full disk is.
pub(crate) fn print(text: &str) -> ExitCode {
    if io::stdout().is_terminal() {
        note("");
        flush();
    }
    WRITES.fetch_add(1, Ordering::SeqCst);
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    WRITES.fetch_add(1, Ordering::SeqCst);
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            note(&format!("error: standard output can't be written: {error}\n"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Which write to standard output is under way, if there is one.
pub(crate) fn write_under_way() -> Option<u32> {
    Some(WRITES.load(Ordering::SeqCst)).filter(|count| count % 2 == 1)
}

/// Has this written to standard error, without waiting for it: a message for people. It is never dropped.
pub(crate) fn note(text: &str) {
    let mut waiting = lock();
    let end = if std::mem::take(&mut waiting.line_is_open) { LINE_ANEW } else { "" };
    put(waiting, &[end.as_bytes(), text.as_bytes()].concat());
}

/// Has the one line that changes say this; for a terminal.
pub(crate) fn changing_line(text: &str) {
    let mut waiting = lock();
    waiting.line_is_open = true;
    put(waiting, format!("{LINE_ANEW}{NO_WRAP}{text}{WRAP}").as_bytes());
}

/// Standard error for traces: what its reader does not take in time is dropped, and no secret is shown that a peer wrote.
pub(crate) struct Traces;

impl Write for Traces {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let shown = masked(&text);
        let mut waiting = lock();
        if waiting.bytes.len() + shown.len() > BACKLOG {
            waiting.dropped += 1;
        } else {
            put(waiting, shown.as_bytes());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until standard error has been written, as long as somebody reads it.
pub(crate) fn flush() {
    let mut waiting = lock();
    while !waiting.is_broken && (waiting.is_writing || !waiting.bytes.is_empty()) {
        let before = waiting.pieces;
        let waited = CHANGED.wait_timeout(waiting, PATIENCE);
        waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        if waiting.pieces == before {
            return;
        }
    }
}

fn lock() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(mut waiting: MutexGuard<'static, Waiting>, bytes: &[u8]) {
    if waiting.is_broken || bytes.is_empty() {
        return;
    }
    waiting.bytes.extend_from_slice(bytes);
    drop(waiting);
    CHANGED.notify_all();
    WRITER.call_once(|| {
        if thread::Builder::new().name("stderr".to_owned()).spawn(write_all).is_err() {
            // Without a thread it is written here, and what comes later is not.
            let mut waiting = lock();
            let bytes = std::mem::take(&mut waiting.bytes);
            waiting.is_broken = true;
            drop(waiting);
            let _ = io::stderr().write_all(&bytes);
        }
    });
}

/// The thread that writes.
fn write_all() {
    loop {
        let mut waiting = lock();
        while waiting.bytes.is_empty() {
            if waiting.dropped > 0 {
                let dropped = std::mem::take(&mut waiting.dropped);
                let note = format!("({dropped} lines were dropped: nobody read them in time)\n");
                waiting.bytes.extend_from_slice(note.as_bytes());
                break;
            }
            waiting = CHANGED.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let bytes = std::mem::take(&mut waiting.bytes);
        waiting.is_writing = true;
        drop(waiting);
        let mut is_broken = false;
        for piece in bytes.chunks(PIECE) {
            is_broken = io::stderr().write_all(piece).is_err();
            lock().pieces += 1;
            CHANGED.notify_all();
            if is_broken {
                break;
            }
        }
        let mut waiting = lock();
        waiting.is_writing = false;
        waiting.is_broken = is_broken;
        drop(waiting);
        CHANGED.notify_all();
        if is_broken {
            return;
        }
    }
}
