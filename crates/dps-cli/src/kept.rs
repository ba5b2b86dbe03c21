//! `--state` of `dps register`: the assignment that is stored, and what a hub that refuses the device leads to.

use std::time::SystemTime;

use dps_client::{
    Client, Endpoint, Error, ErrorKind, RegistrationRequest, RegistrationResult, TransportChoice,
};
use dps_provisioner::{Assignment, AssignmentFile, HubRefusal, Identity, NextStep, Provisioner};
use serde::Serialize;

use crate::{
    clock,
    given::{self, Given, named},
    report::{ErrorJson, whole_seconds},
};

/// Where a result of `--state` comes from.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) source: Source,
    pub(crate) stored_at: SystemTime,
    /// Why it is not in the file.
    pub(crate) not_stored: Option<String>,
    /// Why the registration failed that was due.
    pub(crate) registration_error: Option<Box<ErrorJson>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Source {
    Stored,
    Registered,
}

/// What to do after the hub was tried, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Next {
    next_step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_seconds: Option<u64>,
}

impl Kept {
    pub(crate) fn new(assignment: &Assignment, source: Source) -> Self {
        Self { source, stored_at: assignment.stored_at, not_stored: None, registration_error: None }
    }

    pub(crate) fn stored_at(&self) -> Option<String> {
        clock::rfc3339(self.stored_at)
    }
}

impl Next {
    /// What the table says, which counts it.
    pub(crate) fn after(device: &mut Provisioner, refusal: HubRefusal) -> Self {
        let (next_step, after) = match device.report(refusal, SystemTime::now()) {
            NextStep::ConnectToHub { after } => ("connectToHub", Some(after)),
            NextStep::Register { after } => ("register", Some(after)),
            NextStep::Stop => ("stop", None),
        };
        Self { next_step, after_seconds: after.map(whole_seconds) }
    }

    pub(crate) fn words(&self) -> String {
        let after = self.after_seconds.unwrap_or_default();
        match self.next_step {
            "connectToHub" => format!("connect again in {after} s"),
            "register" => format!("from {after} s on the same command registers again"),
            _ => "nothing more is tried by itself".to_owned(),
        }
    }
}

/// The file that `--state` names.
pub(crate) fn file(flag: Option<&String>) -> Result<Option<AssignmentFile>, Error> {
    let named = |Given { from, text }: Given| {
        AssignmentFile::new(text).map_err(|error| named(from, "", error))
    };
    match flag {
        // An empty flag is a mistake, an empty variable counts as unset.
        Some(text) => named(Given { from: given::STATE.flag, text: text.clone() }).map(Some),
        None => given::STATE.find(None)?.map(named).transpose(),
    }
}

/// The device of the file. Its registration id need not be given where a TPM has it: then it is the one that is stored.
/// `None` when there is neither.
pub(crate) fn open(
    file: &AssignmentFile,
    device: &given::Device,
    endpoint: Option<Endpoint>,
) -> Result<Option<Provisioner>, Error> {
    let endpoint = endpoint.unwrap_or_default();
    let (Some(id_scope), id) = device.find()? else { return Ok(None) };
    let registration_id = match id {
        Some(id) => id,
        None => {
            let stored = file.load()?.map(|assignment| assignment.identity);
            let fits = |it: &Identity| it.id_scope == id_scope && it.endpoint == endpoint;
            let Some(stored) = stored.filter(fits) else { return Ok(None) };
            stored.registration_id
        }
    };
    let identity = Identity { id_scope, registration_id, endpoint };
    Provisioner::open(file.clone(), identity).map(Some)
}

/// The stored result, unless a registration is due.
pub(crate) fn stored(device: &Provisioner) -> Option<&Assignment> {
    device.assignment().filter(|_| device.registration_due(SystemTime::now()).is_none())
}

/// Whether a stored assignment stands in for a registration that failed so: nobody said anything against the device.
pub(crate) fn stands_in_for(error: &Error) -> bool {
    let kind = error.kind();
    // What answers nonsense may be any network's, like a page to log in.
    error.is_retryable() || matches!(kind, ErrorKind::Connection | ErrorKind::Protocol)
}

/// Registers and keeps what comes.
pub(crate) async fn register(
    device: &mut Provisioner,
    client: &Client,
    request: RegistrationRequest,
    transport: TransportChoice,
) -> Result<(RegistrationResult, Kept), Error> {
    let assignment = device.register(client, request, transport.fixed(), SystemTime::now).await?;
    let assignment = assignment.clone();
    let mut kept = Kept::new(&assignment, Source::Registered);
    kept.not_stored = device.not_stored().map(ToString::to_string);
    Ok((assignment.result, kept))
}
