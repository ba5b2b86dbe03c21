//! One connection through the man in the middle.

use std::{io, time::Duration};

use dps_client::Stage;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    select,
};
use tokio_rustls::server::TlsStream;

use super::{
    conversation::{Conversation, Message, close_frame},
    man_in_the_middle::{Injection, Interception, Misbehavior},
    pki::Credentials,
    slow_stream::{Pace, SlowStream},
};

/// One connection, from the first byte on.
pub(super) async fn serve(tcp: TcpStream, interception: &Interception) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let injection = interception.injection.subscribe();
    let pace = Pace::new(move || {
        let mut injection = injection.clone();
        async move {
            let _ = injection.wait_for(Option::is_none).await;
        }
    });
    let mut client = SlowStream::new(tcp, pace.clone());
    if interception.proxy {
        read_head(&mut client).await?;
        if let Some(what) = interception.injection(Stage::Proxy) {
            interception.injects();
            match what {
                Misbehavior::Drip => pace.set(DRIP),
                other => return inject_before_tls(client, other, interception).await,
            }
        }
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    }
    let mut credentials = Credentials::Valid;
    if let Some(what) = interception.injection(Stage::Tls) {
        interception.injects();
        match what {
            Misbehavior::Drip => pace.set(DRIP),
            Misbehavior::Show(bad) => credentials = bad,
            other => {
                // The hello is read first: a close with bytes unread is a reset.
                let _hello = client.read(&mut [0; 4096]).await?;
                return inject_before_tls(client, other, interception).await;
            }
        }
    }
    let client = interception.pki.acceptor(credentials).accept(client).await?;
    relay(client, pace, interception).await
}

/// Between two bytes. Whoever waits for an answer has given up long before.
const DRIP: Duration = Duration::from_secs(1);

/// A record that says: fatal, internal error.
const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];

/// A fault before TLS stands.
async fn inject_before_tls(
    mut client: SlowStream,
    what: Misbehavior,
    interception: &Interception,
) -> io::Result<()> {
    match what {
        Misbehavior::Close => Ok(()),
        Misbehavior::Reset => client.tcp.set_zero_linger(),
        Misbehavior::HalfOpen => {
            interception.cleared().await;
            Ok(())
        }
        Misbehavior::Alert => say(client, ALERT, interception).await,
        Misbehavior::Corrupt => say(client, CORRUPT, interception).await,
        Misbehavior::Say(bytes) => say(client, bytes, interception).await,
        Misbehavior::Die(state) => {
            client.tcp.set_zero_linger()?;
            interception.turn(state).await;
            Ok(())
        }
        _ => swallow(&mut client, interception).await,
    }
}

async fn say(
    mut client: impl AsyncRead + tokio::io::AsyncWrite + Unpin,
    bytes: &[u8],
    interception: &Interception,
) -> io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await?;
    swallow(&mut client, interception).await
}

/// Reads and forgets until the client is gone or the fault is cleared.
async fn swallow(
    client: &mut (impl AsyncRead + Unpin),
    interception: &Interception,
) -> io::Result<()> {
    let mut nowhere = tokio::io::sink();
    select! {
        read = tokio::io::copy(client, &mut nowhere) => read.map(|_| ()),
        () = interception.cleared() => Ok(()),
    }
}

async fn read_head(client: &mut SlowStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    Ok(())
}

/// An application-data record of noise.
const CORRUPT: &[u8] = b"\x17\x03\x03\x00\x20not what the keys would have made of";

