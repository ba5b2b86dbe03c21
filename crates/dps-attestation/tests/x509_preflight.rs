//! What preflight finds before the service would: names, order and dates.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dps_attestation::X509Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa,
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, date_time_ymd,
};

const DAY: Duration = Duration::from_secs(86_400);

/// 2026-01-01T00:00:00Z, when all certificates here start; they end ten years later.
fn start() -> SystemTime {
    UNIX_EPOCH + 20_454 * DAY
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2036, 1, 1);
    params
}

fn authority(mut params: CertificateParams) -> CertificateParams {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A factory: root, intermediate, and what it makes.
struct Factory {
    root: Authority,
    intermediate: Authority,
}

impl Factory {
    fn new() -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let root = Authority::self_signed(authority(params("Root CA")), key()).unwrap();
        let intermediate =
            Authority::signed_by(authority(params("Factory CA")), key(), &root).unwrap();
        Self { root, intermediate }
    }

    fn device(&self, params: CertificateParams) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        (certificate.der().to_vec(), key.serialize_der())
    }

    fn intermediate(&self) -> Vec<u8> {
        self.intermediate.der().to_vec()
    }

    fn root(&self) -> Vec<u8> {
        self.root.der().to_vec()
    }
}

fn preflight(identity: &X509Identity, id: &str, now: SystemTime) -> Result<(), String> {
    identity.preflight(&id.parse().unwrap(), now).map_err(|error| error.to_string())
}

#[test]
fn what_nobody_needs_in_a_chain_is_left_out() {
    let factory = Factory::new();
    let (leaf, key) = factory.device(params("pump-17"));
    let (intermediate, root) = (factory.intermediate(), factory.root());
    let foreign = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let foreign = authority(params("Foreign")).self_signed(&foreign).unwrap();
    let foreign = foreign.der().to_vec();
    let cases = [
        (vec![&leaf, &intermediate, &leaf], vec![&leaf, &intermediate]),
        (vec![&leaf, &intermediate, &intermediate, &root], vec![&leaf, &intermediate, &root]),
        (vec![&leaf, &intermediate, &root, &root, &root], vec![&leaf, &intermediate, &root]),
        (vec![&leaf, &intermediate, &root, &foreign], vec![&leaf, &intermediate, &root]),
    ];
    for (given, sent) in cases {
        let given = given.into_iter().cloned().collect();
        let identity = X509Identity::from_der(given, key.clone()).unwrap();
        assert!(identity.chain().eq(sent));
        assert_eq!(preflight(&identity, "pump-17", start()), Ok(()));
    }
    let device = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let alone = params("pump-17").self_signed(&device).unwrap();
    let given = vec![alone.der().to_vec(), root];
    let identity = X509Identity::from_der(given, device.serialize_der()).unwrap();
    assert_eq!(identity.describe_chain(), "CN=pump-17, self-signed (1 certificate sent)");
}

#[test]
fn a_chain_with_too_many_certificates_is_refused_by_name() {
    let factory = Factory::new();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf = params("pump-17").signed_by(&key, &factory.intermediate).unwrap();
    let refused = |chain: &str| {
        let identity = X509Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes());
        identity.unwrap_err().to_string()
    };
    let mut issuers = vec![leaf.pem()];
    for number in 2..=11 {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = params(&format!("CA {number}")).self_signed(&key).unwrap();
        issuers.push(issuer.pem());
    }
    let message = refused(&issuers.concat());
    assert!(message.contains("CN=CA 11") && message.contains("may have 10"), "{message}");
    issuers.truncate(10);
    let ten = issuers.concat();
    assert!(X509Identity::from_pem(ten.as_bytes(), key.serialize_pem().as_bytes()).is_ok());
}

#[test]
fn chains_of_every_length_pass_and_are_described() {
    let factory = Factory::new();
    let (leaf, key) = factory.device(params("pump-17"));
    let cases = [
        (vec![leaf.clone()], "CN=pump-17, issued by CN=Factory CA (1 certificate sent)"),
        (
            vec![leaf.clone(), factory.intermediate()],
            "CN=pump-17, issued by CN=Factory CA, issued by CN=Root CA (2 certificates sent)",
        ),
        (
            vec![leaf, factory.intermediate(), factory.root()],
            "CN=pump-17, issued by CN=Factory CA, issued by CN=Root CA, self-signed (3 certificates sent)",
        ),
    ];
    for (chain, described) in cases {
        let identity = X509Identity::from_der(chain.clone(), key.clone()).unwrap();
        assert_eq!(preflight(&identity, "pump-17", start()), Ok(()));
        assert_eq!(identity.describe_chain(), described);
        assert!(identity.chain().eq(&chain));
    }
}

