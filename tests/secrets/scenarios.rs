//! Registrations that succeed, fail and break off, with all that can be seen of them.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{
    Client, Config, Printable, Proxy, RegistrationRequest, Roots, SasToken, Settings, Step,
    Transport, client,
};
use dps_conformance::{
    Authority, ProxyScript, TestProxy, adjusted, config_for, drop_after, fast, settle,
};
use dps_emulator::{Behavior, Body, ConnectionFault, Delivery, Emulator, Fault, RetryAfter};

use crate::{
    canaries::{DEVICE_KEY, Factory, Identity, LIFETIME, PROXY_PASSWORD, canaries, device},
    capture::{Output, mark, show, show_error, since},
};

pub(crate) async fn run(transport: Transport, identity: Identity) {
    let (started, mark) = (SystemTime::now(), mark());
    let bench = Bench::new(transport, identity).await;
    bench.succeed().await;
    bench.be_refused().await;
    bench.be_echoed().await;
    bench.trust_no_root().await;
    bench.go_through_proxies().await;
    bench.run_out_of_time().await;
    bench.break_off().await;
    bench.be_cancelled().await;
    let id_scope = bench.emulator.id_scope().clone();
    bench.emulator.stop().await;

    let output = since(mark);
    // What says nothing gives nothing away.
    let text = String::from_utf8_lossy(&output);
    for spoken in
        ["rustls", "Assigned", "registrationId", "***", "alert", "proxy", "RejectionError"]
    {
        assert!(text.contains(spoken), "{spoken} is not in {} bytes of output", output.len());
    }
    let what = format!("{transport} with {identity:?}");
    canaries(&id_scope, started).assert_absent(&what, &output);
}

struct Bench {
    transport: Transport,
    emulator: Emulator,
    config: Config,
}

impl Bench {
    async fn new(transport: Transport, identity: Identity) -> Self {
        let factory = Factory::new();
        let service =
            Emulator::builder().enrollment(identity.enrollment(&factory)).events_to(Output);
        show(&service);
        let emulator = service.start().await.unwrap();
        let config = adjusted(
            config_for(&emulator, transport, identity.attestation(&factory, transport)),
            |config| config.sas_lifetime = LIFETIME,
        );
        Self { transport, emulator, config }
    }

    fn behaving(&self, behavior: Behavior) {
        self.emulator.forget_devices();
        self.emulator.set_behavior("dev-1", behavior).unwrap();
    }

    /// Registers once, shows whatever there is to be seen, and says whether it went well.
    async fn attempt(&self, config: Config, settings: Settings) -> bool {
        let before = self.emulator.events().len();
        show(&config);
        let client = client(self.transport, config, settings).unwrap();
        client.observe(|step: &Step| show(step));
        show(&client);
        let request = RegistrationRequest::new(device()).model_id("dtmi:test;1");
        show(&request);
        let mut events = client.operation_status();
        let outcome = client.register(request).await;
        show(&client);
        while let Some(event) = events.try_next() {
            show(&event);
        }
        match &outcome {
            Ok(registered) => show(registered),
            Err(error) => {
                show_error(error);
                show(&(error.hint(), error.stage(), error.tracking_id().map(Printable::brief)));
            }
        }
        settle(&client).await;
        show(&self.emulator);
        show(&self.emulator.events().since(before));
        outcome.is_ok()
    }

    async fn succeeds(&self, when: &str, config: Config) {
        assert!(self.attempt(config, fast()).await, "it failed, though {when}");
    }

    async fn fails(&self, when: &str, config: Config) {
        self.fails_within(when, config, fast()).await;
    }

    async fn fails_within(&self, when: &str, config: Config, settings: Settings) {
        assert!(!self.attempt(config, settings).await, "it went well, though {when}");
    }

    /// Every connection meets this, not only the next one: what an earlier attempt gave up may still wait to be
    /// accepted, and would take the fault away from the attempt that it is meant for.
    fn meeting(&self, fault: ConnectionFault) {
        self.emulator.set_connection_faults([fault; 100]);
    }

