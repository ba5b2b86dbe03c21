//! In place of `embedded.rs` in a program that was built without the emulator.

use std::{convert::Infallible, time::Duration};

use dps_client::{Config, Endpoint, Error, IdScope, RegistrationId, TransportChoice};

use crate::given::{EMULATOR, wrong};

/// There is none.
pub(crate) type Emulator = Infallible;

pub(crate) const POLL_FLOOR: Duration = Duration::ZERO;

/// Nothing is known of the emulator's file.
pub(crate) const EXAMPLE: &str = "";

/// What a service on the spot would be.
pub(crate) struct Embedded {
    pub(crate) emulator: Emulator,
    pub(crate) config: Config,
    pub(crate) registration_id: RegistrationId,
}

/// Says that there is no emulator.
pub(crate) async fn start(
    _: Option<IdScope>,
    _: Option<RegistrationId>,
    _: TransportChoice,
) -> Result<Embedded, Error> {
    Err(wrong(EMULATOR.flag, "", "this program was built without the emulator"))
}

pub(crate) fn mqtt_endpoint(emulator: &Emulator) -> Endpoint {
    match *emulator {}
}
