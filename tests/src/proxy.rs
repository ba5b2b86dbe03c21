//! A CONNECT proxy on loopback.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use dps_client::{Proxy, ProxyChoice};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What the proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyScript {
    /// Opens tunnels for everybody.
    Open,
    /// Opens tunnels for `user` with the password `pa:ss`.
    Authenticated,
    /// Opens tunnels to this port only.
    OnlyTo(u16),
    /// Answers with this status line and closes.
    Refuse(&'static str),
    /// Answers with these bytes, whatever they are, and closes.
    Answer(&'static [u8]),
    /// Opens tunnels with these bytes for an answer.
    OpenWith(&'static [u8]),
    /// Closes instead of answering.
    Close,
    /// Opens tunnels to port 443, all of which lead to this port of this machine, and refuses all others.
    Only443(u16),
    /// Opens the tunnel and closes it at once.
    CloseTunnel,
    /// Never answers.
    Silent,
}

/// The heads of the requests for tunnels, in order.
type Requests = Arc<Mutex<Vec<String>>>;

/// A running proxy; dropped, it stops.
#[derive(Debug)]
pub struct TestProxy {
    port: u16,
    tunnels: Arc<AtomicUsize>,
    requests: Requests,
    _tasks: JoinSet<()>,
}

impl TestProxy {
    /// Starts on a free port.
    pub async fn start(script: ProxyScript) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let port = listener.local_addr().expect("its address").port();
        let tunnels = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let requests = Requests::default();
        let (counter, asked) = (Arc::clone(&tunnels), Arc::clone(&requests));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, script, Arc::clone(&counter), Arc::clone(&asked)));
            }
        });
        Self { port, tunnels, requests, _tasks: tasks }
    }

    /// The URL that a client is given; the user part is empty or like `user:pa%3Ass@`.
    #[must_use]
    pub fn choice(&self, user: &str) -> ProxyChoice {
        let url = format!("http://{user}127.0.0.1:{}", self.port);
        ProxyChoice::Url(url.parse::<Proxy>().expect("a proxy's URL"))
    }

    /// The heads of all requests for a tunnel until now.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many tunnels were opened.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut client: TcpStream,
    script: ProxyScript,
    tunnels: Arc<AtomicUsize>,
    requests: Requests,
) {
    let Some(head) = read_head(&mut client).await else { return };
    requests.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let authorized = head.contains("Basic dXNlcjpwYTpzcw==");
    let refusal = match script {
        ProxyScript::Refuse(status) => Some(status),
        ProxyScript::Authenticated if !authorized => Some("407 Proxy Authentication Required"),
        ProxyScript::OnlyTo(port)
            if !head.starts_with(&format!("CONNECT {}:{port} ", host(&head))) =>
        {
            Some("403 Forbidden")
        }
        ProxyScript::Only443(_) if !head.contains(":443 ") => Some("403 Forbidden"),
        ProxyScript::Answer(answer) => {
            let _gone = client.write_all(answer).await;
            return;
        }
        ProxyScript::Close => return,
        ProxyScript::Silent => return std::future::pending().await,
        _ => None,
    };
    if let Some(status) = refusal {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let _gone = client.write_all(answer.as_bytes()).await;
        return;
    }
    let Some(target) = head.split_whitespace().nth(1) else { return };
    let target = match script {
        ProxyScript::Only443(port) => format!("127.0.0.1:{port}"),
        _ => target.to_owned(),
    };
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    // A test whose clock is paused waits for nothing.
    for tcp in [&client, &server] {
        tcp.set_nodelay(true).expect("a socket");
    }
    tunnels.fetch_add(1, Ordering::SeqCst);
    let answer = match script {
        ProxyScript::OpenWith(answer) => answer,
        _ => b"HTTP/1.1 200 Connection established\r\n\r\n",
    };
    if client.write_all(answer).await.is_ok() && script != ProxyScript::CloseTunnel {
        let _gone = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// The host that a tunnel is asked to.
fn host(head: &str) -> &str {
    let target = head.split_whitespace().nth(1).unwrap_or_default();
    target.rsplit_once(':').map_or(target, |(host, _)| host)
}

async fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
