//! The certificate that a registration asks for: a key and room for both before it, the chain that comes with it after.

use std::time::{Duration, SystemTime};

use dps_client::{
    CertificateFolder, CertificateRequest, Error, IssuedCertificates, PreparedFolder,
    RegistrationId, RegistrationRequest, RequestKey, StoredCertificate,
};
use dps_provisioner::Provisioner;
use serde::Serialize;

use crate::{
    clock,
    credential::{Credential, KeyPlace},
    given::wrong,
};

/// A request for a certificate, and the folder that waits for it.
pub(crate) struct Order {
    folder: CertificateFolder,
    prepared: PreparedFolder,
    key: RequestKey,
    renews: bool,
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
    /// When to try again, if another certificate is there.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    next_try: Option<NextTry>,
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
    /// Sees to it that storing is not likely to fail later, and takes the key that is given or makes one.
    pub(crate) fn prepare(
        folder: CertificateFolder,
        renews: bool,
        key: Option<RequestKey>,
    ) -> Result<Self, Error> {
        let prepared = folder.prepare()?;
        let key = key.map_or_else(RequestKey::generate, Ok)?;
        Ok(Self { folder, prepared, key, renews })
    }

    pub(crate) fn add_to(
        &self,
        request: RegistrationRequest,
    ) -> Result<RegistrationRequest, Error> {
        let csr = self.request(request.registration_id())?;
        Ok(request.certificate_request(csr))
    }

    /// What asks for the certificate.
    pub(crate) fn request(&self, id: &RegistrationId) -> Result<CertificateRequest, Error> {
        self.key.request(id)
    }

    /// Checks what came and stores it with the key. Whatever goes wrong, the device is assigned.
    pub(crate) fn fulfil(self, id: &RegistrationId, issued: &IssuedCertificates) -> Delivery {
        let renewed = self.renews.then(|| self.folder.clone());
        let mut delivery = self.deliver(id, issued);
        if delivery.message.is_some() {
            delivery.next_try = renewed.and_then(|folder| NextTry::of(&folder, None));
        }
        delivery
    }

    fn deliver(self, id: &RegistrationId, issued: &IssuedCertificates) -> Delivery {
        let Self { folder, prepared, key, .. } = self;
        let chain = match issued {
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
            next_try: None,
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
            next_try: None,
        }
    }

    /// The certificate of this device that is in the folder already, if there is one.
    pub(crate) fn in_use(folder: &CertificateFolder, id: &RegistrationId) -> Option<Self> {
        let stored = in_use(folder, id)?;
        let key_file = stored.key_pem().map(|_| folder.key_path().display().to_string());
        Some(Self {
            status: Status::Stored,
            chain_file: Some(folder.chain_path().display().to_string()),
            key_file,
            not_before: clock::rfc3339(stored.leaf().not_before),
            not_after: clock::rfc3339(stored.leaf().not_after),
            message: None,
            next_try: None,
        })
    }

    /// What is told of the folder of an assigned device that has no certificate in it, when none was asked for.
    pub(crate) fn awaited(folder: &CertificateFolder, device: &Provisioner) -> Option<Self> {
        if in_use(folder, &device.identity().registration_id).is_some() {
            return None;
        }
        let now = SystemTime::now();
        let left = device.certificate_put_off(now);
        let at = left.and_then(|left| clock::rfc3339(now.checked_add(left)?));
        let message = match at {
            Some(at) => format!(
                "there is no certificate: the last registration brought none, and the next one asks for it from {at} on"
            ),
            None => "there is no certificate, and no registration could ask for one".to_owned(),
        };
        Some(Self::failed(Status::Missing, &message))
    }

    pub(crate) fn is_stored(&self) -> bool {
        self.status == Status::Stored
    }

    /// What is wrong, unless the certificate is stored.
    pub(crate) fn failure(&self) -> Option<String> {
        let message = self.message.as_deref()?;
        let failure = match self.status {
            Status::Stored | Status::Missing => format!("the device is assigned, but {message}"),
            Status::Refused => {
                format!("the device is assigned, but its certificate is not taken: {message}")
            }
            Status::NotStored => {
                format!(
                    "the device is assigned, but its certificate could not be stored: {message}"
                )
            }
        };
        Some(match &self.next_try {
            Some(next_try) => format!("{failure}; {}", next_try.words()),
            None => failure,
        })
    }

