//! Secrets where they don't belong, or damaged: the error says what is wrong and repeats nothing.

use std::{fmt::Debug, fs, path::Path, time::SystemTime};

use dps_client::{
    Endpoint, Error, GroupKey, Proxy, Roots, SymmetricKey, SymmetricKeyFile, X509Files,
    X509Identity,
};

use crate::{
    canaries::{DEVICE_KEY, EC_KEY, Factory, GROUP_KEY, PROXY_PASSWORD, RSA_KEY, canaries},
    capture::{mark, show, show_error, since},
};

fn refused<T: Debug>(outcome: Result<T, Error>) {
    show_error(&outcome.unwrap_err());
}

pub(crate) fn run() {
    let (started, mark) = (SystemTime::now(), mark());
    keys();
    certificates();
    proxies();
    files();
    emulator();
    let output = since(mark);
    let id_scope = "0ne00AABBCC".parse().unwrap();
    canaries(&id_scope, started).assert_absent("a wrong setting", &output);
}

/// Ways in which a key is damaged.
fn damaged(key: &str) -> Vec<String> {
    vec![
        format!("{key}*"),
        format!("*{key}"),
        format!("{key}{key}"),
        key.get(..41).unwrap().to_owned(),
        format!("-{}", key.get(1..).unwrap()),
        format!("{} {}", key.get(..20).unwrap(), key.get(20..).unwrap()),
        format!("\"{key}\""),
        format!("HostName=h;DeviceId=d;SharedAccessKey={key}"),
        EC_KEY.to_owned(),
    ]
}

fn keys() {
    for key in damaged(DEVICE_KEY) {
        refused(key.parse::<SymmetricKey>());
    }
    for key in damaged(GROUP_KEY) {
        refused(key.parse::<GroupKey>());
    }
}

fn certificates() {
    let factory = Factory::new();
    for key in [EC_KEY, RSA_KEY] {
        let certificate = factory.certificate(key);
        let take = |certificate: &str, key: &str| {
            // What is damaged without harm may be taken.
            match X509Identity::from_pem(certificate.as_bytes(), key.as_bytes()) {
                Ok(identity) => show(&identity),
                Err(error) => show_error(&error),
            }
        };
        take(key, &certificate);
        take(key, key);
        take(&certificate, &format!("{key}{key}"));
        take(&certificate, DEVICE_KEY);
        for (broken, by) in [("PRIVATE KEY", "SECRET KEY"), ("END", "DNE"), ("\n", ""), ("M", "*")]
        {
            take(&certificate, &key.replace(broken, by));
        }
        let lines: Vec<_> = key.lines().collect();
        for cut in 0..lines.len() {
            let rest = [lines.get(..cut).unwrap(), lines.get(cut + 1..).unwrap()].concat();
            take(&certificate, &rest.join("\n"));
        }
        let other = if key == EC_KEY { RSA_KEY } else { EC_KEY };
        take(&certificate, other);
        refused(Roots::empty().with_pem(key.as_bytes()));
        refused(Roots::empty().with_der(key.as_bytes()));
    }
}

fn proxies() {
    let password = PROXY_PASSWORD;
    for url in [
        format!("http://user:{password}@"),
        format!("http://user:{password}@host:99999"),
        format!("http://user:{password}@ho st"),
        format!("socks5://user:{password}@host"),
        format!("https://user:{password}@host:1"),
        format!("http://us%3Aer:{password}@host"),
        format!("http://user:{password}%FF@host"),
        format!("http://user:{password}%0A@host"),
        format!("user:{password}@host:port"),
        format!("http:/user:{password}@host"),
        format!("http//user:{password}@host:1"),
    ] {
        match url.parse::<Proxy>() {
            Ok(proxy) => show(&proxy),
            Err(error) => show_error(&error),
        }
        // Who gives the proxy for the service.
        if let Err(error) = url.parse::<Endpoint>() {
            show_error(&error);
        }
    }
}

fn files() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("secrets-misplaced");
    fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key"));
    let factory = Factory::new();
    // Wrong at first, and wrong later.
    for damaged in damaged(DEVICE_KEY) {
        fs::write(&key, &damaged).unwrap();
        refused(SymmetricKeyFile::open(&key));
        fs::write(&key, "c2VjcmV0IGtleSBvZiBwdW1wLTE3").unwrap();
        let file = SymmetricKeyFile::open(&key).unwrap();
        fs::write(&key, &damaged).unwrap();
        assert_eq!(*file.current().expose_base64(), "c2VjcmV0IGtleSBvZiBwdW1wLTE3", "{damaged:?}");
    }
    fs::write(&certificate, factory.certificate(EC_KEY)).unwrap();
    fs::write(&key, EC_KEY).unwrap();
    let files = X509Files::open(&certificate, &key).unwrap();
    for (first, second) in [(EC_KEY, RSA_KEY), (RSA_KEY, EC_KEY)] {
        fs::write(&certificate, first).unwrap();
        fs::write(&key, second).unwrap();
        refused(X509Files::open(&certificate, &key));
        show(&files.current());
    }
}

fn emulator() {
    for key in damaged(GROUP_KEY) {
        let lines = [
            format!("symmetric-key = {key:?}"),
            format!("symmetric-key = {key}"),
            format!("symmetric-key = \"{key}"),
            format!("symmetric-key = [\"{key}\"]"),
            format!("symmetrickey = \"{key}\""),
            format!("\"{key}\" = 1"),
            format!("ca = {key:?}"),
        ];
        for line in lines {
            let toml = format!("[[enrollment]]\ngroup = \"factory\"\n{line}\n");
            if let Err(error) = dps_emulator::Config::from_toml(&toml) {
                show_error(&error);
            }
        }
        if let Err(error) = key.parse::<dps_emulator::SymmetricKey>() {
            show_error(&error);
        }
    }
}
