//! Words without what is of this machine or this moment.

/// Ports, dates and made-up names in capitals, and nothing that a table can't hold.
pub(crate) fn stable(words: &str) -> String {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let words = words.replace(folder, "FOLDER").replace('|', "\\|");
    let mut out = String::new();
    for word in words.split_inclusive(' ') {
        let (word, space) = word.strip_suffix(' ').map_or((word, ""), |word| (word, " "));
        out.push_str(&stable_word(word));
        out.push_str(space);
    }
    dates(&out)
}

fn stable_word(word: &str) -> String {
    let bare = word.trim_end_matches([',', ';', ':', '.', ')', '"']);
    let end = &word[bare.len()..];
    let is_time = bare.len() == 20 && bare.ends_with('Z') && bare.contains('T');
    let is_hex = bare.len() == 8 && bare.bytes().all(|b| b.is_ascii_hexdigit());
    if is_time {
        return format!("TIME{end}");
    }
    if is_hex {
        return format!("RANDOM{end}");
    }
    if bare.contains('.') && bare.len() == 3 && bare.parse::<f32>().is_ok() {
        return format!("NUMBER{end}");
    }
    let ephemeral = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((host, port)) = bare.rsplit_once(':')
        && ephemeral(port)
    {
        return format!("{host}:PORT{end}");
    }
    if ephemeral(bare) { format!("PORT{end}") } else { word.to_owned() }
}

/// `Thu, 26 Nov 2026 10:04:43 GMT` is `DATE`.
fn dates(words: &str) -> String {
    const LENGTH: usize = "Thu, 26 Nov 2026 10:04:43".len();
    let mut out = String::new();
    let mut rest = words;
    while let Some(at) = rest.find(" GMT") {
        let start = at.saturating_sub(LENGTH);
        out.push_str(&rest[..start]);
        out.push_str("DATE");
        rest = &rest[at + 4..];
    }
    out + rest
}
