//! `cargo xtask dist`: what people without Rust install, in target/dist, of one build and of one version.
//!
//! - `dps`, a static program for Linux on x86_64, which needs nothing of the system
//! - an archive with its manual pages, completions and units for systemd, and a Debian package of the same
//! - an image of the program alone
//! - a wheel for Python and a package for npm, which bring it to tests
//! - `SHA256SUMS`
//!
//! The same commit and the same compiler give the same bytes: every file has the time of the commit.

use std::path::{Path, PathBuf};

use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    image, packages,
    process::{Result, cargo, in_ci, metadata, without_xtask},
};

/// Programs that this needs, and the Debian packages that have them.
const NEEDS: &[(&str, &str)] =
    &[("musl-gcc", "musl-tools"), ("python3", "python3-venv"), ("node", "nodejs"), ("npm", "npm")];

const TARGET: &str = "x86_64-unknown-linux-musl";

/// CI wants to know that a release is built, not that it is small: optimizing it takes minutes.
const QUICK_RELEASE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];

/// The variables with which a release is built here: everybody who builds one with them shares what is compiled.
pub(crate) fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    let quick = QUICK_RELEASE.iter().copied().filter(|_| in_ci());
    quick.chain([("CARGO_BUILD_TARGET", TARGET)])
}

/// Where it all goes, and what it is of.
pub(crate) struct Dist {
    pub(crate) folder: PathBuf,
    pub(crate) version: String,
    /// Seconds since 1970 of the commit.
    pub(crate) time: String,
}

impl Dist {
    pub(crate) fn new(shell: &Shell) -> Result<Self> {
        let metadata = metadata()?;
        let dps = metadata.packages.iter().find(|package| package.name == "dps-cli");
        Ok(Self {
            folder: metadata.target_directory.join("dist").into(),
            version: dps.ok_or("there is no dps-cli")?.version.to_string(),
            time: cmd!(shell, "git log -1 --format=%ct").read()?,
        })
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("dps")
    }

    /// There is one version: fails when a file names another.
    pub(crate) fn is_of_this_version(&self, file: &str, found: Option<&str>) -> Result {
        match found == Some(&self.version) {
            true => Ok(()),
            false => Err(format!("{file} is of version {found:?}, not {}", self.version).into()),
        }
    }

    /// Makes an archive of what is in a folder, the same one each time.
    pub(crate) fn tar(
        &self,
        shell: &Shell,
        folder: &Path,
        archive: &Path,
        more: &[&str],
    ) -> Result {
        let time = &self.time;
        let sorted = cmd!(shell, "tar --create --sort=name --mtime=@{time} --format=ustar");
        let owned = sorted.args("--numeric-owner --owner=0 --group=0".split(' ')).args(more);
        Ok(owned.arg("--file").arg(archive).arg("--directory").arg(folder).arg(".").run()?)
    }
}

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let dist = Dist::new(shell)?;
    shell.remove_path(&dist.folder)?;
    shell.create_dir(&dist.folder)?;
    build(shell, &dist.program())?;
    let root = dist.folder.join("root");
    lay_out(shell, &dist, &root)?;
    let name = format!("dps-{}", dist.version);
    let archive = dist.folder.join(format!("{name}-x86_64-linux.tar.gz"));
    let rename = format!("--transform=s,^\\.,{name},");
    dist.tar(shell, &root.join("usr"), &archive, &["--gzip", &rename])?;
    debian(shell, &dist, &root)?;
    shell.remove_path(&root)?;
    image::make(shell, &dist)?;
    wheel(shell, &dist)?;
    npm(shell, &dist)?;
    let _there = shell.push_dir(&dist.folder);
    shell.remove_path("root")?;
    let files = shell.read_dir(".")?.into_iter().filter(|file| file.is_file());
    let files = files.filter_map(|file| file.file_name().map(ToOwned::to_owned));
    let sums = cmd!(shell, "sha256sum").args(files).read()?;
    println!("{sums}");
    Ok(shell.write_file("SHA256SUMS", sums + "\n")?)
}

/// Installs what the build needs in CI, and elsewhere says what is missing.
pub(crate) fn prepare(shell: &Shell) -> Result {
    if let Some(why) = packages::missing(shell, NEEDS)? {
        return Err(why.into());
    }
    match in_ci() {
        true => Ok(cmd!(shell, "rustup target add {TARGET}").run()?),
        false => Ok(()),
    }
}

/// Builds the program and looks whether it is static.
fn build(shell: &Shell, program: &Path) -> Result {
    prepare(shell)?;
    let build = cargo(shell, "build --release --locked --package dps-cli").envs(variables());
    build.run().map_err(|error| format!("{error}; it needs `rustup target add {TARGET}`"))?;
    let built = metadata()?.target_directory.join(TARGET).join("release/dps");
    shell.copy_file(built, program)?;
    let libraries = cmd!(shell, "ldd {program}").ignore_status();
    let said = libraries.read()? + &cmd!(shell, "ldd {program}").ignore_status().read_stderr()?;
    match said.contains("statically linked") || said.contains("not a dynamic executable") {
        true => Ok(()),
        false => Err(format!("{} is not static: {said}", program.display()).into()),
    }
}

