//! Takes the client's own secrets out of an error, wherever a peer has said them back.

use std::{fmt::Write as _, sync::Arc};

use super::Error;
use crate::{known::Encodings, response::ProtocolResult};

type Source = Arc<dyn core::error::Error + Send + Sync>;

/// A source that said a secret, without it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Masked(String);

impl Error {
    /// Puts `***` in place of each secret in each of the texts.
    pub(crate) fn hide(&mut self, secrets: &Encodings) {
        let (texts, body, protocol_result, source) = match self {
            Self::Rejected(e) => (
                [
                    Some(&mut e.message),
                    e.tracking_id.as_mut(),
                    e.timestamp.as_mut(),
                    e.hint.as_mut(),
                ],
                Some(&mut e.body),
                Some(&mut e.protocol_result),
                None,
            ),
            Self::Protocol(e) => (
                [Some(&mut e.reason), e.unknown_status.as_mut(), None, None],
                Some(&mut e.body),
                Some(&mut e.protocol_result),
                None,
            ),
            Self::Connection(e) => {
                ([Some(&mut e.message), e.hint.as_mut(), None, None], None, None, e.source.as_mut())
            }
            Self::Credential(e) => {
                ([Some(&mut e.message), e.hint.as_mut(), None, None], None, None, e.source.as_mut())
            }
            // These have no words of a peer.
            Self::Configuration(_)
            | Self::Timeout(_)
            | Self::Cancelled
            | Self::InvalidOperation => {
                return;
            }
        };
        for text in texts.into_iter().flatten() {
            if let Some(masked) = secrets.masked_text(text) {
                *text = masked;
            }
        }
        if let Some(body) = body
            && let Some(masked) = secrets.masked(body)
        {
            *body = masked;
        }
        if let Some(result) = protocol_result {
            hide_in_result(result, secrets);
        }
        if let Some(source) = source {
            hide_in_source(source, secrets);
        }
    }
}

fn hide_in_result(result: &mut ProtocolResult, secrets: &Encodings) {
    let masked = |text: &str| secrets.masked_text(&text).unwrap_or_else(|| text.to_owned());
    *result = result.iter().map(|(name, value)| (masked(name), masked(value))).collect();
}

fn hide_in_source(source: &mut Source, secrets: &Encodings) {
    let mut shown = source.to_string();
    let mut next = source.source();
    while let Some(error) = next {
        // Writing to a String does not fail.
        let _ = write!(shown, ": {error}");
        next = error.source();
    }
    let in_debug = secrets.masked_text(&format!("{source:?}")).is_some();
    let masked = secrets.masked_text(&shown);
    if in_debug || masked.is_some() {
        *source = Arc::new(Masked(masked.unwrap_or(shown)));
    }
}
