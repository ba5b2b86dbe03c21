//! `cargo xtask licenses`: everything that we build from may be used, and our own license is in every package.
//!
//! The licenses that are allowed stand in deny.toml, which cargo-deny reads too.

use spdx::{Expression, ParseMode};
use xshell::Shell;

use crate::process::{Result, deny_toml, metadata, none_of};

const OURS: &str = "MIT OR Apache-2.0";

/// Fails when a license is not on the list.
pub(crate) fn run(_: &Shell, _: &[String]) -> Result {
    let metadata = metadata()?;
    let allowed: Vec<String> = deny_toml("licenses", "allow")?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let license = package.license.as_deref().unwrap_or_default();
        let ours = metadata.workspace_members.contains(&package.id);
        faults.extend(fault(license, ours, &allowed).map(|why| format!("{}: {why}", package.name)));
    }
    none_of(&faults)
}

/// What is wrong with the license of a package, if anything. An exception after `WITH` only adds permissions, so
/// the license before it decides.
fn fault(license: &str, ours: bool, allowed: &[String]) -> Option<String> {
    if ours && license != OURS {
        return Some(format!("it is ours but not {OURS}"));
    }
    let mode = ParseMode { allow_slash_as_or_operator: true, ..ParseMode::STRICT };
    let Ok(expression) = Expression::parse_mode(license, mode) else {
        return Some(format!("can't read the license {license:?}"));
    };
    let is_allowed = |id: spdx::LicenseId| allowed.iter().any(|name| name == id.name);
    let permitted = expression.evaluate(|needed| needed.license.id().is_some_and(is_allowed));
    (!permitted).then(|| format!("{license} is not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(licenses: &[&str]) -> usize {
        let allowed = ["MIT", "Apache-2.0", "Zlib"].map(str::to_owned);
        licenses.iter().filter(|license| fault(license, false, &allowed).is_some()).count()
    }

    #[test]
    fn licenses_on_the_list_pass() {
        let fine = ["MIT OR GPL-3.0-only", "MIT/GPL-3.0-only", "(MIT OR MPL-2.0) AND Zlib"];
        assert_eq!(faults(&fine) + faults(&["Apache-2.0 WITH LLVM-exception"]), 0);
    }

    #[test]
    fn any_other_an_unreadable_and_a_missing_one_fail() {
        let wrong = ["GPL-3.0-only", "MIT AND MPL-2.0", "MIT OR", "mit", ""];
        assert_eq!(faults(&wrong), wrong.len());
    }

    #[test]
    fn our_own_crates_are_under_our_own_license() {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned()];
        assert!(fault("MIT", true, &allowed).is_some());
        assert!(fault(OURS, true, &allowed).is_none());
    }
}
