//! A peer says back what the device has signed with or sent, in each encoding.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{Config, RegistrationRequest, SasToken, Transport, client};
use dps_conformance::{Canaries, ProxyScript, TestProxy, adjusted, config_for, fast, settle};
use dps_emulator::{Behavior, Emulator, Fault};

use crate::{
    canaries::{DEVICE_KEY, Factory, Identity, LIFETIME, PROXY_PASSWORD, device},
    capture::{mark, show_error, since},
};

/// The encodings of a text, and of the bytes that it is base64 of.
fn encodings(secret: &str) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let percent = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    let mut encodings = vec![
        secret.to_owned(),
        STANDARD.encode(secret),
        percent(secret),
        secret.replace('+', "%2b").replace('/', "%2f").replace('=', "%3d"),
        hex(secret.as_bytes()),
        hex(secret.as_bytes()).to_uppercase(),
        secret.bytes().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":"),
        secret.bytes().map(|b| format!("&#{b};")).collect(),
    ];
    if let Some(bytes) = bytes_of(secret) {
        encodings.extend([hex(&bytes), hex(&bytes).to_uppercase()]);
    }
    encodings
}

pub(crate) async fn no_error_repeats_a_secret_in_any_encoding(transport: Transport) {
    let factory = Factory::new();
    let emulator =
        Emulator::builder().enrollment(Identity::Key.enrollment(&factory)).start().await.unwrap();
    let attestation = Identity::Key.attestation(&factory, transport);
    let config = adjusted(config_for(&emulator, transport, attestation), |config| {
        config.sas_lifetime = LIFETIME;
    });
    let user = format!("user:{PROXY_PASSWORD}@");
    let proxy = TestProxy::start(ProxyScript::Open).await;
    let config = adjusted(config, |config| config.proxy = proxy.choice(&user));
    let echoed = async |secret: &str, said: &str| {
        let fault = Fault::error(400_001, format!("no {said}.")).and_with("trackingId", said);
        emulator.forget_devices();
        emulator.set_behavior("dev-1", Behavior::new().on_register(fault.forever())).unwrap();
        fails_without(secret, said, transport, config.clone()).await
    };
    for secret in [DEVICE_KEY, PROXY_PASSWORD] {
        for said in encodings(secret) {
            echoed(secret, &said).await.unwrap();
        }
    }
    for number in 0..encodings(DEVICE_KEY).len() {
        // The token that is sent is this one when both are signed in the same second.
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 100, "no registration within one second");
            let second = expiry();
            let signature = signature(&emulator);
            let said = encodings(&signature).swap_remove(number);
            let outcome = echoed(&signature, &said).await;
            if expiry() == second {
                break outcome.unwrap();
            }
        }
    }
    let basic = STANDARD.encode(format!("user:{PROXY_PASSWORD}"));
    for (secret, said) in [PROXY_PASSWORD, &*basic]
        .into_iter()
        .flat_map(|secret| encodings(secret).into_iter().map(move |said| (secret, said)))
    {
        let line: &'static str = format!("502 no {said}.").leak();
        let proxy = TestProxy::start(ProxyScript::Refuse(line)).await;
        let config = adjusted(config.clone(), |config| config.proxy = proxy.choice(&user));
        fails_without(secret, &said, transport, config).await.unwrap();
    }
    emulator.stop().await;
}

/// A password is not base64, even if it looks like it.
fn bytes_of(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret).ok().filter(|_| secret != PROXY_PASSWORD)
}

fn expiry() -> u64 {
    (SystemTime::now() + LIFETIME).duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn signature(emulator: &Emulator) -> String {
    let expiry = SystemTime::now() + LIFETIME;
    let token =
        SasToken::sign(&DEVICE_KEY.parse().unwrap(), emulator.id_scope(), &device(), expiry);
    let sent = token.expose().split('&').find_map(|field| field.strip_prefix("sig=")).unwrap();
    sent.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
}

/// Registers and says whether all that can be seen of the error is without the secret, and goes on behind it.
async fn fails_without(
    secret: &str,
    said: &str,
    transport: Transport,
    config: Config,
) -> Result<(), String> {
    let mark = mark();
    let client = client(transport, config, fast()).unwrap();
    let error = client.register(RegistrationRequest::new(device())).await.unwrap_err();
    show_error(&error);
    settle(&client).await;
    let output = since(mark);
    let mut canaries = Canaries::new();
    canaries.add(secret, secret);
    if let Some(bytes) = bytes_of(secret) {
        canaries.add("its bytes", bytes);
    }
    let found = canaries.found_in(&output);
    let shown = error.to_string();
    if !found.is_empty() || String::from_utf8_lossy(&output).contains(said) {
        return Err(format!("{said} as {shown}: {found:?}"));
    }
    if !shown.contains("***.") {
        return Err(format!("{said} was not said: {shown}"));
    }
    Ok(())
}
