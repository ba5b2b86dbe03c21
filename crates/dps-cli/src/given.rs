//! Values and where they came from: a flag, or the environment variable that stands in for it, or the configuration file
//! of the device. A value that can't be used is reported under that name.

use std::str::FromStr;

use dps_client::{ConfigurationError, Error, FileValue, IdScope, RegistrationId};

use dps_provisioner::HandOver;

use crate::{
    device_file::{self, ConfigFlag},
    files::Source,
};

/// A flag and the environment variable that stands in for it: `DPS_POLL_FLOOR` for `--poll-floor`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) flag: &'static str,
    pub(crate) variable: &'static str,
}

macro_rules! settings {
    ($($name:ident $flag:literal $variable:literal)+) => {
        $(pub(crate) const $name: Setting = Setting { flag: $flag, variable: $variable };)+
        /// All that there are.
        const SETTINGS: &[Setting] = &[$($name),+];
    };
}

settings! {
    ADMIN_LISTEN "--admin-listen" "DPS_ADMIN_LISTEN"
    ADMIN_PORT "--admin-port" "DPS_ADMIN_PORT"
    ADMIN_TOKEN_FILE "--admin-token-file" "DPS_ADMIN_TOKEN_FILE"
    AMQP_PORT "--amqp-port" "DPS_AMQP_PORT"
    CA_CERT "--ca-cert" "DPS_CA_CERT"
    CA_FILE "--ca-file" "DPS_CA_FILE"
    CA_KEY "--ca-key" "DPS_CA_KEY"
    CA_OUT "--ca-out" "DPS_CA_OUT"
    CERT "--cert" "DPS_CERT"
    CONFIG "--config" "DPS_CONFIG"
    CONNECT "--connect" "DPS_CONNECT"
    DEVICE_ID "--device-id" "DPS_DEVICE_ID"
    EMULATOR "--emulator" "DPS_EMULATOR"
    ENDPOINT "--endpoint" "DPS_ENDPOINT"
    EVENTS "--events" "DPS_EVENTS"
    EXEC "--exec" "DPS_EXEC"
    EXPIRES_IN "--expires-in" "DPS_EXPIRES_IN"
    EXPIRY "--expiry" "DPS_EXPIRY"
    FAST "--fast" "DPS_FAST"
    FIXED "--fixed" "DPS_FIXED"
    FORCE "--force" "DPS_FORCE"
    GROUP_CA "--group-ca" "DPS_GROUP_CA"
    GROUP_KEY_FILE "--group-key-file" "DPS_GROUP_KEY_FILE"
    HTTPS_PORT "--https-port" "DPS_HTTPS_PORT"
    HUB "--hub" "DPS_HUB"
    HUB_ENDPOINT "--hub-endpoint" "DPS_HUB_ENDPOINT"
    ID_SCOPE "--id-scope" "DPS_ID_SCOPE"
    JSON "--json" "DPS_JSON"
    KEY "--key" "DPS_KEY"
    LISTEN "--listen" "DPS_LISTEN"
    MODEL_ID "--model-id" "DPS_MODEL_ID"
    MQTT_PORT "--mqtt-port" "DPS_MQTT_PORT"
    NAME "--name" "DPS_NAME"
    ONLY "--only" "DPS_ONLY"
    OUTPUT "--output" "DPS_OUTPUT"
    OUTPUT_DIR "--output-dir" "DPS_OUTPUT_DIR"
    PAYLOAD "--payload" "DPS_PAYLOAD"
    PKCS11_MODULE "--pkcs11-module" "DPS_PKCS11_MODULE"
    PKCS11_PIN_FILE "--pkcs11-pin-file" "DPS_PKCS11_PIN_FILE"
    PLATFORM_ROOTS "--platform-roots" "DPS_PLATFORM_ROOTS"
    POLL_FLOOR "--poll-floor" "DPS_POLL_FLOOR"
    PROXY "--proxy" "DPS_PROXY"
    QUIET "--quiet" "DPS_QUIET"
    READ_ONLY "--read-only" "DPS_READ_ONLY"
    REGISTRATION_ID "--registration-id" "DPS_REGISTRATION_ID"
    REQUEST_CERTIFICATE "--request-certificate" "DPS_REQUEST_CERTIFICATE"
    REQUEST_KEY "--request-key" "DPS_REQUEST_KEY"
    SEED "--seed" "DPS_SEED"
    SHOW_KEYS "--show-keys" "DPS_SHOW_KEYS"
    STATE "--state" "DPS_STATE"
    STEP_BY_STEP "--step-by-step" "DPS_STEP_BY_STEP"
    STOP_AT_EOF "--stop-at-eof" "DPS_STOP_AT_EOF"
    SYMMETRIC_KEY_FILE "--symmetric-key-file" "DPS_SYMMETRIC_KEY_FILE"
    TIMEOUT "--timeout" "DPS_TIMEOUT"
    TPM "--tpm" "DPS_TPM"
    TPM_ENDORSEMENT_HANDLE "--tpm-endorsement-handle" "DPS_TPM_ENDORSEMENT_HANDLE"
    TPM_ENDORSEMENT_PASSWORD_FILE "--tpm-endorsement-password-file" "DPS_TPM_ENDORSEMENT_PASSWORD_FILE"
    TPM_IDENTITY_HANDLE "--tpm-identity-handle" "DPS_TPM_IDENTITY_HANDLE"
    TPM_KEY_PASSWORD_FILE "--tpm-key-password-file" "DPS_TPM_KEY_PASSWORD_FILE"
    TPM_OWNER_PASSWORD_FILE "--tpm-owner-password-file" "DPS_TPM_OWNER_PASSWORD_FILE"
    TPM_STORAGE_HANDLE "--tpm-storage-handle" "DPS_TPM_STORAGE_HANDLE"
    TRANSPORT "--transport" "DPS_TRANSPORT"
    VERBOSE "--verbose" "DPS_VERBOSE"
    WITHIN "--within" "DPS_WITHIN"
}

