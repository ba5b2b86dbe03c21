//! One process that owns a device's identity for as long as it runs: it registers, keeps, renews and registers again.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, SystemTime},
};

use dps_client::{
    Client, ConfigurationError, Error, ErrorKind, IssuedCertificates, RegistrationRequest,
    RequestKey, Transport,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    assignment::Assignment,
    policy::{Backoff, HubRefusal, LONGEST_RETRY_AFTER, NextStep},
    provisioner::{Provisioner, lot},
    wait::{Countdown, after, until},
};

/// What is due by the wall clock, which may be set, and what another process has stored is looked for so often.
const LONGEST_SLEEP: Duration = Duration::from_secs(1800);
/// So long after an attempt to register the next one begins at the earliest, whoever asks for it.
const BETWEEN_REGISTRATIONS: Duration = Duration::from_secs(60);
/// What could not be stored is tried again so often.
const BETWEEN_STORES: Duration = Duration::from_secs(60);
/// So long the end of a session is waited for.
const END_OF_SESSION: Duration = Duration::from_secs(5);

/// What the agent is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Register anew, whatever is stored and whatever is waited for.
    Register,
    /// The connection to the hub ended so, or could not be made.
    HubEnded(HubRefusal),
    /// The device is connected to its hub.
    HubConnected,
    /// Hand over anew what the device has, by [`Surroundings::assigned`]: it failed before.
    HandOver,
}

/// What is around an agent.
pub trait Surroundings {
    /// The time of day.
    fn now(&self) -> SystemTime;

    /// Waits for an order; `None` ends the agent.
    ///
    /// # Cancel safety
    /// The future is dropped and made anew, whenever a wait or a registration ends: an order that has come must not be lost
    /// by that, and what takes its time is no work for this future.
    fn order(&mut self) -> impl Future<Output = Option<Order>>;

    /// The device has this assignment: at the start if one is stored, after each registration, when its certificate may
    /// be a new one too, when another process has stored another one, and when it is [ordered](Order::HandOver). It is
    /// waited for to its end, and nothing else is done meanwhile.
    fn assigned(&mut self, assignment: &Assignment) -> impl Future<Output = ()>;

    /// Something failed, and is tried again after this time.
    fn failed(&mut self, error: &Error, retry_in: Duration);

    /// What the hub did leads to this.
    fn next_step(&mut self, _: NextStep) {}
}

/// One process that owns a device's identity.
///
/// | it registers | and after a failure |
/// |---|---|
/// | when that is [due](Provisioner::registration_due) | waits as [`RecoveryPolicy::reconnect`](crate::RecoveryPolicy::reconnect) says, or [`recover`](crate::RecoveryPolicy::recover) for what trying again is not likely to mend, and no less than the service asked for, up to 24 h |
/// | when it is [told to](Order::Register), a minute after the last attempt at the earliest, whatever it waited for | the same |
/// | when the certificate is missing or [due](dps_client::StoredCertificate::renewal_due) for renewal | the same, or as [`next_try_after`](dps_client::StoredCertificate::next_try_after) says while a certificate is there; 24 h when the device is assigned and the service issues none |
///
/// What passes by itself, like a lock that another process has or a clock that is not set yet, is tried again in seconds, as `reconnect` says;
/// while a certificate is there, these waits double up to that of `next_try_after`.
///
/// What another process stores in the file, like a registration by hand, is taken within half an hour.
///
/// It has no thread and no clock of its own but tokio's timer, by which it waits: a clock that is set puts nothing off. A test
/// pauses that timer, and a year passes at once.
#[derive(Debug)]
pub struct Agent {
    provisioner: Provisioner,
    client: Client,
    request: RegistrationRequest,
    transport: Option<Transport>,
    /// The assignment that its surroundings know.
    announced: Option<Assignment>,
    /// The key of each certificate, unless each has a new one.
    request_key: Option<RequestKey>,
    hub_wait: Countdown,
    certificate_wait: Countdown,
    /// So many registrations failed in a row.
    failures: u32,
    /// When the last attempt ended.
    attempted: Option<Instant>,
    not_before: Option<Instant>,
    /// The same of a registration for the certificate alone.
    renewal_not_before: Option<Instant>,
}

