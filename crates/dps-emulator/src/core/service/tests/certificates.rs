//! Client certificates, judged for real.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SigningKey as _,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::keys::{CaCertificates, Thumbprint};

const DAY: Duration = Duration::from_secs(86_400);

struct Ca(Issuer<'static, KeyPair>, CertificateDer<'static>, String);

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now() - 10 * DAY).into();
    params.not_after = (now() + 10 * DAY).into();
    params.use_authority_key_identifier_extension = true;
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn ca(params: CertificateParams, issuer: Option<&Ca>) -> Ca {
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, &issuer.0).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Ca(Issuer::new(params, key), certificate.der().clone(), certificate.pem())
}

fn leaf(params: CertificateParams, issuer: &Ca) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), &issuer.0).unwrap().der().clone()
}

fn self_signed(params: &CertificateParams) -> CertificateDer<'static> {
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

/// The enrollment, or the code and the message of the refusal.
type Shown = Result<String, (u32, String)>;

fn shown(service: &Service, id: &str, chain: &[&CertificateDer<'static>]) -> Shown {
    let chain: Vec<_> = chain.iter().copied().cloned().collect();
    service
        .authenticate(now(), SCOPE, id, Credential::Certificates(&chain))
        .map(|who| who.enrollment_name)
        .map_err(|error| (error.error_code, error.message.into_owned()))
}

fn refused(message: &str) -> Shown {
    Err((401_002, message.to_owned()))
}

#[test]
fn an_individual_certificate_is_known_by_its_thumbprint_whoever_issued_it() {
    let own = self_signed(&params("dev-1", true));
    let issued = leaf(params("dev-1", false), &ca(params("any CA", true), None));
    let enrollment = |id: &str, der: &CertificateDer<'_>| {
        let attestation = Attestation::thumbprint(Thumbprint::of_der(der));
        service([Enrollment::individual(id.parse().unwrap(), attestation)])
    };
    for der in [&own, &issued] {
        assert_eq!(shown(&enrollment("dev-1", der), "dev-1", &[der]), Ok("dev-1".into()));
    }
    let secondary = Attestation::X509(Pair {
        primary: Thumbprint::of_der(&own).into(),
        secondary: Some(Thumbprint::of_der(&issued).into()),
    });
    let both = service([Enrollment::individual("dev-1".parse().unwrap(), secondary)]);
    assert_eq!(shown(&both, "dev-1", &[&issued]), Ok("dev-1".into()));

    let invalid = refused("Invalid certificate");
    assert_eq!(shown(&enrollment("dev-1", &own), "dev-1", &[&issued]), invalid);
    assert_eq!(shown(&enrollment("dev-2", &own), "dev-2", &[&own]), invalid, "common name");
    let junk = CertificateDer::from(vec![1, 2, 3]);
    assert_eq!(shown(&enrollment("dev-1", &junk), "dev-1", &[&junk]), invalid);
}

#[test]
fn dates_and_common_names_count() {
    let invalid = refused("Invalid certificate");
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = params("dev-1", false);
        change(&mut params);
        let der = self_signed(&params);
        let attestation = Attestation::thumbprint(Thumbprint::of_der(&der));
        let service = service([Enrollment::individual("dev-1".parse().unwrap(), attestation)]);
        shown(&service, "dev-1", &[&der])
    };
    assert_eq!(with(|_| ()), Ok("dev-1".into()));
    assert_eq!(with(|params| params.not_after = (now() - DAY).into()), invalid);
    assert_eq!(with(|params| params.not_before = (now() + DAY).into()), invalid);
    assert_eq!(with(|params| params.distinguished_name = rcgen::DistinguishedName::new()), invalid);
}

