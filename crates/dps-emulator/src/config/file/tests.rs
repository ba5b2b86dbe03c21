use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    AmqpFault, HubRefusal, InfoRetryAfter, MqttFault,
    behavior::{Behavior, Body, ConnectionFault, Delivery, Fault, Outcome, RetryAfter},
    enrollment::{Attestation, Enrollment, Members, Pair, Reprovisioning, ReturnedPayload},
};

fn message(text: &str) -> String {
    parse(text, Path::new("")).unwrap_err().to_string()
}

fn one(keys: &str) -> Result<Enrollment, ConfigError> {
    let text = format!(
        "[[enrollment]]\nregistration-id = \"d\"\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"\n{keys}"
    );
    parse(&text, Path::new("")).map(|mut config| config.enrollments.remove(0))
}

#[test]
fn the_documented_example_is_read_and_means_what_it_says() {
    let config = parse(Config::EXAMPLE, Path::new("")).unwrap();
    assert_eq!(config.id_scope.unwrap().as_str(), "0ne00AABBCC");
    assert_eq!((config.https_port, config.admin_port), (0, Some(0)));
    assert_eq!((config.mqtt_port, config.amqp_port), (0, 0));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.connection_faults, [ConnectionFault::Pass]);
    let [pump, valve, meter, factory] = &config.enrollments[..] else { panic!("four enrollments") };

    assert!(matches!(
        &pump.members,
        Members::One(Attestation::SymmetricKey(Pair { secondary: Some(_), .. }))
    ));
    assert_eq!(pump.device_id.as_deref(), Some("pump-north-17"));
    assert_eq!(pump.payload, ReturnedPayload::Fixed(json!({"color": "blue", "rate": 3}).into()));
    assert_eq!(pump.reprovisioning, Reprovisioning::MigrateData);
    assert_eq!(pump.behavior, Behavior::new());
    let update = json!({"workflowId": "w-1", "updateManifest": "e30=", "fileUrls": {}});
    assert_eq!(pump.update, Some(update.into()));
    assert_eq!(pump.hub_refusal, Some(HubRefusal::Throttled));

    assert!(matches!(
        &valve.members,
        Members::One(Attestation::X509(Pair { secondary: Some(_), .. }))
    ));
    let expected = Behavior::new()
        .polls(2)
        .retry_after(RetryAfter::Seconds(1))
        .outcome(Outcome::failed(400_207, "Custom allocation failed"));
    assert_eq!(valve.behavior, expected);

    assert!(matches!(&meter.members, Members::One(Attestation::Tpm { .. })));

    assert!(matches!(&factory.members, Members::Group(_)));
    let expected = Behavior::new()
        .on_register(Fault::refuse(429).retry_after(RetryAfter::Seconds(1)).times(2))
        .on_register(Fault::error(409_203, "Busy"))
        .on_register(Fault::none())
        .on_register(Fault::deliver(Delivery::Never))
        .on_query(Fault::with_body(Body::Html))
        .on_query(Fault::without("operationId").and_with("registrationState.deviceId", 7))
        .on_query(Fault::with("registrationState.deviceId", serde_json::Value::Null))
        .on_query(Fault::none().wrong_id().twice())
        .on_query(Fault::none().status(500).content_type("text/plain").forever());
    assert_eq!(factory.behavior, expected);
}

