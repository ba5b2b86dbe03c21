//! `cargo xtask bench`: what one registration costs a device, transport by transport.
//!
//! Round trips and bytes are counted on a path with a delay, CPU over many runs on the bare loopback. The figures
//! are printed beside those of a bare client written for the purpose on the same crates, as ratios: they inform,
//! and no test depends on them.

mod measure;
mod proxy;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    metadata::Metadata,
    process::{Cmd, Group, Result},
};
use measure::{Client, Figures};

/// A client that sends a registration over MQTT in one flight and does nothing else: rumqttc's codec, rustls with
/// ring and tokio; size-optimized, fat LTO, panics abort, stripped. Measured once, by hand.
const BARE: Figures =
    Figures { round_trips: 2.0, up: 722, down: 0, cpu_ms: 3.5, peak_mib: 2.7, size_mib: 1.5 };

/// Each transport, the feature set that brings it alone, and the port of the emulator that serves it.
const TRANSPORTS: &[Transport] = &[
    Transport { name: "http", features: "http", port: |ready| Some(ready.https_port) },
    Transport { name: "mqtt", features: "mqtt", port: |ready| ready.mqtt_port },
    Transport {
        name: "mqtt-ws",
        features: "mqtt,websocket",
        port: |ready| ready.mqtt_port.map(|_| ready.https_port),
    },
    Transport { name: "amqp", features: "amqp", port: |ready| ready.amqp_port },
    Transport {
        name: "amqp-ws",
        features: "amqp,websocket",
        port: |ready| ready.amqp_port.map(|_| ready.https_port),
    },
];

struct Transport {
    name: &'static str,
    features: &'static str,
    port: fn(&Ready) -> Option<u16>,
}

/// The emulator's first line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    id_scope: String,
    https_port: u16,
    mqtt_port: Option<u16>,
    amqp_port: Option<u16>,
    group_key: String,
}

/// Prints the table; arguments name transports, none means all.
pub(crate) fn run(arguments: &[String]) -> Result {
    let target = Metadata::load()?.target_directory;
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    let dps = build_command(&target)?;
    let (_running, ready) = emulate(&dps, &folder)?;
    let device = Device::new(&dps, &folder, &ready)?;

    let mut rows = Vec::new();
    for transport in TRANSPORTS {
        let wanted = arguments.is_empty() || arguments.iter().any(|name| name == transport.name);
        let Some(port) = (transport.port)(&ready).filter(|_| wanted) else { continue };
        let minimal = build_minimal(transport, &target)?;
        rows.push((
            format!("{} app", transport.name),
            device.minimal(&minimal, transport, port).measure()?,
        ));
        rows.push((
            format!("{} command", transport.name),
            device.command(&dps, transport, port).measure()?,
        ));
    }
    print_table(&rows);
    Ok(())
}

/// Its package alone: features that only tests need stay out of what it is built from.
fn build_command(target: &Path) -> Result<PathBuf> {
    Cmd::cargo(["build", "--release", "--locked", "--package", "dps-cli"]).run()?;
    Ok(target.join("release/dps"))
}

/// The example `minimal` with nothing but one transport.
fn build_minimal(transport: &Transport, target: &Path) -> Result<PathBuf> {
    Cmd::cargo(["build", "--profile", "minimal", "--locked", "--package", "dps-client"])
        .args(["--example", "minimal", "--no-default-features", "--features", transport.features])
        .run()?;
    let copy = target.join("bench").join(format!("minimal-{}", transport.name));
    fs::copy(target.join("minimal/examples/minimal"), &copy)?;
    Ok(copy)
}

fn emulate(dps: &Path, folder: &Path) -> Result<(Group, Ready)> {
    let (running, line) = Cmd::new(dps)
        .args(["emulate", "--ca-out"])
        .args([folder.join("ca.pem")])
        .start_until_first_line(std::time::Duration::from_secs(20))?;
    Ok((running, serde_json::from_str(&line)?))
}

/// The device that registers, and its files.
struct Device {
    id_scope: String,
    ca: PathBuf,
    key: PathBuf,
}

impl Device {
    const ID: &str = "bench-1";

    fn new(dps: &Path, folder: &Path, ready: &Ready) -> Result<Self> {
        let group_key = folder.join("group.key");
        fs::write(&group_key, &ready.group_key)?;
        let key = Cmd::new(dps)
            .args(["derive-key", "--registration-id", Self::ID, "--group-key-file"])
            .args([&group_key])
            .read()?;
        let device = Self {
            id_scope: ready.id_scope.clone(),
            ca: folder.join("ca.pem"),
            key: folder.join("device.key"),
        };
        fs::write(&device.key, key)?;
        Ok(device)
    }

    fn minimal(&self, program: &Path, transport: &Transport, port: u16) -> Client {
        let Self { id_scope, ca, key } = self;
        let (ca, key) = (ca.display().to_string(), key.display().to_string());
        let (transport, id_scope) = (transport.name.to_owned(), id_scope.clone());
        Client::new(program, port, move |endpoint| {
            [&transport, endpoint, &ca, &id_scope, Self::ID, &key].map(ToString::to_string).into()
        })
    }

    fn command(&self, program: &Path, transport: &Transport, port: u16) -> Client {
        let Self { id_scope, ca, key } = self;
        let (ca, key) = (ca.display().to_string(), key.display().to_string());
        let (transport, id_scope) = (transport.name.to_owned(), id_scope.clone());
        Client::new(program, port, move |endpoint| {
            let flags = [
                ["--transport", &transport],
                ["--endpoint", endpoint],
                ["--ca-file", &ca],
                ["--id-scope", &id_scope],
                ["--registration-id", Self::ID],
                ["--symmetric-key-file", &key],
            ];
            let flags = flags.into_iter().flatten().map(ToString::to_string);
            ["register".to_owned(), "--json".to_owned()].into_iter().chain(flags).collect()
        })
    }
}

fn print_table(rows: &[(String, Figures)]) {
    println!(
        "One registration, assigned at once, symmetric key; x: times the bare client's figure.\n"
    );
    println!("| client | round trips | bytes up | bytes down | CPU ms | peak MiB | binary MiB |");
    println!("|---|---|---|---|---|---|---|");
    for (name, figures) in rows {
        let Figures { round_trips, up, down, cpu_ms, peak_mib, size_mib } = figures;
        println!(
            "| {name} | {round_trips:.1} | {up} ({:.1}x) | {down} | {cpu_ms:.1} ({:.1}x) | {peak_mib:.1} ({:.1}x) | {size_mib:.1} ({:.1}x) |",
            *up as f64 / BARE.up as f64,
            cpu_ms / BARE.cpu_ms,
            peak_mib / BARE.peak_mib,
            size_mib / BARE.size_mib,
        );
    }
    println!(
        "| bare one-flight MQTT client | {:.1} | {} | | {:.1} | {:.1} | {:.1} |",
        BARE.round_trips, BARE.up, BARE.cpu_ms, BARE.peak_mib, BARE.size_mib
    );
}
