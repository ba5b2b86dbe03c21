//! What people see: help, colors, progress and the start of the emulator at a terminal.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rcgen::{CertificateParams, DnType, KeyPair};

use crate::support::{Emulator, Ended, Folder, KEY, Running, dps, run};

const COMMANDS: [&[&str]; 8] = [
    &[],
    &["register"],
    &["emulate"],
    &["derive-key"],
    &["sas-token"],
    &["tpm"],
    &["tpm", "show"],
    &["tpm", "sign"],
];

fn help(command: &[&str]) -> String {
    run(dps(command).arg("--help")).stdout
}

#[test]
fn help_fits_into_80_columns() {
    for command in COMMANDS {
        for flag in ["--help", "-h"] {
            let help = run(dps(command).arg(flag)).stdout;
            for line in help.lines() {
                assert!(line.chars().count() <= 78, "{command:?}: {line}");
            }
        }
    }
}

/// The commands of a help's examples, each with its comment left out.
fn examples(command: &[&str]) -> Vec<String> {
    let help = help(command);
    let (_, examples) = help.split_once("Examples:\n").expect("examples");
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in examples.lines().take_while(|line| line.is_empty() || line.starts_with("  ")) {
        let line = line.strip_prefix("  ").unwrap_or(line);
        if goes_on {
            let last = commands.last_mut().expect("a command");
            last.push('\n');
            last.push_str(line);
        } else if !line.is_empty() && !line.starts_with('#') {
            commands.push(line.to_owned());
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

/// Runs a script where the command is on the path.
fn shell(script: &str, folder: &Folder) -> Command {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_dps"));
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder.path(".")).stdin(Stdio::null());
    command.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
    command
}

#[test]
fn the_examples_of_the_help_can_be_pasted() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "pump-17");
    let chain = leaf.self_signed(&key).unwrap().pem();
    folder.file("key.pem", key.serialize_pem());
    folder.file("chain.pem", &chain);
    for name in ["group.key", "primary.key", "secondary.key"] {
        folder.file(name, KEY);
    }
    let by_key = format!(
        "[[enrollment]]\nregistration-id = \"pump-17\"\nsymmetric-key = \"{KEY}\"\ncertificate-policy = \"issue\"\n"
    );
    let by_certificate =
        format!("[[enrollment]]\nregistration-id = \"pump-17\"\ncertificate = '''{chain}'''\n");
    let by_group = format!("[[enrollment]]\ngroup = \"g\"\nsymmetric-key = \"{KEY}\"\n");
    let [by_key, by_certificate, by_group] = [by_key, by_certificate, by_group]
        .map(|toml| Emulator::configured(&format!("id-scope = \"0ne00AABBCC\"\n{toml}")));
    let mut ran = 0;
    for command in COMMANDS {
        for example in examples(command) {
            // A vault is on few machines, and so is a TPM; tpm.rs has a software one.
            if ["vault ", "dps tpm ", "--tpm "].iter().any(|words| example.contains(words)) {
                continue;
            }
            let emulator = match &example {
                example if example.contains("--cert") => &by_certificate,
                example if example.contains("--group-key-file") => &by_group,
                _ => &by_key,
            };
            // One example makes this file anew.
            for name in ["pump-17.key", "primary.key", "secondary.key"] {
                folder.file(name, KEY);
            }
            let endpoint = emulator.endpoint();
            let ca = emulator.ready["caFile"].as_str().unwrap();
            fs::copy(ca, folder.path("ca.pem")).unwrap();
            // The one example with an endpoint has the port that its comment names.
            let script = example.replace("localhost:8443", &endpoint);
            let script = ["443", "8883", "5671", "8443"]
                .iter()
                .fold(script, |script, port| script.replace(&format!("-port {port} "), "-port 0 "));
            let is_server = script.starts_with("dps emulate") && !script.contains("example-config");
            if is_server {
                let mut running = Running::start(&mut shell(&format!("exec {script}"), &folder));
                let stdout = running.child().stdout.take().unwrap();
                let line = BufReader::new(stdout).lines().next().unwrap().unwrap();
                assert!(line.starts_with("{\"ready\":true,"), "{script}: {line}");
            } else {
                let mut shell = shell(&script, &folder);
                shell.env("DPS_ENDPOINT", &endpoint).env("DPS_CA_FILE", folder.path("ca.pem"));
                let ended = run(&mut shell);
                assert_eq!(ended.code, 0, "{script}: {ended:?}");
            }
            ran += 1;
        }
    }
    assert!(ran >= 12, "{ran}");
}

