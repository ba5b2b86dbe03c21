//! A text with placeholders.

use std::str::FromStr;

use dps_client::{ConfigurationError, Error};
use zeroize::Zeroizing;

use super::{CONNECTION_STRING, FACTS, SYMMETRIC_KEY};

/// A text with placeholders like `{{assignedHub}}`, which facts take the place of: `assignedHub`, `deviceId`,
/// `registrationId`, `operationId`, `substatus`, `payload`, `transport`, `cert` and `key` (the names of files),
/// `symmetricKey` and `connectionString`. One that there is no fact for is empty.
#[derive(Clone, Debug)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Fact(&'static str),
}

impl FromStr for Template {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that names the line of a placeholder that there is not, or that is never closed.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let line = 1 + text.len().saturating_sub(after.len());
            let line = 1 + text.bytes().take(line).filter(|byte| *byte == b'\n').count();
            let wrong = |name: &str, reason: &str| {
                Error::from(ConfigurationError::new(
                    "placeholder",
                    name,
                    &format!("line {line}: {reason}"),
                ))
            };
            let Some((name, behind)) = after.split_once("}}") else {
                return Err(wrong("", "{{ is never closed by }}"));
            };
            let known = FACTS.iter().find(|(fact, _)| *fact == name.trim());
            let Some((fact, _)) = known else {
                let facts: Vec<&str> = FACTS.iter().map(|(fact, _)| *fact).collect();
                let reason =
                    format!("there is no such placeholder; there are {}", facts.join(", "));
                return Err(wrong(name.trim(), &reason));
            };
            parts.extend([Part::Text(before.to_owned()), Part::Fact(fact)]);
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

impl Template {
    /// Whether it asks for a key.
    pub(super) fn has_key(&self) -> bool {
        let is_key = |part: &Part| matches!(part, Part::Fact(SYMMETRIC_KEY | CONNECTION_STRING));
        self.0.iter().any(is_key)
    }

    pub(super) fn fill(
        &self,
        fact: impl Fn(&str) -> Option<Zeroizing<String>>,
    ) -> Zeroizing<String> {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => Zeroizing::new(text.clone()),
            Part::Fact(name) => fact(name).unwrap_or_default(),
        });
        let parts: Vec<_> = parts.collect();
        // Room for all of it at once: a buffer that grows leaves pieces of a key behind.
        let room = parts.iter().map(|part| part.len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(room));
        parts.iter().for_each(|part| text.push_str(part));
        text
    }
}
