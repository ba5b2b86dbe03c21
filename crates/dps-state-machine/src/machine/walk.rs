//! Every reachable state, by exhaustive search, and what must hold in all of them.

use alloc::vec::Vec;
use core::time::Duration;
use std::collections::{HashSet, VecDeque};

use super::{
    Exchange, ExchangeId, Input, Machine, Output, Phase, State,
    samples::{inputs, new_machine, secs},
};

/// A machine and what whoever drives it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: Duration,
    machine: Machine,
    /// A registration was begun and has no outcome yet.
    registering: bool,
    /// The call to the transport under way, and whether it is an end of the session.
    call: Option<(ExchangeId, bool)>,
    /// Somebody waits for the end of the session.
    ending: bool,
}

impl World {
    fn first() -> Self {
        Self { now: secs(0), machine: new_machine(), registering: false, call: None, ending: false }
    }

    /// Steps the machine as a driver would and checks each output against what the driver knows.
    fn step(mut self, at: Duration, input: Input) -> Self {
        self.now = at;
        let asked_to_register = matches!(input, Input::Register);
        let mut refused = false;
        match &input {
            Input::EndSession => self.ending = true,
            Input::Answer(exchange, _) if self.call == Some((*exchange, false)) => self.call = None,
            Input::SessionEnded(exchange, _) if self.call == Some((*exchange, true)) => {
                self.call = None;
            }
            _ => {}
        }
        let was_registering = self.registering;
        let outputs = self.machine.step(at, input);
        if asked_to_register {
            refused = outputs
                .iter()
                .any(|output| matches!(output, Output::Refuse(_) | Output::NotYet { .. }));
            assert!(refused || !was_registering, "two registrations at once");
            self.registering |= !refused;
        }
        for output in &outputs {
            match output {
                Output::RegistrationRequest(Exchange { id, until })
                | Output::QueryOperationStatus { exchange: Exchange { id, until }, .. } => {
                    assert!(self.call.is_none(), "a request while another has no answer");
                    assert!(*until > at && *until <= at + secs(3), "a request within its bound");
                    self.call = Some((*id, false));
                }
                Output::EndSession(Exchange { id, until }) => {
                    assert!(self.call.is_none(), "an end of session while a call is under way");
                    assert!(!self.registering, "the registration has its outcome first");
                    assert_eq!(*until, at + secs(1));
                    self.call = Some((*id, true));
                }
                Output::Drop(exchange) => {
                    assert_eq!(self.call.map(|(id, _)| id), Some(*exchange), "drops what is there");
                    self.call = None;
                }
                Output::Complete(_) => {
                    assert!(self.registering, "an outcome nobody waits for, or a second one");
                    self.registering = false;
                }
                Output::Ended(_) => self.ending = false,
                Output::Wait { until, .. } => {
                    assert!(self.call.is_none(), "waits while a call is under way");
                    assert!(*until >= at + secs(2), "never under the floor");
                }
                Output::Refuse(_) => assert!(refused && was_registering),
                Output::NotYet { .. } | Output::Emit(_) => {}
            }
        }
        self.check();
        self
    }

    fn check(&self) {
        let state = self.machine.state();
        let busy = matches!(state, State::Registering(_));
        assert_eq!(self.registering, busy, "one outcome each: owed exactly while registering");
        assert_eq!(
            self.call.map(|(id, _)| id),
            state.exchange(),
            "the driver and the machine agree"
        );
        if self.ending {
            assert!(matches!(state, State::EndingSession(_)), "an end that nobody carries out");
        }
    }

    /// The world without what only grows: the time since the registration began is what matters.
    fn key(&self) -> (State, Duration) {
        let mut state = self.machine.state().clone();
        let now = self.now;
        let since = |until: Duration| until.saturating_sub(now);
        let reset = |exchange: &mut Exchange| {
            *exchange = Exchange { id: ExchangeId::FIRST, until: since(exchange.until) };
        };
        let mut left = secs(0);
        match &mut state {
            State::Disconnected | State::Idle => {}
            State::Registering(registration) => {
                left = since(registration.deadline);
                (registration.deadline, registration.polls) = (secs(0), 0);
                match &mut registration.phase {
                    Phase::Asking(exchange) => reset(exchange),
                    Phase::Waiting { until } => *until = since(*until),
                }
            }
            State::EndingSession(exchange) => reset(exchange),
        }
        (state, left)
    }
}

/// All worlds that any inputs lead to.
fn every_reachable_world() -> Vec<World> {
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([World::first()]);
    let mut worlds = Vec::new();
    while let Some(world) = queue.pop_front() {
        if !seen.insert(world.key()) {
            continue;
        }
        for (_, at, input) in inputs(world.machine.state(), world.now) {
            queue.push_back(world.clone().step(at, input));
        }
        worlds.push(world);
    }
    worlds
}

/// [`World::step`] asserts, at each step: exactly one outcome per registration, at most one end of session in
/// flight, never more requests than answers allow.
#[test]
fn what_must_hold_holds_in_every_reachable_state() {
    let worlds = every_reachable_world();
    let names: HashSet<_> = worlds.iter().map(|world| world.machine.state().name()).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    assert!(worlds.len() > 20, "{} worlds", worlds.len());
}

#[test]
fn time_alone_leads_out_of_every_state() {
    for world in every_reachable_world() {
        let mut last = world.clone();
        for _ in 0..20 {
            let Some(until) = last.machine.state().until() else { break };
            last = last.step(until, Input::Tick);
        }
        assert_eq!(last.machine.state().until(), None, "stuck: {world:?}");
        assert!(!last.registering && last.call.is_none());
    }
}

#[test]
fn an_end_of_session_leads_from_every_state_to_disconnected() {
    for world in every_reachable_world() {
        let now = world.now;
        let ending = world.step(now, Input::EndSession);
        let done = match ending.machine.state().exchange() {
            Some(exchange) => ending.step(now, Input::SessionEnded(exchange, Ok(()))),
            None => ending,
        };
        assert_eq!(*done.machine.state(), State::Disconnected);
        assert!(!done.registering && !done.ending && done.call.is_none());
    }
}
