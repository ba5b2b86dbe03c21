//! From flags, variables and files to a client, its request and what surrounds them: all that is needed, read and checked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dps_client::{
    Attestation, Client, Config, Endpoint, Error, IdScope, Json, NoProxy, Proxy, ProxyChoice,
    RegistrationId, RegistrationRequest, RequestKey, Roots, Settings, TransportChoice,
    client_with_fallback,
};
use dps_provisioner::{Identity, Provisioner};

use super::{Plan, Registration};
use crate::{
    advice::Advice,
    connect,
    credential::{self, Credential, KeyPlace},
    embedded::{self, Emulator},
    files::{Deadline, Source},
    given::{self, Given, named, wrong},
    handover,
    issue::{Order, Renewed},
    kept,
    progress::Progress,
    proof::Proofs,
    report::Context,
    seconds::Seconds,
};

const TIMEOUT: Seconds = Seconds { zero: false, at_most: Duration::from_secs(24 * 3600) };
/// The time for the whole registration if nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_FLOOR: Seconds = Seconds { zero: true, at_most: Duration::from_secs(3600) };

/// What is wrong with the key for a certificate that is not asked for.
pub(super) const NO_FOLDER: &str = "it needs --request-certificate too";

/// All that is needed, read and checked.
pub(super) struct Prepared {
    pub(super) client: Client,
    pub(super) credentials: usize,
    pub(super) request: RegistrationRequest,
    /// Its assignment is kept in a file.
    pub(super) device: Option<Provisioner>,
    /// Whether it is to register whatever is stored.
    pub(super) is_told: bool,
    /// Whether it is to register, and not to have what is stored.
    pub(super) is_due: bool,
    /// Why it can't register for now, when an assignment is stored.
    pub(super) locked: Option<Error>,
    pub(super) order: Option<Order>,
    pub(super) hub: Option<connect::Plan>,
    /// How the service is asked what it keeps, by each credential.
    pub(super) look_up: Option<Vec<Config>>,
    pub(super) handover: Option<handover::Ready>,
    /// By what the device proves itself at its hub.
    pub(super) proofs: Proofs,
    /// The key that certificates are requested for, if it was given.
    pub(super) request_key: Option<RequestKey>,
    pub(super) time: Time,
    /// Serves for as long as it is kept.
    pub(super) _emulator: Option<Emulator>,
}

/// The time for the whole registration, and what is left of it once all is prepared.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) whole: Duration,
    pub(super) left: Duration,
}

