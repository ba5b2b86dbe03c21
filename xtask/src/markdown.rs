//! As much of Markdown as the README's commands need: fenced blocks, the headings they stand under, inline code.

/// A fenced block of code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The heading above it.
    pub(crate) section: String,
    /// Where its first line stands in the file, counted from 1.
    pub(crate) line: usize,
    /// The word behind the opening fence.
    pub(crate) language: String,
    pub(crate) text: String,
}

impl Block {
    /// The commands of a shell block: lines with their continuations joined, without comments and blank lines.
    pub(crate) fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        joined
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect()
    }
}

/// The fenced blocks of a text in their order, and the rest of the text.
///
/// # Errors
/// A block that is never closed.
pub(crate) fn blocks(text: &str) -> Result<(Vec<Block>, String), String> {
    let (mut blocks, mut rest, mut section) = (Vec::new(), String::new(), String::new());
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                let (section, language) = (section.clone(), language.trim().to_owned());
                open = Some(Block { section, line: index + 2, language, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) => {
                if line.starts_with('#') {
                    section = line.trim_start_matches('#').trim().to_owned();
                }
                rest.extend([line, "\n"]);
            }
        }
    }
    match open {
        Some(block) => Err(format!("line {}: a code block is never closed", block.line - 1)),
        None => Ok((blocks, rest)),
    }
}

/// What stands between single backticks.
pub(crate) fn inline_code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n## Quick start\n```sh\n# a comment\ncargo run \\\n  --release\n\n\
        second\n```\nUse `dps emulate` and `--json`.\n```rust\n# let hidden = `x`;\n```\n";

    #[test]
    fn blocks_know_where_they_stand_and_leave_the_rest() {
        let (blocks, rest) = blocks(TEXT).unwrap();
        let [shell, rust] = blocks.as_slice() else { panic!("{blocks:?}") };
        assert_eq!((shell.section.as_str(), shell.line), ("Quick start", 4));
        assert_eq!(shell.language, "sh");
        assert_eq!(shell.commands(), ["cargo run --release", "second"]);
        assert_eq!((rust.section.as_str(), rust.language.as_str()), ("Quick start", "rust"));
        assert_eq!(inline_code(&rest).collect::<Vec<_>>(), ["dps emulate", "--json"]);
    }

    #[test]
    fn an_open_block_is_an_error() {
        let why = blocks("text\n```sh\nls\n").unwrap_err();
        assert_eq!(why, "line 2: a code block is never closed");
    }
}
