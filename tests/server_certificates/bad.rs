//! Everything that can be wrong with a server's certificate.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyPair, NameConstraints, date_time_ymd,
};

use crate::{
    Case,
    good::fixture,
    make::{Authority, Issued, Presented, der_of, dns, ip},
};

pub(crate) fn cases() -> Vec<Case> {
    [dates(), names(), issuers(), chains(), purposes(), signatures(), damage()]
        .into_iter()
        .flatten()
        .collect()
}

fn case(
    name: &'static str,
    says: &'static str,
    advises: &'static str,
    presented: Presented,
) -> Case {
    Case { name, presented, says, advises }
}

/// A certificate with something changed, directly under a trusted root.
fn changed(change: impl FnOnce(&mut CertificateParams)) -> Presented {
    let root = Authority::root("Root CA");
    Presented::new(root.server_with(change), &root)
}

/// A good certificate under an intermediate with something changed.
fn changed_intermediate(change: impl FnOnce(&mut CertificateParams)) -> Presented {
    let root = Authority::root("Root CA");
    let line = root.intermediate_with("Line CA", change);
    Presented::through(line.server(), [&line], &root)
}

fn long_ago(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2015, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 1);
}

fn far_ahead(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2200, 1, 1);
    params.not_after = date_time_ymd(2300, 1, 1);
}

fn dates() -> Vec<Case> {
    const EXPIRED: &str = "has expired ";
    const YOUNG: &str = "is not valid yet; it will be in ";
    vec![
        case("expired", EXPIRED, "renewed", changed(long_ago)),
        case("not_yet_valid", YOUNG, "clock", changed(far_ahead)),
        case(
            "intermediate_expired",
            EXPIRED,
            "authority that the server sends",
            changed_intermediate(long_ago),
        ),
        case("intermediate_not_yet_valid", YOUNG, "clock", changed_intermediate(far_ahead)),
    ]
}

fn names() -> Vec<Case> {
    let called = |names: Vec<rcgen::SanType>| changed(|params| params.subject_alt_names = names);
    const ELSEWHERE: &str = "something in between may answer";
    const SAN: &str = "subjectAltName";
    vec![
        case(
            "for_another_host",
            "is not for localhost, but for other.example, www.other.example",
            ELSEWHERE,
            called(vec![dns("other.example"), dns("www.other.example")]),
        ),
        case(
            "for_another_address",
            "is not for 127.0.0.1, but for 127.0.0.2",
            ELSEWHERE,
            called(vec![ip("127.0.0.2")]).to("127.0.0.1"),
        ),
        case(
            "for_a_name_instead_of_the_address",
            "is not for 127.0.0.1, but for localhost",
            ELSEWHERE,
            called(vec![dns("localhost")]).to("127.0.0.1"),
        ),
        case(
            "for_an_address_instead_of_the_name",
            "is not for localhost, but for 127.0.0.1",
            ELSEWHERE,
            called(vec![ip("127.0.0.1")]),
        ),
        case(
            "for_the_address_as_a_name",
            "is not for 127.0.0.1, but for ",
            ELSEWHERE,
            called(vec![dns("127.0.0.1")]).to("127.0.0.1"),
        ),
        case("common_name_only", "is not for localhost, but names nobody", SAN, called(vec![])),
        case(
            "wildcard_of_another_level",
            "is not for localhost, but for *.localhost",
            ELSEWHERE,
            called(vec![dns("*.localhost")]),
        ),
        case("wildcard_of_everything", "is not for localhost", ELSEWHERE, called(vec![dns("*")])),
        case(
            "wildcard_within_a_label",
            "is not for localhost",
            ELSEWHERE,
            called(vec![dns("local*"), dns("*host")]),
        ),
        case(
            "for_many_others",
            "is not for localhost, but for h0.example, h1.example, h2.example, h3.example, h4.example, and 95 more",
            ELSEWHERE,
            called((0..100).map(|number| dns(&format!("h{number}.example"))).collect()),
        ),
    ]
}

fn issuers() -> Vec<Case> {
    const UNKNOWN: &str = "comes from an unknown authority (CA)";
    const ADD: &str = "add its authority's certificate to the roots";
    let (root, foreign) = (Authority::root("Root CA"), Authority::root("Foreign"));
    let impostor = Authority::root("Root CA");
    let line = root.intermediate("Line CA");
    let alone = Issued::self_signed();
    let own =
        || root.server_with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    vec![
        case("self_signed", UNKNOWN, ADD, {
            Presented {
                host: "localhost",
                key: der_of(&alone.key),
                chain: vec![alone.der],
                roots: vec![root.der.clone()],
            }
        }),
        case("unknown_ca", UNKNOWN, ADD, Presented::new(foreign.server(), &root)),
        case("unknown_ca_sent_along", UNKNOWN, ADD, {
            Presented::through(foreign.server(), [&foreign], &root)
        }),
        case(
            "known_ca_name_with_another_key",
            "a signature that does not fit: it comes from an unknown authority (CA) with a known name",
            "even if one of the same name is there",
            Presented::new(impostor.server(), &root),
        ),
        case(
            "intermediate_missing",
            UNKNOWN,
            "must send those between",
            Presented::new(line.server(), &root),
        ),
        case(
            "wrong_intermediate",
            "a signature that does not fit",
            ADD,
            Presented::through(line.server(), [&root.intermediate("Line CA")], &root),
        ),
        case(
            "ca_as_server",
            "is that of an authority (CA), not a server's",
            "replaced",
            Presented::new(own(), &root),
        ),
    ]
}

