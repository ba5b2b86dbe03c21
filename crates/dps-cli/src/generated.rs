//! `dps completions` and `dps man`: what shells and people want to know of the command line, made from it.

use std::{fs, path::Path, process::ExitCode};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    cli::Cli,
    given::wrong,
    output::print,
    report::{Context, Reporter},
};

const COMPLETIONS: &str = "\
Examples:
  dps completions bash > ~/.local/share/bash-completion/completions/dps
  dps completions zsh > ~/.zfunc/_dps       # a folder of fpath
  dps completions fish > ~/.config/fish/completions/dps.fish";

const PAGES: &str = "\
Examples:
  dps man ~/.local/share/man/man1
  man dps-register";

#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell that reads them
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(after_help = PAGES)]
pub(crate) struct Pages {
    /// Folder for the pages, `dps.1` and one for each command; it is made if it is missing
    #[arg(value_name = "FOLDER")]
    folder: String,
}

pub(crate) fn completions(arguments: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "dps", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(crate) fn pages(arguments: &Pages) -> ExitCode {
    match write_pages(Path::new(&arguments.folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error =
                wrong("FOLDER", &arguments.folder, &format!("it can't be written: {error}"));
            Reporter::for_people().failed(&error, &Context::default())
        }
    }
}

fn write_pages(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    for command in with_subcommands(&cli) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        fs::write(folder.join(format!("{name}.1")), page(command)?)?;
    }
    Ok(())
}

/// A command, those below it, and those below them.
pub(crate) fn with_subcommands(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().flat_map(with_subcommands);
    std::iter::once(command).chain(below).collect()
}

/// The page of one command. What stands below its help keeps its lines, which are examples for the most part.
fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let details = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend_from_slice(b".SH DETAILS\n.nf\n");
    for line in details.lines() {
        // A dot or a quote at the beginning would be a request to the formatter.
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        page.extend_from_slice(format!("\\&{line}\n").as_bytes());
    }
    page.extend_from_slice(b".fi\n");
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}
