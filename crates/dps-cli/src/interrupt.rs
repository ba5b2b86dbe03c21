//! Ctrl-C, and SIGTERM where there is such a thing.

use std::{
    io,
    sync::{
        atomic::{AtomicU8, AtomicU32, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use crate::output;

/// What a shell says of a command that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// What it says of one that SIGTERM ended.
#[cfg(unix)]
const TERMINATED: u8 = 143;
/// So long an interrupt may be left alone by a command that is busy.
const GRACE: Duration = Duration::from_secs(1);
/// So long another interrupt may.
const SHORT_GRACE: Duration = Duration::from_millis(100);

/// How many interrupts were taken notice of.
static HEARD: AtomicU32 = AtomicU32::new(0);
/// The exit code that the last interrupt asks for.
static CODE: AtomicU8 = AtomicU8::new(INTERRUPTED);

/// Takes the place of what the system does at an interrupt, for as long as the process lives.
///
/// A thread of its own listens, so that a command that waits for a reader or a writer ends too: it does when it leaves an
/// interrupt alone.
pub(crate) struct Interrupts(UnboundedReceiver<()>);

impl Interrupts {
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, receiver) = unbounded_channel();
        let (listening, is_listening) = sync_channel(1);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let listens = runtime.and_then(|runtime| {
                let signals = runtime.block_on(async { Signals::listen() })?;
                Ok((runtime, signals))
            });
            match listens {
                Ok((runtime, signals)) => {
                    let _ = listening.send(Ok(()));
                    runtime.block_on(watch(signals, sender));
                }
                Err(error) => {
                    let _ = listening.send(Err(error));
                }
            }
        })?;
        is_listening.recv().map_err(io::Error::other)??;
        Ok(Self(receiver))
    }

    pub(crate) async fn next(&mut self) {
        match self.0.recv().await {
            Some(()) => HEARD.fetch_add(1, Ordering::SeqCst),
            None => std::future::pending().await,
        };
    }
}

/// The exit code of a command that was interrupted.
pub(crate) fn exit_code() -> u8 {
    CODE.load(Ordering::SeqCst)
}

/// Passes interrupts on. Ends the process when it does not take notice of one, or when it then waits for a reader of
/// standard output that does not read.
async fn watch(mut signals: Signals, pass_on: UnboundedSender<()>) {
    let mut count = 0;
    let mut written = None;
    let mut look = Instant::now();
    loop {
        tokio::select! {
            code = signals.next() => {
                CODE.store(code, Ordering::SeqCst);
                count += 1;
                written = None;
                let is_busy = count == 1 && output::write_under_way().is_none();
                look = Instant::now() + if is_busy { GRACE } else { SHORT_GRACE };
                let _ = pass_on.send(());
            }
            () = tokio::time::sleep_until(look), if count > 0 => {
                let writing = output::write_under_way();
                if HEARD.load(Ordering::SeqCst) < count || (writing.is_some() && writing == written) {
                    std::process::exit(exit_code().into());
                }
                written = writing;
                look = Instant::now() + SHORT_GRACE;
            }
        }
    }
}

struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "where there are signals it can fail")]
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        INTERRUPTED
    }
}
