//! What the command makes of its own command line: completions, manual pages, the version.

use std::{fs, process::Command};

use crate::support::{Folder, dps, run};

/// The commands by the help, but `help` itself, like `register` and `tpm show`.
pub(crate) fn commands() -> Vec<String> {
    below("")
}

fn below(command: &str) -> Vec<String> {
    let help = run(command_of(command).arg("--help")).stdout;
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default().lines();
    let listed = listed.take_while(|line| line.starts_with(' '));
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !["", "help"].contains(name));
    let names = names.map(|name| format!("{command} {name}").trim().to_owned());
    names.flat_map(|name| [vec![name.clone()], below(&name)].concat()).collect()
}

/// The command of one of these names, without arguments.
pub(crate) fn command_of(name: &str) -> Command {
    dps(&name.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn the_version_names_the_commit_the_transports_and_the_tls_library() {
    let short = run(&mut dps(&["-V"]));
    assert_eq!(short.stdout, concat!("dps ", env!("CARGO_PKG_VERSION"), "\n"));
    let long = run(&mut dps(&["--version"])).stdout;
    let [first, transports, tls, pkcs11] = long.lines().collect::<Vec<_>>()[..] else {
        panic!("{long}")
    };
    assert_eq!(transports, "transports: http, mqtt, mqtt-ws, amqp, amqp-ws");
    assert_eq!(tls, "TLS: 1.2 and 1.3, by rustls with ring");
    assert_eq!(pkcs11, "PKCS#11: by the token's module");
    let rest = first.strip_prefix(short.stdout.trim_end()).unwrap();
    let folder = env!("CARGO_MANIFEST_DIR");
    let head = Command::new("git").current_dir(folder).args(["rev-parse", "HEAD"]).output();
    match head {
        Ok(head) if head.status.success() => {
            let head = String::from_utf8(head.stdout).unwrap();
            assert_eq!(rest, format!(" ({})", &head[..12]), "{long}");
        }
        _ => assert_eq!(rest, "", "{long}"),
    }
}

#[test]
fn completions_load_in_bash_and_know_every_command() {
    let folder = Folder::new();
    let script = run(&mut dps(&["completions", "bash"]));
    assert_eq!((script.code, script.stderr.as_str()), (0, ""));
    let file = folder.file("dps.bash", &script.stdout);
    // As bash does when a person types `dps reg` and asks for what may follow.
    let ask = "source \"$0\" && complete -p dps && COMP_WORDS=(dps \"$@\") COMP_CWORD=$# && \
        _dps dps \"${@: -1}\" \"${COMP_WORDS[$# - 1]}\" && echo \"${COMPREPLY[@]}\"";
    for command in commands() {
        let half = command[..command.len() - 1].split(' ');
        let output = Command::new("bash").args(["-c", ask, &file]).args(half).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains(" -F _dps dps\n"), "{command}: {said}");
        let offered = said.lines().last().unwrap();
        assert!(
            offered.split(' ').any(|word| command.rsplit(' ').next() == Some(word)),
            "{command}: {said}"
        );
    }
}

#[test]
fn completions_are_there_for_each_shell_and_no_other() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&mut dps(&["completions", shell]));
        assert_eq!((script.code, script.stderr.as_str()), (0, ""), "{shell}");
        for flag in ["registration-id", "group-ca"] {
            assert!(script.stdout.contains(flag), "{shell} does not complete --{flag}");
        }
    }
    let other = run(&mut dps(&["completions", "ksh"]));
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("ksh") && other.stderr.contains("fish"), "{}", other.stderr);
}

#[test]
fn each_command_has_a_manual_page_that_renders_with_each_flag_and_its_examples() {
    let folder = Folder::new();
    let pages = folder.path("man/man1");
    let ended = run(&mut dps(&["man", &pages]));
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
    let of = |command: &str| {
        fs::read_to_string(format!("{pages}/dps-{}.1", command.replace(' ', "-"))).unwrap()
    };
    assert_eq!(fs::read_dir(&pages).unwrap().count(), commands().len() + 1);
    for command in commands() {
        let help = run(command_of(&command).arg("--help")).stdout;
        let flags = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        let page = of(&command).replace("\\-", "-");
        for flag in flags {
            let flag = flag.trim_end_matches(|c: char| !c.is_alphanumeric());
            assert!(page.contains(flag.split('=').next().unwrap()), "{command} {flag}: {page}");
        }
    }
    let missing = run(&mut dps(&["man", "/dev/null/man1"]));
    assert_eq!(missing.code, 2);
    assert!(
        missing.stderr.contains("FOLDER \"/dev/null/man1\": it can't be written"),
        "{missing:?}"
    );

    let page = format!("{pages}/dps-register.1");
    let mut man = Command::new("groff");
    let Ok(rendered) = man.args(["-man", "-Tascii", "-ww", "-P-cbou", &page]).output() else {
        assert!(std::env::var("CI").is_err(), "groff is missing");
        eprintln!("skipped: groff, which renders manual pages, is not installed");
        return;
    };
    let text = String::from_utf8(rendered.stdout).unwrap();
    let warnings = String::from_utf8(rendered.stderr).unwrap();
    assert!(rendered.status.success() && warnings.is_empty(), "{warnings}");
    assert!(
        text.contains("--registration-id") && text.contains("\n         dps register --emulator\n"),
        "{text}"
    );
}
