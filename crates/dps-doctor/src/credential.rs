//! The credential, without the network.

use std::path::Path;

use dps_attestation::internal::RSA;
use dps_client::{Attestation, Config, Error, ErrorKind, Progress, RegistrationId, X509Identity};
use rustls::SignatureScheme;
use tokio::time::timeout;

use crate::{
    check::{CERTIFICATE, CHAIN_END, COMMON_NAME, CREDENTIAL, KEY, PERMISSIONS},
    finding::Chart,
    settings::is_x509,
    subject::{Subject, in_words},
};

/// What a key on a curve can sign with in TLS.
const CURVES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
];

pub(crate) async fn examine(subject: &Subject, chart: &mut Chart<'_>) {
    permissions(&subject.key_files, chart);
    let credential = match &subject.credential {
        Ok(credential) => credential,
        Err(error) => return chart.fail_by(&CREDENTIAL, error, None),
    };
    chart.ok(&CREDENTIAL, describe(credential, subject));
    match credential.x509() {
        Some(identity) => certificate(&identity, subject, chart),
        None => {
            for check in [&COMMON_NAME, &CERTIFICATE, &CHAIN_END] {
                chart.skip(check, "the credential is no certificate");
            }
        }
    }
    let signed = timeout(subject.limits.step, signs(credential, subject)).await;
    match signed {
        Ok(Ok(seen)) => chart.ok(&KEY, seen),
        Ok(Err(error)) => {
            let advice =
                "see that the TPM or the token is there and unlocked; --key names another key";
            chart.fail_by(&KEY, &error, Some(advice));
        }
        Err(_) => {
            let seen = format!("no signature within {}", in_words(subject.limits.step));
            let advice = "look at the TPM or the token, and at what else uses it";
            chart.fail(&KEY, ErrorKind::Credential, seen, advice);
        }
    }
}

fn describe(credential: &Attestation, subject: &Subject) -> String {
    match credential {
        _ if subject.group_key.is_some() => "a key that is derived from a group's".to_owned(),
        Attestation::SymmetricKey(_) | Attestation::SymmetricKeyFile(_) => {
            "a symmetric key".to_owned()
        }
        Attestation::X509(identity) => identity.describe_chain(),
        Attestation::X509Files(files) => files.in_use().describe_chain(),
        _ if credential.tpm().is_some() => "a TPM".to_owned(),
        _ => "a key outside of this program".to_owned(),
    }
}

fn permissions(files: &[impl AsRef<Path>], chart: &mut Chart<'_>) {
    let open: Vec<String> = files
        .iter()
        .map(AsRef::as_ref)
        .filter(|file| is_open(file))
        .map(|file| file.display().to_string())
        .collect();
    match open.as_slice() {
        _ if files.is_empty() => chart.skip(&PERMISSIONS, "no key is in a file"),
        _ if cfg!(not(unix)) => chart.skip(&PERMISSIONS, "this system has other permissions"),
        [] => chart.ok(&PERMISSIONS, "for their owner only"),
        open => {
            let open = open.join(", ");
            let advice = format!("chmod 600 {open}");
            chart.warn(&PERMISSIONS, format!("others than their owner can read {open}"), &advice);
        }
    }
}

#[cfg(unix)]
fn is_open(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path) -> bool {
    false
}

fn certificate(identity: &X509Identity, subject: &Subject, chart: &mut Chart<'_>) {
    let now = (subject.clock)();
    let Some(name) = identity.common_name() else {
        let advice = "have a certificate issued whose common name is the registration id";
        return chart.fail(&COMMON_NAME, ErrorKind::Configuration, "it has no common name", advice);
    };
    match &subject.registration_id {
        Ok(id) if !id.as_str().eq_ignore_ascii_case(name) => {
            let seen = format!("it is {name:?}, and the registration id {:?}", id.as_str());
            let advice = format!("--registration-id {name}, or another certificate");
            chart.fail(&COMMON_NAME, ErrorKind::Configuration, seen, &advice);
        }
        Ok(_) => chart.ok(&COMMON_NAME, format!("{name:?}")),
        Err(_) => chart.skip(&COMMON_NAME, "there is no registration id to compare it with"),
    }
    // The common name has been judged: here it is the order and the dates.
    let own: Result<RegistrationId, Error> = name.parse();
    match own.and_then(|own| identity.preflight(&own, now)) {
        Ok(()) => chart.ok(&CERTIFICATE, identity.describe_chain()),
        Err(error) => {
            return chart.fail_by(&CERTIFICATE, &error, Some("--cert and --key name the files"));
        }
    }
    match identity.doubtful_end(now) {
        Some(doubt) => chart.warn(
            &CHAIN_END,
            doubt,
            "if the service refuses the device, verify a current certificate of that authority there",
        ),
        None => chart.ok(&CHAIN_END, "in date"),
    }
}

/// Has the key sign something, or asks the TPM for its keys.
async fn signs(credential: &Attestation, subject: &Subject) -> Result<&'static str, Error> {
    if let Some(tpm) = credential.tpm() {
        tpm.keys().await?;
        return Ok("the TPM answers");
    }
    if let Some(identity) = credential.x509().filter(|_| is_x509(credential)) {
        let certified = identity.certified_key();
        let Some(signer) = certified.key.choose_scheme(&[&CURVES, RSA].concat()) else {
            return Err(dps_client::CredentialError::new(
                "the key makes no signature that TLS has",
            )
            .into());
        };
        let signature = signer.sign(b"dps doctor");
        return signature.map(|_| "it signs").map_err(|error| {
            let known = find_credential(&error);
            known.unwrap_or_else(|| {
                dps_client::CredentialError::new(format!("the key did not sign: {error}")).into()
            })
        });
    }
    let id_scope = subject.id_scope.clone().or_else(|_| "0ne".parse())?;
    let id = subject.registration_id.clone().or_else(|_| "doctor".parse())?;
    let config = Config::new(id_scope, credential.clone());
    config.sas_token(&id, &Progress::default()).await.map(|_| "it signs")
}

/// What a key outside of the process says of itself.
fn find_credential(error: &rustls::Error) -> Option<Error> {
    use dps_connect::internal::failure::find;
    find::<dps_client::CredentialError>(error).map(|error| error.clone().into())
}
