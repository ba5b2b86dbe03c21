//! A body that is delivered as the script says.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::{behavior::Delivery, server::stream::Control};

/// The body of an answer.
pub(crate) struct AnswerBody {
    /// What is still to go out.
    rest: Bytes,
    /// The length that the head announces.
    announced: u64,
    ending: Ending,
    control: Arc<Control>,
}

#[derive(PartialEq)]
enum Ending {
    Usual,
    /// Bytes are missing: what there is goes out, then the connection is cut.
    Missing,
    /// The connection is cut after the last byte.
    Cut,
}

impl AnswerBody {
    pub(crate) fn new(body: Bytes, delivery: Delivery, control: Arc<Control>) -> Self {
        let announced = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let (rest, ending) = match delivery {
            // At least one byte is held back: an answer that went out whole is not cut short.
            Delivery::CloseMid(bytes) => {
                (body.slice(..bytes.min(body.len().saturating_sub(1))), Ending::Missing)
            }
            Delivery::CloseAfter => (body, Ending::Cut),
            _ => (body, Ending::Usual),
        };
        Self { rest, announced, ending, control }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
        }
        if this.ending == Ending::Missing {
            // Nobody wakes this up: the connection is cut when what was written has gone out.
            this.control.cut_after_flush();
            return Poll::Pending;
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.ending != Ending::Missing
    }

    fn size_hint(&self) -> SizeHint {
        let missing = self.ending == Ending::Missing;
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        SizeHint::with_exact(if missing { self.announced } else { rest })
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // The server lets go of the body when it has taken the last of it.
        if self.ending == Ending::Cut {
            self.control.cut_after_flush();
        }
    }
}
