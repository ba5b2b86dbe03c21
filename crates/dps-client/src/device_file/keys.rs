//! The keys of a device's file, and what each takes.

use std::{path::Path, time::Duration};

use dps_attestation::SymmetricKey;
use dps_connect::{Endpoint, Proxy};
use dps_state_machine::{
    ConfigurationError, Error, IdScope, Json, RegistrationId, RegistrationRequest,
    internal as secret,
    serde_json::{Map, Number, Value},
};
use toml::de::DeValue;

use crate::TransportChoice;

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Text(fn(&str) -> Result<(), Error>),
    /// A number of seconds: above 0 or from 0, and at most so many.
    Seconds {
        zero: bool,
        at_most: u64,
    },
    Switch,
    /// A handle of a TPM: a number, or text that begins with `0x`.
    Handle,
    File,
    /// A file or several.
    Files,
    /// A private key or several: a file, `tpm:HANDLE` or `pkcs11:URI`.
    Keys,
    /// As [`Self::Keys`], one.
    Key,
    /// A library: a file, or a name without a folder that the loader looks up.
    Library,
    /// A form and a file, or several of both.
    Outputs,
    /// A JSON object: a table, its text, or `@FILE`.
    Payload,
}

/// What is wrong with a value, and the value unless it may be a secret.
pub(super) struct Fault {
    pub(super) given: String,
    pub(super) reason: String,
}

macro_rules! keys {
    ($($name:literal $takes:expr;)+) => {
        /// Every key, as the flag of that name is called.
        pub(super) const KEYS: &[Key] = &[$(Key { name: $name, takes: $takes }),+];
    };
}

const ANY: Takes = Takes::Text(|_| Ok(()));

keys! {
    "id-scope" Takes::Text(|text| text.parse::<IdScope>().map(drop));
    "registration-id" Takes::Text(|text| text.parse::<RegistrationId>().map(drop));
    "transport" Takes::Text(|text| text.parse::<TransportChoice>().map(drop));
    "endpoint" Takes::Text(|text| text.parse::<Endpoint>().map(drop));
    "proxy" Takes::Text(proxy);
    "ca-file" Takes::File;
    "platform-roots" Takes::Switch;
    "step-by-step" Takes::Switch;
    "timeout" Takes::Seconds { zero: false, at_most: 24 * 3600 };
    "poll-floor" Takes::Seconds { zero: true, at_most: 3600 };
    "symmetric-key-file" Takes::Files;
    "group-key-file" Takes::File;
    "cert" Takes::Files;
    "key" Takes::Keys;
    "tpm" ANY;
    "tpm-endorsement-handle" Takes::Handle;
    "tpm-storage-handle" Takes::Handle;
    "tpm-identity-handle" Takes::Handle;
    "tpm-endorsement-password-file" Takes::File;
    "tpm-owner-password-file" Takes::File;
    "tpm-key-password-file" Takes::File;
    "pkcs11-module" Takes::Library;
    "pkcs11-pin-file" Takes::File;
    "payload" Takes::Payload;
    "model-id" ANY;
    "force" Takes::Switch;
    "state" Takes::File;
    "output" Takes::Outputs;
    "exec" ANY;
    "request-certificate" Takes::File;
    "request-key" Takes::Key;
    "connect" Takes::Switch;
    "hub-endpoint" Takes::Text(|text| text.parse::<Endpoint>().map(drop));
}

/// A key that there is not, with the nearest one that there is.
pub(super) fn unknown(key: &str) -> Fault {
    let bare = |name: &str| {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = name.to_ascii_lowercase();
        name.strip_prefix("dps").map(str::to_owned).unwrap_or(name)
    };
    let given = bare(key);
    let distance = |known: &Key| strsim::damerau_levenshtein(&bare(known.name), &given);
    let nearest = KEYS.iter().min_by_key(|known| distance(known));
    let reason = match nearest.filter(|known| distance(known) * 3 <= given.len()) {
        Some(known) => format!("there is no such key; {} is one", known.name),
        None => "there is no such key; the keys are flags of `dps register` without the dashes, and `dps config example` shows each".to_owned(),
    };
    Fault { given: String::new(), reason }
}

impl Takes {
    /// The texts that the flag would have for a value. Files are found from `folder`.
    pub(super) fn read(self, value: &DeValue<'_>, folder: &Path) -> Result<Vec<String>, Fault> {
        let values = match value {
            DeValue::Array(values) if matches!(self, Self::Files | Self::Keys | Self::Outputs) => {
                values.iter().map(AsRef::as_ref).collect()
            }
            value => vec![value],
        };
        if values.is_empty() {
            return Err(fault(value, "the list is empty; name a file, or leave the key out"));
        }
        values.into_iter().map(|value| self.text(value, folder)).collect()
    }