/// Both sides of TLS stand: everything goes through, but for the injected fault.
async fn relay(
    mut client: TlsStream<SlowStream>,
    pace: Pace,
    interception: &Interception,
) -> io::Result<()> {
    let service = TcpStream::connect(interception.service).await?;
    service.set_nodelay(true)?;
    let name = ServerName::IpAddress(interception.service.ip().into());
    let mut service = interception.connector.connect(name, service).await?;
    let mut conversation = Conversation::new(interception.transport);
    let mut injection = interception.injection.subscribe();
    let (mut up, mut down) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        select! {
            read = client.read(&mut up) => {
                let bytes = up.get(..read?).unwrap_or_default();
                if bytes.is_empty() {
                    return service.shutdown().await;
                }
                conversation.client_says(bytes);
                service.write_all(bytes).await?;
                service.flush().await?;
            }
            read = service.read(&mut down) => {
                let bytes = down.get(..read?).unwrap_or_default();
                if bytes.is_empty() {
                    return client.shutdown().await;
                }
                for message in conversation.service_says(bytes) {
                    let Some(what) = interception.injection_with(&message) else {
                        client.write_all(&message.bytes).await?;
                        continue;
                    };
                    interception.injects();
                    match pass(&mut client, message, what, &pace, interception).await? {
                        Then::GoOn => {}
                        Then::Over => return inject(client, what, interception).await,
                    }
                }
                client.flush().await?;
            }
            changed = injection.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = *injection.borrow_and_update();
                if let Some(Injection { at: Stage::EndSession, what, .. }) = now {
                    if let Misbehavior::Drip = what {
                        pace.set(DRIP);
                        interception.injects();
                    } else {
                        return inject_at_the_end(client, what, interception).await;
                    }
                }
            }
        }
    }
}

enum Then {
    GoOn,
    Over,
}

/// A fault in one message, after which the conversation may go on.
async fn pass(
    client: &mut TlsStream<SlowStream>,
    mut message: Message,
    what: Misbehavior,
    pace: &Pace,
    interception: &Interception,
) -> io::Result<Then> {
    match what {
        Misbehavior::Drip => {
            pace.set(DRIP);
            client.write_all(&message.bytes).await?;
        }
        Misbehavior::Swallow => {}
        Misbehavior::Twice => {
            client.write_all(&message.bytes).await?;
            client.write_all(&message.bytes).await?;
        }
        Misbehavior::Edit(edit) => {
            if !edit(&mut message.bytes) {
                interception.misses.send_modify(|count| *count += 1);
            }
            client.write_all(&message.bytes).await?;
        }
        Misbehavior::Late => {
            interception.cleared().await;
            client.write_all(&message.bytes).await?;
        }
        _ => return Ok(Then::Over),
    }
    Ok(Then::GoOn)
}

/// As [`inject`]; the fault counts as injected once the connection is broken, or while it breaks.
async fn inject_at_the_end(
    client: TlsStream<SlowStream>,
    what: Misbehavior,
    interception: &Interception,
) -> io::Result<()> {
    let at_once = matches!(what, Misbehavior::Close | Misbehavior::Reset | Misbehavior::Die(_));
    if !at_once {
        interception.injects();
    }
    let over = inject(client, what, interception).await;
    if at_once {
        interception.injects();
    }
    over
}

/// A fault that ends the conversation.
async fn inject(
    mut client: TlsStream<SlowStream>,
    what: Misbehavior,
    interception: &Interception,
) -> io::Result<()> {
    match what {
        Misbehavior::Close => Ok(()),
        Misbehavior::Reset => client.get_ref().0.tcp.set_zero_linger(),
        Misbehavior::HalfOpen => {
            interception.cleared().await;
            Ok(())
        }
        Misbehavior::Alert => {
            // A record that our own side can't decrypt makes it send the alert, encrypted as it must be.
            let session = client.get_mut().1;
            session.read_tls(&mut &*CORRUPT)?;
            let _refused = session.process_new_packets();
            client.flush().await?;
            swallow(&mut client.get_mut().0, interception).await
        }
        Misbehavior::Corrupt => {
            let tcp = client.get_mut().0;
            tcp.write_all(CORRUPT).await?;
            swallow(tcp, interception).await
        }
        Misbehavior::Say(bytes) => say(client, bytes, interception).await,
        Misbehavior::CloseWebsocket => {
            say(client, &close_frame(1011, "in trouble"), interception).await
        }
        Misbehavior::Die(state) => {
            client.get_ref().0.tcp.set_zero_linger()?;
            interception.turn(state).await;
            Ok(())
        }
        _ => swallow(&mut client, interception).await,
    }
}
