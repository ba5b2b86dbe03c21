//! Runtimes that a registration can't be carried out in, and none at all.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use dps_client::{Client, Error, ErrorKind, Transport};
use dps_conformance::{Bench, Cell, Credential};
use libtest_mimic::Trial;
use tokio::runtime::{Builder, Runtime};

use crate::{Case, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let cases: [(&str, Case); 5] = [
        ("outside_of_a_runtime", outside),
        ("first_in_a_runtime_and_then_outside", then_outside),
        ("in_a_runtime_without_a_timer", without_timer),
        ("in_a_runtime_without_io", without_io),
        ("in_a_runtime_that_is_gone", gone),
    ];
    let on_each = |(name, case)| Transport::ALL.map(|transport| trial(name, transport, case));
    cases.into_iter().flat_map(on_each).collect()
}

/// Polls a registration until its error, as a case wants it.
type Poller<'a> = &'a mut dyn FnMut(&mut Context<'_>) -> Poll<Error>;

/// A service, the runtime that it lives in, and a client of it.
struct World {
    runtime: Runtime,
    bench: Bench,
    client: Client,
}

impl World {
    fn new(transport: Transport) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let cell = Cell { transport, credential: Credential::SymmetricKey };
        let bench = runtime.block_on(Bench::healthy(cell));
        let client = bench.client();
        Self { runtime, bench, client }
    }

    /// The registration fails, polled like this.
    fn error(&self, run: impl Fn(Poller<'_>) -> Error) -> Error {
        let mut registration = pin!(self.client.register(self.bench.request()));
        run(&mut |cx| registration.as_mut().poll(cx).map(Result::unwrap_err))
    }

    /// It fails, and says that it is the runtime's fault.
    fn fails_with(&self, run: impl Fn(Poller<'_>) -> Error) {
        is_about_the_runtime(&self.error(run));
    }

    /// In a runtime that has all, the same client registers, and ends its session; outside it can't end it, and that
    /// changes nothing.
    fn registers_elsewhere(self) {
        let registered = self.runtime.block_on(self.client.register(self.bench.request()));
        registered.unwrap();
        let ended = {
            let mut end = pin!(self.client.end_session());
            end.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        let Poll::Ready(Err(error)) = ended else { panic!("{ended:?}") };
        is_about_the_runtime(&error);
        self.runtime.block_on(self.client.end_session()).unwrap();
    }
}

fn is_about_the_runtime(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().starts_with("runtime: "), "{error}");
}

fn in_this(runtime: &Runtime) -> impl Fn(Poller<'_>) -> Error {
    move |poll| runtime.block_on(std::future::poll_fn(poll))
}

fn at_once(poll: Poller<'_>) -> Error {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(error) => error,
        Poll::Pending => panic!("it waits for a runtime"),
    }
}

fn outside(transport: Transport) {
    let world = World::new(transport);
    world.fails_with(at_once);
    world.registers_elsewhere();
}

fn then_outside(transport: Transport) {
    let world = World::new(transport);
    // Nobody runs this one, so that nothing is ready at the first poll.
    let idle = Builder::new_current_thread().enable_all().build().unwrap();
    world.fails_with(|poll| {
        let here = idle.enter();
        let first = poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending(), "{first:?}");
        drop(here);
        at_once(poll)
    });
    world.registers_elsewhere();
}

fn without_timer(transport: Transport) {
    let world = World::new(transport);
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    world.fails_with(in_this(&runtime));
    world.registers_elsewhere();
}

fn without_io(transport: Transport) {
    let world = World::new(transport);
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    world.fails_with(in_this(&runtime));
    world.registers_elsewhere();
}

fn gone(transport: Transport) {
    let world = World::new(transport);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let error = world.error(|poll| handle.block_on(std::future::poll_fn(|cx| poll(cx))));
    // Sockets say so as an error, timers by a panic.
    assert!(matches!(error.kind(), ErrorKind::Configuration | ErrorKind::Connection), "{error}");
    assert!(error.to_string().contains("it is being shutdown"), "{error}");
    world.registers_elsewhere();
}
