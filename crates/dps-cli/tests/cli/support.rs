//! Runs the binary, keeps emulators running, and makes files and certificates for both.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

pub(crate) const SUCCESS_KEYS: [&str; 10] = [
    "status",
    "registrationId",
    "deviceId",
    "assignedHub",
    "operationId",
    "substatus",
    "payload",
    "transport",
    "polls",
    "elapsedMs",
];

pub(crate) const FAILURE_KEYS: [&str; 14] = [
    "kind",
    "stage",
    "transport",
    "httpStatus",
    "errorCode",
    "trackingId",
    "message",
    "retryable",
    "retryAfterSeconds",
    "hint",
    "registrationId",
    "operationId",
    "endpoint",
    "timestamp",
];

/// The transports that the command is built with.
pub(crate) const TRANSPORTS: [&str; 5] = ["http", "mqtt", "mqtt-ws", "amqp", "amqp-ws"];

/// The device key of every enrollment in these tests.
pub(crate) const KEY: &str = "a2V5IG9mIHRoZSB0ZXN0cyBvZiB0aGUgY29tbWFuZA==";

/// The command, untouched by the environment of whoever runs the tests.
pub(crate) fn dps(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dps"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if text.starts_with("DPS_") || text.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8 output");
        Self {
            code: output.status.code().unwrap_or_else(|| {
                panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
            }),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The one JSON object on the one line of standard output.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.strip_suffix('\n').expect("a line on standard output");
        assert!(!line.contains('\n'), "more than one line: {line}");
        serde_json::from_str(line).expect("JSON")
    }

    pub(crate) fn assigned(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        let object = self.json();
        assert_eq!(keys(&object), sorted(SUCCESS_KEYS), "{object}");
        object
    }

    /// The failure, which must have this kind and its exit code.
    pub(crate) fn failed(&self, kind: &str) -> Value {
        let object = self.json();
        let code = match kind {
            "configuration" => 2,
            "rejected" if object["error"]["retryable"] == true => 7,
            "rejected" => 3,
            "connection" => 4,
            "timeout" => 5,
            "protocol" => 6,
            "credential" => 8,
            "cancelled" => 130,
            other => panic!("{other}?"),
        };
        assert_eq!(keys(&object), ["error"], "{object}");
        let error = object["error"].clone();
        assert_eq!(keys(&error), sorted(FAILURE_KEYS), "{error}");
        assert_eq!((error["kind"].as_str(), self.code), (Some(kind), code), "{error}");
        error
    }
}

/// Longer than anything here takes: what lives on has hung.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(command: &mut Command) -> Ended {
    Running::start(command).ended()
}

/// Runs it with this text on standard input.
pub(crate) fn run_with_stdin(command: &mut Command, text: &str) -> Ended {
    let mut running = Running::start(command.stdin(Stdio::piped()));
    // It may end without reading.
    let _ = running.child().stdin.take().expect("its input").write_all(text.as_bytes());
    running.ended()
}

pub(crate) fn keys(object: &Value) -> Vec<String> {
    sorted(object.as_object().expect("an object").keys())
}

pub(crate) fn sorted<S: ToString>(names: impl IntoIterator<Item = S>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    names.sort();
    names
}

pub(crate) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_else(|| panic!("no text {key} in {object}"))
}

/// A folder of its own that goes away with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8 path").to_owned()
    }

    /// Writes a file; gives its path.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, contents).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed when the test is over, or when it hangs.
