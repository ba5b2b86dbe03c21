//! What people have in files: certificates and keys as PEM or DER, or something else by mistake.

use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

use crate::{
    pem::{self, Block},
    private_key::ENCRYPTED,
};

/// Every certificate in the file, in order, as DER.
pub(crate) fn certificates(file: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let blocks = match read("certificate", file)? {
        Content::Der => return Ok(vec![file.to_vec()]),
        Content::Pem(blocks) => blocks,
    };
    let is_certificate =
        |block: &&Block| matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE");
    let found: Vec<_> =
        blocks.iter().filter(is_certificate).map(|block| block.der.to_vec()).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let has = |part: &str| blocks.iter().any(|block| block.label.contains(part));
    let advice = if has("PRIVATE KEY") {
        "was the key's file given for the certificate's?"
    } else if has("CERTIFICATE REQUEST") {
        "a request is no certificate yet; give what the authority made of it"
    } else if has("TRUSTED CERTIFICATE") {
        "that is a format of OpenSSL's own; convert it with `openssl x509`"
    } else if has("PKCS7") || has("CMS") {
        "unpack it with `openssl pkcs7 -print_certs`"
    } else {
        "give the device's certificate, followed by its chain"
    };
    Err(none("certificate", "certificate", &blocks, advice))
}

/// The one private key in the file, as DER.
pub(crate) fn private_key(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let blocks = match read("private key", file)? {
        Content::Der => return Ok(Zeroizing::new(file.to_vec())),
        Content::Pem(blocks) => blocks,
    };
    let mut keys = blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY"));
    let Some(key) = keys.next() else {
        let advice = if blocks.iter().any(|block| block.label.contains("CERTIFICATE")) {
            "was the certificate's file given for the key's?"
        } else {
            "give the private key that belongs to the certificate"
        };
        return Err(none("private key", "private key", &blocks, advice));
    };
    let wrong = |reason: &str| Err(ConfigurationError::new("private key", "", reason).into());
    if keys.next().is_some() {
        return wrong("there is more than one in the file; leave only the one of the certificate");
    }
    match key.label.as_str() {
        _ if key.encrypted => wrong(ENCRYPTED),
        "ENCRYPTED PRIVATE KEY" => wrong(ENCRYPTED),
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Ok(key.der.clone()),
        other => wrong(&format!(
            "a block {other} can't be used; convert it to PKCS#8 with `openssl pkcs8 -topk8 -nocrypt`"
        )),
    }
}

enum Content {
    Pem(Vec<Block>),
    /// Perhaps: it starts like DER.
    Der,
}

fn read(field: &'static str, file: &[u8]) -> Result<Content, Error> {
    if pem::is_pem(file) {
        return pem::blocks(field, file).map(Content::Pem);
    }
    let reason = match file {
        [0x30, ..] => return Ok(Content::Der),
        file if file.trim_ascii().is_empty() => "it is empty",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16 text; save it as UTF-8",
        _ => "it is neither PEM text nor DER",
    };
    Err(ConfigurationError::new(field, "", reason).into())
}

/// That nothing fits, with what is there instead.
fn none(field: &'static str, wanted: &str, blocks: &[Block], advice: &str) -> Error {
    let mut labels: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
    labels.dedup();
    let reason = format!("there is no {wanted} in it, only {}; {advice}", labels.join(", "));
    ConfigurationError::new(field, "", &reason).into()
}
