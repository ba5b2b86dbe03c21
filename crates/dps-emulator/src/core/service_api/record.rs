//! Enrollments as the service's records have them.
//! See <https://learn.microsoft.com/rest/api/iot-dps/service/individual-enrollment/create-or-update>.

use std::{collections::BTreeMap, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_attestation::{Error, GroupKey, RegistrationId, SymmetricKey};
use dps_state_machine::Json;
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{certificate_policy, fields::Fields};
use crate::{
    config_error::ConfigError,
    core::{
        clock,
        service::{Guids, Instance, Kind, ServiceError, Stored, certificate_info},
    },
    enrollment::{
        Allocation, Attestation, Enrollment, GroupAttestation, Members, Pair, Reprovisioning,
        WEBHOOK_URL, is_webhook,
    },
    hub::{check_device_id, check_hub},
    keys::{CaCertificates, DeviceCertificate, Thumbprint, pem},
    tpm::TpmKeyError,
};

/// What names an enrollment in its record.
pub(super) fn id_field(kind: Kind) -> &'static str {
    match kind {
        Kind::Individual => "registrationId",
        Kind::Group => "enrollmentGroupId",
    }
}

/// The id of a record, which is also in the path where it has one.
pub(super) fn read_id(
    fields: &mut Fields,
    kind: Kind,
    in_path: Option<&str>,
) -> Result<String, ServiceError> {
    let field = id_field(kind);
    let id: String = fields.need(field)?;
    // Groups are named by the same rules as devices.
    id.parse::<RegistrationId>().map_err(|error| fields.wrong(field, &reason(error)))?;
    if in_path.is_some_and(|in_path| !in_path.eq_ignore_ascii_case(&id)) {
        return Err(fields.wrong(field, "it is another than the one in the path"));
    }
    Ok(id)
}

/// Reads what a record has beside its id. What the emulator has of an enrollment and the service has not, like its
/// behavior, is that of the former one; so are keys and certificates that are left out.
pub(super) fn read(
    mut fields: Fields,
    kind: Kind,
    id: &str,
    former: Option<&Enrollment>,
    instance: &Instance,
    guids: &mut Guids,
) -> Result<Enrollment, ServiceError> {
    for read_only in ["etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"] {
        fields.ignore(read_only);
    }
    let former_members = former.map(|former| &former.members);
    let members = fields.need_within("attestation", |it| {
        let members = match kind {
            Kind::Individual => Members::One(individual(it, former_members, guids)?),
            Kind::Group => Members::Group(group(it, former_members, instance, guids)?),
        };
        match ["symmetricKey", "x509", "tpm"].into_iter().find(|name| it.has(name)) {
            Some(other) => Err(it.wrong(other, "the type is another one")),
            None => Ok(members),
        }
    })?;
    let mut enrollment = match former {
        Some(former) => Enrollment { members, ..former.clone() },
        None => Enrollment::new(id.to_owned(), members),
    };
    if kind == Kind::Individual {
        fields.ignore("registrationState");
        enrollment.device_id = fields.take("deviceId")?;
        if let Some(id) = &enrollment.device_id {
            check_device_id(id).map_err(|reason| fields.wrong("deviceId", reason))?;
        }
        let information: Option<Map<_, _>> = fields.take("optionalDeviceInformation")?;
        enrollment.device_information = information.map(|it| Value::Object(it).into());
    }
    let capabilities = fields.within("capabilities", |it| it.take("iotEdge"))?;
    enrollment.iot_edge = capabilities.flatten().unwrap_or_default();
    enrollment.initial_twin = fields.within("initialTwin", initial_twin)?;
    let words = [("enabled", true), ("disabled", false)];
    enrollment.enabled = word(&mut fields, "provisioningStatus", &words)?.unwrap_or(true);
    let policy = fields.within("reprovisionPolicy", reprovisioning)?;
    enrollment.reprovisioning = policy.unwrap_or_default();
    let hub: Option<String> = fields.take("iotHubHostName")?;
    let hubs: Option<Vec<String>> = fields.take("iotHubs")?;
    let one = hub.is_some();
    let hubs = hubs.filter(|hubs| !hubs.is_empty());
    if let (Some(hub), Some(hubs)) = (&hub, &hubs)
        && !matches!(hubs.as_slice(), [only] if only.eq_ignore_ascii_case(hub))
    {
        return Err(fields.wrong("iotHubHostName", "iotHubs has others; leave out one of the two"));
    }
    let field = if hubs.is_some() { "iotHubs" } else { "iotHubHostName" };
    enrollment.hubs = hubs.or(hub.map(|hub| vec![hub])).unwrap_or(instance.linked_hubs.clone());
    for hub in &enrollment.hubs {
        check_hub(hub).map_err(|reason| fields.wrong(field, reason))?;
    }
    enrollment.allocation = allocation(&mut fields, one)?;
    (enrollment.certificate_policy, enrollment.policy_names) =
        certificate_policy::read(&mut fields, former)?;
    fields.end()?;
    Ok(enrollment)
}

