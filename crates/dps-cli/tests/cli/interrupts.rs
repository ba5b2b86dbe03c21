//! Ctrl-C and SIGTERM.

use std::process::Stdio;

use crate::support::{Emulator, Folder, KEY, Running, Silent, TRANSPORTS, register_at, text};

#[test]
fn an_interrupt_cancels_a_connection_that_hangs() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let silent = Silent::new();
        let running = Running::start(&mut silent.register(&["--timeout", "60"]));
        let _hanging = silent.accept();
        running.signal(signal);
        let ended = running.ended();
        assert_eq!(ended.code, code);
        let error = ended.json()["error"].clone();
        assert_eq!(error["kind"], "cancelled");
        assert_eq!((&error["transport"], &error["retryable"]), (&"http".into(), &false.into()));
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
