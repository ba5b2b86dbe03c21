//! `cargo xtask installs`: what `cargo xtask dist` has made is installed into empty places, and devices register there.
//!
//! - the wheel and the package for npm as docs/emulator tells people, whose examples are run with the tests of both
//! - the Debian package into the system in CI, elsewhere unpacked into a folder; its service is run by its own command
//! - the image by chroot, as its settings say, and the commands of the pages in whose YAML it is a service

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use xshell::{Cmd, Shell, cmd};

use crate::{
    dist::Dist,
    document::{self, blocks},
    packages,
    process::{Result, Running, all_of, in_ci},
};

/// The pages of docs/emulator that are about a package, and the tests of that.
pub(crate) const PAGES: &[(&str, &str)] =
    &[("pytest.md", "packages/python/tests"), ("node.md", "packages/npm/tests")];

/// The pages of docs/emulator with YAML that has the image for a service.
const SERVICES: &[&str] = &["compose.md", "github-actions.md"];

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let dist = Dist::new(shell)?;
    if !dist.program().exists() {
        return Err("call `cargo xtask dist` first".into());
    }
    let folder = dist.folder.to_string_lossy();
    let pages = PAGES.iter().map(|(page, tests)| {
        let page = format!("docs/emulator/{page}");
        document::run(shell, &page, &shell.read_dir(tests)?, &[("DIST", &folder)])
            .map_err(|why| format!("{page}: {why}").into())
    });
    all_of(pages.chain([debian(shell, &dist), image(shell, &dist)]))
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, String> {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.ok_or_else(|| format!("there is no text {pointer} in {value}"))
}

/// What a package has to bring beside the program.
const OF_THE_PACKAGE: [&str; 7] = [
    "usr/share/man/man1/dps-emulate.1.gz",
    "usr/share/bash-completion/completions/dps",
    "usr/share/zsh/vendor-completions/_dps",
    "usr/share/fish/vendor_completions.d/dps.fish",
    "usr/share/doc/dps/copyright",
    "usr/lib/systemd/system/dps-cert-renew@.timer",
    "usr/lib/systemd/system/dps-agent@.service",
];

fn debian(shell: &Shell, dist: &Dist) -> Result {
    let package = dist.folder.join(format!("dps_{}_amd64.deb", dist.version));
    let unpacked = shell.create_temp_dir()?;
    let root = if in_ci() {
        packages::as_root(shell, &format!("dpkg --install {}", package.display()))?;
        Path::new("/")
    } else {
        cmd!(shell, "dpkg-deb --extract {package}").arg(unpacked.path()).run()?;
        unpacked.path()
    };
    if let Some(missing) = OF_THE_PACKAGE.iter().find(|file| !root.join(file).exists()) {
        return Err(format!("{} has no {missing}", package.display()).into());
    }
    let unit = shell.read_file(root.join("usr/lib/systemd/system/dps-emulator.service"))?;
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/"));
    let command: Vec<&str> = command.ok_or("the service runs nothing")?.split(' ').collect();
    let (program, arguments) = command.split_first().ok_or("the service runs nothing")?;
    let program = root.join(program);
    let place = shell.create_temp_dir()?;
    let ca = place.path().join("ca.pem");
    let emulate = shell.cmd(&program).args(arguments).arg("--ca-out").arg(&ca);
    registers(shell, emulate, &ca, &program)?;
    if in_ci() {
        packages::as_root(shell, "dpkg --remove dps")?;
    }
    Ok(())
}

fn image(shell: &Shell, dist: &Dist) -> Result {
    if cmd!(shell, "id -u").read()? != "0" {
        let why = "chroot is for root";
        println!("skipped: image: {why}");
        return if in_ci() { Err(why.into()) } else { Ok(()) };
    }
    let image = dist.folder.join("image");
    let json =
        |file: &Path| -> Result<Value> { Ok(serde_json::from_str(&shell.read_file(file)?)?) };
    let blob = |from: &Value, digest: &str| -> Result<PathBuf> {
        Ok(image.join("blobs").join(text(from, digest)?.replace(':', "/")))
    };
    let manifest = json(&blob(&json(&image.join("index.json"))?, "/manifests/0/digest")?)?;
    let settings = json(&blob(&manifest, "/config/digest")?)?;
    let layer = blob(&manifest, "/layers/0/digest")?;
    let root = shell.create_temp_dir()?;
    let root = root.path();
    cmd!(shell, "tar --extract --file {layer} --directory {root}").run()?;
    // Others have to find their way there as the user of the image.
    cmd!(shell, "chmod 755 {root}").run()?;
    let words = |pointer: &str| {
        let words = settings.pointer(pointer).and_then(Value::as_array);
        words.into_iter().flatten().filter_map(Value::as_str)
    };
    let user = text(&settings, "/config/User")?;
    let inside = cmd!(shell, "env --ignore-environment").args(words("/config/Env"));
    let inside = inside.arg("/usr/sbin/chroot").arg(format!("--userspec={user}")).arg(root);
    let ca = root.join("data/ca.pem");
    registers(shell, inside.args(words("/config/Entrypoint")), &ca, &dist.program())?;

    let python = dist.folder.with_file_name("maturin").join("bin/python");
    cmd!(shell, "{python} -m pip install --quiet pyyaml").run()?;
    let script = shell.current_dir().join("tests/installs/services.py");
    for page in SERVICES {
        let text = shell.read_file(format!("docs/emulator/{page}"))?;
        let place = shell.create_temp_dir()?;
        let _there = shell.push_dir(place.path());
        for (file, block) in blocks(&text)?.iter().filter_map(|block| Some((block.file()?, block)))
        {
            shell.write_file(file, block.text)?;
            let run = cmd!(shell, "{python} {script} {file} {root}").args(words("/config/Env"));
            run.run().map_err(|why| format!("docs/emulator/{page}: {why}"))?;
        }
    }
    Ok(())
}

/// Starts an emulator on free ports, whatever else it would take, and registers a device there by each transport.
fn registers(shell: &Shell, emulate: Cmd<'_>, ca: &Path, program: &Path) -> Result {
    let emulate = ["--https-port", "--mqtt-port", "--amqp-port"]
        .iter()
        .fold(emulate, |emulate, port| emulate.args([port, "0"]));
    let running = Running::start(emulate)?;
    let ready = running.line(Duration::from_secs(30))?.ok_or("the emulator ended at once")?;
    let ready: Value = serde_json::from_str(&ready)?;
    let folder = shell.create_temp_dir()?;
    let key = folder.path().join("group.key");
    shell.write_file(&key, text(&ready, "/groupKey")?)?;
    for (transport, port) in [("http", "/httpsPort"), ("mqtt", "/mqttPort"), ("amqp", "/amqpPort")]
    {
        let port = ready.pointer(port).and_then(Value::as_u64).ok_or("it serves no port")?;
        let endpoint = format!("localhost:{port}");
        let scope = text(&ready, "/idScope")?;
        let register = cmd!(shell, "{program} register --json --transport {transport}");
        let register = register.args(["--endpoint", &endpoint, "--id-scope", scope]);
        let register = register.arg("--ca-file").arg(ca).arg("--group-key-file").arg(&key);
        let printed = register.args(["--registration-id", "pump-17"]).read()?;
        if text(&serde_json::from_str(&printed)?, "/status")? != "assigned" {
            return Err(format!("should be assigned: {printed}").into());
        }
    }
    Ok(())
}