fn individual(
    fields: &mut Fields,
    former: Option<&Members>,
    guids: &mut Guids,
) -> Result<Attestation, ServiceError> {
    Ok(match attestation_type(fields)? {
        Type::SymmetricKey => {
            let former = match former {
                Some(Members::One(Attestation::SymmetricKey(keys))) => Some(keys),
                _ => None,
            };
            Attestation::SymmetricKey(keys(fields, former, guids)?)
        }
        Type::X509 => {
            let former = match former {
                Some(Members::One(Attestation::X509(certificates))) => Some(certificates),
                _ => None,
            };
            let certificates = |it: &mut Fields| pair(it, former, certificate);
            Attestation::X509(
                fields.need_within("x509", |x509| {
                    x509.need_within("clientCertificates", certificates)
                })?,
            )
        }
        Type::Tpm => fields.need_within("tpm", |tpm| {
            let reason = |error: TpmKeyError| error.to_string();
            let endorsement_key = tpm.parsed("endorsementKey", reason)?;
            Ok(Attestation::Tpm {
                endorsement_key: tpm.required("endorsementKey", endorsement_key)?,
                storage_root_key: tpm.parsed("storageRootKey", reason)?,
            })
        })?,
    })
}

fn group(
    fields: &mut Fields,
    former: Option<&Members>,
    instance: &Instance,
    guids: &mut Guids,
) -> Result<GroupAttestation, ServiceError> {
    Ok(match attestation_type(fields)? {
        Type::SymmetricKey => {
            let former = match former {
                Some(Members::Group(GroupAttestation::SymmetricKey(keys))) => Some(keys),
                _ => None,
            };
            GroupAttestation::SymmetricKey(keys(fields, former, guids)?)
        }
        Type::X509 => {
            let former = match former {
                Some(Members::Group(GroupAttestation::X509(cas))) => Some(cas),
                _ => None,
            };
            fields.need_within("x509", |x509| {
                let cas = x509.within("signingCertificates", |it| pair(it, former, ca))?;
                let known = |it: &mut Fields, name: &str, _: Option<&_>| {
                    let reference: Option<String> = it.take(name)?;
                    match reference {
                        Some(unknown) if !instance.verified_cas.contains_key(&unknown) => {
                            Err(it.wrong(name, "there is no CA certificate of this name"))
                        }
                        reference => Ok(reference),
                    }
                };
                let references = x509.within("caReferences", |it| pair(it, None, known))?;
                match (cas, references) {
                    (Some(cas), None) => Ok(GroupAttestation::X509(cas)),
                    (None, Some(references)) => Ok(GroupAttestation::CaReferences(references)),
                    _ => {
                        let reason = "give this or caReferences, one of them";
                        Err(x509.wrong("signingCertificates", reason))
                    }
                }
            })?
        }
        Type::Tpm => return Err(fields.wrong("type", "a group has no tpm attestation")),
    })
}

