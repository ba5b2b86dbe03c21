//! What every transport needs to know.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use dps_attestation::{Attestation, SasToken};
use dps_state_machine::{
    ConfigurationError, Error, IdScope, Progress, RegistrationId, RegistrationRequest, Step,
};

use crate::{
    clock::{self, Clock},
    endpoint::Endpoint,
    proxy::{Proxy, ProxyChoice},
    roots::Roots,
    tls::Asked,
};

/// A token that lives longer than a century is cut to that: a date must stay a date.
const LONGEST_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Where the service is, who the device is, whom to trust and how to get out. Cheap to clone.
///
/// ```
/// # fn main() -> Result<(), dps_client::Error> {
/// use dps_client::{Config, Proxy, SymmetricKey};
/// let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse()?;
/// let mut config = Config::new("0ne00AABBCC".parse()?, key.into());
/// config.proxy = "http://proxy.example:3128".parse::<Proxy>()?.into();
/// config.connect_timeout = Some(std::time::Duration::from_secs(20));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The service. Default: its global endpoint.
    pub endpoint: Endpoint,
    /// Which instance of the service.
    pub id_scope: IdScope,
    /// How the device proves who it is.
    pub attestation: Attestation,
    /// Who may vouch for the server. Default: Mozilla's roots, compiled in.
    pub roots: Roots,
    /// The HTTP proxy to go through. Default: none; the environment is read only when asked to.
    pub proxy: ProxyChoice,
    /// The version of the service's interface. Default: see [`ApiVersion`].
    pub api_version: ApiVersion,
    /// How the client names itself. Default: `dps/` and this crate's version.
    pub user_agent: String,
    /// How long a SAS token is valid from the moment it is signed. Default 1 h.
    pub sas_lifetime: Duration,
    /// The time for making one connection: name, TCP, proxy and TLS together. Default: none of its own, the time
    /// for the request bounds it and a peer that stays silent is a timeout that names the stage.
    pub connect_timeout: Option<Duration>,
    /// Whether MQTT and AMQP send everything that is sure to follow at once, without waiting for the answer to each step.
    /// Default: true. A start that is lost, or that the service does not understand, is tried once more step by step,
    /// and a transport remembers that. HTTP has no such steps.
    pub pipelined: bool,
    pub(crate) asked: Asked,
    pub(crate) clock: Clock,
}

impl Config {
    /// The global endpoint, directly, with the compiled-in roots.
    #[must_use]
    pub fn new(id_scope: IdScope, attestation: Attestation) -> Self {
        Self {
            endpoint: Endpoint::default(),
            id_scope,
            attestation,
            roots: Roots::default(),
            proxy: ProxyChoice::default(),
            api_version: ApiVersion::default(),
            user_agent: concat!("dps/", env!("CARGO_PKG_VERSION")).to_owned(),
            sas_lifetime: Duration::from_secs(3600),
            connect_timeout: None,
            pipelined: true,
            asked: Asked::default(),
            clock: Clock::default(),
        }
    }

