//! A device, a service in good health, and a man in the middle.
//!
//! The peers live in a runtime of their own, so that the client's tasks can be counted.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dps_client::{
    Client, Config, Endpoint, Error, Proxy, ProxyChoice, RegistrationRequest, RegistrationResult,
    Roots, Settings, Step, Transport, client,
};
use dps_conformance::{Bench, Cell, Credential, adjusted};
use dps_emulator::{Behavior, ReturnedPayload};
use tokio::runtime::{Builder, Runtime};

use crate::peers::{ManInTheMiddle, Pki};

/// Two runtimes and what all environments share.
pub(crate) struct Fixture {
    pub(crate) peers: Runtime,
    pub(crate) pki: Arc<Pki>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let peers = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { peers: peers.expect("a runtime"), pki: Arc::new(Pki::new()) }
    }
}

/// How an environment is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) cell: Cell,
    pub(crate) behavior: Behavior,
    /// The way leads through a proxy.
    pub(crate) proxy: bool,
    /// How far the service's clock is ahead.
    pub(crate) clock_ahead: Duration,
}

impl Setup {
    pub(crate) fn new(transport: Transport, behavior: Behavior) -> Self {
        let cell = Cell { transport, credential: Credential::SymmetricKey };
        Self { cell, behavior, proxy: false, clock_ahead: Duration::ZERO }
    }
}

/// See the module.
pub(crate) struct Environment {
    pub(crate) bench: Bench,
    pub(crate) man_in_the_middle: ManInTheMiddle,
    pub(crate) config: Config,
    requested: Arc<Mutex<Instant>>,
}

impl Environment {
    pub(crate) async fn start(fixture: &Fixture, setup: &Setup) -> Self {
        let (setup, pki) = (setup.clone(), Arc::clone(&fixture.pki));
        let start = fixture.peers.spawn(async move {
            let Setup { cell, behavior, proxy, clock_ahead } = setup;
            let bench = Bench::with_service(
                cell,
                |enrollment| enrollment.behavior(behavior).payload(ReturnedPayload::Echo),
                |service| service.clock_ahead(clock_ahead),
            )
            .await;
            let port = bench.config.endpoint.port_or(0);
            let service = SocketAddr::from(([127, 0, 0, 1], port));
            let ca = bench.emulator.ca_pem();
            let man_in_the_middle =
                ManInTheMiddle::start(cell.transport, proxy, Arc::clone(&pki), service, ca)
                    .await
                    .expect("a man in the middle");
            (bench, man_in_the_middle, pki)
        });
        let (bench, man_in_the_middle, pki) = start.await.expect("the peers' start");
        let roots = Roots::empty().with_pem(pki.roots_pem.as_bytes()).expect("roots");
        let endpoint: Endpoint =
            man_in_the_middle.address.to_string().parse().expect("an endpoint");
        let mut config = bench.config.clone();
        config.roots = roots;
        if setup.proxy {
            // Nobody is at the endpoint but behind the proxy.
            let proxy: Proxy =
                format!("http://{}", man_in_the_middle.address).parse().expect("a proxy's URL");
            let closed: Endpoint = "127.0.0.1:1".parse().expect("an endpoint");
            config.endpoint = closed;
            config.proxy = ProxyChoice::Url(proxy);
        } else {
            config.endpoint = endpoint;
        }
        let requested = Arc::new(Mutex::new(Instant::now()));
        Self { bench, man_in_the_middle, config, requested }
    }

    /// When the last request of the registration went out, the making of its connection included.
    pub(crate) fn requested(&self) -> Instant {
        *self.requested.lock().expect("no holder of the lock panics")
    }

    pub(crate) fn client(&self, settings: Settings) -> Client {
        let client = client(self.bench.cell.transport, self.config.clone(), settings);
        let client = client.expect("a client");
        let when = Arc::clone(&self.requested);
        client.observe(move |step| {
            if matches!(step, Step::Registering | Step::Polling) {
                *when.lock().expect("no holder of the lock panics") = Instant::now();
            }
        });
        client
    }

    /// Asks for a service, or a proxy, that has no address.
    pub(crate) fn use_unresolvable_name(&mut self, proxy: bool) {
        self.config = if proxy {
            let proxy: Proxy = "http://no-such-proxy.invalid:3128".parse().expect("a proxy's URL");
            adjusted(self.config.clone(), |config| config.proxy = ProxyChoice::Url(proxy))
        } else {
            let nowhere: Endpoint = "no-such-host.invalid".parse().expect("an endpoint");
            adjusted(self.config.clone(), |config| config.endpoint = nowhere)
        };
    }

    /// Nothing goes wrong any more.
    pub(crate) async fn clear(&self) {
        let emulator = &self.bench.emulator;
        emulator
            .set_behavior(self.bench.enrollment, Behavior::new())
            .expect("the enrollment is there");
        emulator.forget_devices();
        emulator.set_connection_faults([]);
        emulator.set_clock_ahead(Duration::ZERO);
        self.man_in_the_middle.clear().await;
    }
}

/// A request with a number that the service sends back.
pub(crate) fn request(number: u32) -> RegistrationRequest {
    RegistrationRequest::new(dps_conformance::DEVICE.parse().expect("a registration id"))
        .payload(serde_json::json!({ "number": number }))
        .expect("an object")
}

/// Whether it is the answer to the request of this number.
pub(crate) fn answers(
    outcome: &Result<RegistrationResult, Error>,
    number: u32,
) -> Result<(), String> {
    let registered = outcome.as_ref().map_err(|error| format!("{error} ({error:?})"))?;
    let expected = format!("{{\"number\":{number}}}");
    let payload = registered.payload.as_ref().map(|payload| payload.get());
    if payload == Some(expected.as_str()) {
        return Ok(());
    }
    Err(format!("it has the answer to another request: {payload:?}, not {expected}"))
}
