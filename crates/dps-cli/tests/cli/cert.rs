//! `dps cert`: what it tells of a stored certificate, and the exit codes that a timer goes by.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use dps_client::CertificateFolder;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::support::{Ended, Folder, dps, keys, run, sorted, text};

const HOUR: Duration = Duration::from_secs(3600);

/// Stores a certificate of `pump-17` that was issued so long ago for so long.
pub(crate) fn store(folder: &Folder, issued_ago: Duration, life: Duration) -> CertificateFolder {
    let named = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut authority = named("Issuing CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let mut device = named("pump-17");
    let issued_at = SystemTime::now() - issued_ago;
    device.not_before = issued_at.into();
    device.not_after = (issued_at + life).into();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = device.signed_by(&key, &issuer).unwrap();
    let stored = CertificateFolder::open(folder.path("certificate")).unwrap();
    let chain = certificate.pem() + &root.pem();
    stored.store(&chain, Some(&key.serialize_pem())).unwrap();
    stored
}

fn cert(arguments: &[&str]) -> Ended {
    run(dps(&["cert"]).args(arguments))
}

#[test]
fn status_tells_the_names_the_dates_the_chain_and_when_it_is_due() {
    let folder = Folder::new();
    let stored = store(&folder, 30 * HOUR, 40 * HOUR);
    let path = folder.path("certificate");
    let ended = cert(&["status", "--json", &path]);
    let status = ended.json();
    let names = [
        "subject",
        "issuer",
        "notBefore",
        "notAfter",
        "lifeUsed",
        "daysLeft",
        "renewalDue",
        "renewalDueAt",
        "chain",
        "chainFile",
        "keyFile",
        "keyFits",
    ];
    assert_eq!((ended.code, keys(&status)), (0, sorted(names)), "{status}");
    assert_eq!(text(&status, "subject"), "CN=pump-17");
    assert_eq!(text(&status, "issuer"), "CN=Issuing CA");
    assert_eq!((&status["lifeUsed"], &status["daysLeft"]), (&0.75.into(), &0.4.into()));
    assert_eq!((&status["renewalDue"], &status["keyFits"]), (&true.into(), &true.into()));
    assert!(text(&status, "renewalDueAt") < text(&status, "notAfter"), "{status}");
    assert_eq!(text(&status, "chainFile"), format!("{path}/chain.pem"));
    assert_eq!(text(&status, "keyFile"), format!("{path}/key.pem"));
    let chain = status["chain"].as_array().unwrap();
    let subjects: Vec<_> = chain.iter().map(|one| text(one, "subject")).collect();
    assert_eq!(subjects, ["CN=pump-17", "CN=Issuing CA"]);
    assert_eq!(keys(&chain[1]), sorted(["subject", "issuer", "notBefore", "notAfter"]));

    let lines = cert(&["status", &path]);
    for line in [
        "subject     CN=pump-17\n",
        "issuer      CN=Issuing CA\n",
        "life used   75 %, 0.4 days left\n",
        "renewal     due since ",
        &format!("chain       CN=pump-17, CN=Issuing CA ({path}/chain.pem)\n"),
        &format!("key         {path}/key.pem, fits the certificate\n"),
    ] {
        assert!(lines.stdout.contains(line), "{line:?}: {}", lines.stdout);
    }

    let other = KeyPair::generate().unwrap().serialize_pem();
    fs::write(stored.key_path(), other).unwrap();
    let status = cert(&["status", "--json", &path]).json();
    assert_eq!(status["keyFits"], false, "{status}");
    let lines = cert(&["status", &path]).stdout;
    assert!(lines.contains("key.pem, does not fit the certificate\n"), "{lines}");
}

#[test]
fn needs_renewal_says_it_by_its_exit_code() {
    let folder = Folder::new();
    let path = folder.path("certificate");
    for (ago, within, code) in [
        (65, None, 1),
        (71, None, 0),
        (150, None, 0),
        (50, Some("0.45"), 0),
        (50, Some("0.55"), 1),
        (50, Some("0"), 0),
        (1, Some("0"), 0),
        (99, Some("1"), 1),
        (101, Some("1"), 0),
    ] {
        store(&folder, HOUR * ago, HOUR * 100);
        let arguments: Vec<&str> = within.map_or(vec![], |within| vec!["--within", within]);
        let ended = cert(&[&["needs-renewal", &path], &arguments[..]].concat());
        let says = if code == 0 { "due since " } else { "not due before " };
        assert_eq!(ended.code, code, "{ago} {within:?}: {ended:?}");
        assert!(ended.stdout.starts_with(says), "{ended:?}");
        let ended = run(dps(&["cert", "needs-renewal", "--json", &path])
            .env("DPS_WITHIN", within.unwrap_or_default()));
        let due = ended.json();
        assert_eq!((ended.code, &due["renewalDue"]), (code, &(code == 0).into()), "{due}");
        assert_eq!(keys(&due), ["renewalDue", "renewalDueAt"]);
    }
}

#[test]
fn a_certificate_whose_time_has_not_come_is_said_not_to_be_valid() {
    let folder = Folder::new();
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2999, 1, 1);
    params.not_after = rcgen::date_time_ymd(2999, 2, 1);
    let key = KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let path = folder.path("certificate");
    CertificateFolder::open(&path).unwrap().store(&chain, Some(&key.serialize_pem())).unwrap();
    let lines = cert(&["status", &path]).stdout;
    assert!(lines.contains("life used   0 %, not valid yet"), "{lines}");
}

#[test]
fn what_can_not_be_told_is_an_error_that_no_timer_takes_for_an_answer() {
    let folder = Folder::new();
    let path = folder.path("certificate");
    store(&folder, HOUR, HOUR * 2);
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    let file = folder.file("file", "x");
    let foreign = folder.path("foreign");
    fs::create_dir_all(format!("{foreign}/current")).unwrap();
    for (arguments, says) in [
        (vec![empty.as_str()], "empty\\\": no certificate was stored in it yet"),
        (vec!["/no/such"], "/no/such\\\": no certificate was stored in it yet"),
        (vec![""], "the path is empty"),
        (vec![&file], "it is no folder"),
        (vec![&foreign], "current\\\": it was put there by something else"),
        (vec![&path, "--within", "2"], "--within \\\"2\\\": give a number from 0 to 1"),
        (vec![&path, "--within", "-0.1"], "give a number from 0 to 1"),
        (vec![&path, "--within", "nan"], "give a number from 0 to 1"),
        (vec![&path, "--within", "soon"], "give a number from 0 to 1"),
    ] {
        let needs = cert(&[&["needs-renewal", "--json"], &arguments[..]].concat());
        let error = needs.failed("configuration");
        let says = says.replace("\\\"", "\"");
        assert!(text(&error, "message").contains(&says), "{says}: {error}");
        if arguments.len() == 1 {
            let status = cert(&["status", arguments[0]]);
            assert!(status.code == 2 && status.stderr.contains(&says), "{status:?}");
        }
    }
    assert_eq!((cert(&["status"]).code, cert(&["needs-renewal"]).code), (2, 2));
}
