//! The rows of the matrix.

use std::time::Duration;

use dps_client::{
    ErrorKind::{self, Connection, Protocol, Rejected, Timeout},
    Stage::{self, Authenticate, Connect, EndSession, Query, Register, Resolve, Tls, Websocket},
};
use dps_emulator::{Behavior, Body, Delivery, Fault, Outcome};

use super::{
    edits::{connack, misdirect, refuse_subscription, sasl_outcome},
    plan::{
        CREDENTIAL_ONLY, Cause, Column, Expect, HANDSHAKE_ONLY, NO_CONNECTION, NO_NAME,
        NO_NEW_CONNECTION, NO_PEER, NO_REQUEST, NO_TLS, NO_TUNNEL, NOT_THIS_TRANSPORT, OTHER_STEP,
        PROXY_ONLY, Plan, Reason, Row, Scenario, UPGRADE_ONLY, WITH_THE_REQUEST, fails, row,
    },
    service_faults,
};
use crate::peers::{Credentials, Injection, Kind, Misbehavior, PortState};

/// Every fault there is.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("name not found", no_such_name),
        row("connection refused", |column| controlled_port(column, PortState::Shut)),
        row("connection unanswered", |column| controlled_port(column, PortState::Crowded)),
    ];
    rows.extend(broken_connections());
    rows.extend(handshakes());
    rows.extend(proxies());
    rows.extend(websockets());
    rows.extend(sessions());
    rows.extend(correlations());
    rows.extend(answers());
    rows.extend(service_faults::rows());
    rows
}

fn no_such_name(column: Column) -> Plan {
    let broken = |stage| Scenario::new(Cause::NoSuchName, fails(Connection, stage, true));
    match column.step {
        Resolve => broken(Resolve).into(),
        Stage::Proxy => broken(Stage::Proxy).through_proxy().into(),
        _ => Plan::Not(NO_NAME),
    }
}

/// Nobody lets the connection in: at the start, or when a poll needs a new one.
fn controlled_port(column: Column, state: PortState) -> Plan {
    let expect = |stage| match state {
        PortState::Crowded => fails(Timeout, stage, true),
        _ => fails(Connection, stage, true),
    };
    match column.step {
        Connect => Scenario::new(Cause::ControlledPort(state), expect(Connect)).into(),
        Stage::Proxy => {
            Scenario::new(Cause::ControlledPort(state), expect(Stage::Proxy)).through_proxy().into()
        }
        Query => {
            let injection = Injection::at(Query, Misbehavior::Die(state));
            Scenario::injection(injection, expect(Connect)).into()
        }
        _ => Plan::Not(NO_NEW_CONNECTION),
    }
}

/// What can happen to any connection at any time.
fn broken_connections() -> Vec<Row> {
    let broken = |what| move |column: Column| breaks(column, what, Connection);
    let silent = |what| move |column: Column| breaks(column, what, Timeout);
    vec![
        row("closed (FIN)", broken(Misbehavior::Close)),
        row("reset (RST)", broken(Misbehavior::Reset)),
        row("half-open", silent(Misbehavior::HalfOpen)),
        row("stalled", silent(Misbehavior::Stall)),
        row("one byte a second", silent(Misbehavior::Drip)),
        row("TLS alert", |column| match column.step {
            Stage::Proxy => Plan::Not(NO_TLS),
            _ => breaks(column, Misbehavior::Alert, Connection),
        }),
        row("corrupt TLS record", |column| match column.step {
            Stage::Proxy => Plan::Not(NO_TLS),
            _ => breaks(column, Misbehavior::Corrupt, Connection),
        }),
        row("garbage", garbage),
    ]
}

/// A connection that breaks while the credential is checked is reported at the request: over HTTP, where the
/// credential goes with it, nobody could tell.
fn breaks(column: Column, what: Misbehavior, kind: ErrorKind) -> Plan {
    let expect = match column.step {
        Resolve => return Plan::Not(NO_PEER),
        Connect => return Plan::Not(NO_CONNECTION),
        Authenticate if column.is_http() => return Plan::Not(WITH_THE_REQUEST),
        EndSession => Expect::Ends,
        Authenticate => fails(kind, Register, true),
        step => fails(kind, step, true),
    };
    Scenario::injection(Injection::at(column.step, what), expect).into()
}

