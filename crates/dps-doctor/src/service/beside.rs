//! What HTTPS tells of the device, where the registration goes over another transport. What is wrong with HTTPS itself is no
//! matter of that then.

use dps_client::{Attestation, Transport};

use super::{State, clocks, enrollment, in_words_of, json, stranger};
use crate::{
    check::{ENROLLMENT, SERVICE_CLOCK},
    finding::Chart,
    login::{Login, Said, log_in},
    port::{Ports, not_needed},
    settings::is_x509,
    subject::{Subject, in_words},
};

/// `None` when a registration ends by what the service says, over any transport.
pub(super) async fn examine(
    subject: &Subject,
    ports: &Ports,
    credential: &Attestation,
    is_let_in: bool,
    chart: &mut Chart<'_>,
) -> Option<State> {
    let no_state = Some(State { hub: None });
    let Some(https) = ports.of(Transport::Http).filter(|seen| seen.stands()) else {
        let why = "it is asked over HTTPS, and there is no TLS with that port";
        chart.skip(&SERVICE_CLOCK, why);
        chart.skip(&ENROLLMENT, why);
        return no_state;
    };
    let odd = |chart: &mut Chart<'_>, seen: String| {
        let what = format!("it is asked over HTTPS: {seen}");
        chart.warn(&ENROLLMENT, what, &not_needed(subject, "http"));
        Some(State { hub: None })
    };
    if is_x509(credential) && !https.handshake.asks_certificate {
        return odd(chart, "nobody asks for the device's certificate there".to_owned());
    }
    let step = subject.limits.step;
    let login = log_in(subject, Transport::Http, credential, step).await;
    let Some(Login { said: answer, elapsed }) = login else {
        return no_state;
    };
    chart.took(elapsed);
    let response = match answer {
        Said::State(response) => response,
        Said::Failed(error) => return odd(chart, error.to_string()),
        _ => {
            return odd(chart, format!("no answer within {}", in_words(step)));
        }
    };
    let body = json(&response.body);
    if let Some((what, _)) = stranger(&response, body.as_ref()) {
        return odd(chart, what);
    }
    clocks(&response, subject, chart);
    let words = in_words_of(&response, body.as_ref());
    match response.status {
        200..=299 => enrollment(response, &words, chart),
        404 if is_let_in => enrollment(response, &words, chart),
        _ if is_let_in => odd(chart, words),
        _ => {
            let advice = "it says the same over HTTPS, perhaps in clearer words";
            chart.warn(&ENROLLMENT, words, advice);
            no_state
        }
    }
}
