//! An enrollment in the configuration file.

use std::{path::Path, str::FromStr};

use dps_attestation::SymmetricKey;
use dps_state_machine::Json;
use serde::Deserialize;
use toml::{Table, Value};

use super::{contents, fault, fields, json};
use crate::{
    behavior::{Behavior, Outcome, RetryAfter, Times},
    config_error::ConfigError,
    enrollment::{
        Allocation, Attestation, Enrollment, GroupAttestation, Reprovisioning, ReturnedPayload,
    },
    issuance::CertificatePolicy,
    keys::{CaCertificates, Thumbprint},
    tpm::TpmStorageKey,
};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Raw {
    registration_id: Option<String>,
    group: Option<String>,
    symmetric_key: Option<String>,
    secondary_key: Option<String>,
    endorsement_key: Option<String>,
    thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
    certificate: Option<String>,
    certificate_file: Option<String>,
    ca: Option<String>,
    ca_file: Option<String>,
    enabled: Option<bool>,
    hub: Option<String>,
    hubs: Option<Vec<String>>,
    #[serde(default)]
    allocation: Allocation,
    device_id: Option<String>,
    payload: Option<RawPayload>,
    #[serde(default)]
    reprovisioning: Reprovisioning,
    substatus: Option<String>,
    certificate_policy: Option<RawPolicy>,
    certificate_days: Option<u16>,
    polls: Option<Times>,
    #[serde(default)]
    retry_after: RetryAfter,
    #[serde(default)]
    outcome: Outcome,
    #[serde(default)]
    register: Vec<Table>,
    #[serde(default)]
    query: Vec<Table>,
}

/// [`ReturnedPayload`] as the file has it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawPayload {
    Echo,
    #[serde(untagged)]
    Text(String),
    #[serde(untagged)]
    Table(Table),
}

/// [`CertificatePolicy`] as the file has it.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawPolicy {
    Refuse,
    Ignore,
    Issue,
}

/// Reads an enrollment; every error names it.
pub(super) fn read(table: Table, number: usize, folder: &Path) -> Result<Enrollment, ConfigError> {
    let name = ["registration-id", "group"].iter().find_map(|key| table.get(*key)?.as_str());
    let name = name.map_or_else(|| format!("number {number}"), str::to_owned);
    fields(table).and_then(|raw| build(raw, folder)).map_err(|error| error.of(&name))
}

fn build(raw: Raw, folder: &Path) -> Result<Enrollment, ConfigError> {
    let certificate = (&raw.certificate, &raw.certificate_file);
    let certificate = load("certificate", certificate, folder, Thumbprint::of_pem)?;
    let ca = load("ca", (&raw.ca, &raw.ca_file), folder, CaCertificates::from_pem)?;
    let enrollment = match (&raw.registration_id, &raw.group) {
        (Some(id), None) => {
            if ca.is_some() {
                let reason = "only a group has one; use thumbprint or certificate";
                return Err(ConfigError::new("ca", reason));
            }
            let id = id.parse();
            let id = id.map_err(|error| ConfigError::from_parser("registration-id", &error))?;
            Enrollment::individual(id, individual(certificate, &raw)?)
        }
        (None, Some(name)) => {
            let other = [&raw.thumbprint, &raw.secondary_thumbprint, &raw.endorsement_key];
            if other.iter().any(|key| key.is_some()) || certificate.is_some() {
                let reason = "a group is known by symmetric-key or by ca";
                return Err(ConfigError::new("group", reason));
            }
            Enrollment::group(name.clone(), group(ca, &raw)?)
        }
        _ => {
            return Err(ConfigError::new(
                "registration-id",
                "give registration-id for one device, or group for many",
            ));
        }
    };
    settings(enrollment, raw)
}

/// What a PEM says that is given as text or as a file.
fn load<T>(
    field: &str,
    (text, file): (&Option<String>, &Option<String>),
    folder: &Path,
    parse: impl Fn(&[u8]) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    match (text, file) {
        (Some(_), Some(_)) => {
            Err(ConfigError::new(field, "give it as text or as a file, not both"))
        }
        (Some(text), None) => parse(text.as_bytes()).map(Some),
        (None, Some(file)) => {
            let field = format!("{field}-file");
            let pem = contents(folder, &field, file)?;
            parse(&pem).map(Some).map_err(|error| error.field_named(&field).value(file.chars()))
        }
        (None, None) => Ok(None),
    }
}

/// The primary and the secondary symmetric key, if any were given.
fn keys<K: FromStr<Err = dps_state_machine::Error>>(
    raw: &Raw,
) -> Result<Option<(K, Option<K>)>, ConfigError> {
    let primary = parsed("symmetric-key", &raw.symmetric_key)?;
    match (primary, parsed("secondary-key", &raw.secondary_key)?) {
        (None, Some(_)) => {
            Err(ConfigError::new("secondary-key", "it needs symmetric-key beside it"))
        }
        (primary, secondary) => Ok(primary.map(|primary| (primary, secondary))),
    }
}

/// What a text means, if it was given.
fn parsed<T>(field: &str, text: &Option<String>) -> Result<Option<T>, ConfigError>
where
    T: FromStr<Err: Into<ConfigError>>,
{
    let parsed = text.as_ref().map(|text| text.parse()).transpose();
    parsed.map_err(|error: T::Err| error.into().field_named(field))
}

