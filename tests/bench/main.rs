//! `cargo xtask bench`: what one registration costs a device, transport by transport.
//!
//! Round trips and bytes are counted on a path with a delay, CPU over many runs on the bare loopback. The figures
//! are printed beside those of a bare client written for the purpose on the same crates, as ratios: they inform,
//! and no test depends on them.

mod client;
mod load;
mod slow_path;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use client::{Client, Figures};
use dps_client::Transport;
use dps_emulator::{Attestation, Emulator, Enrollment, SymmetricKey};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// A client that sends a registration over MQTT in one flight and does nothing else: rumqttc's codec, rustls with
/// ring and tokio; size-optimized, fat LTO, panics abort, stripped. Measured once, by hand.
const BARE: Figures =
    Figures { round_trips: 2.0, up: 722, down: 0, cpu_ms: 3.5, peak_mib: 2.7, size_mib: 1.5 };

const DEVICE: &str = "bench-1";

/// What features add to a program that shows a certificate over HTTP.
const FEATURES: [&str; 3] = ["csr", "pkcs11", "tpm"];

/// Prints the table; arguments name transports, none means all. `sizes` prints what the features for identities add
/// instead, `load` how many devices the emulator serves.
fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["load", load::BARE_SERVER] {
        return load::bare_server();
    }
    // The folder of the programs that cargo builds is two above this one's.
    let this = std::env::current_exe()?;
    let target = this.parent().and_then(Path::parent).ok_or("no target folder")?.to_owned();
    if arguments == ["load"] {
        cargo(&["build", "--release", "--locked", "--package", "dps-cli"])?;
        return load::run(&target.join("release/dps"));
    }
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    if arguments == ["sizes"] {
        return sizes(&target);
    }

    let runtime = tokio::runtime::Runtime::new()?;
    let key = SymmetricKey::random()?;
    let files =
        [folder.join("ca.pem"), folder.join("device.key")].map(|file| file.display().to_string());
    fs::write(&files[1], key.expose_base64())?;
    let device = Enrollment::individual(DEVICE.parse()?, Attestation::symmetric_key(key));
    let emulator = runtime.block_on(Emulator::builder().enrollment(device).start())?;
    fs::write(&files[0], emulator.ca_pem())?;

    println!(
        "One registration, assigned at once, symmetric key; x: times the bare client's figure.\n"
    );
    println!("| client | round trips | bytes up | bytes down | CPU ms | peak MiB | binary MiB |");
    println!("|---|---|---|---|---|---|---|");
    // Its package alone: features that only tests need stay out of what it is built from.
    cargo(&["build", "--release", "--locked", "--package", "dps-cli"])?;
    for transport in Transport::ALL {
        let name = transport.as_str();
        if !arguments.is_empty() && !arguments.iter().any(|argument| argument == name) {
            continue;
        }
        let port = match transport {
            Transport::Mqtt => emulator.mqtt_port(),
            Transport::Amqp => emulator.amqp_port(),
            _ => emulator.https_port(),
        };
        let [ca, key] = files.clone();
        let id_scope = emulator.id_scope().to_string();
        let minimal = [name, "ENDPOINT", &ca, &id_scope, DEVICE, &key].map(str::to_owned);
        let flags = format!(
            "register --json --transport {name} --endpoint ENDPOINT --id-scope {id_scope} --registration-id {DEVICE}"
        );
        let files = ["--ca-file", &ca, "--symmetric-key-file", &key];
        let command = flags.split(' ').chain(files).map(str::to_owned).collect();
        let program = build_example("minimal", &name.replace("-ws", ",websocket"), &target)?;
        let app = Client { program, port, arguments: minimal.into() };
        print_row(&format!("{name} app"), &app.measure()?);
        let program = target.join("release/dps");
        print_row(
            &format!("{name} command"),
            &Client { program, port, arguments: command }.measure()?,
        );
    }
    let Figures { round_trips, up, cpu_ms, peak_mib, size_mib, .. } = BARE;
    println!(
        "| bare one-flight MQTT client | {round_trips:.1} | {up} | | {cpu_ms:.1} | {peak_mib:.1} | {size_mib:.1} |"
    );
    runtime.block_on(emulator.stop());
    Ok(())
}

/// Prints what each feature adds to the example `identity`.
fn sizes(target: &Path) -> Result {
    let size = |features: &str| -> Result<u64> {
        Ok(fs::metadata(build_example("identity", features, target)?)?.len())
    };
    let without = size("http")?;
    println!(
        "| feature | bytes of the program | adds, KiB |\n|---|---|---|\n| (none) | {without} | |"
    );
    for feature in FEATURES {
        let with = size(&format!("http,{feature}"))?;
        let adds = (with as f64 - without as f64) / 1024.0;
        println!("| `{feature}` | {with} | {adds:.0} |");
    }
    Ok(())
}

/// An example with these features and no others.
fn build_example(name: &str, features: &str, target: &Path) -> Result<PathBuf> {
    let example = ["--example", name, "--no-default-features", "--features", features];
    let package = ["build", "--profile", "minimal", "--locked", "--package", "dps-client"];
    cargo(&[&package[..], &example].concat())?;
    let copy = target.join("bench").join(format!("{name}-{}", features.replace(',', "-")));
    fs::copy(target.join("minimal/examples").join(name), &copy)?;
    Ok(copy)
}

fn cargo(arguments: &[&str]) -> Result {
    let status = Command::new("cargo").args(arguments).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cargo {}: {status}", arguments.join(" ")).into())
    }
}

fn print_row(name: &str, figures: &Figures) {
    let Figures { round_trips, up, down, cpu_ms, peak_mib, size_mib } = figures;
    println!(
        "| {name} | {round_trips:.1} | {up} ({:.1}x) | {down} | {cpu_ms:.1} ({:.1}x) | {peak_mib:.1} ({:.1}x) | {size_mib:.1} ({:.1}x) |",
        *up as f64 / BARE.up as f64,
        cpu_ms / BARE.cpu_ms,
        peak_mib / BARE.peak_mib,
        size_mib / BARE.size_mib,
    );
}
