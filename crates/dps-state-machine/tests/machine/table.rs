//! The whole table, state by event, as it is checked in: a change of behavior shows as a change of the document.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use dps_simulator::answers::secs;
use dps_state_machine::machine::{Input, Machine, Output, State};

use crate::samples::{answers, describe, inputs, new_machine};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md");

/// One machine in each state, with the time at which it got there.
fn one_of_each() -> Vec<(Duration, Machine)> {
    let answer = |name: &str| {
        answers().into_iter().find_map(|(n, answer)| (n == name).then_some(answer)).unwrap()
    };
    let step = |(now, mut machine): (Duration, Machine), input: Input| {
        let _outputs = machine.step(now, input);
        (now, machine)
    };
    let answered = |(now, machine): (Duration, Machine), name: &str| {
        let exchange = machine.state().exchange().unwrap();
        step((now, machine), Input::Answer(exchange, answer(name)))
    };
    let later = |(now, machine): (Duration, Machine)| {
        let due = machine.state().until().unwrap_or(now);
        step((due, machine), Input::Tick)
    };

    let disconnected = (secs(0), new_machine());
    // A first registration that was cancelled: whatever carries the first exchange's id is late from now on.
    let idle = step(step(disconnected.clone(), Input::Register), Input::Cancel);
    let registering = step(idle.clone(), Input::Register);
    let waiting_to_register = answered(registering.clone(), "429");
    let waiting_to_poll = answered(registering.clone(), "assigning");
    let polling = later(waiting_to_poll.clone());
    let ending = step(idle.clone(), Input::EndSession);
    vec![disconnected, idle, registering, waiting_to_register, waiting_to_poll, polling, ending]
}

fn cell(now: Duration, before: &State, after: &State, outputs: &[Output]) -> String {
    let mut words: Vec<String> = outputs.iter().map(|output| describe(output, now)).collect();
    if before != after {
        words.push(format!("→ {}", after.name()));
    }
    if words.is_empty() { "ignored".into() } else { words.join(", ") }
}

/// The table and the diagram as the document has them.
fn document() -> String {
    let mut text = String::from(
        "# The state machine\n\n\
         Made from the code by a test (`UPDATE_DOCS=1 cargo test -p dps-state-machine table`), which fails when it is out of date.\n\
         Settings here: a request within 3 s, the registration within 10 s, the end of the session within 1 s, polls every 2 s, no jitter.\n",
    );
    let mut tables = String::new();
    let mut edges: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (now, machine) in one_of_each() {
        let before = machine.state().clone();
        let _ = write!(tables, "\n## {}\n\n| event | what happens |\n|---|---|\n", before.name());
        for (name, at, input) in inputs(&before, now) {
            let mut after = machine.clone();
            let outputs = after.step(at, input);
            let _ = writeln!(tables, "| {name} | {} |", cell(at, &before, after.state(), &outputs));
            if before.name() != after.state().name() {
                let label = name.split([':', ',']).next().unwrap_or_default().to_string();
                let labels = edges.entry((before.name(), after.state().name())).or_default();
                if !labels.contains(&label) {
                    labels.push(label);
                }
            }
        }
    }
    text.push_str("\n```mermaid\nstateDiagram-v2\n    [*] --> Disconnected\n");
    for ((from, to), labels) in edges {
        let _ = writeln!(text, "    {from} --> {to}: {}", labels.join(" / "));
    }
    text.push_str("```\n");
    text.push_str(&tables);
    text
}

#[test]
fn every_state_and_event_does_what_the_document_says() {
    let current = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &current).unwrap();
    }
    let checked_in = std::fs::read_to_string(DOCUMENT).unwrap();
    for (line, (now, then)) in current.lines().zip(checked_in.lines()).enumerate() {
        assert_eq!(now, then, "docs/state-machine.md line {}", line + 1);
    }
    assert_eq!(current.len(), checked_in.len());
}

#[test]
fn the_table_has_every_state() {
    let names: Vec<_> = one_of_each().iter().map(|(_, machine)| machine.state().name()).collect();
    assert_eq!(
        names,
        [
            "Disconnected",
            "Idle",
            "Registering",
            "WaitingToRegister",
            "WaitingToPoll",
            "Polling",
            "EndingSession"
        ]
    );
}
