//! The peers' certificates, made with openssl so that nobody trusts our own code about them.

use std::path::{Path, PathBuf};

use crate::process::{Cmd, Result};

/// A device that its group knows and one that nobody knows.
pub(super) struct Certificates {
    /// What the emulator's group trusts.
    pub(super) root: PathBuf,
    pub(super) device: Identity,
    pub(super) stranger: Identity,
}

/// A certificate with the authority between it and its root, and its key.
pub(super) struct Identity {
    pub(super) common_name: &'static str,
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

/// Makes them anew in the folder.
pub(super) fn make(folder: &Path) -> Result<Certificates> {
    let (root, device) = family(folder, "known", "peer-by-certificate")?;
    let (_, stranger) = family(folder, "foreign", "peer-by-foreign-certificate")?;
    Ok(Certificates { root, device, stranger })
}

/// A root, an authority below it, a device below that.
fn family(folder: &Path, family: &str, device: &'static str) -> Result<(PathBuf, Identity)> {
    let root = format!("{family}-root");
    let authority = format!("{family}-authority");
    certificate(folder, &root, "authority", None)?;
    certificate(folder, &authority, "authority", Some(&root))?;
    certificate(folder, device, "device", Some(&authority))?;
    let chain = folder.join(format!("{device}-chain.pem"));
    let pem = |name: &str| std::fs::read_to_string(folder.join(format!("{name}.pem")));
    std::fs::write(&chain, pem(device)? + &pem(&authority)?)?;
    let key = folder.join(format!("{device}.key"));
    Ok((folder.join(format!("{root}.pem")), Identity { common_name: device, chain, key }))
}

/// `name.pem` and `name.key`, signed by the issuer or by itself.
fn certificate(folder: &Path, name: &str, kind: &str, issuer: Option<&str>) -> Result {
    let config = std::env::current_dir()?.join("tests/peers/openssl.cnf");
    let file = |name: &str, ending: &str| folder.join(format!("{name}.{ending}"));
    let key = file(name, "key");
    let request = file(name, "csr");
    // RSA for devices and P-256 for authorities, so that both are seen.
    let kind_of_key: &[&str] = match kind {
        "device" => &["-newkey", "rsa:2048"],
        _ => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    };
    Cmd::new("openssl")
        .args(["req", "-nodes", "-subj", &format!("/CN={name}")])
        .args(kind_of_key)
        .args(["-config".as_ref(), config.as_os_str()])
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), request.as_os_str()])
        .run_quietly()?;
    let signer = match issuer {
        None => vec!["-signkey".into(), key],
        Some(issuer) => vec![
            "-CA".into(),
            file(issuer, "pem"),
            "-CAkey".into(),
            file(issuer, "key"),
            "-CAcreateserial".into(),
        ],
    };
    Cmd::new("openssl")
        .args(["x509", "-req", "-days", "2", "-sha256", "-extensions", kind])
        .args(["-extfile".as_ref(), config.as_os_str()])
        .args(signer)
        .args(["-in".as_ref(), request.as_os_str()])
        .args(["-out".as_ref(), file(name, "pem").as_os_str()])
        .run_quietly()
}
