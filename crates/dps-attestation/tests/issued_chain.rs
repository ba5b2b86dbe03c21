//! What is checked of the certificates that the service issued.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dps_attestation::{Error, IssuedChain, RequestKey, X509Identity};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
    date_time_ymd,
};

const DAY: Duration = Duration::from_secs(86_400);
const DEVICE: &str = "pump-17";

/// 2026-01-01T00:00:00Z, when all certificates here start; they end ten years later.
fn start() -> SystemTime {
    UNIX_EPOCH + 20_454 * DAY
}

/// When the chains are checked.
fn now() -> SystemTime {
    start() + 100 * DAY
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2036, 1, 1);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn changed(
    mut params: CertificateParams,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateParams {
    change(&mut params);
    params
}

fn expired(params: CertificateParams) -> CertificateParams {
    changed(params, |params| params.not_after = date_time_ymd(2026, 2, 1))
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// The service's own authorities sign with P-384.
fn p384() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()
}

/// The service with its authorities, and a device with its key.
struct Issuance {
    root: Authority,
    intermediate: Authority,
    key: RequestKey,
    pair: KeyPair,
}

impl Issuance {
    fn new() -> Self {
        Self::of(authority("Root"), authority("Issuer"))
    }

    fn of(root: CertificateParams, intermediate: CertificateParams) -> Self {
        let root = Authority::self_signed(root, p384()).unwrap();
        let intermediate = Authority::signed_by(intermediate, p384(), &root).unwrap();
        let key = RequestKey::generate().unwrap();
        let pair = KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
        Self { root, intermediate, key, pair }
    }

    fn leaf(&self, params: CertificateParams) -> Vec<u8> {
        params.signed_by(&self.pair, &self.intermediate).unwrap().der().to_vec()
    }

    /// The chain as it should be.
    fn chain(&self) -> [Vec<u8>; 3] {
        [self.leaf(params(DEVICE)), self.intermediate.der().to_vec(), self.root.der().to_vec()]
    }

    /// The chain with another leaf.
    fn with_leaf(&self, params: CertificateParams) -> Vec<Vec<u8>> {
        let [_, intermediate, root] = self.chain();
        vec![self.leaf(params), intermediate, root]
    }

    fn verify_at(&self, given: &[Vec<u8>], now: SystemTime) -> Result<IssuedChain, Error> {
        self.key.verify(given, &DEVICE.parse().unwrap(), now)
    }

    fn verify(&self, given: &[Vec<u8>]) -> Result<IssuedChain, Error> {
        self.verify_at(given, now())
    }
}

/// An authority of this name with a key of its own.
fn stranger(name: &str) -> Vec<u8> {
    authority(name).self_signed(&p384()).unwrap().der().to_vec()
}

#[test]
fn a_chain_is_put_in_order_whatever_the_order_it_came_in() {
    let service = Issuance::new();
    let chain = service.chain();
    let (decoy_root, decoy) = (stranger("Root"), stranger("Issuer"));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let given = order.map(|index| chain[index].clone());
        let issued = service.verify(&given).unwrap();
        assert!(issued.certificates().eq(&chain), "{order:?}");
        // An authority of the same name, with another key, and a stranger, change nothing.
        let with_decoys =
            [&[decoy_root.clone(), decoy.clone(), stranger("Other")], &given[..], &given].concat();
        assert!(service.verify(&with_decoys).unwrap().certificates().eq(&chain), "{order:?}");
    }
}

#[test]
fn what_a_chain_says_and_what_the_device_shows_of_it() {
    let service = Issuance::new();
    let chain = service.chain();
    let issued = service.verify(&chain).unwrap();
    assert_eq!(issued.not_before(), start());
    assert_eq!(issued.not_after(), start() + 3652 * DAY);
    assert!(issued.identity().chain().eq(&chain[..2]), "the root stays at home");
    assert_eq!(
        format!("{issued:?}"),
        "IssuedChain(CN=pump-17, issued by CN=Issuer, issued by CN=Root (2 certificates sent))"
    );
    let key = service.key.to_pem().unwrap();
    let stored = X509Identity::from_pem(issued.to_pem().as_bytes(), key.as_bytes()).unwrap();
    assert!(stored.chain().eq(&chain));
    stored.preflight(&DEVICE.parse().unwrap(), now()).unwrap();
}

