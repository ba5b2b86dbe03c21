//! The admin port, as programs and browsers meet it.

use dps_emulator::{Attestation, Config, Emulator, Enrollment, SymmetricKey};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{PATIENCE, Requests, connect};

mod document;
mod enrollments;
mod guard;
mod schema;
mod steering;
mod watching;

/// An answer as it came.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The status, the field, the value and the message of a refusal.
    fn refused(&self) -> (u16, String, String, String) {
        let json = self.json();
        let text = |name: &str| json["error"][name].as_str().unwrap().to_owned();
        (self.status, text("field"), text("value"), text("message"))
    }
}

/// Where an admin port is.
#[derive(Clone, Copy)]
struct Port(u16);

impl Port {
    fn of(emulator: &Emulator) -> Self {
        Self(emulator.admin_port().unwrap())
    }

    async fn get(self, path: &str) -> Got {
        self.ask(&format!("GET {path}"), "", "").await
    }

    async fn send(self, request: &str, body: &str) -> Got {
        self.ask(request, "Content-Type: application/json\r\n", body).await
    }

    /// `request` is a method and a path.
    async fn ask(self, request: &str, headers: &str, body: &str) -> Got {
        let stream = self.begin(request, headers, body).await;
        tokio::time::timeout(PATIENCE, end(stream)).await.expect("an answer in time")
    }

    /// In HTTP/1.0, whose answers end with the connection.
    async fn begin(self, request: &str, headers: &str, body: &str) -> TcpStream {
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        let length = body.len();
        let head = format!("{request} HTTP/1.0\r\n{host}{headers}Content-Length: {length}\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", self.0)).await.unwrap();
        stream.write_all((head + body).as_bytes()).await.unwrap();
        stream
    }
}

/// All of an answer.
async fn end(mut stream: TcpStream) -> Got {
    let mut answer = Vec::new();
    // What closes in the middle of a body leaves that unread.
    stream.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Got { status, head: head.to_owned(), body: body.to_owned() }
}

fn key() -> SymmetricKey {
    "c29tZSBkZXZpY2UncyBrZXk=".parse().unwrap()
}

/// For two devices with one key.
fn config() -> Config {
    let device =
        |id: &str| Enrollment::individual(id.parse().unwrap(), Attestation::symmetric_key(key()));
    Emulator::builder().admin_port(0).enrollment(device("pump-17")).enrollment(device("Valve:3"))
}

async fn started() -> (Emulator, Port) {
    let emulator = config().start().await.unwrap();
    let port = Port::of(&emulator);
    (emulator, port)
}

/// Lets a device register; the answer's status.
async fn register(emulator: &Emulator, id: &'static str) -> u16 {
    let requests = Requests::with_key(emulator, id, &key());
    connect(emulator).await.unwrap().ask(&requests.register()).await.unwrap().status
}
