//! Certificates with which nothing is wrong, though it may look so.

use rcgen::{
    BasicConstraints, GeneralSubtree, IsCa, KeyPair, NameConstraints, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, date_time_ymd,
};

use crate::make::{Authority, Presented, dns};

macro_rules! fixture {
    ($name:literal) => {
        Presented::fixture(
            include_str!(concat!("data/", $name, ".server.pem")),
            include_str!(concat!("data/", $name, ".ca.pem")),
        )
    };
}
pub(crate) use fixture;

pub(crate) fn cases() -> Vec<(&'static str, Presented)> {
    let root = Authority::root("Root CA");
    let key = |algorithm| KeyPair::generate_for(algorithm).unwrap();
    let line = root.intermediate_with("Line CA", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![
                GeneralSubtree::DnsName("localhost".into()),
                GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4([127, 0, 0, 0], [255, 0, 0, 0])),
            ],
            excluded_subtrees: vec![],
        });
    });
    // A root is trusted because it is in the list: its own dates are not looked at.
    let old = Authority::root_with("Old CA", |params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2010, 1, 1);
    });
    let many = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names = vec![dns("*.example"), dns("localhost"), dns("other.example")];
    };
    vec![
        ("good_under_a_root", Presented::new(root.server(), &root)),
        ("good_for_an_address", Presented::new(root.server(), &root).to("127.0.0.1")),
        ("good_under_a_constrained_intermediate", {
            Presented::through(line.server(), [&line], &root)
        }),
        ("good_with_the_root_sent_along", {
            Presented::through(line.server(), [&line, &root], &root)
        }),
        ("good_with_a_stranger_sent_along", {
            Presented::through(line.server(), [&Authority::root("Foreign"), &line], &root)
        }),
        ("good_under_an_expired_root", Presented::new(old.server(), &old)),
        ("good_among_other_names", Presented::new(root.server_with(many), &root)),
        ("good_on_p384", {
            Presented::new(root.server_with_key(key(&PKCS_ECDSA_P384_SHA384), |_| ()), &root)
        }),
        ("good_on_ed25519", {
            Presented::new(root.server_with_key(key(&PKCS_ED25519), |_| ()), &root)
        }),
        ("good_by_openssl", fixture!("good")),
    ]
}
