//! Which transport the registration goes over: the chosen one, or the first that gets through where any would do.

use dps_client::{Auto, Error, Transport};

use crate::{
    login::{Login, Said, log_in},
    port::Ports,
    settings::{is_x509, mqtt_can_carry},
    subject::{Subject, in_words},
    websocket::Upgrades,
};

/// The way that decides.
pub(crate) struct Way {
    /// With its transport. Any would still do where none gets through.
    pub(crate) subject: Subject,
    /// What the device heard when it said who it is; `None` when it could not, or was not to.
    pub(crate) login: Option<Login>,
}

/// How far one transport gets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Nothing,
    Port,
    Tls,
    Connected,
    /// A registration would try no other transport.
    Answered,
}

/// What the search for the way has come to.
pub(crate) struct Search {
    best: Option<Best>,
    enough: Reach,
}

/// The transport that gets furthest, or the first of them.
struct Best {
    reach: Reach,
    transport: Transport,
    login: Option<Login>,
}

impl Search {
    /// With `asks` off, a transport that is connected is as good as one that is answered.
    pub(crate) fn new(asks: bool) -> Self {
        Self { best: None, enough: if asks { Reach::Answered } else { Reach::Connected } }
    }

    /// Tries the transports as a registration would. Where it is dropped, what it has come to is there.
    pub(crate) async fn run(&mut self, subject: &Subject, ports: &mut Ports, upgrades: &Upgrades) {
        let mut untried = candidates(subject).into_iter();
        while let Some(transport) = untried.next() {
            let reach = connected(subject, ports, upgrades, transport);
            if self.best.as_ref().is_none_or(|best| reach > best.reach) {
                self.best = Some(Best { reach, transport, login: None });
            }
            if reach >= self.enough {
                return;
            }
            let (Reach::Connected, Ok(credential)) = (reach, &subject.credential) else { continue };
            // A registration gives up what is silent only for another that is connected, and waits for a TPM.
            let is_connected = |of| connected(subject, ports, upgrades, of) >= Reach::Connected;
            let waits = credential.tpm().is_some() || !untried.clone().any(is_connected);
            let within = if waits { subject.limits.step } else { subject.limits.aside };
            let Some(login) = log_in(subject, transport, credential, within).await else {
                continue;
            };
            let dead = match &login.said {
                Said::Silent(within) if !waits => {
                    Some(format!("TLS stands, and no answer came within {}", in_words(*within)))
                }
                Said::Failed(error @ (Error::Connection(_) | Error::Protocol(_))) => {
                    Some(error.to_string())
                }
                _ => None,
            };
            let Some(dead) = dead else {
                self.best = Some(Best { reach: Reach::Answered, transport, login: Some(login) });
                return;
            };
            ports.pass_over(transport, dead);
            if let Some(best) = self.best.as_mut().filter(|best| best.transport == transport) {
                best.login = Some(login);
            }
        }
    }

    /// The way as far as it is known.
    pub(crate) fn way(self, subject: &Subject) -> Way {
        let Some(Best { reach, transport, login }) = self.best else {
            return Way { subject: subject.clone(), login: None };
        };
        Way { subject: over(subject, transport, reach >= self.enough), login }
    }
}

/// The transports that a registration would try, in its order.
pub(crate) fn candidates(subject: &Subject) -> Vec<Transport> {
    if !subject.any_transport {
        return vec![subject.transport()];
    }
    let can_carry = |transport: &Transport| {
        !matches!(transport, Transport::Mqtt | Transport::MqttWs) || mqtt_can_carry(subject)
    };
    let all = Auto::default().order();
    all.filter(|of| of.is_built() && subject.endpoint_of(*of).is_some() && can_carry(of)).collect()
}

fn connected(subject: &Subject, ports: &Ports, upgrades: &Upgrades, transport: Transport) -> Reach {
    let Some(seen) = ports.of(transport).filter(|seen| seen.is_open()) else {
        return Reach::Nothing;
    };
    if !seen.stands() {
        return Reach::Port;
    }
    if !upgrades.stands(transport) {
        return Reach::Tls;
    }
    // Nobody there can know the device by its certificate: it is refused, whatever it asks.
    let hides = subject.credential.as_ref().is_ok_and(is_x509) && !seen.handshake.asks_certificate;
    if hides { Reach::Answered } else { Reach::Connected }
}

fn over(subject: &Subject, transport: Transport, gets_through: bool) -> Subject {
    let mut settled = subject.clone();
    if !subject.any_transport {
        return settled;
    }
    settled.transport = Ok(transport);
    settled.any_transport = !gets_through;
    if settled.endpoint.as_ref().is_ok_and(|it| it.port().is_some())
        && let Some(endpoint) = subject.endpoint_of(transport)
    {
        settled.endpoint = Ok(endpoint);
    }
    settled
}