pub(crate) struct Running {
    child: Child,
    /// Dropped when the test is over.
    _over: Sender<()>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_stdout(command, Stdio::piped())
    }

    pub(crate) fn start_with_stdout(command: &mut Command, stdout: Stdio) -> Self {
        Self::spawn(command.stdout(stdout).stderr(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Self {
        let child = command.spawn().expect("the command starts");
        let (over, wait) = mpsc::channel();
        let id = child.id().to_string();
        thread::spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &id]).status();
            }
        });
        Self { child, _over: over }
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until a line of its standard error has this in it.
    pub(crate) fn wait_for_stderr(&mut self, part: &str) {
        let stderr = self.child.stderr.as_mut().expect("its standard error");
        // A byte at a time: nothing is taken away from who reads the rest.
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            let read = stderr.read(&mut byte).expect("its standard error");
            assert_ne!(read, 0, "it ended without saying {part}");
            if byte == *b"\n" {
                if String::from_utf8_lossy(&line).contains(part) {
                    return;
                }
                line.clear();
            } else {
                line.extend(byte);
            }
        }
    }

    pub(crate) fn id(&self) -> String {
        self.child.id().to_string()
    }

    /// Waits for its end; nobody reads what it says.
    pub(crate) fn status(mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let read = |from: &mut dyn Read| {
            let mut text = Vec::new();
            from.read_to_end(&mut text).expect("its output");
            text
        };
        let stdout = self.child.stdout.take().map(|mut from| read(&mut from)).unwrap_or_default();
        let stderr = self.child.stderr.take().map(|mut from| read(&mut from)).unwrap_or_default();
        let status = self.child.wait().expect("its end");
        Ended::of(Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `dps emulate`, ready.
pub(crate) struct Emulator {
    pub(crate) running: Running,
    pub(crate) stdout: BufReader<ChildStdout>,
    pub(crate) ready: Value,
    pub(crate) folder: Folder,
}

impl Emulator {
    /// With one enrollment, `dev`, that behaves like this.
    pub(crate) fn behaving(toml: &str) -> Self {
        Self::configured(&format!(
            "[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\"\n{toml}"
        ))
    }

    pub(crate) fn configured(toml: &str) -> Self {
        let folder = Folder::new();
        let config = folder.file("emulator.toml", toml);
        Self::start(folder, &["--config", &config])
    }

    pub(crate) fn start(folder: Folder, arguments: &[&str]) -> Self {
        Self::start_with_stderr(folder, &[&["--fast"], arguments].concat(), Stdio::piped())
    }

    pub(crate) fn start_with_stderr(folder: Folder, arguments: &[&str], stderr: Stdio) -> Self {
        let ca = folder.path("server-ca.pem");
        let mut command = dps(&["emulate", "--ca-out", &ca]);
        let command = command.args(arguments).stdout(Stdio::piped()).stderr(stderr);
        let mut running = Running::spawn(command);
        let mut stdout = BufReader::new(running.child().stdout.take().expect("its output"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its first line");
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            let mut why = String::new();
            let _ = running.child().stderr.take().map(|mut from| from.read_to_string(&mut why));
            panic!("{line:?}: {error}: {why}")
        });
        Self { running, stdout, ready, folder }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("localhost:{}", self.ready["httpsPort"])
    }

    /// Waits for an event of this kind; needs `--events -`.
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).expect("an event");
            assert_ne!(read, 0, "the emulator ended without the event {kind}");
            let event: Value = serde_json::from_str(&line).expect("an event");
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// `dps register --json` over a transport with all but the device and its credential.
    pub(crate) fn register_over(&self, transport: &str, arguments: &[&str]) -> Command {
        let mut command = dps(&["register", "--json", "--transport", transport]);
        let port = match transport {
            "mqtt" => &self.ready["mqttPort"],
            "amqp" => &self.ready["amqpPort"],
            _ => &self.ready["httpsPort"],
        };
        command.args(["--endpoint", &format!("localhost:{port}")]);
        command.args(["--id-scope", text(&self.ready, "idScope")]);
        command.args(["--ca-file", text(&self.ready, "caFile")]).args(arguments);
        command
    }

    /// The same for the device `dev` with the right key.
    pub(crate) fn register_dev_over(&self, transport: &str, arguments: &[&str]) -> Command {
        let mut command = self.register_over(transport, &["--registration-id", "dev"]);
        command.env("DPS_SYMMETRIC_KEY", KEY).args(arguments);
        command
    }

    /// [`Self::register_over`] HTTP.
    pub(crate) fn register(&self, arguments: &[&str]) -> Command {
        self.register_over("http", arguments)
    }

    /// [`Self::register_dev_over`] HTTP.
    pub(crate) fn register_dev(&self, arguments: &[&str]) -> Command {
        self.register_dev_over("http", arguments)
    }
}

/// A peer that takes connections and never says a word.
pub(crate) struct Silent {
    listener: TcpListener,
    pub(crate) endpoint: String,
}

impl Silent {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = listener.local_addr().expect("its address").to_string();
        Self { listener, endpoint }
    }

    /// Waits for a connection.
    pub(crate) fn accept(&self) -> std::net::TcpStream {
        self.listener.accept().expect("a connection").0
    }

    /// `dps register --json` for this peer.
    pub(crate) fn register(&self, arguments: &[&str]) -> Command {
        register_at(&self.endpoint, arguments)
    }
}

pub(crate) fn register_at(endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = dps(&["register", "--json", "--id-scope", "0ne00AABBCC"]);
    command.args(["--registration-id", "dev", "--endpoint", endpoint]).args(arguments);
    command.env("DPS_SYMMETRIC_KEY", KEY);
    command
}

/// A port that nobody listens on.
pub(crate) fn closed_endpoint() -> String {
    Silent::new().endpoint
}
