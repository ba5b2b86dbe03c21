//! Answers on their way out, a frame at a time.

use serde_amqp::Value;

use super::{
    context::Context,
    refusal::rejection,
    request::Partial,
    write::{self, Verdict},
};
use crate::{behavior::Delivery, core::Reply, server::conversation::Over};

/// An answer that waits for a link with credit.
pub(super) struct Answer {
    pub(super) registration_id: String,
    pub(super) message: Vec<u8>,
    pub(super) delivery: Delivery,
    /// How long the body is, at the message's end.
    pub(super) body_bytes: usize,
}

impl Answer {
    pub(super) fn begin(self, delivery_id: u32) -> Sending {
        let Self { message, delivery, body_bytes, .. } = self;
        let cut_at = match delivery {
            // At least one byte is held back: an answer that went out whole is not cut short.
            Delivery::CloseMid(bytes) => {
                Some(message.len() - body_bytes + bytes.min(body_bytes.saturating_sub(1)))
            }
            Delivery::CloseAfter => Some(message.len()),
            _ => None,
        };
        Sending { delivery_id, message, sent: 0, cut_at }
    }
}

/// An answer of which some may have gone out.
pub(super) struct Sending {
    delivery_id: u32,
    message: Vec<u8>,
    sent: usize,
    /// Where to cut the connection.
    cut_at: Option<usize>,
}

impl Sending {
    /// Puts one frame into the buffer; whether it was the last.
    pub(super) fn put_part(
        &mut self,
        out: &mut Vec<u8>,
        channel: u16,
        handle: u32,
        max_frame_size: u32,
        over: &mut Option<Over>,
    ) -> bool {
        let first = self.sent == 0;
        let longest = 8 + write::transfer(handle, self.delivery_id, first, true).len();
        let room = usize::try_from(max_frame_size).unwrap_or(usize::MAX).saturating_sub(longest);
        let left = self.message.get(self.sent..).unwrap_or_default();
        let part = left.get(..room.max(1)).unwrap_or(left);
        let more = part.len() < left.len();
        let performative = write::transfer(handle, self.delivery_id, first, more);
        write::raw_frame(out, 0, channel, &performative, part);
        self.sent += part.len();
        if let Some(cut_at) = self.cut_at.filter(|cut_at| *cut_at <= self.sent) {
            // The frame says how long it is; what comes after the cut does not go out.
            out.truncate(out.len() - (self.sent - cut_at));
            *over = Some(Over::Cut);
        }
        !more
    }
}

/// Puts a refusal into the buffer, as its script wants it delivered.
pub(super) fn reject(context: &mut Context<'_>, request: &Partial, reply: &Reply) {
    if request.settled {
        return;
    }
    // The answer to another request than this one.
    let delivery_id =
        if reply.wrong_id { request.delivery_id.wrapping_add(1000) } else { request.delivery_id };
    let mut frame = Vec::new();
    let verdict = Verdict::Rejected(rejection(reply));
    write::disposition(&mut frame, context.channel, delivery_id, verdict);
    if reply.twice {
        context.out.extend(&frame);
    }
    match reply.delivery {
        Delivery::CloseMid(bytes) => {
            let without_body = frame.len().saturating_sub(reply.body.len());
            frame.truncate((without_body + bytes).min(frame.len() - 1));
            *context.over = Some(Over::Cut);
        }
        Delivery::CloseAfter => *context.over = Some(Over::Cut),
        _ => {}
    }
    context.out.extend(frame);
}

/// Whether a value is of a type that ids may have.
pub(super) fn is_id(value: &Value) -> bool {
    matches!(value, Value::Ulong(_) | Value::Uuid(_) | Value::Binary(_) | Value::String(_))
}

/// An id that no request has.
pub(super) fn another_id() -> Value {
    Value::String("00000000-0000-4000-8000-000000000000".to_owned())
}
