//! What a machine may lack: a laptop may, CI may not.

use crate::process::Result;

/// Whether this is CI: what is missing there is a failure, and a named skip elsewhere.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

/// Something that is needed for a task is missing.
pub(crate) fn skip_unless_ci(task: &str, why: &str) -> Result {
    if in_ci() {
        return Err(why.into());
    }
    println!("SKIPPED {task}: {why}");
    Ok(())
}
