//! What a session needs from its connection.

use std::collections::VecDeque;

use super::{answer::Answer, claim::Claim};
use crate::{
    behavior::AmqpFault,
    server::{conversation::Over, peer::Peer},
};

/// See the module.
pub(super) struct Context<'a> {
    pub(super) peer: &'a Peer,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) over: &'a mut Option<Over>,
    pub(super) claim: &'a mut Option<Claim>,
    pub(super) fault: &'a mut Option<AmqpFault>,
    /// Answers that wait for a link with credit, in whichever session.
    pub(super) waiting: &'a mut VecDeque<Answer>,
    pub(super) channel: u16,
}
