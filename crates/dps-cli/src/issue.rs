//! The certificate that a registration asks for: a key and room for both before it, the chain that comes with it after.

use std::time::SystemTime;

use dps_client::{
    CertificateFolder, Error, IssuedCertificates, PreparedFolder, RegistrationId,
    RegistrationRequest, RegistrationResult, RequestKey,
};
use serde::Serialize;

use crate::clock;

/// A request for a certificate, and the folder that waits for it.
pub(crate) struct Order {
    folder: CertificateFolder,
    prepared: PreparedFolder,
    key: RequestKey,
}

/// What became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    status: Status,
    chain_file: Option<String>,
    key_file: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    /// What is wrong and what to do, unless it is stored.
    message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Stored,
    /// None came.
    Missing,
    /// What came is no chain for this device and this key.
    Refused,
    /// The chain is good and could not be stored.
    NotStored,
}

impl Order {
    /// Makes a key, and sees to it that storing is not likely to fail later.
    pub(crate) fn prepare(folder: CertificateFolder) -> Result<Self, Error> {
        let prepared = folder.prepare()?;
        Ok(Self { folder, prepared, key: RequestKey::generate()? })
    }

    pub(crate) fn add_to(
        &self,
        request: RegistrationRequest,
    ) -> Result<RegistrationRequest, Error> {
        let csr = self.key.request(request.registration_id())?;
        Ok(request.certificate_request(csr))
    }

    /// Checks what came and stores it with the key. Whatever goes wrong, the device is assigned.
    pub(crate) fn fulfil(self, id: &RegistrationId, registered: &RegistrationResult) -> Delivery {
        let Self { folder, prepared, key } = self;
        let chain = match &registered.certificates {
            IssuedCertificates::Issued(chain) => chain,
            IssuedCertificates::Unreadable { reason } => {
                return Delivery::failed(Status::Refused, reason);
            }
            _ => return Delivery::failed(Status::Missing, NO_POLICY),
        };
        let issued = match key.verify(chain, id, SystemTime::now()) {
            Ok(issued) => issued,
            Err(error) => return Delivery::failed(Status::Refused, &error.to_string()),
        };
        let key = key.to_pem();
        if let Err(error) = prepared.store(&issued.to_pem(), key.as_ref().map(|key| key.as_str())) {
            return Delivery::failed(Status::NotStored, &error.to_string());
        }
        Delivery {
            status: Status::Stored,
            chain_file: Some(folder.chain_path().display().to_string()),
            key_file: key.map(|_| folder.key_path().display().to_string()),
            not_before: clock::rfc3339(issued.not_before()),
            not_after: clock::rfc3339(issued.not_after()),
            message: None,
        }
    }
}

const NO_POLICY: &str = "no certificate came: the enrollment has no policy for issuing certificates; give it one and register again";

impl Delivery {
    fn failed(status: Status, message: &str) -> Self {
        Self {
            status,
            chain_file: None,
            key_file: None,
            not_before: None,
            not_after: None,
            message: Some(message.to_owned()),
        }
    }

    /// What is wrong, unless the certificate is stored.
    pub(crate) fn failure(&self) -> Option<String> {
        let message = self.message.as_deref()?;
        Some(match self.status {
            Status::Stored | Status::Missing => format!("the device is assigned, but {message}"),
            Status::Refused => {
                format!("the device is assigned, but its certificate is not taken: {message}")
            }
            Status::NotStored => {
                format!(
                    "the device is assigned, but its certificate could not be stored: {message}"
                )
            }
        })
    }

    /// The lines for people: where it is and until when it is valid.
    pub(crate) fn rows(&self) -> Vec<(&'static str, &str)> {
        let rows =
            [("chain", &self.chain_file), ("key", &self.key_file), ("not after", &self.not_after)];
        rows.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}
