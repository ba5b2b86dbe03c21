//! Ports to listen on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpSocket};

/// Listens on one port of several addresses.
pub(crate) fn bind(
    addresses: &[IpAddr],
    port: u16,
) -> Result<(u16, Vec<TcpListener>), (SocketAddr, io::Error)> {
    const LOOPBACK: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    // A port that is free on one address may be taken on another.
    const ATTEMPTS: usize = 16;
    let chosen = !addresses.is_empty();
    let addresses = if chosen { addresses } else { &LOOPBACK };
    let mut attempt = 0;
    loop {
        attempt += 1;
        match bind_each(addresses, port, chosen) {
            Err((_, error))
                if port == 0 && attempt < ATTEMPTS && error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
}

fn bind_each(
    addresses: &[IpAddr],
    mut port: u16,
    chosen: bool,
) -> Result<(u16, Vec<TcpListener>), (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match listen(address) {
            Ok(listener) => {
                port = listener.local_addr().map_err(|error| (address, error))?.port();
                listeners.push(listener);
            }
            // Many machines have no IPv6. Nobody asked for it, so go on without.
            Err(error)
                if !chosen
                    && address.is_ipv6()
                    && error.kind() != io::ErrorKind::AddrInUse
                    && error.kind() != io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err((address, error)),
        }
    }
    Ok((port, listeners))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    /// Connections that may wait to be accepted; the system drops more.
    const BACKLOG: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port that a stopped emulator had is free at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
