//! Secrets in every field, in every encoding: none of them is in an event.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_emulator::{Emulator, EventKind};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::support::PATIENCE;

const SIGNATURE: &str = "hwgBlMB6G2Zg5ZcYtwmtLVKRbifiSCPfUMyscbVWa8o=";
const KEY: &str =
    "qs5f351rCc5yFv4kcjAeqg/J7Xhn+GV/zauFnIsLoqm1baXpTLjDFjDRKqBBPatgptaiL30MYpMdLopu3Tg9xg==";
const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF";
const PASSWORD: &str = "kT7vQ2mKw9Lz4Rb8nXeH";

/// A text with a secret.
pub(crate) struct Misplaced {
    pub(crate) text: String,
    /// No 8 characters in a row of these may be seen.
    secrets: [String; 2],
}

pub(crate) fn misplaced() -> Vec<Misplaced> {
    let texts = [
        (SIGNATURE, SIGNATURE.to_owned()),
        (
            SIGNATURE,
            format!(
                "SharedAccessSignature sr=0ne1%2Fregistrations%2Fa&sig={}&se=1999999999&skn=registration",
                percent(SIGNATURE)
            ),
        ),
        (KEY, KEY.to_owned()),
        (KEY, format!("HostName=hub.example;SharedAccessKeyName=owner;SharedAccessKey={KEY}")),
        (PRIVATE, format!("-----BEGIN PRIVATE KEY----- {PRIVATE} -----END PRIVATE KEY-----")),
        (PASSWORD, format!("http://user:{PASSWORD}@proxy.example:3128")),
    ];
    let encodings: [fn(&str) -> String; 4] =
        [str::to_owned, percent, |text| percent(&percent(text)), |text| STANDARD.encode(text)];
    let encoded = texts.iter().flat_map(|(secret, text)| {
        encodings.map(|encode| Misplaced {
            text: encode(text),
            secrets: [(*secret).to_owned(), STANDARD.encode(text)],
        })
    });
    encoded.collect()
}

pub(crate) fn percent(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Misplaced {
    /// Waits until a connection is over, and looks at all events since then.
    pub(crate) async fn assert_hidden(&self, emulator: &Emulator, since: u64, field: &str) {
        let events = emulator.events();
        let is_over = |event: &dps_emulator::Event| matches!(event.kind, EventKind::Closed { .. });
        let over = events.wait_for_since(since, is_over);
        tokio::time::timeout(PATIENCE, over).await.expect("closed in time").unwrap();
        let lines: Vec<_> =
            events.since(since).iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        let mut seen = lines.join("\n");
        for _ in 0..3 {
            for secret in &self.secrets {
                for part in secret.as_bytes().windows(8) {
                    let part = str::from_utf8(part).unwrap();
                    assert!(!seen.contains(part), "{field} {:?}: {part} in {seen}", self.text);
                }
            }
            seen = percent_decode_str(&seen).decode_utf8_lossy().into_owned();
        }
        assert!(lines.len() > 2, "{field} {:?}: {seen}", self.text);
    }
}

/// Tokens with a text in each of their fields, and the text alone.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let right = [
        ("sr", "0ne00000001%2Fregistrations%2Fdev-1".to_owned()),
        ("sig", percent(SIGNATURE)),
        ("se", "1999999999".to_owned()),
        ("skn", "registration".to_owned()),
    ];
    let mut tokens = vec![text.to_owned(), format!("SharedAccessSignature {text}")];
    let mut with = |field: usize, value: String| {
        let mut fields = right.clone();
        fields[field].1 = value;
        let fields = fields.map(|(name, value)| format!("{name}={value}"));
        tokens.push(format!("SharedAccessSignature {}", fields.join("&")));
    };
    (0..right.len()).for_each(|field| with(field, text.to_owned()));
    with(0, format!("0ne00000001/registrations/{text}"));
    tokens
}
