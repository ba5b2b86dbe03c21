//! The query of a request.

use percent_encoding::percent_decode_str;

use super::answer::Problem;

/// Names and values, each name once.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query that may have these names and no others.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut read: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded("query", name, true)?, decoded(name, value, true)?);
            if !known.contains(&name.as_str()) {
                let reason = format!("it is not known here; these are: {}", known.join(", "));
                return Err(Problem::bad("query", &name, &reason));
            }
            if read.iter().any(|(other, _)| *other == name) {
                return Err(Problem::bad(&name, &value, "give it once"));
            }
            read.push((name, value));
        }
        Ok(Self(read))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// An event's number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let wrong = |text| Problem::bad(name, text, "it must be an event's sequence number");
        self.get(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }
}

/// Text without its escapes. In a query a space may be a plus sign.
pub(super) fn decoded(field: &str, text: &str, in_query: bool) -> Result<String, Problem> {
    let spaced = if in_query { text.replace('+', " ") } else { text.to_owned() };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| Problem::bad(field, text, "it is not UTF-8 text"))
}
