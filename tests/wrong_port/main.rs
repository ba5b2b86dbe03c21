//! A wrong port: whatever listens there, every transport says what it heard instead of its own protocol and which port is
//! its own, as soon as the first bytes have come.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod server;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use dps_client::{
    Config, Error, ErrorKind, RegistrationRequest, Settings, Stage, Transport, client,
};
use dps_conformance::{TransportCase, adjusted, fast, run_on_every_transport, settle};

use server::{Layer, Manner, Server, message};

/// How soon the first bytes end an attempt. A slow machine needs a part of it.
const AT_ONCE: Duration = Duration::from_secs(5);
const ALPN_ALERT: &[u8] = b"\x15\x03\x03\0\x02\x02\x78";

/// What listens: its name, what it sends, whether before it is spoken to, and what is said of it.
type Row = (&'static str, &'static [u8], Manner, &'static str);

const SERVERS: &[Row] = &[
    ("http", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", Manner::Answers, HTTP),
    ("http_that_closes", b"HTTP/1.0 400 Bad Request\r\n\r\n", Manner::AnswersAndCloses, HTTP),
    ("amqp", b"AMQP\0\x01\0\0", Manner::Answers, AMQP),
    ("amqp_that_closes", b"AMQP\x03\x01\0\0", Manner::AnswersAndCloses, AMQP),
    ("mqtt", b"\x20\x02\0\x01", Manner::Answers, MQTT),
    ("mqtt_that_closes", b"\x20\x02\0\x01", Manner::AnswersAndCloses, MQTT),
    ("mqtt_5", b"\x20\x03\0\x84\0", Manner::Answers, MQTT),
    ("mqtt_5_disconnects", b"\xe0\0", Manner::AnswersAndCloses, MQTT),
    ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n", Manner::Greets, "an SSH server"),
    ("ssh_byte_by_byte", b"SSH-2.0-dropbear\r\n", Manner::GreetsByteByByte, "an SSH server"),
    ("smtp", b"220 mail.example ESMTP\r\n", Manner::Greets, "an SMTP server"),
    (
        "smtp_in_two_lines",
        b"220-mail.example ESMTP\r\n220 hello\r\n",
        Manner::Greets,
        "an SMTP server",
    ),
    ("ftp", b"220 (vsFTPd 3.0.5)\r\n", Manner::Greets, "an FTP server"),
    ("greeting_of_some_server", b"220 hello\r\n", Manner::Greets, "an SMTP or FTP server"),
    ("imap", b"* OK IMAP4rev1\r\n", Manner::Greets, "an IMAP server"),
    ("pop3", b"+OK ready\r\n", Manner::Greets, "a POP3 server"),
    ("redis", b"-ERR unknown command\r\n", Manner::Answers, "a Redis or POP3 server"),
    (
        "redis_that_is_locked",
        b"-DENIED Redis is running in protected mode\r\n",
        Manner::Greets,
        "a Redis server",
    ),
    ("telnet", b"\xff\xfd\x18", Manner::Greets, "a Telnet server"),
    ("mysql", b"J\0\0\0\n8.0.36\0", Manner::Greets, "a MySQL server"),
    ("vnc", b"RFB 003.008\n", Manner::Greets, "a VNC server"),
    ("http_2", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", Manner::Greets, "an HTTP/2 server"),
    ("nobody_knows", b"\x01\x02sig=secret", Manner::Greets, "begins \"\\x01\\x02sig="),
    ("one_byte", b"?", Manner::Greets, "begins \"?\""),
];
const HTTP: &str = "an HTTP server";
const AMQP: &str = "an AMQP server";
const MQTT: &str = "an MQTT broker";

fn main() -> ExitCode {
    let mut cases = vec![
        TransportCase::new("tls_that_wants_alpn", tls_that_wants_alpn),
        TransportCase::new("a_port_that_closes", a_port_that_closes),
        TransportCase::new("a_silent_port", a_silent_port),
        TransportCase::new("tls_in_tls", tls_in_tls),
        TransportCase::new("an_echo", an_echo),
        TransportCase::new("websocket_of_another_protocol", websocket_of_another_protocol),
    ];
    for row in SERVERS {
        let name = row.0;
        cases.push(TransportCase::new(format!("{name}_without_tls"), |transport| {
            plain(transport, row)
        }));
        cases
            .push(TransportCase::new(format!("{name}_in_tls"), |transport| in_tls(transport, row)));
        cases.push(TransportCase::new(format!("{name}_in_websocket"), |transport| {
            in_websocket(transport, row)
        }));
    }
    run_on_every_transport(8, cases, [])
}

fn own_port(transport: Transport) -> u16 {
    match transport {
        Transport::Mqtt => 8883,
        Transport::Amqp => 5671,
        _ => 443,
    }
}

fn own_protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Mqtt | Transport::MqttWs => MQTT,
        Transport::Amqp | Transport::AmqpWs => AMQP,
        _ => HTTP,
    }
}

fn is_websocket(transport: Transport) -> bool {
    matches!(transport, Transport::MqttWs | Transport::AmqpWs)
}

async fn error_of(transport: Transport, config: Config, settings: Settings) -> Error {
    let client = client(transport, config, settings).unwrap();
    let request = RegistrationRequest::new("pump-17".parse().unwrap());
    let error = client.register(request).await.unwrap_err();
    settle(&client).await;
    error
}

/// Both what was heard and what would be right are in the message; and it comes at once.
async fn heard(transport: Transport, server: &Server, heard: &str) -> Error {
    let start = Instant::now();
    let error = error_of(transport, server.config(), fast()).await;
    let message = error.to_string();
    assert!(message.contains(heard), "{message}");
    let own = format!("this transport's own port is {}", own_port(transport));
    assert!(message.contains(&own), "{message}");
    assert!(!message.contains("secret"), "{message}");
    assert!(error.hint().is_some(), "{message}");
    assert!(start.elapsed() < AT_ONCE, "after {:?}: {message}", start.elapsed());
    error
}

async fn plain(transport: Transport, (_, sends, manner, says): &'static Row) {
    let server = Server::start(Layer::Tcp, *sends, *manner).await;
    let error = heard(transport, &server, says).await;
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Connection, Some(Stage::Tls)), "{error}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    // Whoever answers there has not shown to be the service: it may be something on the way.
    assert!(error.is_retryable(), "{error}");
}

