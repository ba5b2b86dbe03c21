//! Where tokio can't carry out a call, the call fails with an error.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    task::Poll,
};

use tokio::runtime::Handle;

use crate::error::{ConfigurationError, Error};

/// How tokio's panics begin when its runtime lacks a part that is needed, or is shutting down. It has no way to ask for
/// these beforehand.
const UNFIT: &str = "A Tokio 1.x context was found, but ";

/// Polls the future where there is a runtime that is fit for it; elsewhere it fails, whatever was polled before.
pub(super) async fn within_runtime<V>(
    future: impl Future<Output = Result<V, Error>>,
) -> Result<V, Error> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if Handle::try_current().is_err() {
            return failed("there is none here; call this from within a tokio runtime");
        }
        // A future that panicked is dropped, never polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>();
            match text.and_then(|text| text.strip_prefix(UNFIT)) {
                Some(reason) => failed(reason),
                None => resume_unwind(panic),
            }
        })
    })
    .await
}

fn failed<V>(reason: &str) -> Poll<Result<V, Error>> {
    Poll::Ready(Err(ConfigurationError::new("runtime", "", reason).into()))
}