/// The primary and the secondary one of two, the first of which must be there.
fn pair<T>(
    fields: &mut Fields,
    former: Option<&Pair<T>>,
    read: impl Fn(&mut Fields, &str, Option<&T>) -> Result<Option<T>, ServiceError>,
) -> Result<Pair<T>, ServiceError> {
    let primary = read(fields, "primary", former.map(|former| &former.primary))?;
    let primary = fields.required("primary", primary)?;
    let secondary = former.and_then(|former| former.secondary.as_ref());
    Ok(Pair { primary, secondary: read(fields, "secondary", secondary)? })
}

enum Type {
    SymmetricKey,
    X509,
    Tpm,
}

fn attestation_type(fields: &mut Fields) -> Result<Type, ServiceError> {
    let given: String = fields.need("type")?;
    match given.to_ascii_lowercase().as_str() {
        "symmetrickey" => Ok(Type::SymmetricKey),
        "x509" => Ok(Type::X509),
        "tpm" => Ok(Type::Tpm),
        _ => Err(fields.wrong("type", "it must be symmetricKey, x509 or tpm")),
    }
}

/// The primary and the secondary key: as given, as before, or fresh ones.
fn keys<K: Clone + FromStr<Err = Error>>(
    fields: &mut Fields,
    former: Option<&Pair<K>>,
    guids: &mut Guids,
) -> Result<Pair<K>, ServiceError> {
    let given = fields.within("symmetricKey", |it| {
        Ok([it.parsed("primaryKey", reason)?, it.parsed("secondaryKey", reason)?])
    })?;
    let [primary, secondary] = given.unwrap_or([None, None]);
    let mut or_fresh = |key: Option<K>| key.map_or_else(|| fresh_key(guids), Ok);
    let primary = or_fresh(primary.or(former.map(|former| former.primary.clone())))?;
    let secondary = or_fresh(secondary.or(former.and_then(|former| former.secondary.clone())))?;
    Ok(Pair { primary, secondary: Some(secondary) })
}

/// A key of 64 bytes, as those that the service makes.
fn fresh_key<K: FromStr<Err = Error>>(guids: &mut Guids) -> Result<K, ServiceError> {
    let halves = Zeroizing::new([guids.next_key(), guids.next_key()].map(|half| *half).concat());
    let text = Zeroizing::new(STANDARD.encode(&*halves));
    text.parse().map_err(|_| ServiceError::INTERNAL)
}

/// A certificate and what the service tells of it; without the one, the other says which is meant.
fn certificate(
    fields: &mut Fields,
    name: &str,
    former: Option<&DeviceCertificate>,
) -> Result<Option<DeviceCertificate>, ServiceError> {
    fields.within(name, |given| match certificate_fields(given)? {
        (Some(pem), _) => {
            let read = DeviceCertificate::from_pem(&pem);
            read.map_err(|error| given.wrong("certificate", error.reason()))
        }
        (None, Some(thumbprint)) => Ok(match former {
            Some(former) if former.thumbprint() == thumbprint => former.clone(),
            _ => thumbprint.into(),
        }),
        (None, None) => Err(given.wrong("certificate", "it is missing")),
    })
}

fn ca(
    fields: &mut Fields,
    name: &str,
    former: Option<&CaCertificates>,
) -> Result<Option<CaCertificates>, ServiceError> {
    fields.within(name, |given| {
        let (pem, thumbprint) = certificate_fields(given)?;
        let is_former = |former: &&CaCertificates| {
            former.0.first().map(|der| Thumbprint::of_der(der)) == thumbprint
        };
        match (pem, former.filter(is_former)) {
            (Some(pem), _) => {
                let read = CaCertificates::from_pem(&pem);
                read.map_err(|error| given.wrong("certificate", error.reason()))
            }
            (None, Some(former)) => Ok(former.clone()),
            (None, None) => Err(given.wrong("certificate", "it is missing")),
        }
    })
}

