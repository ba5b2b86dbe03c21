//! An enrollment in the configuration file, and the same as JSON: read and written.

use std::{path::Path, str::FromStr, time::Duration};

use dps_attestation::{GroupKey, SymmetricKey};
use dps_state_machine::Json;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use zeroize::Zeroizing;

use super::{contents, fault, fields, json, toml_value};
use crate::{
    behavior::{Behavior, Outcome, RetryAfter, Times},
    config_error::ConfigError,
    enrollment::{
        Allocation, Attestation, Enrollment, GroupAttestation, Members, Pair, Reprovisioning,
        ReturnedPayload,
    },
    hub::HubRefusal,
    issuance::{CertificatePolicy, PolicyNames},
    keys::{CaCertificates, DeviceCertificate, Thumbprint},
    tpm::TpmStorageKey,
};

/// What a table of the file may have; all of it is optional.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Raw {
    registration_id: Option<String>,
    group: Option<String>,
    symmetric_key: Option<String>,
    secondary_key: Option<String>,
    endorsement_key: Option<String>,
    storage_root_key: Option<String>,
    thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
    certificate: Option<String>,
    certificate_file: Option<String>,
    secondary_certificate: Option<String>,
    secondary_certificate_file: Option<String>,
    ca: Option<String>,
    ca_file: Option<String>,
    secondary_ca: Option<String>,
    secondary_ca_file: Option<String>,
    ca_reference: Option<String>,
    secondary_ca_reference: Option<String>,
    enabled: Option<bool>,
    hub: Option<String>,
    hubs: Option<Vec<String>>,
    allocation: Option<Allocation>,
    device_id: Option<String>,
    payload: Option<RawPayload>,
    reprovisioning: Option<Reprovisioning>,
    substatus: Option<String>,
    initial_twin: Option<RawJson>,
    iot_edge: Option<bool>,
    device_information: Option<RawJson>,
    certificate_policy: Option<RawPolicy>,
    certificate_days: Option<u16>,
    certificate_policy_names: Option<PolicyNames>,
    update: Option<RawJson>,
    hub_refusal: Option<HubRefusal>,
    polls: Option<Times>,
    retry_after: Option<RetryAfter>,
    outcome: Option<Outcome>,
    register: Option<Vec<Table>>,
    query: Option<Vec<Table>>,
}

/// [`ReturnedPayload`] as the file has it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum RawPayload {
    Echo,
    #[serde(untagged)]
    Fixed(RawJson),
}

/// A JSON object as the file has it: a table, or a text where it must come back to the letter.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum RawJson {
    Text(String),
    Table(Table),
}

/// [`CertificatePolicy`] as the file has it.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum RawPolicy {
    Refuse,
    Ignore,
    Issue,
}

impl Enrollment {
    /// Reads an enrollment from a JSON object with the keys that an `[[enrollment]]` of the
    /// [configuration file](crate#the-configuration-file) has. It may name no files.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key and what is wrong with it.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let serde_json::Value::Object(fields) = json else {
            return Err(ConfigError::new("enrollment", "it must be a JSON object"));
        };
        if let Some(file) = fields.keys().find(|key| key.ends_with("-file")) {
            let inline = file.trim_end_matches("-file");
            return Err(ConfigError::new(
                file,
                &format!("no file is read; give the PEM in {inline}"),
            ));
        }
        let fields = fields.iter().filter(|(_, value)| !value.is_null());
        let table = fields.map(|(key, value)| {
            // These come back to the letter, also with what TOML lacks.
            let is_json = ["payload", "initial-twin", "device-information", "update"];
            let value = match value {
                serde_json::Value::Object(_) if is_json.contains(&key.as_str()) => {
                    Value::String(value.to_string())
                }
                value => toml_value(key, value)?,
            };
            Ok((key.clone(), value))
        });
        read(table.collect::<Result<_, ConfigError>>()?, 1, Path::new(""))
    }

    /// Writes it as a JSON object with the keys that an `[[enrollment]]` of the
    /// [configuration file](crate#the-configuration-file) has, which [`Enrollment::from_json`] reads back. **Its secrets
    /// are in it.** A lifetime of certificates is rounded up to whole days.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let raw = Raw::from(self);
        // Texts, numbers, and tables with texts as their keys: there is nothing that can fail to serialize.
        let mut json = serde_json::to_value(raw).unwrap_or_default();
        if let Some(fields) = json.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        json
    }
}

