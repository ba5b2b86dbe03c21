//! `cargo xtask page`: the live page of `dps emulate` in a headless Chromium: what it shows of a device that is assigned,
//! of one that is refused and of one whose name is markup, in light and in dark, by keyboard, and after a reset. Its
//! pictures are `target/page/light.png` and `target/page/dark.png`, for people.

use std::time::Duration;

use serde_json::{Value, json};
use xshell::{Shell, cmd};

mod browser;

use browser::{Browser, at};

use crate::{
    packages,
    process::{Result, Running, build, in_ci},
};

const KEY: &str = "c29tZSBkZXZpY2UncyBrZXk=";
const MARKUP: &str = "<img src=x onerror=alert(1)>";
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    if in_ci() && cmd!(shell, "which chromium curl").quiet().ignore_stdout().run().is_err() {
        packages::install(shell, &["chromium", "curl"])?;
    }
    let dps = build(shell, "dps", "cli")?;
    let folder = shell.create_temp_dir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let enrollments = ["pump-17", "valve-3"].map(|id| {
        format!("[[enrollment]]\nregistration-id = \"{id}\"\nsymmetric-key = \"{KEY}\"\n")
    });
    shell.write_file(path("emulator.toml"), enrollments.concat())?;
    let (config, ca) = (path("emulator.toml"), path("ca.pem"));
    let emulator = Running::start(cmd!(shell, "{dps} emulate --config {config} --ca-out {ca}"))?;
    let ready: Value = serde_json::from_str(&emulator.line(LIMIT)?.ok_or("no first line")?)?;
    let (https, scope) =
        (at(&ready, "/httpsPort"), at(&ready, "/idScope").as_str().ok_or("no idScope")?);
    let endpoint = format!("localhost:{https}");
    for (id, key) in [("pump-17", KEY), ("valve-3", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl")] {
        let device = cmd!(
            shell,
            "{dps} register --endpoint {endpoint} --ca-file {ca} --id-scope {scope} --registration-id {id} --transport mqtt-ws"
        );
        device.env("DPS_SYMMETRIC_KEY", key).ignore_status().run()?;
    }
    let url = format!(
        "https://{endpoint}/{scope}/registrations/%3Cimg%20src=x%20onerror=alert(1)%3E/register?api-version=2021-06-01"
    );
    let body = ["--json", "{}", "--request", "PUT"];
    cmd!(shell, "curl --silent --cacert {ca} {body...} {url}").ignore_stdout().run()?;

    let mut page = Browser::start(&path("profile"))?;
    let shell_target = shell.create_dir("target/page")?;
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        page.call("Emulation.setEmulatedMedia", media)?;
        let url = format!("http://localhost:{}/", at(&ready, "/adminPort"));
        page.call("Page.navigate", json!({ "url": url }))?;
        let shows = format!(
            "['pump-17', 'assigned', 'valve-3', 'is not signed with the right key', 'live', '3 devices', {MARKUP:?}].every((part) => document.body?.innerText.includes(part))"
        );
        page.wait(&shows)?;
        page.wait("document.querySelectorAll('td img').length === 0 && document.querySelectorAll('#rows tr').length === 3")?;
        grounds.push(page.evaluate("getComputedStyle(document.body).backgroundColor")?);
        let png = page.call("Page.captureScreenshot", json!({}))?;
        let png =
            cmd!(shell, "base64 --decode").stdin(at(&png, "/data").as_str().unwrap_or_default());
        shell.write_file(shell_target.join(format!("{scheme}.png")), png.output()?.stdout)?;
    }
    if grounds.first() == grounds.last() {
        return Err(format!("light and dark are one: {grounds:?}").into());
    }
    page.evaluate("document.getElementById('filter').focus()")?;
    page.call("Input.insertText", json!({"text": "VALVE"}))?;
    page.wait("document.getElementById('summary').textContent === '1 of 3 devices'")?;
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
    drop(emulator);
    page.wait("document.getElementById('state').dataset.state === 'lost'")?;
    if page.failures().is_empty() { Ok(()) } else { Err(page.failures().join("\n").into()) }
}
