//! `cargo xtask features`: a feature only adds. Every combination builds by itself, and what a user didn't ask for
//! isn't built.

use std::collections::BTreeSet;

use crate::{
    metadata::{Metadata, Package},
    process::{Cmd, Result, all_of, none_of},
};

/// What a crate with these features must and must not be built from.
struct Row {
    name: &'static str,
    features: &'static [&'static str],
    /// Proves that the row looks at something.
    present: &'static [&'static str],
    absent: &'static [&'static [&'static str]],
}

const HTTP: &[&str] = &["reqwest", "hyper", "hyper-util"];
const MQTT: &[&str] = &["rumqttc-v4-next", "mqtt-proto", "dps-mqtt"];
const AMQP: &[&str] = &["fe2o3-amqp", "fe2o3-amqp-types", "serde_amqp", "dps-amqp"];
/// It logs every frame with its content, tokens among it; WebSocket is spoken without it.
const WEBSOCKET: &[&str] = &["tokio-tungstenite", "tungstenite"];
const RUNTIME: &[&str] = &["tokio", "futures-core", "futures-util", "httpdate", "tracing"];
const TLS: &[&str] = &["rustls", "ring", "webpki-roots", "rustls-native-certs"];
/// What only the emulator and the command need.
const NOT_ON_DEVICES: &[&str] = &["rcgen", "clap", "toml", "dps-emulator"];

/// A row waits until its crate has all of its features.
const TABLE: &[Row] = &[
    Row {
        name: "dps-state-machine",
        features: &[],
        present: &["serde_json"],
        absent: &[RUNTIME, TLS, HTTP, MQTT, AMQP, WEBSOCKET, NOT_ON_DEVICES],
    },
    Row {
        name: "dps-state-machine",
        features: &["std"],
        present: &["tokio"],
        absent: &[TLS, HTTP, MQTT, AMQP, WEBSOCKET, NOT_ON_DEVICES],
    },
    Row {
        name: "dps-client",
        features: &[],
        present: &["dps-state-machine"],
        absent: &[HTTP, MQTT, AMQP, WEBSOCKET, NOT_ON_DEVICES],
    },
    Row {
        name: "dps-client",
        features: &["http"],
        present: &["reqwest", "ring"],
        absent: &[MQTT, AMQP, WEBSOCKET, NOT_ON_DEVICES],
    },
    Row {
        name: "dps-client",
        features: &["mqtt"],
        present: &["dps-mqtt", "ring"],
        absent: &[HTTP, AMQP, WEBSOCKET, NOT_ON_DEVICES],
    },
    Row {
        name: "dps-client",
        features: &["mqtt", "websocket"],
        present: &["dps-mqtt", "ring"],
        absent: &[HTTP, AMQP, WEBSOCKET, NOT_ON_DEVICES],
    },
    Row {
        name: "dps-client",
        features: &["amqp"],
        present: &["dps-amqp", "ring"],
        absent: &[HTTP, MQTT, WEBSOCKET, NOT_ON_DEVICES],
    },
    Row {
        name: "dps-client",
        features: &["amqp", "websocket"],
        present: &["dps-amqp", "ring"],
        absent: &[HTTP, MQTT, WEBSOCKET, NOT_ON_DEVICES],
    },
];

/// Lints every combination of features of every crate in `crates/`, and holds the table against `cargo tree`.
pub(crate) fn run(_: &[String]) -> Result {
    let metadata = Metadata::load()?;
    let mut faults = Vec::new();
    for row in TABLE {
        faults.extend(check(row, &metadata)?);
    }
    none_of(&faults)?;
    let of_crates = |package: &&Package| package.manifest_path.iter().any(|part| part == "crates");
    all_of(metadata.members().filter(of_crates).flat_map(|package| {
        let features = package.features.keys().map(String::as_str);
        let features: Vec<&str> = features.filter(|name| *name != "default").collect();
        powerset(&features).into_iter().map(|set| lint(&package.name, &set.join(",")))
    }))
}

fn lint(package: &str, features: &str) -> Result {
    Cmd::cargo(["clippy", "--locked", "--package", package, "--no-default-features"])
        .args(["--features", features, "--", "-D", "warnings"])
        .run()
}

fn powerset<'a>(features: &[&'a str]) -> Vec<Vec<&'a str>> {
    features.iter().fold(vec![Vec::new()], |sets, feature| {
        let with = sets.iter().map(|set| [set.as_slice(), &[*feature]].concat()).collect();
        [sets, with].concat()
    })
}

/// Prints the row, and returns what is wrong with it.
fn check(row: &Row, metadata: &Metadata) -> Result<Vec<String>> {
    let features = row.features.join(",");
    let absent = row.absent.concat();
    print!("{:<18} [{features}] without {}: ", row.name, absent.join(" "));
    if !metadata.named(row.name).any(|package| has_features(package, row.features)) {
        println!("waits for its features");
        return Ok(Vec::new());
    }
    let tree = Cmd::cargo(["tree", "--locked", "--package", row.name, "--no-default-features"])
        .args(["--features", &features, "--edges", "normal", "--target", "all"])
        .args(["--prefix", "none", "--format", "{p}"])
        .read()?;
    let faults = tree_faults(&tree, row);
    println!("{}", if faults.is_empty() { "ok" } else { "FAILED" });
    Ok(faults)
}

fn has_features(package: &Package, features: &[&str]) -> bool {
    features.iter().all(|feature| package.features.contains_key(*feature))
}

/// Holds a row against a tree's lines, `crate version`.
fn tree_faults(tree: &str, row: &Row) -> Vec<String> {
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let who = format!("{} [{}]", row.name, row.features.join(","));
    let extra = row.absent.iter().copied().flatten().filter(|name| built.contains(**name));
    let missing = row.present.iter().filter(|name| !built.contains(**name));
    extra
        .map(|name| format!("{who} pulls in {name}"))
        .chain(missing.map(|name| format!("{who} should be built from {name}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_powerset_has_every_combination_once() {
        assert_eq!(powerset(&[]), [Vec::<&str>::new()]);
        assert_eq!(powerset(&["a", "b"]), [vec![], vec!["a"], vec!["b"], vec!["a", "b"]]);
        assert_eq!(powerset(&["a", "b", "c", "d", "e"]).len(), 32);
    }

    const ROW: Row =
        Row { name: "ours", features: &["http"], present: &["reqwest"], absent: &[MQTT, AMQP] };

    #[test]
    fn a_tree_with_what_belongs_there_passes() {
        assert_eq!(
            tree_faults("ours v0.1.0 (/x)\nreqwest v0.13.0 (*)\n", &ROW),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_crate_that_nobody_asked_for_fails() {
        let tree = "ours v0.1.0 (/x)\nreqwest v0.13.0\nserde_amqp v0.18.0\n";
        assert_eq!(tree_faults(tree, &ROW), ["ours [http] pulls in serde_amqp"]);
    }

    #[test]
    fn a_tree_without_what_the_feature_is_for_fails() {
        assert_eq!(tree_faults("", &ROW), ["ours [http] should be built from reqwest"]);
    }
}
