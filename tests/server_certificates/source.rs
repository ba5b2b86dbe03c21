//! No way to skip verification exists: not one line of the workspace's own code reaches for it, and one place makes
//! the configuration that every transport uses.

use std::{
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::Failed;

/// How rustls and reqwest let verification be replaced or switched off, and what our own way would be called.
const FORBIDDEN: &[&str] = &[
    "dangerous()",
    "danger_accept",
    "tls_danger",
    "DangerousClientConfig",
    "ServerCertVerifier",
    "ServerCertVerified",
    "with_custom_certificate_verifier",
    "set_certificate_verifier",
    "with_webpki_verifier",
    "accept_invalid",
    "insecure",
    "skip_verif",
    "no_verify",
    "verify_none",
];

/// The word by which rustls is told that a certificate or a signature is good.
const VERDICT: &str = "::assertion()";

/// The look at a handshake has a verifier of its own, which keeps what the library's has judged: it may name what it needs for
/// that, and has no verdict to give. `is_refused` holds that it takes nothing that a transport refuses.
const LOOKS: (&str, [&str; 4]) = (
    "crates/dps-connect/src/inspect.rs",
    ["dangerous()", "ServerCertVerifier", "ServerCertVerified", "set_certificate_verifier"],
);

/// Where the one configuration is made, and the one by which the emulator asks webhooks.
const TLS: [&str; 2] =
    ["crates/dps-connect/src/tls.rs", "crates/dps-emulator/src/server/webhook.rs"];

pub(crate) fn no_source_skips_verification() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = Vec::new();
    for entry in fs::read_dir(root.join("crates"))? {
        find(&entry?.path().join("src"), &mut sources)?;
    }
    if sources.len() < 50 {
        return Err(format!("only {} files were found", sources.len()).into());
    }
    let mut wrong = Vec::new();
    for path in sources {
        let name = path.strip_prefix(root)?.display().to_string();
        let source = fs::read_to_string(&path)?;
        let (looks, needs) = LOOKS;
        let needed: &[&str] = if name == looks { &needs } else { &[] };
        let found = offenses(&source, TLS.contains(&&*name), needed);
        wrong.extend(found.into_iter().map(|line| format!("{name}: {line}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The check itself can fail.
pub(crate) fn is_found() -> Result<(), Failed> {
    for line in [
        "    config.dangerous().set_certificate_verifier(Arc::new(Anything));",
        "    .tls_danger_accept_invalid_certs(true)",
        "impl rustls::client::danger::ServerCertVerifier for Anything {",
        "    #[arg(long)] insecure: bool,",
        "    let tls = ClientConfig::builder_with_provider(provider);",
        "        Ok(ServerCertVerified::assertion())",
    ] {
        let source = format!("fn f() {{\n{line}\n}}");
        let looks = line.contains(VERDICT) && offenses(&source, false, &LOOKS.1).is_empty();
        if looks || offenses(&source, false, &[]).is_empty() {
            return Err(format!("not found: {line}").into());
        }
    }
    Ok(())
}

/// The lines that must not be.
fn offenses<'a>(source: &'a str, makes_the_configuration: bool, needed: &[&str]) -> Vec<&'a str> {
    let is_offense = |line: &&str| {
        let code = line.split("//").next().unwrap_or_default();
        FORBIDDEN.iter().any(|word| code.contains(word) && !needed.contains(word))
            || (!needed.is_empty() && code.contains(VERDICT))
            || (code.contains("ClientConfig::builder") && !makes_the_configuration)
    };
    source.lines().filter(is_offense).collect()
}

fn find(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<(), Failed> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}