#[test]
fn every_form_of_a_value_is_read() {
    let behavior = |keys: &str| one(keys).unwrap().behavior;
    assert_eq!(behavior("polls = \"forever\"").polls, Some(u32::MAX));
    let update = one("update = '{\"b\": 1.0, \"a\": 2}'").unwrap().update.unwrap();
    assert_eq!(update.get(), "{\"b\": 1.0, \"a\": 2}", "to the letter");
    assert_eq!(behavior("retry-after = \"soon\"").retry_after, Some(RetryAfter::raw("soon")));
    let two = RetryAfter::Raw(vec!["1".into(), "9".into()]);
    assert_eq!(behavior("retry-after = [\"1\", \"9\"]").retry_after, Some(two));
    assert_eq!(behavior("retry-after = { date-in = 5 }").retry_after, Some(RetryAfter::DateIn(5)));
    assert_eq!(behavior("outcome = \"disabled\"").outcome, Outcome::Disabled);
    assert_eq!(behavior("outcome = { status = \"odd\" }").outcome, Outcome::status("odd"));
    for (keys, fault) in [
        ("deliver = { close-mid = 7 }", Fault::deliver(Delivery::CloseMid(7))),
        (
            "deliver = { drip = 1, every-ms = 20 }",
            Fault::deliver(Delivery::Drip { bytes: 1, every: Duration::from_millis(20) }),
        ),
        ("body = { cut = 3 }", Fault::with_body(Body::Cut(3))),
        ("body = { oversized = 9 }", Fault::with_body(Body::Oversized(9))),
        ("body = { text = \"x\" }", Fault::with_body(Body::Text("x".into()))),
        ("body = \"empty\"", Fault::with_body(Body::Empty)),
        ("wrong-id = true, twice = true", Fault::none().wrong_id().twice()),
        ("refuse = 503, error-code = 429001", {
            let mut fault = Fault::refuse(503);
            fault.refuse.as_mut().unwrap().error_code = 429_001;
            fault
        }),
    ] {
        assert_eq!(behavior(&format!("query = [{{ {keys} }}]")).query, [fault], "{keys}");
    }
    assert_eq!(one("payload = \"echo\"").unwrap().payload, ReturnedPayload::Echo);
    let text = r#"{"serial": 12345678901234567890123, "rate": 1.50, "rate": 2}"#;
    let payload = one(&format!("payload = '{text}'")).unwrap().payload;
    assert_eq!(payload, ReturnedPayload::Fixed(text.parse().unwrap()), "to the letter");
    let wrong = one("payload = '{\"a\": 01}'").unwrap_err().to_string();
    assert!(
        wrong.contains("payload: it is not JSON: ") && wrong.contains("line 1 column 8"),
        "{wrong}"
    );
    assert!(!one("enabled = false").unwrap().enabled);
    assert_eq!(one("hubs = [\"a\", \"b\"]").unwrap().hubs, ["a", "b"]);
}

#[test]
fn what_goes_wrong_with_a_connection_may_be_of_one_transport_only() {
    let text = r#"connections = [
        "close-after-tls",
        { mqtt = "refuse-subscribe" },
        { mqtt = { refuse-connect = { code = 5 } } },
        { amqp = { cut-after = { frames = 2 } } },
        { amqp = { reject = { condition = 1, retry-after = { number = 3 } } } },
    ]"#;
    let expected = [
        ConnectionFault::CloseAfterTls,
        ConnectionFault::Mqtt(MqttFault::RefuseSubscribe),
        ConnectionFault::Mqtt(MqttFault::RefuseConnect { code: 5 }),
        ConnectionFault::Amqp(AmqpFault::CutAfter { frames: 2 }),
        ConnectionFault::Amqp(AmqpFault::Reject {
            condition: 1,
            retry_after: InfoRetryAfter::Number(3),
        }),
    ];
    assert_eq!(parse(text, Path::new("")).unwrap().connection_faults, expected);
}

