//! The advice in a message works: the command in it is run on the very file that was refused, and the reader takes what
//! comes of it.

use std::{fs, path::Path, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::X509Identity;

const CERTIFICATE: &str = include_str!("../../crates/dps-attestation/tests/data/rsa2048.cert.pem");
const KEY: &str = include_str!("../../crates/dps-attestation/tests/data/rsa2048.pkcs8.pem");
const BUNDLE: &str = include_str!("../../crates/dps-attestation/tests/data/rsa2048.p7b.pem");
const P256_CERTIFICATE: &str =
    include_str!("../../crates/dps-attestation/tests/data/p256.cert.pem");

/// The password of what is encrypted. Openssl asks a person for it.
const PASSWORD: &str = "-passin pass:secret";

/// Makes a file by a script of the shell, in a folder with `cert.pem` and `key.pem`.
fn made(folder: &Path, script: &str) -> Vec<u8> {
    fs::write(folder.join("cert.pem"), CERTIFICATE).unwrap();
    fs::write(folder.join("key.pem"), KEY).unwrap();
    sh(folder, script);
    fs::read(folder.join("made")).unwrap()
}

fn sh(folder: &Path, script: &str) {
    let ended = Command::new("sh").args(["-e", "-c", script]).current_dir(folder).output().unwrap();
    assert!(
        ended.status.success(),
        "`{script}`: {} {}(Debian packages: openssl, openssh-client)",
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    );
}

/// Runs the command between the backticks of a message, and gives what it wrote.
fn followed(folder: &Path, message: &str, refused: &[u8]) -> Vec<u8> {
    let command = message.split('`').nth(1).unwrap_or_default();
    assert!(!command.is_empty(), "no command in {message}");
    for (name, content) in [("IN", refused), ("COPY", refused), ("OUT", b"")] {
        let file = folder.join(name);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let asks = command.contains("openssl pkcs12") || command.contains("openssl pkey");
    sh(folder, &if asks { format!("{command} {PASSWORD}") } else { command.to_owned() });
    fs::read(folder.join(if command.contains("COPY") { "COPY" } else { "OUT" })).unwrap()
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("advice-{name}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn labelled(label: &str) -> Vec<u8> {
    BUNDLE.replace("PKCS7", label).into_bytes()
}

#[test]
fn advice_about_a_certificate_works() {
    let folder = folder("certificate");
    let utf16 =
        |text: &str, to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<_>>();
    let pkcs12 =
        "openssl pkcs12 -export -in cert.pem -inkey key.pem -passout pass:secret -out made";
    for refused in [
        made(&folder, "openssl x509 -in cert.pem -trustout -addtrust clientAuth -out made"),
        made(&folder, "openssl crl2pkcs7 -nocrl -certfile cert.pem -out made"),
        made(&folder, "openssl crl2pkcs7 -nocrl -certfile cert.pem -outform DER -out made"),
        made(&folder, pkcs12),
        labelled("PKCS7"),
        labelled("PKCS #7 SIGNED DATA"),
        labelled("CMS"),
        labelled("CERTIFICATE"),
        CERTIFICATE.replace('\n', "\\n").into_bytes(),
        CERTIFICATE.replace('\n', "\\r\\n").into_bytes(),
        STANDARD.encode(CERTIFICATE).into_bytes(),
        made(&folder, "base64 cert.pem > made"),
        utf16(&format!("\u{feff}{CERTIFICATE}"), u16::to_le_bytes),
        utf16(&format!("\u{feff}{CERTIFICATE}"), u16::to_be_bytes),
        utf16(CERTIFICATE, u16::to_le_bytes),
        utf16(CERTIFICATE, u16::to_be_bytes),
    ] {
        let message = X509Identity::from_pem(&refused, KEY.as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with("certificate: "), "{message}");
        let file = followed(&folder, &message, &refused);
        let identity = X509Identity::from_pem(&file, KEY.as_bytes());
        assert_eq!(
            identity.map(|i| i.chain().len()).map_err(|e| e.to_string()),
            Ok(1),
            "{message}"
        );
    }
}

#[test]
fn advice_about_a_key_works() {
    let folder = folder("key");
    let ssh = "cp key.pem made; chmod 600 made; ssh-keygen -q -p -N '' -P '' -f made";
    let encrypt = "openssl pkcs8 -topk8 -in key.pem -passout pass:secret -out made";
    for refused in [
        made(&folder, ssh),
        made(&folder, encrypt),
        made(&folder, &format!("{encrypt} -outform DER")),
        made(
            &folder,
            "openssl rsa -in key.pem -traditional -aes128 -passout pass:secret -out made",
        ),
        made(
            &folder,
            "openssl pkcs12 -export -in cert.pem -inkey key.pem -passout pass:secret -out made",
        ),
        KEY.replace('\n', "\\n").into_bytes(),
        STANDARD.encode(KEY).into_bytes(),
    ] {
        let message =
            X509Identity::from_pem(CERTIFICATE.as_bytes(), &refused).unwrap_err().to_string();
        assert!(message.starts_with("private key: "), "{message}");
        let file = followed(&folder, &message, &refused);
        let identity = X509Identity::from_pem(CERTIFICATE.as_bytes(), &file);
        assert!(identity.is_ok(), "{message}: {}", identity.unwrap_err());
    }
}

#[test]
fn advice_about_a_curve_that_is_written_out_works() {
    let folder = folder("curve");
    let refused = include_bytes!("../../crates/dps-attestation/tests/data/p256-explicit.sec1.pem");
    let certificate = P256_CERTIFICATE.as_bytes();
    let message = X509Identity::from_pem(certificate, refused).unwrap_err().to_string();
    let file = followed(&folder, &message, refused);
    let identity = X509Identity::from_pem(certificate, &file);
    assert!(identity.is_ok(), "{message}: {}", identity.unwrap_err());
}
