//! What peers have shown as their credentials, so that no event repeats it, whatever field it stands in.

use std::{borrow::Cow, collections::HashMap, sync::Mutex};

use dps_state_machine::internal::masked_but;
use percent_encoding::percent_decode_str;

use super::EventKind;
use crate::lock::lock;

/// Of each open connection its secrets, and the registration id or the policy that it has proved to be its own.
#[derive(Default)]
pub(super) struct Shown(Mutex<HashMap<u64, (Vec<String>, String)>>);

/// So many secrets are remembered of a connection, each of so many bytes at most: each of its requests may have
/// another, and whoever sends it may be nobody.
const SECRETS: usize = 16;
const LONGEST: usize = 256;
/// What is shorter stands in many texts by chance.
const SHORTEST: usize = 8;

impl Shown {
    /// Remembers what stood in the place of a token or a password, until the connection is over.
    pub(super) fn add(&self, connection: u64, credential: &str) {
        let new = secrets(credential);
        let mut shown = lock(&self.0);
        let (secrets, _) = shown.entry(connection).or_default();
        secrets.retain(|secret| !new.contains(secret));
        secrets.extend(new);
        secrets.drain(..secrets.len().saturating_sub(SECRETS));
    }

    /// Remembers what an event says that the connection has proved to be its own.
    pub(super) fn learn(&self, connection: u64, kind: &EventKind) {
        if let EventKind::Authenticated { registration_id: name, .. }
        | EventKind::ServiceCall { policy: Some(name), .. } = kind
        {
            let mut shown = lock(&self.0);
            let (secrets, proved) = shown.entry(connection).or_default();
            // A policy is named in its token.
            secrets.retain(|secret| secret != name);
            proved.clone_from(name);
        }
    }

    /// What an event says, without a secret.
    pub(super) fn mask<'a>(&self, connection: u64, text: &'a str) -> Cow<'a, str> {
        match lock(&self.0).get(&connection) {
            Some((secrets, name)) => masked_but(text, secrets, name),
            None => masked_but(text, &[], ""),
        }
    }

    /// The connection is over.
    pub(super) fn forget(&self, connection: u64) {
        lock(&self.0).remove(&connection);
    }
}

/// The parts of a credential that are no part of every token: its fields may be swapped, and it may be no token at all.
fn secrets(credential: &str) -> Vec<String> {
    let values = credential.split([' ', '&']).map(|field| match field.split_once('=') {
        Some(("sr" | "sig" | "se" | "skn", value)) => value,
        _ => field,
    });
    let mut secrets = Vec::new();
    for value in values {
        let value = percent_decode_str(value).decode_utf8_lossy();
        let parts = parts(&value).take(SECRETS);
        secrets.extend(parts.filter(|part| is_secret(part)).map(str::to_owned));
    }
    secrets
}

/// Parts of a long value are remembered, so that no more than the rest of its last part can be repeated.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(LONGEST / 4).map_or(rest.len(), |(at, _)| at);
        let (part, left) = rest.split_at(end);
        rest = left;
        (!part.is_empty()).then_some(part)
    })
}

/// Whether it is not common to many texts.
fn is_secret(value: &str) -> bool {
    value.len() >= SHORTEST
        && !value.bytes().all(|byte| byte.is_ascii_digit())
        && !value.contains("/registrations/")
        && !["registration", "SharedAccessSignature"].contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_is_masked_until_the_connection_is_over() {
        let shown = Shown::default();
        let right = "SharedAccessSignature sr=0ne1%2Fregistrations%2Fdev-1&sig=c2lnbmF0%3D&se=1999999999&skn=registration";
        let swapped =
            "SharedAccessSignature sr=a%20password&sig=bb&se=another%2Fone&skn=registrations";
        shown.add(1, right);
        let line = "0ne1/registrations/dev-1 c2lnbmF0= c2lnbmF0%3D 1999999999 registration";
        assert_eq!(shown.mask(1, line), "0ne1/registrations/dev-1 *** *** 1999999999 registration");
        for number in 0..100 {
            shown.add(1, &format!("password-{number}"));
        }
        shown.add(1, swapped);
        let line = "a password another/one registrations bb password-99 password-0";
        assert_eq!(shown.mask(1, line), "*** *** *** bb *** password-0");
        assert_eq!(shown.mask(2, line), line);
        assert_eq!(shown.mask(1, "password-99"), "***");
        shown.forget(1);
        assert_eq!(shown.mask(1, "password-99"), "password-99");
        assert!(lock(&shown.0).is_empty());
    }

    #[test]
    fn a_proven_name_stays_though_it_looks_like_a_key() {
        let name = "hwgBlMB6G2Zg5ZcYtwmtLVKRbifiSCPf";
        let shown = Shown::default();
        let (registration_id, enrollment) = (name.to_owned(), "factory".to_owned());
        let method = crate::core::events::Method::SymmetricKey;
        let proven = EventKind::Authenticated { registration_id, enrollment, method };
        assert_eq!(shown.mask(1, name), "***");
        shown.learn(1, &proven);
        assert_eq!(shown.mask(1, name), name);
        assert_eq!(shown.mask(2, name), "***");
    }
}
