//! `cargo xtask fmt`, `clippy` and `docs`: a warning is a failure.

use xshell::Shell;

use crate::process::{Result, all_of, cargo, none_of, rust_files};

/// The code is formatted as rustfmt.toml says.
pub(crate) fn fmt(shell: &Shell, _: &[String]) -> Result {
    Ok(cargo(shell, "fmt --all --check").run()?)
}

/// No warning with every feature, and none in the modules by which fuzz targets look into a crate. What a crate is by
/// itself, with each combination of its features, `cargo xtask features` lints.
pub(crate) fn clippy(shell: &Shell, _: &[String]) -> Result {
    let together = "--workspace --all-targets --all-features --";
    let fuzzed = "--workspace --lib --all-features -- --cfg=fuzzing";
    all_of([together, fuzzed].map(|scope| lint(shell, scope)))
}

/// Lints what these words of Clippy's command line choose.
pub(crate) fn lint(shell: &Shell, scope: &str) -> Result {
    Ok(cargo(shell, &format!("clippy --locked {scope} -D warnings")).run()?)
}

/// The crates that an application has by way of the facade.
const BEHIND_THE_FACADE: [&str; 7] =
    ["state_machine", "attestation", "connect", "http", "mqtt", "amqp", "tpm"];

/// Where examples are for the author of a driver or of a transport, who uses these crates themselves.
const FOR_AUTHORS: [&str; 2] =
    ["crates/dps-state-machine/src/machine/mod.rs", "crates/dps-connect/src/lib.rs"];

/// The documentation builds without a warning: no broken link, no private one. Its examples compile in an application
/// that depends on the facade alone.
pub(crate) fn docs(shell: &Shell, _: &[String]) -> Result {
    let files = rust_files(shell, "crates")?.into_iter();
    let files = files.filter(|(file, _)| !FOR_AUTHORS.contains(&file.as_str()));
    none_of(&files.flat_map(|(file, code)| foreign_examples(&file, &code)).collect::<Vec<_>>())?;
    let docs = cargo(shell, "doc --locked --workspace --all-features --no-deps");
    Ok(docs.env("RUSTDOCFLAGS", "-D warnings").run()?)
}

/// The lines of examples that name a crate behind the facade.
fn foreign_examples(file: &str, code: &str) -> Vec<String> {
    let mut in_example = false;
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(code.lines().map(str::trim_start)) {
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if doc.is_none_or(|doc| doc.contains("```")) {
            in_example = doc.is_some() && !in_example;
        } else if in_example
            && let Some(name) =
                BEHIND_THE_FACADE.iter().find(|n| line.contains(&format!("dps_{n}::")))
        {
            faults.push(format!("{file}:{number}: the example uses dps_{name}; say dps_client"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_needs_more_than_the_facade_is_named() {
        let code = "\
//! See dps_mqtt::MqttConfig.
//!
//! ```
//! # use dps_client::Config;
//! use dps_mqtt::MqttConfig;
//! ```
use dps_http::x;
    /// ```
    /// # fn main() -> Result<(), dps_state_machine::Error> { Ok(()) }
    /// ```
    /// Of dps_amqp::AmqpConfig.
";
        assert_eq!(
            foreign_examples("a.rs", code),
            [
                "a.rs:5: the example uses dps_mqtt; say dps_client",
                "a.rs:9: the example uses dps_state_machine; say dps_client"
            ]
        );
    }
}
