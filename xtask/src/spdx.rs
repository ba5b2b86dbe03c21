//! SPDX license expressions, as far as crates use them.

/// Whether the licenses in `allowed` are enough to use something under this expression.
///
/// `OR` needs one side, `AND` both; an exception after `WITH` only adds permissions, so the license before it
/// decides; `/` is the old way to write `OR`.
///
/// # Errors
/// What is wrong with an expression that can't be read.
pub(crate) fn permits(expression: &str, allowed: &[&str]) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, allowed };
    let verdict = reader.any_of();
    match (verdict, reader.words) {
        (Some(verdict), []) => Ok(verdict),
        _ => Err(format!("can't read the license expression {expression:?}")),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a [&'a str],
}

impl Reader<'_> {
    fn any_of(&mut self) -> Option<bool> {
        let mut verdict = self.all_of()?;
        while self.take("OR") {
            verdict |= self.all_of()?;
        }
        Some(verdict)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut verdict = self.one()?;
        while self.take("AND") {
            verdict &= self.one()?;
        }
        Some(verdict)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let verdict = self.any_of()?;
            return self.take(")").then_some(verdict);
        }
        let verdict = self.allowed.contains(&self.license()?);
        if self.take("WITH") {
            self.license()?;
        }
        Some(verdict)
    }

    fn license(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        if ["OR", "AND", "WITH", "(", ")"].contains(first) {
            return None;
        }
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expression: &str) -> Result<bool, String> {
        permits(expression, &["MIT", "Apache-2.0", "Unicode-3.0"])
    }

    #[test]
    fn allowed_licenses_are_permitted() {
        for expression in [
            "MIT",
            "MIT OR Apache-2.0",
            "GPL-3.0-only OR MIT",
            "MIT/GPL-3.0-only",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-3.0-only AND ISC OR MIT",
        ] {
            assert_eq!(verdict(expression), Ok(true), "{expression}");
        }
    }

    #[test]
    fn what_is_not_on_the_list_is_not_permitted() {
        for expression in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "MIT AND (GPL-3.0-only OR ISC)",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "mit",
        ] {
            assert_eq!(verdict(expression), Ok(false), "{expression}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_an_error_and_never_permitted() {
        for expression in ["", "MIT OR", "MIT Apache-2.0", "(MIT", "MIT)", "AND MIT", "MIT WITH"] {
            assert!(verdict(expression).is_err(), "{expression}");
        }
    }
}
