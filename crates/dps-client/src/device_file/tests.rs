use super::*;

fn parse(text: &str) -> Result<DeviceFile, Error> {
    DeviceFile::parse(text, "conf/dps.toml")
}

fn says(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The example with every key in use.
fn all_keys() -> String {
    let is_key = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'-' | b'0'..=b'9'))
    };
    let lines = DeviceFile::EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(bare) if is_key(bare) => bare,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_has_every_key_and_is_a_good_file_with_all_of_them() {
    assert!(parse(DeviceFile::EXAMPLE).unwrap().values().is_empty());
    let file = parse(&all_keys()).unwrap();
    let mut given: Vec<_> = file.values().iter().map(FileValue::key).collect();
    let mut known: Vec<_> = DeviceFile::keys().collect();
    given.sort_unstable();
    known.sort_unstable();
    assert_eq!(given, known);
    assert_eq!(known.iter().zip(known.iter().skip(1)).find(|(a, b)| a == b), None);
}

#[test]
fn a_value_is_as_its_flag_takes_it_and_says_where_it_stands() {
    let file = parse(
        "\u{feff}# a comment\r\nid-scope = '0ne1'\r\ntimeout = 1.5\r\npoll-floor=0\nforce = true\nconnect = false\n\
         ca-file = \"ca.pem\"\nsymmetric-key-file = [\"a.key\", \"/b.key\", \"-\"]\nkey = \"tpm:0x81000002\"\n\
         tpm-storage-handle = 0x81000001\npkcs11-module = \"libsofthsm2.so\"\npayload.site = \"north\"\n[payload.at]\n\
         floor = 3\nday = 2026-01-02\nlist = [1, 0.5, true]\n",
    )
    .unwrap();
    for (key, line, texts) in [
        ("id-scope", 2, &["0ne1"][..]),
        ("timeout", 3, &["1.5"]),
        ("poll-floor", 4, &["0"]),
        ("force", 5, &["true"]),
        ("connect", 6, &["false"]),
        ("ca-file", 7, &["conf/ca.pem"]),
        ("symmetric-key-file", 8, &["conf/a.key", "/b.key", "-"]),
        ("key", 9, &["tpm:0x81000002"]),
        ("tpm-storage-handle", 10, &["0x81000001"]),
        ("pkcs11-module", 11, &["libsofthsm2.so"]),
        (
            "payload",
            12,
            &[r#"{"at":{"day":"2026-01-02","floor":3,"list":[1,0.5,true]},"site":"north"}"#],
        ),
    ] {
        let value = file.get(key).unwrap();
        assert_eq!(
            (value.line(), value.texts()),
            (line, &texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()[..]),
            "{key}"
        );
        assert_eq!(value.place(), format!("conf/dps.toml:{line}: {key}"));
    }
    for (given, read) in [
        ("pkcs11:object=k", "pkcs11:object=k"),
        ("pkcs11:object=k?pin-source=file:pin", "pkcs11:object=k?pin-source=file:my%20conf/pin"),
        ("pkcs11:object=k?x=1&pin-source=|pin", "pkcs11:object=k?x=1&pin-source=|pin"),
        ("pkcs11:object=k?pin-source=file:/pin", "pkcs11:object=k?pin-source=file:/pin"),
        ("pkcs11:object=k?module-path=lib/m.so", "pkcs11:object=k?module-path=my%20conf/lib/m.so"),
        ("pkcs11:object=k?module-path=m.so", "pkcs11:object=k?module-path=m.so"),
    ] {
        let file = DeviceFile::parse(&format!("key = \"{given}\""), "my conf/dps.toml").unwrap();
        assert_eq!(file.get("key").unwrap().text(), read);
    }
    let by_file = parse("payload = \"@p.json\"").unwrap();
    assert_eq!(by_file.get("payload").unwrap().text(), "@conf/p.json");
}

#[test]
fn what_can_not_be_used_is_named_with_its_line_and_what_to_do() {
    for (text, message) in [
        ("\n\nid-scope = \"0ne 1\"", "conf/dps.toml:3: id-scope \"0ne 1\": "),
        ("registration-id = \"a b\"", "conf/dps.toml:1: registration-id \"a b\": "),
        (
            "transport = \"pigeon\"",
            "conf/dps.toml:1: transport \"pigeon\": there is no such transport; choose from http",
        ),
        ("transport = 1", "conf/dps.toml:1: transport \"1\": give a text in quotes"),
        ("endpoint = \"https://h\"", "conf/dps.toml:1: endpoint \"https://h\": "),
        ("proxy = \"ftp://h\"", "conf/dps.toml:1: proxy \"ftp://h\": "),
        ("timeout = 0", "conf/dps.toml:1: timeout \"0\": give a number of seconds above 0"),
        ("timeout = -1.5", "conf/dps.toml:1: timeout \"-1.5\": "),
        ("timeout = nan", "conf/dps.toml:1: timeout \"nan\": "),
        (
            "timeout = 99999999999999999999999",
            "conf/dps.toml:1: timeout \"99999999999999999999999\": ",
        ),
        ("timeout = \"soon\"", "conf/dps.toml:1: timeout \"soon\": "),
        (
            "poll-floor = 3601",
            "conf/dps.toml:1: poll-floor \"3601\": give a number of seconds from 0",
        ),
        ("force = 1", "conf/dps.toml:1: force \"1\": give true or false"),
        ("force = \"yes\"", "conf/dps.toml:1: force \"yes\": give true or false"),
        ("ca-file = true", "conf/dps.toml:1: ca-file \"true\": give the name of a file"),
        (
            "ca-file = \"\"",
            "conf/dps.toml:1: ca-file: it is empty; give a value, or leave the key out",
        ),
        ("ca-file = [\"a\", \"b\"]", "conf/dps.toml:1: ca-file \"[..]\": give the name of a file"),
        ("cert = \"file:///c.pem\"", "conf/dps.toml:1: cert \"file:///c.pem\": leave file:// out"),
        ("key = [\"file:///k.pem\"]", "conf/dps.toml:1: key \"file:///k.pem\": leave file:// out"),
        ("payload = \"@file:///p\"", "conf/dps.toml:1: payload \"file:///p\": leave file:// out"),
        ("cert = []", "conf/dps.toml:1: cert \"[..]\": the list is empty"),
        ("cert = [1]", "conf/dps.toml:1: cert \"1\": give the name of a file in quotes, or a list"),
        (
            "tpm-storage-handle = -1",
            "conf/dps.toml:1: tpm-storage-handle \"-1\": give a persistent handle",
        ),
        ("tpm-storage-handle = 5", "conf/dps.toml:1: tpm-storage-handle \"5\": give a persistent"),
        ("tpm-storage-handle = 0x81800000", "conf/dps.toml:1: tpm-storage-handle \""),
        ("exec = \"a\\u0000b\"", "conf/dps.toml:1: exec \"a\\0b\": the character U+0000 in it"),
        ("state = \"a\\u0000b\"", "conf/dps.toml:1: state \"a\\0b\": the character U+0000 in it"),
        ("tpm-storage-handle = \"81000001\"", "conf/dps.toml:1: tpm-storage-handle \"81000001\": "),
        ("payload = \"{\"", "conf/dps.toml:1: payload \"{\": "),
        ("payload = 5", "conf/dps.toml:1: payload \"5\": give a table"),
        ("payload = { a = inf }", "conf/dps.toml:1: payload \"{..}\": JSON has no number"),
        ("timeout = 1\ntimeout = 2", "conf/dps.toml:2: this is no TOML: duplicate key"),
        ("id-scope = 0ne1", "conf/dps.toml:1: this is no TOML: "),
        ("timeout = 1\n[registration", "conf/dps.toml:2: this is no TOML: "),
        ("idscope = \"0ne1\"", "conf/dps.toml:1: idscope: there is no such key; id-scope is one"),
        (
            "\nDPS_REGISTRATION_ID = 1",
            "conf/dps.toml:2: DPS_REGISTRATION_ID: there is no such key; registration-id is one",
        ),
        ("timout = 5", "conf/dps.toml:1: timout: there is no such key; timeout is one"),
        (
            "symmetric-key = \"x\"",
            "conf/dps.toml:1: symmetric-key: there is no such key; symmetric-key-file is one",
        ),
        (
            "\"\\u001b[31mre\\nd\" = true",
            "conf/dps.toml:1: \\u{1b}[31mre\\nd: there is no such key; ",
        ),
        (&format!("a{} = 1\n", ".a".repeat(60_000)), "conf/dps.toml: this is no TOML: "),
        ("[device]\nid-scope = \"0ne1\"", "conf/dps.toml:1: device: there is no such key; "),
        (
            "json = true",
            "conf/dps.toml:1: json: there is no such key; the keys are flags of `dps register`",
        ),
    ] {
        let said = says(text);
        assert!(said.starts_with(message), "{text}: {said}");
    }
    let missing = DeviceFile::read("no/such.toml").unwrap_err().to_string();
    assert!(
        missing.starts_with("configuration file \"no/such.toml\": it can't be read: "),
        "{missing}"
    );
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    let key = "c2VjcmV0IGtleSBvZiBwdW1wLTE3AbCdEf012345678901234567890w==";
    let short = "c2VjcmV0IGtleSBvZiBwdQ==";
    let pem = "-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMG\\n-----END PRIVATE KEY-----";
    let connection = format!("HostName=h;DeviceId=d;SharedAccessKey={key}");
    let texts = [
        "ca-file",
        "symmetric-key-file",
        "group-key-file",
        "cert",
        "key",
        "pkcs11-pin-file",
        "request-key",
    ]
    .map(|name| [key, short, pem, &connection].map(|text| format!("{name} = \"{text}\"")));
    let others = [
        "proxy = \"http://me:hidden@proxy:1\"".to_owned(),
        "proxy = \"me:hidden@proxy:1\"".to_owned(),
        "proxy = \"http:/me:hidden@proxy:1\"".to_owned(),
        "proxy = \"http://me:so hidden@proxy:1\"".to_owned(),
        "proxy = \"me:hidden@proxy:99999\"".to_owned(),
        "proxy = \"me:hidden\"".to_owned(),
        "endpoint = \"me:hidden@proxy:1\"".to_owned(),
        "transport = [\"me:hidden@proxy:1\"]".to_owned(),
        "timeout = \"me:hidden@proxy:1\"".to_owned(),
        "key = \"pkcs11:object=k?pin-value=hidden\"".to_owned(),
        format!("key = [\"a\", \"{key}\"]"),
        format!("id-scope = \"{connection}\""),
        format!("registration-id = \"{key}\""),
        format!("endpoint = \"{key}\""),
        format!("timeout = \"{key}\""),
        format!("payload = \"{key}\""),
        format!("connection-string = \"{connection}\""),
        format!("\"{key}\" = 1"),
        format!("\"{key}\" = 1\n\"{key}\" = 2"),
        format!("id-scope = {connection}"),
        connection.clone(),
        key.to_owned(),
    ];
    for text in texts.iter().flatten().chain(&others) {
        let said = says(text);
        assert!(
            said.starts_with("conf/dps.toml:1: ") || said.starts_with("conf/dps.toml:2: "),
            "{said}"
        );
        for secret in [key, short, "MIGHAgEAMBMG", "hidden"] {
            assert!(!said.contains(secret), "{text}: {said}");
        }
    }
    // A file may have any name.
    let folder = std::env::temp_dir().join(format!("device-file-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(short), "").unwrap();
    let named = DeviceFile::parse(&format!("ca-file = \"{short}\""), folder.join("dps.toml"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(named.unwrap().get("ca-file").unwrap().text().ends_with(short));
}
