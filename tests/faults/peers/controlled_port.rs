//! A port that can be open, shut, or so crowded that nobody gets an answer.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

/// See the module. The port is taken in every state.
pub(crate) enum ControlledPort {
    /// Connections are accepted.
    Open(TcpListener),
    /// Connections are refused.
    Shut(TcpSocket),
    /// The queue is full: what comes next gets no answer at all.
    Crowded(TcpListener, Vec<TcpStream>),
}

/// Which of the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortState {
    Open,
    Shut,
    Crowded,
}

impl ControlledPort {
    pub(crate) fn new() -> io::Result<(Self, SocketAddr)> {
        let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        Ok((Self::Shut(socket), address))
    }

    pub(crate) async fn turn(&mut self, address: SocketAddr, to: PortState) -> io::Result<()> {
        let is = match self {
            Self::Open(_) => PortState::Open,
            Self::Shut(_) => PortState::Shut,
            Self::Crowded(..) => PortState::Crowded,
        };
        if is == to {
            return Ok(());
        }
        // A listener can't be un-listened: it goes first, and its port is taken again at once.
        let listener = match std::mem::replace(self, Self::Shut(TcpSocket::new_v4()?)) {
            Self::Shut(socket) => {
                let queue = if to == PortState::Crowded { 1 } else { 64 };
                Some(socket.listen(queue)?)
            }
            Self::Crowded(listener, crowd) if to == PortState::Open => {
                for _ in &crowd {
                    listener.accept().await?;
                }
                Some(listener)
            }
            Self::Open(listener) | Self::Crowded(listener, _) => {
                drop(listener);
                None
            }
        };
        *self = match (listener, to) {
            (Some(listener), PortState::Open) => Self::Open(listener),
            (Some(listener), PortState::Crowded) => {
                let crowd = crowd(address).await?;
                Self::Crowded(listener, crowd)
            }
            (_, PortState::Shut) => Self::Shut(bound(address)?),
            (None, PortState::Open) => Self::Open(bound(address)?.listen(64)?),
            (None, PortState::Crowded) => {
                let listener = bound(address)?.listen(1)?;
                Self::Crowded(listener, crowd(address).await?)
            }
        };
        Ok(())
    }

    /// The next connection; never, unless the port is open.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => listener.accept().await.map(|(tcp, _)| tcp),
            Self::Shut(_) | Self::Crowded(..) => std::future::pending().await,
        }
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Fills the queue until a connection gets no answer.
async fn crowd(address: SocketAddr) -> io::Result<Vec<TcpStream>> {
    let mut crowd = Vec::new();
    loop {
        match timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
            Ok(connected) => crowd.push(connected?),
            Err(_) => return Ok(crowd),
        }
    }
}
