//! The `operationStatus` events as a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::mpsc;

use crate::registration_result::OperationStatus;

/// How many events wait for a slow reader; past it the newest are dropped until the reader catches up.
const BUFFER: usize = 256;

/// A stream of `operationStatus` events. It ends when the machine is gone.
#[derive(Debug)]
pub struct OperationStatusEvents(mpsc::Receiver<OperationStatus>);

impl OperationStatusEvents {
    pub(super) fn new() -> (mpsc::Sender<OperationStatus>, Self) {
        let (sender, receiver) = mpsc::channel(BUFFER);
        (sender, Self(receiver))
    }

    /// The next event; `None` when the machine is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<OperationStatus> {
        self.0.recv().await
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<OperationStatus> {
        self.0.try_recv().ok()
    }
}

impl futures_core::Stream for OperationStatusEvents {
    type Item = OperationStatus;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}
