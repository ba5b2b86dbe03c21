//! The smallest client: one device, one transport, one registration. `cargo xtask bench` measures it.
//!
//! ```text
//! minimal TRANSPORT HOST:PORT CA.pem ID_SCOPE REGISTRATION_ID DEVICE.key
//! ```

use std::{env, error::Error, fs};

use dps_client::{
    Config, Endpoint, RegistrationRequest, Roots, Settings, SymmetricKey, Transport, client,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut next =
        || arguments.next().ok_or("TRANSPORT HOST:PORT CA.pem ID_SCOPE REGISTRATION_ID KEY");
    let transport: Transport = next()?.parse()?;
    let endpoint: Endpoint = next()?.parse()?;
    let roots = Roots::empty().with_pem(&fs::read(next()?)?)?;
    let id_scope = next()?.parse()?;
    let registration_id = next()?.parse()?;
    let key: SymmetricKey = fs::read_to_string(next()?)?.parse()?;

    let mut config = Config::new(id_scope, key.into());
    config.endpoint = endpoint;
    config.roots = roots;
    let client = client(transport, config, Settings::default())?;
    let device = client.register(RegistrationRequest::new(registration_id)).await?;
    println!("{} {}", device.assigned_hub, device.device_id);
    client.end_session().await?;
    Ok(())
}