    /// The same of a certificate that a hub has issued.
    pub(crate) fn failure_at_hub(&self) -> Option<String> {
        let failure = format!("the certificate is not renewed: {}", self.message.as_deref()?);
        Some(match &self.next_try {
            Some(next_try) => format!("{failure}; {}", next_try.words()),
            None => failure,
        })
    }

    /// The lines for people: where it is and until when it is valid.
    pub(crate) fn rows(&self) -> Vec<(&'static str, &str)> {
        let rows =
            [("chain", &self.chain_file), ("key", &self.key_file), ("not after", &self.not_after)];
        rows.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// The certificate of this device that is in the folder, if there is one.
pub(crate) fn in_use(folder: &CertificateFolder, id: &RegistrationId) -> Option<StoredCertificate> {
    let stored = folder.load().ok()?;
    stored.is_of(id).then_some(stored)
}

/// A certificate that is to be renewed.
pub(crate) struct Renewed {
    folder: String,
    stored: StoredCertificate,
}

impl Renewed {
    pub(crate) fn load(folder: &CertificateFolder) -> Result<Self, Error> {
        let stored = folder.load().map_err(|error| match error {
            Error::Configuration(mut error) => {
                error.reason.push_str("; `dps register --request-certificate` gets a new pair");
                Error::Configuration(error)
            }
            other => other,
        });
        Ok(Self { folder: folder.path().display().to_string(), stored: stored? })
    }

    /// The one that it was issued for.
    pub(crate) fn registration_id(&self) -> Result<RegistrationId, Error> {
        match &self.stored.leaf().common_name {
            Some(name) => name.parse(),
            None => Err(self.wrong("its certificate has no common name; give --registration-id")),
        }
    }

    /// The credentials that were given, or else the certificate itself. Where its key is not stored, that is the one that
    /// the new certificate is requested for.
    pub(crate) fn or_given(
        self,
        given: Vec<Credential>,
        request_key: Option<KeyPlace>,
    ) -> Result<Vec<Credential>, Error> {
        if !given.is_empty() {
            return Ok(given);
        }
        let not_after = self.stored.leaf().not_after;
        if not_after < SystemTime::now() {
            let at = clock::rfc3339(not_after).unwrap_or_default();
            return Err(self.wrong(&format!("its certificate expired at {at} and proves nothing any more; give the credential that the device was shipped with, like --symmetric-key-file, or set the clock if that is wrong")));
        }
        let key =
            match self.stored.key_pem() {
                Some(_) => None,
                None if request_key.is_some() => request_key,
                None => return Err(self.wrong(
                    "the certificate's key is not stored there; say with --request-key where it is",
                )),
            };
        Ok(vec![Credential::Stored(Box::new(self.stored), key.map(Box::new))])
    }

    fn wrong(&self, reason: &str) -> Error {
        wrong("DIR", &self.folder, reason)
    }
}

/// What holds after a renewal that failed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NextTry {
    try_next_at: Option<String>,
    #[serde(skip)]
    in_use_until: Option<String>,
}

impl NextTry {
    /// As the certificate says that is in the folder, and not before the service wants to be asked again. `None` when no
    /// certificate is there.
    pub(crate) fn of(folder: &CertificateFolder, retry_after: Option<Duration>) -> Option<Self> {
        let stored = folder.load().ok()?;
        let now = SystemTime::now();
        let wait = stored.next_try_after(now, retry_after.unwrap_or_default());
        let not_after = Some(stored.leaf().not_after).filter(|not_after| *not_after > now);
        Some(Self {
            try_next_at: clock::rfc3339(now.checked_add(wait)?),
            in_use_until: not_after.and_then(clock::rfc3339),
        })
    }

    pub(crate) fn words(&self) -> String {
        let at = self.try_next_at.as_deref().unwrap_or_default();
        match &self.in_use_until {
            Some(until) => {
                format!("the former certificate is valid until {until}; try again at {at}")
            }
            None => format!("the former certificate has expired; try again at {at}"),
        }
    }
}
