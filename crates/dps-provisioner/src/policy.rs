//! What to do after a connection to the hub has ended, or none could be made: one table, without a clock and without I/O.

use std::time::{Duration, SystemTime};

use dps_client::Error;
use serde::{Deserialize, Serialize};

use crate::assignment::optional_seconds;

/// How a connection to the assigned hub ended, or why there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HubRefusal {
    /// The hub does not take the device's credential, or does not say why it refuses the device: CONNACK 4 or 5,
    /// status 401.
    NotAuthorized,
    /// The hub says that the device is disabled: status 403.
    Disabled,
    /// The hub does not know the device: status 404.
    UnknownDevice,
    /// The hub says that the device belongs to another one: MQTT 5 reason code 0x9C or 0x9D.
    Moved,
    /// The device was connected, and the hub put it out as not authorized.
    PutOut,
    /// The hub has no time: CONNACK 3, status 429 or of the 5xx.
    Throttled {
        /// How long it asked to wait. More than 24 hours count as 24 hours.
        retry_after: Option<Duration>,
    },
    /// No connection could be made, or what answered is no hub.
    Unreachable,
    /// The device was connected, and the connection was lost.
    Lost,
}

/// The longest time that a hub or the service is left alone for because it asked for that (24 h): a longer one is a
/// mistake, which would retire the device.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

impl HubRefusal {
    /// Whether the hub had let the device in before.
    pub(crate) fn was_connected(self) -> bool {
        matches!(self, Self::PutOut | Self::Lost)
    }

    /// What an error of `HubConnection::open` stands for; `None` when the hub has no part in it: a configuration, a
    /// credential that can't sign, a call that was cancelled.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Rejected(rejection) => Some(match rejection.status {
                403 => Self::Disabled,
                404 => Self::UnknownDevice,
                _ if rejection.retryable => Self::Throttled { retry_after: rejection.retry_after },
                _ => Self::NotAuthorized,
            }),
            Error::Connection(_) | Error::Timeout(_) | Error::Protocol(_) => {
                Some(Self::Unreachable)
            }
            _ => None,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Connect to the assigned hub.
    ConnectToHub {
        /// The time to wait before.
        after: Duration,
    },
    /// Register anew, then connect to the hub that comes of it.
    Register {
        /// The time to wait before.
        after: Duration,
    },
    /// Nothing more by itself: the policy forbids it, or a limit of it is reached. Somebody has to look at the device.
    Stop,
}

/// What to do when the hub refuses the device as [`NotAuthorized`](HubRefusal::NotAuthorized) or
/// [`Disabled`](HubRefusal::Disabled). The cause is open then: the device may be disabled, its credential revoked, or its
/// assignment moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnRefusal {
    /// Connect to the same hub again, and don't register.
    RetryHub,
    /// Register anew.
    #[default]
    Register,
    /// Stop, whatever the hub said of the device.
    Stop,
}

/// Waits that double, each with a random share on top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// No wait grows beyond this, but for its random share.
    pub cap: Duration,
    /// The largest share of a wait that is added to it, from 0 to 1. Nothing is ever taken away.
    pub jitter: f64,
    /// So many attempts in a row, then none. `None`: no limit.
    pub max_attempts: Option<u32>,
}

impl Backoff {
    /// The wait before the attempt of this number, counted from 1; `None` when there is to be no such attempt. `lot` is a
    /// random number from 0 to 1.
    #[must_use]
    pub fn wait(&self, attempt: u32, lot: f64) -> Option<Duration> {
        if self.max_attempts.is_some_and(|most| attempt > most) {
            return None;
        }
        let doubled = 2_u32.checked_pow(attempt.saturating_sub(1));
        let wait = doubled.and_then(|times| self.initial.checked_mul(times));
        let wait = wait.unwrap_or(Duration::MAX).min(self.cap);
        let share = (self.jitter * lot).clamp(0.0, 1.0);
        let jitter = Duration::try_from_secs_f64(wait.as_secs_f64() * share);
        Some(wait.saturating_add(jitter.unwrap_or_default()))
    }
}