    fn text(self, value: &DeValue<'_>, folder: &Path) -> Result<String, Fault> {
        let text = match (self, value) {
            (_, DeValue::String(text)) if text.is_empty() => {
                return Err(fault(value, "it is empty; give a value, or leave the key out"));
            }
            (_, DeValue::String(text)) if text.contains('\0') => {
                return Err(fault(value, "the character U+0000 in it can't be in a value"));
            }
            (Self::Switch, DeValue::Boolean(on)) => on.to_string(),
            (
                Self::Seconds { .. },
                DeValue::Integer(_) | DeValue::Float(_) | DeValue::String(_),
            ) => plain(value),
            (Self::Handle, DeValue::Integer(_)) => match whole(value) {
                Some(number) => format!("{number:#x}"),
                None => return Err(self.fault(value)),
            },
            (Self::Payload, DeValue::Table(_)) => {
                json(value).map_err(|reason| fault(value, reason))?.to_string()
            }
            (Self::Switch, _) => return Err(self.fault(value)),
            (_, DeValue::String(text)) => text.clone().into_owned(),
            _ => return Err(self.fault(value)),
        };
        match self {
            Self::File | Self::Files => self.file(&text, folder),
            Self::Library if !text.contains('/') => Ok(text),
            Self::Library => self.file(&text, folder),
            Self::Outputs => {
                let Some((form, file)) = text.split_once(char::is_whitespace) else {
                    return Err(self.fault(value));
                };
                let form = match form.strip_prefix("template:") {
                    Some(template) => format!("template:{}", self.file(template, folder)?),
                    None => form.to_owned(),
                };
                Ok(format!("{form} {}", self.file(file.trim_start(), folder)?))
            }
            Self::Keys | Self::Key if text.starts_with("tpm:") => Ok(text),
            Self::Keys | Self::Key if text.starts_with("pkcs11:") => {
                no_secret(text).map(|uri| from_folder(&uri, folder))
            }
            Self::Keys | Self::Key => self.file(&text, folder),
            Self::Payload => match text.strip_prefix('@') {
                Some(file) => Ok(format!("@{}", self.file(file, folder)?)),
                None => match payload(&text) {
                    Ok(()) => Ok(text),
                    // Its parser does not repeat it.
                    Err(error) => Err(fault_of(&text, &refused(&error).reason)),
                },
            },
            Self::Text(check) => {
                let text = no_secret(text)?;
                check(&text).map(|()| text).map_err(|error| refused(&error))
            }
            Self::Seconds { zero, at_most } => {
                let length = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
                let fits = |length: Duration| {
                    length <= Duration::from_secs(at_most) && (zero || !length.is_zero())
                };
                length.filter(|length| fits(*length)).ok_or_else(|| self.fault(value))?;
                Ok(text)
            }
            Self::Handle if !is_handle(&text) => Err(self.fault(value)),
            Self::Handle | Self::Switch => Ok(text),
        }
    }

    /// The name of a file, from the working directory; not a secret that stands in its place.
    fn file(self, text: &str, folder: &Path) -> Result<String, Fault> {
        let path = folder.join(text);
        if text == "-" {
            return Ok(text.to_owned());
        }
        if text.starts_with("file:") && !path.exists() {
            return Err(fault_of(text, "leave file:// out; give the path of the file"));
        }
        let what = secret::kind(text).or_else(|| {
            let is_pem = text.contains("-----BEGIN ");
            let is_key = text.ends_with('=') && text.parse::<SymmetricKey>().is_ok();
            is_pem.then_some("PEM text").or_else(|| is_key.then_some("a key in base64"))
        });
        match what.filter(|_| !path.exists()) {
            Some(what) => Err(Fault {
                given: String::new(),
                reason: format!(
                    "it holds {what} in place of the name of a file, which is not repeated here; write it into a file of its own and name that"
                ),
            }),
            None => Ok(path.display().to_string()),
        }
    }

    /// That it takes something else.
    fn fault(self, value: &DeValue<'_>) -> Fault {
        let reason = match self {
            Self::Text(_) => "give a text in quotes",
            Self::Seconds { zero: true, .. } => {
                "give a number of seconds from 0 up to 3600, like 2 or 0.5"
            }
            Self::Seconds { .. } => "give a number of seconds above 0 up to 86400, like 60 or 0.5",
            Self::Switch => "give true or false",
            Self::Handle => {
                "give a persistent handle, like 0x81000002: one from 0x81000000 to 0x817fffff"
            }
            Self::File | Self::Library => "give the name of a file in quotes",
            Self::Outputs => {
                "give a format and a file, like \"env /run/pump/dps.env\", or a list of such"
            }
            Self::Files => "give the name of a file in quotes, or a list of such",
            Self::Key => "give the name of a file, tpm:HANDLE or pkcs11:URI in quotes",
            Self::Keys => {
                "give the name of a file, tpm:HANDLE or pkcs11:URI in quotes, or a list of such"
            }
            Self::Payload => "give a table, a JSON object as text, or \"@FILE\"",
        };
        fault(value, reason)
    }
}

