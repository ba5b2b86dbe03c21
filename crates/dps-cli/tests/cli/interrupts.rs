//! Ctrl-C and SIGTERM.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Write},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{
    Emulator, Folder, KEY, Running, Silent, TRANSPORTS, dps, register_at, run, text,
};

/// So long a command may live on after an interrupt.
const SOON: Duration = Duration::from_secs(5);

/// A pipe that nobody reads and that takes nothing any more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    /// As Linux makes them.
    const CAPACITY: usize = 64 * 1024;
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'.'; CAPACITY]).unwrap();
    (reader, writer)
}

/// Sends the signal and waits for the end: by the exit code of the signal or, where a command leaves signals to the
/// system, by the signal itself.
fn ends_by(running: Running, signal: &str, what: &str) {
    let number = if signal == "-INT" { 2 } else { 15 };
    let start = Instant::now();
    running.signal(signal);
    let status = running.status();
    let ended = status.code().or(status.signal().map(|number| 128 + number));
    assert_eq!(ended, Some(128 + number), "{what}");
    assert!(start.elapsed() < SOON, "{what}: {:?}", start.elapsed());
}

#[test]
fn an_interrupt_cancels_a_connection_that_hangs() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let silent = Silent::new();
        let running = Running::start(&mut silent.register(&["--timeout", "60"]));
        let _hanging = silent.accept();
        running.signal(signal);
        let ended = running.ended();
        assert_eq!(ended.code, code, "{signal:?}");
        let error = ended.json()["error"].clone();
        assert_eq!(error["kind"], "cancelled", "{signal:?}");
        assert_eq!(
            (&error["transport"], &error["retryable"]),
            (&"http".into(), &false.into()),
            "{signal:?}"
        );
        assert!(text(&error, "message").contains("cancelled"), "{error}");
    }
}

#[test]
fn an_interrupt_cancels_the_wait_for_the_next_poll() {
    let emulator = Emulator::behaving("polls = 1\nretry-after = 30");
    for transport in TRANSPORTS {
        let mut running = Running::start(&mut emulator.register_dev_over(transport, &["-v"]));
        running.wait_for_stderr("Waiting");
        running.signal("-INT");
        running.ended().failed("cancelled");
    }
}

#[test]
fn the_session_is_ended_before_the_command_is() {
    let folder = Folder::new();
    let toml = format!(
        "[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\"\npolls = 1\nretry-after = 30"
    );
    let config = folder.file("emulator.toml", toml);
    let mut emulator = Emulator::start(folder, &["--config", &config, "--events", "-"]);
    let mut running = Running::start(&mut emulator.register_dev_over("mqtt", &["-v"]));
    running.wait_for_stderr("Waiting");
    running.signal("-INT");
    running.ended().failed("cancelled");
    let closed = emulator.event("closed");
    assert_eq!(closed["reason"], "the peer ended the session");
}

