//! What the transports met that did not get through, and the one error for it.

use std::{mem, time::Duration};

use crate::{
    error::{ConnectionError, Error, Stage},
    progress::{Progress, Step},
};

/// So many characters an error shows of what one transport met.
const BRIEF: usize = 180;

/// What to do where each transport met something else.
const NOTHING_GETS_THROUGH: &str =
    "look at each of them: the network may let none through, or only through a proxy";

/// What one transport met.
pub(super) struct Met {
    pub(super) index: usize,
    pub(super) name: &'static str,
    /// In words that repeat no secret.
    words: String,
    error: Error,
}

impl Met {
    /// The observer is told, unless the transport took no part because it can't carry the request.
    pub(super) fn new(index: usize, name: &'static str, progress: &Progress, error: Error) -> Self {
        let words = brief(progress.masked_text(error.to_string()));
        if !matches!(error, Error::Configuration(_)) {
            let failed = Step::TransportFailed { transport: name, reason: words.clone() };
            progress.beside().enter(&failed);
        }
        Self { index, name, words, error }
    }

    /// It was given up after so long.
    pub(super) fn not_connected(
        index: usize,
        name: &'static str,
        stage: Stage,
        after: Duration,
    ) -> Self {
        let seconds = after.as_secs_f64();
        let message = format!("not connected after {seconds:.1} s, in the stage {stage}");
        let error: Error = ConnectionError::new(stage, message).into();
        Self { index, name, words: brief(error.to_string()), error }
    }
}

/// One error for all. What is no matter of the connection is the same for each, or concerns the first.
pub(super) fn none_got_through(met: &mut Vec<Met>, left_out: &[(&'static str, String)]) -> Error {
    let met = mem::take(met);
    let connections = || {
        met.iter().filter_map(|met| match &met.error {
            Error::Connection(error) => Some(error),
            _ => None,
        })
    };
    let Some(first) = connections().next() else {
        return met.into_iter().next().map_or(Error::InvalidOperation, |met| met.error);
    };
    // Those that met the same are named together.
    let mut words: Vec<(String, String)> = Vec::new();
    let each = met.iter().map(|met| (met.name, &met.words));
    for (name, what) in each.chain(left_out.iter().map(|(name, reason)| (*name, reason))) {
        match words.iter_mut().find(|(_, same)| same == what) {
            Some((names, _)) => *names = format!("{names}, {name}"),
            None => words.push((name.to_owned(), what.clone())),
        }
    }
    let words: Vec<String> = words.iter().map(|(names, what)| format!("{names}: {what}")).collect();
    let message = format!("no transport gets through: {}", words.join("; "));
    let mut error = ConnectionError::new(first.stage, message);
    // What is to be done about one of them is no advice where others met something else.
    error.hint = match connections().all(|error| error.hint == first.hint) {
        true => first.hint.clone(),
        false => Some(NOTHING_GETS_THROUGH.to_owned()),
    };
    error.retryable = connections().any(|error| error.retryable);
    error.request_may_have_been_sent = connections().any(|error| error.request_may_have_been_sent);
    error.source = first.source.clone();
    error.into()
}

pub(super) fn no_answer(within: Duration) -> ConnectionError {
    let seconds = within.as_secs_f64();
    let message = format!("connected, and then no answer within {seconds:.1} s");
    ConnectionError {
        request_may_have_been_sent: true,
        ..ConnectionError::new(Stage::Register, message)
    }
}

fn brief(text: String) -> String {
    match text.char_indices().nth(BRIEF) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
