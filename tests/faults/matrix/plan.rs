//! What a row and a cell of the matrix are: what goes wrong, what must come of it, and why it can't go wrong elsewhere.

use std::time::Duration;

use dps_client::{ErrorKind, Stage, Transport};
use dps_emulator::{Behavior, ConnectionFault};

use crate::peers::{Injection, Misbehavior, PortState};

/// One fault, at every step.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) plan: Box<dyn Fn(Column) -> Plan>,
}

impl Row {
    pub(super) fn plan(&self, transport: Transport, step: Stage) -> Plan {
        let column = Column { transport, step };
        if step == Stage::Websocket && !column.is_websocket() {
            return Plan::Not(NO_SUCH_STEP);
        }
        (self.plan)(column)
    }
}

/// A transport at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) transport: Transport,
    pub(super) step: Stage,
}

impl Column {
    pub(super) fn is_websocket(self) -> bool {
        matches!(self.transport, Transport::MqttWs | Transport::AmqpWs)
    }

    pub(super) fn is_mqtt(self) -> bool {
        matches!(self.transport, Transport::Mqtt | Transport::MqttWs)
    }

    pub(super) fn is_amqp(self) -> bool {
        matches!(self.transport, Transport::Amqp | Transport::AmqpWs)
    }

    pub(super) fn is_http(self) -> bool {
        self.transport == Transport::Http
    }
}

/// What a cell comes to.
pub(super) enum Plan {
    Run(Scenario),
    Not(Reason),
}

/// Why a fault can't happen at a step. The letter stands in the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reason(pub(super) char, pub(super) &'static str);

pub(super) const NO_SUCH_STEP: Reason = Reason('a', "the transport has no WebSocket");
pub(super) const WITH_THE_REQUEST: Reason =
    Reason('b', "HTTP sends the credential with the request: see register and query");
pub(super) const NO_NAME: Reason = Reason('c', "no name is looked up at this step");
pub(super) const NO_NEW_CONNECTION: Reason = Reason('d', "no connection is opened at this step");
pub(super) const NO_PEER: Reason =
    Reason('e', "no peer takes part in this step: the system's resolver does");
pub(super) const NO_CONNECTION: Reason = Reason('f', "there is no connection yet that could break");
pub(super) const NO_TLS: Reason = Reason('g', "there is no TLS at this step");
pub(super) const HANDSHAKE_ONLY: Reason =
    Reason('h', "decided in the TLS handshake, which is the same on each connection");
pub(super) const PROXY_ONLY: Reason = Reason('i', "only a proxy says this");
pub(super) const NO_TUNNEL: Reason = Reason('j', "there is no tunnel yet that could die");
pub(super) const UPGRADE_ONLY: Reason = Reason('k', "only the upgrade is answered like this");
pub(super) const NOT_THIS_TRANSPORT: Reason = Reason('l', "the transport has no such message");
pub(super) const OTHER_STEP: Reason = Reason('m', "the message belongs to another step");
pub(super) const NO_REQUEST: Reason =
    Reason('n', "no request of the registration is answered at this step");
pub(super) const CREDENTIAL_ONLY: Reason = Reason('o', "the clock plays no part in this step");

pub(super) const REASONS: &[Reason] = &[
    NO_SUCH_STEP,
    WITH_THE_REQUEST,
    NO_NAME,
    NO_NEW_CONNECTION,
    NO_PEER,
    NO_CONNECTION,
    NO_TLS,
    HANDSHAKE_ONLY,
    PROXY_ONLY,
    NO_TUNNEL,
    UPGRADE_ONLY,
    NOT_THIS_TRANSPORT,
    OTHER_STEP,
    NO_REQUEST,
    CREDENTIAL_ONLY,
];

/// A cell to run.
pub(super) struct Scenario {
    pub(super) cause: Cause,
    pub(super) behavior: Behavior,
    pub(super) proxy: bool,
    pub(super) clock_ahead: Duration,
    /// The service hangs up after its last answer: the next registration comes after that.
    pub(super) hangs_up: bool,
    pub(super) expect: Expect,
}

/// Who makes it go wrong.
pub(super) enum Cause {
    /// The man in the middle.
    Injection(Injection),
    /// The port that it listens on.
    ControlledPort(PortState),
    /// The service, on every connection.
    Connection(ConnectionFault),
    /// The service behaves as configured; the man in the middle lets everything through.
    Service,
    /// The name of the service, or of the proxy, does not exist. It can't be made to.
    NoSuchName,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// It does no harm.
    Assigned,
    /// The registration fails, with this error.
    Fails { kind: ErrorKind, stage: Stage, retryable: bool },
    /// The registration succeeds, and the end of the session ends, with an error of its own or without.
    Ends,
}

pub(super) fn fails(kind: ErrorKind, stage: Stage, retryable: bool) -> Expect {
    Expect::Fails { kind, stage, retryable }
}

impl Scenario {
    pub(super) fn new(cause: Cause, expect: Expect) -> Self {
        Self {
            cause,
            behavior: Behavior::new().polls(1),
            proxy: false,
            clock_ahead: Duration::ZERO,
            hangs_up: false,
            expect,
        }
    }

    pub(super) fn injection(injection: Injection, expect: Expect) -> Self {
        let proxy = injection.at == Stage::Proxy;
        Self { proxy, ..Self::new(Cause::Injection(injection), expect) }
    }

    pub(super) fn behavior(mut self, behavior: Behavior) -> Self {
        self.behavior = behavior;
        self
    }

    pub(super) fn through_proxy(mut self) -> Self {
        self.proxy = true;
        self
    }
}

impl Scenario {
    /// Whether whoever is in between dies.
    pub(super) fn dies(&self) -> bool {
        matches!(self.cause, Cause::Injection(Injection { what: Misbehavior::Die(_), .. }))
    }
}

impl From<Scenario> for Plan {
    fn from(scenario: Scenario) -> Self {
        Self::Run(scenario)
    }
}

pub(super) fn row(name: &'static str, plan: impl Fn(Column) -> Plan + 'static) -> Row {
    Row { name, plan: Box::new(plan) }
}