/// The certificate as PEM, which may come as base64 without the lines around it, and the thumbprint that stands beside it.
fn certificate_fields(
    fields: &mut Fields,
) -> Result<(Option<String>, Option<Thumbprint>), ServiceError> {
    let text: Option<String> = fields.take("certificate")?;
    let text = text.filter(|text| !text.is_empty()).map(|text| {
        let base64: String = text.split_ascii_whitespace().collect();
        STANDARD.decode(base64).map_or(text, |der| pem(&der))
    });
    let info: Option<Map<String, Value>> = fields.take("info")?;
    let thumbprint = info.as_ref().and_then(|info| info.get("sha256Thumbprint")?.as_str());
    let thumbprint = thumbprint.map(str::parse).transpose();
    let thumbprint = thumbprint
        .map_err(|error: ConfigError| fields.wrong("info.sha256Thumbprint", error.reason()))?;
    Ok((text, thumbprint))
}

fn initial_twin(fields: &mut Fields) -> Result<Json, ServiceError> {
    let mut twin = Map::new();
    if let Some(tags) = fields.take::<Map<_, _>>("tags")? {
        twin.insert("tags".to_owned(), Value::Object(tags));
    }
    let desired = fields.within("properties", |it| it.take::<Map<_, _>>("desired"))?.flatten();
    twin.extend(desired.map(|desired| ("properties".to_owned(), json!({ "desired": desired }))));
    Ok(Value::Object(twin).into())
}

fn reprovisioning(fields: &mut Fields) -> Result<Reprovisioning, ServiceError> {
    let update: Option<bool> = fields.take("updateHubAssignment")?;
    let migrate: Option<bool> = fields.take("migrateDeviceData")?;
    Ok(match (update.unwrap_or(true), migrate.unwrap_or(true)) {
        (true, true) => Reprovisioning::MigrateData,
        (true, false) => Reprovisioning::ResetData,
        (false, _) => Reprovisioning::Never,
    })
}

/// `one` says whether one hub was given by its name, which alone makes the allocation static.
fn allocation(fields: &mut Fields, one: bool) -> Result<Allocation, ServiceError> {
    let definition = fields.object("customAllocationDefinition")?;
    let words = [("hashed", 0), ("static", 1), ("geolatency", 2), ("custom", 3)];
    let policy = word(fields, "allocationPolicy", &words)?;
    Ok(match policy {
        None if one => Allocation::Static,
        None | Some(0) => Allocation::Evenly,
        Some(1) => Allocation::Static,
        Some(2) => Allocation::GeoLatency,
        Some(_) => {
            let mut definition = fields.required("customAllocationDefinition", definition)?;
            let webhook: String = definition.need("webhookUrl")?;
            if !is_webhook(&webhook) {
                return Err(definition.wrong("webhookUrl", WEBHOOK_URL));
            }
            let api_version = definition.need("apiVersion")?;
            definition.end()?;
            Allocation::Custom { webhook, api_version }
        }
    })
}

/// One of some words, whose case does not count.
fn word<T: Copy>(
    fields: &mut Fields,
    name: &str,
    words: &[(&str, T)],
) -> Result<Option<T>, ServiceError> {
    let Some(given) = fields.take::<String>(name)? else { return Ok(None) };
    match words.iter().find(|(word, _)| given.eq_ignore_ascii_case(word)) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            Err(fields.wrong(name, &format!("it must be one of {}", words.join(", "))))
        }
    }
}

/// The reason alone: the value may be a secret.
fn reason(error: Error) -> String {
    match error {
        Error::Configuration(error) => error.reason,
        error => error.to_string(),
    }
}

/// Whether symmetric keys are written: the service tells them of a record that was just made or changed, and by the
/// attestation mechanism; not when a record is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    Shown,
    Hidden,
}

