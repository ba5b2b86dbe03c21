//! Any order of answers, delays, failures, cancels, drops and second calls, with a paused clock.

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use dps_state_machine::{Error, ErrorKind, Response, StateMachine};
use proptest::prelude::*;
use support::*;
use tokio::{task::JoinSet, time::Instant};

/// What somebody does to the machine.
#[derive(Clone, Debug)]
enum Act {
    Register,
    /// Registers and drops the future after a while.
    RegisterAndDrop(Duration),
    Cancel,
    EndSession,
    EndSessionAndDrop(Duration),
    Pause(Duration),
}

fn any_delay() -> impl Strategy<Value = Duration> {
    (0_u64..20_000).prop_map(Duration::from_millis)
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Register),
        2 => any_delay().prop_map(Act::RegisterAndDrop),
        2 => Just(Act::Cancel),
        2 => Just(Act::EndSession),
        1 => (0_u64..800).prop_map(|ms| Act::EndSessionAndDrop(Duration::from_millis(ms))),
        4 => any_delay().prop_map(Act::Pause),
    ]
}

fn any_answer() -> impl Strategy<Value = Option<Result<Response, Error>>> {
    let retry_after = prop_oneof![Just(None), (0_u64..30).prop_map(Some), Just(Some(u64::MAX))];
    let answer = prop_oneof![
        3 => Just(assigned()),
        3 => Just(assigning()),
        1 => Just(status("failed")),
        1 => Just(status("enchanted")),
        1 => Just(Ok(Response::new(200, "{"))),
        1 => Just(refused(401_002, None)),
        2 => Just(refused(429_001, None)),
        2 => Just(refused(503_000, None)),
        1 => Just(broken()),
        1 => Just(lost()),
    ];
    prop_oneof![
        1 => Just(None),
        12 => (answer, retry_after).prop_map(|(answer, asked)| {
            Some(answer.map(|response| response.retry_after(asked.map(secs))))
        }),
    ]
}

fn any_end_of_session() -> impl Strategy<Value = (Duration, Result<(), Error>)> {
    let result = prop_oneof![Just(Ok(())), Just(broken().map(|_| ()))];
    ((0_u64..700).prop_map(Duration::from_millis), result)
}

/// Runs the acts one after the other, each registration and end in a task of its own.
async fn run(
    transport: &ScriptedTransport,
    machine: &StateMachine<ScriptedTransport>,
    acts: Vec<Act>,
) -> Vec<Option<ErrorKind>> {
    let mut tasks = JoinSet::new();
    for act in acts {
        let machine = machine.clone();
        match act {
            Act::Register => {
                tasks.spawn(
                    async move { machine.register(request()).await.err().map(|e| e.kind()) },
                );
            }
            Act::RegisterAndDrop(after) => {
                tasks.spawn(async move {
                    let registration = tokio::time::timeout(after, machine.register(request()));
                    registration.await.ok().and_then(Result::err).map(|e| e.kind())
                });
            }
            Act::EndSession => {
                tasks.spawn(async move { machine.end_session().await.err().map(|e| e.kind()) });
            }
            Act::EndSessionAndDrop(after) => {
                tasks.spawn(async move {
                    let end = tokio::time::timeout(after, machine.end_session());
                    end.await.ok().and_then(Result::err).map(|e| e.kind())
                });
            }
            Act::Cancel => machine.cancel(),
            Act::Pause(pause) => tokio::time::sleep(pause).await,
        }
        assert!(transport.under_way.load(Ordering::SeqCst) <= 1);
        tokio::task::yield_now().await;
    }
    tasks.join_all().await
}

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
        acts in prop::collection::vec(any_act(), 1..12),
        answers in prop::collection::vec((any_delay(), any_answer()), 0..16),
        ends_of_session in prop::collection::vec(any_end_of_session(), 0..6),
        jitter in 0_u8..=20,
    ) {
        paused().block_on(async {
            let transport = ScriptedTransport::default();
            transport.answers.lock().unwrap().extend(answers);
            transport.ends_of_session.lock().unwrap().extend(ends_of_session);
            let machine = transport.machine_with(settings_with(|settings| settings.jitter_percent = jitter));
            let started = Instant::now();
            let paused: Duration = acts
                .iter()
                .map(|act| if let Act::Pause(pause) = act { *pause } else { Duration::ZERO })
                .sum();
            let begun = acts.len() as u32;

            let outcomes = run(&transport, &machine, acts).await;
            // Every registration is bounded by its deadline, every end of the session by its own bound.
            prop_assert!(outcomes.len() <= begun as usize);
            prop_assert!(started.elapsed() <= paused + (secs(60) + secs(1)) * begun);
            // One call to the transport at a time, and none left behind.
            prop_assert!(transport.most_under_way.load(Ordering::SeqCst) <= 1);
            prop_assert_eq!(transport.under_way.load(Ordering::SeqCst), 0);
            // Between two queries of one operation at least the floor.
            let calls = transport.calls.lock().unwrap().clone();
            for pair in calls.windows(2) {
                if let [(before, Call::Query(_)), (after, Call::Query(_))] = pair {
                    prop_assert!(*after - *before >= secs(2), "{:?}", pair);
                }
            }
            // Whatever came before: the next registration works.
            transport.answers.lock().unwrap().clear();
            transport.ends_of_session.lock().unwrap().clear();
            transport.then(Duration::ZERO, assigned());
            let registered = machine.register(request()).await;
            prop_assert!(registered.is_ok(), "{:?}", registered);
            prop_assert!(machine.end_session().await.is_ok());
            let calls = transport.calls();
            prop_assert_eq!(calls.last(), Some(&Call::End));
            Ok(())
        })?;
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
            let transport = ScriptedTransport::answering((0..200).map(|_| Ok(answer.clone())));
            let started = Instant::now();
            let outcome = transport.machine().register(request()).await;
            prop_assert!(outcome.is_err());
            prop_assert!(started.elapsed() <= secs(60));
            prop_assert!(transport.calls().len() <= 31, "{} requests in a minute", transport.calls().len());
            Ok(())
        })?;
    }
}
