//! Events as lines of JSON in a file or a stream.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{EventLog, log::PORTION};

/// Tells when everything has been written.
pub(crate) struct SinkEnd(oneshot::Receiver<()>);

/// Starts a thread that copies the log: a sink that takes its time, or nothing at all, never stops the emulator, and
/// nothing waits for it but the log itself. Events that the log had to drop in the meantime are counted in the sink.
///
/// The thread looks at the log when it is woken, and a last time when nobody can wake it any more.
pub(super) fn start(
    log: EventLog,
    mut sink: Box<dyn Write + Send>,
) -> io::Result<(SyncSender<()>, SinkEnd)> {
    let (wake, woken) = sync_channel(1);
    let (done, end) = oneshot::channel::<()>();
    std::thread::Builder::new().name("dps-emulator-events".into()).spawn(move || {
        // Gone when the thread ends, however it does.
        let _done = done;
        if let Err(error) = copy(&log, &woken, &mut *sink) {
            tracing::warn!(%error, "the event log can't be written; no more events are");
        }
    })?;
    Ok((wake, SinkEnd(end)))
}

fn copy(log: &EventLog, woken: &Receiver<()>, sink: &mut dyn Write) -> io::Result<()> {
    let mut next = 0;
    loop {
        let last = woken.recv().is_err();
        loop {
            let (first, lines) = log.lines(next, PORTION);
            if first > next {
                writeln!(sink, r#"{{"event":"dropped","count":{}}}"#, first - next)?;
                next = first;
            }
            if lines.is_empty() {
                break;
            }
            for line in lines {
                sink.write_all(line.as_bytes())?;
                next += 1;
            }
            sink.flush()?;
        }
        if last {
            return Ok(());
        }
    }
}

impl SinkEnd {
    /// Waits until all is written, but not for long: a reader that stopped reading must not hold anyone up.
    pub(crate) async fn wait(self, at_most: Duration) {
        // The channel never carries anything: it closes when the thread ends.
        tokio::time::timeout(at_most, self.0).await.ok();
    }
}
