//! Names to addresses, on threads that may be refused.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::{PoisonError, RwLock},
    thread,
};

use dps_state_machine::{ConnectionError, Progress, Step};
use tokio::sync::{Semaphore, oneshot};

use crate::failure;

/// What looks a name up. It may block.
pub type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// The system's lookup. A test may put another one in its place, to have a name whose lookup never ends.
pub static LOOKUP: RwLock<Lookup> = RwLock::new(by_the_system);

/// As many lookups run at once as tokio has threads that may block. Others wait for their turn.
static TURNS: Semaphore = Semaphore::const_new(512);

/// What `localhost` and each name below it is, without a lookup: see <https://www.rfc-editor.org/rfc/rfc6761#section-6.3>.
/// The runtime waits for no thread then, so that a test may pause its clock.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Looks up a host; an IP address stands for itself, and `localhost` or a name that ends in it is the loopback addresses.
///
/// # Errors
/// [`ConnectionError`] with the stage `resolve`, also when the system has no thread left to look it up on.
///
/// # Cancel safety
/// Safe to drop; the system's resolver may finish its lookup on a thread of its own.
pub async fn resolve(
    host: &str,
    port: u16,
    progress: &Progress,
) -> Result<Vec<SocketAddr>, ConnectionError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    progress.enter(&Step::Resolving { host: host.to_owned() });
    if host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost")) {
        return Ok(LOOPBACK.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    match on_a_thread(host, port).await {
        Ok(addresses) if addresses.is_empty() => Err(failure::resolve(host, &"it has no address")),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(failure::resolve(host, &error)),
    }
}

/// Tokio's own lookup panics, or waits without an end, when the system has no thread for it.
async fn on_a_thread(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let turn = TURNS.acquire().await.map_err(io::Error::other)?;
    let look_up = *LOOKUP.read().unwrap_or_else(PoisonError::into_inner);
    let (sender, answer) = oneshot::channel();
    let host = host.to_owned();
    let work = move || {
        let _turn = turn;
        drop(sender.send(look_up(&host, port)));
    };
    thread::Builder::new().name("dps-lookup".to_owned()).spawn(work).map_err(no_thread)?;
    answer.await.map_err(io::Error::other)?
}

fn by_the_system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

fn no_thread(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("no thread can be started to look it up: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn localhost_and_the_names_below_it_are_the_loopback_without_a_lookup() {
        let no_lookup: Lookup = |host, _| Err(io::Error::other(format!("{host} was looked up")));
        *LOOKUP.write().unwrap() = no_lookup;
        for name in ["localhost", "LocalHost", "hub.localhost", "a.b.LOCALHOST"] {
            let found = resolve(name, 443, &Progress::default()).await.unwrap();
            assert_eq!(found, LOOPBACK.map(|address| SocketAddr::new(address, 443)), "{name}");
        }
        for name in ["localhost.example", "mylocalhost"] {
            let error = resolve(name, 443, &Progress::default()).await.unwrap_err();
            assert!(error.to_string().contains("was looked up"), "{error}");
        }
    }
}
