//! What a program needs to register by a device's file.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use dps_attestation::{Attestation, GroupKey, SymmetricKey, X509Identity};
use dps_connect::{Config, NoProxy, Proxy, ProxyChoice, Roots};
use dps_state_machine::{
    ConfigurationError, Error, Json, RegistrationId, RegistrationRequest, Settings,
};
use zeroize::Zeroizing;

use super::{DeviceFile, FileValue, wrong_file};
use crate::{Client, Transport, TransportChoice, client_with_fallback};

impl DeviceFile {
    /// A client of the transport, the credentials, the way out and the times that the file gives. What it leaves out is as
    /// it is for [`Config`] and [`Settings`], and the transport is HTTP. Files that it names are read now.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the line of what can't be used.
    pub fn client(&self) -> Result<Client, Error> {
        let transport = self.transport()?;
        let mut credentials = self.credentials()?.into_iter();
        let Some(first) = credentials.next() else {
            let reason =
                "it names no credential; give symmetric-key-file, group-key-file, or cert with key";
            return Err(wrong_file(&self.path, reason));
        };
        client_with_fallback(transport, self.config(first)?, credentials, self.settings()?)
    }

    /// The transport; HTTP if none is given.
    ///
    /// # Errors
    /// [`Error::Configuration`]: it is not compiled in.
    pub fn transport(&self) -> Result<TransportChoice, Error> {
        let Some(value) = self.get("transport") else { return Ok(Transport::Http.into()) };
        let transport: TransportChoice = value.text().parse()?;
        transport.ensure_built().map_err(|error| value.named(error))?;
        Ok(transport)
    }

    /// The name of the device.
    ///
    /// # Errors
    /// [`Error::Configuration`]: there is none.
    pub fn registration_id(&self) -> Result<RegistrationId, Error> {
        self.require("registration-id")?.text().parse()
    }

    /// The request, with payload and model id.
    ///
    /// # Errors
    /// [`Error::Configuration`] of the id or the payload.
    pub fn request(&self) -> Result<RegistrationRequest, Error> {
        let force = self.get("force").is_some_and(FileValue::is_on);
        let mut request =
            RegistrationRequest::new(self.registration_id()?).force_registration(force);
        if let Some(value) = self.get("payload") {
            let json = match value.text().strip_prefix('@') {
                Some(file) => value.text_of(file)?.parse::<Json>(),
                None => value.text().parse(),
            };
            request =
                json.and_then(|json| request.payload(json)).map_err(|error| value.named(error))?;
        }
        if let Some(value) = self.get("model-id") {
            request = request.model_id(value.text());
        }
        request.check()?;
        Ok(request)
    }

    /// The credentials that files hold, in the order in which they are tried: symmetric keys, the key of a group, or
    /// certificates with their keys. One in a TPM or a token is made by the program itself, which gives it to
    /// [`Self::config`].
    ///
    /// # Errors
    /// [`Error::Configuration`] of a file that can't be read or used, or of a credential that is in no file.
    pub fn credentials(&self) -> Result<Vec<Attestation>, Error> {
        let mut credentials = Vec::new();
        let mut kinds = Vec::new();
        if let Some(value) = self.get("symmetric-key-file") {
            kinds.push("symmetric-key-file");
            for path in &value.texts {
                let key = value.text_of(path)?.parse::<SymmetricKey>();
                credentials.push(key.map_err(|error| value.of_file(path, error))?.into());
            }
        }
        if let Some(value) = self.get("group-key-file") {
            kinds.push("group-key-file");
            let group = value.text_of(value.text())?.parse::<GroupKey>();
            let group = group.map_err(|error| value.of_file(value.text(), error))?;
            credentials.push(group.derive(&self.registration_id()?).into());
        }
        match (self.get("cert"), self.get("key")) {
            (None, None) => {}
            (Some(cert), None) => return Err(cert.wrong("", "it needs key too")),
            (None, Some(key)) => return Err(key.wrong("", "it needs cert too")),
            (Some(cert), Some(key)) if cert.texts.len() != key.texts.len() => {
                let (all, of) = (cert.texts.len(), key.texts.len());
                let reason = format!("there are {all} of it and {of} of key; give one for each");
                return Err(cert.wrong("", &reason));
            }
            (Some(cert), Some(key)) => {
                kinds.push("cert");
                for (chain, private) in cert.texts.iter().zip(&key.texts) {
                    credentials.push(self.certificate((cert, chain), (key, private))?);
                }
            }
        }
        if let Some(tpm) = self.get("tpm").filter(|_| kinds.is_empty()) {
            return Err(tpm.wrong(tpm.text(), OUTSIDE));
        }
        match kinds.as_slice() {
            [] | [_] => Ok(credentials),
            several => Err(wrong_file(
                &self.path,
                &format!(
                    "give one credential, or several of one kind; there are {}",
                    several.join(" and ")
                ),
            )),
        }
    }

