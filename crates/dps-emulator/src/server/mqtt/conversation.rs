//! One connection: CONNECT, subscriptions, pings. Requests and their answers are in [`device`](super::device).

use std::time::Duration;

use dps_state_machine::Printable;
use mqtt_proto::{
    Pid, QoS, QosPid,
    v3::{Connect, Packet, Publish, Subscribe},
};

use super::{
    codec::{self, Malformed},
    device::{Device, UserName},
    hub::{self, Hub, Publication, Refused},
};
use crate::{
    behavior::{ConnectionFault, Delivery, MqttFault},
    core::{Registration, Reply, Session},
    server::{
        conversation::{self, MAX_IDLE, Over},
        peer::Peer,
    },
};

/// The one filter that devices may subscribe to.
const ANSWERS: &str = "$dps/registrations/res/#";

/// The largest packet that is read once the device is known, in bytes; above [`Registration::MAX_BYTES`], so that
/// the service can refuse it.
const MAX_PACKET: usize = Registration::MAX_BYTES + 64 * 1024;

/// No more packets are taken in when so many bytes are to be sent.
const HIGH_WATER: usize = 16 * 1024;

const NO_CONNECT: &str = "the first packet is not CONNECT";

/// Return codes of CONNACK.
mod connack {
    pub(super) const ACCEPTED: u8 = 0;
    pub(super) const UNACCEPTABLE_VERSION: u8 = 1;
    pub(super) const IDENTIFIER_REJECTED: u8 = 2;
    pub(super) const NOT_AUTHORIZED: u8 = 5;
}

/// See the module.
pub(crate) struct Conversation {
    peer: Peer,
    fault: Option<MqttFault>,
    /// What is to be sent.
    out: Vec<u8>,
    /// From which byte on that goes out slowly, so many bytes at a time.
    slow: Option<(usize, (usize, Duration))>,
    over: Option<Over>,
    /// How many packets have come in.
    taken: u32,
    /// How many of them since the last request.
    idle: u32,
    /// The device, once CONNECT was accepted.
    device: Option<Device>,
    /// The device at its hub, in place of that.
    hub: Option<Hub>,
    /// Its session. See <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html#_Toc398718032>, MQTT-3.1.4-2.
    session: Option<Session>,
    /// At most this often each answer is to be delivered; `None` without a subscription.
    subscribed: Option<QoS>,
    keep_alive: Duration,
    last_id: u16,
}

impl conversation::Conversation for Conversation {
    const NAME: &str = "MQTT";

    fn new(peer: Peer) -> Self {
        let fault = match peer.fault {
            ConnectionFault::Mqtt(fault) => Some(fault),
            _ => None,
        };
        Self {
            peer,
            fault,
            out: Vec::new(),
            slow: None,
            over: None,
            taken: 0,
            idle: 0,
            device: None,
            hub: None,
            session: None,
            subscribed: None,
            keep_alive: Duration::ZERO,
            last_id: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let max = match (&self.device, &self.hub) {
            (_, Some(_)) => hub::MAX_PACKET,
            (Some(_), _) => MAX_PACKET,
            _ => self.peer.limits.max_head_bytes.max(8192),
        };
        let Some(framed) = codec::read(bytes, max) else {
            if !self.is_connected() && !codec::may_be_connect(bytes) {
                self.violation(NO_CONNECT);
                return Some(bytes.len());
            }
            return None;
        };
        self.taken += 1;
        // Whoever is at its hub stays there, and may have nothing to say.
        self.idle = if self.hub.is_some() { 0 } else { self.idle + 1 };
        if self.idle > MAX_IDLE {
            self.violation(&format!("{MAX_IDLE} packets came without a request among them"));
            return Some(framed.size);
        }
        let alone = framed.size == bytes.len();
        if self.fault == Some(MqttFault::CutAfter { packets: self.taken })
            || self.fault == Some(MqttFault::RefusePipelining) && !self.is_connected() && !alone
        {
            self.over = Some(Over::Cut);
            return Some(framed.size);
        }
        match framed.packet {
            Ok(packet) => self.take_packet(packet),
            Err(Malformed::OtherVersion) if !self.is_connected() => {
                self.refuse(connack::UNACCEPTABLE_VERSION, "another version of MQTT than 3.1.1");
            }
            Err(Malformed::OtherVersion) => self.violation("CONNECT came twice"),
            Err(Malformed::Other(reason)) => self.violation(&reason),
        }
        Some(framed.size)
    }

    /// What goes out slowly has no more behind it, and nobody is sent too much at once.
    fn takes_more(&self) -> bool {
        self.over.is_none() && self.slow.is_none() && self.out.len() < HIGH_WATER
    }

    fn take_out(&mut self) -> Vec<u8> {
        match self.slow.take() {
            Some((0, pace)) => self.peer.control.drip(Some(pace)),
            Some((start, pace)) => {
                self.slow = Some((0, pace));
                let slow = self.out.split_off(start);
                return std::mem::replace(&mut self.out, slow);
            }
            None => {}
        }
        std::mem::take(&mut self.out)
    }

    fn over(&mut self) -> Option<Over> {
        self.over.take()
    }

    /// Half as long again as the device promised, or as any peer.
    /// See <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html#_Keep_Alive>.
    fn patience(&self) -> Duration {
        match self.keep_alive {
            Duration::ZERO => self.peer.limits.idle_timeout,
            keep_alive => keep_alive * 3 / 2,
        }
    }

    async fn is_taken_over(&self) {
        match self.session.as_ref().or(self.hub.as_ref().map(Hub::session)) {
            Some(session) => session.is_taken_over().await,
            None => std::future::pending().await,
        }
    }

    /// MQTT 3.1.1 has no packet for it: the connection closes.
    fn dismiss(&mut self, reason: &str) {
        self.finish(reason);
    }
}

impl Conversation {
    /// Whether CONNECT was accepted.
    fn is_connected(&self) -> bool {
        self.device.is_some() || self.hub.is_some()
    }

