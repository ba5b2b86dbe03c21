use std::process::Command;

use super::*;

const KEY: &str = "c2VjcmV0IGtleSBvZiBwdW1wLTE3";

fn key() -> HubCredential {
    HubCredential::SymmetricKey(KEY.parse().unwrap())
}

fn certificate(key: &str) -> HubCredential {
    HubCredential::Certificate { chain: "/etc/dps/my chain.pem".into(), key: key.to_owned() }
}

fn rendered(format: &Format, credential: &HubCredential) -> Result<String, String> {
    let result = RegistrationResult::new("hub.example", "pump-17");
    rendered_of(format, credential, &result)
}

fn rendered_of(
    format: &Format,
    credential: &HubCredential,
    result: &RegistrationResult,
) -> Result<String, String> {
    let registration_id = "pump-17".parse().unwrap();
    let transport = Some(Transport::Mqtt);
    let device = HandOver { registration_id: &registration_id, result, transport, credential };
    format.render(&device).map(|text| text.to_string()).map_err(|error| error.to_string())
}

#[test]
fn a_connection_string_has_the_key_or_says_that_there_is_a_certificate() {
    let string = Format::ConnectionString;
    assert_eq!(
        rendered(&string, &key()).unwrap(),
        format!("HostName=hub.example;DeviceId=pump-17;SharedAccessKey={KEY}\n")
    );
    let by_certificate = rendered(&string, &certificate("/key.pem")).unwrap();
    assert_eq!(by_certificate, "HostName=hub.example;DeviceId=pump-17;x509=true\n");
    let odd = RegistrationResult::new("hub.example", "a;SharedAccessKey=b");
    let message = rendered_of(&string, &key(), &odd).unwrap_err();
    assert!(message.starts_with("device id \"a;SharedAccessKey=b\": "), "{message}");
}

#[test]
fn a_part_for_iot_edge_is_toml_with_the_key_or_with_uris_of_files() {
    let value = |text: &str| text.parse::<::toml::Table>().unwrap()["provisioning"].clone();
    let by_key = value(&rendered(&Format::IotEdgeToml, &key()).unwrap());
    assert_eq!(by_key["source"].as_str(), Some("manual"));
    assert_eq!(by_key["iothub_hostname"].as_str(), Some("hub.example"));
    assert_eq!(by_key["device_id"].as_str(), Some("pump-17"));
    assert_eq!(by_key["authentication"]["method"].as_str(), Some("sas"));
    assert_eq!(by_key["authentication"]["device_id_pk"]["value"].as_str(), Some(KEY));
    for (key, uri) in [
        ("/etc/dps/key.pem", "file:///etc/dps/key.pem"),
        ("pkcs11:token=t;object=k", "pkcs11:token=t;object=k"),
    ] {
        let by_file = value(&rendered(&Format::IotEdgeToml, &certificate(key)).unwrap());
        let authentication = &by_file["authentication"];
        assert_eq!(authentication["method"].as_str(), Some("x509"));
        assert_eq!(
            authentication["identity_cert"].as_str(),
            Some("file:///etc/dps/my%20chain.pem")
        );
        assert_eq!(authentication["identity_pk"].as_str(), Some(uri));
    }
    let odd = RegistrationResult::new("hub\"\\\n\u{7f}", "pump-17");
    let odd = value(&rendered_of(&Format::IotEdgeToml, &key(), &odd).unwrap());
    assert_eq!(odd["iothub_hostname"].as_str(), Some("hub\"\\\n\u{7f}"));
}

#[test]
fn a_form_that_needs_a_key_is_refused_for_one_that_stays_where_it_is() {
    let template = |text: &str| Format::Template(text.parse().unwrap());
    for (format, credential) in [
        (Format::ConnectionString, HubCredential::Kept),
        (Format::IotEdgeToml, HubCredential::Kept),
        (Format::IotEdgeToml, certificate("tpm:0x81000002")),
        (template("{{symmetricKey}}"), HubCredential::Kept),
        (template("{{connectionString}}"), HubCredential::Kept),
    ] {
        let message = format.check(&credential).unwrap_err().to_string();
        assert!(message.contains("the device's key stays in its TPM or token"), "{message}");
        assert!(rendered(&format, &credential).is_err());
    }
    for format in [Format::Env, template("{{assignedHub}}")] {
        assert!(format.check(&HubCredential::Kept).is_ok() && !format.has_key(&key()));
    }
    assert!(template("{{ symmetricKey }}").has_key(&key()));
    assert!(!template("{{symmetricKey}}").has_key(&certificate("/k")));
}

#[test]
fn a_shell_reads_every_value_of_an_environment_file_to_the_letter() {
    for value in [
        "hub.example",
        "it's",
        "a b",
        "$HOME `id` $(id)",
        "\"quoted\"",
        "back\\slash\\",
        "both ' and \\",
        "line\nbreak's",
        "tab\t#no comment",
        "",
        "é'\\n",
    ] {
        let result = RegistrationResult::new(value, "pump-17");
        let text = rendered_of(&Format::Env, &certificate("/k"), &result).unwrap();
        let script =
            format!("{text}printf %s \"$DPS_ASSIGNED_HUB|$DPS_DEVICE_ID|$DPS_ASSIGNED_CERT\"");
        let said = Command::new("sh").args(["-eu", "-c", &script]).output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said, format!("{value}|pump-17|/etc/dps/my chain.pem"), "{text}");
    }
    let text = rendered(&Format::Env, &key()).unwrap();
    assert!(!text.contains(KEY) && text.starts_with("DPS_ASSIGNED_HUB='hub.example'\n"), "{text}");
}

#[test]
fn names_of_files_are_absolute_and_uris_of_keys_stay_as_they_are() {
    let here = std::env::current_dir().unwrap();
    let here = here.display();
    for (key, named) in [
        ("key.pem", format!("{here}/key.pem")),
        ("/etc/dps/key.pem", "/etc/dps/key.pem".to_owned()),
        ("pkcs11:token=t;object=k", "pkcs11:token=t;object=k".to_owned()),
        ("tpm:0x81000002", "tpm:0x81000002".to_owned()),
    ] {
        let credential =
            HubCredential::Certificate { chain: "a/chain.pem".into(), key: key.into() };
        let template = Format::Template("{{cert}} {{key}}".parse().unwrap());
        let filled = rendered(&template, &credential).unwrap();
        assert_eq!(filled, format!("{here}/a/chain.pem {named}"));
    }
}

#[test]
fn a_template_is_filled_and_a_wrong_placeholder_is_named_with_its_line() {
    let template =
        "hub: {{assignedHub}}\nid: {{ deviceId }}{{operationId}} {not one}\n{{connectionString}}\n";
    let filled = rendered(&Format::Template(template.parse().unwrap()), &key()).unwrap();
    let string = format!("HostName=hub.example;DeviceId=pump-17;SharedAccessKey={KEY}");
    assert_eq!(filled, format!("hub: hub.example\nid: pump-17 {{not one}}\n{string}\n"));
    for (text, message) in [
        (
            "{{hub}}",
            "placeholder \"hub\": line 1: there is no such placeholder; there are assignedHub, ",
        ),
        ("a\n\n{{deviceId", "placeholder: line 3: {{ is never closed by }}"),
        ("\n{{}}", "placeholder: line 2: there is no such placeholder"),
    ] {
        let said = text.parse::<Template>().unwrap_err().to_string();
        assert!(said.starts_with(message), "{said}");
    }
}