/// The URI of a token's key with the files in it found from the folder: that of the PIN, and the library if its name has a
/// folder.
fn from_folder(uri: &str, folder: &Path) -> String {
    let Some((path, query)) = uri.split_once('?') else { return uri.to_owned() };
    let mut folder_name = String::new();
    for byte in folder.to_string_lossy().bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => folder_name.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => folder_name.push(char::from(byte)),
            byte => folder_name.push_str(&format!("%{byte:02X}")),
        }
    }
    let attributes = query.split('&').map(|attribute| {
        let file = attribute.strip_prefix("pin-source=file:");
        let library = attribute.strip_prefix("module-path=").filter(|path| path.contains('/'));
        match file.or(library) {
            Some(path) if !folder_name.is_empty() && !path.is_empty() && !path.starts_with('/') => {
                let name = attribute.strip_suffix(path).unwrap_or_default();
                format!("{name}{folder_name}/{path}")
            }
            _ => attribute.to_owned(),
        }
    });
    format!("{path}?{}", attributes.collect::<Vec<_>>().join("&"))
}

fn fault(value: &DeValue<'_>, reason: &str) -> Fault {
    fault_of(&plain(value), reason)
}

fn fault_of(given: &str, reason: &str) -> Fault {
    match secret::kind(given) {
        None => Fault { given: given.to_owned(), reason: reason.to_owned() },
        Some(what) => Fault {
            given: String::new(),
            reason: format!("it holds {what}, which is not repeated here; {reason}"),
        },
    }
}

/// What a parser says of a text. It knows best what of it can be shown.
fn refused(error: &Error) -> Fault {
    match error {
        Error::Configuration(error) => fault_of(&error.value, &error.reason),
        other => fault_of("", &other.to_string()),
    }
}

/// A name may look like a key; all else that is a secret does not belong here.
fn no_secret(text: String) -> Result<String, Fault> {
    match secret::kind(&text).filter(|what| *what != "a key in base64") {
        None => Ok(text),
        Some(what) => Err(Fault {
            given: String::new(),
            reason: format!(
                "it holds {what}, which is not repeated here and does not belong into this file; a file that it names or a variable can hold a secret"
            ),
        }),
    }
}

/// One without a password, which would be in the file for everybody who reads that.
fn proxy(text: &str) -> Result<(), Error> {
    if text == "env" {
        return Ok(());
    }
    let proxy: Proxy = text.parse()?;
    match proxy.credentials() {
        Some((_, password)) if !password.is_empty() => {
            let reason = "its password does not belong into this file; give it by DPS_PROXY, or give \"env\" here and it by HTTPS_PROXY";
            Err(ConfigurationError::new("proxy", proxy.to_string(), reason).into())
        }
        _ => Ok(()),
    }
}

fn payload(text: &str) -> Result<(), Error> {
    let request = RegistrationRequest::new("any".parse()?).payload(text.parse::<Json>()?)?;
    request.check()
}

/// The value as it is shown, and as a flag takes it.
fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.clone().into_owned(),
        DeValue::Integer(number) => whole(value).map_or(number.to_string(), |n| n.to_string()),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(_) => "[..]".to_owned(),
        DeValue::Table(_) => "{..}".to_owned(),
    }
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

/// Whether it is a handle that the owner of a TPM may use (TCG Registry of Reserved TPM 2.0 Handles).
fn is_handle(text: &str) -> bool {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let handle = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    handle.is_some_and(|handle| (0x8100_0000..=0x817f_ffff).contains(&handle))
}

/// TOML as JSON; a date becomes text.
fn json(value: &DeValue<'_>) -> Result<Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(_) => {
            Value::Number(whole(value).ok_or("a number in it is too large")?.into())
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok().and_then(Number::from_f64);
            Value::Number(number.ok_or("JSON has no number like nan or inf")?)
        }
        DeValue::Boolean(on) => Value::Bool(*on),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(values) => {
            let values = values.iter().map(|value| json(value.as_ref()));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let pairs = table
                .iter()
                .map(|(key, value)| Ok((key.as_ref().clone().into_owned(), json(value.as_ref())?)));
            Value::Object(pairs.collect::<Result<Map<_, _>, &'static str>>()?)
        }
    })
}