    fn take_packet(&mut self, packet: Packet) {
        match (packet, self.is_connected()) {
            (Packet::Connect(connect), false) => self.take_connect(&connect),
            (Packet::Connect(_), true) => self.violation("CONNECT came twice"),
            (_, false) => self.violation(NO_CONNECT),
            (Packet::Subscribe(subscribe), true) => self.take_subscribe(&subscribe),
            (Packet::Unsubscribe(unsubscribe), true) => {
                for filter in &unsubscribe.topics {
                    match &mut self.hub {
                        Some(hub) => hub.unsubscribe(filter),
                        None if **filter == *ANSWERS => self.subscribed = None,
                        None => {}
                    }
                }
                codec::put(&mut self.out, &Packet::Unsuback(unsubscribe.pid));
            }
            (Packet::Publish(publish), true) => self.take_publication(&publish),
            (Packet::Pingreq, true) => {
                if self.fault != Some(MqttFault::IgnorePings) {
                    codec::put(&mut self.out, &Packet::Pingresp);
                }
            }
            (Packet::Disconnect, true) => self.finish("the peer ended the session"),
            // Nothing is sent again: whether an answer has arrived is the device's business.
            (Packet::Puback(_), true) => {}
            (Packet::Pubrec(_) | Packet::Pubrel(_) | Packet::Pubcomp(_), true) => {
                self.violation("QoS 2 is not served");
            }
            (
                Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp,
                true,
            ) => {
                self.violation("only servers send this packet");
            }
        }
    }

    fn take_connect(&mut self, connect: &Connect) {
        if !codec::is_spoken(connect.protocol) {
            return self
                .refuse(connack::UNACCEPTABLE_VERSION, "another version of MQTT than 3.1.1");
        }
        let user_name = connect.username.as_deref().unwrap_or_default();
        let Some(user_name) = UserName::parse(user_name) else {
            return self.take_hub_connect(connect, user_name);
        };
        if !connect.client_id.eq_ignore_ascii_case(user_name.registration_id) {
            let reason = "the client id is not the registration id";
            return self.refuse(connack::IDENTIFIER_REJECTED, reason);
        }
        let device = Device::new(&self.peer.caller, &user_name, connect);
        if let Some(MqttFault::RefuseConnect { code }) = self.fault {
            return self.refuse(code, "scripted");
        }
        // Only these have a return code of their own; all else is the answer to the device's requests.
        if let Err(error) = &device.checked
            && error.status == 401
        {
            self.peer.caller.refuse(user_name.registration_id, error);
            return self.refuse(connack::NOT_AUTHORIZED, "the credential was refused");
        }
        self.keep_alive = Duration::from_secs(connect.keep_alive.into());
        if device.checked.is_ok() {
            let name = user_name.registration_id.to_ascii_lowercase();
            self.session = Some(self.peer.caller.begin_session(name));
        }
        self.device = Some(device);
        codec::put_connack(&mut self.out, connack::ACCEPTED);
    }

    fn take_hub_connect(&mut self, connect: &Connect, user_name: &str) {
        let Some(user_name) = hub::UserName::parse(user_name) else {
            return self.refuse(connack::NOT_AUTHORIZED, "the user name names no device");
        };
        if let Some(MqttFault::RefuseConnect { code }) = self.fault {
            return self.refuse(code, "scripted");
        }
        match Hub::connect(&self.peer.caller, &user_name, connect) {
            Ok(hub) => {
                self.keep_alive = Duration::from_secs(connect.keep_alive.into());
                self.hub = Some(hub);
                codec::put_connack(&mut self.out, connack::ACCEPTED);
            }
            Err(Refused(code, reason)) => self.refuse(code, &reason),
        }
    }

