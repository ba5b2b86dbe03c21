//! A session and its links: requests come in by one, answers go out by another.

use std::collections::{BTreeMap, VecDeque};

use serde_amqp::Value;

use super::{
    answer::{Answer, Sending, another_id, is_id, reject},
    claim::{claimed, parse_address},
    codec::{Frame, text},
    context::Context,
    faults::replace_answer,
    refusal::{rejection, retry_after},
    request::{Device, MAX_MESSAGE, Partial},
    write::{self, AttachAs, FlowAs, Verdict},
};
use crate::{
    behavior::{AmqpFault, Delivery},
    core::{Reply, ServiceError},
    server::conversation::Over,
};

/// How many links a session may have, and how many answers of a connection may wait for credit.
const MAX_LINKS: usize = 16;
/// How many requests a device may send before it is given more credit.
const CREDIT: u32 = 50;
/// How many frames of messages a device may send before it is informed that it may send more.
const WINDOW: u32 = 2048;

/// See the module.
pub(super) struct Session {
    next_incoming_id: u32,
    next_outgoing_id: u32,
    incoming_window: u32,
    /// How many frames came since the device was last informed of the window.
    since_flow: u32,
    /// How many frames of messages the device takes.
    outgoing_window: u32,
    links: BTreeMap<u32, Link>,
    deliveries: u32,
    sending: Option<(u32, Sending)>,
}

struct Link {
    device: Device,
    /// Requests come by it; answers go by the others.
    receives: bool,
    delivery_count: u32,
    credit: u32,
    partial: Option<Partial>,
}

impl Session {
    pub(super) fn begin(
        out: &mut Vec<u8>,
        channel: u16,
        begin: &Frame,
        fault: Option<AmqpFault>,
    ) -> Self {
        let incoming_window = if fault == Some(AmqpFault::Narrow) { 1 } else { WINDOW };
        write::begin(out, channel, incoming_window);
        Self {
            next_incoming_id: begin.fields.u32(1).unwrap_or(0),
            next_outgoing_id: 0,
            incoming_window,
            since_flow: 0,
            outgoing_window: begin.fields.u32(2).unwrap_or(0),
            links: BTreeMap::new(),
            deliveries: 0,
            sending: None,
        }
    }

