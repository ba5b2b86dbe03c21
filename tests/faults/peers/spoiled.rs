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
    meddler::{Mischief, Plot, Trouble},
    paced::{Pace, Paced},
    pki::Credentials,
    talk::{Message, Talk, close_frame},
};

/// One connection, from the first byte on.
pub(super) async fn meet(tcp: TcpStream, plot: &Plot) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let trouble = plot.trouble.subscribe();
    let pace = Pace::new(move || {
        let mut trouble = trouble.clone();
        async move {
            let _ = trouble.wait_for(Option::is_none).await;
        }
    });
    let mut client = Paced::new(tcp, pace.clone());
    if plot.proxy {
        read_head(&mut client).await?;
        if let Some(what) = plot.trouble(Stage::Proxy) {
            plot.strikes();
            match what {
                Mischief::Drip => pace.set(DRIP),
                other => return spoil(client, other, plot).await,
            }
        }
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    }
    let mut credentials = Credentials::Valid;
    if let Some(what) = plot.trouble(Stage::Tls) {
        plot.strikes();
        match what {
            Mischief::Drip => pace.set(DRIP),
            Mischief::Show(bad) => credentials = bad,
            other => {
                // The hello is read first: a close with bytes unread is a reset.
                let _hello = client.read(&mut [0; 4096]).await?;
                return spoil(client, other, plot).await;
            }
        }
    }
    let client = plot.pki.acceptor(credentials).accept(client).await?;
    relay(client, pace, plot).await
}

/// Between two bytes. Whoever waits for an answer has given up long before.
const DRIP: Duration = Duration::from_secs(1);

/// A record that says: fatal, internal error.
const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];

/// Trouble before TLS stands.
async fn spoil(mut client: Paced, what: Mischief, plot: &Plot) -> io::Result<()> {
    match what {
        Mischief::Close => Ok(()),
        Mischief::Reset => client.tcp.set_zero_linger(),
        Mischief::HalfOpen => {
            plot.lifted().await;
            Ok(())
        }
        Mischief::Alert => say(client, ALERT, plot).await,
        Mischief::Corrupt => say(client, CORRUPT, plot).await,
        Mischief::Say(bytes) => say(client, bytes, plot).await,
        Mischief::Die(state) => {
            client.tcp.set_zero_linger()?;
            plot.turn(state).await;
            Ok(())
        }
        _ => swallow(&mut client, plot).await,
    }
}

async fn say(
    mut client: impl AsyncRead + tokio::io::AsyncWrite + Unpin,
    bytes: &[u8],
    plot: &Plot,
) -> io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await?;
    swallow(&mut client, plot).await
}

/// Reads and forgets until the client is gone or the trouble is over.
async fn swallow(client: &mut (impl AsyncRead + Unpin), plot: &Plot) -> io::Result<()> {
    let mut nowhere = tokio::io::sink();
    select! {
        read = tokio::io::copy(client, &mut nowhere) => read.map(|_| ()),
        () = plot.lifted() => Ok(()),
    }
}

async fn read_head(client: &mut Paced) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    Ok(())
}

/// An application-data record of noise.
const CORRUPT: &[u8] = b"\x17\x03\x03\x00\x20not what the keys would have made of";

/// Both sides of TLS stand: everything goes through, but for the trouble.
async fn relay(mut client: TlsStream<Paced>, pace: Pace, plot: &Plot) -> io::Result<()> {
    let service = TcpStream::connect(plot.service).await?;
    service.set_nodelay(true)?;
    let name = ServerName::IpAddress(plot.service.ip().into());
    let mut service = plot.connector.connect(name, service).await?;
    let mut talk = Talk::new(plot.transport);
    let mut trouble = plot.trouble.subscribe();
    let (mut up, mut down) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        select! {
            read = client.read(&mut up) => {
                let bytes = up.get(..read?).unwrap_or_default();
                if bytes.is_empty() {
                    return service.shutdown().await;
                }
                talk.client_says(bytes);
                service.write_all(bytes).await?;
                service.flush().await?;
            }
            read = service.read(&mut down) => {
                let bytes = down.get(..read?).unwrap_or_default();
                if bytes.is_empty() {
                    return client.shutdown().await;
                }
                for message in talk.service_says(bytes) {
                    let Some(what) = plot.trouble_with(&message) else {
                        client.write_all(&message.bytes).await?;
                        continue;
                    };
                    plot.strikes();
                    match pass(&mut client, message, what, &pace, plot).await? {
                        Then::GoOn => {}
                        Then::Over => return meddle(client, what, plot).await,
                    }
                }
                client.flush().await?;
            }
            changed = trouble.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = *trouble.borrow_and_update();
                if let Some(Trouble { at: Stage::EndSession, what, .. }) = now {
                    if let Mischief::Drip = what {
                        pace.set(DRIP);
                        plot.strikes();
                    } else {
                        return meddle_at_the_end(client, what, plot).await;
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

/// Trouble with one message, after which the conversation goes on, if it does.
async fn pass(
    client: &mut TlsStream<Paced>,
    mut message: Message,
    what: Mischief,
    pace: &Pace,
    plot: &Plot,
) -> io::Result<Then> {
    match what {
        Mischief::Drip => {
            pace.set(DRIP);
            client.write_all(&message.bytes).await?;
        }
        Mischief::Swallow => {}
        Mischief::Twice => {
            client.write_all(&message.bytes).await?;
            client.write_all(&message.bytes).await?;
        }
        Mischief::Edit(edit) => {
            if !edit(&mut message.bytes) {
                plot.misses.send_modify(|count| *count += 1);
            }
            client.write_all(&message.bytes).await?;
        }
        Mischief::Late => {
            plot.lifted().await;
            client.write_all(&message.bytes).await?;
        }
        _ => return Ok(Then::Over),
    }
    Ok(Then::GoOn)
}

/// As [`meddle`]; that it has struck is told once the connection is broken, or while it is being spoiled.
async fn meddle_at_the_end(
    client: TlsStream<Paced>,
    what: Mischief,
    plot: &Plot,
) -> io::Result<()> {
    let at_once = matches!(what, Mischief::Close | Mischief::Reset | Mischief::Die(_));
    if !at_once {
        plot.strikes();
    }
    let over = meddle(client, what, plot).await;
    if at_once {
        plot.strikes();
    }
    over
}

/// Trouble that ends the conversation.
async fn meddle(mut client: TlsStream<Paced>, what: Mischief, plot: &Plot) -> io::Result<()> {
    match what {
        Mischief::Close => Ok(()),
        Mischief::Reset => client.get_ref().0.tcp.set_zero_linger(),
        Mischief::HalfOpen => {
            plot.lifted().await;
            Ok(())
        }
        Mischief::Alert => {
            // A record that our own side can't decrypt makes it send the alert, encrypted as it must be.
            let session = client.get_mut().1;
            session.read_tls(&mut &*CORRUPT)?;
            let _refused = session.process_new_packets();
            client.flush().await?;
            swallow(&mut client.get_mut().0, plot).await
        }
        Mischief::Corrupt => {
            let tcp = client.get_mut().0;
            tcp.write_all(CORRUPT).await?;
            swallow(tcp, plot).await
        }
        Mischief::Say(bytes) => say(client, bytes, plot).await,
        Mischief::CloseWebsocket => say(client, &close_frame(1011, "in trouble"), plot).await,
        Mischief::Die(state) => {
            client.get_ref().0.tcp.set_zero_linger()?;
            plot.turn(state).await;
            Ok(())
        }
        _ => swallow(&mut client, plot).await,
    }
}