/// When to connect to the hub again, when to register anew, and when to stop. The rules are those of
/// [Microsoft's SDK for C](https://github.com/Azure/azure-iot-sdk/blob/main/c/docs/connecting.md#reconnection):
///
/// | the connection to the hub | next, by [`on_refusal`](Self::on_refusal): `RetryHub` | `Register` | `Stop` | after |
/// |---|---|---|---|---|
/// | [`NotAuthorized`](HubRefusal::NotAuthorized), [`Disabled`](HubRefusal::Disabled) | the hub | register | stop | [`recover`](Self::recover) |
/// | [`UnknownDevice`](HubRefusal::UnknownDevice), [`Moved`](HubRefusal::Moved) | register | register | stop | [`recover`](Self::recover) |
/// | [`PutOut`](HubRefusal::PutOut) | the hub | the hub | stop | [`recover`](Self::recover) |
/// | [`Throttled`](HubRefusal::Throttled), [`Unreachable`](HubRefusal::Unreachable) | the hub | the hub | the hub | [`reconnect`](Self::reconnect), and no sooner than the hub asked for |
/// | the same, [`register_after`](Self::register_after) times in a row | register | register | register | [`reconnect`](Self::reconnect) |
/// | [`Lost`](HubRefusal::Lost) | the hub | the hub | the hub | [`reconnect`](Self::reconnect) |
///
/// A registration that this leads to is pending until it is made: what the hub refuses until then neither puts it off nor
/// counts ([`Provisioner::report`](crate::Provisioner::report)).
///
/// Refusals of the device are one episode, from the first until the device is connected: registering in between does
/// not begin another one, so that a service that always accepts and a hub that always refuses are asked less and less
/// often. Failed connections are counted until the device is connected or has registered.
///
/// By default a refusal leads to a registration, as a zeroed set of options does in that SDK (`REPROVISION`; its
/// `options_default()` has `RETRY_HUB`). Over MQTT 3.1.1 a hub says the same, CONNACK 5, of a device that was moved, deleted
/// or disabled: with [`OnRefusal::RetryHub`] a device that was moved would ask its former hub for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecoveryPolicy {
    /// What to do when the hub refuses the device. Default: [`OnRefusal::Register`].
    pub on_refusal: OnRefusal,
    /// The waits after a connection that failed or was lost. Default: 1 s, doubled up to 60 s, up to a fifth more,
    /// without a limit.
    pub reconnect: Backoff,
    /// The waits after a refusal of the device. Default: 5 minutes, doubled up to 1 h, up to a quarter more, without a
    /// limit.
    pub recover: Backoff,
    /// An episode of refusals ends so long after the first one: no attempt begins then or later. Default: `None`.
    pub recover_within: Option<Duration>,
    /// So many connections that fail in a row lead to a registration. Default: 50; `None`: they never do.
    pub register_after: Option<u32>,
}

impl Default for RecoveryPolicy {
    fn default() -> Self {
        let backoff = |initial, cap, jitter| Backoff {
            initial: Duration::from_secs(initial),
            cap: Duration::from_secs(cap),
            jitter,
            max_attempts: None,
        };
        Self {
            on_refusal: OnRefusal::default(),
            reconnect: backoff(1, 60, 0.2),
            recover: backoff(300, 3600, 0.25),
            recover_within: None,
            register_after: Some(50),
        }
    }
}

/// What the hub did until now, as far as the next step depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct HubHistory {
    /// So many connections failed in a row, counted up to the limits of the [`RecoveryPolicy`].
    pub failed_connects: u32,
    /// So often in a row the hub refused the device.
    pub refusals: u32,
    /// When it did so first.
    #[serde(with = "optional_seconds")]
    pub refused_since: Option<SystemTime>,
}

impl HubHistory {
    /// The device has registered.
    pub fn registered(&mut self) {
        self.failed_connects = 0;
    }

    /// The device is connected to its hub.
    pub fn connected(&mut self) {
        *self = Self::default();
    }
}

impl RecoveryPolicy {
    /// The next step, at the time `now`. `lot` is a random number from 0 to 1.
    #[must_use]
    pub fn next(
        &self,
        history: &mut HubHistory,
        refusal: HubRefusal,
        now: SystemTime,
        lot: f64,
    ) -> NextStep {
        match refusal {
            HubRefusal::NotAuthorized | HubRefusal::Disabled => {
                let registers = self.on_refusal == OnRefusal::Register;
                self.after_refusal(history, registers, now, lot)
            }
            HubRefusal::UnknownDevice | HubRefusal::Moved => {
                self.after_refusal(history, true, now, lot)
            }
            HubRefusal::PutOut => self.after_refusal(history, false, now, lot),
            HubRefusal::Throttled { retry_after } => {
                let at_least = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                self.after_failure(history, at_least, lot)
            }
            HubRefusal::Unreachable => self.after_failure(history, Duration::ZERO, lot),
            // The connection before was made: it counts as none that failed.
            HubRefusal::Lost => match self.reconnect.wait(1, lot) {
                Some(after) => NextStep::ConnectToHub { after },
                None => NextStep::Stop,
            },
        }
    }

