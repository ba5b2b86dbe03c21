//! Why a configuration can't be used.

use std::fmt;

use crate::tpm::TpmKeyError;

/// A setting that can't be used: whose, which one, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    enrollment: Option<String>,
    field: String,
    value: String,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(field: &str, reason: &str) -> Self {
        Self {
            enrollment: None,
            field: field.to_owned(),
            value: String::new(),
            reason: reason.to_owned(),
        }
    }

    /// What a parser of another crate says, with the setting's name here.
    pub(crate) fn from_parser(field: &str, error: &dps_state_machine::Error) -> Self {
        match error {
            dps_state_machine::Error::Configuration(error) => {
                Self::new(field, &error.reason).value(error.value.chars())
            }
            error => Self::new(field, &error.to_string()),
        }
    }

    pub(crate) fn value(mut self, value: impl IntoIterator<Item = char>) -> Self {
        self.value = value.into_iter().collect();
        self
    }

    pub(crate) fn field_named(mut self, field: &str) -> Self {
        self.field = field.to_owned();
        self
    }

    /// Says which list or table the field is in.
    pub(crate) fn within(mut self, list: &str) -> Self {
        self.field = format!("{list}, {}", self.field);
        self
    }

    pub(crate) fn of(mut self, enrollment: &str) -> Self {
        self.enrollment = Some(enrollment.to_owned());
        self
    }

    /// The enrollment whose setting it is, if it is one's.
    #[must_use]
    pub fn enrollment(&self) -> Option<&str> {
        self.enrollment.as_deref()
    }

    /// The setting.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The value as given; empty when it is a secret or there was none.
    #[must_use]
    pub fn given(&self) -> &str {
        &self.value
    }

    /// What is wrong and what would be right.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { enrollment, field, value, reason } = self;
        if let Some(enrollment) = enrollment {
            write!(f, "enrollment {enrollment:?}: ")?;
        }
        if value.is_empty() {
            write!(f, "{field}: {reason}")
        } else {
            write!(f, "{field} {value:?}: {reason}")
        }
    }
}

impl From<dps_state_machine::Error> for ConfigError {
    fn from(error: dps_state_machine::Error) -> Self {
        Self::from_parser("", &error)
    }
}

impl From<TpmKeyError> for ConfigError {
    fn from(error: TpmKeyError) -> Self {
        Self::new("", &error.to_string())
    }
}
