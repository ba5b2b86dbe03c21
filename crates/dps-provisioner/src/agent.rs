//! One process that owns a device's identity for as long as it runs: it registers, keeps, renews and registers again.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, SystemTime},
};

use dps_client::{
    Client, Error, IssuedCertificates, ProtocolError, RegistrationRequest, RequestKey, Stage,
    Transport,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    assignment::Assignment,
    policy::{HubRefusal, NextStep},
    provisioner::{Due, Provisioner},
};

/// What is due by the wall clock is looked for so often, since that clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// So long after a registration the next one begins at the earliest, whoever asks for it.
const BETWEEN_REGISTRATIONS: Duration = Duration::from_secs(60);
/// So long the end of a session is waited for.
const END_OF_SESSION: Duration = Duration::from_secs(5);

/// What the agent is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Register anew, whatever is stored.
    Register,
    /// The connection to the hub ended so, or could not be made.
    HubEnded(HubRefusal),
    /// The device is connected to its hub.
    HubConnected,
}

/// What is around an agent.
pub trait Surroundings {
    /// The time of day.
    fn now(&self) -> SystemTime;

    /// Waits for an order; `None` ends the agent.
    ///
    /// # Cancel safety
    /// The future is dropped and made anew: an order that has come must not be lost by that.
    fn order(&mut self) -> impl Future<Output = Option<Order>>;

    /// The device has this assignment: at the start if one is stored, and after each registration, when its certificate
    /// may be a new one too.
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
/// | when that is [due](Provisioner::registration_due) | waits as [`RecoveryPolicy::reconnect`](crate::RecoveryPolicy::reconnect) says, or [`recover`](crate::RecoveryPolicy::recover) for what trying again is not likely to mend, and no less than the service asked for |
/// | when it is [told to](Order::Register), a minute after the last registration at the earliest | the same |
/// | when the certificate is missing or [due](dps_client::StoredCertificate::renewal_due) for renewal | the same, or as [`next_try_after`](dps_client::StoredCertificate::next_try_after) says while a certificate is there |
///
/// It has no thread and no clock of its own but tokio's timer: a test pauses that, and a year passes at once.
#[derive(Debug)]
pub struct Agent {
    provisioner: Provisioner,
    client: Client,
    request: RegistrationRequest,
    transport: Option<Transport>,
    /// By the wall clock.
    renewal_due: Option<SystemTime>,
    /// So many registrations failed in a row.
    failures: u32,
    not_before: Option<Instant>,
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
            renewal_due: None,
            failures: 0,
            not_before: None,
        }
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
        if let Some(assignment) = self.provisioner.assignment() {
            around.assigned(assignment).await;
        }
        self.find_renewal();
        let mut is_told = false;
        loop {
            let now = around.now();
            // A renewal that is put off is not due, whatever the certificate says.
            let due = self.provisioner.registration_due(now).filter(|due| *due != Due::Certificate);
            let due = is_told || due.is_some();
            let renews = self.renewal_due.is_some_and(|at| at <= now);
            let left = self.not_before.map(|at| at.saturating_duration_since(Instant::now()));
            let left = left.unwrap_or_default();
            let pause = match due || renews {
                true if left.is_zero() => {
                    let Some(outcome) = self.attend(renews, around).await else { return };
                    match outcome {
                        Ok(()) => is_told = false,
                        Err(error) => around.failed(&error, self.put_off(&error, due, now)),
                    }
                    continue;
                }
                true => left,
                false => self.until_due(now),
            };
            tokio::select! {
                biased;
                order = around.order() => match order {
                    None => return,
                    Some(Order::Register) => is_told = true,
                    Some(Order::HubConnected) => self.provisioner.report_connected(),
                    Some(Order::HubEnded(refusal)) => {
                        let next = self.provisioner.report(refusal, around.now());
                        around.next_step(next);
                    }
                },
                () = sleep(pause.min(LONGEST_SLEEP)) => {}
            }
        }
    }

    /// Registers once, while orders to register ask for what is done already. `None` when the agent is to end.
    async fn attend(
        &mut self,
        renews: bool,
        around: &mut impl Surroundings,
    ) -> Option<Result<(), Error>> {
        let now = around.now();
        let client = self.client.clone();
        let outcome = {
            let mut registering = pin!(self.register(renews, now));
            loop {
                tokio::select! {
                    biased;
                    order = around.order() => if order.is_none() { break None },
                    outcome = &mut registering => break Some(outcome),
                }
            }
        };
        if let Ok(Err(error)) = timeout(END_OF_SESSION, client.end_session()).await {
            tracing::debug!(%error, "the session did not end well");
        }
        let failed = match outcome? {
            Ok(failed) => failed,
            Err(error) => return Some(Err(error)),
        };
        self.failures = 0;
        self.not_before = Instant::now().checked_add(BETWEEN_REGISTRATIONS);
        if let Some(assignment) = self.provisioner.assignment() {
            around.assigned(assignment).await;
        }
        if let Some(error) = self.provisioner.not_stored() {
            tracing::warn!(%error, "the assignment is not stored");
        }
        self.find_renewal();
        if let Some(error) = failed {
            let wait = self.put_renewal_off(&error, now);
            around.failed(&error, wait);
        }
        Some(Ok(()))
    }

    /// The error within is that of the certificate: the device is registered all the same.
    async fn register(&mut self, renews: bool, now: SystemTime) -> Result<Option<Error>, Error> {
        let mut request = self.request.clone();
        let id = request.registration_id().clone();
        let order = match self.provisioner.folder().filter(|_| renews) {
            None => None,
            Some(folder) => {
                let (prepared, key) = (folder.prepare()?, RequestKey::generate()?);
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
                return Ok(Some(ProtocolError::unreadable(Stage::Register, reason).into()));
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
        if !due {
            return self.put_renewal_off(error, now);
        }
        self.failures = self.failures.saturating_add(1);
        let wait = self.wait(error, self.failures);
        self.not_before = Instant::now().checked_add(wait);
        wait
    }

    /// The same for the certificate alone.
    fn put_renewal_off(&mut self, error: &Error, now: SystemTime) -> Duration {
        let at_least = error.retry_after().unwrap_or_default();
        let stored = self.provisioner.folder().and_then(|folder| folder.load().ok());
        let wait = match stored {
            Some(stored) => stored.next_try_after(now, at_least),
            None => self.provisioner.policy_in_use().recover.cap.max(at_least),
        };
        self.renewal_due = now.checked_add(wait);
        wait
    }

    fn wait(&self, error: &Error, failures: u32) -> Duration {
        let policy = self.provisioner.policy_in_use();
        let backoff = if error.is_retryable() { policy.reconnect } else { policy.recover };
        let wait = backoff.wait(failures, crate::provisioner::lot()).unwrap_or(backoff.cap);
        wait.max(error.retry_after().unwrap_or_default())
    }

    fn find_renewal(&mut self) {
        self.renewal_due = self.provisioner.folder().map(|folder| {
            let due = folder.load().map(|stored| stored.renewal_due(None));
            due.unwrap_or(SystemTime::UNIX_EPOCH)
        });
    }

    fn until_due(&self, now: SystemTime) -> Duration {
        let due = [self.renewal_due, self.provisioner.register_at()];
        let until = |at: SystemTime| at.duration_since(now).unwrap_or_default();
        due.into_iter().flatten().map(until).min().unwrap_or(LONGEST_SLEEP)
    }
}

const NO_POLICY: &str =
    "no certificate came: the enrollment has no policy for issuing certificates; give it one";
