//! What scripts want instead of an answer.

use super::{
    device::{bare_rejection, rejection},
    session::Context,
    write::{self, Verdict},
};
use crate::{behavior::AmqpFault, server::Over, service::ServiceError};

/// What a script wants instead of an answer. Whether that was it.
pub(super) fn misbehave(context: &mut Context<'_>, handle: u32, delivery_id: u32) -> bool {
    let error = |context: &Context<'_>, error| rejection(&context.peer.refuse("", &error));
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
            let error = error(context, ServiceError::internal());
            write::detach(context.out, channel, handle, Some(error));
        }
        Some(AmqpFault::End) => write::end(context.out, channel),
        Some(AmqpFault::Close) => {
            write::close(context.out, None);
            *context.over = Some(Over::Properly("scripted: closed".into()));
        }
        Some(AmqpFault::CloseWithError) => {
            let error = error(context, ServiceError::unavailable());
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
