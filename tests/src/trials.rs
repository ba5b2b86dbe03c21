//! Cases that run once on each wire, as tests named `case::wire`.

use std::{fmt, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use dps_client::Transport;
use libtest_mimic::{Arguments, Trial};

/// No case takes longer; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What must hold on a wire.
type Run = Box<dyn Fn(Transport) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

/// Something that must hold on every wire.
pub struct WireCase {
    name: String,
    run: Run,
}

impl WireCase {
    /// A case that passes when its future ends.
    pub fn new<F: Future<Output = ()> + 'static>(
        name: impl Into<String>,
        run: impl Fn(Transport) -> F + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), run: Box::new(move |wire| Box::pin(run(wire))) }
    }
}

impl fmt::Debug for WireCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireCase({})", self.name)
    }
}

/// Runs each case on each wire that is compiled in, and the other trials, so many at a time unless the command line
/// says otherwise. To be called by `main`.
pub fn run_on_every_wire(
    at_a_time: usize,
    cases: impl IntoIterator<Item = WireCase>,
    others: impl IntoIterator<Item = Trial>,
) -> ExitCode {
    let mut trials: Vec<Trial> = others.into_iter().collect();
    for WireCase { name, run } in cases {
        let run = Arc::new(run);
        for wire in Transport::ALL.into_iter().filter(|wire| wire.is_built()) {
            let run = run.clone();
            let name = format!("{name}::{}", wire.as_str().replace('-', "_"));
            trials.push(Trial::test(name, move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let outcome =
                    runtime.block_on(async { tokio::time::timeout(PATIENCE, run(wire)).await });
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
macro_rules! wire_case {
    ($name:ident) => {
        $crate::WireCase::new(stringify!($name), $name)
    };
}