    fn take_subscribe(&mut self, subscribe: &Subscribe) {
        let refused = self.fault == Some(MqttFault::RefuseSubscribe);
        let mut codes = Vec::new();
        for (filter, wanted) in &subscribe.topics {
            let granted = match &mut self.hub {
                _ if refused => None,
                Some(hub) => hub.subscribe(filter, *wanted),
                None if **filter != *ANSWERS => None,
                None => {
                    let at_most = if *wanted == QoS::Level0 { QoS::Level0 } else { QoS::Level1 };
                    self.subscribed = Some(at_most);
                    self.subscribed
                }
            };
            codes.push(match granted {
                None => 0x80,
                Some(QoS::Level0) => 0,
                Some(QoS::Level1 | QoS::Level2) => 1,
            });
        }
        codec::put_suback(&mut self.out, subscribe.pid, &codes);
    }

    fn take_publication(&mut self, publish: &Publish) {
        let acknowledgement = match publish.qos_pid {
            QosPid::Level0 => None,
            QosPid::Level1(id) => Some(Packet::Puback(id)),
            QosPid::Level2(_) => return self.violation("QoS 2 is not served"),
        };
        if let Some(hub) = &mut self.hub {
            if publish.payload.len() > hub::MAX_MESSAGE {
                return self.violation("a hub takes messages of at most 256 KiB");
            }
            let answers = hub.take(publish);
            return self.put_hub_answers(acknowledgement, answers, &publish.topic_name);
        }
        let Some(device) = &self.device else { return };
        let Some((request, request_id)) = device.request(publish) else {
            // What a device may send to its hub has no place here.
            return self.wrong_topic(&publish.topic_name);
        };
        self.idle = 0;
        let reply = self.peer.caller.ask(request);
        if reply.delivery == Delivery::CloseBefore {
            self.over = Some(Over::Cut);
            return;
        }
        let fault = self.request_fault();
        let answer_first = fault == Some(MqttFault::AnswerFirst);
        let (before, after) =
            if answer_first { (None, acknowledgement) } else { (acknowledgement, None) };
        before.iter().for_each(|packet| codec::put(&mut self.out, packet));
        self.put_answer(&request_id, &reply, fault);
        after.iter().for_each(|packet| codec::put(&mut self.out, packet));
    }

    fn put_hub_answers(
        &mut self,
        acknowledgement: Option<Packet>,
        answers: Option<Vec<Publication>>,
        topic: &str,
    ) {
        let Some(answers) = answers else { return self.wrong_topic(topic) };
        acknowledgement.iter().for_each(|packet| codec::put(&mut self.out, packet));
        for Publication { topic, body, qos } in answers {
            let id = (qos == QoS::Level1).then(|| self.next_id());
            codec::put_publication(&mut self.out, &topic, &body, id);
        }
    }

    fn wrong_topic(&mut self, topic: &str) {
        self.violation(&format!("no publication to {:?} is taken", Printable::brief(topic)));
    }

    /// What goes wrong with the request at hand; the next one goes well.
    fn request_fault(&mut self) -> Option<MqttFault> {
        self.fault.take_if(|fault| {
            matches!(
                fault,
                MqttFault::WrongTopic
                    | MqttFault::NoStatus
                    | MqttFault::Garbage
                    | MqttFault::Disconnect
                    | MqttFault::AnswerFirst
            )
        })
    }

    fn put_answer(&mut self, request_id: &str, reply: &Reply, fault: Option<MqttFault>) {
        match fault {
            Some(MqttFault::Garbage) => return self.out.extend(b"\xff\xff\xff\xff\xff, garbage"),
            Some(MqttFault::Disconnect) => {
                codec::put(&mut self.out, &Packet::Disconnect);
                return self.finish("scripted");
            }
            _ => {}
        }
        match reply.delivery.pace() {
            Some(pace) => self.slow = Some((self.out.len(), pace)),
            None => self.peer.control.drip(None),
        }
        let Some(granted) = self.subscribed else { return };
        if reply.delivery == Delivery::Never {
            return;
        }
        let topic = reply.topic(request_id, fault);
        for _ in 0..=u8::from(reply.twice) {
            let id = (granted == QoS::Level1).then(|| self.next_id());
            if !codec::put_publication(&mut self.out, &topic, &reply.body, id) {
                return self.violation("the script's answer has no topic");
            }
        }
        match reply.delivery {
            Delivery::CloseMid(bytes) => {
                // At least one byte is held back: an answer that went out whole is not cut short.
                let missing = reply.body.len().saturating_sub(bytes).max(1);
                self.out.truncate(self.out.len().saturating_sub(missing));
                self.over = Some(Over::Cut);
            }
            Delivery::CloseAfter => self.over = Some(Over::Cut),
            _ => {}
        }
    }

    fn next_id(&mut self) -> Pid {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        Pid::try_from(self.last_id).unwrap_or_default()
    }

    /// Refuses CONNECT, and closes.
    fn refuse(&mut self, code: u8, reason: &str) {
        codec::put_connack(&mut self.out, code);
        self.finish(&format!("CONNACK {code}: {reason}"));
    }

    /// MQTT 3.1.1 has no packet for it: the connection closes.
    fn violation(&mut self, reason: &str) {
        self.finish(&format!("MQTT failed: {reason}"));
    }

    fn finish(&mut self, reason: &str) {
        self.over.get_or_insert_with(|| Over::Properly(reason.to_owned()));
    }
}