impl Registration {
    pub(super) async fn prepare(
        &self,
        plan: Plan,
        transport: TransportChoice,
        progress: &Arc<Progress>,
        context: &mut Context,
    ) -> Result<Prepared, Error> {
        let timeout = self.timeout()?;
        // The agent may come here several times.
        let start = if plan.is_kept { Instant::now() } else { progress.start() };
        let deadline = Deadline { at: (start + timeout).into(), after: timeout };
        let poll_floor = given::POLL_FLOOR.find(self.poll_floor.as_ref())?;
        let poll_floor = poll_floor.map(|given| POLL_FLOOR.parse(&given)).transpose()?;
        let mut settings = Settings::default();
        let request_key = self.credential.aside(deadline, credential::Flags::request_key).await?;
        let mut others = Vec::new();
        let mut given = Vec::new();
        let mut tpm = None;
        let (mut config, registration_id, emulator) = if plan.is_emulated {
            let (id_scope, registration_id) = self.device.find()?;
            settings.poll_floor = embedded::POLL_FLOOR;
            let embedded = embedded::start(id_scope, registration_id, transport).await?;
            (embedded.config, embedded.registration_id, Some(embedded.emulator))
        } else {
            let renewed = plan.renewed().map(Renewed::load).transpose()?;
            let (id_scope, id) = if plan.hub.is_some() {
                // A hub has none.
                let (id_scope, id) = self.device.find()?;
                (id_scope.map_or_else(|| "0ne".parse(), Ok)?, id)
            } else {
                match renewed.is_some() || self.credential.has_tpm()? {
                    true => self.device.require_id_scope()?,
                    false => self.device.require().map(|(id_scope, id)| (id_scope, Some(id)))?,
                }
            };
            let (credentials, id) = match renewed {
                Some(renewed) => {
                    let id = id.map_or_else(|| renewed.registration_id(), Ok)?;
                    let given = self.credential.aside(deadline, |flags| flags.find(true)).await?;
                    (renewed.or_given(given, request_key.clone())?, Some(id))
                }
                None => (self.credential.aside(deadline, credential::Flags::choose).await?, id),
            };
            let id = match (id, credentials.first()) {
                // A check makes no keys in a TPM, whose name nobody knows then.
                (id, Some(Credential::Tpm(_))) if plan.found.is_some() => {
                    self.credential.ensure_tpm_there()?;
                    id.map_or_else(|| "tpm".parse(), Ok)?
                }
                (None, Some(Credential::Tpm(tpm))) => match tpm.keys().await {
                    Ok(keys) => keys.registration_id()?,
                    // What is stored can be handed over without it.
                    Err(error) => self.stored_id(&plan)?.ok_or(error)?,
                },
                (id, _) => id.map_or_else(|| self.device.require().map(|(_, id)| id), Ok)?,
            };
            if let Some(Credential::Tpm(own)) = credentials.first() {
                tpm = Some(own.clone());
            }
            context.registration_id = Some(id.to_string());
            let config;
            let key = request_key.as_ref();
            (config, others) =
                self.config(id_scope, &id, &credentials, key, deadline, context).await?;
            given = credentials;
            (config, id, None)
        };
        config.pipelined = !given::STEP_BY_STEP.is_on(self.step_by_step)?;
        context.registration_id = Some(registration_id.to_string());
        context.endpoint = Some(config.endpoint.to_string());
        let request = self.request(registration_id, deadline).await?;
        let device = plan.state.as_ref().map(|file| {
            let device = Provisioner::open(file.clone(), Identity::of(&config, &request))?;
            Ok::<_, Error>(plan.watched(device))
        });
        let device = device.transpose()?;
        let has_assignment = device.as_ref().is_some_and(|device| device.assignment().is_some());
        // Dates that are wrong now are judged at each registration then, and nothing waits for that.
        if plan.found.is_some() || (!has_assignment && !plan.is_kept) {
            for (credential, read) in
                given.iter().zip([&config.attestation].into_iter().chain(&others))
            {
                credential.check(read, request.registration_id())?;
            }
        }
        let key_place = request_key;
        let request_key = match &key_place {
            Some(place) if plan.folder.is_none() => {
                return Err(place.source().wrong(NO_FOLDER));
            }
            Some(place) => Some(place.request_key(deadline).await?),
            None => None,
        };
        // The agent makes each of its requests itself, and a check makes none.
        let is_told = request.is_forced() || plan.renews;
        let is_due = is_told || device.as_ref().and_then(kept::stored).is_none();
        let orders = is_due && !plan.is_kept && plan.found.is_none();
        let order = plan.folder.clone().filter(|_| orders);
        let order = order.map(|folder| Order::prepare(folder, plan.renews, request_key.clone()));
        let (order, locked) = match order.transpose() {
            Err(error) if error.is_retryable() && has_assignment => (None, Some(error)),
            order => (order?, None),
        };
        let request = match &order {
            Some(order) => order.add_to(request)?,
            None => request,
        };
        let time = Time { whole: timeout, left: timeout.saturating_sub(start.elapsed()) };
        settings.request_timeout = settings.request_timeout.min(time.left);
        settings.registration_timeout = time.left;
        settings.poll_floor = poll_floor.unwrap_or(settings.poll_floor);
        let credentials = others.len() + 1;
        let at_hub = tpm.map_or_else(
            || config.attestation.clone(),
            |tpm| Attestation::from_signer(tpm.stored_key()),
        );
        let attestations: Vec<_> = [at_hub.clone()].into_iter().chain(others.clone()).collect();
        let device = device.map(|device| device.credentials(attestations.clone()));
        let proofs = Proofs::new(attestations, &given, plan.folder, key_place);
        let handover = plan.handover.map(|handover| handover.ready(&proofs));
        let handover = handover.transpose()?;
        let hub = plan.connects.map(|endpoint| {
            let embedded = emulator.as_ref().map(embedded::mqtt_endpoint);
            let mut config = config.clone();
            config.attestation = at_hub;
            connect::Plan::new(config, transport, endpoint, embedded)
        });
        let look_up = plan.looks_up.then(|| {
            let others = others.iter().map(|attestation| {
                let mut config = config.clone();
                config.attestation = attestation.clone();
                config
            });
            [config.clone()].into_iter().chain(others).collect()
        });
        let worked = device.as_ref().and_then(|device| device.assignment()?.transport);
        let transport = transport.preferring(worked);
        let client = client_with_fallback(transport, config, others, settings)?;
        client.observe(progress.observer());
        let _emulator = emulator;
        Ok(Prepared {
            client,
            credentials,
            request,
            device,
            is_told,
            is_due,
            locked,
            order,
            hub,
            look_up,
            handover,
            proofs,
            request_key,
            time,
            _emulator,
        })
    }

    /// The device whose assignment is kept in a file.
    pub(super) fn stored_device(&self, plan: &Plan) -> Result<Option<Provisioner>, Error> {
        let Some(file) = &plan.state else { return Ok(None) };
        kept::open(file, &self.device, Some(self.endpoint()?))
    }

    /// Who the stored assignment is of.
    fn stored_id(&self, plan: &Plan) -> Result<Option<RegistrationId>, Error> {
        let stored = self.stored_device(plan)?;
        Ok(stored.map(|device| device.identity().registration_id.clone()))
    }

    pub(super) fn timeout(&self) -> Result<Duration, Error> {
        let given = given::TIMEOUT.find(self.timeout.as_ref())?;
        given.map_or(Ok(DEFAULT_TIMEOUT), |given| TIMEOUT.parse(&given))
    }

