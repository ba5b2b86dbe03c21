//! What another program needs to connect to the hub, in a form that it reads.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use dps_client::{
    ConfigurationError, Error, RegistrationId, RegistrationResult, SymmetricKey, Transport,
};
use zeroize::Zeroizing;

mod template;

pub use template::Template;

/// A device that is assigned, as it is handed over to another program.
#[derive(Clone, Copy, Debug)]
pub struct HandOver<'a> {
    /// The device's name at the service.
    pub registration_id: &'a RegistrationId,
    /// What the registration brought.
    pub result: &'a RegistrationResult,
    /// The transport that it came over, if that is known.
    pub transport: Option<Transport>,
    /// How the device proves itself at its hub.
    pub credential: &'a HubCredential,
}

/// How a device proves itself at its hub: as it did at the service, or by the certificate that it got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HubCredential {
    /// A key that signs SAS tokens.
    SymmetricKey(SymmetricKey),
    /// A certificate with its chain, and its key: the name of a file, or the URI of a key in a token. Names of files are
    /// handed over as absolute ones.
    Certificate {
        /// The file with the certificate and its chain.
        chain: PathBuf,
        /// Where the key is.
        key: String,
    },
    /// A key that is not to be had as text or by the name of a file, like one in a TPM.
    Kept,
}

/// A form in which a device is handed over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Format {
    /// Lines `NAME='value'` for the
    /// [`EnvironmentFile=`](https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#EnvironmentFile=) of a
    /// unit of systemd, and for shells. It has no key, only the names of files.
    Env,
    /// The connection string of the device at its hub: with its key, or with `x509=true`.
    ConnectionString,
    /// The part `[provisioning]` of the `config.toml` of
    /// [IoT Edge](https://learn.microsoft.com/azure/iot-edge/configure-device#provisioning) and of the IoT Identity Service,
    /// for manual provisioning.
    IotEdgeToml,
    /// A text of one's own, with placeholders.
    Template(Template),
}

/// A fact: its placeholder in templates, and its name in an environment, unless it is a secret. None of these names sets
/// a flag of the command `dps` to something else: a program that has them may call it.
pub(crate) type Fact = (&'static str, Option<&'static str>);

pub(crate) const FACTS: &[Fact] = &[
    ("assignedHub", Some("DPS_ASSIGNED_HUB")),
    ("deviceId", Some("DPS_DEVICE_ID")),
    ("registrationId", Some("DPS_ASSIGNED_REGISTRATION_ID")),
    ("operationId", Some("DPS_OPERATION_ID")),
    ("substatus", Some("DPS_SUBSTATUS")),
    ("payload", Some("DPS_RESULT_PAYLOAD")),
    ("transport", Some("DPS_ASSIGNED_TRANSPORT")),
    ("cert", Some("DPS_ASSIGNED_CERT")),
    ("key", Some("DPS_ASSIGNED_KEY")),
    (SYMMETRIC_KEY, None),
    (CONNECTION_STRING, None),
];
const SYMMETRIC_KEY: &str = "symmetricKey";
const CONNECTION_STRING: &str = "connectionString";