    /// With another clock than this machine's for the dates of certificates and SAS tokens, so that a test lives through
    /// years. The server's certificate is checked by this machine's.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock(mut self, now: fn() -> SystemTime) -> Self {
        self.clock = Clock(now);
        self
    }

    /// The same for one transport, which remembers by itself what the peer asked for in its handshakes.
    #[doc(hidden)]
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.asked = Asked::default();
        self
    }

    /// The configuration with the version of the interface that this request is sent by.
    #[must_use]
    pub fn for_request(&self, request: &RegistrationRequest) -> Self {
        let mut config = self.clone();
        config.api_version = self.api_version.for_request(request);
        config
    }

    /// Checks what the types of the fields leave open: that the user agent fits into a header.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the value.
    pub fn check(&self) -> Result<(), Error> {
        let fits = |c: char| c.is_ascii_graphic() || c == ' ';
        if self.user_agent.trim().is_empty() || !self.user_agent.chars().all(fits) {
            let reason = "give visible ASCII characters";
            return Err(ConfigurationError::new("user agent", &self.user_agent, reason).into());
        }
        Ok(())
    }

    /// Checks, before any I/O, that the credential can belong to the device: for X.509 that key, leaf, common
    /// name, order and dates of the chain fit; and that this machine's clock is not before 1970.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names what does not fit.
    pub fn preflight(&self, registration_id: &RegistrationId) -> Result<(), Error> {
        let now = self.clock.now();
        clock::check(now)?;
        match self.attestation.x509() {
            Some(identity) => identity.preflight(registration_id, now),
            None => Ok(()),
        }
    }

    /// The proxy through which the endpoint is reached, decided in this one place for every transport.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the environment names a proxy that can't be used: going around it would be
    /// the wrong answer.
    pub fn chosen_proxy(&self, default_port: u16) -> Result<Option<Proxy>, Error> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port_or(default_port));
        self.proxy.on_the_way_to(host, port, &|name| std::env::var(name).ok())
    }

    /// A SAS token, signed now; `None` when the device proves itself otherwise. A signer outside of the process may take
    /// its time: what bounds the request must bound this too, and the progress shows that it is waited for.
    ///
    /// # Errors
    /// [`Error::Credential`] when the signer fails.
    ///
    /// # Cancel safety
    /// Dropping the future drops that of the signer; see [`SasSigner`](dps_attestation::SasSigner).
    pub async fn sas_token(
        &self,
        registration_id: &RegistrationId,
        progress: &Progress,
    ) -> Result<Option<SasToken>, Error> {
        self.signed(Resource::Registration(registration_id), progress).await
    }

    /// The same for the device's hub.
    ///
    /// # Errors
    /// As for [`sas_token`](Self::sas_token).
    ///
    /// # Cancel safety
    /// As for [`sas_token`](Self::sas_token).
    #[doc(hidden)]
    pub async fn hub_token(
        &self,
        hub: &str,
        device_id: &str,
        progress: &Progress,
    ) -> Result<Option<SasToken>, Error> {
        self.signed(Resource::Hub { hub, device_id }, progress).await
    }

    async fn signed(
        &self,
        resource: Resource<'_>,
        progress: &Progress,
    ) -> Result<Option<SasToken>, Error> {
        let Some(signer) = self.attestation.sas_signer() else { return Ok(None) };
        let expiry = self.sas_expiry();
        let is_outside = matches!(self.attestation, Attestation::SasSigner(_));
        if is_outside {
            progress.enter(&Step::Signing);
        }
        let token = match resource {
            Resource::Registration(id) => {
                SasToken::sign_with(signer, &self.id_scope, id, expiry).await?
            }
            Resource::Hub { hub, device_id } => {
                SasToken::sign_for_hub(signer, hub, device_id, expiry).await?
            }
        };
        if is_outside {
            progress.enter(&Step::Signed);
        }
        hide_token(&token, progress);
        match &self.attestation {
            Attestation::SymmetricKey(key) => key.hide(progress),
            Attestation::SymmetricKeyFile(file) => file.in_use().hide(progress),
            _ => {}
        }
        Ok(Some(token))
    }

    /// When a SAS token that is signed now expires.
    pub(crate) fn sas_expiry(&self) -> SystemTime {
        self.clock.now() + self.sas_lifetime.min(LONGEST_LIFETIME)
    }

    /// What to look at when the service refuses the credential: which chain was sent, or why none was; for a SAS token,
    /// what this machine's clock says. `date` is what the service's clock says, where its answer tells that.
    #[must_use]
    pub fn credential_hint(&self, date: Option<SystemTime>) -> Option<String> {
        if self.attestation.sas_signer().is_some() || self.attestation.tpm().is_some() {
            return Some(clock::describe(self.clock.now(), date));
        }
        self.attestation.x509_in_use().map(|identity| {
            let Some(request) = self.asked.last() else { return NOT_ASKED.to_owned() };
            if let Some(reason) = request.not_sent() {
                return reason;
            }
            let end = identity.doubtful_end(self.clock.now());
            let end = end.map(|end| format!("; {end}")).unwrap_or_default();
            format!(
                "the chain that was sent: {}{end}; check that the enrollment knows its leaf or one of its authorities",
                identity.describe_chain()
            )
        })
    }
}