/// Runs it at a terminal that `script` makes up: what it says there, and its exit code.
fn at_a_terminal(command: &str, variables: &[(&str, &str)]) -> Ended {
    let folder = Folder::new();
    let mut script = shell("exec script -qec \"$COMMAND\" /dev/null", &folder);
    script.env("COMMAND", command).env("TERM", "xterm").env_remove("NO_COLOR");
    run(script.envs(variables.iter().copied()))
}

#[cfg(target_os = "linux")]
#[test]
fn progress_is_one_line_at_a_terminal_and_lines_elsewhere() {
    const REGISTER: &str = "dps register --emulator --poll-floor 0";
    let ended = at_a_terminal(REGISTER, &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let (progress, result) = ended.stdout.split_once("\u{1b}[1;32massigned:\u{1b}[0m").unwrap();
    assert!(progress.contains("\r\u{1b}[2K\u{1b}[?7l") && !progress.contains('\n'), "{progress:?}");
    assert!(progress.ends_with("\r\u{1b}[2K"), "it is gone in the end: {progress:?}");
    assert_eq!(result.lines().count(), 3, "{result}");
    for (variable, value) in [("TERM", "dumb"), ("DPS_VERBOSE", "1")] {
        let lines = at_a_terminal(REGISTER, &[(variable, value)]);
        assert!(
            !lines.stdout.contains("\u{1b}[2K") && lines.stdout.contains("polling\r\n"),
            "{variable:?}"
        );
    }
    let quiet = at_a_terminal(&format!("{REGISTER} --quiet"), &[]);
    assert!(!quiet.stdout.contains("polling"), "{quiet:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn colors_follow_one_rule() {
    const FAILS: &str = "dps register --timeout soon";
    let red = "\u{1b}[1;31merror:\u{1b}[0m";
    assert!(at_a_terminal(FAILS, &[]).stdout.contains(red));
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let ended = at_a_terminal(FAILS, &[variable]);
        assert!(ended.stdout.contains("error:") && !ended.stdout.contains('\u{1b}'), "{ended:?}");
    }
    let mut command = dps(&["register", "--timeout", "soon"]);
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
    assert!(run(&mut command).stderr.starts_with("error: "));
    assert!(run(command.env("CLICOLOR_FORCE", "1")).stderr.starts_with(red));
    assert!(run(command.env("NO_COLOR", "1")).stderr.starts_with("error: "));
}

#[cfg(target_os = "linux")]
#[test]
fn the_emulator_prints_a_line_to_paste_at_a_terminal() {
    let folder = Folder::new();
    let mut script =
        shell("exec script -qec 'exec dps emulate --ca-out \"my ca.pem\"' /dev/null", &folder);
    let mut running = Running::start(script.env("TERM", "xterm"));
    let mut lines = BufReader::new(running.child().stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap().trim_end().to_owned();
    assert!(next().starts_with("{\"ready\":true,"));
    assert!(next().starts_with("serving on localhost: https "));
    assert_eq!(next(), "devices trust 'my ca.pem'; Ctrl-C stops it");
    assert_eq!(next(), "a device registers with");
    let pasted = [next(), next(), next()].join("\n");
    let ended = run(&mut shell(&pasted, &folder));
    assert_eq!(ended.code, 0, "{pasted}: {ended:?}");
    assert!(ended.stdout.starts_with("assigned: my-device"), "{ended:?}");
}
