//! How many files and connections this process may have open at once.

/// Asks the system for as many as it lets this process have. Most begin with 1024 or fewer, and each device at the
/// emulator takes one.
#[cfg(unix)]
pub(super) fn allow_all() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where the system refuses, the emulator serves as many as it may.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub(super) fn allow_all() {}
