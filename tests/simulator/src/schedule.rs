//! Everything that a seed decides.

use std::time::Duration;

use dps_state_machine::{ConnectionError, Response, Settings, Stage};

use crate::{
    Script,
    answers::{Answer, asking, broken, lost, refused, secs, status_of, unreadable},
    random::Random,
    transport::settings,
};

/// What somebody does to the machine.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Registers.
    Register,
    /// Registers, and drops the future after a while.
    RegisterAndDropAfter(Duration),
    /// Registers, and drops the future after so many polls.
    RegisterAndDropAfterPolls(usize),
    /// Cancels the registration.
    Cancel,
    /// Ends the session.
    EndSession,
    /// Ends the session, and drops the future after a while.
    EndSessionAndDropAfter(Duration),
    /// Nobody does anything for a while.
    Pause(Duration),
    /// The computer sleeps: all timers are late.
    Suspend(Duration),
    /// Somebody watches the events for a while and goes away.
    WatchAndLeave,
}

impl Act {
    fn random(random: &mut Random) -> Self {
        match random.below(30) {
            0..6 => Self::Register,
            6..8 => Self::RegisterAndDropAfter(random.time(20_000)),
            8..10 => Self::RegisterAndDropAfterPolls(random.below(12) as usize),
            10..12 => Self::Cancel,
            12..15 => Self::EndSession,
            15..17 => Self::EndSessionAndDropAfter(random.time(800)),
            17..22 => Self::Pause(random.time(5_000)),
            22..28 => Self::Pause(random.time(120_000)),
            28 => Self::Suspend(random.time(100_000)),
            _ => Self::WatchAndLeave,
        }
    }
}

/// What a seed decides.
#[derive(Debug)]
pub struct Schedule {
    /// What is done, one after the other; registrations and ends of sessions each in a task of its own.
    pub acts: Vec<Act>,
    /// What the transport says.
    pub script: Script,
    /// The bounds.
    pub settings: Settings,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let acts = (0..1 + random.below(14)).map(|_| Act::random(&mut random)).collect();
        let mut settings = settings();
        match random.below(4) {
            0 => {
                settings.poll_floor = Duration::ZERO;
                settings.poll_interval = Duration::from_millis(100);
            }
            1 => settings.registration_timeout = secs(10),
            _ => {}
        }
        settings.jitter_percent = if random.below(2) == 0 { 0 } else { 20 };
        Self { acts, script: script(&mut random), settings }
    }
}

fn script(random: &mut Random) -> Script {
    let answers = (0..random.below(24)).map(|place| (random.time(40_000), answer(random, place)));
    let answers = answers.collect();
    let ends_of_session = (0..random.below(6)).map(|_| {
        let result = match random.below(5) {
            0 => None,
            1 => Some(Err(ConnectionError::lost(Stage::EndSession, "no end of session").into())),
            _ => Some(Ok(())),
        };
        (random.time(800), result)
    });
    Script { answers, ends_of_session: ends_of_session.collect() }
}

/// No two have the same body, so that it shows whose answer a result was made from.
fn answer(random: &mut Random, place: u64) -> Option<Answer> {
    let operation = format!("op-{place}");
    let status = |word| status_of(&operation, word);
    let retry_after = match random.below(8) {
        0 => Some(0),
        1 => Some(1),
        2 => Some(random.below(30)),
        3 => Some(u64::MAX),
        _ => None,
    };
    Some(match random.below(30) {
        0..6 => status("assigned"),
        6..14 => asking(status("assigning"), retry_after),
        14 => status("unassigned"),
        15 => status("failed"),
        16 => status("disabled"),
        17 => status("enchanted"),
        18 => Ok(Response::new(200, "{\"operationId\":")),
        19 => refused(401_002, None),
        20..23 => refused(429_001, retry_after),
        23 => refused(500_000, retry_after),
        24 => refused(409_203, retry_after),
        25 => broken(),
        26..28 => lost(),
        28 => unreadable(),
        _ => return None,
    })
}