/// What a token is for.
enum Resource<'a> {
    Registration(&'a RegistrationId),
    Hub { hub: &'a str, device_id: &'a str },
}

/// No error repeats the token's signature.
pub(crate) fn hide_token(token: &SasToken, progress: &Progress) {
    let signature = token.expose().split('&').find_map(|field| field.strip_prefix("sig="));
    progress.hide_key(signature.unwrap_or_default().as_bytes());
}

const NOT_ASKED: &str = "nobody asked this device for its certificate, so none was sent: something in between ends TLS, as a proxy that inspects it does, or the endpoint is not the service";

/// The version of the service's interface, for example `2021-06-01`. The default is that one, and `2026-11-01` for a
/// request that asks for a certificate; a version that was given holds for every request.
///
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ApiVersion(Option<String>);

impl ApiVersion {
    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("2021-06-01")
    }

    /// The version that a request is sent by.
    #[must_use]
    pub fn for_request(&self, request: &RegistrationRequest) -> Self {
        match &self.0 {
            None if request.requests_certificate() => Self(Some("2026-11-01".to_owned())),
            given => Self(given.clone()),
        }
    }
}

impl FromStr for ApiVersion {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] when the text is empty or has anything but letters, digits, `-` and `.`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if text.is_empty() || !text.chars().all(fits) {
            let reason = "give a version of the service's interface, like 2021-06-01";
            return Err(ConfigurationError::new("API version", text, reason).into());
        }
        Ok(Self(Some(text.to_owned())))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dps_attestation::X509Identity;

    use crate::tls::CertificateRequest;

    #[test]
    fn the_hint_names_the_chain_and_its_end_if_that_has_expired() {
        let key = || rcgen::KeyPair::generate().unwrap();
        let hint = |year| {
            let mut root = rcgen::CertificateParams::new([]).unwrap();
            root.distinguished_name.push(rcgen::DnType::CommonName, "Old root");
            root.not_before = rcgen::date_time_ymd(2010, 1, 1);
            root.not_after = rcgen::date_time_ymd(year, 1, 1);
            root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let root = rcgen::CertifiedIssuer::self_signed(root, key()).unwrap();
            let device = key();
            let leaf =
                rcgen::CertificateParams::new([]).unwrap().signed_by(&device, &root).unwrap();
            let chain = vec![leaf.der().to_vec(), root.der().to_vec()];
            let identity = X509Identity::from_der(chain, device.serialize_der()).unwrap();
            let config = Config::new("0ne1".parse().unwrap(), identity.into());
            assert!(config.credential_hint(None).unwrap().contains("nobody asked this device"));
            let schemes = vec![rustls::SignatureScheme::ED25519; 9];
            config.asked.note(CertificateRequest { schemes, is_met: false });
            let hint = config.credential_hint(None).unwrap();
            assert!(hint.contains("asked for (ED25519, ") && hint.contains(", others)"), "{hint}");
            config.asked.note(CertificateRequest { schemes: Vec::new(), is_met: true });
            config.credential_hint(None).unwrap()
        };
        let expired = hint(2020);
        assert!(
            expired.contains("its last certificate, CN=Old root: it expired at 2020"),
            "{expired}"
        );
        assert!(!hint(4000).contains("its last certificate"));
    }

    #[test]
    fn an_api_version_is_a_date_or_a_word() {
        for good in ["2021-06-01", "2025-07-01-preview", "v1.0"] {
            assert_eq!(good.parse::<ApiVersion>().unwrap().as_str(), good, "{good:?}");
        }
        for bad in ["", "2021 06", "1&x=2", "2021-06-01\n"] {
            let message = bad.parse::<ApiVersion>().unwrap_err().to_string();
            assert!(message.starts_with("API version"), "{message}");
        }
    }
}
