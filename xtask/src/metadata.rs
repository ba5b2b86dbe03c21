//! What `cargo metadata` tells: the packages, and who uses whom.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::process::{Cmd, Result};

/// The workspace with everything that it is built from, for every platform and with every feature.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
    pub(crate) target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) rust_version: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal one, otherwise `dev` or `build`.
    kind: Option<String>,
}

impl Dependency {
    pub(crate) fn is_dev(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Metadata {
    /// Asks cargo; fails when Cargo.lock would have to change.
    pub(crate) fn load() -> Result<Self> {
        let text = Cmd::cargo(["metadata", "--locked", "--all-features", "--format-version", "1"])
            .read()?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// All versions of a package.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(move |package| package.name == name)
    }

    /// The names of the packages that use this one directly.
    pub(crate) fn users_of(&self, package: &Package) -> impl Iterator<Item = &str> {
        self.resolve
            .nodes
            .iter()
            .filter(|node| node.dependencies.contains(&package.id))
            .filter_map(|node| self.packages.iter().find(|package| package.id == node.id))
            .map(|package| package.name.as_str())
    }
}

/// A workspace made up for the tests of the rules.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// Packages as `name@version`, each with what it uses (`dev:name` for a dev-dependency); the first `members`
    /// of them are ours.
    pub(crate) fn workspace(members: usize, packages: &[(&str, &[&str])]) -> Metadata {
        let id_of = |name: &str| {
            let starts = format!("{name}@");
            packages.iter().map(|(id, _)| *id).find(|id| id.starts_with(&starts)).unwrap()
        };
        let package = |(id, uses): &(&str, &[&str])| {
            let (name, version) = id.split_once('@').unwrap();
            Package {
                id: id.to_string(),
                name: name.to_string(),
                version: version.to_string(),
                license: Some("MIT".to_string()),
                rust_version: None,
                manifest_path: PathBuf::new(),
                dependencies: uses
                    .iter()
                    .map(|used| match used.strip_prefix("dev:") {
                        Some(name) => Dependency { name: name.into(), kind: Some("dev".into()) },
                        None => Dependency { name: used.to_string(), kind: None },
                    })
                    .collect(),
                features: BTreeMap::new(),
            }
        };
        let node = |(id, uses): &(&str, &[&str])| Node {
            id: id.to_string(),
            dependencies: uses
                .iter()
                .map(|used| id_of(used.trim_start_matches("dev:")).to_string())
                .collect(),
        };
        Metadata {
            packages: packages.iter().map(package).collect(),
            workspace_members: packages
                .iter()
                .take(members)
                .map(|(id, _)| id.to_string())
                .collect(),
            resolve: Resolve { nodes: packages.iter().map(node).collect() },
            target_directory: PathBuf::new(),
        }
    }
}