/// The one variable without a flag: a flag would show the key to every user of the machine.
pub(crate) const SYMMETRIC_KEY: &str = "DPS_SYMMETRIC_KEY";

/// A warning for each variable that looks like one of ours and is none: most are misspelled.
pub(crate) fn unknown_variables() -> Vec<String> {
    let settings = || SETTINGS.iter().map(|setting| setting.variable);
    // What `--output env` and `--exec` give to other programs may come back.
    let known = || settings().chain([SYMMETRIC_KEY]).chain(HandOver::variable_names());
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<String> = set
        .filter(|name| name.starts_with("DPS_") && known().all(|known| known != name))
        .map(|name| {
            let nearest = known().max_by(|a, b| {
                strsim::jaro_winkler(a, &name).total_cmp(&strsim::jaro_winkler(b, &name))
            });
            let bare = |name: &str| name.replace('_', "");
            let near = |known: &&str| {
                bare(known) == bare(&name) || strsim::damerau_levenshtein(known, &name) <= 3
            };
            match nearest.filter(near) {
                Some(nearest) => format!("the variable {name} is not read; {nearest} is"),
                None => format!(
                    "the variable {name} is not read; those that are have the names of flags, like {} for {}",
                    POLL_FLOOR.variable, POLL_FLOOR.flag
                ),
            }
        })
        .collect();
    unknown.sort();
    unknown
}

/// Where a value is from; the first one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Flag,
    Variable,
    File,
}

impl Setting {
    /// The setting of this key of the configuration file.
    pub(crate) fn of(key: &str) -> Option<Self> {
        SETTINGS.iter().find(|setting| setting.key() == key).copied()
    }

