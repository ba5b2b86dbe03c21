//! Certificates in files, in whatever state people have them: the device's chain, the roots and the emulator's authorities
//! are read by one reader. What one takes they all take, and none leaves a certificate out in silence.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

#[cfg(unix)]
mod advice;

use std::sync::LazyLock;

use dps_client::{Roots, X509Identity};
use dps_conformance::Authority;
use dps_emulator::{CaCertificates, Thumbprint};
use proptest::prelude::*;

/// A device's certificate, that of its authority and that of its root, with the key of the first.
static CHAIN: LazyLock<Chain> = LazyLock::new(|| {
    let root = Authority::root("Factory root");
    let line = root.intermediate("Line 4");
    let device = line.device("pump-17");
    Chain {
        certificates: [device.certificate.clone(), line.pem.clone(), root.pem.clone()],
        key: device.key_pem().to_owned(),
    }
});

struct Chain {
    certificates: [String; 3],
    key: String,
}

impl Chain {
    fn pem(&self) -> String {
        self.certificates.concat()
    }
}

/// How many certificates each of the readers takes from a file, or the reason why it takes none: the same from all.
fn read(file: &[u8]) -> Result<usize, String> {
    let roots = Roots::empty().with_pem(file).map(|roots| roots.len()).map_err(|error| {
        let message = error.to_string();
        message.strip_prefix("roots: ").unwrap().to_owned()
    });
    let emulator = authorities(file);
    let enrollment = Thumbprint::of_pem(file).map_err(|error| error.reason().to_owned());
    let identity = X509Identity::from_pem(file, CHAIN.key.as_bytes())
        .map(|identity| identity.chain().len())
        .map_err(|error| error.to_string().strip_prefix("certificate: ").unwrap().to_owned());
    assert_eq!(roots, identity);
    assert_eq!(emulator, identity.clone().map(|_| ()));
    assert_eq!(enrollment.map(|_| ()), identity.clone().map(|_| ()));
    identity
}

/// Whether the emulator's reader takes the file. All of it was read when the device's own certificate is refused for not
/// being an authority's.
fn authorities(file: &[u8]) -> Result<(), String> {
    CaCertificates::from_pem(file).map(|_| ()).or_else(|error| match error.reason() {
        reason if reason.contains(": it is no authority") => Ok(()),
        reason => Err(reason.to_owned()),
    })
}

#[test]
fn whatever_state_a_file_is_in_every_reader_takes_all_of_its_certificates() {
    let plain = CHAIN.pem();
    let csr = "-----BEGIN CERTIFICATE REQUEST-----\nc2Vj\n-----END CERTIFICATE REQUEST-----\n";
    let files = [
        plain.clone(),
        format!("\u{feff}{plain}"),
        plain.replace('\n', "\r\n"),
        plain.replace('\n', "\r"),
        plain.replace('\n', " "),
        plain.replace('\n', ""),
        plain.replace('\n', "\n    "),
        plain.replace('\n', "\n\n"),
        plain.replace("-----\n-----", "----------"),
        plain.replace("-----\n-----", "-----"),
        plain.replace("-----BEGIN", "subject=CN = pump-17\n---\n-----BEGIN"),
        plain.replace("-----BEGIN", "Bag Attributes\n    localKeyID: 01\n-----BEGIN"),
        plain.replace("CERTIFICATE", "X509 CERTIFICATE"),
        format!("{}{plain}{csr}", CHAIN.key),
        format!("{plain}trailing \u{e9} text"),
        format!("ca = \"\"\"\n{plain}\"\"\"\n"),
    ];
    for file in files {
        assert_eq!(read(file.as_bytes()), Ok(3), "{file}");
    }
    let latin1 = [b"Geh\xe4use 7\n", plain.as_bytes()].concat();
    assert_eq!(read(&latin1), Ok(3));
}