#[test]
fn a_wrong_setting_is_named_with_its_enrollment_and_what_would_be_right() {
    for (text, says) in [
        ("id-scope = \"0ne 00\"", &["id-scope", "\"0ne 00\"", "letters and digits"][..]),
        ("id-skope = 1", &["id-skope", "id-scope"]),
        ("\n[[enrollment]]\nsymmetric-key = \"secret", &["line 3", "symmetric-key", "string"]),
        ("[[enrollment]]\nsymmetric-key = \"\"\"\nC2secret=\n", &["line ", "string"]),
        ("[[enrollment]]\nsymmetric-key =\n\"C2secret=\"\n", &["line "]),
        ("[[enrollment\nC2secret= \"\n", &["line "]),
        ("C2secret= \n", &["line 1: "]),
        ("C2secretC2secretC2secretC2 = 1", &["line 1: unknown field, expected", "id-scope"]),
        (
            "[[enrollment]]\ngroup = \"g\"\nC2secretC2secretC2secretC2 = 1",
            &["\"g\"", "unknown field, expected", "symmetric-key"],
        ),
        (
            "[[enrollment]]\ngroup = \"g\"\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"\nhub = 7",
            &["\"g\"", "hub", "7"],
        ),
        ("https-port = 70000", &["https-port", "70000", "from 0 to 65535"]),
        ("bind = [\"here\"]", &["bind", "address"]),
        ("server-certificate = \"bad\"", &["line 1, server-certificate", "`bad`", "wrong-name"]),
        ("ca-cert-file = \"ca.pem\"", &["ca-cert-file \"ca.pem\"", "needs ca-key-file"]),
        ("ca-key-file = \"ca.key\"", &["ca-key-file \"ca.key\"", "needs ca-cert-file"]),
        (
            "ca-cert-file = \"/no/such\"\nca-key-file = \"ca.key\"",
            &["ca-cert-file \"/no/such\"", "can't be read"],
        ),
        (
            "ca-cert-file = \"Cargo.toml\"\nca-key-file = \"Cargo.toml\"",
            &["ca-cert-file \"Cargo.toml\"", "certificate"],
        ),
        ("server-names = [\"a b\"]", &["server-names", "\"a b\"", "host name"]),
        ("server-names = [\"\"]", &["server-names", "host name"]),
        (
            "[enrollment]\ngroup = \"g\"",
            &["line 1, enrollment: it must be a list, as in [[enrollment]]"],
        ),
        ("bind = \"::1\"", &["bind", "\"::1\"", "a list"]),
        ("clock-ahead = -1e18", &["clock-ahead \"-1000000000000000000\"", "100 years"]),
        ("clock-ahead = nan", &["clock-ahead \"NaN\"", "100 years"]),
        ("clock-ahead = \"x\"", &["line 1, clock-ahead", "a number"]),
        ("clock-ahead = 1e18", &["clock-ahead \"1000000000000000000\"", "100 years"]),
        ("limits = { max-connections = 0 }", &["max-connections \"0\"", "more than 0"]),
        ("[limits]\nmax-connections = -1", &["line 2, max-connections", "`-1`", "0 or more"]),
        ("limits = { idle-timeout = 0 }", &["idle-timeout \"0\"", "more than 0"]),
        ("limits = { body-timeout = 1e19 }", &["body-timeout", "a year"]),
        ("server-names = [7]", &["server-names", "7", "string"]),
        (
            "[[enrollment]]\ngroup = \"g\"\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"\n\
             [[enrollment]]\ngroup = \"G\"\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"",
            &["\"G\"", "name", "case does not count", "rename"],
        ),
        (
            "[[enrollment]]\ngroup = \"\"\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"",
            &["\"\"", "group", "no name"],
        ),
        (
            "[[enrollment]]\ngroup = \"g\"\nca-reference = \"root\"",
            &["\"g\"", "ca-reference \"root\"", "[[verified-ca]]"],
        ),
        (
            "[[enrollment]]\ngroup = \"g\"\nsecondary-ca-reference = \"root\"",
            &["\"g\"", "secondary-ca-reference", "needs ca-reference"],
        ),
        ("[[verified-ca]]\nname = \"root\"", &["verified-ca \"root\", ca: give ca or ca-file"]),
        (
            "[[verified-ca]]\nname = \"root\"\nca-file = \"/no/such\"",
            &["verified-ca \"root\", ca-file \"/no/such\"", "can't be read"],
        ),
        ("connections = [\"bad\"]", &["connections", "bad", "hang-after-tls"]),
        ("connections = [7]", &["connections", "7", "a word, or a table"]),
        ("connections = [{ http = \"x\" }]", &["connections", "http", "`amqp`"]),
        ("connections = [{ mqtt = \"x\" }]", &["connections", "unknown variant", "wrong-topic"]),
        ("connections = [{ mqtt = { cut-after = {} } }]", &["connections", "packets"]),
        (
            "connections = [{ mqtt = { refuse-connect = { code = 300 } } }]",
            &[
                "connections",
                "}}}\": invalid value: integer `300`, expected a number from 0 to 255",
            ],
        ),
        (
            "connections = [{ amqp = { reject = { condition = 6, retry-after = \"absent\" } } }]",
            &["connections", "6", "conditions 0 to 5"],
        ),
        ("limits = { idle-timeout = -1 }", &["line 1, limits: ", "-1", "seconds"]),
        (
            "[[enrollment]]\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"",
            &["number 1", "registration-id", "group"],
        ),
        (
            "[[enrollment]]\nregistration-id = \"a b\"\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"",
            &["\"a b\"", "registration-id", "' '"],
        ),
        ("[[enrollment]]\nregistration-id = \"d\"", &["\"d\"", "symmetric-key", "thumbprint"]),
        ("[[enrollment]]\nregistration-id = \"d\"\nca = \"x\"", &["\"d\"", "ca"]),
        (
            "[[enrollment]]\nregistration-id = \"d\"\ngroup = \"g\"\nsymmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"",
            &["\"d\"", "group"],
        ),
        (
            "[[enrollment]]\nregistration-id = \"d\"\nthumbprint = \"12\"",
            &["\"d\"", "thumbprint", "64 hex"],
        ),
        ("[[enrollment]]\nregistration-id = \"d\"\ncertificate = \"x\"", &["\"d\"", "certificate"]),
        (
            "[[enrollment]]\nregistration-id = \"d\"\ncertificate-file = \"/no/such\"",
            &["\"d\"", "certificate-file", "/no/such"],
        ),
        ("[[enrollment]]\ngroup = \"g\"\nthumbprint = \"12\"", &["\"g\"", "ca"]),
        ("[[enrollment]]\ngroup = \"g\"\nca = \"x\"", &["\"g\"", "ca: ", "no certificate"]),
        (
            "[[enrollment]]\ngroup = \"g\"\nca-file = \"Cargo.toml\"",
            &["\"g\"", "ca-file \"Cargo.toml\": ", "no certificate"],
        ),
        ("linked-hubs = [\"two words\"]", &["linked-hubs", "two words", "host name"]),
        ("nearest-hubs = [\"a\\nb\"]", &["nearest-hubs", "host name"]),
        (
            "[[service-policy]]\nname = \"p\"\nkey = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"\n[[service-policy]]\nname = \"p\"\nkey = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"",
            &["service-policy, name", "\"p\"", "rename one"],
        ),
        (
            "[[enrollment]]\ngroup = \"g\"\nsymmetric-key = \"secret!\"",
            &["\"g\"", "symmetric-key", "base64"],
        ),
    ] {
        let message = message(text);
        assert!(says.iter().all(|part| message.contains(part)), "{text:?}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    for (keys, says) in [
        ("color = 1", &["color", "polls"][..]),
        ("polls = -1", &["polls", "-1", "forever"]),
        ("polls = \"some\"", &["polls", "some"]),
        ("hub = \"a\"\nhubs = [\"b\"]", &["hubs", "not both"]),
        ("hub = \"two words\"", &["hub", "two words", "host name"]),
        ("hubs = [\"a\", \"<script>\"]", &["hub", "<script>", "host name"]),
        ("device-id = \"\"", &["device-id", "1 to 128"]),
        ("device-id = \"a/b\"", &["device-id", "a/b", "1 to 128"]),
        ("register = [{ body = \"oversized\" }]", &["body", "oversized", "has a value"]),
        ("certificate-policy = \"always\"", &["certificate-policy", "`always`", "ignore"]),
        ("certificate-days = 30", &["certificate-days", "needs certificate-policy = \"issue\""]),
        (
            "certificate-policy = \"ignore\"\ncertificate-days = 30",
            &["certificate-days", "needs certificate-policy"],
        ),
        ("certificate-policy = \"issue\"\ncertificate-days = 0", &["certificate-days", "1 to 90"]),
        ("certificate-policy = \"issue\"\ncertificate-days = 91", &["certificate-days", "1 to 90"]),
        ("certificate-policy = \"issue\"\ncertificate-days = -1", &["certificate-days", "-1"]),
        (
            "certificate-policy-names = { namespace = \"factory\" }",
            &["certificate-policy-names", "need certificate-policy = \"issue\""],
        ),
        ("certificate-policy-names = { color = \"blue\" }", &["unknown field", "color"]),
        ("payload = 3", &["payload", "echo"]),
        ("allocation = \"best\"", &["allocation", "`best`", "geo-latency"]),
        ("allocation.custom.webhook = \"http://x\"", &["allocation", "api-version"]),
        ("initial-twin = 3", &["initial-twin", "3", "a table"]),
        ("initial-twin = { tag = {} }", &["initial-twin", "properties.desired"]),
        (
            "initial-twin = { properties = { reported = {} } }",
            &["initial-twin", "properties.desired"],
        ),
        ("initial-twin.properties.desired = 3", &["initial-twin", "must be an object"]),
        ("device-information = '[]'", &["device-information", "a JSON object as text"]),
        ("iot-edge = 1", &["iot-edge", "true or false"]),
        ("ca-reference = \"x\"", &["ca-reference", "only a group"]),
        ("secondary-ca = \"x\"", &["secondary-ca", "no certificate"]),
        ("query = [{ with-json = \"x\" }]", &["query, with-json", "JSON object"]),
        ("reprovisioning = \"no\"", &["reprovisioning", "`no`", "never"]),
        ("retry-after = -3", &["retry-after", "-3", "date-in"]),
        ("outcome = \"lost\"", &["outcome", "lost", "assigned"]),
        ("outcome = { stat = \"x\" }", &["outcome", "stat"]),
        ("register = [{ tmes = 1 }]", &["register", "tmes", "times"]),
        ("register = [{ times = 1.5 }]", &["register", "times", "1.5"]),
        ("register = [{ refuse = 99 }]", &["register", "refuse", "99"]),
        ("register = [{ refuse = 99999 }]", &["register, refuse: ", "`99999`", "65535"]),
        ("register = [{ error-code = 7 }]", &["register, error-code \"7\"", "200 and 999"]),
        ("register = [5]", &["register: ", "`5`", "a table, as in { .. }"]),
        ("register = { refuse = 400 }", &["register", "it must be a list", "[{ .. }]"]),
        ("query = [{ body = { oversized = 67108865 } }]", &["query, body", "67108864 at most"]),
        ("enabled = \"no\"", &["enabled: ", "\"no\"", "true or false"]),
        ("outcome = { error-code = \"x\" }", &["outcome", r#"\"x\""#, "error-code = N"]),
        ("register = [{ message = \"x\" }]", &["register", "message", "refuse"]),
        ("query = [{ body = \"bad\" }]", &["query", "body", "bad", "oversized"]),
        ("query = [{ deliver = { drip = 1 } }]", &["query", "deliver", "drip", "every-ms"]),
        ("endorsement-key = \"AToA\"", &["endorsement-key", "TPM2B_PUBLIC"]),
        ("storage-root-key = \"AToA\"", &["storage-root-key", "TPM2B_PUBLIC"]),
    ] {
        let message = one(keys).unwrap_err().to_string();
        assert!(message.starts_with("enrollment \"d\": "), "{message}");
        assert!(says.iter().all(|part| message.contains(part)), "{keys:?}: {message}");
    }
}

/// Enrollments that have, together, every key in every form.
fn every_key() -> Vec<Enrollment> {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&authority).unwrap().pem();
    let key = "symmetric-key = \"c2VjcmV0IGtleSBvZiBwdW1wLTE3\"";
    let example = Config::EXAMPLE.lines().find_map(|line| line.strip_prefix("endorsement-key = "));
    let tpm = example.unwrap();
    let tables = [
        format!("registration-id = \"c\"\ncertificate = \"\"\"{pem}\"\"\""),
        format!(
            "registration-id = \"cc\"\ncertificate = \"\"\"{pem}\"\"\"\nsecondary-certificate = \"\"\"{pem}\"\"\""
        ),
        format!(
            "registration-id = \"ct\"\ncertificate = \"\"\"{pem}\"\"\"\nsecondary-thumbprint = \"{}\"",
            "AB".repeat(32)
        ),
        format!("group = \"ca\"\nca = \"\"\"{pem}\"\"\""),
        format!("group = \"cas\"\nca = \"\"\"{pem}\"\"\"\nsecondary-ca = \"\"\"{pem}\"\"\""),
        "group = \"ref\"\nca-reference = \"one\"".to_owned(),
        format!("registration-id = \"tpm\"\nendorsement-key = {tpm}\nstorage-root-key = {tpm}"),
        format!(
            "group = \"issues\"\n{key}\ncertificate-policy = \"issue\"\ncertificate-policy-names = {{ credential-policy = \"default\" }}"
        ),
        "group = \"refs\"\nca-reference = \"one\"\nsecondary-ca-reference = \"two\"".to_owned(),
        format!(
            "group = \"hook\"\n{key}\nallocation.custom = {{ webhook = \"http://localhost:1/x?code=2\", api-version = \"2021-10-01\" }}"
        ),
        format!(
            "group = \"odd\"\n{key}\npolls = \"forever\"\nretry-after = {{ date-in = 5 }}\npayload = \"echo\"\nenabled = false\niot-edge = true\ncertificate-policy = \"ignore\"\noutcome = {{ status = \"odd\" }}\nreprovisioning = \"never\"\nallocation = \"geo-latency\"\nhubs = [\"a\", \"b\"]"
        ),
        format!(
            "group = \"list\"\n{key}\nretry-after = [\"1\", \"9\"]\noutcome = \"disabled\"\nallocation = \"each-run\"\npayload = '{{\"serial\": 12345678901234567890123, \"rate\": 1.50, \"no\": null}}'"
        ),
        format!(
            "group = \"faults\"\n{key}\nregister = [{{ deliver = {{ close-mid = 7 }} }}, {{ deliver = {{ drip = 1, every-ms = 20 }} }}, {{ body = {{ cut = 3 }} }}, {{ body = {{ text = \"x\" }} }}, {{ body = \"empty\" }}, {{ retry-after = \"soon\", times = 0 }}]"
        ),
    ];
    let tables: String = tables.iter().map(|keys| format!("[[enrollment]]\n{keys}\n")).collect();
    let cas = ["one", "two"]
        .map(|name| format!("[[verified-ca]]\nname = \"{name}\"\nca = \"\"\"{pem}\"\"\"\n"));
    let parsed = parse(&format!("{}{tables}", cas.concat()), Path::new("")).unwrap();
    let example = parse(Config::EXAMPLE, Path::new("")).unwrap();
    example.enrollments.into_iter().chain(parsed.enrollments).collect()
}

#[test]
fn every_key_of_an_enrollment_goes_to_json_and_back() {
    let enrollments = every_key();
    let mut written = std::collections::BTreeSet::new();
    for enrollment in &enrollments {
        let json = enrollment.to_json();
        let text = json.to_string();
        let read = Enrollment::from_json(&serde_json::from_str(&text).unwrap());
        let read = read.unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(read.to_json(), json);
        assert_eq!(format!("{read:?}"), format!("{enrollment:?}"));
        let keys = |json: &serde_json::Value| -> Vec<String> {
            json.as_object().unwrap().keys().cloned().collect()
        };
        written.extend(keys(&json));
        for list in ["register", "query"] {
            let faults = json.get(list).and_then(|faults| faults.as_array());
            written.extend(faults.into_iter().flatten().flat_map(keys));
        }
    }
    let all = enrollment::every_key().into_iter().chain(fault::every_key());
    let missing: Vec<_> =
        all.filter(|key| !key.ends_with("-file") && !written.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_an_enrollment_means_as_json_is_what_it_means_as_toml() {
    let example: Table = Config::EXAMPLE.parse().unwrap();
    for table in example["enrollment"].as_array().unwrap() {
        let table = table.as_table().unwrap();
        let read = Enrollment::from_json(&json(Value::Table(table.clone()))).unwrap();
        let written = read.to_json();
        for (key, value) in table {
            if !["register", "query"].contains(&key.as_str()) {
                assert_eq!(written[key], json(value.clone()), "{key}");
            }
        }
    }
}

#[test]
fn a_bad_enrollment_as_json_is_refused_with_the_key() {
    let key = "c2VjcmV0IGtleSBvZiBwdW1wLTE3";
    for (json, says) in [
        (json!([]), &["must be a JSON object"][..]),
        (json!({}), &["number 1", "registration-id"]),
        (json!({"registration-id": "d"}), &["\"d\"", "symmetric-key"]),
        (
            json!({"registration-id": "d", "certificate-file": "/etc/passwd"}),
            &["certificate-file", "no file is read"],
        ),
        (json!({"group": "g", "ca-file": "x"}), &["ca-file", "PEM in ca"]),
        (json!({"group": "g", "symmetric-key": key, "color": 1}), &["color", "polls"]),
        (json!({"group": "g", "symmetric-key": 7}), &["symmetric-key", "string"]),
        (json!({"group": "g", "symmetric-key": "secret!"}), &["symmetric-key", "base64"]),
        (json!({"group": "g", "symmetric-key": key, "polls": -1}), &["polls", "-1"]),
        (
            json!({"group": "g", "symmetric-key": key, "polls": 18446744073709551615_u64}),
            &["polls", "too large"],
        ),
        (json!({"group": "g", "symmetric-key": key, "hubs": ["a", null]}), &["hubs", "null"]),
        (json!({"group": "g", "symmetric-key": key, "payload": 3}), &["payload", "echo"]),
        (
            json!({"group": "g", "symmetric-key": key, "initial-twin": "x"}),
            &["initial-twin", "a table"],
        ),
    ] {
        let message = Enrollment::from_json(&json).unwrap_err().to_string();
        assert!(says.iter().all(|part| message.contains(part)), "{json}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    let null = json!({"group": "g", "symmetric-key": key, "hub": null, "payload": {"a": null}});
    let read = Enrollment::from_json(&null).unwrap();
    assert_eq!(read.payload, ReturnedPayload::Fixed(json!({"a": null}).into()));
}

#[test]
fn the_fixed_ports_stand_in_for_those_that_are_not_set() {
    let fixed = Config::from_toml("mqtt-port = 1883").unwrap().fixed();
    let ports = (fixed.https_port, fixed.mqtt_port, fixed.amqp_port, fixed.admin_port);
    assert_eq!(ports, (8443, 1883, 5671, Some(8080)));
    let key = |config: Config| config.secret("group-key").unwrap();
    assert_eq!(key(fixed), key(Config::new().seed("fixed")));
    assert_eq!(key(Config::new().seed("mine").fixed()), key(Config::new().seed("mine")));
}