/// What the agent was told of registering.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Nothing,
    /// To do it now.
    Now,
    /// The same, but the attempt failed.
    Again,
}

impl Agent {
    /// An agent that registers with this client, by this request. The certificate in the device's
    /// [folder](Provisioner::certificate), if it has one, is issued by the service, and renewed. `transport` is the one that the client uses, to be
    /// remembered.
    #[must_use]
    pub fn new(
        provisioner: Provisioner,
        client: Client,
        request: RegistrationRequest,
        transport: Option<Transport>,
    ) -> Self {
        Self {
            provisioner,
            client,
            request,
            transport,
            announced: None,
            request_key: None,
            hub_wait: Countdown::default(),
            certificate_wait: Countdown::default(),
            failures: 0,
            attempted: None,
            not_before: None,
            renewal_not_before: None,
        }
    }

    /// Requests each certificate for this key, like one that stays in a TPM or a token, and not for a new one each time.
    #[must_use]
    pub fn request_key(mut self, key: RequestKey) -> Self {
        self.request_key = Some(key);
        self
    }

    /// The device.
    #[must_use]
    pub fn provisioner(&self) -> &Provisioner {
        &self.provisioner
    }

    /// Runs until an order says that it is over. A registration that is under way then is cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future cancels what is under way, and changes nothing that is stored.
    pub async fn run(&mut self, around: &mut impl Surroundings) {
        self.announced = None;
        let mut told = Told::Nothing;
        loop {
            let now = around.now();
            self.provisioner.refresh();
            self.provisioner.store_again();
            if self.provisioner.assignment() != self.announced.as_ref() {
                self.announce(around).await;
            }
            let (registration, renewal) = self.waits(told, now);
            let pause = registration.min(renewal);
            if pause.is_zero() {
                let Some(outcome) = self.attend(renewal.is_zero(), around).await else { return };
                told = match outcome {
                    Ok(()) => Told::Nothing,
                    Err(error) => {
                        around.failed(&error, self.put_off(&error, registration.is_zero(), now));
                        if told == Told::Nothing { Told::Nothing } else { Told::Again }
                    }
                };
                continue;
            }
            let longest = match self.provisioner.not_stored() {
                Some(_) => BETWEEN_STORES,
                None => LONGEST_SLEEP,
            };
            tokio::select! {
                biased;
                order = around.order() => match order {
                    None => return,
                    Some(Order::Register) => told = Told::Now,
                    Some(Order::HubConnected) => self.provisioner.report_connected(),
                    Some(Order::HandOver) => self.announced = None,
                    Some(Order::HubEnded(refusal)) => {
                        let next = self.provisioner.report(refusal, around.now());
                        around.next_step(next);
                    }
                },
                () = sleep(pause.min(longest)) => {}
            }
        }
    }

    /// How long it is until a registration, and until one that asks for a certificate.
    fn waits(&mut self, told: Told, now: SystemTime) -> (Duration, Duration) {
        let hub = self.hub_wait.left(self.provisioner.hub_wait(), now);
        let put_off = self.certificate_wait.left(self.provisioner.certificate_wait(), now);
        let certificate = self.provisioner.certificate_due_in(now);
        let (registration, certificate, pause) = match told {
            Told::Now => {
                let earliest = self.attempted.and_then(|at| at.checked_add(BETWEEN_REGISTRATIONS));
                (Some(Duration::ZERO), certificate, until(earliest))
            }
            _ => {
                let is_due = told == Told::Again || self.provisioner.assignment_due().is_some();
                let put_off = put_off.unwrap_or_default().max(until(self.renewal_not_before));
                let registration = if is_due { Some(Duration::ZERO) } else { hub };
                (registration, certificate.map(|due| due.max(put_off)), until(self.not_before))
            }
        };
        let wait = |due: Option<Duration>| due.map_or(Duration::MAX, |due| due.max(pause));
        (wait(registration), wait(certificate))
    }

