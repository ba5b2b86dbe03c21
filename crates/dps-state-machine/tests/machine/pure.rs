//! The source of the pure core says nothing that a core without a runtime could not mean.

use std::path::Path;

/// What the core's code never says, and why not. `cargo xtask no-std` holds the rest.
const NEVER: &[(&str, &str)] = &[
    ("feature =", "the core is the same with every feature"),
    ("async ", "the core returns outputs, it waits for nothing"),
    (".await", "the core returns outputs, it waits for nothing"),
];

/// The lines of code with such a word, and why it must not be there; comments may say anything.
fn found(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let words = NEVER.iter().filter(|(word, _)| code.contains(word));
        found.extend(words.map(|(word, why)| format!("{}: {word:?}: {why}", index + 1)));
    }
    found
}

#[test]
fn the_pure_core_waits_for_nothing_and_knows_no_feature() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine");
    let files: Vec<_> =
        std::fs::read_dir(&core).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let code = std::fs::read_to_string(&file).unwrap();
        assert_eq!(found(&code), Vec::<String>::new(), "{}", file.display());
    }
}

#[test]
fn waiting_in_the_core_would_be_found_with_its_line() {
    let code = "// .await is for the driver\nfn f() {\n    now().await;\n}\n";
    assert_eq!(found(code), ["3: \".await\": the core returns outputs, it waits for nothing"]);
    assert_eq!(found("#[cfg(feature = \"std\")]").len(), 1);
}