    fn after_failure(&self, history: &mut HubHistory, at_least: Duration, lot: f64) -> NextStep {
        let failed = history.failed_connects.saturating_add(1);
        // Beyond the limits the number says nothing more, and what is kept of it need not be written any more.
        let most = self.register_after.max(self.reconnect.max_attempts).unwrap_or(u32::BITS);
        history.failed_connects = failed.min(most);
        let Some(wait) = self.reconnect.wait(failed, lot) else { return NextStep::Stop };
        let after = wait.max(at_least);
        match self.register_after {
            Some(most) if failed >= most => NextStep::Register { after },
            _ => NextStep::ConnectToHub { after },
        }
    }

    fn after_refusal(
        &self,
        history: &mut HubHistory,
        registers: bool,
        now: SystemTime,
        lot: f64,
    ) -> NextStep {
        history.refusals = history.refusals.saturating_add(1);
        // A clock that was set back begins the episode anew.
        let since = history.refused_since.filter(|since| *since <= now).unwrap_or(now);
        history.refused_since = Some(since);
        let ended = now.duration_since(since).unwrap_or_default();
        match self.recover.wait(history.refusals, lot) {
            _ if self.on_refusal == OnRefusal::Stop => NextStep::Stop,
            Some(after)
                if self.recover_within.is_none_or(|most| ended.saturating_add(after) < most) =>
            {
                match registers {
                    true => NextStep::Register { after },
                    false => NextStep::ConnectToHub { after },
                }
            }
            _ => NextStep::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const REFUSALS: [HubRefusal; 8] = [
        HubRefusal::NotAuthorized,
        HubRefusal::Disabled,
        HubRefusal::UnknownDevice,
        HubRefusal::Moved,
        HubRefusal::PutOut,
        HubRefusal::Throttled { retry_after: None },
        HubRefusal::Unreachable,
        HubRefusal::Lost,
    ];

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn policy(on_refusal: OnRefusal) -> RecoveryPolicy {
        RecoveryPolicy { on_refusal, ..RecoveryPolicy::default() }
    }

    #[test]
    fn the_first_step_after_each_end_of_a_connection_is_that_of_the_table() {
        let hub = |after| NextStep::ConnectToHub { after: seconds(after) };
        let register = NextStep::Register { after: seconds(300) };
        let stop = NextStep::Stop;
        let table = [
            (OnRefusal::RetryHub, [hub(300), hub(300), register, register, hub(300)]),
            (OnRefusal::Register, [register, register, register, register, hub(300)]),
            (OnRefusal::Stop, [stop; 5]),
        ];
        for (on_refusal, of_device) in table {
            let steps = of_device.into_iter().chain([hub(1); 3]);
            for (refusal, expected) in REFUSALS.into_iter().zip(steps) {
                let mut history = HubHistory::default();
                let step = policy(on_refusal).next(&mut history, refusal, NOW, 0.0);
                assert_eq!(step, expected, "{refusal:?} {on_refusal:?}");
            }
        }
    }

    #[test]
    fn connections_that_fail_back_off_up_to_a_minute_and_the_fiftieth_registers() {
        for failure in [HubRefusal::Unreachable, HubRefusal::Throttled { retry_after: None }] {
            let mut history = HubHistory::default();
            let policy = RecoveryPolicy::default();
            let mut next = || policy.next(&mut history, failure, NOW, 0.0);
            for wait in [1, 2, 4, 8, 16, 32] {
                assert_eq!(next(), NextStep::ConnectToHub { after: seconds(wait) });
            }
            for _ in 7..50 {
                assert_eq!(next(), NextStep::ConnectToHub { after: seconds(60) });
            }
            // It stays so until a registration succeeds.
            for _ in 0..3 {
                assert_eq!(next(), NextStep::Register { after: seconds(60) });
            }
            assert_eq!(history.failed_connects, 50);
            history.registered();
            let again = policy.next(&mut history, failure, NOW, 0.0);
            assert_eq!(again, NextStep::ConnectToHub { after: seconds(1) });
        }
    }

    #[test]
    fn a_hub_that_is_busy_is_left_alone_for_as_long_as_it_asked() {
        let busy = HubRefusal::Throttled { retry_after: Some(seconds(7200)) };
        let next = RecoveryPolicy::default().next(&mut HubHistory::default(), busy, NOW, 1.0);
        assert_eq!(next, NextStep::ConnectToHub { after: seconds(7200) });
    }

    #[test]
    fn a_hub_that_asks_for_years_is_left_alone_for_a_day() {
        let busy = HubRefusal::Throttled { retry_after: Some(Duration::MAX) };
        let next = RecoveryPolicy::default().next(&mut HubHistory::default(), busy, NOW, 1.0);
        assert_eq!(next, NextStep::ConnectToHub { after: seconds(24 * 3600) });
    }

    #[test]
    fn refusals_back_off_whatever_is_registered_in_between_until_the_device_is_connected() {
        let policy = policy(OnRefusal::Register);
        let mut history = HubHistory::default();
        for (nth, wait) in [300, 600, 1200, 2400, 3600, 3600].into_iter().enumerate() {
            let now = NOW + seconds(nth as u64);
            let next = policy.next(&mut history, HubRefusal::NotAuthorized, now, 0.0);
            assert_eq!(next, NextStep::Register { after: seconds(wait) });
            assert_eq!(history.refused_since, Some(NOW));
            history.registered();
        }
        history.connected();
        let next = policy.next(&mut history, HubRefusal::NotAuthorized, NOW, 0.0);
        assert_eq!(next, NextStep::Register { after: seconds(300) });
    }

    #[test]
    fn an_episode_ends_by_its_attempts_and_by_its_duration() {
        let mut limited = policy(OnRefusal::RetryHub);
        limited.recover.max_attempts = Some(2);
        let steps = |policy: &RecoveryPolicy| {
            let (mut history, mut now, mut steps) = (HubHistory::default(), NOW, 0);
            while let NextStep::ConnectToHub { after } =
                policy.next(&mut history, HubRefusal::Disabled, now, 0.0)
            {
                now += after;
                steps += 1;
            }
            (steps, now.duration_since(NOW).unwrap())
        };
        assert_eq!(steps(&limited), (2, seconds(900)));
        let mut limited = policy(OnRefusal::RetryHub);
        limited.recover_within = Some(seconds(900));
        // The second attempt would begin when the time is up.
        assert_eq!(steps(&limited), (1, seconds(300)));
        let mut limited = policy(OnRefusal::RetryHub);
        limited.reconnect.max_attempts = Some(3);
        let mut history = HubHistory::default();
        let mut next = || limited.next(&mut history, HubRefusal::Unreachable, NOW, 0.0);
        assert!((0..3).all(|_| next() != NextStep::Stop) && next() == NextStep::Stop);
    }

    #[test]
    fn jitter_only_adds_and_no_number_makes_a_wait_wrong() {
        let RecoveryPolicy { reconnect, recover, .. } = RecoveryPolicy::default();
        for (backoff, most) in [(reconnect, 1.2), (recover, 1.25)] {
            for attempt in [1, 2, 7, 33, 1000, u32::MAX] {
                let base = backoff.wait(attempt, 0.0).unwrap();
                assert!((backoff.initial..=backoff.cap).contains(&base), "{attempt}: {base:?}");
                let longest = backoff.wait(attempt, 1.0).unwrap().as_secs_f64();
                assert!((longest / base.as_secs_f64() - most).abs() < 1e-9, "{attempt}");
            }
        }
        let odd =
            Backoff { initial: Duration::MAX, cap: Duration::MAX, jitter: f64::NAN, ..recover };
        assert_eq!(odd.wait(9, 1.0), Some(Duration::MAX));
    }

    #[test]
    fn a_clock_that_was_set_back_begins_the_episode_anew() {
        let mut limited = policy(OnRefusal::RetryHub);
        limited.recover_within = Some(seconds(1000));
        let mut history = HubHistory::default();
        let later = NOW + seconds(1_000_000);
        let _ = limited.next(&mut history, HubRefusal::NotAuthorized, later, 0.0);
        let next = limited.next(&mut history, HubRefusal::NotAuthorized, NOW, 0.0);
        assert_eq!(next, NextStep::ConnectToHub { after: seconds(600) });
        assert_eq!(history.refused_since, Some(NOW));
    }
}
