//! A page of the documentation as something to run: its blocks, and a folder in which they work.

use std::{path::PathBuf, time::Duration};

use xshell::Shell;

use crate::process::{Result, Running};

/// Enough for a command that builds everything for release.
pub(crate) const LIMIT: Duration = Duration::from_secs(20 * 60);

/// A fenced block: the heading that it stands under, its language, and what is in it.
pub(crate) struct Block<'a> {
    pub(crate) section: &'a str,
    language: &'a str,
    pub(crate) text: &'a str,
}

/// All blocks of a page.
pub(crate) fn blocks(page: &str) -> Result<Vec<Block<'_>>, &'static str> {
    let parts: Vec<&str> = page.split("```").collect();
    let (mut blocks, mut section) = (Vec::new(), "");
    for pair in parts.chunks(2) {
        section =
            pair.first().and_then(|text| text.rsplit_once("\n## ")).map_or(section, |(_, s)| s);
        if let Some((language, text)) = pair.get(1).and_then(|block| block.split_once('\n')) {
            blocks.push(Block {
                section: section.lines().next().unwrap_or_default(),
                language,
                text,
            });
        }
    }
    if parts.len().is_multiple_of(2) { Err("a code block is never closed") } else { Ok(blocks) }
}

impl Block<'_> {
    pub(crate) fn is_script(&self) -> bool {
        self.language == "sh"
    }

    /// The file that a block of another language is, by a comment in its first line that has nothing else.
    pub(crate) fn file(&self) -> Option<&str> {
        let comment = self.text.lines().next()?.trim_start_matches(['#', '/', ' ']);
        let is_name = comment.contains('.') && !comment.contains(' ') && !self.is_script();
        is_name.then_some(comment)
    }
}

/// Writes the files of a page into a new and empty folder, besides those that are given, and runs its scripts there in their
/// order.
pub(crate) fn run(
    shell: &Shell,
    page: &str,
    files: &[PathBuf],
    variables: &[(&str, &str)],
) -> Result {
    let page = shell.read_file(page)?;
    let folder = shell.create_temp_dir()?;
    for file in files {
        shell.copy_file(file, folder.path())?;
    }
    let _there = shell.push_dir(folder.path());
    for block in blocks(&page)? {
        if let Some(file) = block.file() {
            shell.write_file(file, block.text)?;
        } else if block.is_script() {
            print!("{}", script(shell, block.text, variables)?);
        }
    }
    Ok(())
}

/// Ends what a script has left running, and keeps its exit code.
const AT_THE_END: &str = "trap 'code=$?; trap : TERM; kill 0; exit $code' EXIT";

/// Runs a script that stops at its first failure; what it prints.
pub(crate) fn script(shell: &Shell, text: &str, variables: &[(&str, &str)]) -> Result<String> {
    let text = format!("{AT_THE_END}\n{text}");
    let script = shell.cmd("setsid").args(["-w", "sh", "-e", "-u", "-c", &text]);
    Running::start(script.envs(variables.iter().copied()))?.read(LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_know_their_section_and_an_open_one_is_an_error() {
        let text = "# Title\n\n## Quick start\n```sh\nls\n```\ntext\n```rust\n## no\n```\n```sh\ndf\n```\n\n## B\n```sh\nb\n```\n";
        let blocks = blocks(text).unwrap();
        let scripts = blocks.iter().filter(|block| block.is_script());
        let scripts: Vec<_> = scripts.map(|block| (block.section, block.text)).collect();
        assert_eq!(scripts, [("Quick start", "ls\n"), ("Quick start", "df\n"), ("B", "b\n")]);
        assert!(super::blocks("text\n```sh\nls\n").is_err());
    }

    #[test]
    fn a_page_runs_with_the_files_that_it_shows() {
        let shell = Shell::new().unwrap();
        let folder = shell.create_temp_dir().unwrap();
        let page = folder.path().join("page.md").display().to_string();
        let text = |script| {
            format!(
                "```js\n// a.mjs\nx\n```\n```py\n# no file\n```\n```sh\ntest $V = v\n{script}\n```\n"
            )
        };
        for (script, passes) in [("grep x a.mjs; test $(ls) = a.mjs", true), ("false; true", false)]
        {
            shell.write_file(&page, text(script)).unwrap();
            assert_eq!(run(&shell, &page, &[], &[("V", "v")]).is_ok(), passes, "{script}");
        }
    }
}