fn individual(certificate: Option<Thumbprint>, raw: &Raw) -> Result<Attestation, ConfigError> {
    let keys: Option<(SymmetricKey, _)> = keys(raw)?;
    let given: Option<Thumbprint> = parsed("thumbprint", &raw.thumbprint)?;
    let secondary = parsed("secondary-thumbprint", &raw.secondary_thumbprint)?;
    let primary = match (given, certificate) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::new("thumbprint", "give thumbprint or certificate, not both"));
        }
        (given, certificate) => given.or(certificate),
    };
    let tpm: Option<TpmStorageKey> = parsed("endorsement-key", &raw.endorsement_key)?;
    match (keys, primary, tpm) {
        (Some((primary, key)), None, None) if secondary.is_none() => {
            Ok(Attestation::SymmetricKey { primary, secondary: key })
        }
        (None, Some(primary), None) => Ok(Attestation::X509 { primary, secondary }),
        (None, None, Some(endorsement_key)) => Ok(Attestation::Tpm { endorsement_key }),
        (None, None, None) => Err(ConfigError::new(
            "symmetric-key",
            "give symmetric-key, thumbprint, certificate, certificate-file or endorsement-key",
        )),
        _ => Err(ConfigError::new(
            "symmetric-key",
            "give a symmetric key, a certificate or an endorsement key, and nothing beside it",
        )),
    }
}

fn group(ca: Option<CaCertificates>, raw: &Raw) -> Result<GroupAttestation, ConfigError> {
    match (keys(raw)?, ca) {
        (Some((primary, secondary)), None) => {
            Ok(GroupAttestation::SymmetricKey { primary, secondary })
        }
        (None, Some(ca)) => Ok(GroupAttestation::X509(ca)),
        (None, None) => Err(ConfigError::new("symmetric-key", "give symmetric-key, ca or ca-file")),
        _ => Err(ConfigError::new("symmetric-key", "give symmetric-key or ca, not both")),
    }
}

fn settings(enrollment: Enrollment, raw: Raw) -> Result<Enrollment, ConfigError> {
    let hubs = match (raw.hub, raw.hubs) {
        (Some(_), Some(_)) => return Err(ConfigError::new("hubs", "give hub or hubs, not both")),
        (Some(hub), None) => vec![hub],
        (None, hubs) => hubs.unwrap_or(enrollment.hubs),
    };
    let certificate_policy = policy(raw.certificate_policy, raw.certificate_days)?;
    let payload = match raw.payload {
        None => ReturnedPayload::None,
        Some(RawPayload::Echo) => ReturnedPayload::Echo,
        Some(RawPayload::Table(table)) => ReturnedPayload::Fixed(json(Value::Table(table)).into()),
        Some(RawPayload::Text(text)) => ReturnedPayload::Fixed(payload(&text)?),
    };
    let faults = |list: &str, tables: Vec<Table>| -> Result<Vec<_>, _> {
        let faults = tables.into_iter().map(fault::read);
        faults.collect::<Result<_, _>>().map_err(|error: ConfigError| error.within(list))
    };
    let behavior = Behavior {
        polls: match raw.polls {
            None => 0,
            Some(Times::Count(polls)) => polls,
            Some(Times::Forever) => u32::MAX,
        },
        retry_after: raw.retry_after,
        outcome: raw.outcome,
        register: faults("register", raw.register)?,
        query: faults("query", raw.query)?,
    };
    Ok(Enrollment {
        enabled: raw.enabled.unwrap_or(true),
        hubs,
        allocation: raw.allocation,
        device_id: raw.device_id,
        payload,
        reprovisioning: raw.reprovisioning,
        substatus: raw.substatus,
        certificate_policy,
        behavior,
        ..enrollment
    })
}

/// What becomes of requests for certificates, which live 1 to 90 days as those of the service do.
fn policy(policy: Option<RawPolicy>, days: Option<u16>) -> Result<CertificatePolicy, ConfigError> {
    const DEFAULT_DAYS: u16 = 30;
    let wrong = |reason| Err(ConfigError::new("certificate-days", reason));
    match (policy, days) {
        (Some(RawPolicy::Issue), Some(0 | 91..)) => wrong("give 1 to 90 days"),
        (Some(RawPolicy::Issue), days) => {
            Ok(CertificatePolicy::issue_for_days(days.unwrap_or(DEFAULT_DAYS)))
        }
        (_, Some(_)) => wrong("it needs certificate-policy = \"issue\" beside it"),
        (Some(RawPolicy::Ignore), None) => Ok(CertificatePolicy::Ignore),
        (Some(RawPolicy::Refuse) | None, None) => Ok(CertificatePolicy::Refuse),
    }
}

/// A JSON object that was written as text, so that it comes back to the letter.
fn payload(text: &str) -> Result<Json, ConfigError> {
    if !text.trim_start().starts_with('{') {
        let reason = "it must be \"echo\", a table, or a JSON object as text";
        return Err(ConfigError::new("payload", reason).value(text.chars()));
    }
    text.parse().map_err(|error| ConfigError::from_parser("payload", &error))
}
