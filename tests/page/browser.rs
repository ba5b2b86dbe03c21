//! A headless Chromium that is told what to do over a pipe, by the DevTools protocol:
//! <https://chromedevtools.github.io/devtools-protocol/>.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::Result;

/// The protocol is on descriptors 3 and 4. A Chromium that hangs is ended.
const CHROMIUM: &str = "exec timeout 300 chromium --headless=new --no-sandbox --disable-gpu \
    --window-size=1200,800 --user-data-dir=\"$0\" --remote-debugging-pipe about:blank \
    3<&0 4>&1 0</dev/null 1>/dev/null 2>&1";

/// A Chromium with one page.
pub(crate) struct Browser {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    count: u64,
    session: Option<String>,
    /// What the page's script did not catch.
    failures: Vec<String>,
}

impl Browser {
    pub(crate) fn start(profile: &str) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", CHROMIUM, profile]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let requests = child.stdin.take().ok_or("no stdin")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut page =
            Self { child, requests, answers, count: 0, session: None, failures: Vec::new() };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": at(&target, "/targetId"), "flatten": true});
        let session = page.call("Target.attachToTarget", attach)?;
        page.session = at(&session, "/sessionId").as_str().map(str::to_owned);
        page.call("Runtime.enable", json!({}))?;
        Ok(page)
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Asks for one thing and waits for its answer.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.count += 1;
        let mut request = json!({"id": self.count, "method": method, "params": params});
        if let (Some(session), Some(request)) = (&self.session, request.as_object_mut()) {
            request.insert("sessionId".to_owned(), json!(session));
        }
        write!(self.requests, "{request}\0")?;
        loop {
            let mut message = Vec::new();
            self.answers.read_until(0, &mut message)?;
            let Some(message) = message.strip_suffix(b"\0") else {
                return Err(format!("{method}: Chromium is gone; is it installed?").into());
            };
            let message: Value = serde_json::from_slice(message)?;
            if at(&message, "/method") == "Runtime.exceptionThrown" {
                self.failures.push(at(&message, "/params/exceptionDetails").to_string());
            }
            if *at(&message, "/id") == self.count {
                let failed = message.get("error").or(message.pointer("/result/exceptionDetails"));
                return match failed {
                    Some(failed) => Err(format!("{method} {params}: {failed}").into()),
                    None => Ok(at(&message, "/result").clone()),
                };
            }
        }
    }

    pub(crate) fn evaluate(&mut self, script: &str) -> Result<Value> {
        let wanted = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        Ok(at(&self.call("Runtime.evaluate", wanted)?, "/result/value").clone())
    }

    /// Waits until the page is so; says what it shows when it never is.
    pub(crate) fn wait(&mut self, condition: &str) -> Result<()> {
        let script = format!(
            "new Promise((done, fail) => {{ const end = Date.now() + 30000; (function look() {{ if ({condition}) done(); \
             else if (Date.now() > end) fail(document.body.innerText); else setTimeout(look, 20); }})() }})"
        );
        self.evaluate(&script).map(drop)
    }

    pub(crate) fn press(&mut self, key: &str, text: &str) -> Result<()> {
        let code = if key == "Tab" { 9 } else { 13 };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" && key == "Enter" { text } else { "" };
            let event = json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends when nobody is at the other end of its pipe; `timeout` ends it otherwise.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A part of a message; null when it has none.
pub(crate) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}
