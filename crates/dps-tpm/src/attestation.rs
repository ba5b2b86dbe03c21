//! The TPM as what proves the device.

use std::sync::Arc;

use dps_attestation::{SasSigner, TpmAnswer, TpmAttestation, TpmKeys};

use crate::{AuthenticationKey, Tpm};

/// The key of a challenge is read whole before the TPM is asked anything.
impl TpmAttestation for Tpm {
    fn keys(&self) -> TpmAnswer<'_, TpmKeys> {
        Box::pin(async move { Ok(Tpm::keys(self).await?) })
    }

    fn activate<'a>(&'a self, key: &'a [u8]) -> TpmAnswer<'a, Arc<dyn SasSigner>> {
        Box::pin(async move {
            let key = self.import(AuthenticationKey::from_bytes(key)?).await?;
            Ok(Arc::new(key) as Arc<dyn SasSigner>)
        })
    }

    fn store<'a>(&'a self, key: &'a [u8]) -> TpmAnswer<'a, ()> {
        Box::pin(async move { Ok(Tpm::store(self, AuthenticationKey::from_bytes(key)?).await?) })
    }
}
