//! What `dps emulate` says once it serves: a line for programs, and words for a person at a terminal.

use std::fmt::Write as _;

use dps_client::Printable;
use dps_emulator::{Emulator, GroupKey};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready<'a> {
    ready: bool,
    id_scope: &'a str,
    https_port: Option<u16>,
    mqtt_port: Option<u16>,
    amqp_port: Option<u16>,
    admin_port: Option<u16>,
    /// One that was given is known already.
    admin_token: Option<&'a str>,
    ca_file: Option<&'a str>,
    /// A throwaway, unlike a real group's.
    group_key: Option<&'a str>,
    /// For tools that manage enrollments; its key is a throwaway too.
    service_connection_string: &'a str,
}

/// The line of JSON for programs.
pub(super) fn line(emulator: &Emulator, ca_file: Option<&str>, has_token: bool) -> String {
    let group_key = emulator.group_key().map(GroupKey::expose_base64);
    let service_connection_string = emulator.service_connection_string();
    let ready = Ready {
        ready: true,
        id_scope: emulator.id_scope().as_str(),
        https_port: Some(emulator.https_port()),
        mqtt_port: Some(emulator.mqtt_port()),
        amqp_port: Some(emulator.amqp_port()),
        admin_port: emulator.admin_port(),
        admin_token: emulator.admin_token().filter(|_| !has_token),
        ca_file,
        group_key: group_key.as_ref().map(|key| key.as_str()),
        service_connection_string: &service_connection_string,
    };
    // Strings and numbers: there is nothing that can fail to serialize.
    serde_json::to_string(&ready).unwrap_or_default() + "\n"
}

/// For a person at a terminal: where it listens, and a line to paste that registers a device with it.
pub(super) fn welcome(emulator: &Emulator, ca_file: Option<&str>) -> String {
    let (https, mqtt, amqp) = (emulator.https_port(), emulator.mqtt_port(), emulator.amqp_port());
    let mut text = format!("serving on localhost: https {https}, mqtt {mqtt}, amqp {amqp}");
    if let Some(admin) = emulator.admin_port() {
        let _ = write!(text, "; watch and steer it at http://localhost:{admin}/");
    }
    let Some(ca_file) = ca_file else {
        return text + "\nwith --ca-out FILE devices can trust it; Ctrl-C stops it\n";
    };
    let _ = writeln!(text, "\ndevices trust {}; Ctrl-C stops it", quoted(ca_file));
    if let Some(key) = emulator.group_key() {
        let _ = write!(
            text,
            "a device registers with\n  echo {} | dps register --endpoint localhost:{https} \\\n      \
             --ca-file {} --id-scope {} \\\n      --registration-id my-device --group-key-file -\n",
            *key.expose_base64(),
            quoted(ca_file),
            emulator.id_scope(),
        );
    }
    text
}

/// As one word of a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if path.chars().all(plain) && !path.is_empty() {
        return path.to_owned();
    }
    format!("'{}'", Printable::whole(&path.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in [
            ("/tmp/ca.pem", "/tmp/ca.pem"),
            ("my ca.pem", "'my ca.pem'"),
            ("it's", "'it'\\''s'"),
            ("$(rm)", "'$(rm)'"),
        ] {
            assert_eq!(quoted(path), word, "{path:?}");
        }
    }
}