    /// Takes in a frame. An error ends the connection.
    pub(super) fn take(
        &mut self,
        context: &mut Context<'_>,
        frame: &Frame,
        code: u64,
    ) -> Result<(), &'static str> {
        match code {
            0x12 => self.attach(context, frame),
            0x13 => {
                self.take_flow(context, frame);
                Ok(())
            }
            0x14 => self.take_transfer(context, frame),
            0x16 => {
                let handle = frame.fields.u32(0).ok_or("a detach without a handle")?;
                if self.links.remove(&handle).is_some() {
                    write::detach(context.out, context.channel, handle, None);
                }
                Ok(())
            }
            // What becomes of answers is the device's business.
            0x15 => Ok(()),
            _ => Err("a frame that has no place in a session"),
        }
    }

    fn attach(&mut self, context: &mut Context<'_>, attach: &Frame) -> Result<(), &'static str> {
        let fields = &attach.fields;
        let name = fields.text(0).ok_or("an attach without a name")?.to_owned();
        let handle = fields.u32(1).ok_or("an attach without a handle")?;
        // The role is the device's: a sender, false, is what requests come by.
        let receives = !fields.flag(2);
        if self.links.len() >= MAX_LINKS || self.links.contains_key(&handle) {
            return Err("too many links, or one handle for two");
        }
        let address =
            |place| fields.described(place).and_then(|end| end.text(0).map(str::to_owned));
        let (source, target) = (address(5), address(6));
        let near = if receives { &target } else { &source };
        let property = |wanted: &str| {
            let properties = fields.named(13);
            let (_, value) = properties.into_iter().find(|(name, _)| *name == wanted)?;
            text(value).map(str::to_owned)
        };
        let checked = match context.fault {
            Some(AmqpFault::RefuseAttach) => Err(ServiceError::FORBIDDEN),
            _ => claimed(context.claim, &context.peer.caller, near.as_deref().unwrap_or_default()),
        };
        if let Err(error @ ServiceError { status: 401, .. }) = &checked {
            // A certificate has no SASL to be refused in: the service ends the whole connection.
            let id = near.as_deref().and_then(parse_address).map(|(_, id)| id);
            let reply = context.peer.caller.refuse(id.unwrap_or_default(), error);
            write::close(context.out, Some(rejection(&reply)));
            *context.over = Some(Over::Properly("the credential was refused".into()));
            return Ok(());
        }
        let (source, target) = (source.as_deref(), target.as_deref());
        let refused = checked.is_err();
        let attach_as = AttachAs { name: &name, handle, receives, source, target, refused };
        write::attach(context.out, context.channel, &attach_as);
        let (registration_id, who) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let id = near.as_deref().and_then(parse_address).map(|(_, id)| id);
                let reply = context.peer.caller.refuse(id.unwrap_or_default(), &error);
                write::detach(context.out, context.channel, handle, Some(rejection(&reply)));
                return Ok(());
            }
        };
        let device = Device {
            registration_id,
            who,
            api_version: property("com.microsoft:api-version"),
            client_version: property("com.microsoft:client-version"),
        };
        let link = Link { device, receives, delivery_count: 0, credit: 0, partial: None };
        if receives {
            // The sender's own count is where ours begins.
            let delivery_count = fields.u32(9).unwrap_or(0);
            self.links.insert(handle, Link { delivery_count, ..link });
            self.grant(context, handle);
        } else {
            self.links.insert(handle, link);
        }
        Ok(())
    }

    /// Lets the device send requests.
    fn grant(&mut self, context: &mut Context<'_>, handle: u32) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        link.credit = match context.fault {
            Some(AmqpFault::NoCredit) => return,
            Some(AmqpFault::Narrow) => 1,
            _ => CREDIT,
        };
        let link = Some((handle, link.delivery_count, link.credit));
        self.put_flow(context, link);
    }

    fn put_flow(&mut self, context: &mut Context<'_>, link: Option<(u32, u32, u32)>) {
        self.since_flow = 0;
        let flow = FlowAs {
            next_incoming_id: self.next_incoming_id,
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            link,
        };
        write::flow(context.out, context.channel, &flow);
    }

    fn take_flow(&mut self, context: &mut Context<'_>, flow: &Frame) {
        let fields = &flow.fields;
        let in_flight = self.next_outgoing_id.wrapping_sub(fields.u32(0).unwrap_or(0));
        self.outgoing_window = fields.u32(1).unwrap_or(0).saturating_sub(in_flight);
        let handle = fields.u32(4);
        let link = handle.and_then(|handle| Some((handle, self.links.get_mut(&handle)?)));
        let mut drained = false;
        if let Some((handle, link)) = link {
            if !link.receives {
                let in_flight = link.delivery_count.wrapping_sub(fields.u32(5).unwrap_or(0));
                link.credit = fields.u32(6).unwrap_or(0).saturating_sub(in_flight);
                if fields.flag(8) && context.waiting.is_empty() {
                    // Nothing waits for the credit that the device wants used up.
                    link.delivery_count = link.delivery_count.wrapping_add(link.credit);
                    link.credit = 0;
                    drained = true;
                }
            }
            if drained || fields.flag(9) {
                let link = Some((handle, link.delivery_count, link.credit));
                self.put_flow(context, link);
            }
        } else if fields.flag(9) {
            self.put_flow(context, None);
        }
    }

    fn take_transfer(
        &mut self,
        context: &mut Context<'_>,
        transfer: &Frame,
    ) -> Result<(), &'static str> {
        let fields = &transfer.fields;
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        self.since_flow += 1;
        let handle = fields.u32(0).ok_or("a transfer without a handle")?;
        // A link that was refused or detached while the message was on its way.
        let Some(link) = self.links.get_mut(&handle) else { return Ok(()) };
        if !link.receives {
            return Err("a message by a link that brings answers");
        }
        let mut partial = match link.partial.take() {
            Some(partial) => partial,
            None => Partial {
                delivery_id: fields.u32(1).ok_or("a transfer without a delivery id")?,
                settled: false,
                payload: Vec::new(),
            },
        };
        partial.settled |= fields.flag(4);
        // What is too much is not kept; the service refuses what is left of it.
        if partial.payload.len() < MAX_MESSAGE {
            partial.payload.extend(&transfer.payload);
        }
        let aborted = fields.flag(9);
        if fields.flag(5) && !aborted {
            link.partial = Some(partial);
            if self.since_flow >= self.incoming_window.div_ceil(2) {
                self.put_flow(context, None);
            }
            return Ok(());
        }
        link.delivery_count = link.delivery_count.wrapping_add(1);
        link.credit = link.credit.saturating_sub(1);
        let (device, low) = (link.device.clone(), link.credit <= CREDIT / 2);
        if !aborted {
            self.take_request(context, handle, &device, &partial);
        }
        if low && context.over.is_none() {
            self.grant(context, handle);
        } else if self.since_flow >= self.incoming_window.div_ceil(2) {
            self.put_flow(context, None);
        }
        Ok(())
    }

    fn take_request(
        &mut self,
        context: &mut Context<'_>,
        handle: u32,
        device: &Device,
        request: &Partial,
    ) {
        if replace_answer(context, handle, request.delivery_id) {
            return;
        }
        let (message, malformed) = request.read();
        let reply = context.peer.caller.ask(device.request(&message, malformed));
        let id = message.correlation_id.or(message.message_id);
        context.peer.control.drip(reply.delivery.pace());
        match reply.delivery {
            Delivery::Never => {}
            Delivery::CloseBefore => *context.over = Some(Over::Cut),
            _ if (200..300).contains(&reply.status) => {
                self.accept(context, device, request, &reply, id);
            }
            _ => reject(context, request, &reply),
        }
    }

    fn accept(
        &mut self,
        context: &mut Context<'_>,
        device: &Device,
        request: &Partial,
        reply: &Reply,
        id: Option<Value>,
    ) {
        let answer_first = *context.fault == Some(AmqpFault::AnswerFirst);
        let as_value = *context.fault == Some(AmqpFault::ValueBody);
        let mut accepted = Vec::new();
        if !request.settled {
            write::disposition(
                &mut accepted,
                context.channel,
                request.delivery_id,
                Verdict::Accepted,
            );
        }
        let id = if reply.wrong_id { Some(another_id()) } else { id.filter(is_id) };
        let message = write::message(id, retry_after(reply), &reply.body, as_value);
        let answer = |delivery| Answer {
            registration_id: device.registration_id.clone(),
            message: message.clone(),
            delivery,
            body_bytes: reply.body.len(),
        };
        if reply.twice && context.waiting.len() < MAX_LINKS {
            context.waiting.push_back(answer(Delivery::Whole));
        }
        if context.waiting.len() < MAX_LINKS {
            context.waiting.push_back(answer(reply.delivery));
        }
        if answer_first {
            let Context { out, channel, waiting, over, .. } = context;
            self.pump(out, *channel, 512, usize::MAX, waiting, over);
        }
        context.out.extend(accepted);
    }

    /// Sends what credit and window allow, until the buffer holds about as much as given.
    pub(super) fn pump(
        &mut self,
        out: &mut Vec<u8>,
        channel: u16,
        max_frame_size: u32,
        high_water: usize,
        waiting: &mut VecDeque<Answer>,
        over: &mut Option<Over>,
    ) {
        while over.is_none() && self.outgoing_window > 0 && out.len() < high_water {
            if self.sending.is_none() {
                self.sending = self.next_answer(waiting);
            }
            let Some((handle, sending)) = &mut self.sending else { return };
            let done = sending.put_part(out, channel, *handle, max_frame_size, over);
            self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
            self.outgoing_window -= 1;
            if done {
                self.sending = None;
            }
        }
    }

    fn next_answer(&mut self, waiting: &mut VecDeque<Answer>) -> Option<(u32, Sending)> {
        let answer = waiting.front()?;
        let (handle, link) = self.links.iter_mut().find(|(_, link)| {
            !link.receives
                && link.credit > 0
                && link.device.registration_id.eq_ignore_ascii_case(&answer.registration_id)
        })?;
        let answer = waiting.pop_front()?;
        link.credit -= 1;
        link.delivery_count = link.delivery_count.wrapping_add(1);
        let delivery_id = self.deliveries;
        self.deliveries = self.deliveries.wrapping_add(1);
        tracing::trace!(delivery_id, "an answer");
        Some((*handle, answer.begin(delivery_id)))
    }
}
