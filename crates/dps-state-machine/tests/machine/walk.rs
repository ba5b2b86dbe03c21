//! Every reachable state, by exhaustive search. [`Driven::step`] checks at each step what must hold in all of them: exactly
//! one outcome per registration, at most one end of session in flight, never more requests than answers allow.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use dps_simulator::{Driven, answers::secs};
use dps_state_machine::{
    OperationId,
    machine::{Input, State},
};

use crate::samples::{inputs, settings};

/// What is different between two machines but for the time that has passed and for what only grows: the state, when time
/// changes it, when the registration's time is over, its back-offs and its operation.
type Key = (&'static str, Option<Duration>, Option<Duration>, u32, Option<OperationId>);

fn key(driven: &Driven) -> Key {
    let left = |until: Option<Duration>| until.map(|until| until.saturating_sub(driven.now()));
    let state = driven.state();
    let (backoffs, operation) = match state {
        State::Registering(registration) => (registration.backoffs, registration.operation.clone()),
        _ => (0, None),
    };
    (state.name(), left(state.until()), left(driven.deadline()), backoffs, operation)
}

fn stepped(mut driven: Driven, at: Duration, input: Input) -> Driven {
    driven.step(at, input);
    driven
}

/// All machines that any inputs lead to.
fn every_reachable_machine() -> Vec<Driven> {
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([Driven::new(settings(), 0, secs(0))]);
    let mut reached = Vec::new();
    while let Some(driven) = queue.pop_front() {
        if !seen.insert(key(&driven)) {
            continue;
        }
        for (_, at, input) in inputs(driven.state(), driven.now()) {
            queue.push_back(stepped(driven.clone(), at, input));
        }
        reached.push(driven);
    }
    reached
}

#[test]
fn what_must_hold_holds_in_every_reachable_state() {
    let reached = every_reachable_machine();
    let names: HashSet<_> = reached.iter().map(|driven| driven.state().name()).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    assert!(reached.len() > 20, "{} machines", reached.len());
}

#[test]
fn time_alone_leads_out_of_every_state() {
    for driven in every_reachable_machine() {
        let mut last = driven.clone();
        for _ in 0..20 {
            let Some(until) = last.state().until() else { break };
            last.step(until, Input::Tick);
        }
        assert_eq!(last.state().until(), None, "stuck: {driven:?}");
    }
}

#[test]
fn an_end_of_session_leads_from_every_state_to_disconnected() {
    for mut driven in every_reachable_machine() {
        let now = driven.now();
        let before = format!("{:?}", driven.state());
        driven.step(now, Input::EndSession);
        if let Some(exchange) = driven.end_of_session() {
            driven.step(now, Input::SessionEnded(exchange, Ok(())));
        }
        assert_eq!(*driven.state(), State::Disconnected, "from {before}");
    }
}
