//! `dps config check`: all that a registration needs, read and checked without the network.

use std::process::ExitCode;

use dps_client::{Error, Transport};

use super::{Arguments, Plan};
use crate::{
    config::Found,
    files::Source,
    given::{self, Given, wrong},
    handover,
};

impl Arguments {
    /// Reads and checks all that a registration needs, and prints what was found.
    pub(crate) fn check(&self, found: Found) -> ExitCode {
        self.registration.run(|| {
            let plan = self.plan()?;
            self.ensure_carried()?;
            self.ensure_places(&plan)?;
            Ok(Plan { found: Some(found), ..plan })
        })
    }

    /// The transport has a way to say what is asked for, which it says itself only when it is asked.
    fn ensure_carried(&self) -> Result<(), Error> {
        let by_mqtt = matches!(
            self.registration.transport()?.fixed(),
            Some(Transport::Mqtt | Transport::MqttWs)
        );
        if by_mqtt && given::FORCE.is_on(self.registration.force)? {
            let from = given::FORCE.source(self.registration.force);
            return Err(wrong(from, "true", "MQTT can't carry it; http, amqp and amqp-ws can"));
        }
        Ok(())
    }

    /// What the registration writes can be written. Nothing is left there, and no folder is made.
    pub(super) fn ensure_places(&self, plan: &Plan) -> Result<(), Error> {
        let place =
            |Given { from, text }| handover::ensure_place(&Source { from, path: text }, false);
        if plan.state.is_some() {
            given::STATE.find(self.state.as_ref())?.map_or(Ok(()), place)?;
        }
        if let Some(folder) = &plan.folder
            && let Some(mut given) =
                given::REQUEST_CERTIFICATE.find(self.request_certificate.as_ref())?
        {
            if folder.path().exists() {
                given.text = folder.chain_path().display().to_string();
            }
            place(given)?;
        }
        Ok(())
    }
}
