//! `cargo xtask bench load`: how many devices a second one emulator serves, beside how many bare TLS handshakes the same
//! processors make, and what idle connections take of its memory.
//!
//! All devices begin at once, each on a connection of its own. They are as lean as can be: bytes that were made before, and
//! a look for one word in what comes back. The bare server does nothing but the handshake and reading one byte, so
//! a ratio says how much of the time the emulator spends on what it exists for.

use std::{
    error::Error,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use dps_client::{GroupKey, SasToken};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::Result;

/// How many devices there are.
const DEVICES: usize = 10_000;
/// How often each load is tried, in turn, so that what else the machine does meets all alike. The best of each counts.
const ROUNDS: usize = 3;
/// What a device waits for its answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// The argument that makes this program the bare server.
pub(crate) const BARE_SERVER: &str = "bare-server";

/// What a device does on its connection once TLS is up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// One byte each way.
    Bare,
    Mqtt,
    Http,
}

/// What one load came to.
struct Figures {
    per_second: f64,
    /// Of the server, for one device.
    cpu: Duration,
}

/// Prints the table.
pub(crate) fn run(dps: &Path) -> Result {
    let runtime = tokio::runtime::Runtime::new()?;
    let bare = Server::start(Command::new(std::env::current_exe()?).args(["load", BARE_SERVER]))?;
    let emulator = Server::start(&mut emulator(dps)?)?;
    println!(
        "{DEVICES} devices at once, each with a TLS handshake of its own; the best of {ROUNDS} rounds.\n"
    );
    println!(
        "| load | devices a second | of bare | server's CPU a device, ms |\n|---|---|---|---|"
    );
    let loads = [("bare TLS handshake", Act::Bare), ("mqtt", Act::Mqtt), ("http", Act::Http)];
    let mut best: [Option<Figures>; 3] = [None, None, None];
    for _ in 0..ROUNDS {
        for ((name, act), best) in loads.iter().zip(&mut best) {
            let server = if *act == Act::Bare { &bare } else { &emulator };
            let figures = runtime.block_on(server.load(*act));
            let figures = figures.map_err(|error| format!("{name}: {error}"))?;
            if best.as_ref().is_none_or(|best| best.per_second < figures.per_second) {
                *best = Some(figures);
            }
        }
    }
    let reference = best.first().and_then(Option::as_ref).map_or(0.0, |figures| figures.per_second);
    for ((name, _), figures) in loads.iter().zip(best.iter().flatten()) {
        let Figures { per_second, cpu } = figures;
        let ratio = per_second / reference;
        println!("| {name} | {per_second:.0} | {ratio:.2} | {:.2} |", cpu.as_secs_f64() * 1000.0);
    }
    let before = emulator.resident_mib()?;
    let connections = runtime.block_on(emulator.connect_all())?;
    println!(
        "\n{} idle MQTT connections: {:.0} MiB resident, {before:.0} before; peak {:.0} MiB.",
        connections.len(),
        emulator.resident_mib()?,
        emulator.status("VmHWM")?,
    );
    Ok(())
}