    fn key(self) -> &'static str {
        self.flag.trim_start_matches('-')
    }

    fn in_file(self) -> Option<&'static FileValue> {
        device_file::get(self.key())
    }

    /// Where its value is from, if it has one.
    pub(crate) fn level(self, is_flag: bool) -> Result<Option<Level>, Error> {
        Ok(match (is_flag, variable(self.variable)?, self.in_file()) {
            (true, ..) => Some(Level::Flag),
            (false, Some(_), _) => Some(Level::Variable),
            (false, None, Some(_)) => Some(Level::File),
            (false, None, None) => None,
        })
    }

    /// What to name in a message about its value: the flag unless that is from elsewhere.
    pub(crate) fn source(self, is_flag: bool) -> &'static str {
        match (self.level(is_flag), self.in_file()) {
            (Ok(Some(Level::File)), Some(value)) => value.place(),
            (Ok(Some(Level::Variable)), _) => self.variable,
            _ => self.flag,
        }
    }

    /// The value of the flag, or else of the variable, or else of the configuration file; an empty variable counts as unset.
    pub(crate) fn find(self, flag: Option<&String>) -> Result<Option<Given>, Error> {
        if let Some(text) = flag {
            return Ok(Some(Given { from: self.flag, text: text.clone() }));
        }
        if let Some(text) = variable(self.variable)? {
            return Ok(Some(Given { from: self.variable, text }));
        }
        let in_file = self.in_file();
        Ok(in_file.map(|value| Given { from: value.place(), text: value.text().to_owned() }))
    }

    /// Whether it is asked for: by the flag, or by the variable, or by the configuration file.
    pub(crate) fn is_on(self, flag: bool) -> Result<bool, Error> {
        if flag {
            return Ok(true);
        }
        let Some(value) = variable(self.variable)? else {
            return Ok(self.in_file().is_some_and(FileValue::is_on));
        };
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(wrong(self.variable, &value, "give 1 or 0")),
        }
    }

    #[cfg(feature = "emulator")]
    /// The flag's values, or else those of the variable, separated by commas.
    pub(crate) fn list(self, flags: &[String]) -> Result<Vec<Given>, Error> {
        if flags.is_empty()
            && let Some(value) = variable(self.variable)?
        {
            let texts = value.split(',').map(|text| text.trim().to_owned());
            return Ok(texts.map(|text| Given { from: self.variable, text }).collect());
        }
        let given = |text: &String| Given { from: self.flag, text: text.clone() };
        Ok(flags.iter().map(given).collect())
    }

    /// As [`Self::find`], for a file.
    pub(crate) fn file(self, flag: Option<&String>) -> Result<Option<Source>, Error> {
        Ok(self.find(flag)?.map(|given| Source::new(given.from, &given.text)))
    }

    /// The files that the flag names, or else the one of the variable, or else those of the configuration file.
    pub(crate) fn files(self, flags: &[String]) -> Result<Vec<Source>, Error> {
        match (self.level(!flags.is_empty())?, self.in_file()) {
            (Some(Level::Flag), _) => {
                Ok(flags.iter().map(|path| Source::new(self.flag, path)).collect())
            }
            (Some(Level::File), Some(value)) => {
                Ok(value.texts().iter().map(|path| Source::new(value.place(), path)).collect())
            }
            _ => Ok(self.file(None)?.into_iter().collect()),
        }
    }

    /// As [`Self::find`], for a value that is needed.
    pub(crate) fn require(self, flag: Option<&String>) -> Result<Given, Error> {
        self.find(flag)?.ok_or_else(|| {
            wrong(self.flag, "", &format!("it is missing; give it, or set {}", self.variable))
        })
    }
}

/// Which device of which instance of the service.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Device {
    /// The instance of the service, like 0ne00AABBCC
    #[arg(long, value_name = "SCOPE")]
    id_scope: Option<String>,
    /// The device's name at the service; with --tpm, the one that Microsoft's SDKs make of the endorsement key unless given
    #[arg(long, value_name = "ID")]
    registration_id: Option<String>,
    #[command(flatten)]
    _file: ConfigFlag,
}

impl Device {
    /// The registration id, when one was given that is one.
    pub(crate) fn known_id(&self) -> Option<RegistrationId> {
        REGISTRATION_ID.find(self.registration_id.as_ref()).ok()??.parse().ok()
    }

    /// What was given of it.
    pub(crate) fn find(&self) -> Result<(Option<IdScope>, Option<RegistrationId>), Error> {
        let id_scope = ID_SCOPE.find(self.id_scope.as_ref())?;
        Ok((id_scope.map(|given| given.parse()).transpose()?, self.find_id()?))
    }