    /// Registers once. Meanwhile orders to register ask for what is done already, and what a former hub refuses is of no
    /// matter any more. `None` when the agent is to end.
    async fn attend(
        &mut self,
        renews: bool,
        around: &mut impl Surroundings,
    ) -> Option<Result<(), Error>> {
        let now = around.now();
        let client = self.client.clone();
        let (mut is_connected, mut hands_over) = (false, false);
        let outcome = {
            let mut registering = pin!(self.register(renews, now));
            loop {
                tokio::select! {
                    biased;
                    order = around.order() => match order {
                        None => break None,
                        Some(Order::Register) => {}
                        Some(Order::HandOver) => hands_over = true,
                        Some(order) => is_connected = order == Order::HubConnected,
                    },
                    outcome = &mut registering => break Some(outcome),
                }
            }
        };
        if let Ok(Err(error)) = timeout(END_OF_SESSION, client.end_session()).await {
            tracing::debug!(%error, "the session did not end well");
        }
        self.attempted = Some(Instant::now());
        let outcome = outcome?;
        if is_connected {
            self.provisioner.report_connected();
        }
        if hands_over {
            self.announced = None;
        }
        let failed = match outcome {
            Ok(failed) => failed,
            Err(error) => return Some(Err(error)),
        };
        self.failures = 0;
        self.not_before = after(BETWEEN_REGISTRATIONS);
        self.renewal_not_before = None;
        self.announce(around).await;
        if let Some(error) = self.provisioner.not_stored() {
            tracing::warn!(%error, "the assignment is not stored");
        }
        if let Some(error) = failed {
            let wait = self.provisioner.put_certificate_off(now);
            around.failed(&error, wait);
        }
        Some(Ok(()))
    }

    async fn announce(&mut self, around: &mut impl Surroundings) {
        self.announced = self.provisioner.assignment().cloned();
        if let Some(assignment) = &self.announced {
            around.assigned(assignment).await;
        }
    }

    /// The error within is that of the certificate: the device is registered all the same.
    async fn register(&mut self, renews: bool, now: SystemTime) -> Result<Option<Error>, Error> {
        let mut request = self.request.clone();
        let id = request.registration_id().clone();
        let order = match self.provisioner.folder().filter(|_| renews) {
            None => None,
            Some(folder) => {
                let prepared = folder.prepare()?;
                let key = self.request_key.clone().map_or_else(RequestKey::generate, Ok)?;
                request = request.certificate_request(key.request(&id)?);
                Some((prepared, key))
            }
        };
        let (client, transport) = (&self.client, self.transport);
        let assignment = self.provisioner.register(client, request, transport, || now).await?;
        let Some((prepared, key)) = order else { return Ok(None) };
        let chain = match &assignment.result.certificates {
            IssuedCertificates::Issued(chain) => chain,
            other => {
                let reason = match other {
                    IssuedCertificates::Unreadable { reason } => reason.as_str(),
                    _ => NO_POLICY,
                };
                let error = ConfigurationError::new("issued certificate", "", reason);
                return Ok(Some(error.into()));
            }
        };
        let store = || {
            let issued = key.verify(chain, &id, now)?;
            prepared.store(&issued.to_pem(), key.to_pem().as_ref().map(|key| key.as_str()))
        };
        Ok(store().err())
    }

    /// Sets when the next try is, and says how long that is from now.
    fn put_off(&mut self, error: &Error, due: bool, now: SystemTime) -> Duration {
        let policy = self.provisioner.policy_in_use();
        let at_least = error.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let passes = error.kind() == ErrorKind::Configuration && error.is_retryable();
        let stored = self.provisioner.stored_certificate().filter(|_| !due);
        let next_try = stored.map(|stored| stored.next_try_after(now, at_least));
        if let Some(wait) = next_try.filter(|_| !passes) {
            self.renewal_not_before = after(wait);
            return wait;
        }
        self.failures = self.failures.saturating_add(1);
        let backoff = match (error.is_retryable(), next_try) {
            // The certificate is good for a while, and each try writes to the disk to see whether there is room.
            (true, Some(cap)) => Backoff { cap, ..policy.reconnect },
            (true, None) => policy.reconnect,
            (false, _) => policy.recover,
        };
        let wait = backoff.wait(self.failures, lot()).unwrap_or(backoff.cap).max(at_least);
        self.not_before = after(wait);
        wait
    }
}

const NO_POLICY: &str =
    "none came: the enrollment has no policy for issuing certificates; give it one";
