//! Cases that run once on each transport, as tests named `case::transport`.

use std::{fmt, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use dps_client::Transport;
use libtest_mimic::{Arguments, Trial};

/// No case takes longer; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What must hold on a transport.
type Run = Box<dyn Fn(Transport) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

/// Something that must hold on every transport.
pub struct TransportCase {
    name: String,
    run: Run,
}

impl TransportCase {
    /// A case that passes when its future ends.
    pub fn new<F: Future<Output = ()> + 'static>(
        name: impl Into<String>,
        run: impl Fn(Transport) -> F + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), run: Box::new(move |transport| Box::pin(run(transport))) }
    }
}

impl fmt::Debug for TransportCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransportCase({})", self.name)
    }
}

/// Runs each case on each transport that is compiled in, and the other trials, so many at a time unless the command line
/// says otherwise. To be called by `main`.
pub fn run_on_every_transport(
    at_a_time: usize,
    cases: impl IntoIterator<Item = TransportCase>,
    others: impl IntoIterator<Item = Trial>,
) -> ExitCode {
    let mut trials: Vec<Trial> = others.into_iter().collect();
    for TransportCase { name, run } in cases {
        let run = Arc::new(run);
        for transport in Transport::ALL.into_iter().filter(|transport| transport.is_built()) {
            let run = run.clone();
            let name = format!("{name}::{}", transport.as_str().replace('-', "_"));
            trials.push(Trial::test(name, move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let outcome = runtime
                    .block_on(async { tokio::time::timeout(PATIENCE, run(transport)).await });
                runtime.shutdown_background();
                outcome.map_err(|_| format!("it hangs: no end after {PATIENCE:?}").into())
            }));
        }
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(at_a_time);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A case from an async function of the same name.
#[macro_export]
macro_rules! transport_case {
    ($name:ident) => {
        $crate::TransportCase::new(stringify!($name), $name)
    };
}