fn chains() -> Vec<Case> {
    const CHAIN: &str = "or those of its authorities";
    let root = Authority::root("Root CA");
    let short = root.intermediate_with("Short CA", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let below = short.intermediate("Below CA");
    let mut deep = vec![root.intermediate("CA 0")];
    for number in 1..9 {
        deep.push(deep.last().unwrap().intermediate(&format!("CA {number}")));
    }
    let lowest = deep.last().unwrap().server();
    let constrained = |permitted: &[&str], excluded: &[&str]| {
        let subtrees = |names: &[&str]| {
            names.iter().map(|name| GeneralSubtree::DnsName((*name).to_owned())).collect()
        };
        let constraints = NameConstraints {
            permitted_subtrees: subtrees(permitted),
            excluded_subtrees: subtrees(excluded),
        };
        changed_intermediate(|params| params.name_constraints = Some(constraints))
    };
    const MAY_NOT: &str = "has a name that its authority (CA) may not vouch for";
    vec![
        case(
            "intermediate_is_no_ca",
            "was issued by a certificate that is no authority's (CA)",
            CHAIN,
            changed_intermediate(|params| params.is_ca = IsCa::ExplicitNoCa),
        ),
        case(
            "intermediate_does_not_say_that_it_is_a_ca",
            "was issued by a certificate that is no authority's (CA)",
            CHAIN,
            changed_intermediate(|params| params.is_ca = IsCa::NoCa),
        ),
        case(
            "path_too_long",
            "is further from its authority (CA) than that one allows",
            CHAIN,
            Presented::through(below.server(), [&below, &short], &root),
        ),
        case(
            "chain_too_deep",
            "comes through too many authorities (CAs)",
            CHAIN,
            Presented::through(lowest, deep.iter().rev(), &root),
        ),
        case("name_not_permitted", MAY_NOT, CHAIN, constrained(&["example"], &[])),
        case("name_excluded", MAY_NOT, CHAIN, constrained(&[], &["localhost"])),
    ]
}

fn purposes() -> Vec<Case> {
    let only = |purposes: Vec<ExtendedKeyUsagePurpose>| {
        changed(|params| params.extended_key_usages = purposes)
    };
    const NOT: &str = "is not made for servers";
    vec![
        case(
            "for_clients_only",
            "is not made for servers, only for clients",
            "replaced",
            only(vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
        case("for_code_only", NOT, "replaced", only(vec![ExtendedKeyUsagePurpose::CodeSigning])),
        case("for_any_purpose_only", NOT, "replaced", only(vec![ExtendedKeyUsagePurpose::Any])),
        case(
            "intermediate_for_clients_only",
            NOT,
            "replaced",
            changed_intermediate(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
    ]
}

fn signatures() -> Vec<Case> {
    const WEAK: &str = "is signed in a way that is not secure, or not known here";
    const SHA256: &str = "signed anew with SHA-256";
    const WRONG: &str = "has a signature that does not fit";
    let root = Authority::root("Root CA");
    let good = || Presented::new(root.server(), &root);
    let mut keyless = good();
    keyless.key = der_of(&KeyPair::generate().unwrap());
    vec![
        case("sha1_with_rsa", "not known here (SHA-1 with RSA)", SHA256, fixture!("sha1-rsa")),
        case("md5_with_rsa", "not known here (MD5 with RSA)", SHA256, fixture!("md5-rsa")),
        case(
            "sha1_with_ecdsa",
            "not known here (SHA-1 with ECDSA)",
            SHA256,
            fixture!("sha1-ecdsa"),
        ),
        case("ca_on_p521", WEAK, SHA256, fixture!("p521")),
        case("ca_with_rsa_of_1024_bits", WRONG, "RSA keys need 2048 bits", fixture!("rsa1024")),
        case("changed_afterwards", WRONG, "roots", {
            // Another letter in its common name.
            good().leaf(|der| {
                let name = der.windows(9).rposition(|bytes| bytes == b"localhost").unwrap();
                *der.get_mut(name).unwrap() = b'L';
            })
        }),
        case("signature_changed", WRONG, "roots", {
            good().leaf(|der| *der.last_mut().unwrap() ^= 1)
        }),
        case("without_its_key", WRONG, "roots", keyless),
    ]
}

fn damage() -> Vec<Case> {
    const NONE: &str = "is damaged, or no certificate at all";
    const REPLACE: &str = "replaced";
    let extended = |oid: &[u64], content: &[u8], critical: bool| {
        let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
        extension.set_criticality(critical);
        changed(|params| {
            params.is_ca = IsCa::NoCa;
            params.custom_extensions.push(extension);
        })
    };
    let root = Authority::root("Root CA");
    let good = || Presented::new(root.server(), &root);
    let mut nothing = good();
    nothing.chain.clear();
    vec![
        case(
            "unknown_critical_extension",
            "has a critical extension that is not known here",
            REPLACE,
            extended(&[1, 3, 6, 1, 4, 1, 55555, 1], b"\x05\x00", true),
        ),
        case("damaged_extension", NONE, REPLACE, extended(&[2, 5, 29, 19], b"no DER", true)),
        case("version_1", "is of an old version of X.509", REPLACE, fixture!("version1")),
        case("garbage", NONE, REPLACE, good().leaf(|der| *der = b"no certificate".to_vec())),
        case("empty", NONE, REPLACE, good().leaf(Vec::clear)),
        case("cut_off", NONE, REPLACE, good().leaf(|der| der.truncate(der.len() / 2))),
        case("followed_by_more", NONE, REPLACE, good().leaf(|der| der.push(0))),
        case("none_at_all", "sent no certificate", REPLACE, nothing),
    ]
}
