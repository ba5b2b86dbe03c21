//! What people have in files: certificates and keys as PEM or DER, or something else by mistake.

use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

use crate::{
    certificate::Certificate,
    damage,
    pem::{self, Block},
    private_key::{ENCRYPTED, TAKEN},
    shape::Shape,
};

/// Every certificate in a file's contents, in order, as DER. This is the one reader of certificates: those of the device,
/// of authorities that are trusted, and of the emulator's enrollments.
///
/// It takes DER, a single certificate then, and PEM text in whatever state people have it: with a byte-order mark, any
/// line ends or none, indented, in one line, with text around the blocks or other blocks between them, blocks joined
/// without a line end. It takes the labels `CERTIFICATE` and `X509 CERTIFICATE`, and no file without a certificate. The
/// certificates themselves are read as far as their names, dates and public key.
///
/// # Errors
/// [`Error::Configuration`] with the field `certificate` that says which block of the file can't be read, and what to do.
/// No block that is or may have been a certificate is skipped: not a damaged one, nor a `TRUSTED CERTIFICATE`, a PKCS#7
/// bundle, or a certificate under another label.
///
/// ```
/// let error = dps_client::parse_certificates(b"-----BEGIN CERTIFICATE-----\nMIIB").unwrap_err();
/// assert_eq!(error.to_string(), "certificate: block 1 (CERTIFICATE) has no END line; it was cut off");
/// ```
pub fn parse_certificates(contents: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let blocks = match read("certificate", contents)? {
        Content::Der => {
            check_certificate(WHOLE, contents)?;
            return Ok(vec![contents.to_vec()]);
        }
        Content::Pem(blocks) => blocks,
    };
    let mut found = Vec::new();
    for block in &blocks {
        match block.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => {
                check_certificate(&block.name(), &block.der)?;
                found.push(block.der.to_vec());
            }
            _ => ensure_no_certificate(block)?,
        }
    }
    if found.is_empty() {
        let has = |part: &str| blocks.iter().any(|block| block.label.contains(part));
        let advice = if has("PRIVATE KEY") {
            "was the key's file given for the certificate's?"
        } else if has("CERTIFICATE REQUEST") {
            "a request is no certificate yet; give what the authority made of it"
        } else {
            "give a certificate, as -----BEGIN CERTIFICATE-----"
        };
        return Err(none("certificate", "certificate", &blocks, advice));
    }
    Ok(found)
}

/// Checks that a block with another label is no certificate.
fn ensure_no_certificate(block: &Block) -> Result<(), Error> {
    let advice = match block.label.as_str() {
        "TRUSTED CERTIFICATE" => {
            "is in a format of OpenSSL's own, which also says what it is trusted for; convert it with `openssl x509 -in IN -out OUT`"
        }
        "PKCS7" | "PKCS #7 SIGNED DATA" => {
            "is a bundle of certificates; unpack it with `openssl pkcs7 -in IN -print_certs -out OUT`"
        }
        "CMS" => {
            "is a bundle of certificates; unpack it with `openssl cms -cmsout -noout -inform PEM -in IN -certsout OUT`"
        }
        _ if Shape::of(&block.der) == Some(Shape::Pkcs7) => {
            "holds a bundle of certificates; write PKCS7 into its BEGIN and END lines, and unpack it with `openssl pkcs7 -in IN -print_certs -out OUT`"
        }
        _ if Certificate::parse(&block.der).is_some() => {
            "holds a certificate; write CERTIFICATE into its BEGIN and END lines"
        }
        _ => return Ok(()),
    };
    let reason = format!("{} {advice}", block.name());
    Err(ConfigurationError::new("certificate", "", &reason).into())
}

/// What a file is called that holds one certificate in DER and no block.
const WHOLE: &str = "it";

/// Checks that it can be read; `which` says where it is.
pub(crate) fn check_certificate(which: &str, der: &[u8]) -> Result<Certificate, Error> {
    Certificate::parse(der).ok_or_else(|| {
        let reason = match Shape::of(der) {
            Some(Shape::Signed) => format!(
                "{which} is a certificate request, a revocation list or a damaged certificate"
            ),
            Some(shape @ (Shape::Pkcs8 | Shape::Pkcs1 | Shape::Sec1 | Shape::EncryptedPkcs8)) => {
                format!("{which} is {shape}; were the two files swapped?")
            }
            Some(shape @ Shape::Pkcs12) => format!(
                "{which} is {shape}; take the certificates out with `openssl pkcs12 -in IN -nokeys -out OUT`"
            ),
            Some(shape @ Shape::Pkcs7) => {
                let form = if which == WHOLE { "DER" } else { "PEM" };
                format!(
                    "{which} is {shape}; take the certificates out with `openssl pkcs7 -inform {form} -in IN -print_certs -out OUT`"
                )
            }
            Some(shape) => format!("{which} is {shape}"),
            None => format!("{which} is damaged, or no certificate at all"),
        };
        ConfigurationError::new("certificate", "", &reason).into()
    })
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
        "OPENSSH PRIVATE KEY" => wrong(
            "it is in a format of OpenSSH's own; rewrite a copy of it with `ssh-keygen -p -m PEM -N \"\" -f COPY`",
        ),
        other => wrong(&format!("a block {other} can't be used; {TAKEN}")),
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
        file if file.trim_ascii().is_empty() => "it is empty".to_owned(),
        file => match damage::of_file(file) {
            Some(damage) => damage.to_owned(),
            None => format!("there is no {field} in it: it is neither PEM text nor DER"),
        },
    };
    Err(ConfigurationError::new(field, "", &reason).into())
}

/// That nothing fits, with what is there instead.
fn none(field: &'static str, wanted: &str, blocks: &[Block], advice: &str) -> Error {
    let mut labels: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
    labels.dedup();
    let reason = format!("there is no {wanted} in it, only {}; {advice}", labels.join(", "));
    ConfigurationError::new(field, "", &reason).into()
}