/// The command that serves at once, and is patient with those that have to wait for others.
fn emulator(dps: &Path) -> Result<Command> {
    let folder = std::env::temp_dir().join(format!("dps-load-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let config = folder.join("emulator.toml");
    fs::write(&config, "[limits]\nhandshake-timeout = 100\nidle-timeout = 600\n")?;
    let mut command = Command::new(dps);
    let [config, ca] = [config, folder.join("ca.pem")].map(|path| path.display().to_string());
    let key = GroupKey::random()?;
    command.args(["emulate", "--fast", "--quiet", "--config", &config, "--ca-out", &ca]);
    command.args(["--group-key", &key.expose_base64()]);
    Ok(command)
}

/// A server in a process of its own; it ends with this.
struct Server {
    child: Child,
    ready: serde_json::Value,
    client: TlsConnector,
}

impl Server {
    /// Starts a program that says on its first line where it serves.
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let mut roots = RootCertStore::empty();
        let ca = ready.get("caFile").and_then(|ca| ca.as_str()).ok_or("no CA")?;
        roots.add(CertificateDer::from_pem_slice(&fs::read(ca)?)?)?;
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { child, ready, client: Arc::new(config).into() })
    }

    fn port(&self, act: Act) -> u16 {
        let name = if act == Act::Http { "httpsPort" } else { "mqttPort" };
        self.ready
            .get(name)
            .and_then(|port| port.as_u64())
            .and_then(|port| port.try_into().ok())
            .unwrap_or(0)
    }

    /// Has every device do this once, all beginning at the same time.
    async fn load(&self, act: Act) -> Result<Figures> {
        let requests: Vec<Vec<u8>> =
            (0..DEVICES).map(|n| self.request(act, n)).collect::<Result<_>>()?;
        let (before, begin) = (self.cpu()?, Instant::now());
        let mut devices = JoinSet::new();
        for request in requests {
            devices.spawn(device(self.client.clone(), self.port(act), request, expected(act)));
        }
        while let Some(device) = devices.join_next().await {
            device?.map_err(plain)?;
        }
        let took = begin.elapsed();
        let cpu = (self.cpu()? - before) / u32::try_from(DEVICES)?;
        Ok(Figures { per_second: DEVICES as f64 / took.as_secs_f64(), cpu })
    }

    /// Connections of devices that are known and ask for nothing.
    async fn connect_all(&self) -> Result<Vec<TlsStream<TcpStream>>> {
        let mut devices = JoinSet::new();
        for number in 0..DEVICES {
            let request = self.request(Act::Mqtt, number)?;
            devices.spawn(device(self.client.clone(), self.port(Act::Mqtt), request, b"assigned"));
        }
        let mut connections = Vec::new();
        while let Some(device) = devices.join_next().await {
            connections.push(device?.map_err(plain)?);
        }
        Ok(connections)
    }

    /// The bytes that a device sends.
    fn request(&self, act: Act, number: usize) -> Result<Vec<u8>> {
        if act == Act::Bare {
            return Ok(vec![0]);
        }
        let text = |name: &str| {
            self.ready.get(name).and_then(|it| it.as_str()).ok_or("not in the ready line")
        };
        let (id_scope, key) = (text("idScope")?.parse()?, text("groupKey")?.parse::<GroupKey>()?);
        let name = format!("device-{number}");
        let id = name.parse()?;
        let expiry = SystemTime::now() + Duration::from_secs(3600);
        let token = SasToken::sign(&key.derive(&id), &id_scope, &id, expiry);
        let token = token.expose();
        let body = format!("{{\"registrationId\":\"{name}\"}}");
        if act == Act::Http {
            let length = body.len();
            return Ok(format!(
                "PUT /{id_scope}/registrations/{name}/register?api-version=2021-06-01 HTTP/1.1\r\nHost: localhost\r\n\
                 Authorization: {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes());
        }
        let user =
            format!("{id_scope}/registrations/{name}/api-version=2021-06-01&ClientVersion=load");
        let connect = [
            &b"\0\x04MQTT\x04\xc2\0\0"[..],
            &text_field(&name),
            &text_field(&user),
            &text_field(token),
        ];
        let subscribe = [&[0, 1][..], &text_field("$dps/registrations/res/#"), &[1]];
        let publish = [
            &text_field("$dps/registrations/PUT/iotdps-register/?$rid=1")[..],
            &[0, 2],
            body.as_bytes(),
        ];
        let packets =
            [(0x10, connect.concat()), (0x82, subscribe.concat()), (0x32, publish.concat())];
        Ok(packets.iter().flat_map(|(kind, rest)| packet(*kind, rest)).collect())
    }

    /// Its user and system time so far.
    fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which is in parentheses, the 12th and 13th field, in hundredths of a second.
        let fields = stat.rsplit_once(')').ok_or("no name")?.1;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(ticks.sum::<std::result::Result<u64, _>>()? * 10))
    }

    fn resident_mib(&self) -> Result<f64> {
        self.status("VmRSS")
    }

    /// A figure of `/proc/PID/status`, in MiB.
    fn status(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no such line")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

fn expected(act: Act) -> &'static [u8] {
    if act == Act::Bare { b"\0" } else { b"assigned" }
}

/// One device from connect to its answer; its connection comes back.
async fn device(
    client: TlsConnector,
    port: u16,
    request: Vec<u8>,
    expected: &'static [u8],
) -> Result<TlsStream<TcpStream>, Box<dyn Error + Send + Sync>> {
    let exchange = async {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        tcp.set_nodelay(true)?;
        let mut tls = client.connect(ServerName::try_from("localhost")?, tcp).await?;
        tls.write_all(&request).await?;
        let mut answer = Vec::with_capacity(2048);
        while !answer.windows(expected.len()).any(|part| part == expected) {
            if tls.read_buf(&mut answer).await? == 0 {
                return Err(format!("closed after {:?}", String::from_utf8_lossy(&answer)).into());
            }
        }
        Ok(tls)
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}

/// An error that has come from another task.
fn plain(error: Box<dyn Error + Send + Sync>) -> Box<dyn Error> {
    error
}

/// A text as MQTT has it, its length before it.
fn text_field(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap_or(0).to_be_bytes()[..], text.as_bytes()].concat()
}

/// A packet of MQTT: its first byte, the length of the rest in groups of seven bits, and the rest.
fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = rest.len();
    while length > 127 {
        packet.push((length % 128) as u8 | 128);
        length /= 128;
    }
    packet.push(length as u8);
    [&packet[..], rest].concat()
}

/// Serves the bare handshake until its standard input ends.
pub(crate) fn bare_server() -> Result {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let file = std::env::temp_dir().join(format!("dps-load-bare-{}.pem", std::process::id()));
    fs::write(&file, cert.pem())?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::runtime::Runtime::new()?.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener: TcpListener = socket.listen(4096)?;
        let port = listener.local_addr()?.port();
        println!("{}", serde_json::json!({ "caFile": file, "mqttPort": port }));
        loop {
            let (tcp, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                tcp.set_nodelay(true).ok();
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let mut byte = [0];
                if tls.read_exact(&mut byte).await.is_ok() && tls.write_all(&byte).await.is_ok() {
                    tls.read_exact(&mut byte).await.ok();
                }
            });
        }
    })
}
