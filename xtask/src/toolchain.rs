//! `cargo xtask toolchain`: the compiler at work is the one that `rust-version` promises.

use crate::{
    metadata::Metadata,
    process::{Cmd, Result},
};

/// Prints the compiler's version; fails when it is older than a member's `rust-version`, or a member has none.
pub(crate) fn run(_: &[String]) -> Result {
    let text = Cmd::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--version"])
        .read()?;
    let used = text
        .split(' ')
        .nth(1)
        .and_then(minor_of)
        .ok_or_else(|| format!("can't read the version in {text:?}"))?;
    for package in Metadata::load()?.members() {
        let promised = package.rust_version.as_deref().and_then(minor_of);
        let promised = promised.ok_or_else(|| format!("{} has no rust-version", package.name))?;
        if used < promised {
            return Err(
                format!("{} needs Rust {promised:?}, this is {used:?}", package.name).into()
            );
        }
        if used > promised {
            println!("note: {} promises to build with the older Rust {promised:?}", package.name);
        }
    }
    println!("{}", text.trim());
    Ok(())
}

/// Major and minor of `1.95`, `1.95.0` or `1.96.0-nightly`.
fn minor_of(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(minor_of("1.95"), Some((1, 95)));
        assert!(minor_of("1.100.0-nightly") > minor_of("1.95.0"));
        assert_eq!(minor_of("stable"), None);
    }
}
