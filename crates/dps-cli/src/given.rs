//! Values and where they came from: a flag, or the environment variable that stands in for it. A value that can't
//! be used is reported under that name.

use std::str::FromStr;

use dps_client::{ConfigurationError, Error, IdScope, RegistrationId};

/// A flag and the environment variable that stands in for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) flag: &'static str,
    pub(crate) variable: &'static str,
}

pub(crate) const ID_SCOPE: Setting = Setting { flag: "--id-scope", variable: "DPS_ID_SCOPE" };
pub(crate) const REGISTRATION_ID: Setting =
    Setting { flag: "--registration-id", variable: "DPS_REGISTRATION_ID" };
pub(crate) const ENDPOINT: Setting = Setting { flag: "--endpoint", variable: "DPS_ENDPOINT" };
pub(crate) const TRANSPORT: Setting = Setting { flag: "--transport", variable: "DPS_TRANSPORT" };
pub(crate) const CA_FILE: Setting = Setting { flag: "--ca-file", variable: "DPS_CA_FILE" };
pub(crate) const PROXY: Setting = Setting { flag: "--proxy", variable: "DPS_PROXY" };

impl Setting {
    /// The value of the flag, or else of the variable; an empty variable counts as unset.
    pub(crate) fn find(self, flag: Option<&String>) -> Result<Option<Given>, Error> {
        match flag {
            Some(text) => Ok(Some(Given { from: self.flag, text: text.clone() })),
            None => Ok(variable(self.variable)?.map(|text| Given { from: self.variable, text })),
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
    /// The instance of the service, like 0ne00AABBCC [env: DPS_ID_SCOPE]
    #[arg(long, value_name = "SCOPE")]
    id_scope: Option<String>,
    /// The device's name at the service [env: DPS_REGISTRATION_ID]
    #[arg(long, value_name = "ID")]
    registration_id: Option<String>,
}

impl Device {
    /// What was given of it.
    pub(crate) fn find(&self) -> Result<(Option<IdScope>, Option<RegistrationId>), Error> {
        let id_scope = ID_SCOPE.find(self.id_scope.as_ref())?;
        let id = REGISTRATION_ID.find(self.registration_id.as_ref())?;
        Ok((
            id_scope.map(|given| given.parse()).transpose()?,
            id.map(|given| given.parse()).transpose()?,
        ))
    }

    /// All of it.
    pub(crate) fn require(&self) -> Result<(IdScope, RegistrationId), Error> {
        let id_scope = ID_SCOPE.require(self.id_scope.as_ref())?.parse()?;
        let id = REGISTRATION_ID.require(self.registration_id.as_ref())?.parse()?;
        Ok((id_scope, id))
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

/// A value, and the flag or the variable that it came from.
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
            wrong(from, value, &error.reason)
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
}
