//! One registration, carried out: with what comes before it, and what is done with its result.

use std::{
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dps_client::{Error, Stage, TimeoutError, TimeoutScope, Transport};
use dps_provisioner::Provisioner;

use super::{
    Plan, Registration,
    prepare::{Prepared, Time},
};
use crate::{
    agent,
    given::{self, named},
    interrupt::Interrupts,
    issue::Delivery,
    kept::{self, Kept},
    progress::Progress,
    report::{Context, ErrorJson, Reporter, Success},
    status,
};

/// The hub is tried for so long at least, however long the registration took.
const AT_HUB: Duration = Duration::from_secs(10);

/// One registration and the end of the session. How it ended is reported here, so that nobody has to wait for the end
/// of the session.
pub(super) async fn session(
    registration: &Registration,
    plan: Plan,
    progress: &Arc<Progress>,
    reporter: Reporter,
    mut context: Context,
    mut interrupts: Interrupts,
) -> ExitCode {
    let transport = context.transport.unwrap_or(Transport::Http.into());
    let renews_at = plan.hub.clone();
    let found = plan.found.clone();
    let (is_kept, folder) = (plan.is_kept, plan.folder.clone());
    // What comes while it waits for its TPM is told later.
    let signals = match is_kept.then(agent::listen).transpose() {
        Ok(signals) => signals,
        Err(error) => return reporter.failed(&error, &context),
    };
    let preparing =
        prepared(registration, plan, progress, reporter, &mut context, &mut interrupts).await;
    let Prepared {
        client,
        credentials,
        request,
        mut device,
        is_told,
        is_due,
        locked,
        mut order,
        mut hub,
        look_up,
        handover,
        proofs,
        request_key,
        time,
        _emulator,
    } = match preparing {
        Ok(prepared) => prepared,
        // The agent was told to end.
        Err(Error::Cancelled) if is_kept => return ExitCode::SUCCESS,
        Err(error) => return reporter.failed(&error, &context),
    };
    if let Some(found) = found {
        return reporter.found(&found);
    }
    if let Some(signals) = signals
        && let Some(device) = device.take()
    {
        let mut agent = dps_provisioner::Agent::new(device, client, request, transport.fixed());
        if let Some(key) = request_key {
            agent = agent.request_key(key);
        }
        let progress = Arc::clone(progress);
        let around =
            agent::Around::new(reporter, context, interrupts, handover, proofs, progress, signals);
        return agent::keep(agent, around).await;
    }
    let registration_id = request.registration_id().clone();
    if let Some(configs) = look_up {
        let steps = dps_client::Progress::new(progress.observer());
        let asking = status::ask(configs, &registration_id, &steps);
        let late = TimeoutError::new(Stage::Query, TimeoutScope::Request, time.whole);
        return match in_time(asking, time, late, &mut interrupts).await {
            Ok(state) => reporter.shows(&registration_id, &state),
            Err(error) => reporter.failed(&error, &context),
        };
    }
    if let Some((name, device_id)) = renews_at
        && let (Some(hub), Some(order)) = (hub.take(), order.take())
    {
        let device_id = device_id.unwrap_or_else(|| registration_id.to_string());
        context.endpoint = Some(name.clone());
        let renewing = hub.renew(&name, &device_id, &registration_id, order);
        let late = TimeoutError::new(Stage::Register, TimeoutScope::Registration, time.whole);
        return match in_time(renewing, time, late, &mut interrupts).await {
            Ok(delivery) => reporter.renewed(&registration_id, &name, &delivery),
            Err(error) => reporter.failed(&error, &context),
        };
    }
    // Another process may have registered the device while a TPM or a token was asked.
    refresh(&mut device);
    let stored = device.as_ref().and_then(Provisioner::assignment).filter(|_| !is_due);
    let mut kept = stored.map(|assignment| Kept::new(assignment, kept::Source::Stored));
    let stored = stored.map(|assignment| proofs.of_stored(assignment));
    let mut outcome = {
        let mut registering = pin!(async {
            match (stored, &mut device) {
                (Some(stored), _) => Ok(stored),
                (None, None) => client.register(request).await,
                (None, Some(device)) => {
                    let new = match locked {
                        Some(error) => Err(error),
                        None => kept::register(device, &client, request, transport).await,
                    };
                    new.map(|(registered, stored)| {
                        kept = Some(stored);
                        registered
                    })
                }
            }
        });
        tokio::select! {
            // Interrupts come first: a service that sends without end does not hide them.
            biased;
            () = interrupts.next() => tokio::select! {
                biased;
                // Twice: at once, without an end of the session.
                () = interrupts.next() => return reporter.failed(&Error::Cancelled, &context),
                (outcome, _) = async { tokio::join!(registering, client.end_session()) } => outcome,
            },
            outcome = &mut registering => outcome,
        }
    };
    let elapsed = progress.elapsed();
    if outcome.is_err() {
        refresh(&mut device);
    }
    if let (Err(error), Some(device)) = (&outcome, &device)
        && let Some(assignment) = device.assignment()
        && kept::stands_in_for(error)
        && !is_told
    {
        context.know(progress);
        let error = in_given_terms(error.clone(), time, registration.force);
        tracing::warn!("{error}; the device is not registered anew: its stored assignment is used");
        let registration_error = Some(Box::new(ErrorJson::new(&error, &context)));
        kept = Some(Kept { registration_error, ..Kept::new(assignment, kept::Source::Stored) });
        outcome = Ok(proofs.of_stored(assignment));
        order = None;
    }
    let code = match outcome {
        Ok(mut registered) => {
            let certificate = match order {
                Some(order) => {
                    let delivery = order.fulfil(&registration_id, &registered.certificates);
                    if let (Some(device), false) = (&mut device, delivery.is_stored()) {
                        device.put_certificate_off(SystemTime::now());
                    }
                    Some(delivery)
                }
                None => proofs
                    .certificate(&registration_id)
                    .or_else(|| Delivery::awaited(folder.as_ref()?, device.as_ref()?)),
            };
            let hub = match hub {
                None => None,
                Some(hub) => {
                    let left = time.whole.saturating_sub(elapsed).max(AT_HUB);
                    tokio::select! {
                        biased;
                        () = interrupts.next() => {
                            return reporter.failed(&Error::Cancelled, &context);
                        }
                        met = hub.carry_out(&registration_id, &registered, &proofs, left) => Some(met),
                    }
                }
            };
            let known = device.as_ref().and_then(Provisioner::assignment).cloned();
            let hub = match &mut device {
                Some(device) => hub.map(|met| met.reported(device)),
                None => hub,
            };
            // Another process may have registered the device meanwhile.
            if let Some(assignment) = device.as_ref().and_then(Provisioner::assignment)
                && known.as_ref() != Some(assignment)
            {
                kept = Some(Kept::new(assignment, kept::Source::Stored));
                registered = proofs.of_stored(assignment);
            }
            let mut success = Success {
                registration_id,
                transport,
                registered,
                credentials,
                elapsed,
                certificate,
                hub,
                kept,
                handed: None,
            };
            if let Some(handover) = handover
                && handover
                    .carry_out(&mut success, &proofs, &mut interrupts, |_| {})
                    .await
                    .is_none()
            {
                return reporter.failed(&Error::Cancelled, &context);
            }
            reporter.succeeded(&success)
        }
        Err(error) => {
            context.know(progress);
            reporter.failed(&in_given_terms(error, time, registration.force), &context)
        }
    };
    tokio::select! {
        biased;
        () = interrupts.next() => {}
        ended = client.end_session() => if let Err(error) = ended {
            tracing::debug!(%error, "the session did not end well");
        },
    }
    code
}

/// Reads what the registration takes. An agent begins again, less and less often, after what may be gone later.
async fn prepared(
    registration: &Registration,
    plan: Plan,
    progress: &Arc<Progress>,
    reporter: Reporter,
    context: &mut Context,
    interrupts: &mut Interrupts,
) -> Result<Prepared, Error> {
    let transport = context.transport.unwrap_or(Transport::Http.into());
    let is_kept = plan.is_kept;
    let mut failures = 0;
    loop {
        let preparing = registration.prepare(plan.clone(), transport, progress, context);
        let prepared = tokio::select! {
            biased;
            () = interrupts.next() => return Err(Error::Cancelled),
            prepared = preparing => prepared,
        };
        let wait = match prepared {
            Err(error) if is_kept && agent::may_pass(&error) => {
                failures += 1;
                agent::try_again(&error, failures, reporter, context)
            }
            prepared => return prepared,
        };
        tokio::select! {
            biased;
            () = interrupts.next() => return Err(Error::Cancelled),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Takes what another process has stored since.
fn refresh(device: &mut Option<Provisioner>) {
    if let Some(device) = device {
        device.refresh();
    }
}

/// What comes of it, unless the time is over or an interrupt comes.
async fn in_time<T>(
    work: impl Future<Output = Result<T, Error>>,
    time: Time,
    late: TimeoutError,
    interrupts: &mut Interrupts,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = interrupts.next() => Err(Error::Cancelled),
        done = tokio::time::timeout(time.left, work) => done.unwrap_or_else(|_| Err(late.into())),
    }
}

/// Says it of what was given on the command line: of the flag, and of all of the time.
fn in_given_terms(error: Error, Time { whole, left }: Time, is_forced: bool) -> Error {
    match error {
        Error::Timeout(mut timeout) if timeout.after == left => {
            timeout.after = whole;
            Error::Timeout(timeout)
        }
        Error::Configuration(error) if error.field == "forceRegistration" => {
            named(given::FORCE.source(is_forced), "", Error::Configuration(error))
        }
        other => other,
    }
}