#[test]
fn a_chain_ends_where_the_service_ends_it() {
    let service = Issuance::new();
    let [leaf, intermediate, _] = service.chain();
    for given in [vec![leaf.clone()], vec![leaf.clone(), leaf.clone()]] {
        let issued = service.verify(&given).unwrap();
        assert!(issued.certificates().eq([&leaf]));
        assert!(issued.identity().chain().eq([&leaf]));
    }
    let given = [intermediate.clone(), leaf.clone()];
    let issued = service.verify(&given).unwrap();
    // What stands behind a gap is left out, as in a chain that a device is given.
    let behind_a_gap = [&given[..], &[stranger("Other")]].concat();
    assert!(service.verify(&behind_a_gap).unwrap().certificates().eq(issued.certificates()));
    assert!(issued.certificates().eq([&leaf, &intermediate]));
    assert!(issued.identity().chain().eq([&leaf, &intermediate]));
}

#[test]
fn of_two_certificates_of_one_authority_the_one_that_can_be_used_is_taken() {
    let root_key = p384();
    let root = |params: CertificateParams| params.self_signed(&root_key).unwrap().der().to_vec();
    let (old, no_authority, good) =
        (root(expired(authority("Root"))), root(params("Root")), root(authority("Root")));
    let former = Authority::self_signed(authority("Former root"), p384()).unwrap();
    let cross = authority("Root").signed_by(&root_key, &former).unwrap().der().to_vec();
    let root = Authority::self_signed(authority("Root"), root_key).unwrap();
    let key = RequestKey::generate().unwrap();
    let pair = KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
    let leaf = params(DEVICE).signed_by(&pair, &root).unwrap().der().to_vec();
    let verify = |given: &[&Vec<u8>]| {
        let given: Vec<_> = given.iter().copied().cloned().collect();
        key.verify(&given, &DEVICE.parse().unwrap(), now()).unwrap()
    };
    let former = former.der().to_vec();
    let issued = verify(&[&old, &no_authority, &former, &cross, &leaf, &good]);
    assert!(issued.certificates().eq([&leaf, &good]));
    let issued = verify(&[&former, &cross, &leaf]);
    assert!(issued.certificates().eq([&leaf, &cross, &former]));
}

#[test]
fn the_common_name_counts_without_regard_to_case() {
    let service = Issuance::new();
    service.verify(&service.with_leaf(params("PUMP-17"))).unwrap();
}

#[test]
fn the_dates_allow_for_a_clock_that_is_a_little_behind() {
    let service = Issuance::new();
    let chain = service.chain();
    let second = Duration::from_secs(1);
    for (now, passes) in [
        (start() - 301 * second, false),
        (start() - 300 * second, true),
        (start(), true),
        (start() + 3652 * DAY, true),
        (start() + 3652 * DAY + second, false),
        (UNIX_EPOCH - DAY, false),
        (UNIX_EPOCH + Duration::from_secs(u64::MAX / 4), false),
    ] {
        for given in [&chain[..], &chain[..1]] {
            assert_eq!(service.verify_at(given, now).is_ok(), passes, "{now:?}");
        }
    }
}

