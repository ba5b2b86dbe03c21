//! Colors, by one rule: at a terminal, unless `NO_COLOR` is set or the terminal is a dumb one; `CLICOLOR_FORCE` asks for
//! them anywhere.

use std::{borrow::Cow, env, io::IsTerminal};

/// Whether there are colors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    has_colors: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Color {
    Red,
    Green,
    Yellow,
}

impl Style {
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = env::var_os("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0");
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let has_colors = !set("NO_COLOR") && (forced || (stream.is_terminal() && !dumb));
        Self { has_colors }
    }

    pub(crate) fn paint(self, color: Color, text: &str) -> Cow<'_, str> {
        if !self.has_colors {
            return Cow::Borrowed(text);
        }
        let code = match color {
            Color::Red => "1;31",
            Color::Green => "1;32",
            Color::Yellow => "1;33",
        };
        Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m"))
    }
}
