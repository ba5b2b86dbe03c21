//! Which transport the registration goes over: the chosen one, or the first that gets through where any would do.

use dps_client::{Auto, Transport};

use crate::{
    login::{Login, log_in},
    port::Ports,
    settings::{is_x509, mqtt_can_carry},
    subject::Subject,
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

/// Tries the transports as a registration would. With `asks` off, one that is connected is as good as one that is answered.
pub(crate) async fn find(
    subject: &Subject,
    ports: &mut Ports,
    upgrades: &Upgrades,
    asks: bool,
) -> Way {
    let enough = if asks { Reach::Answered } else { Reach::Connected };
    let mut best: Option<(Reach, Transport, Option<Login>)> = None;
    for transport in candidates(subject) {
        let mut reach = connected(subject, ports, upgrades, transport);
        let mut login = None;
        if reach == Reach::Connected
            && asks
            && let Ok(credential) = &subject.credential
        {
            login = log_in(subject, transport, credential).await;
            match login.as_ref() {
                Some(login) if !login.is_final() => {
                    ports.pass_over(transport, login.in_words(subject));
                }
                Some(_) => reach = Reach::Answered,
                None => {}
            }
        }
        if best.as_ref().is_none_or(|(so_far, ..)| reach > *so_far) {
            best = Some((reach, transport, login));
        }
        if reach >= enough {
            break;
        }
    }
    let Some((reach, transport, login)) = best else {
        return Way { subject: subject.clone(), login: None };
    };
    Way { subject: over(subject, transport, reach >= enough), login }
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