#[test]
fn wrong_chains_are_refused_by_what_is_wrong_with_them() {
    let service = Issuance::new();
    let [leaf, intermediate, root] = service.chain();
    let other = KeyPair::generate().unwrap();
    let others = params(DEVICE).signed_by(&other, &service.intermediate).unwrap().der().to_vec();
    let own = params(DEVICE).self_signed(&service.pair).unwrap().der().to_vec();
    let mut broken = leaf.clone();
    *broken.last_mut().unwrap() ^= 1;
    let mut broken_root = root.clone();
    *broken_root.last_mut().unwrap() ^= 1;
    let trailing = [&leaf[..], &[0]].concat();
    let pem = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec();
    let chain = |leaf: &Vec<u8>| vec![leaf.clone(), intermediate.clone(), root.clone()];
    let with_leaf =
        |change: fn(&mut CertificateParams)| service.with_leaf(changed(params(DEVICE), change));
    let eleven: Vec<_> = (0..11).map(|number| stranger(&format!("Root {number}"))).collect();

    let cases = [
        (vec![], ": none came; give the enrollment a policy that issues certificates"),
        (eleven, ": 11 came, and at most 10 are taken"),
        (chain(&others), ": none of the 3 that came has the key of the request; register again"),
        (vec![intermediate.clone(), root.clone()], ": none of the 2 that came has the key"),
        (
            service.with_leaf(params("pump-18")),
            r#" "number 1 of 3, CN=pump-18": its common name must be the registration id, which is "pump-17"; correct the enrollment's policy"#,
        ),
        (
            with_leaf(|params| {
                let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
                params.distinguished_name.push(second, "pump-18");
            }),
            r#" "number 1 of 3, CN=pump-17": it has 2 common names; it must have one"#,
        ),
        (
            with_leaf(|params| params.distinguished_name = DistinguishedName::new()),
            r#" "number 1 of 3, an empty name": it has no common name"#,
        ),
        (
            with_leaf(|params| params.not_before = date_time_ymd(2027, 1, 1)),
            r#" "number 1 of 3, CN=pump-17": it is not yet valid: it starts at 2027-01-01T00:00:00Z"#,
        ),
        (
            service.with_leaf(expired(params(DEVICE))),
            r#" "number 1 of 3, CN=pump-17": it expired at 2026-02-01T00:00:00Z"#,
        ),
        (
            chain(&broken),
            r#" "number 1 of 3, CN=pump-17": its signature is not by the key of CN=Issuer that came with it"#,
        ),
        (
            vec![root.clone(), broken.clone(), intermediate.clone()],
            r#" "number 2 of 3, CN=pump-17": its signature is not by"#,
        ),
        (
            vec![leaf.clone(), intermediate.clone(), broken_root],
            r#" "number 3 of 3, CN=Root": its signature is not by the key of CN=Root"#,
        ),
        (
            vec![leaf.clone(), stranger("Issuer"), root.clone()],
            r#" "number 1 of 3, CN=pump-17": its signature is not by the key of CN=Issuer"#,
        ),
        (
            vec![leaf.clone(), intermediate.clone(), stranger("Root")],
            r#" "number 2 of 3, CN=Issuer": its signature is not by the key of CN=Root"#,
        ),
        (
            vec![leaf.clone(), root.clone()],
            r#" "number 1 of 2, CN=pump-17": it was issued by CN=Issuer, which is not among the 2 that came"#,
        ),
        (
            vec![own.clone()],
            r#" "number 1 of 1, CN=pump-17": no authority issued it: it names itself"#,
        ),
        (
            vec![leaf.clone(), own.clone(), root.clone()],
            r#" "number 2 of 3, CN=pump-17": it is the second one with the key of the request"#,
        ),
        (
            vec![leaf.clone(), b"garbage".to_vec()],
            r#" "number 2 of 2": it is damaged, cut short, or no certificate in DER at all"#,
        ),
        (vec![vec![], leaf.clone()], r#" "number 1 of 2": it is damaged"#),
        (chain(&trailing), r#" "number 1 of 3": it is damaged"#),
        (chain(&leaf[..leaf.len() - 1].to_vec()), r#" "number 1 of 3": it is damaged"#),
        (chain(&pem), r#" "number 1 of 3": it is damaged"#),
        (
            with_leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            r#" "number 1 of 3, CN=pump-17": it is an authority's, and a device must be none"#,
        ),
        (
            with_leaf(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
            }),
            r#" "number 1 of 3, CN=pump-17": its chain is not taken: RequiredEkuNotFound"#,
        ),
        (
            with_leaf(|params| {
                let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                unknown.set_criticality(true);
                params.custom_extensions = vec![unknown];
            }),
            r#" "number 1 of 3, CN=pump-17": its chain is not taken: UnsupportedCriticalExtension"#,
        ),
    ];
    for (given, says) in cases {
        assert_refused(&service, &given, says);
    }
}

/// They are the same to us and to openssl, not to all that check a chain in a TLS handshake.
#[test]
fn an_issuer_whose_name_is_spelled_otherwise_is_refused_by_name() {
    let service = Issuance::new();
    let [leaf, intermediate, root] = service.chain();
    let spelled = authority("issuer").signed_by(service.intermediate.key(), &service.root);
    let spelled = spelled.unwrap().der().to_vec();
    assert_refused(
        &service,
        &[leaf.clone(), spelled.clone(), root.clone()],
        r#" "number 1 of 3, CN=pump-17": its chain is not taken: an issuer's name is spelled otherwise in the issuer's own certificate; have the authority"#,
    );
    let both = [leaf, intermediate, root, spelled];
    assert!(service.verify(&both).unwrap().certificates().eq(&both[..3]));
}

#[test]
fn certificates_that_came_twice_count_once() {
    let service = Issuance::new();
    let chain = service.chain();
    let issued = service.verify(&chain.iter().cycle().take(30).cloned().collect::<Vec<_>>());
    assert!(issued.unwrap().certificates().eq(&chain));
    let strangers: Vec<_> = (0..7).map(|number| stranger(&format!("CA {number}"))).collect();
    let ten = [&strangers[..], &chain, &chain].concat();
    assert!(service.verify(&ten).unwrap().certificates().eq(&chain));
}

fn assert_refused(service: &Issuance, given: &[Vec<u8>], says: &str) {
    let error = service.verify(given).map(drop).unwrap_err();
    assert!(matches!(error, Error::Configuration(_)) && !error.is_retryable(), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with(&format!("issued certificate{says}")), "{message}, not {says}");
}

#[test]
fn authorities_that_may_not_issue_are_refused_at_every_place() {
    let constrained = |name, length| {
        changed(authority(name), |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
        })
    };
    let no_signing = |name| {
        changed(authority(name), |params| params.key_usages = vec![KeyUsagePurpose::CrlSign])
    };
    let fine = Issuance::of(constrained("Root", 1), constrained("Issuer", 0));
    fine.verify(&fine.chain()).unwrap();
    for (root, intermediate, says) in [
        (
            authority("Root"),
            params("Issuer"),
            r#" "number 2 of 3, CN=Issuer": it issued another one and is no authority's"#,
        ),
        (
            params("Root"),
            authority("Issuer"),
            r#" "number 3 of 3, CN=Root": it issued another one and is no authority's"#,
        ),
        (
            authority("Root"),
            no_signing("Issuer"),
            r#" "number 2 of 3, CN=Issuer": it issued another one, which its key usage"#,
        ),
        (
            no_signing("Root"),
            authority("Issuer"),
            r#" "number 3 of 3, CN=Root": it issued another one, which its key usage"#,
        ),
        (
            constrained("Root", 0),
            authority("Issuer"),
            r#" "number 3 of 3, CN=Root": it allows 0 authorities between it and the device, and there are 1"#,
        ),
        (
            expired(authority("Root")),
            authority("Issuer"),
            r#" "number 3 of 3, CN=Root": it expired at 2026-02-01T00:00:00Z"#,
        ),
        (
            authority("Root"),
            expired(authority("Issuer")),
            r#" "number 2 of 3, CN=Issuer": it expired at 2026-02-01T00:00:00Z"#,
        ),
    ] {
        let service = Issuance::of(root, intermediate);
        assert_refused(&service, &service.chain(), says);
    }
}

proptest! {
    /// Of a certificate that came alone, nothing but the key, the name and the dates can be checked.
    #[test]
    fn no_change_of_a_byte_gives_another_leaf(
        which in 0..3_usize, at in any::<prop::sample::Index>(), by in 1..=u8::MAX,
    ) {
        let service = SERVICE.with(|service| service.chain.clone());
        let mut given = service.clone();
        let at = at.index(given[which].len());
        given[which][at] ^= by;
        if let Ok(issued) = SERVICE.with(|service| service.issuance.verify(&given)) {
            prop_assert_eq!(issued.certificates().next(), Some(&service[0][..]));
        }
        let alone = &given[which..=which];
        if let Ok(issued) = SERVICE.with(|service| service.issuance.verify(alone)) {
            let identity = issued.identity();
            prop_assert_eq!(identity.common_name().map(str::to_lowercase), Some(DEVICE.into()));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..8),
                prop::collection::vec(any::<u8>(), 0..8).prop_map(|content| {
                    [vec![0x30, u8::try_from(content.len()).unwrap()], content].concat()
                }),
                (0..3_usize, any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(
                    |(which, from, to)| {
                        let der = SERVICE.with(|service| service.chain[which].clone());
                        let (from, to) = (from.index(der.len()), to.index(der.len()));
                        [&der[..from], &der[to..]].concat()
                    },
                ),
            ],
            0..12,
        )
    ) {
        let leaf = SERVICE.with(|service| service.chain[0].clone());
        match SERVICE.with(|service| service.issuance.verify(&parts)) {
            Ok(issued) => prop_assert_eq!(issued.certificates().next(), Some(&leaf[..])),
            Err(error) => prop_assert!(error.to_string().starts_with("issued certificate")),
        }
    }
}

struct Service {
    issuance: Issuance,
    chain: Vec<Vec<u8>>,
}

thread_local! {
    static SERVICE: Service = {
        let issuance = Issuance::new();
        let chain = issuance.chain().to_vec();
        Service { issuance, chain }
    };
}