/// Bytes that are nothing that the peer could have meant.
fn garbage(column: Column) -> Plan {
    const JUNK: &[u8] =
        b"\x00\xff\xfe\x17 not what anybody would expect here \x80\x81\xf5\r\n\r\n\r\n";
    let what = Misbehavior::Say(JUNK);
    match column.step {
        Authenticate | Register | Query => {
            let plan = breaks(column, what, Protocol);
            let Plan::Run(mut scenario) = plan else { return plan };
            if let Expect::Fails { retryable, .. } = &mut scenario.expect {
                *retryable = false;
            }
            scenario.into()
        }
        _ => breaks(column, what, Connection),
    }
}

fn handshakes() -> Vec<Row> {
    let shows = |name, credentials| {
        row(name, move |column: Column| match column.step {
            Tls => {
                let injection = Injection::at(Tls, Misbehavior::Show(credentials));
                Scenario::injection(injection, fails(Connection, Tls, false)).into()
            }
            _ => Plan::Not(HANDSHAKE_ONLY),
        })
    };
    vec![
        shows("certificate expired", Credentials::Expired),
        shows("certificate for another host", Credentials::WrongHost),
        shows("certificate of an unknown CA", Credentials::UnknownAuthority),
        shows("no common cipher", Credentials::NoCommonCipher),
        row("clock a day off", clock),
    ]
}

/// A device whose clock is a day behind sees a fresh certificate as one from tomorrow, and signs tokens that have
/// expired.
fn clock(column: Column) -> Plan {
    match column.step {
        Tls => {
            let injection = Injection::at(Tls, Misbehavior::Show(Credentials::FromTomorrow));
            Scenario::injection(injection, fails(Connection, Tls, false)).into()
        }
        Authenticate => {
            let refused = fails(Rejected, Authenticate, false);
            let clock_ahead = Duration::from_secs(24 * 3600);
            Scenario { clock_ahead, ..Scenario::new(Cause::Service, refused) }.into()
        }
        _ => Plan::Not(CREDENTIAL_ONLY),
    }
}

fn proxies() -> Vec<Row> {
    let says = |name, reply: &'static [u8], retryable| {
        row(name, move |column: Column| match column.step {
            Stage::Proxy => {
                let injection = Injection::at(Stage::Proxy, Misbehavior::Say(reply));
                Scenario::injection(injection, fails(Connection, Stage::Proxy, retryable)).into()
            }
            _ => Plan::Not(PROXY_ONLY),
        })
    };
    vec![
        says(
            "proxy wants a password (407)",
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        says(
            "proxy can't (502)",
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>no</html>",
            true,
        ),
        row("proxy dies mid-tunnel", |column| {
            let expect = match column.step {
                Resolve | Connect | Stage::Proxy => return Plan::Not(NO_TUNNEL),
                Authenticate if column.is_http() => return Plan::Not(WITH_THE_REQUEST),
                EndSession => Expect::Ends,
                // The poll goes out again, and there is no proxy to go through.
                Query => fails(Connection, Stage::Proxy, true),
                // As does the step-by-step start that follows a start in one flight that died.
                Authenticate => fails(Connection, Stage::Proxy, true),
                // MQTT's registration leaves in that flight, before its SUBACK.
                Register if column.is_mqtt() => fails(Connection, Stage::Proxy, true),
                step => fails(Connection, step, true),
            };
            let injection = Injection::at(column.step, Misbehavior::Die(PortState::Shut));
            Scenario::injection(injection, expect).through_proxy().into()
        }),
    ]
}