    async fn succeed(&self) {
        self.succeeds("nothing is wrong", self.config.clone()).await;
        self.behaving(Behavior::new().polls(2).on_register(Fault::refuse(429)));
        self.succeeds("it was only throttled", self.config.clone()).await;
    }

    async fn be_refused(&self) {
        let before = self.emulator.events().len();
        self.emulator.set_enabled("dev-1", false).unwrap();
        self.fails("its enrollment is disabled", self.config.clone()).await;
        self.emulator.set_enabled("dev-1", true).unwrap();
        self.behaving(Behavior::new().on_register(Fault::error(401_002, "Unauthorized")));
        self.fails("it was refused", self.config.clone()).await;
        // Signed for another instance of the service.
        let elsewhere = adjusted(self.config.clone(), |config| {
            config.id_scope = "0ne00FFFFFF".parse().unwrap()
        });
        self.fails("it asks for another instance", elsewhere).await;
        let expired = adjusted(self.config.clone(), |config| config.sas_lifetime = Duration::ZERO);
        self.behaving(Behavior::new());
        let _refused_if_there_is_a_token = self.attempt(expired, fast()).await;
        assert!(self.emulator.events().len() > before);
    }

    /// A peer says the device's token back to it, wherever it can say something.
    async fn be_echoed(&self) {
        let key = DEVICE_KEY.parse().unwrap();
        let token =
            SasToken::sign(&key, self.emulator.id_scope(), &device(), SystemTime::now() + LIFETIME);
        let (token, shown) = (token.expose(), token.expose().replace("%3D", "\\u003d"));
        let encode = |text: &str| STANDARD.encode(text);
        let (_, signature) = token.split_once("&sig=").unwrap();
        let (signature, _) = signature.split_once('&').unwrap();
        let bare = signature.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
        // What is secret is known without a word before it, and in other encodings.
        let bare = [
            signature.replace('%', "%25"),
            encode(&bare),
            encode(token),
            bare.replace('/', "\\/"),
            signature.to_owned(),
            bare,
            DEVICE_KEY.to_owned(),
            encode(DEVICE_KEY),
        ];
        let bare = bare.into_iter().flat_map(|text| {
            let trace = Fault::error(400_001, &text).and_with("trackingId", &*text);
            [trace, Fault::refuse(403).body(Body::Text(format!("wrong: {text}.")))]
        });
        for fault in bare.chain([
            Fault::error(400_001, token).and_with("trackingId", token),
            Fault::error(503_001, token).and_with("timestampUtc", token),
            Fault::refuse(400).body(Body::Text(token.to_owned())),
            Fault::refuse(404).body(Body::Text(format!(r#"{{"message":"no {shown}"}}"#))),
            Fault::with_body(Body::Text(format!("<p>{token}</p>"))),
            Fault::with("status", token),
            // It is too late to ask: the service itself would record the request.
            Fault::with("operationId", token)
                .and_with("status", "assigning")
                .retry_after(RetryAfter::raw("3600")),
        ]) {
            let when = format!("the answer is {fault:?}");
            // Always: a request that ran out of time may still be on its way, and would take a fault that comes once.
            self.behaving(Behavior::new().on_register(fault.forever()));
            // What is asked again and again is asked until the time is over.
            let soon = adjusted(fast(), |settings| {
                settings.registration_timeout = Duration::from_millis(400)
            });
            self.fails_within(&when, self.config.clone(), soon).await;
        }
        let assigned = Fault::with("registrationState.substatus", token)
            .and_with("registrationState.payload", token);
        self.behaving(Behavior::new().polls(1).on_query(assigned));
        self.succeeds("the answer only repeats the token", self.config.clone()).await;
        let line: &'static str = format!("502 {token}").leak();
        let proxy = TestProxy::start(ProxyScript::Refuse(line)).await;
        let config = adjusted(self.config.clone(), |config| config.proxy = proxy.choice(""));
        self.fails("the proxy refuses", config).await;
    }

    async fn trust_no_root(&self) {
        let other = Roots::empty().with_pem(Authority::root("Other").pem.as_bytes()).unwrap();
        let config = adjusted(self.config.clone(), |config| config.roots = other);
        self.fails("it trusts another root", config).await;
    }

    async fn go_through_proxies(&self) {
        let through = async |script| {
            let proxy = TestProxy::start(script).await;
            let choice = proxy.choice(&format!("user:{PROXY_PASSWORD}@"));
            show(&choice);
            let config = adjusted(self.config.clone(), |config| config.proxy = choice);
            (proxy, config)
        };
        self.behaving(Behavior::new());
        let (_proxy, config) = through(ProxyScript::Open).await;
        self.succeeds("the proxy is open", config).await;
        for script in [
            ProxyScript::Authenticated,
            ProxyScript::Refuse("502 Bad Gateway"),
            ProxyScript::Close,
            ProxyScript::CloseTunnel,
        ] {
            let when = format!("the proxy's script is {script:?}");
            let (_proxy, config) = through(script).await;
            self.fails(&when, config).await;
        }
        let unresponsive: Proxy =
            format!("http://user:{PROXY_PASSWORD}@no-such-proxy.invalid:1").parse().unwrap();
        let config = adjusted(self.config.clone(), |config| config.proxy = unresponsive.into());
        self.fails("there is no such proxy", config).await;
    }

    async fn run_out_of_time(&self) {
        let soon = Duration::from_millis(60);
        self.behaving(Behavior::new().on_register(Fault::deliver(Delivery::Never).forever()));
        let settings = adjusted(fast(), |settings| settings.request_timeout = soon);
        self.fails_within("no answer comes", self.config.clone(), settings).await;
        self.behaving(Behavior::new().polls(u32::MAX));
        let settings = adjusted(fast(), |settings| settings.registration_timeout = soon);
        self.fails_within("it is never assigned", self.config.clone(), settings).await;
        self.behaving(Behavior::new());
        self.meeting(ConnectionFault::HangOnAccept);
        let config = adjusted(self.config.clone(), |config| config.connect_timeout = Some(soon));
        self.fails("no TLS comes", config).await;
    }

    async fn break_off(&self) {
        for fault in [ConnectionFault::CloseOnAccept, ConnectionFault::GarbageForTls] {
            self.meeting(fault);
            self.fails(&format!("each connection meets {fault:?}"), self.config.clone()).await;
        }
        self.emulator.set_connection_faults([]);
        for fault in [
            Fault::deliver(Delivery::CloseBefore),
            Fault::deliver(Delivery::CloseMid(20)),
            Fault::with_body(Body::Garbage),
            Fault::with_body(Body::Html),
        ] {
            let when = format!("the answer is {fault:?}");
            self.behaving(Behavior::new().on_register(fault.forever()));
            self.fails(&when, self.config.clone()).await;
        }
        self.behaving(Behavior::new().polls(1).on_query(Fault::deliver(Delivery::CloseBefore)));
        self.succeeds("only a poll was lost", self.config.clone()).await;
    }

    async fn be_cancelled(&self) {
        self.behaving(Behavior::new().polls(1));
        let fresh = || client(self.transport, self.config.clone(), fast()).unwrap();
        let request = || RegistrationRequest::new(device());
        for polls in 1..200 {
            let client: Client = fresh();
            let outcome = drop_after(polls, client.register(request())).await;
            show(&client);
            settle(&client).await;
            if outcome.is_some() {
                break;
            }
        }
        let client = fresh();
        let (outcome, ()) = tokio::join!(client.register(request()), async { client.cancel() });
        show_error(&outcome.unwrap_err());
        settle(&client).await;
    }
}