#[test]
fn a_group_takes_whom_its_ca_vouches_for() {
    let root = ca(params("root", true), None);
    let middle = ca(params("middle", true), Some(&root));
    let foreign = ca(params("root", true), None);
    let of = |ca: &Ca| {
        let attestation = GroupAttestation::x509(CaCertificates::from_pem(&ca.2).unwrap());
        service([Enrollment::group("line", attestation)])
    };
    let (by_root, by_middle) = (of(&root), of(&middle));
    let good = || params("dev-1", false);
    let (not_found, invalid) =
        (refused("CA certificate not found."), refused("Invalid certificate"));

    let direct = leaf(good(), &root);
    let below = leaf(good(), &middle);
    let chain = [&below, &middle.1];
    let whole = [&below, &middle.1, &root.1];
    let taken = Ok("line".to_owned());
    assert_eq!(shown(&by_root, "dev-1", &[&direct]), taken);
    assert_eq!(shown(&by_root, "dev-1", &chain), taken);
    assert_eq!(shown(&by_root, "dev-1", &whole), taken);
    assert_eq!(shown(&by_middle, "dev-1", &[&below]), taken, "an intermediate is enough");
    assert_eq!(shown(&by_middle, "dev-1", &whole), taken);

    assert_eq!(shown(&by_root, "dev-1", &[&below]), not_found, "the chain was not sent");
    assert_eq!(shown(&by_middle, "dev-1", &[&direct]), not_found);
    assert_eq!(shown(&by_root, "dev-1", &[&self_signed(&good())]), not_found);
    assert!(shown(&by_root, "dev-1", &[&leaf(good(), &foreign)]).is_err(), "same name, other key");
    assert_eq!(shown(&by_root, "dev-2", &[&direct]), invalid, "common name");
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = good();
        change(&mut params);
        shown(&by_root, "dev-1", &[&leaf(params, &root)])
    };
    assert_eq!(with(|params| params.not_after = (now() - DAY).into()), invalid);
    assert_eq!(with(|params| params.not_before = (now() + DAY).into()), invalid);
    let server_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    assert_eq!(with(server_only), invalid);
    // A certificate that is no CA vouches for nobody.
    let no_ca = ca(params("no CA", false), Some(&root));
    let forged = leaf(good(), &no_ca);
    assert!(shown(&by_root, "dev-1", &[&forged, &no_ca.1]).is_err());
}

#[test]
fn a_ca_out_of_its_dates_signs_for_no_device() {
    let mut old = params("old", true);
    old.not_after = (now() - DAY).into();
    let old = ca(old, None);
    let attestation = GroupAttestation::x509(CaCertificates::from_pem(&old.2).unwrap());
    let service = service([Enrollment::group("line", attestation)]);
    let below = leaf(params("dev-1", false), &old);
    assert_eq!(shown(&service, "dev-1", &[&below]), refused("CA certificate not found."));
}

#[test]
fn of_several_groups_the_one_whose_ca_was_reached_says_what_is_wrong() {
    let (first, second) = (ca(params("first", true), None), ca(params("second", true), None));
    let enrollment = |name: &str, ca: &Ca| {
        let attestation = GroupAttestation::x509(CaCertificates::from_pem(&ca.2).unwrap());
        Enrollment::group(name, attestation)
    };
    let groups = [enrollment("a", &first), enrollment("b", &second), group("keys")];
    let service = service(groups);
    let good = leaf(params("dev-1", false), &second);
    assert_eq!(shown(&service, "dev-1", &[&good]), Ok("b".into()));
    assert_eq!(shown(&service, "dev-2", &[&good]), refused("Invalid certificate"));
    let other = leaf(params("dev-1", false), &ca(params("third", true), None));
    assert_eq!(shown(&service, "dev-1", &[&other]), refused("CA certificate not found."));
}

#[test]
fn a_certificate_is_no_token_and_a_token_no_certificate() {
    let der = self_signed(&params("dev-2", false));
    let by_certificate = Attestation::thumbprint(Thumbprint::of_der(&der));
    let service = service([
        individual("dev-1"),
        Enrollment::individual("dev-2".parse().unwrap(), by_certificate),
    ]);
    assert_eq!(shown(&service, "dev-1", &[&der]), refused("Unauthorized"));
    let token = token("dev-2", &key("one"));
    let error = service.authenticate(now(), SCOPE, "dev-2", Credential::Sas(&token)).unwrap_err();
    assert_eq!((error.error_code, &*error.message), (401_002, "Unauthorized"));
}