    /// All of it but the registration id, which something else may give.
    pub(crate) fn require_id_scope(&self) -> Result<(IdScope, Option<RegistrationId>), Error> {
        Ok((self.id_scope()?, self.find_id()?))
    }

    /// All of it.
    pub(crate) fn require(&self) -> Result<(IdScope, RegistrationId), Error> {
        Ok((self.id_scope()?, self.registration_id()?))
    }

    /// The ID scope, which is needed.
    pub(crate) fn id_scope(&self) -> Result<IdScope, Error> {
        ID_SCOPE.require(self.id_scope.as_ref())?.parse()
    }

    /// The registration id, which is needed.
    pub(crate) fn registration_id(&self) -> Result<RegistrationId, Error> {
        REGISTRATION_ID.require(self.registration_id.as_ref())?.parse()
    }

    /// The registration id, if one was given.
    pub(crate) fn find_id(&self) -> Result<Option<RegistrationId>, Error> {
        let id = REGISTRATION_ID.find(self.registration_id.as_ref())?;
        id.map(|given| given.parse()).transpose()
    }
}

/// The value of an environment variable; `None` when it is unset or empty.
pub(crate) fn variable(name: &'static str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(wrong(name, "", "it is not UTF-8 text")),
    }
}

/// A value, and the flag, the variable or the place in the configuration file that it came from.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) from: &'static str,
    pub(crate) text: String,
}

impl Given {
    pub(crate) fn parse<T: FromStr<Err = Error>>(&self) -> Result<T, Error> {
        self.text.parse().map_err(|error| named(self.from, "", error))
    }
}

/// A value that can't be used.
pub(crate) fn wrong(from: &'static str, value: &str, reason: &str) -> Error {
    ConfigurationError::new(from, value, reason).into()
}

/// Puts the flag or the variable in place of the field that an error names, and `value` in place of one that it
/// does not show.
pub(crate) fn named(from: &'static str, value: &str, error: Error) -> Error {
    match error {
        Error::Configuration(error) => {
            let value = if error.value.is_empty() { value } else { &error.value };
            let mut renamed = ConfigurationError::new(from, value, &error.reason);
            renamed.retryable = error.retryable;
            renamed.into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_is_reported_under_the_name_of_its_source() {
        let given = Given { from: "DPS_REGISTRATION_ID", text: "my device".into() };
        let message = given.parse::<RegistrationId>().unwrap_err().to_string();
        assert!(message.starts_with("DPS_REGISTRATION_ID \"my device\": "), "{message}");
        let missing = ID_SCOPE.find(Some(&"0ne1".into())).unwrap().unwrap();
        assert_eq!((missing.from, missing.text.as_str()), ("--id-scope", "0ne1"));
    }

    #[test]
    fn a_variable_is_named_after_its_flag() {
        for Setting { flag, variable } in SETTINGS {
            assert_eq!(
                flag.replace("--", "DPS_").replace('-', "_").to_uppercase(),
                *variable,
                "{flag}"
            );
        }
    }

    #[test]
    fn what_a_program_is_handed_sets_no_flag_of_a_command_that_it_runs() {
        let sets = |name: &&str| SETTINGS.iter().any(|setting| setting.variable == *name);
        let both: Vec<&str> = HandOver::variable_names().filter(sets).collect();
        // The flag is this fact: the device's id at its hub.
        assert_eq!(both, [DEVICE_ID.variable]);
    }

    #[test]
    fn each_flag_has_its_variable_unless_it_holds_a_secret_or_prints_something_else() {
        use clap::CommandFactory as _;
        let without = ["help", "version", "example-config", "group-key", "service-key"];
        for command in crate::cli::Cli::command().get_subcommands() {
            let flags = command.get_arguments().filter_map(clap::Arg::get_long);
            for flag in flags.filter(|flag| !without.contains(flag)) {
                let known =
                    SETTINGS.iter().any(|known| known.flag.strip_prefix("--") == Some(flag));
                assert!(known, "{} --{flag}", command.get_name());
            }
        }
    }
}
