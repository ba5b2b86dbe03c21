//! The live page of the emulator in a headless Chromium: what it shows of a device that is assigned, of one that is refused,
//! of one whose webhook fails and of one whose name is markup, in light and in dark, by keyboard, and after a reset. Its pictures are
//! `target/page/light.png` and `target/page/dark.png`, for people. `cargo xtask page` builds this program and runs it.

mod browser;

use std::{error::Error, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use browser::{Browser, at};
use dps_client::{
    Carrier, Config, RegistrationRequest, Roots, Settings, SymmetricKey, Transport, client,
};
use dps_connect::{Connector, Opened, Protocol};
use dps_emulator::{Allocation, Attestation, Emulator, Enrollment};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Base64 of the devices' key, and of one that is none of theirs.
const KEY: &str = "c29tZSBkZXZpY2UncyBrZXk=";
const WRONG_KEY: &str = "d3Jvbmcga2V5IG9mIGEgZGV2aWNl";
const MARKUP: &str = "<img src=x onerror=alert(1)>";

fn main() -> Result<()> {
    // The emulator serves on threads of its own, while this one waits for the browser.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let emulator = runtime.block_on(emulator_with_devices())?;
    let folder = Path::new("target/page");
    std::fs::create_dir_all(folder)?;
    let profile = folder.join("profile").display().to_string();
    let mut page = Browser::start(&profile)?;
    let url = format!("http://localhost:{}/", emulator.admin_port().unwrap_or_default());
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        page.call("Emulation.setEmulatedMedia", media)?;
        page.call("Page.navigate", json!({ "url": url }))?;
        let shows = format!(
            "['pump-17', 'assigned', 'valve-3', 'is not signed with the right key', 'failed, error code 400207', \
             'gets no hub: the webhook can', 'live', '4 devices', {MARKUP:?}].every((part) => document.body?.innerText.includes(part))"
        );
        page.wait(&shows)?;
        page.wait("document.querySelectorAll('td img').length === 0 && document.querySelectorAll('#rows tr').length === 4")?;
        grounds.push(page.evaluate("getComputedStyle(document.body).backgroundColor")?);
        let png = page.call("Page.captureScreenshot", json!({}))?;
        let png = STANDARD.decode(at(&png, "/data").as_str().unwrap_or_default())?;
        std::fs::write(folder.join(format!("{scheme}.png")), png)?;
    }
    if grounds.first() == grounds.last() {
        return Err(format!("light and dark are one: {grounds:?}").into());
    }
    page.evaluate("document.getElementById('filter').focus()")?;
    page.call("Input.insertText", json!({"text": "VALVE"}))?;
    page.wait("document.getElementById('summary').textContent === '1 of 4 devices'")?;
    for (focused, then) in [
        ("hour", "document.getElementById('clock').textContent.includes('(+1 h 0 min)')"),
        ("freeze", "document.getElementById('freeze').getAttribute('aria-pressed') === 'true'"),
        (
            "right",
            "document.getElementById('clock').textContent.endsWith('Z') && document.getElementById('freeze').getAttribute('aria-pressed') === 'false'",
        ),
        ("reset", "document.getElementById('summary').textContent === 'No device yet.'"),
    ] {
        page.press("Tab", "\t")?;
        page.wait(&format!("document.activeElement.id === {focused:?} && document.activeElement.matches(':focus-visible')"))?;
        page.press("Enter", "\r")?;
        page.wait(then)?;
    }
    runtime.block_on(async { drop(emulator) });
    page.wait("document.getElementById('state').dataset.state === 'lost'")?;
    match page.failures() {
        [] => Ok(()),
        failures => Err(failures.join("\n").into()),
    }
}

/// The emulator, after one device was assigned, one refused for its key, one failed by its webhook, and one refused for its
/// name.
async fn emulator_with_devices() -> Result<Emulator> {
    let key: SymmetricKey = KEY.parse()?;
    let known = |id: &str| -> Result<Enrollment> {
        Ok(Enrollment::individual(id.parse()?, Attestation::symmetric_key(key.clone())))
    };
    let builder = Emulator::builder().admin_port(0).enrollment(known("pump-17")?);
    let webhook = Allocation::Custom {
        webhook: "http://127.0.0.1:1/".to_owned(),
        api_version: "2021-10-01".to_owned(),
    };
    let builder = builder.enrollment(known("lamp-5")?.allocation(webhook));
    let emulator = builder.enrollment(known("valve-3")?).start().await?;
    let config = |key: &str| -> Result<Config> {
        let mut config =
            Config::new(emulator.id_scope().clone(), key.parse::<SymmetricKey>()?.into());
        config.endpoint = emulator.endpoint(dps_emulator::Transport::MqttWs).parse()?;
        config.roots = Roots::empty().with_pem(emulator.ca_pem().as_bytes())?;
        Ok(config)
    };
    for (id, key, is_assigned) in
        [("pump-17", KEY, true), ("valve-3", WRONG_KEY, false), ("lamp-5", KEY, false)]
    {
        let client = client(Transport::MqttWs, config(key)?, Settings::default())?;
        let outcome = client.register(RegistrationRequest::new(id.parse()?)).await;
        if outcome.is_ok() != is_assigned {
            return Err(format!("{id}: {outcome:?}").into());
        }
        client.end_session().await?;
    }
    // The client refuses such a name before it connects.
    let https = Protocol { tls_port: 443, subprotocol: "" };
    let connector = Connector::new(config(KEY)?)?;
    let opened = connector.open(&https, Carrier::Tls, &Default::default()).await?;
    let Opened::Ready(mut stream) = opened else { return Err("there is no connection".into()) };
    let scope = emulator.id_scope();
    let head = format!(
        "PUT /{scope}/registrations/%3Cimg%20src=x%20onerror=alert(1)%3E/register?api-version=2021-06-01 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.starts_with("HTTP/1.1 4") {
        true => Ok(emulator),
        false => Err(format!("the name should be refused: {answer}").into()),
    }
}