    fn certificate(
        &self,
        (cert, chain): (&FileValue, &str),
        (key, private): (&FileValue, &str),
    ) -> Result<Attestation, Error> {
        if private.starts_with("tpm:") || private.starts_with("pkcs11:") {
            return Err(key.wrong(private, OUTSIDE));
        }
        let blamed = |error: Error| match &error {
            Error::Configuration(of) if of.field == "private key" => key.of_file(private, error),
            _ => cert.of_file(chain, error),
        };
        let identity = X509Identity::from_pem(&cert.bytes_of(chain)?, &key.bytes_of(private)?);
        let identity = identity.map_err(blamed)?;
        identity.preflight(&self.registration_id()?, SystemTime::now()).map_err(blamed)?;
        Ok(identity.into())
    }

    /// Where the service is and how to get there, with this credential.
    ///
    /// # Errors
    /// [`Error::Configuration`]: there is no ID scope, or the authorities can't be read.
    pub fn config(&self, attestation: Attestation) -> Result<Config, Error> {
        let id_scope = self.require("id-scope")?.text().parse()?;
        let mut config = Config::new(id_scope, attestation);
        if let Some(value) = self.get("platform-roots").filter(|value| value.is_on()) {
            config.roots = Roots::platform().map_err(|error| value.named(error))?;
        }
        if let Some(value) = self.get("ca-file") {
            let pem = value.bytes_of(value.text())?;
            let roots = config.roots.with_pem(&pem);
            config.roots = roots.map_err(|error| value.of_file(value.text(), error))?;
        }
        if let Some(value) = self.get("endpoint") {
            config.endpoint = value.text().parse()?;
        }
        config.proxy = match self.get("proxy").map(FileValue::text) {
            None => ProxyChoice::default(),
            Some("env") => ProxyChoice::Environment,
            Some(url) => url.parse::<Proxy>()?.except(NoProxy::from_environment()).into(),
        };
        config.pipelined = !self.get("step-by-step").is_some_and(FileValue::is_on);
        Ok(config)
    }

    /// How long to wait for what.
    ///
    /// # Errors
    /// None but those that [`Self::read`] has found already.
    pub fn settings(&self) -> Result<Settings, Error> {
        let mut settings = Settings::default();
        if let Some(timeout) = self.seconds("timeout")? {
            settings.registration_timeout = timeout;
            settings.request_timeout = settings.request_timeout.min(timeout);
        }
        settings.poll_floor = self.seconds("poll-floor")?.unwrap_or(settings.poll_floor);
        Ok(settings)
    }

    fn seconds(&self, key: &str) -> Result<Option<Duration>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let length = value.text().parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        length.map(Some).ok_or_else(|| value.wrong(value.text(), "give a number of seconds"))
    }

    fn require(&self, key: &str) -> Result<&FileValue, Error> {
        self.get(key).ok_or_else(|| wrong_file(&self.path, &format!("it has no {key}")))
    }
}

const OUTSIDE: &str = "a program makes this credential itself, as `tpm` and `pkcs11` of this library do, and gives it to DeviceFile::config";

impl FileValue {
    fn bytes_of(&self, path: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bytes = fs::read(path).map(Zeroizing::new);
        bytes.map_err(|error| self.wrong(path, &format!("the file can't be read: {error}")))
    }

    fn text_of(&self, path: &str) -> Result<Zeroizing<String>, Error> {
        let bytes = self.bytes_of(path)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| self.wrong(path, "it is not UTF-8 text"))?;
        Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned()))
    }

    /// The error of what is in a file.
    fn of_file(&self, path: &str, error: Error) -> Error {
        match error {
            Error::Configuration(error) => {
                let ConfigurationError { value, reason, .. } = &*error;
                let before = if value.is_empty() { String::new() } else { format!("{value}: ") };
                self.wrong(path, &format!("{before}{reason}"))
            }
            other => other,
        }
    }
}