#[test]
fn an_interrupt_while_a_key_is_awaited_sends_nothing() {
    let mut command = register_at("127.0.0.1:1", &["--symmetric-key-file", "-", "-v"]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let _kept_open = running.child().stdin.take();
    running.wait_for_stderr("reading");
    running.signal("-INT");
    running.ended().failed("cancelled");
}

#[test]
fn an_interrupt_ends_a_command_that_reads_a_named_pipe() {
    let folder = Folder::new();
    let fifo = folder.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let at_fifo = format!("@{fifo}");
    let device = ["--id-scope", "0ne1", "--registration-id", "dev"];
    for (command, arguments) in [
        ("register", vec!["--symmetric-key-file", &fifo]),
        ("register", vec!["--group-key-file", &fifo]),
        ("register", vec!["--ca-file", &fifo]),
        ("register", vec!["--payload", &at_fifo]),
        ("register", vec!["--cert", &fifo, "--key", &fifo]),
        ("register", vec!["--tpm", "/no/tpm", "--tpm-owner-password-file", &fifo]),
        (
            "register",
            vec!["--cert", "c", "--key", "tpm:0x81000002", "--tpm-key-password-file", &fifo],
        ),
        ("register", vec!["--cert", "c", "--key", "pkcs11:object=k", "--pkcs11-pin-file", &fifo]),
        ("tpm", vec!["show", "--tpm-endorsement-password-file", &fifo]),
        ("tpm", vec!["sign", "--hub", "h", "--device-id", "d", "--tpm-owner-password-file", &fifo]),
        ("sas-token", vec!["--symmetric-key-file", &fifo]),
        ("derive-key", vec!["--registration-id", "dev", "--group-key-file", &fifo]),
        ("emulate", vec!["--config", &fifo]),
        ("emulate", vec!["--group-ca", &fifo]),
    ] {
        for signal in ["-INT", "-TERM"] {
            let mut dps = dps(&[command]);
            if matches!(command, "register" | "sas-token") {
                dps.args(device);
            }
            if !arguments.iter().any(|argument| {
                argument.ends_with("key-file") || ["--key", "--tpm"].contains(argument)
            }) {
                dps.env("DPS_SYMMETRIC_KEY", KEY);
            }
            let running = Running::start(dps.args(&arguments));
            // It opens when the command reads it.
            let _writer = File::options().write(true).open(&fifo).unwrap();
            ends_by(running, signal, &format!("{command} {arguments:?}"));
        }
    }
}

#[test]
fn an_interrupt_ends_a_command_that_reads_standard_input() {
    for arguments in [
        &["emulate", "--group-ca", "-"][..],
        &["derive-key", "--registration-id", "dev", "--group-key-file", "-"],
    ] {
        for signal in ["-INT", "-TERM"] {
            let mut running = Running::start(dps(arguments).stdin(Stdio::piped()));
            let mut stdin = running.child().stdin.take().unwrap();
            // More than a pipe holds: it is written when some of it has been read.
            stdin.write_all(&vec![b' '; 256 * 1024]).unwrap();
            ends_by(running, signal, &format!("{arguments:?}"));
        }
    }
}

#[test]
fn an_interrupt_ends_an_emulator_whose_file_nobody_reads() {
    let folder = Folder::new();
    let fifo = folder.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for flag in ["--events", "--ca-out"] {
        for signal in ["-INT", "-TERM"] {
            ends_by(Running::start(&mut dps(&["emulate", flag, &fifo])), signal, flag);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_ends_a_command_whose_output_nobody_reads() {
    for signal in ["-INT", "-TERM"] {
        let (_reader, writer) = full_pipe();
        let mut command = dps(&["register", "--emulator", "--poll-floor", "0"]);
        let mut running = Running::start_with_stdout(&mut command, writer.into());
        running.wait_for_stderr("  assigned");
        ends_by(running, signal, "register");

        let (_reader, writer) = full_pipe();
        let mut command = dps(&["emulate", "-vv"]);
        let running = Running::start_with_stdout(&mut command, writer.into());
        ends_by(running, signal, "emulate");
    }
    // What it says is larger than a pipe, and the time for the registration is over.
    let emulator =
        Emulator::behaving(&format!("payload = {{ text = \"{}\" }}", "x".repeat(200_000)));
    let mut command = emulator.register_dev(&["-v", "--timeout", "1"]);
    let mut running = Running::start(&mut command);
    running.wait_for_stderr("Assigned");
    ends_by(running, "-TERM", "a large payload");
}

#[cfg(target_os = "linux")]
#[test]
fn standard_error_that_nobody_reads_holds_nothing_up() {
    let (_reader, writer) = full_pipe();
    let mut command = dps(&["register", "--emulator", "-vv", "--poll-floor", "0"]);
    let start = Instant::now();
    let output = command.stderr(writer).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"assigned"), "{output:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());

    let (_reader, writer) = full_pipe();
    let emulator = Emulator::start_with_stderr(Folder::new(), &["-vv"], writer.into());
    let group = emulator.folder.file("group.key", text(&emulator.ready, "groupKey"));
    let device = ["--registration-id", "dev", "--group-key-file", &group];
    for transport in TRANSPORTS {
        run(&mut emulator.register_over(transport, &device)).assigned();
    }
    emulator.running.signal("-TERM");
    assert_eq!(emulator.running.status().code(), Some(0));
}

#[test]
fn events_that_nobody_reads_hold_neither_the_emulator_nor_its_end_up() {
    let emulator = Emulator::start(Folder::new(), &["-vv", "--group-key", KEY, "--events", "-"]);
    let group = emulator.folder.file("group.key", KEY);
    // The pipe of its standard output has one reader, this test, which reads no further than the first line.
    for device in 0..12 {
        for transport in TRANSPORTS {
            let device = format!("dev-{device}");
            let device = ["--registration-id", &device, "--group-key-file", &group];
            run(&mut emulator.register_over(transport, &device)).assigned();
        }
    }
    let start = Instant::now();
    emulator.running.signal("-TERM");
    assert_eq!(emulator.running.status().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn two_interrupts_end_it_at_once() {
    let emulator = Emulator::behaving("polls = 1\nretry-after = 30");
    let mut running = Running::start(&mut emulator.register_dev(&["-v"]));
    running.wait_for_stderr("Waiting");
    running.signal("-INT");
    ends_by(running, "-INT", "register");
    // A peer that says nothing keeps the emulator from a quick end.
    let endpoint = emulator.endpoint();
    let _silent = std::net::TcpStream::connect(endpoint).unwrap();
    emulator.running.signal("-TERM");
    let start = Instant::now();
    let _ = Command::new("kill").args(["-TERM", &emulator.running.id()]).status();
    assert!(matches!(emulator.running.status().code(), Some(0 | 143)));
    assert!(start.elapsed() < SOON);
}
