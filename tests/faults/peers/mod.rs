//! Misbehaving peers on loopback.

mod door;
mod meddler;
mod paced;
mod pki;
mod spoiled;
mod talk;

pub(crate) use door::DoorState;
pub(crate) use meddler::{Meddler, Mischief, Trouble};
pub(crate) use pki::{Credentials, Pki};
pub(crate) use talk::{Kind, find};
