//! `cargo xtask package`: each crate can be published: its metadata is whole, and so are the files in its package.
//!
//! `cargo package` packs every crate, and what was packed is unpacked and checked in one workspace. cargo's own
//! verification builds each package alone with all that it depends on, which is nine builds from nothing; here they
//! share one, with every feature, which `cargo package` doesn't even look at.

use cargo_metadata::{DependencyKind, Package};
use serde_json::json;
use xshell::{Shell, cmd};

use crate::process::{Result, cargo, in_ci, metadata, none_of};

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let metadata = metadata()?;
    let mut packages = metadata.workspace_packages();
    packages.retain(|package| package.publish.is_none());
    none_of(&packages.iter().flat_map(|package| metadata_faults(package)).collect::<Vec<_>>())?;

    let folder = metadata.target_directory.join("package");
    let unpacked = folder.join("unpacked");
    shell.remove_path(&unpacked)?;
    shell.create_dir(&unpacked)?;
    // What was not committed is nothing that CI may pack.
    let dirty = if in_ci() { None } else { Some("--allow-dirty") };
    let names = packages.iter().flat_map(|package| ["--package", package.name.as_str()]);
    cargo(shell, "package --locked --no-verify").args(dirty).args(names).run()?;
    let (mut members, mut patches, mut faults) = (Vec::new(), String::new(), Vec::new());
    for package in packages {
        let name = format!("{}-{}", package.name, package.version);
        let archive = folder.join(format!("{name}.crate"));
        cmd!(shell, "tar -xzf {archive} -C {unpacked}").quiet().run()?;
        for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            let packed = shell.read_file(unpacked.join(&name).join(file)).unwrap_or_default();
            // On a disk without symbolic links a license would be its path.
            if packed.lines().count() < 5 {
                faults.push(format!("{name} has no {file}"));
            }
        }
        if package.targets.iter().any(|target| target.is_lib()) {
            patches.push_str(&format!("{} = {{ path = {:?} }}\n", package.name, name));
        }
        members.push(name);
    }
    none_of(&faults)?;
    let root = shell.read_file("Cargo.toml")?;
    let profiles = root.find("[profile.").and_then(|at| root.get(at..)).unwrap_or_default();
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = {members:?}\n[patch.crates-io]\n{patches}\n{profiles}"
    );
    shell.write_file(unpacked.join("Cargo.toml"), manifest)?;
    shell.copy_file("Cargo.lock", unpacked.join("Cargo.lock"))?;
    let check = cargo(shell, "check --quiet --workspace --all-features --manifest-path");
    let check = check.arg(unpacked.join("Cargo.toml"));
    Ok(check.env("CARGO_TARGET_DIR", &metadata.target_directory).run()?)
}

/// What a reader of crates.io or docs.rs would miss, and what would trouble those who depend on the crate.
fn metadata_faults(package: &Package) -> Vec<String> {
    let keywords = &package.keywords;
    // Limits of crates.io.
    let fits = |keyword: &String| (1..=20).contains(&keyword.len());
    let docs = json!({"all-features": true, "rustdoc-args": ["--cfg", "docsrs"]});
    let for_docs_rs = package.metadata.pointer("/docs/rs") == Some(&docs);
    let checks = [
        (package.description.is_some(), "a description"),
        (package.readme.is_some(), "a readme"),
        (!package.categories.is_empty(), "categories"),
        ((1..=5).contains(&keywords.len()), "one to five keywords"),
        (keywords.iter().all(fits), "keywords of at most 20 letters"),
        (for_docs_rs, "the workspace's metadata for docs.rs"),
    ];
    let missing = checks.into_iter().filter(|(holds, _)| !holds);
    let missing = missing.map(|(_, what)| format!("{} needs {what}", package.name));
    let dependencies = package.dependencies.iter().filter_map(|dependency| {
        let requirement = dependency.req.to_string();
        let of_tests = dependency.kind == DependencyKind::Development;
        let fault = match requirement.as_str() {
            "*" if !of_tests => "without a version",
            pin if pin.starts_with('=') => "in one version only",
            _ => return None,
        };
        Some(format!("{} depends on {} {fault}", package.name, dependency.name))
    });
    missing.chain(dependencies).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The faults of one of our crates with one entry of its metadata changed.
    fn faults_with(key: &str, value: Value) -> Vec<String> {
        let packages = metadata().unwrap().packages;
        let package = packages.iter().find(|package| package.name == "dps-client").unwrap();
        let mut package = serde_json::to_value(package).unwrap();
        assert!(package.get(key).is_some(), "{key}");
        package[key] = value;
        metadata_faults(&serde_json::from_value(package).unwrap())
    }

    #[test]
    fn metadata_that_is_missing_or_too_long_fails() {
        assert_eq!(faults_with("name", json!("ours")), Vec::<String>::new());
        assert_eq!(faults_with("readme", Value::Null), ["dps-client needs a readme"]);
        assert_eq!(faults_with("metadata", Value::Null).len(), 1);
        let long = ["a word of more than twenty letters"];
        assert_eq!(faults_with("keywords", json!(long)).len(), 1);
        assert_eq!(faults_with("keywords", json!(["a", "b", "c", "d", "e", "f"])).len(), 1);
    }

    #[test]
    fn a_dependency_that_is_pinned_or_has_no_version_fails() {
        let dependency = |requirement, kind| {
            json!([{"name": "dps-mqtt", "req": requirement, "kind": kind, "source": null,
                "optional": false, "uses_default_features": true, "features": []}])
        };
        let faults =
            |requirement, kind: Value| faults_with("dependencies", dependency(requirement, kind));
        assert_eq!(faults("^0.1.0", Value::Null), Vec::<String>::new());
        assert_eq!(faults("*", json!("dev")), Vec::<String>::new());
        assert_eq!(faults("*", Value::Null), ["dps-client depends on dps-mqtt without a version"]);
        let pinned = ["dps-client depends on dps-mqtt in one version only"];
        assert_eq!(faults("=0.34.0", Value::Null), pinned);
    }
}