#[test]
fn the_state_tells_of_the_certificate() {
    let root = ca(params("root", true), None);
    let attestation = GroupAttestation::x509(CaCertificates::from_pem(&root.2).unwrap());
    let mut service = service([Enrollment::group("line", attestation)]);
    let der = leaf(params("dev-1", false), &root);
    let chain = [der.clone()];
    let who =
        service.authenticate(now(), SCOPE, "dev-1", Credential::Certificates(&chain)).unwrap();
    let reply = service.register(now(), &who, Ok(plain()));
    let x509 = &body(&reply)["registrationState"]["x509"];
    assert_eq!(x509["enrollmentGroupId"], "line");
    let info = &x509["certificateInfo"];
    assert_eq!(info["subjectName"], "CN=dev-1");
    assert_eq!(info["issuerName"], "CN=root");
    assert_eq!(info["sha256Thumbprint"], Thumbprint::of_der(&der).to_string());
    assert_eq!(info["sha1Thumbprint"].as_str().unwrap().len(), 40);
    assert_eq!(info["notAfterUtc"], "2025-01-11T00:00:00.000Z");
    assert_eq!(info["version"], 3);
}

/// A device's certificate of version 1, as `openssl x509 -req` makes it.
#[test]
fn certificates_without_extensions_are_judged_too() {
    let pem = |name: &str| {
        let path = format!("{}/tests/fixtures/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let der = |name: &str| CertificateDer::from_pem_slice(pem(name).as_bytes()).unwrap();
    let (root, middle, device) = (der("old-root"), der("old-middle"), der("old-device"));
    let of = |name: &str| {
        let attestation = GroupAttestation::x509(CaCertificates::from_pem(&pem(name)).unwrap());
        service([Enrollment::group("line", attestation)])
    };
    let taken = Ok("line".to_owned());
    let not_found = refused("CA certificate not found.");
    assert_eq!(shown(&of("old-root"), "dev-1", &[&device, &middle]), taken);
    assert_eq!(shown(&of("old-root"), "dev-1", &[&device, &middle, &root]), taken);
    assert_eq!(shown(&of("old-middle"), "dev-1", &[&device]), taken);
    assert_eq!(shown(&of("old-root"), "dev-1", &[&device]), not_found);
    assert_eq!(shown(&of("old-root"), "dev-1", &[&device, &root]), not_found);
    assert_eq!(
        shown(&of("old-root"), "dev-2", &[&device, &middle]),
        refused("Invalid certificate")
    );

    // The same names, other keys.
    let root = ca(params("old root", true), None);
    let foreign = ca(params("old middle", true), Some(&root));
    assert_eq!(shown(&of("old-root"), "dev-1", &[&device, &foreign.1]), not_found);
    let attestation = GroupAttestation::x509(CaCertificates::from_pem(&foreign.2).unwrap());
    let strange = service([Enrollment::group("line", attestation)]);
    assert_eq!(shown(&strange, "dev-1", &[&device]), not_found);
}

/// The same certificate in version 1: without the field that says the version, which is 5 bytes, signed anew.
fn in_version_1(mut params: CertificateParams, issuer: &Ca) -> CertificateDer<'static> {
    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    }
    params.use_authority_key_identifier_extension = false;
    params.extended_key_usages.clear();
    let der = leaf(params, issuer);
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(parsed.extensions().is_empty());
    let version = [0xa0, 3, 2, 1, 2];
    let signed: &[u8] = parsed.tbs_certificate.as_ref();
    let at = signed.windows(5).position(|bytes| bytes == version).unwrap();
    let signed = tagged(0x30, &signed[at + 5..]);
    let signature = tagged(3, &[vec![0], issuer.0.key().sign(&signed).unwrap()].concat());
    let ecdsa_with_sha256 = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    tagged(0x30, &[&signed, &ecdsa_with_sha256[..], &signature].concat()).into()
}