#[test]
fn what_cannot_be_read_is_named_with_its_block_and_what_to_do() {
    use base64::Engine as _;
    let base64 = |text: &[u8]| base64::engine::general_purpose::STANDARD.encode(text);
    let [device, line, root] = &CHAIN.certificates;
    let after = |text: &str| format!("{device}{line}{text}");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            after(&root[..root.len() / 2]).into(),
            "block 3 (CERTIFICATE) has no END line; it was cut off",
        ),
        (
            after(&root.replace("-----BEGIN", "---BEGIN")).into(),
            "at block 3, there is a damaged BEGIN or END",
        ),
        (
            after(&root.replace("-----", "---")).into(),
            "at block 3, there is a damaged BEGIN or END",
        ),
        (
            after(&root.replace("-----", "\u{2013}\u{2013}")).into(),
            "at block 3, there is a BEGIN or END line with typographic dashes",
        ),
        (after(&root.to_lowercase()).into(), "at block 3, there is a damaged BEGIN or END line"),
        (
            after(&root.replace("BEGIN CERT", "BEGINCERT").replace("END CERT", "ENDCERT")).into(),
            "at block 3",
        ),
        (after(&root.replace("MII", "M*I")).into(), "block 3 (CERTIFICATE) is not base64"),
        (
            after(&root.replace('\n', "\\n")).into(),
            "has the letters \\n where its lines should end; `printf '%b'",
        ),
        (after(&root.replace('\n', "\"\n\"")).into(), "there are quotes in it"),
        (
            after(&root.replace("CERTIFICATE", "TRUSTED CERTIFICATE")).into(),
            "block 3 (TRUSTED CERTIFICATE) is in a format of OpenSSL's own",
        ),
        (
            after(&root.replace("CERTIFICATE", "CERTIFICAT")).into(),
            "block 3 (CERTIFICAT) holds a certificate; write CERTIFICATE",
        ),
        (
            after("-----BEGIN PKCS7-----\nc2Vj\n-----END PKCS7-----").into(),
            "block 3 (PKCS7) is a bundle",
        ),
        (
            after("-----BEGIN CERTIFICATE-----\nc2Vj\n-----END CERTIFICATE-----").into(),
            "block 3 (CERTIFICATE) is damaged",
        ),
        (
            CHAIN.key.clone().into(),
            "there is no certificate in it, only PRIVATE KEY; was the key's file",
        ),
        (
            base64(root.as_bytes()).into(),
            "it is PEM text in base64 once more; decode it with `base64 -d IN",
        ),
        (
            root.lines().filter(|line| !line.starts_with('-')).collect::<String>().into(),
            "put -----BEGIN CERTIFICATE----- before it",
        ),
        (root.encode_utf16().flat_map(u16::to_le_bytes).collect(), "it is UTF-16 text"),
        (b"hello".to_vec(), "it is neither PEM text nor DER"),
        (b"\n".to_vec(), "it is empty"),
    ];
    for (file, says) in cases {
        let reason = read(&file).unwrap_err();
        assert!(reason.contains(says), "{reason}, not {says}");
    }
}

/// What may stand before, between and after blocks.
fn surroundings() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("\n".to_owned()),
        Just("subject=CN = d\n".to_owned()),
        Just(" 0 s:CN = d\n   i:CN = e\n---\n".to_owned()),
        Just(CHAIN.key.clone()),
        "[ -~]{0,40}\n".prop_filter("no part of a block", |text| !text.contains('-')),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_of_line_ends_text_and_blocks_is_read_whole(
        around in prop::array::uniform4(surroundings()),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r", " ", "", "\n\t", "\n\n"]),
        mark in any::<bool>(),
        count in 1..=3usize,
    ) {
        let mut file = if mark { "\u{feff}".to_owned() } else { String::new() };
        for (text, certificate) in around.iter().zip(&CHAIN.certificates[..count]) {
            file.push_str(text);
            file.push_str(&certificate.replace('\n', line_end));
        }
        file.push_str(&around[3]);
        prop_assert_eq!(read(file.as_bytes()), Ok(count), "{}", file);
    }

    /// Whatever happens to one byte: every certificate is taken, or the file is refused.
    #[test]
    fn a_damaged_file_is_refused_or_read_whole(
        place in any::<prop::sample::Index>(),
        byte in prop::option::of(any::<u8>()),
    ) {
        for (file, certificates) in [(CHAIN.pem(), 3), (CHAIN.certificates[1..].concat(), 2)] {
            let mut file = file.into_bytes();
            let at = place.index(file.len());
            match byte {
                Some(byte) => file[at] = byte,
                None => { file.remove(at); }
            }
            let count = Roots::empty().with_pem(&file).map(|roots| roots.len()).ok();
            prop_assert!(count.is_none_or(|count| count == certificates), "{:?} at {}", count, at);
            // Damage may take from an authority what makes it one.
            prop_assert!(count.is_none() || authorities(&file).is_ok());
            prop_assert!(count.is_some() || CaCertificates::from_pem(&file).is_err());
        }
    }

    #[test]
    fn a_file_that_ends_within_a_block_is_refused(before in 0..3usize, place in any::<prop::sample::Index>()) {
        let [first, last] = ["-----B".len(), CHAIN.certificates[before].find("-----END CERT").unwrap()];
        let cut = first + place.index(last - first);
        let file = CHAIN.certificates[..before].concat() + &CHAIN.certificates[before][..cut];
        prop_assert!(read(file.as_bytes()).is_err(), "{}", file);
    }
}
