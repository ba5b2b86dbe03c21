//! `cargo xtask licenses`: everything that we build from may be used, and our own license is told.

use std::{collections::BTreeMap, path::Path};

use crate::{
    metadata::Metadata,
    process::{Result, none_of},
    spdx,
};

/// Licenses that ask for no more than their text to be kept. deny.toml says the same.
pub(crate) const ALLOWED: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CDLA-Permissive-2.0", // the roots of Mozilla's CA program, which are data
];

const OURS: &str = "MIT OR Apache-2.0";

/// Prints how many crates use which license; fails when one is not on the list.
pub(crate) fn run(_: &[String]) -> Result {
    let metadata = Metadata::load()?;
    let mut counts = BTreeMap::<&str, usize>::new();
    for package in &metadata.packages {
        *counts.entry(package.license.as_deref().unwrap_or("none")).or_default() += 1;
    }
    for (license, count) in counts {
        println!("{count:>5}  {license}");
    }
    let mut faults = faults(&metadata);
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !Path::new(file).is_file() {
            faults.push(format!("{file} is missing"));
        }
    }
    none_of(&faults)
}

fn faults(metadata: &Metadata) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let name = &package.name;
        match package.license.as_deref().map(|license| (license, spdx::permits(license, ALLOWED))) {
            Some((_, Ok(true))) => {}
            Some((license, Ok(false))) => faults.push(format!("{name}: {license} is not allowed")),
            Some((_, Err(why))) => faults.push(format!("{name}: {why}")),
            None => faults.push(format!("{name} names no license")),
        }
    }
    for package in metadata.members().filter(|package| package.license.as_deref() != Some(OURS)) {
        faults.push(format!("{} is ours but not {OURS}", package.name));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fake;

    fn faults_with(ours: &str, theirs: Option<&str>) -> Vec<String> {
        let mut metadata =
            fake::workspace(1, &[("ours@0.1.0", &["theirs"]), ("theirs@1.0.0", &[])]);
        metadata.packages[0].license = Some(ours.to_string());
        metadata.packages[1].license = theirs.map(str::to_string);
        faults(&metadata)
    }

    #[test]
    fn a_license_on_the_list_passes() {
        assert_eq!(faults_with(OURS, Some("ISC AND Apache-2.0")), Vec::<String>::new());
    }

    #[test]
    fn any_other_an_unreadable_and_a_missing_one_fail() {
        assert_eq!(
            faults_with(OURS, Some("GPL-3.0-only")),
            ["theirs: GPL-3.0-only is not allowed"]
        );
        assert_eq!(faults_with(OURS, Some("MIT OR")).len(), 1);
        assert_eq!(faults_with(OURS, None), ["theirs names no license"]);
    }

    #[test]
    fn our_own_crates_are_under_our_own_license() {
        assert_eq!(faults_with("MIT", Some("MIT")), ["ours is ours but not MIT OR Apache-2.0"]);
    }
}