/// The record of an enrollment.
pub(crate) fn write(stored: &Stored, keys: Keys, registration: Option<Value>) -> Value {
    let Stored { enrollment, .. } = stored;
    let mut record = BTreeMap::new();
    let mut set = |name: &'static str, value: Value| {
        if !value.is_null() {
            record.insert(name, value);
        }
    };
    let kind = if enrollment.is_group() { Kind::Group } else { Kind::Individual };
    set(id_field(kind), json!(enrollment.name));
    set("attestation", mechanism(enrollment, keys));
    set("capabilities", json!({ "iotEdge": enrollment.iot_edge }));
    set("deviceId", json!(enrollment.device_id));
    set("optionalDeviceInformation", json!(enrollment.device_information));
    set("initialTwin", json!(enrollment.initial_twin));
    set("registrationState", json!(registration));
    set("provisioningStatus", json!(if enrollment.enabled { "enabled" } else { "disabled" }));
    let (update, migrate) = match enrollment.reprovisioning {
        Reprovisioning::MigrateData => (true, true),
        Reprovisioning::ResetData => (true, false),
        Reprovisioning::Never => (false, false),
    };
    let policy = json!({ "updateHubAssignment": update, "migrateDeviceData": migrate });
    set("reprovisionPolicy", policy);
    set("iotHubs", json!(enrollment.hubs));
    if let ([hub], Allocation::Static) = (enrollment.hubs.as_slice(), &enrollment.allocation) {
        set("iotHubHostName", json!(hub));
    }
    let policy = match &enrollment.allocation {
        Allocation::Evenly | Allocation::EachRun => "hashed",
        Allocation::Static => "static",
        Allocation::GeoLatency => "geoLatency",
        Allocation::Custom { webhook, api_version } => {
            let definition = json!({ "webhookUrl": webhook, "apiVersion": api_version });
            set("customAllocationDefinition", definition);
            "custom"
        }
    };
    set("allocationPolicy", json!(policy));
    certificate_policy::write(&enrollment.policy_names).for_each(|(name, value)| set(name, value));
    set("etag", json!(stored.etag));
    set("createdDateTimeUtc", json!(clock::rfc3339(stored.created)));
    set("lastUpdatedDateTimeUtc", json!(clock::rfc3339(stored.updated)));
    json!(record)
}

/// The attestation of a record.
pub(super) fn mechanism(enrollment: &Enrollment, keys: Keys) -> Value {
    let symmetric = |pair: Pair<Zeroizing<String>>| {
        let keys = match keys {
            Keys::Hidden => json!({}),
            Keys::Shown => json!({
                "primaryKey": *pair.primary,
                "secondaryKey": pair.secondary.as_ref().map(|key| key.as_str()),
            }),
        };
        json!({ "type": "symmetricKey", "symmetricKey": keys })
    };
    let x509 = |name: &str, Pair { primary, secondary }: Pair<Value>| {
        let secondary = secondary.map(|secondary| ("secondary", secondary));
        let both: BTreeMap<_, _> = [("primary", primary)].into_iter().chain(secondary).collect();
        json!({ "type": "x509", "x509": BTreeMap::from([(name, both)]) })
    };
    match &enrollment.members {
        Members::One(Attestation::SymmetricKey(keys)) => {
            symmetric(keys.map(SymmetricKey::expose_base64))
        }
        Members::Group(GroupAttestation::SymmetricKey(keys)) => {
            symmetric(keys.map(GroupKey::expose_base64))
        }
        Members::One(Attestation::X509(certificates)) => {
            let shown = |certificate: &DeviceCertificate| {
                let thumbprint =
                    json!({ "sha256Thumbprint": certificate.thumbprint().to_string() });
                with_info(certificate.to_pem(), certificate.der(), thumbprint)
            };
            x509("clientCertificates", certificates.map(shown))
        }
        Members::Group(GroupAttestation::X509(cas)) => {
            let shown = |ca: &CaCertificates| with_info(Some(ca.to_pem()), ca.0.first(), json!({}));
            x509("signingCertificates", cas.map(shown))
        }
        Members::Group(GroupAttestation::CaReferences(names)) => {
            x509("caReferences", names.map(|name| json!(name)))
        }
        Members::One(Attestation::Tpm { endorsement_key, storage_root_key }) => {
            let keys = [
                ("endorsementKey", Some(endorsement_key)),
                ("storageRootKey", storage_root_key.as_ref()),
            ];
            let keys = keys.into_iter().filter_map(|(name, key)| Some((name, key?.to_string())));
            json!({ "type": "tpm", "tpm": keys.collect::<BTreeMap<_, _>>() })
        }
    }
}

fn with_info(pem: Option<String>, der: Option<&CertificateDer<'_>>, otherwise: Value) -> Value {
    json!({ "certificate": pem, "info": der.map_or(otherwise, certificate_info) })
}