/// The files of the package, where a system has them.
fn lay_out(shell: &Shell, dist: &Dist, root: &Path) -> Result {
    let (program, usr) = (dist.program(), root.join("usr"));
    let share = usr.join("share");
    let docs = share.join("doc/dps");
    shell.create_dir(usr.join("bin"))?;
    shell.copy_file(&program, usr.join("bin/dps"))?;
    let pages = share.join("man/man1");
    cmd!(shell, "{program} man {pages}").run()?;
    for (shell_name, file) in [
        ("bash", "bash-completion/completions/dps"),
        ("zsh", "zsh/vendor-completions/_dps"),
        ("fish", "fish/vendor_completions.d/dps.fish"),
    ] {
        let completions = cmd!(shell, "{program} completions {shell_name}").read()?;
        shell.write_file(share.join(file), completions)?;
    }
    let units = usr.join("lib/systemd/system");
    shell.create_dir(&units)?;
    for unit in shell.read_dir("packaging/systemd")? {
        shell.copy_file(unit, &units)?;
    }
    shell.create_dir(&docs)?;
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "packaging/deb/copyright"] {
        shell.copy_file(file, &docs)?;
    }
    Ok(())
}

/// A Debian package of what is laid out.
fn debian(shell: &Shell, dist: &Dist, root: &Path) -> Result {
    let fill = |file: &str, more: &[(&str, &str)]| -> Result<String> {
        let text = shell.read_file(Path::new("packaging/deb").join(file))?;
        let text = text.replace("@VERSION@", &dist.version);
        Ok(more.iter().fold(text, |text, (name, value)| text.replace(name, value)))
    };
    let time = &dist.time;
    let date = cmd!(shell, "date --utc --rfc-email --date=@{time}").read()?;
    let commit = cmd!(shell, "git rev-parse HEAD").read()?;
    let changelog = fill("changelog", &[("@DATE@", &date), ("@COMMIT@", &commit)])?;
    let docs = root.join("usr/share/doc/dps");
    shell.write_file(docs.join("changelog"), changelog)?;
    let pages = shell.read_dir(root.join("usr/share/man/man1"))?;
    let changelog = docs.join("changelog");
    cmd!(shell, "gzip --no-name --best {changelog} {pages...}").run()?;
    let size = cmd!(shell, "du --summarize --apparent-size --block-size=1K {root}").read()?;
    let size = size.split_whitespace().next().unwrap_or_default();
    shell.write_file(root.join("DEBIAN/control"), fill("control", &[("@SIZE@", size)])?)?;
    let package = dist.folder.join(format!("dps_{}_amd64.deb", dist.version));
    // Who packs it may have a umask of their own.
    cmd!(shell, "chmod --recursive u=rwX,go=rX {root}").run()?;
    let build = cmd!(shell, "dpkg-deb --root-owner-group --build {root} {package}");
    Ok(build.env("SOURCE_DATE_EPOCH", time).run()?)
}

/// A wheel by maturin, which takes the program as it was built: with the same variables nothing is built again.
fn wheel(shell: &Shell, dist: &Dist) -> Result {
    let (folder, target) = (&dist.folder, metadata()?.target_directory);
    let tools = target.join("maturin");
    cmd!(shell, "python3 -m venv {tools}").run()?;
    cmd!(shell, "{tools}/bin/pip install --quiet maturin>=1.9,<2").run()?;
    let maturin = cmd!(shell, "{tools}/bin/maturin build --release --locked --target {TARGET}");
    // A static program runs with every C library.
    let maturin = maturin.args(["--compatibility", "manylinux2014", "musllinux_1_1"]);
    let maturin = without_xtask(maturin.arg("--out").arg(folder).arg("--target-dir").arg(target));
    let _there = shell.push_dir("packages/python");
    Ok(maturin.envs(variables()).run()?)
}

fn npm(shell: &Shell, dist: &Dist) -> Result {
    let package: Value = serde_json::from_str(&shell.read_file("packages/npm/package.json")?)?;
    let version = package.get("version").and_then(Value::as_str);
    dist.is_of_this_version("packages/npm/package.json", version)?;
    let folder = dist.folder.join("root");
    shell.create_dir(folder.join("bin"))?;
    shell.copy_file(dist.program(), folder.join("bin/dps"))?;
    for file in shell.read_dir("packages/npm")?.iter().filter(|file| file.is_file()) {
        shell.copy_file(file, &folder)?;
    }
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        shell.copy_file(license, &folder)?;
    }
    let out = &dist.folder;
    let _there = shell.push_dir(folder);
    Ok(cmd!(shell, "npm pack --silent --pack-destination {out}").run()?)
}