impl HandOver<'_> {
    /// The facts that there are, by the names of variables: for the environment of a program. A key is not among them.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let named = FACTS.iter().filter_map(|(fact, name)| Some((*fact, (*name)?)));
        named.filter_map(|(fact, name)| Some((name, self.fact(fact)?.to_string()))).collect()
    }

    /// The names of all variables that there may be.
    pub fn variable_names() -> impl Iterator<Item = &'static str> {
        FACTS.iter().filter_map(|(_, name)| *name)
    }

    /// A fact by its placeholder; `None` when there is no such.
    fn fact(&self, name: &str) -> Option<Zeroizing<String>> {
        let result = self.result;
        let certificate = match self.credential {
            HubCredential::Certificate { chain, key } => Some((chain, key)),
            _ => None,
        };
        let fact = match name {
            "assignedHub" => result.assigned_hub.clone(),
            "deviceId" => result.device_id.clone(),
            "registrationId" => self.registration_id.to_string(),
            "operationId" => result.operation_id.as_ref()?.as_str().to_owned(),
            "substatus" => result.substatus.as_ref()?.to_string(),
            // A line break in JSON is never inside of a text.
            "payload" => result.payload.as_deref()?.get().replace(['\n', '\r'], " "),
            "transport" => self.transport?.to_string(),
            "cert" => absolute(certificate?.0).display().to_string(),
            "key" => key_name(certificate?.1),
            SYMMETRIC_KEY => match self.credential {
                HubCredential::SymmetricKey(key) => return Some(key.expose_base64()),
                _ => return None,
            },
            CONNECTION_STRING => return self.connection_string().ok(),
            _ => return None,
        };
        Some(Zeroizing::new(fact))
    }

    fn connection_string(&self) -> Result<Zeroizing<String>, Error> {
        let RegistrationResult { assigned_hub: hub, device_id, .. } = self.result;
        for (field, value) in [("assigned hub", hub), ("device id", device_id)] {
            if value.contains(|c: char| c == ';' || c.is_control()) {
                let reason = "a connection string can't hold it";
                return Err(ConfigurationError::new(field, value.clone(), reason).into());
            }
        }
        let secret = match self.credential {
            HubCredential::SymmetricKey(key) => {
                Zeroizing::new(format!("SharedAccessKey={}", *key.expose_base64()))
            }
            HubCredential::Certificate { .. } => Zeroizing::new("x509=true".to_owned()),
            HubCredential::Kept => return Err(kept()),
        };
        Ok(Zeroizing::new(format!("HostName={hub};DeviceId={device_id};{}", *secret)))
    }

    fn iotedge_toml(&self) -> Result<Zeroizing<String>, Error> {
        let RegistrationResult { assigned_hub: hub, device_id, .. } = self.result;
        let (method, keys) = match self.credential {
            HubCredential::SymmetricKey(key) => {
                let value = toml(&key.expose_base64());
                ("sas", Zeroizing::new(format!("device_id_pk = {{ value = {} }}\n", *value)))
            }
            HubCredential::Certificate { chain, key } => {
                let key = match key.strip_prefix("pkcs11:") {
                    Some(_) => key.clone(),
                    None if key.starts_with("tpm:") => return Err(kept()),
                    None => file_uri(Path::new(key)),
                };
                let (chain, key) = (toml(&file_uri(chain)), toml(&key));
                let keys = format!("identity_cert = {}\nidentity_pk = {}\n", *chain, *key);
                ("x509", Zeroizing::new(keys))
            }
            HubCredential::Kept => return Err(kept()),
        };
        Ok(Zeroizing::new(format!(
            "[provisioning]\nsource = \"manual\"\niothub_hostname = {}\ndevice_id = {}\n\n\
             [provisioning.authentication]\nmethod = \"{method}\"\n{}",
            *toml(hub),
            *toml(device_id),
            *keys
        )))
    }
}

impl Format {
    /// Checks, before a registration, that a device with this credential can be handed over so.
    ///
    /// # Errors
    /// [`Error::Configuration`]: the form needs a key that is not to be had.
    pub fn check(&self, credential: &HubCredential) -> Result<(), Error> {
        match (self, credential) {
            (Self::ConnectionString | Self::IotEdgeToml, HubCredential::Kept) => Err(kept()),
            (Self::IotEdgeToml, HubCredential::Certificate { key, .. })
                if key.starts_with("tpm:") =>
            {
                Err(kept())
            }
            (Self::Template(template), HubCredential::Kept) if template.has_key() => Err(kept()),
            _ => Ok(()),
        }
    }

    /// Whether the text holds a key.
    #[must_use]
    pub fn has_key(&self, credential: &HubCredential) -> bool {
        let is_key = matches!(credential, HubCredential::SymmetricKey(_));
        match self {
            Self::Env => false,
            Self::ConnectionString | Self::IotEdgeToml => is_key,
            Self::Template(template) => is_key && template.has_key(),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// As of [`Self::check`], and what the service assigned does not fit into the form.
    pub fn render(&self, device: &HandOver<'_>) -> Result<Zeroizing<String>, Error> {
        self.check(device.credential)?;
        match self {
            Self::Env => Ok(device.env()),
            Self::ConnectionString => {
                device.connection_string().map(|text| Zeroizing::new(format!("{}\n", *text)))
            }
            Self::IotEdgeToml => device.iotedge_toml(),
            Self::Template(template) => Ok(template.fill(|name| device.fact(name))),
        }
    }
}

impl HandOver<'_> {
    fn env(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for (name, value) in self.variables() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name}={}", quoted(&value));
        }
        text
    }
}

/// In quotes that systemd and shells take for the value to the letter; a character that no variable can hold is left out.
fn quoted(value: &str) -> String {
    let value = value.replace('\0', "");
    if !value.contains(['\'', '\\']) {
        return format!("'{value}'");
    }
    let mut text = String::from('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(c);
    }
    text + "\""
}

/// A text of TOML.
fn toml(value: &str) -> Zeroizing<String> {
    // No buffer that grows: the text may be a key.
    let mut text = Zeroizing::new(String::with_capacity(value.len() * 6 + 2));
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// The name of a file, made absolute if it can be: who reads it may run in another folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The URI of a key that is in no file, as it is, or else the name of its file.
fn key_name(key: &str) -> String {
    match key.starts_with("pkcs11:") || key.starts_with("tpm:") {
        true => key.to_owned(),
        false => absolute(Path::new(key)).display().to_string(),
    }
}

/// The URI of a file.
fn file_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for byte in absolute(path).to_string_lossy().bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            byte => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

fn kept() -> Error {
    let reason = "the device's key stays in its TPM or token: this form needs the key or the name of a file; use json, env or a template without it";
    ConfigurationError::new("format", "", reason).into()
}

#[cfg(test)]
mod tests;
