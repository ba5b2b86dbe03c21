//! What a command does of all that a registration can.

use dps_client::{CertificateFolder, Endpoint, Error};
use dps_provisioner::{AssignmentFile, Provisioner};

use super::Arguments;
use crate::{
    config::Found,
    given::{self, named, wrong},
    handover, kept,
};

/// What a command does of all that a registration can.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(super) is_emulated: bool,
    /// The folder for the certificate that is asked for.
    pub(super) folder: Option<CertificateFolder>,
    /// Whether the one that is there is renewed, and is the credential if none is given.
    pub(super) renews: bool,
    /// Whether the device connects to its hub, and where that is if it was said.
    pub(super) connects: Option<Option<Endpoint>>,
    /// The hub that renews it, in place of the service, and the device's id there.
    pub(super) hub: Option<(String, Option<String>)>,
    /// Where the assignment is kept.
    pub(super) state: Option<AssignmentFile>,
    /// What another program gets.
    pub(super) handover: Option<handover::Plan>,
    /// What is set, when that is to be checked and nothing else to be done.
    pub(super) found: Option<Found>,
    /// Whether the service is only asked what it keeps of the device.
    pub(super) looks_up: bool,
    /// Whether the device is kept registered, by the agent, until that is told to end.
    pub(super) is_kept: bool,
}

impl Plan {
    /// To ask for a new certificate in place of the one in this folder.
    pub(crate) fn renew(
        folder: CertificateFolder,
        state: Option<AssignmentFile>,
        handover: Option<handover::Plan>,
    ) -> Self {
        Self { folder: Some(folder), renews: true, state, handover, ..Self::default() }
    }

    /// To ask the service what it keeps of the device.
    pub(crate) fn look_up() -> Self {
        Self { looks_up: true, ..Self::default() }
    }

    /// To keep the device registered.
    pub(crate) fn agent(
        state: AssignmentFile,
        folder: Option<CertificateFolder>,
        handover: Option<handover::Plan>,
    ) -> Self {
        Self { state: Some(state), folder, is_kept: true, handover, ..Self::default() }
    }

    /// To ask a hub for it, under this device id or else the registration id, at this place or else under its name.
    pub(crate) fn at_hub(
        self,
        hub: String,
        device_id: Option<String>,
        endpoint: Option<Endpoint>,
    ) -> Self {
        Self { hub: Some((hub, device_id)), connects: Some(endpoint), ..self }
    }

    /// The device of the file, which registers for its certificate too.
    pub(super) fn watched(&self, device: Provisioner) -> Provisioner {
        match &self.folder {
            Some(folder) => device.certificate(folder.clone()),
            None => device,
        }
    }

    /// Whether nothing but the result is written.
    pub(super) fn writes_nothing(&self) -> bool {
        !self.is_emulated
            && self.folder.is_none()
            && self.state.is_none()
            && self.handover.is_none()
    }

    /// The folder whose certificate is renewed.
    pub(super) fn renewed(&self) -> Option<&CertificateFolder> {
        self.folder.as_ref().filter(|_| self.renews)
    }
}

impl Arguments {
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        let plan = self.parts()?;
        if self.hub_endpoint.is_some() && plan.connects.is_none() {
            return Err(wrong(given::HUB_ENDPOINT.flag, "", "it needs --connect too"));
        }
        Ok(plan)
    }

    /// What is kept and written.
    pub(super) fn parts(&self) -> Result<Plan, Error> {
        let folder = given::REQUEST_CERTIFICATE.find(self.request_certificate.as_ref())?;
        let folder = folder.map(|given| {
            CertificateFolder::open(&given.text).map_err(|error| named(given.from, "", error))
        });
        let is_emulated = self.is_emulated()?;
        let connects = given::CONNECT.is_on(self.connect)?.then_some(self.hub()?);
        let json = given::JSON.is_on(self.registration.json)?;
        let handover = self.handover.plan(json)?;
        let state = if is_emulated { None } else { kept::file(self.state.as_ref())? };
        Ok(Plan {
            is_emulated,
            folder: folder.transpose()?,
            connects,
            state,
            handover,
            ..Plan::default()
        })
    }

    /// Where the hub is, if it was said.
    pub(super) fn hub(&self) -> Result<Option<Endpoint>, Error> {
        let given = given::HUB_ENDPOINT.find(self.hub_endpoint.as_ref())?;
        given.map(|given| given.parse()).transpose()
    }

    fn is_emulated(&self) -> Result<bool, Error> {
        let registration = &self.registration;
        let flags = [
            ("--endpoint", registration.endpoint.is_some()),
            ("--ca-file", registration.ca_file.is_some()),
            ("--platform-roots", registration.platform_roots),
            ("--proxy", registration.proxy.is_some()),
        ];
        let is_on = given::EMULATOR.is_on(self.emulator)?;
        match flags.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) if is_on => {
                Err(wrong(given::EMULATOR.variable, "", &format!("it does not go with {flag}")))
            }
            _ => Ok(is_on),
        }
    }
}
