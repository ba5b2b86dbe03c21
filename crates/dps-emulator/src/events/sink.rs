//! Events as lines of JSON in a file or a stream.

use std::{
    io::Write,
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use tokio::sync::oneshot;

use super::Event;

/// Hands lines to a thread that writes them, so that a slow reader of the stream never stops the emulator.
#[derive(Clone)]
pub(crate) struct Sink(SyncSender<Vec<u8>>);

/// Tells when everything has been written.
pub(crate) struct SinkEnd(oneshot::Receiver<()>);

impl Sink {
    /// Lines that may wait for a slow reader; more are lost.
    const BACKLOG: usize = 16_384;

    pub(crate) fn start(mut to: Box<dyn Write + Send>) -> std::io::Result<(Self, SinkEnd)> {
        let (lines, incoming) = sync_channel::<Vec<u8>>(Self::BACKLOG);
        let (done, end) = oneshot::channel::<()>();
        std::thread::Builder::new().name("dps-emulator-events".into()).spawn(move || {
            // Gone when the thread ends, however it does.
            let _done = done;
            for line in incoming {
                if let Err(error) = to.write_all(&line).and_then(|()| to.flush()) {
                    tracing::warn!(%error, "the event log can't be written; no more events are");
                    return;
                }
            }
        })?;
        Ok((Self(lines), SinkEnd(end)))
    }

    pub(crate) fn write(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        if self.0.try_send(line).is_err() {
            tracing::warn!(
                sequence = event.sequence,
                "the event log is too slow; an event is lost"
            );
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
