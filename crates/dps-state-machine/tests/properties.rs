//! Any order of answers, delays, failures, cancels, drops and second calls, with a paused clock.

use dps_simulator::{Schedule, Transport, answers::*, describe, play_schedule};
use dps_state_machine::Response;
use proptest::prelude::*;
use tokio::time::Instant;

/// On its clock, waiting takes no time.
#[expect(clippy::unwrap_used, reason = "a test may fail")]
fn paused() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_call_returns_in_time_and_the_machine_stays_usable(
        seed in any::<u64>(),
        jitter in 0_u8..=20,
    ) {
        let mut schedule = Schedule::of(seed);
        schedule.settings.jitter_percent = jitter;
        let played = play_schedule(&schedule);
        prop_assert!(played.is_ok(), "{:?}\n{}", played, describe(seed));
    }

    #[test]
    fn values_of_retry_after_mean_the_same_joined_or_not(
        values in prop::collection::vec("-?[0-9]{1,20}|soon|", 0..5),
        space in " {0,2}",
    ) {
        let now = std::time::SystemTime::UNIX_EPOCH;
        let apart = dps_state_machine::retry_after::parse(values.iter().map(String::as_str), now);
        let joined = values.join(&format!("{space},{space}"));
        prop_assert_eq!(dps_state_machine::retry_after::parse([joined.as_str()], now), apart);
    }

    #[test]
    fn any_answer_at_all_ends_in_an_outcome(
        status in any::<u16>(),
        body in prop_oneof![".{0,64}", "\\{\"status\":\"[a-z]{0,10}\"(,\"operationId\":\"x\")?\\}"],
        retry_after in any::<Option<u64>>(),
    ) {
        paused().block_on(async {
            let answer = Response::new(status, body).retry_after(retry_after.map(secs));
            let transport = Transport::answering((0..200).map(|_| Ok(answer.clone())));
            let started = Instant::now();
            let outcome = transport.machine().register(request()).await;
            prop_assert!(outcome.is_err());
            prop_assert!(started.elapsed() <= secs(60));
            prop_assert!(transport.calls().len() <= 31, "{} requests in a minute", transport.calls().len());
            Ok(())
        })?;
    }
}
