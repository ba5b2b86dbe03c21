//! Faults that take the place of an answer.

use super::{
    context::Context,
    refusal::{bare_rejection, rejection},
    write::{self, Verdict},
};
use crate::{behavior::AmqpFault, core::ServiceError, server::conversation::Over};

/// Sends what the script has in place of an answer; whether it has anything.
pub(super) fn replace_answer(context: &mut Context<'_>, handle: u32, delivery_id: u32) -> bool {
    let error = |context: &Context<'_>, error| rejection(&context.peer.caller.refuse("", &error));
    let channel = context.channel;
    let verdict = |context: &mut Context<'_>, verdict| {
        write::disposition(context.out, channel, delivery_id, verdict);
    };
    match *context.fault {
        Some(AmqpFault::Detach) => write::detach(context.out, channel, handle, None),
        Some(AmqpFault::DetachForced) => {
            let error = write::error("amqp:link:detach-forced", None, []);
            write::detach(context.out, channel, handle, Some(error));
        }
        Some(AmqpFault::DetachWithError) => {
            let error = error(context, ServiceError::INTERNAL);
            write::detach(context.out, channel, handle, Some(error));
        }
        Some(AmqpFault::End) => write::end(context.out, channel),
        Some(AmqpFault::Close) => {
            write::close(context.out, None);
            *context.over = Some(Over::Properly("scripted: closed".into()));
        }
        Some(AmqpFault::CloseWithError) => {
            let error = error(context, ServiceError::UNAVAILABLE);
            write::close(context.out, Some(error));
            *context.over = Some(Over::Properly("scripted: closed".into()));
        }
        Some(AmqpFault::Reject { condition, retry_after }) => {
            verdict(context, Verdict::Rejected(bare_rejection(condition, retry_after)));
        }
        Some(AmqpFault::Release) => verdict(context, Verdict::Released),
        Some(AmqpFault::Modify { undeliverable_here }) => {
            verdict(context, Verdict::Modified { undeliverable_here });
        }
        _ => return false,
    }
    *context.fault = None;
    true
}
