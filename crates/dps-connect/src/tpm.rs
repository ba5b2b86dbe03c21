//! Registering with a TPM: what is the same over HTTP and AMQP.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use dps_attestation::{SasSigner, SasToken, TpmAttestation, TpmKeys};
use dps_state_machine::{
    CredentialError, Error, Progress, ProtocolError, RegistrationId, RegistrationRequest, Response,
    Stage, Step,
};

use crate::{Config, config::hide_token};

/// The device's TPM, for one request. Whatever is asked of it counts as signing: it bounds nothing itself, and a
/// timeout names that stage.
#[derive(Clone, Debug)]
pub struct TpmLogin {
    tpm: Arc<dyn TpmAttestation>,
    config: Config,
    progress: Progress,
}

impl TpmLogin {
    /// `None` when the device proves itself otherwise.
    #[must_use]
    pub fn of(config: &Config, progress: &Progress) -> Option<Self> {
        let tpm = Arc::clone(config.attestation.tpm()?);
        Some(Self { tpm, config: config.clone(), progress: progress.clone() })
    }

    /// The public keys by which the service knows the TPM.
    ///
    /// # Errors
    /// [`Error::Credential`] with the TPM's words.
    pub async fn keys(&self) -> Result<TpmKeys, Error> {
        self.ask(self.tpm.keys()).await
    }

    /// The request with the public keys in its body.
    ///
    /// # Errors
    /// [`Error::Credential`] with the TPM's words; [`Error::Configuration`] when the body has no room for the keys.
    pub async fn complete(
        &self,
        request: &RegistrationRequest,
    ) -> Result<RegistrationRequest, Error> {
        let keys = self.keys().await?;
        let request = request.clone().tpm(keys.endorsement_key(), keys.storage_root_key());
        request.check()?;
        Ok(request)
    }

    /// The SAS token that answers a challenge. It serves until the end of the registration.
    ///
    /// # Errors
    /// [`Error::Credential`] with the TPM's words; the key of the challenge is read before the TPM is asked anything.
    pub async fn answer(
        &self,
        challenge: &[u8],
        registration_id: &RegistrationId,
    ) -> Result<SasToken, Error> {
        let signer = self.ask(self.tpm.activate(challenge)).await?;
        let token = self.ask(self.sign(&*signer, registration_id)).await?;
        hide_token(&token, &self.progress);
        Ok(token)
    }

    async fn sign(
        &self,
        signer: &dyn SasSigner,
        registration_id: &RegistrationId,
    ) -> Result<SasToken, CredentialError> {
        let (scope, expiry) = (&self.config.id_scope, self.config.sas_expiry());
        SasToken::sign_with(signer, scope, registration_id, expiry).await
    }

    /// Keeps the key for the hub, if the answer says that the device is assigned.
    ///
    /// # Errors
    /// [`Error::Credential`] with the TPM's words; [`Error::Protocol`] when the answer has no such key: without it the
    /// device can't connect to its hub.
    pub async fn conclude(&self, stage: Stage, response: &Response) -> Result<(), Error> {
        match response.tpm_hub_key() {
            None => Ok(()),
            Some(Some(key)) => self.ask(self.tpm.store(&from_base64(&key)?)).await,
            Some(None) => {
                let reason = "its status is assigned and registrationState.tpm has no authenticationKey, the key for the hub";
                let mut error = ProtocolError::unreadable(stage, reason);
                error.status = Some(response.status);
                error.body.clone_from(&response.body);
                Err(error.into())
            }
        }
    }

    async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, CredentialError>>,
    ) -> Result<T, Error> {
        self.progress.enter(&Step::Signing);
        let answer = answer.await?;
        self.progress.enter(&Step::Signed);
        Ok(answer)
    }
}

/// A key as JSON carries it.
///
/// # Errors
/// [`Error::Credential`] when the text is no base64.
pub fn from_base64(key: &str) -> Result<Vec<u8>, Error> {
    let wrong = |_| CredentialError::new("the key from the service is damaged: it is no base64");
    Ok(STANDARD.decode(key).map_err(wrong)?)
}
