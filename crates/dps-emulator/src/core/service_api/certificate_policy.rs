//! The fields of a record that have the service issue certificates. The emulator takes them in every api-version.
//! See <https://learn.microsoft.com/rest/api/iot-dps/service/individual-enrollment/create-or-update>.

use serde_json::{Value, json};

use super::fields::Fields;
use crate::{
    core::service::ServiceError,
    enrollment::Enrollment,
    issuance::{CertificatePolicy, PolicyNames},
};

const NESTED: &str = "clientCertificateIssuancePolicy";
const AUTHORITY: &str = "certificateAuthorityName";

/// What an enrollment does with requests for certificates. One that names a policy issues them, for as long as before; one
/// whose record has lost the names refuses them, and one that never had names does as the emulator was told.
pub(super) fn read(
    fields: &mut Fields,
    former: Option<&Enrollment>,
) -> Result<(CertificatePolicy, PolicyNames), ServiceError> {
    let mut names = PolicyNames {
        credential_policy: fields.take("credentialPolicyName")?,
        namespace: name(fields, "namespaceName")?,
        certificate_authority: name(fields, AUTHORITY)?,
        certificate_policy: name(fields, "certificatePolicyName")?,
    };
    let nested = fields.within(NESTED, |nested| {
        let authority = name(nested, AUTHORITY)?;
        nested.required(AUTHORITY, authority)
    })?;
    if let Some(authority) = nested
        && names.certificate_authority.replace(authority).is_some()
    {
        return Err(fields.wrong(NESTED, "give this or certificateAuthorityName, one of them"));
    }
    let before = former.map(|former| former.certificate_policy);
    let had_names = former.is_some_and(|former| former.policy_names != PolicyNames::default());
    let policy = match (before, names == PolicyNames::default()) {
        (Some(before), true) if !had_names => before,
        (_, true) => CertificatePolicy::default(),
        (Some(before @ CertificatePolicy::Issue { .. }), false) => before,
        (_, false) => CertificatePolicy::issue_for_days(CertificatePolicy::DEFAULT_DAYS),
    };
    Ok((policy, names))
}

/// A name, which has 3 to 64 characters.
fn name(fields: &mut Fields, field: &str) -> Result<Option<String>, ServiceError> {
    let name: Option<String> = fields.take(field)?;
    match &name {
        Some(text) if !(3..=64).contains(&text.chars().count()) => {
            Err(fields.wrong(field, "it must have 3 to 64 characters"))
        }
        _ => Ok(name),
    }
}

/// The fields of a record.
pub(super) fn write(names: &PolicyNames) -> impl Iterator<Item = (&'static str, Value)> {
    let PolicyNames { credential_policy, namespace, certificate_authority, certificate_policy } =
        names;
    // The preview of 2021 knew the authority alone, in an object of its own.
    let is_alone = namespace.is_none() && certificate_policy.is_none();
    let authority = certificate_authority.as_ref().map(|name| match is_alone {
        true => (NESTED, json!({ AUTHORITY: name })),
        false => (AUTHORITY, json!(name)),
    });
    let others = [
        ("credentialPolicyName", json!(credential_policy)),
        ("namespaceName", json!(namespace)),
        ("certificatePolicyName", json!(certificate_policy)),
    ];
    others.into_iter().chain(authority)
}
