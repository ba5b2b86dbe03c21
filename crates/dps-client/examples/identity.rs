//! One registration with a certificate, or with what the features bring to prove an identity. `cargo xtask bench sizes` measures
//! what each of them adds to it.
//!
//! ```text
//! identity ID_SCOPE REGISTRATION_ID x509 CHAIN.pem KEY.pem
//! identity ID_SCOPE REGISTRATION_ID csr CHAIN.pem KEY.pem
//! identity ID_SCOPE REGISTRATION_ID pkcs11 CHAIN.pem pkcs11:URI
//! identity ID_SCOPE REGISTRATION_ID tpm swtpm:HOST:PORT
//! ```

use std::{env, error::Error, fs};

use dps_client::{
    Attestation, Config, RegistrationRequest, Settings, Transport, X509Identity, client,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [id_scope, registration_id, identity @ ..] = arguments.as_slice() else {
        return Err("ID_SCOPE REGISTRATION_ID IDENTITY".into());
    };
    let config = Config::new(id_scope.parse()?, attestation(identity)?);
    let client = client(Transport::Http, config, Settings::default())?;
    let request = RegistrationRequest::new(registration_id.parse()?);
    #[cfg(feature = "csr")]
    if identity.first() == Some(&"csr") {
        return certificate(&client, request).await;
    }
    println!("{}", client.register(request).await?.assigned_hub);
    Ok(())
}

fn attestation(identity: &[&str]) -> Result<Attestation, Box<dyn Error>> {
    match identity {
        ["x509" | "csr", chain, key] => {
            Ok(X509Identity::from_pem(&fs::read(chain)?, &fs::read(key)?)?.into())
        }
        #[cfg(feature = "pkcs11")]
        ["pkcs11", chain, uri] => {
            use dps_client::pkcs11::{Pkcs11Key, Pkcs11Options};
            let key = Pkcs11Key::open(&uri.parse()?, &Pkcs11Options::default())?;
            let chain = dps_client::parse_certificates(&fs::read(chain)?)?;
            Ok(X509Identity::from_signing_key(chain, std::sync::Arc::new(key))?.into())
        }
        #[cfg(feature = "tpm")]
        ["tpm", address] => {
            use dps_client::tpm::{Tpm, TpmConfig};
            Ok(Attestation::from_tpm(Tpm::new(TpmConfig::new(address.parse()?))?))
        }
        _ => Err("no such identity is built in".into()),
    }
}

/// Asks for a certificate, and checks and stores what comes.
#[cfg(feature = "csr")]
async fn certificate(
    client: &dps_client::Client,
    request: RegistrationRequest,
) -> Result<(), Box<dyn Error>> {
    use std::time::SystemTime;

    let id = request.registration_id().clone();
    let key = dps_client::RequestKey::generate()?;
    let device = client.register(request.certificate_request(key.request(&id)?)).await?;
    let chain = key.verify(device.certificates.chain(), &id, SystemTime::now())?;
    println!("{} {:?}", device.assigned_hub, chain.not_after());
    Ok(())
}