    pub(super) async fn config(
        &self,
        id_scope: IdScope,
        registration_id: &RegistrationId,
        credentials: &[Credential],
        request_key: Option<&KeyPlace>,
        deadline: Deadline,
        context: &mut Context,
    ) -> Result<(Config, Vec<Attestation>), Error> {
        let ca_file = given::CA_FILE.file(self.ca_file.as_ref())?;
        let payload_file = self.payload()?.and_then(|payload| payload_file(&payload));
        let files = credentials.iter().flat_map(Credential::files);
        let files = files.chain(&ca_file).chain(&payload_file);
        let files = files.chain(request_key.map(KeyPlace::source));
        only_one_reads_stdin(files)?;
        let (endpoint, proxy) = (self.endpoint()?, self.proxy()?);
        let platform_roots = given::PLATFORM_ROOTS.is_on(self.platform_roots)?;
        context.endpoint = Some(endpoint.to_string());
        context.advice = Advice {
            names_flags: true,
            has_proxy: proxy.is_some(),
            has_platform_roots: platform_roots,
            credential: credentials.first().map(Into::into),
        };
        let roots = self.roots(deadline).await?;
        let mut attestations = Vec::new();
        for credential in credentials {
            attestations.push(credential.read(registration_id, deadline).await?);
        }
        let mut attestations = attestations.into_iter();
        let Some(first) = attestations.next() else {
            return Err(wrong("credential", "", "none was given"));
        };
        let mut config = Config::new(id_scope, first);
        config.roots = roots;
        config.endpoint = endpoint;
        if let Some(proxy) = proxy {
            config.proxy = proxy;
        }
        Ok((config, attestations.collect()))
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, Error> {
        let given = given::ENDPOINT.find(self.endpoint.as_ref())?;
        given.map_or_else(|| Ok(Endpoint::default()), |given| given.parse())
    }

    pub(super) fn proxy(&self) -> Result<Option<ProxyChoice>, Error> {
        given::PROXY.find(self.proxy.as_ref())?.map(|given| proxy(&given)).transpose()
    }

    pub(super) async fn roots(&self, deadline: Deadline) -> Result<Roots, Error> {
        let platform = given::PLATFORM_ROOTS;
        let roots = match platform.is_on(self.platform_roots)? {
            true => Roots::platform().map_err(|error| named(platform.flag, "", error))?,
            false => Roots::default(),
        };
        let Some(file) = given::CA_FILE.file(self.ca_file.as_ref())? else { return Ok(roots) };
        let pem = file.read_until(deadline).await?;
        roots.with_pem(&pem).map_err(|error| named(file.from, &file.path, error))
    }

    pub(super) async fn request(
        &self,
        registration_id: RegistrationId,
        deadline: Deadline,
    ) -> Result<RegistrationRequest, Error> {
        let force = given::FORCE.is_on(self.force)?;
        let mut request = RegistrationRequest::new(registration_id).force_registration(force);
        if let Some(given) = self.payload()? {
            // What a message repeats: the text itself, or the name of the file.
            let (payload, shown) = match payload_file(&given) {
                Some(file) => (file.text_until(deadline).await?.parse::<Json>(), file.path),
                None => (given.text.parse(), given.text.clone()),
            };
            request =
                payload.and_then(|payload| request.payload(payload)).map_err(
                    |error| match error {
                        Error::Configuration(error) => wrong(given.from, &shown, &error.reason),
                        other => other,
                    },
                )?;
        }
        if self.model_id.as_ref().is_some_and(String::is_empty) {
            let reason = "it is empty; give one like dtmi:example:Pump;1";
            return Err(wrong(given::MODEL_ID.flag, "", reason));
        }
        if let Some(model_id) = given::MODEL_ID.find(self.model_id.as_ref())? {
            request = request.model_id(model_id.text);
        }
        let payload = given::PAYLOAD.source(self.payload.is_some());
        request.check().map_err(|error| named(payload, "", error))?;
        Ok(request)
    }

    pub(super) fn payload(&self) -> Result<Option<Given>, Error> {
        given::PAYLOAD.find(self.payload.as_ref())
    }
}

/// The file that holds the payload, if it is in one.
pub(super) fn payload_file(payload: &Given) -> Option<Source> {
    Some(Source::new(payload.from, payload.text.strip_prefix('@')?))
}

fn proxy(given: &Given) -> Result<ProxyChoice, Error> {
    if given.text == "env" {
        return Ok(ProxyChoice::Environment);
    }
    Ok(given.parse::<Proxy>()?.except(NoProxy::from_environment()).into())
}

pub(super) fn only_one_reads_stdin<'a>(
    files: impl Iterator<Item = &'a Source>,
) -> Result<(), Error> {
    let mut readers = files.filter(|file| file.is_stdin());
    match (readers.next(), readers.next()) {
        (Some(first), Some(second)) => Err(second
            .wrong(&format!("standard input can be read once only, and {} reads it", first.from))),
        _ => Ok(()),
    }
}
