//! As much of Markdown as the README's commands need: fenced blocks, the headings they stand under, inline code.

/// A fenced block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The heading above it.
    pub(crate) section: String,
    /// Where its first line stands in the file, counted from 1.
    pub(crate) line: usize,
    /// The word behind the opening fence.
    pub(crate) language: String,
    /// What a comment `<!-- ci: ... -->` in the line above the fence says.
    pub(crate) directive: Option<String>,
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

/// The fenced blocks of a text in their order.
///
/// # Errors
/// A block that is never closed.
pub(crate) fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut section = String::new();
    let mut above = "";
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                open = Some(Block {
                    section: section.clone(),
                    line: index + 2,
                    language: language.trim().to_string(),
                    directive: directive(above),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                if line.starts_with('#') {
                    section = line.trim_start_matches('#').trim().to_string();
                }
            }
        }
        above = line;
    }
    match open {
        Some(block) => Err(format!("line {}: a code block is never closed", block.line - 1)),
        None => Ok(blocks),
    }
}

fn directive(line: &str) -> Option<String> {
    let comment = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?;
    Some(comment.trim().strip_prefix("ci:")?.trim().to_string())
}

/// What stands between single backticks outside of the blocks.
pub(crate) fn inline_code(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Title
## Quick start
<!-- ci: skip: needs a hub -->
```sh
# a comment
cargo run \\
  --release

second
```
Use `dps emulate` and `--json`.
```rust
# let hidden = `x`;
```
";

    #[test]
    fn blocks_know_where_they_stand_and_what_is_asked_of_them() {
        let blocks = blocks(TEXT).unwrap();
        let [shell, rust] = blocks.as_slice() else { panic!("{blocks:?}") };
        assert_eq!((shell.section.as_str(), shell.line), ("Quick start", 5));
        assert_eq!(shell.language, "sh");
        assert_eq!(shell.directive.as_deref(), Some("skip: needs a hub"));
        assert_eq!(shell.commands(), ["cargo run --release", "second"]);
        assert_eq!((rust.section.as_str(), rust.language.as_str()), ("Quick start", "rust"));
        assert_eq!(rust.directive, None);
    }

    #[test]
    fn an_open_block_is_an_error() {
        assert_eq!(
            blocks("text\n```sh\nls\n").unwrap_err(),
            "line 2: a code block is never closed"
        );
    }

    #[test]
    fn inline_code_leaves_the_blocks_out() {
        assert_eq!(inline_code(TEXT), ["dps emulate", "--json"]);
    }
}