async fn in_tls(transport: Transport, (_, sends, manner, says): &'static Row) {
    if *says == own_protocol(transport) || is_websocket(transport) && *says == HTTP {
        return;
    }
    let server = Server::start(Layer::Tls, *sends, *manner).await;
    let error = heard(transport, &server, says).await;
    assert!(error.to_string().contains("does not speak"), "{error}");
    // The server's certificate was the service's. What nobody knows may be damage before the service itself answers.
    let may_pass = is_websocket(transport) && says.contains("begins");
    assert_eq!(error.is_retryable(), may_pass, "{error}");
    if is_websocket(transport) {
        assert_eq!(error.stage(), Some(Stage::Websocket), "{error}");
    } else {
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

async fn in_websocket(transport: Transport, (_, sends, manner, says): &'static Row) {
    if *says == own_protocol(transport) || !is_websocket(transport) {
        return;
    }
    let server = Server::start(Layer::WebSocket, message(sends), *manner).await;
    let error = heard(transport, &server, says).await;
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

async fn websocket_of_another_protocol(transport: Transport) {
    let server = Server::start(Layer::WebSocketOf("soap"), [], Manner::Greets).await;
    let error = error_of(transport, server.config(), fast()).await;
    let message = error.to_string();
    match transport {
        Transport::MqttWs | Transport::AmqpWs => {
            assert!(message.contains("it speaks \"soap\", not"), "{message}");
            assert!(message.contains("this transport's own port is 443"), "{message}");
        }
        Transport::Mqtt | Transport::Amqp => assert!(message.contains(HTTP), "{message}"),
        _ => assert_eq!(error.kind(), ErrorKind::Rejected, "{message}"),
    }
    assert!(!error.is_retryable(), "{message}");
}

async fn tls_that_wants_alpn(transport: Transport) {
    let server = Server::start(Layer::Tcp, ALPN_ALERT, Manner::AnswersAndCloses).await;
    let error = heard(transport, &server, "ALPN").await;
    assert_eq!(error.stage(), Some(Stage::Tls), "{error}");
    assert!(!error.is_retryable(), "{error}");
}

async fn a_port_that_closes(transport: Transport) {
    for layer in [Layer::Tcp, Layer::Tls] {
        let server = Server::start(layer, [], Manner::AnswersAndCloses).await;
        let error = error_of(transport, server.config(), fast()).await;
        let hint = error.hint().unwrap_or_else(|| panic!("{layer:?}: {error}"));
        let own = format!("this transport's own port is {}", own_port(transport));
        assert!(hint.contains(&own), "{layer:?}: {error}: {hint}");
        assert!(error.is_retryable(), "{layer:?}: {error}");
    }
}

async fn a_silent_port(transport: Transport) {
    let server = Server::start(Layer::Tcp, [], Manner::Greets).await;
    let config = adjusted(server.config(), |config| {
        config.connect_timeout = Some(Duration::from_millis(300));
    });
    let error = error_of(transport, config, fast()).await;
    let own = format!("this transport's own port is {}", own_port(transport));
    assert!(error.hint().unwrap().contains(&own), "{error}: {:?}", error.hint());
    assert_eq!(error.stage(), Some(Stage::Tls), "{error}");

    let server = Server::start(Layer::Tls, [], Manner::Greets).await;
    let settings =
        adjusted(fast(), |settings| settings.request_timeout = Duration::from_millis(700));
    let error = error_of(transport, server.config(), settings).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

async fn tls_in_tls(transport: Transport) {
    let server = Server::start(Layer::Tls, ALPN_ALERT, Manner::Answers).await;
    heard(transport, &server, "a TLS server").await;
}

async fn an_echo(transport: Transport) {
    for layer in [Layer::Tcp, Layer::Tls] {
        let server = Server::start(layer, [], Manner::Echoes).await;
        let start = Instant::now();
        let error = error_of(transport, server.config(), fast()).await;
        assert!(!error.to_string().contains("SharedAccessSignature"), "{error}");
        assert!(start.elapsed() < AT_ONCE, "{layer:?}: {error}");
    }
}