/// Reads an enrollment; every error names it.
pub(super) fn read(table: Table, number: usize, folder: &Path) -> Result<Enrollment, ConfigError> {
    let name = ["registration-id", "group"].iter().find_map(|key| table.get(*key)?.as_str());
    let name = name.map_or_else(|| format!("number {number}"), str::to_owned);
    fields(table).and_then(|raw| build(raw, folder)).map_err(|error| error.of(&name))
}

fn build(raw: Raw, folder: &Path) -> Result<Enrollment, ConfigError> {
    let certificate =
        |field, text, file| load(field, text, file, folder, DeviceCertificate::from_pem);
    let certificates = [
        certificate("certificate", &raw.certificate, &raw.certificate_file)?,
        certificate(
            "secondary-certificate",
            &raw.secondary_certificate,
            &raw.secondary_certificate_file,
        )?,
    ];
    let ca = |field, text, file| load(field, text, file, folder, CaCertificates::from_pem);
    let cas = [
        ca("ca", &raw.ca, &raw.ca_file)?,
        ca("secondary-ca", &raw.secondary_ca, &raw.secondary_ca_file)?,
    ];
    let enrollment = match (&raw.registration_id, &raw.group) {
        (Some(id), None) => {
            let of_groups = [
                ("ca", cas[0].is_some()),
                ("secondary-ca", cas[1].is_some()),
                ("ca-reference", raw.ca_reference.is_some()),
                ("secondary-ca-reference", raw.secondary_ca_reference.is_some()),
            ];
            if let Some((field, _)) = of_groups.iter().find(|(_, given)| *given) {
                let reason = "only a group has one; use thumbprint or certificate";
                return Err(ConfigError::new(field, reason));
            }
            let id = id.parse();
            let id = id.map_err(|error| ConfigError::from_parser("registration-id", &error))?;
            Enrollment::individual(id, individual(certificates, &raw)?)
        }
        (None, Some(name)) => {
            let other = [&raw.thumbprint, &raw.secondary_thumbprint, &raw.endorsement_key];
            if other.iter().any(|key| key.is_some()) || certificates.iter().any(Option::is_some) {
                let reason = "a group is known by symmetric-key, by ca or by ca-reference";
                return Err(ConfigError::new("group", reason));
            }
            Enrollment::group(name.clone(), group(cas, &raw)?)
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
    text: &Option<String>,
    file: &Option<String>,
    folder: &Path,
    parse: impl Fn(&[u8]) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    match (text, file) {
        (Some(_), Some(_)) => {
            Err(ConfigError::new(field, "give it as text or as a file, not both"))
        }
        (Some(text), None) => {
            parse(text.as_bytes()).map(Some).map_err(|error| error.field_named(field))
        }
        (None, Some(file)) => {
            let field = format!("{field}-file");
            let pem = contents(folder, &field, file)?;
            parse(&pem).map(Some).map_err(|error| error.field_named(&field).value(file.chars()))
        }
        (None, None) => Ok(None),
    }
}

/// The certificates of a verified CA.
pub(super) fn verified_ca(
    text: &Option<String>,
    file: &Option<String>,
    folder: &Path,
) -> Result<CaCertificates, ConfigError> {
    load("ca", text, file, folder, CaCertificates::from_pem)?
        .ok_or_else(|| ConfigError::new("ca", "give ca or ca-file"))
}

/// The primary and the secondary symmetric key, if any were given.
fn keys<K: FromStr<Err = dps_state_machine::Error>>(
    raw: &Raw,
) -> Result<Option<Pair<K>>, ConfigError> {
    let primary = parsed("symmetric-key", &raw.symmetric_key)?;
    match (primary, parsed("secondary-key", &raw.secondary_key)?) {
        (None, Some(_)) => {
            Err(ConfigError::new("secondary-key", "it needs symmetric-key beside it"))
        }
        (primary, secondary) => Ok(primary.map(|primary| Pair { primary, secondary })),
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

fn individual(
    [primary, secondary]: [Option<DeviceCertificate>; 2],
    raw: &Raw,
) -> Result<Attestation, ConfigError> {
    let keys = keys(raw)?;
    let primary = certificate("", &raw.thumbprint, primary)?;
    let secondary = certificate("secondary-", &raw.secondary_thumbprint, secondary)?;
    let tpm: Option<TpmStorageKey> = parsed("endorsement-key", &raw.endorsement_key)?;
    let storage_root_key = parsed("storage-root-key", &raw.storage_root_key)?;
    if storage_root_key.is_some() && tpm.is_none() {
        return Err(ConfigError::new("storage-root-key", "it needs endorsement-key beside it"));
    }
    match (keys, primary, tpm) {
        (Some(keys), None, None) if secondary.is_none() => Ok(Attestation::SymmetricKey(keys)),
        (None, Some(primary), None) => Ok(Attestation::X509(Pair { primary, secondary })),
        (None, None, Some(endorsement_key)) => {
            Ok(Attestation::Tpm { endorsement_key, storage_root_key })
        }
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

/// A device's certificate, by its thumbprint or itself.
fn certificate(
    which: &str,
    thumbprint: &Option<String>,
    certificate: Option<DeviceCertificate>,
) -> Result<Option<DeviceCertificate>, ConfigError> {
    let field = format!("{which}thumbprint");
    let given: Option<Thumbprint> = parsed(&field, thumbprint)?;
    if given.is_some() && certificate.is_some() {
        let reason = format!("give {which}thumbprint or {which}certificate, not both");
        return Err(ConfigError::new(&field, &reason));
    }
    Ok(certificate.or(given.map(Into::into)))
}

fn group(
    [ca, secondary_ca]: [Option<CaCertificates>; 2],
    raw: &Raw,
) -> Result<GroupAttestation, ConfigError> {
    let alone = |field, other| Err(ConfigError::new(field, &format!("it needs {other} beside it")));
    if ca.is_none() && secondary_ca.is_some() {
        return alone("secondary-ca", "ca");
    }
    let (reference, secondary) = (raw.ca_reference.clone(), raw.secondary_ca_reference.clone());
    if reference.is_none() && secondary.is_some() {
        return alone("secondary-ca-reference", "ca-reference");
    }
    match (keys(raw)?, ca, reference) {
        (Some(keys), None, None) => Ok(GroupAttestation::SymmetricKey(keys)),
        (None, Some(primary), None) => {
            Ok(GroupAttestation::X509(Pair { primary, secondary: secondary_ca }))
        }
        (None, None, Some(primary)) => {
            Ok(GroupAttestation::CaReferences(Pair { primary, secondary }))
        }
        (None, None, None) => Err(ConfigError::new(
            "symmetric-key",
            "give symmetric-key, ca, ca-file or ca-reference",
        )),
        _ => Err(ConfigError::new(
            "symmetric-key",
            "give symmetric-key, ca or ca-reference, and nothing beside it",
        )),
    }
}

fn settings(enrollment: Enrollment, raw: Raw) -> Result<Enrollment, ConfigError> {
    let hubs = match (raw.hub, raw.hubs) {
        (Some(_), Some(_)) => return Err(ConfigError::new("hubs", "give hub or hubs, not both")),
        (Some(hub), None) => vec![hub],
        (None, hubs) => hubs.unwrap_or(enrollment.hubs),
    };
    let certificate_policy = policy(raw.certificate_policy, raw.certificate_days)?;
    let policy_names = raw.certificate_policy_names.unwrap_or_default();
    let issues = matches!(certificate_policy, CertificatePolicy::Issue { .. });
    if policy_names != PolicyNames::default() && !issues {
        let reason = "they need certificate-policy = \"issue\" beside them";
        return Err(ConfigError::new("certificate-policy-names", reason));
    }
    let payload = match raw.payload {
        None => ReturnedPayload::None,
        Some(RawPayload::Echo) => ReturnedPayload::Echo,
        Some(RawPayload::Fixed(raw)) => ReturnedPayload::Fixed(object("payload", raw)?),
    };
    let update = raw.update.map(|raw| object("update", raw)).transpose()?;
    let initial_twin = raw.initial_twin.map(|raw| object("initial-twin", raw)).transpose()?;
    let information = raw.device_information.map(|raw| object("device-information", raw));
    let faults = |list: &str, tables: Option<Vec<Table>>| -> Result<Vec<_>, _> {
        let faults = tables.unwrap_or_default().into_iter().map(fault::read);
        faults.collect::<Result<_, _>>().map_err(|error: ConfigError| error.within(list))
    };
    let behavior = Behavior {
        polls: raw.polls.map(|polls| match polls {
            Times::Count(polls) => polls,
            Times::Forever => u32::MAX,
        }),
        retry_after: raw.retry_after,
        outcome: raw.outcome.unwrap_or_default(),
        register: faults("register", raw.register)?,
        query: faults("query", raw.query)?,
    };
    Ok(Enrollment {
        enabled: raw.enabled.unwrap_or(true),
        hubs,
        allocation: raw.allocation.unwrap_or_default(),
        device_id: raw.device_id,
        payload,
        reprovisioning: raw.reprovisioning.unwrap_or_default(),
        substatus: raw.substatus,
        initial_twin,
        iot_edge: raw.iot_edge.unwrap_or_default(),
        device_information: information.transpose()?,
        certificate_policy,
        policy_names,
        update,
        hub_refusal: raw.hub_refusal,
        behavior,
        ..enrollment
    })
}

/// What becomes of requests for certificates, which live 1 to 90 days as those of the service do.
fn policy(policy: Option<RawPolicy>, days: Option<u16>) -> Result<CertificatePolicy, ConfigError> {
    let wrong = |reason| Err(ConfigError::new("certificate-days", reason));
    match (policy, days) {
        (Some(RawPolicy::Issue), Some(0 | 91..)) => wrong("give 1 to 90 days"),
        (Some(RawPolicy::Issue), days) => {
            Ok(CertificatePolicy::issue_for_days(days.unwrap_or(CertificatePolicy::DEFAULT_DAYS)))
        }
        (_, Some(_)) => wrong("it needs certificate-policy = \"issue\" beside it"),
        (Some(RawPolicy::Ignore), None) => Ok(CertificatePolicy::Ignore),
        (Some(RawPolicy::Refuse) | None, None) => Ok(CertificatePolicy::Refuse),
    }
}

fn object(field: &str, raw: RawJson) -> Result<Json, ConfigError> {
    let text = match raw {
        RawJson::Table(table) => return Ok(json(Value::Table(table)).into()),
        RawJson::Text(text) => text,
    };
    if !text.trim_start().starts_with('{') {
        let echo = if field == "payload" { "\"echo\", " } else { "" };
        let reason = format!("it must be {echo}a table, or a JSON object as text");
        return Err(ConfigError::new(field, &reason).value(text.chars()));
    }
    text.parse().map_err(|error| ConfigError::from_parser(field, &error))
}

impl From<&Enrollment> for Raw {
    fn from(enrollment: &Enrollment) -> Self {
        let Enrollment { hubs, behavior, .. } = enrollment;
        let faults = |faults: &[_]| {
            (!faults.is_empty()).then(|| faults.iter().map(fault::write).collect::<Vec<_>>())
        };
        let (certificate_policy, certificate_days) = match enrollment.certificate_policy {
            CertificatePolicy::Refuse => (RawPolicy::Refuse, None),
            CertificatePolicy::Ignore => (RawPolicy::Ignore, None),
            CertificatePolicy::Issue { lifetime } => (RawPolicy::Issue, Some(days(lifetime))),
        };
        let raw = Self {
            enabled: Some(enrollment.enabled),
            allocation: Some(enrollment.allocation.clone()),
            device_id: enrollment.device_id.clone(),
            payload: match &enrollment.payload {
                ReturnedPayload::None => None,
                ReturnedPayload::Echo => Some(RawPayload::Echo),
                ReturnedPayload::Fixed(json) => Some(RawPayload::Fixed(RawJson::from(json))),
            },
            reprovisioning: Some(enrollment.reprovisioning),
            substatus: enrollment.substatus.clone(),
            initial_twin: enrollment.initial_twin.as_ref().map(RawJson::from),
            iot_edge: Some(enrollment.iot_edge),
            device_information: enrollment.device_information.as_ref().map(RawJson::from),
            certificate_policy: Some(certificate_policy),
            certificate_days,
            certificate_policy_names: Some(enrollment.policy_names.clone())
                .filter(|names| *names != PolicyNames::default()),
            update: enrollment.update.as_ref().map(RawJson::from),
            hub_refusal: enrollment.hub_refusal,
            polls: behavior.polls.map(|polls| match polls {
                u32::MAX => Times::Forever,
                polls => Times::Count(polls),
            }),
            retry_after: behavior.retry_after.as_ref().and_then(fault::retry_after),
            outcome: Some(behavior.outcome.clone()),
            register: faults(&behavior.register),
            query: faults(&behavior.query),
            ..match &enrollment.members {
                Members::One(attestation) => {
                    Self { registration_id: Some(enrollment.name.clone()), ..attestation.into() }
                }
                Members::Group(attestation) => {
                    Self { group: Some(enrollment.name.clone()), ..attestation.into() }
                }
            }
        };
        match hubs.as_slice() {
            [hub] => Self { hub: Some(hub.clone()), ..raw },
            hubs => Self { hubs: Some(hubs.to_vec()), ..raw },
        }
    }
}

impl From<&Attestation> for Raw {
    fn from(attestation: &Attestation) -> Self {
        let thumbprint = |certificate: &DeviceCertificate| match certificate.to_pem() {
            None => Some(certificate.thumbprint().to_string()),
            Some(_) => None,
        };
        match attestation {
            Attestation::SymmetricKey(keys) => Self::of_keys(keys.map(SymmetricKey::expose_base64)),
            Attestation::X509(certificates) => {
                let thumbprints = certificates.map(thumbprint);
                let pems = certificates.map(DeviceCertificate::to_pem);
                Self {
                    thumbprint: thumbprints.primary,
                    certificate: pems.primary,
                    secondary_thumbprint: thumbprints.secondary.flatten(),
                    secondary_certificate: pems.secondary.flatten(),
                    ..Self::default()
                }
            }
            Attestation::Tpm { endorsement_key, storage_root_key } => {
                let storage_root_key = storage_root_key.as_ref().map(ToString::to_string);
                let endorsement_key = Some(endorsement_key.to_string());
                Self { endorsement_key, storage_root_key, ..Self::default() }
            }
        }
    }
}

impl From<&GroupAttestation> for Raw {
    fn from(attestation: &GroupAttestation) -> Self {
        match attestation {
            GroupAttestation::SymmetricKey(keys) => {
                Self::of_keys(keys.map(GroupKey::expose_base64))
            }
            GroupAttestation::X509(cas) => {
                let Pair { primary, secondary } = cas.map(CaCertificates::to_pem);
                Self { ca: Some(primary), secondary_ca: secondary, ..Self::default() }
            }
            GroupAttestation::CaReferences(Pair { primary, secondary }) => Self {
                ca_reference: Some(primary.clone()),
                secondary_ca_reference: secondary.clone(),
                ..Self::default()
            },
        }
    }
}

impl Raw {
    fn of_keys(keys: Pair<Zeroizing<String>>) -> Self {
        let Pair { primary, secondary } = keys.map(|key| key.to_string());
        Self { symmetric_key: Some(primary), secondary_key: secondary, ..Self::default() }
    }
}

impl From<&Json> for RawJson {
    /// As a table where that says all that the text does.
    fn from(json: &Json) -> Self {
        let same =
            json.read().ok().filter(|value| Json::from(serde_json::Value::clone(value)) == *json);
        let table = same.and_then(|value| toml_value("", &value).ok());
        match table {
            Some(Value::Table(table)) => Self::Table(table),
            _ => Self::Text(json.get().to_owned()),
        }
    }
}

/// Every key that an enrollment may have.
#[cfg(test)]
pub(super) fn every_key() -> Vec<String> {
    super::keys_of(Raw::default())
}

/// Whole days, rounded up.
fn days(lifetime: Duration) -> u16 {
    const DAY: u64 = 86_400;
    u16::try_from(lifetime.as_secs().div_ceil(DAY)).unwrap_or(90).clamp(1, 90)
}
