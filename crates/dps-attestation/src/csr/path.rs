//! From the device's own certificate to the last issuer that came: by names and signatures, never by position.

use std::{collections::HashSet, ptr, time::SystemTime};

use dps_state_machine::{ConfigurationError, Error};

use crate::{
    chain::MAX_CHAIN,
    csr::{issued::LOOK, signed::Signed},
};

/// The certificates as they came, but for those that came twice.
pub(super) fn read(given: &[Vec<u8>]) -> Result<Vec<Signed>, Error> {
    let count = given.len();
    let wrong = |reason: &str| ConfigurationError::new("issued certificate", "", reason).into();
    if count == 0 {
        return Err(wrong("none came; give the enrollment a policy that issues certificates"));
    }
    let mut seen = HashSet::new();
    let given: Vec<_> = given.iter().zip(1..).filter(|(der, _)| seen.insert(*der)).collect();
    if given.len() < count {
        let repeated = count - given.len();
        tracing::warn!(repeated, "left issued certificates out that came twice");
    }
    if given.len() > MAX_CHAIN {
        return Err(wrong(&format!(
            "{} came, and at most {MAX_CHAIN} are taken; shorten the chain of the authority that issues them",
            given.len()
        )));
    }
    let read = |(der, number): (&Vec<u8>, usize)| {
        Signed::parse(der, format!("number {number} of {count}"))
    };
    given.into_iter().map(read).collect()
}

/// The leaf, and its issuers from one to the next.
pub(super) fn find<'a>(
    all: &'a [Signed],
    public_key_info: &[u8],
    now: SystemTime,
) -> Result<(&'a Signed, Vec<&'a Signed>), Error> {
    let leaf = leaf(all, public_key_info)?;
    let mut last = leaf;
    let mut path = vec![leaf];
    while let Some(issuer) = issuer(last, &path, all, now)? {
        path.push(issuer);
        last = issuer;
    }
    for needless in all.iter().filter(|other| !contains(&path, other)) {
        let certificate = needless.certificate.subject.to_string();
        tracing::warn!(certificate, "left an issued certificate out that issued no other one");
    }
    Ok((leaf, path.split_off(1)))
}

fn leaf<'a>(all: &'a [Signed], public_key_info: &[u8]) -> Result<&'a Signed, Error> {
    let mut ours = all.iter().filter(|one| one.public_key_info == public_key_info);
    match (ours.next(), ours.next()) {
        (Some(leaf), None) => Ok(leaf),
        (Some(_), Some(second)) => Err(second.wrong(
            "it is the second one with the key of the request, and which of them to use is not said; register again to get one",
        )),
        (None, _) => {
            let reason = format!(
                "none of the {} that came has the key of the request; register again with a request by this key",
                all.len()
            );
            Err(ConfigurationError::new("issued certificate", "", &reason).into())
        }
    }
}

/// Who issued the last of the path; `None` when it ends there.
fn issuer<'a>(
    last: &'a Signed,
    path: &[&'a Signed],
    all: &'a [Signed],
    now: SystemTime,
) -> Result<Option<&'a Signed>, Error> {
    let is_leaf = path.len() == 1;
    let is_itself = |other: &Signed| ptr::eq(other, last);
    let is_free = |other: &Signed| !contains(path, other) || is_itself(other) && !is_leaf;
    let is_named = |other: &Signed| last.certificate.issuer.is(&other.certificate.subject);
    let named: Vec<&Signed> =
        all.iter().filter(|other| is_free(other) && is_named(other)).collect();
    let signers = named.iter().copied().filter(|other| last.is_signed_by(other));
    // Of several certificates of the same authority: the one that can be used, and rather the end of the chain.
    let issuer = signers.min_by_key(|other| {
        (!is_itself(other), !other.is_usable(now), !other.certificate.is_self_signed())
    });
    let by = &last.certificate.issuer;
    match issuer {
        Some(issuer) => Ok(Some(issuer).filter(|issuer| !is_itself(issuer))),
        None if !named.is_empty() => Err(last.wrong(&format!(
            "its signature is not by the key of {by} that came with it, or by an algorithm that is not known here; register again to get another, and if it stays so {LOOK}"
        ))),
        None if is_leaf && last.certificate.is_self_signed() => {
            Err(last.wrong(&format!("no authority issued it: it names itself; {LOOK}")))
        }
        None if is_leaf && all.len() > 1 => Err(last.wrong(&format!(
            "it was issued by {by}, which is not among the {} that came; register again to get the whole chain",
            all.len()
        ))),
        None => Ok(None),
    }
}

fn contains(path: &[&Signed], other: &Signed) -> bool {
    path.iter().any(|one| ptr::eq(*one, other))
}