fn websockets() -> Vec<Row> {
    let says = |name, reply: &'static [u8], expect: fn() -> Expect| {
        row(name, move |column: Column| match column.step {
            Websocket => {
                let injection = Injection::at(Websocket, Misbehavior::Say(reply));
                Scenario::injection(injection, expect()).into()
            }
            _ => Plan::Not(UPGRADE_ONLY),
        })
    };
    vec![
        says(
            "WebSocket refused (403)",
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            || fails(Connection, Websocket, false),
        ),
        // The service's own no, as on every transport.
        says(
            "WebSocket not now (503)",
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            || fails(Rejected, Register, true),
        ),
        row("WebSocket closed (1011)", |column| match column.step {
            Websocket => Plan::Not(OTHER_STEP),
            Authenticate | Register | Query | EndSession if column.is_websocket() => {
                breaks(column, Misbehavior::CloseWebsocket, Connection)
            }
            _ => Plan::Not(NOT_THIS_TRANSPORT),
        }),
    ]
}

fn sessions() -> Vec<Row> {
    vec![
        row("no CONNACK, no SASL outcome", |column| match column.step {
            Authenticate if !column.is_http() => {
                let injection = Injection::with(Authenticate, Kind::Session, Misbehavior::Swallow);
                // MQTT goes on without, so that the next answer is out of turn; AMQP waits for it.
                let expect = if column.is_mqtt() {
                    fails(Protocol, Register, false)
                } else {
                    fails(Timeout, Register, true)
                };
                Scenario::injection(injection, expect).into()
            }
            Authenticate => Plan::Not(NOT_THIS_TRANSPORT),
            _ => Plan::Not(OTHER_STEP),
        }),
        row("credential refused", |column| session_refused(column, 401)),
        row("session not now", |column| session_refused(column, 503)),
        row("SUBACK refused", |column| {
            let refused = |at| {
                let injection =
                    Injection::with(at, Kind::Subscription, Misbehavior::Edit(refuse_subscription));
                // It may be due to packets that came early: the start that follows step by step is taken.
                Scenario::injection(injection, Expect::Assigned)
            };
            match column.step {
                Register if column.is_mqtt() => refused(Register).into(),
                // On the connection that replaces a lost one.
                Query if column.is_mqtt() => refused(Query)
                    .behavior(
                        Behavior::new().polls(1).on_register(Fault::deliver(Delivery::CloseAfter)),
                    )
                    .into(),
                Register | Query => Plan::Not(NOT_THIS_TRANSPORT),
                _ => Plan::Not(OTHER_STEP),
            }
        }),
    ]
}

/// 401, CONNACK 5, SASL outcome 1; 503, CONNACK 3, SASL outcome 4.
fn session_refused(column: Column, status: u16) -> Plan {
    let (stage, retryable) = if status == 401 { (Authenticate, false) } else { (Register, true) };
    let expect = fails(Rejected, stage, retryable);
    match column.step {
        Authenticate if column.is_http() && status == 401 => {
            let behavior = Behavior::new().on_register(Fault::refuse(401).forever());
            Scenario::new(Cause::Service, expect).behavior(behavior).into()
        }
        Authenticate if column.is_http() => Plan::Not(WITH_THE_REQUEST),
        Authenticate => {
            let edit = match (column.is_amqp(), status) {
                (false, 401) => |bytes: &mut [u8]| connack(bytes, 5),
                (false, _) => |bytes: &mut [u8]| connack(bytes, 3),
                (true, 401) => |bytes: &mut [u8]| sasl_outcome(bytes, 1),
                (true, _) => |bytes: &mut [u8]| sasl_outcome(bytes, 4),
            };
            let injection = Injection::with(Authenticate, Kind::Session, Misbehavior::Edit(edit));
            Scenario::injection(injection, expect).into()
        }
        _ => Plan::Not(OTHER_STEP),
    }
}