#[test]
fn chains_are_judged_by_the_same_rules_whatever_the_version_of_the_leaf() {
    let taken = Ok("line".to_owned());
    let (not_found, invalid) =
        (refused("CA certificate not found."), refused("Invalid certificate"));
    type Change = fn(&mut CertificateParams);
    fn limit(params: &mut CertificateParams, most: u8) {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
    }
    fn constrain(params: &mut CertificateParams, names: NameConstraints) {
        params.name_constraints = Some(names);
    }
    fn names(other: bool) -> Vec<GeneralSubtree> {
        let mut name = rcgen::DistinguishedName::new();
        name.push(DnType::OrganizationName, if other { "other" } else { "ours" });
        vec![GeneralSubtree::DirectoryName(name)]
    }
    let as_it_is: Change = |_| ();
    let no_cert_sign: Change = |ca| ca.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // What the root and the two CAs below it are, and what comes of a leaf below the last of them.
    let rows: [(&str, [Change; 3], &Shown); 17] = [
        ("as it is", [as_it_is; 3], &taken),
        ("with keyCertSign", [|ca| ca.key_usages = vec![KeyUsagePurpose::KeyCertSign]; 3], &taken),
        ("the root has no keyCertSign", [no_cert_sign, as_it_is, as_it_is], &invalid),
        ("the first has no keyCertSign", [as_it_is, no_cert_sign, as_it_is], &invalid),
        ("the last has no keyCertSign", [as_it_is, as_it_is, no_cert_sign], &invalid),
        ("path lengths fit", [|ca| limit(ca, 2), |ca| limit(ca, 1), |ca| limit(ca, 0)], &taken),
        ("the root's path length", [|ca| limit(ca, 1), as_it_is, as_it_is], &invalid),
        ("a path length of 0", [as_it_is, |ca| limit(ca, 0), as_it_is], &invalid),
        (
            "a CA for servers",
            [as_it_is, as_it_is, |ca| {
                ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }],
            &invalid,
        ),
        (
            "a CA for clients",
            [as_it_is, as_it_is, |ca| {
                ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }],
            &taken,
        ),
        (
            "only other names",
            [as_it_is, as_it_is, |ca| {
                let names =
                    NameConstraints { permitted_subtrees: names(true), excluded_subtrees: vec![] };
                constrain(ca, names);
            }],
            &invalid,
        ),
        (
            "no such names",
            [as_it_is, as_it_is, |ca| {
                let names =
                    NameConstraints { permitted_subtrees: vec![], excluded_subtrees: names(false) };
                constrain(ca, names);
            }],
            &invalid,
        ),
        ("no CA", [as_it_is, as_it_is, |ca| ca.is_ca = IsCa::ExplicitNoCa], &invalid),
        ("an old CA", [as_it_is, |ca| ca.not_after = (now() - DAY).into(), as_it_is], &invalid),
        ("a young CA", [as_it_is, as_it_is, |ca| ca.not_before = (now() + DAY).into()], &invalid),
        (
            "a critical extension",
            [as_it_is, as_it_is, |ca| {
                let mut odd = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![5, 0]);
                odd.set_criticality(true);
                ca.custom_extensions = vec![odd];
            }],
            &invalid,
        ),
        ("an old root", [|ca| ca.not_after = (now() - DAY).into(), as_it_is, as_it_is], &not_found),
    ];
    for (kind, [root, first, last], expected) in rows {
        let made = |name: &str, change: Change, issuer: Option<&Ca>| {
            let mut params = params(name, true);
            change(&mut params);
            ca(params, issuer)
        };
        let root = made("root", root, None);
        let first = made("first", first, Some(&root));
        let last = made("last", last, Some(&first));
        let attestation = GroupAttestation::x509(CaCertificates(vec![root.1.clone()]));
        let service = service([Enrollment::group("line", attestation)]);
        let leaves =
            [leaf(params("dev-1", false), &last), in_version_1(params("dev-1", false), &last)];
        for (version, leaf) in [3, 1].into_iter().zip(&leaves) {
            let case = format!("{kind}, version {version}");
            for chain in [[leaf, &last.1, &first.1], [leaf, &first.1, &last.1]] {
                assert_eq!(&shown(&service, "dev-1", &chain), expected, "{case}");
            }
            assert!(shown(&service, "dev-1", &[leaf, &last.1]).is_err(), "{case}, one missing");
        }
    }
}

/// SHA-1 with RSA, in version 3 and in version 1, as `openssl ca -md sha1` makes them.
#[test]
fn a_signature_with_sha_1_proves_nothing() {
    let read = |name: &str| {
        let path = format!("{}/tests/fixtures/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let root = CaCertificates::from_pem(&read("sha1-root")).unwrap();
    let service = service([Enrollment::group("line", GroupAttestation::x509(root))]);
    for (name, version) in [("sha1-device-1", 0), ("sha1-device-3", 2)] {
        let der = CertificateDer::from_pem_slice(read(name).as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(parsed.version().0, version);
        assert_eq!(shown(&service, "dev-1", &[&der]), refused("Invalid certificate"), "{name}");
    }
}
