//! Who the device says it is, and whether it is.

use crate::core::{Authenticated, Caller, ServiceError};

/// Made once on a connection: by the SAS token with which the device logs in, or by its certificate and its first link.
pub(super) struct Claim {
    id_scope: String,
    pub(super) registration_id: String,
    pub(super) checked: Result<Authenticated, ServiceError>,
}

impl Claim {
    pub(super) fn check(
        caller: &Caller,
        id_scope: &str,
        registration_id: &str,
        token: Option<&str>,
    ) -> Self {
        let checked = caller.authenticate(id_scope, registration_id, token);
        let (id_scope, registration_id) = (id_scope.to_owned(), registration_id.to_owned());
        Self { id_scope, registration_id, checked }
    }

    fn is_for(&self, id_scope: &str, registration_id: &str) -> bool {
        self.id_scope.eq_ignore_ascii_case(id_scope)
            && self.registration_id.eq_ignore_ascii_case(registration_id)
    }
}

/// The device that a link is for, if the connection may have it: its registration id, and that it is the right one.
pub(super) fn claimed(
    claim: &mut Option<Claim>,
    caller: &Caller,
    address: &str,
) -> Result<(String, Authenticated), ServiceError> {
    let (id_scope, registration_id) =
        parse_address(address).ok_or_else(|| ServiceError::no_such_path(address))?;
    if claim.is_none() && caller.has_certificate() {
        *claim = Some(Claim::check(caller, id_scope, registration_id, None));
    }
    match claim {
        Some(claim) if claim.is_for(id_scope, registration_id) => {
            claim.checked.clone().map(|who| (registration_id.to_owned(), who))
        }
        _ => Err(ServiceError::unauthorized("the link is for another device than the credential")),
    }
}

/// The ID scope and the registration id of a link's address: `{scope}/registrations/{id}`, with or without
/// `amqps://{host}/` before it.
pub(super) fn parse_address(address: &str) -> Option<(&str, &str)> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => address.trim_start_matches('/'),
    };
    let (id_scope, registration_id) = path.split_once("/registrations/")?;
    (!id_scope.contains('/') && !registration_id.contains('/'))
        .then_some((id_scope, registration_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_with_and_without_a_host() {
        for (address, parsed) in [
            ("0ne1/registrations/d-1", Some(("0ne1", "d-1"))),
            ("/0ne1/registrations/d-1", Some(("0ne1", "d-1"))),
            ("amqps://dps.example/0ne1/registrations/d-1", Some(("0ne1", "d-1"))),
            ("amqps://dps.example", None),
            ("0ne1/registrations/d-1/x", None),
            ("a/0ne1/registrations/d-1", None),
            ("$cbs", None),
        ] {
            assert_eq!(parse_address(address), parsed, "{address}");
        }
    }
}
