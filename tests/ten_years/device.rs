//! A device: what it has on its disk, and what its program does.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use dps_client::{
    Attestation, CertificateFolder, Config, Error, HubConfig, HubConnection, IssuedCertificates,
    Progress, RegistrationId, RegistrationRequest, RequestKey, Settings, Transport,
    client_with_fallback,
};
use dps_conformance::adjusted;
use dps_provisioner::{
    Assignment, AssignmentFile, Due, HubRefusal, Identity, NextStep, Provisioner,
};

use crate::clock;

pub(crate) struct Device {
    pub(crate) id: RegistrationId,
    pub(crate) transport: Transport,
    /// With the primary key.
    pub(crate) config: Config,
    pub(crate) secondary: Attestation,
    pub(crate) hub_port: u16,
    pub(crate) disk: PathBuf,
}

impl Device {
    /// What its program finds at a boot.
    pub(crate) fn boot(&self) -> Provisioner {
        let file = AssignmentFile::new(self.disk.join("assignment.json")).unwrap();
        let request = RegistrationRequest::new(self.id.clone());
        let provisioner = Provisioner::open(file, Identity::of(&self.config, &request)).unwrap();
        provisioner.certificate(self.folder())
    }

    pub(crate) fn due(&self) -> Option<Due> {
        self.boot().registration_due(clock::now())
    }

    pub(crate) fn assignment(&self) -> Option<Assignment> {
        self.boot().assignment().cloned()
    }

    fn folder(&self) -> CertificateFolder {
        CertificateFolder::open(self.disk.join("certificate")).unwrap()
    }

    /// Whether there is a certificate with its key.
    pub(crate) fn has_certificate(&self) -> bool {
        self.folder().load().is_ok_and(|stored| stored.identity().is_ok())
    }

    pub(crate) fn certificate_has_expired(&self) -> bool {
        self.folder().load().unwrap().leaf().not_after < clock::now()
    }

    /// Registers, asks for a certificate and stores both. Says which credential was taken.
    pub(crate) async fn register(&self) -> Result<usize, Error> {
        self.register_until(false).await
    }

    /// The same, but the power fails while the certificate is being stored.
    pub(crate) async fn register_until_the_power_fails(&self) -> Result<usize, Error> {
        self.register_until(true).await
    }

    async fn register_until(&self, power_fails: bool) -> Result<usize, Error> {
        let mut provisioner = self.boot();
        let key = RequestKey::generate()?;
        let prepared = self.folder().prepare()?;
        let request = RegistrationRequest::new(self.id.clone());
        let request = request.certificate_request(key.request(&self.id)?);
        let secondary = [self.secondary.clone()];
        let config = self.config.clone();
        // Nobody waits for a poll: what takes its time in ten years is moved by the clock of the test.
        let settings = adjusted(Settings::default(), |settings| {
            settings.poll_floor = Duration::from_millis(1);
        });
        let client = client_with_fallback(self.transport, config, secondary, settings)?;
        let registered =
            provisioner.register(&client, request, Some(self.transport), clock::now).await;
        let registered = registered.map(|assignment| assignment.result.clone());
        client.end_session().await?;
        let result = registered?;
        let IssuedCertificates::Issued(certificates) = &result.certificates else {
            panic!("no certificate came: {:?}", result.certificates);
        };
        let chain = key.verify(certificates, &self.id, clock::now())?;
        if power_fails {
            self.freeze_the_disk_half_written(&chain.to_pem());
            drop(prepared);
            self.thaw_the_disk();
        } else {
            let key = key.to_pem();
            prepared.store(&chain.to_pem(), key.as_ref().map(|key| key.as_str()))?;
        }
        Ok(result.credential)
    }

    /// Keeps the disk as it is when the power fails: half of the chain is written.
    fn freeze_the_disk_half_written(&self, chain: &str) {
        let pairs = self.disk.join("certificate/pairs");
        let newest = fs::read_dir(&pairs).unwrap().map(|entry| entry.unwrap().path());
        let newest = newest.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
        fs::write(newest.unwrap().join("chain.pem"), &chain[..chain.len() / 2]).unwrap();
        self.copy("certificate", "frozen");
    }

    fn thaw_the_disk(&self) {
        fs::remove_dir_all(self.disk.join("certificate")).unwrap();
        self.copy("frozen", "certificate");
        fs::remove_dir_all(self.disk.join("frozen")).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        let mut copy = Command::new("cp");
        let copy = copy.arg("-a").arg(self.disk.join(from)).arg(self.disk.join(to));
        assert!(copy.status().unwrap().success(), "{from} to {to}");
    }

    /// Connects to its hub with its certificate, once. A refusal leads to what the recovery policy says.
    pub(crate) async fn connect(&self) -> Result<(), (Error, NextStep)> {
        let mut provisioner = self.boot();
        let result = provisioner.assignment().unwrap().result.clone();
        let mut config = self.config.clone();
        config.attestation = self.folder().load().unwrap().identity().unwrap().into();
        config.endpoint = format!("localhost:{}", self.hub_port).parse().unwrap();
        let hub = HubConfig::new(config, result.assigned_hub, result.device_id);
        match HubConnection::open(&hub, &self.id, &Progress::default()).await {
            Ok(connection) => {
                connection.close().await;
                provisioner.report_connected();
                Ok(())
            }
            Err(error) => {
                let refusal = HubRefusal::of(&error).unwrap();
                let next = provisioner.report(refusal, clock::now());
                Err((error, next))
            }
        }
    }
}

/// How long the policy lets the device wait at most before it registers after the first refusal.
pub(crate) const LONGEST_FIRST_WAIT: Duration = Duration::from_secs(300 + 75);
