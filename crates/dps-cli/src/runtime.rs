//! Where the futures run.

use std::future::Future;

use dps_client::Error;

use crate::{given::wrong, interrupt::Interrupts};

/// Runs a future on this thread. What is left on other threads, a name that is being looked up or a pipe that is
/// being read, holds nobody up afterwards.
pub(crate) fn block_on<T, F: Future<Output = Result<T, Error>>>(
    future: impl FnOnce(Interrupts) -> F,
) -> Result<T, Error> {
    let failed = |error: std::io::Error| wrong("runtime", "", &error.to_string());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let outcome = runtime.block_on(async { future(Interrupts::listen().map_err(failed)?).await });
    runtime.shutdown_background();
    outcome
}