fn correlations() -> Vec<Row> {
    let answer = |column: Column, what, expect: fn(Stage) -> Expect, on_http: Option<Reason>| match (
        column.step,
        on_http,
    ) {
        (Register | Query, Some(reason)) if column.is_http() => Plan::Not(reason),
        (step @ (Register | Query), _) => {
            let injection = Injection::with(step, Kind::Answer, what);
            Scenario::injection(injection, expect(step)).into()
        }
        _ => Plan::Not(NO_REQUEST),
    };
    vec![
        row("wrong correlation", move |column| {
            let what = Misbehavior::Edit(misdirect);
            answer(column, what, |step| fails(Timeout, step, true), Some(NOT_THIS_TRANSPORT))
        }),
        row("duplicate answer", move |column| {
            answer(column, Misbehavior::Twice, |_| Expect::Assigned, Some(NOT_THIS_TRANSPORT))
        }),
        row("late answer", move |column| {
            answer(column, Misbehavior::Late, |step| fails(Timeout, step, true), None)
        }),
    ]
}

const HANGS_UP: &str = "closed after the answer";

/// What the service answers to a request.
fn answers() -> Vec<Row> {
    type Expected = fn(Stage) -> Expect;
    let nonsense =
        |body: Body| (Fault::with_body(body), (|step| fails(Protocol, step, false)) as Expected);
    let refused =
        |fault: Fault| (fault.forever(), (|step| fails(Rejected, step, true)) as Expected);
    let answers: Vec<(&'static str, (Fault, Expected))> = vec![
        ("never answered", (Fault::deliver(Delivery::Never), |step| fails(Timeout, step, true))),
        ("throttled for ever (429)", refused(Fault::refuse(429))),
        ("internal error (500)", refused(Fault::refuse(500))),
        ("unavailable (503)", refused(Fault::refuse(503))),
        ("same identity twice (409203)", refused(Fault::refuse(409))),
        ("unknown device (404201)", (Fault::refuse(404), |step| fails(Rejected, step, false))),
        ("HTML body", nonsense(Body::Html)),
        ("truncated JSON", nonsense(Body::Cut(40))),
        ("empty body", nonsense(Body::Empty)),
        ("2 MiB body", nonsense(Body::Oversized(2 << 20))),
        ("200 KB body", (Fault::with_body(Body::Oversized(200 << 10)), |_| Expect::Assigned)),
        (
            "half an answer",
            (Fault::deliver(Delivery::CloseMid(30)).forever(), |step| {
                fails(Connection, step, true)
            }),
        ),
        (HANGS_UP, (Fault::deliver(Delivery::CloseAfter), |_| Expect::Assigned)),
    ];
    let mut rows: Vec<Row> = answers
        .into_iter()
        .map(|(name, (fault, expect))| {
            row(name, move |column| {
                let behavior = Behavior::new().polls(1);
                let behavior = match column.step {
                    Register => behavior.on_register(fault.clone()),
                    Query => behavior.on_query(fault.clone()),
                    _ => return Plan::Not(NO_REQUEST),
                };
                let hangs_up = column.step == Query && name == HANGS_UP;
                let scenario = Scenario::new(Cause::Service, expect(column.step));
                Scenario { hangs_up, ..scenario.behavior(behavior) }.into()
            })
        })
        .collect();
    let outcomes: [(&'static str, Outcome, ErrorKind); 3] = [
        ("status failed", Outcome::failed(400_207, "Custom allocation failed"), Rejected),
        ("status disabled", Outcome::Disabled, Rejected),
        ("unknown status", Outcome::status("enchanted"), Protocol),
    ];
    rows.extend(outcomes.into_iter().map(|(name, outcome, kind)| {
        row(name, move |column| {
            let polls = match column.step {
                Register => 0,
                Query => 1,
                _ => return Plan::Not(NO_REQUEST),
            };
            let behavior = Behavior::new().polls(polls).outcome(outcome.clone());
            let expect = fails(kind, column.step, false);
            Scenario::new(Cause::Service, expect).behavior(behavior).into()
        })
    }));
    rows.push(row("assigning for ever (202)", |column| match column.step {
        Query => Scenario::new(Cause::Service, fails(Timeout, Query, true))
            .behavior(Behavior::new().polls(u32::MAX))
            .into(),
        Register => Plan::Not(OTHER_STEP),
        _ => Plan::Not(NO_REQUEST),
    }));
    rows
}
