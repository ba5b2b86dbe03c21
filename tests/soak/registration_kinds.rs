//! The kinds of registrations: what the service does to each, and how it must end.

use std::time::Duration;

use dps_client::{
    Client, Error, ErrorKind, GroupKey, IdScope, RegistrationRequest, RegistrationResult, Transport,
};
use dps_conformance::{adjusted, drop_after, fast, settle};
use dps_emulator::{Behavior, Body, Delivery, Fault, Outcome};

use crate::{
    Result,
    environment::{Device, Environment},
};

/// A kind of registration. One round is one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    AssignedAtOnce,
    Polled,
    Throttled,
    Certificate,
    Reconnected,
    Kept,
    WrongKey,
    UnknownDevice,
    UnknownScope,
    Disabled,
    Failed,
    ClosedBefore,
    ClosedMidAnswer,
    Garbage,
    UnknownStatus,
    Timeout,
    Refused,
    Untrusted,
    Dropped,
    Cancelled,
    SessionEnded,
}

/// How a registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Assigned,
    Failed(ErrorKind),
    /// Its future was dropped before it was ready.
    Dropped,
}

impl End {
    /// All there are, in the order of the table.
    pub(crate) const ALL: [Self; 7] = [
        Self::Assigned,
        Self::Failed(ErrorKind::Rejected),
        Self::Failed(ErrorKind::Connection),
        Self::Failed(ErrorKind::Protocol),
        Self::Failed(ErrorKind::Timeout),
        Self::Failed(ErrorKind::Cancelled),
        Self::Dropped,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Failed(kind) => kind.as_str(),
            Self::Dropped => "dropped",
        }
    }

    fn of(outcome: &Result<RegistrationResult, Error>) -> Self {
        outcome.as_ref().map_or_else(|error| Self::Failed(error.kind()), |_| Self::Assigned)
    }
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 21] = [
        Self::AssignedAtOnce,
        Self::Polled,
        Self::Throttled,
        Self::Certificate,
        Self::Reconnected,
        Self::Kept,
        Self::WrongKey,
        Self::UnknownDevice,
        Self::UnknownScope,
        Self::Disabled,
        Self::Failed,
        Self::ClosedBefore,
        Self::ClosedMidAnswer,
        Self::Garbage,
        Self::UnknownStatus,
        Self::Timeout,
        Self::Refused,
        Self::Untrusted,
        Self::Dropped,
        Self::Cancelled,
        Self::SessionEnded,
    ];

    /// The device with an enrollment of its own, whose key nobody has.
    pub(crate) const LOCKED_OUT: &str = "locked-out";
    /// The device with a certificate.
    pub(crate) const CERTIFIED: &str = "certified";

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AssignedAtOnce => "assigned-at-once",
            Self::Polled => "polled",
            Self::Throttled => "throttled",
            Self::Certificate => "certificate",
            Self::Reconnected => "reconnected",
            Self::Kept => "kept",
            Self::WrongKey => "wrong-key",
            Self::UnknownDevice => "unknown-device",
            Self::UnknownScope => "unknown-scope",
            Self::Disabled => "disabled",
            Self::Failed => "failed",
            Self::ClosedBefore => "closed-before",
            Self::ClosedMidAnswer => "closed-mid-answer",
            Self::Garbage => "garbage",
            Self::UnknownStatus => "unknown-status",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Untrusted => "untrusted",
            Self::Dropped => "dropped",
            Self::Cancelled => "cancelled",
            Self::SessionEnded => "session-ended",
        }
    }

    /// What the service does to devices of this kind.
    pub(crate) fn behavior(self) -> Behavior {
        let polled = Behavior::new().polls(2);
        match self {
            Self::Polled | Self::Dropped | Self::Kept => polled,
            Self::Throttled => polled
                .on_register(Fault::refuse(429))
                .on_query(Fault::none())
                .on_query(Fault::refuse(503)),
            Self::Reconnected => polled.on_query(Fault::deliver(Delivery::CloseBefore)),
            Self::Failed => polled.outcome(Outcome::failed(400_207, "Custom allocation failed")),
            Self::ClosedBefore => polled.on_register(Fault::deliver(Delivery::CloseBefore)),
            Self::ClosedMidAnswer => polled.on_register(Fault::deliver(Delivery::CloseMid(20))),
            Self::Garbage => polled.on_query(Fault::with_body(Body::Garbage)),
            Self::UnknownStatus => polled.outcome(Outcome::status("pondering")),
            Self::Timeout => polled.on_query(Fault::deliver(Delivery::Never).forever()),
            Self::Cancelled | Self::SessionEnded => Behavior::new().polls(u32::MAX),
            _ => Behavior::new(),
        }
    }

    /// How a registration of this kind must end.
    pub(crate) fn end(self) -> End {
        match self {
            Self::AssignedAtOnce
            | Self::Polled
            | Self::Throttled
            | Self::Certificate
            | Self::Reconnected
            | Self::Kept => End::Assigned,
            Self::WrongKey
            | Self::UnknownDevice
            | Self::UnknownScope
            | Self::Disabled
            | Self::Failed => End::Failed(ErrorKind::Rejected),
            Self::ClosedBefore | Self::ClosedMidAnswer | Self::Refused | Self::Untrusted => {
                End::Failed(ErrorKind::Connection)
            }
            Self::Garbage | Self::UnknownStatus => End::Failed(ErrorKind::Protocol),
            Self::Timeout => End::Failed(ErrorKind::Timeout),
            Self::Cancelled | Self::SessionEnded => End::Failed(ErrorKind::Cancelled),
            Self::Dropped => End::Dropped,
        }
    }

    /// Registers a device of this kind; `number` makes it another one. An end that must not be is an error.
    pub(crate) async fn run(
        self,
        environment: &Environment,
        kept: &Kept,
        transport: Transport,
        number: usize,
    ) -> Result<End> {
        if self == Self::Kept {
            return kept.register(number).await;
        }
        let device = self.device(environment, transport, number)?;
        let client = self.client(&device, transport)?;
        let request = device.request();
        let (end, line) = match self {
            Self::Dropped => match drop_after(1 + number % 4, client.register(request)).await {
                None => (End::Dropped, String::new()),
                Some(outcome) => (End::of(&outcome), format!("{outcome:?}")),
            },
            _ => {
                let outcome = self.finish(&client, request).await;
                (End::of(&outcome), format!("{outcome:?}"))
            }
        };
        // One in two leaves without an end of the session.
        if number.is_multiple_of(2) {
            settle(&client).await;
        }
        if end == self.end() {
            return Ok(end);
        }
        Err(format!(
            "{transport}, {}: ended {}, not {}: {line}",
            self.name(),
            end.name(),
            self.end().name()
        )
        .into())
    }

    fn device(
        self,
        environment: &Environment,
        transport: Transport,
        number: usize,
    ) -> Result<Device> {
        let name = format!("{}-{transport}-{number}", self.name());
        match self {
            Self::Certificate => environment.certified(transport),
            Self::WrongKey | Self::UnknownDevice => {
                let id = if self == Self::WrongKey { Self::LOCKED_OUT } else { &name };
                let foreign: GroupKey = "bm90IHRoZSBrZXkgb2YgYW55IGdyb3Vw".parse()?;
                let id = id.parse()?;
                let key = foreign.derive(&id);
                environment.device_with(id, key.into(), transport)
            }
            Self::UnknownScope => {
                let mut device = environment.device(self, transport, &name)?;
                device.config.id_scope = "0ne00000000".parse::<IdScope>()?;
                Ok(device)
            }
            Self::Refused => {
                environment.at_a_closed_port(environment.device(self, transport, &name)?)
            }
            Self::Untrusted => {
                Ok(environment.distrustful(environment.device(self, transport, &name)?))
            }
            _ => environment.device(self, transport, &name),
        }
    }

    fn client(self, device: &Device, transport: Transport) -> Result<Client> {
        match self {
            Self::Timeout => {
                let short = adjusted(fast(), |settings| {
                    settings.registration_timeout = Duration::from_millis(250)
                });
                device.client_with(transport, short)
            }
            _ => device.client(transport),
        }
    }

    /// Registers; a kind that is interrupted is so at the first word of the service.
    async fn finish(
        self,
        client: &Client,
        request: RegistrationRequest,
    ) -> Result<RegistrationResult, Error> {
        let mut events = client.operation_status();
        let interruption = async {
            match self {
                Self::Cancelled => {
                    events.next().await;
                    client.cancel();
                }
                Self::SessionEnded => {
                    events.next().await;
                    settle(client).await;
                }
                _ => {}
            }
        };
        tokio::join!(client.register(request), interruption).0
    }
}

/// One session that lives as long as the soak of its transport: registered again and again, now and then interrupted.
pub(crate) struct Kept {
    client: Client,
    device: Device,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Kept {
    pub(crate) fn new(environment: &Environment, transport: Transport) -> Result<Self> {
        let device = environment.device(Kind::Kept, transport, &format!("kept-{transport}"))?;
        let client = device.client(transport)?;
        Ok(Self { client, device, one_at_a_time: tokio::sync::Mutex::default() })
    }

    async fn register(&self, number: usize) -> Result<End> {
        let _turn = self.one_at_a_time.lock().await;
        let request = || self.device.request();
        match number % 4 {
            1 => {
                drop_after(1 + number % 7, self.client.register(request())).await;
            }
            2 => {
                let mut events = self.client.operation_status();
                let cancel = async {
                    events.next().await;
                    self.client.cancel();
                };
                let _cancelled = tokio::join!(self.client.register(request()), cancel);
            }
            3 => settle(&self.client).await,
            _ => {}
        }
        let outcome = self.client.register(request()).await;
        outcome.map(|_| End::Assigned).map_err(|error| format!("the kept session: {error}").into())
    }
}