#[test]
fn the_common_name_is_the_registration_id_without_regard_to_case() {
    let factory = Factory::new();
    let named = |name| {
        let (leaf, key) = factory.device(params(name));
        X509Identity::from_der(vec![leaf], key).unwrap()
    };
    assert_eq!(
        preflight(&named("pump-17"), "pump-18", start()).unwrap_err(),
        r#"certificate "CN=pump-17": its common name must be the registration id, which is "pump-18""#
    );
    for (name, id) in [("Pump-17", "pump-17"), ("pump-17", "PUMP-17"), ("-.A:b", "-.a:B")] {
        assert_eq!(preflight(&named(name), id, start()), Ok(()), "{name} {id}");
    }
    // Case is ASCII's only: the Kelvin sign is no k.
    assert!(preflight(&named("\u{212a}elvin"), "kelvin", start()).is_err());
    let none = preflight(&named(""), "pump-17", start()).unwrap_err();
    assert!(none.starts_with(r#"certificate "an empty name": it has no common name"#), "{none}");
    assert_eq!(named("").common_name(), None);
}

#[test]
fn the_common_name_is_read_from_every_string_type() {
    let factory = Factory::new();
    let values = [
        DnValue::Utf8String("pump-17".into()),
        DnValue::PrintableString("pump-17".try_into().unwrap()),
        DnValue::Ia5String("pump-17".try_into().unwrap()),
        DnValue::TeletexString("pump-17".try_into().unwrap()),
        DnValue::BmpString("pump-17".try_into().unwrap()),
    ];
    for value in values {
        let mut params = params("");
        params.distinguished_name.push(DnType::OrganizationName, "Pumps & Sons");
        params.distinguished_name.push(DnType::CommonName, value.clone());
        let (leaf, key) = factory.device(params);
        let identity = X509Identity::from_der(vec![leaf], key).unwrap();
        assert_eq!(preflight(&identity, "pump-17", start()), Ok(()), "{value:?}");
    }
}

#[test]
fn a_name_without_common_name_is_described_in_full_and_on_one_line() {
    let factory = Factory::new();
    let mut params = params("");
    params.distinguished_name.push(DnType::CountryName, "CH");
    params.distinguished_name.push(DnType::OrganizationName, "Pumps\n& Sons");
    let (leaf, key) = factory.device(params);
    let described = X509Identity::from_der(vec![leaf], key).unwrap().describe_chain();
    assert!(described.starts_with("C=CH, O=Pumps\\n& Sons, issued by"), "{described}");
}

#[test]
fn a_chain_out_of_order_is_refused_with_the_place() {
    let factory = Factory::new();
    let (leaf, key) = factory.device(params("pump-17"));

    let swapped = vec![leaf.clone(), factory.root(), factory.intermediate()];
    let identity = X509Identity::from_der(swapped, key.clone()).unwrap();
    assert_eq!(
        preflight(&identity, "pump-17", start()).unwrap_err(),
        r#"certificate "CN=Root CA": it is number 2 of the chain but not the issuer of the one before, CN=pump-17, which was issued by CN=Factory CA; put them in order, the device's first, each followed by its issuer"#
    );

    let gap = vec![leaf, factory.root()];
    let identity = X509Identity::from_der(gap, key).unwrap();
    let message = preflight(&identity, "pump-17", start()).unwrap_err();
    assert!(message.contains("add the certificate that is missing"), "{message}");
}

#[test]
fn a_chain_with_the_leaf_last_is_refused_at_once() {
    let factory = Factory::new();
    let (leaf, key) = factory.device(params("pump-17"));
    let reversed = vec![factory.root(), factory.intermediate(), leaf];
    assert_eq!(
        X509Identity::from_der(reversed, key).unwrap_err().to_string(),
        r#"certificate "CN=Root CA": the leaf must come first, and the private key belongs to number 3 of the chain; put that one first, each followed by its issuer"#
    );
}

#[test]
fn issuer_and_subject_may_be_spelt_in_different_string_types() {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut printable = authority(params(""));
    let name = DnValue::PrintableString("factory  ca".try_into().unwrap());
    printable.distinguished_name.push(DnType::CommonName, name);
    let issuer = Authority::self_signed(authority(params("Factory CA")), key()).unwrap();
    let spelt_otherwise = Authority::self_signed(printable, key()).unwrap();

    let device = key();
    let leaf = params("pump-17").signed_by(&device, &issuer).unwrap();
    let chain = vec![leaf.der().to_vec(), spelt_otherwise.der().to_vec()];
    let identity = X509Identity::from_der(chain, device.serialize_der()).unwrap();
    assert_eq!(preflight(&identity, "pump-17", start()), Ok(()));
}

#[test]
fn a_clock_a_year_off_is_reported_with_both_dates() {
    let factory = Factory::new();
    let (leaf, key) = factory.device(params("pump-17"));
    let identity = X509Identity::from_der(vec![leaf, factory.intermediate()], key).unwrap();
    assert_eq!(
        preflight(&identity, "pump-17", start() - 365 * DAY).unwrap_err(),
        r#"certificate "CN=pump-17": it is not yet valid: it starts at 2026-01-01T00:00:00Z, and the device's clock says 2025-01-01T00:00:00Z; set the clock"#
    );
    assert_eq!(
        preflight(&identity, "pump-17", start() + (3652 + 365) * DAY).unwrap_err(),
        r#"certificate "CN=pump-17": it expired at 2036-01-01T00:00:00Z, and the device's clock says 2036-12-31T00:00:00Z; renew it, or set the clock if that is wrong"#
    );
}

#[test]
fn the_bounds_of_the_dates() {
    let factory = Factory::new();
    let (leaf, key) = factory.device(params("pump-17"));
    let identity = X509Identity::from_der(vec![leaf], key).unwrap();
    let second = Duration::from_secs(1);
    let end = start() + 3652 * DAY;
    let passes = |now| preflight(&identity, "pump-17", now).is_ok();
    // Five minutes for a clock that is behind.
    assert!(!passes(start() - 301 * second));
    assert!(passes(start() - 300 * second));
    assert!(passes(end));
    assert!(!passes(end + second));
}

#[test]
fn a_clock_beyond_all_dates_does_no_harm() {
    let factory = Factory::new();
    let (leaf, key) = factory.device(params("pump-17"));
    let identity = X509Identity::from_der(vec![leaf], key).unwrap();
    let before = preflight(&identity, "pump-17", UNIX_EPOCH - 365 * DAY).unwrap_err();
    assert!(before.contains("clock says 1970-01-01T00:00:00Z"), "{before}");
    let after = UNIX_EPOCH + Duration::from_secs(i64::MAX.unsigned_abs() / 2);
    let after = preflight(&identity, "pump-17", after).unwrap_err();
    assert!(after.contains("clock says 9999-12-31T23:59:59Z"), "{after}");
}

#[test]
fn an_expired_issuer_is_refused_but_at_the_end_only_named() {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let expired = |name| {
        let mut params = authority(params(name));
        params.not_after = date_time_ymd(2027, 1, 1);
        params
    };
    let root = Authority::self_signed(expired("Old root"), key()).unwrap();
    let line = Authority::signed_by(expired("Old CA"), key(), &root).unwrap();
    let (lived, device) = (start() + 700 * DAY, key());

    let below = |issuer: &Authority, issuers: &[&Authority]| {
        let leaf = params("pump-17").signed_by(&device, issuer).unwrap().der().to_vec();
        let issuers = issuers.iter().map(|issuer| issuer.der().to_vec());
        let chain = std::iter::once(leaf).chain(issuers).collect();
        X509Identity::from_der(chain, device.serialize_der()).unwrap()
    };
    let at_the_end = below(&root, &[&root]);
    assert_eq!(preflight(&at_the_end, "pump-17", lived), Ok(()));
    let doubt = at_the_end.doubtful_end(lived).unwrap();
    assert!(
        doubt.starts_with("its last certificate, CN=Old root: it expired at 2027-01-01T00:00:00Z"),
        "{doubt}"
    );
    assert_eq!(at_the_end.doubtful_end(start()), None);
    assert_eq!(below(&root, &[]).doubtful_end(lived), None);

    let message = preflight(&below(&line, &[&line, &root]), "pump-17", lived).unwrap_err();
    assert!(
        message.starts_with(r#"certificate "CN=Old CA": it expired at 2027-01-01T00:00:00Z"#),
        "{message}"
    );
}

/// The date 9999-12-31T23:59:59Z stands for no end (RFC 5280, section 4.1.2.5).
#[test]
fn a_certificate_without_end_passes() {
    let factory = Factory::new();
    let mut endless = params("pump-17");
    endless.not_after = date_time_ymd(9999, 12, 31);
    let (leaf, key) = factory.device(endless);
    let identity = X509Identity::from_der(vec![leaf], key).unwrap();
    assert_eq!(preflight(&identity, "pump-17", start() + 50_000 * DAY), Ok(()));
}
