//! The way to the TPM: a command out in one write, its answer back. A device and a software TPM's socket carry the
//! same bytes.

#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use tpm2_protocol::constant::TPM_MAX_COMMAND_SIZE;
use zeroize::Zeroizing;

use crate::{
    TpmAddress,
    frame::{Answer, HEADER},
};

pub(crate) enum Device {
    /// The kernel bounds the time that a command takes.
    File(File),
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Device {
    pub(crate) fn open(address: &TpmAddress, timeout: Duration) -> io::Result<Self> {
        match address {
            TpmAddress::Device(path) => {
                OpenOptions::new().read(true).write(true).open(path).map(Self::File)
            }
            TpmAddress::Tcp { host, port } => connect(host, *port, timeout).map(Self::Tcp),
            #[cfg(unix)]
            TpmAddress::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            #[cfg(not(unix))]
            TpmAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends a command and waits for its answer. After an error the connection can't be used any more: what comes
    /// over it next would be the answer to this command.
    pub(crate) fn exchange(&mut self, command: &[u8], timeout: Duration) -> io::Result<Answer> {
        let until = Instant::now() + timeout;
        self.limit(timeout)?;
        self.write_all(command)?;
        let mut answer = Zeroizing::new(vec![0; TPM_MAX_COMMAND_SIZE]);
        let mut have = 0;
        loop {
            let whole = answer.get(..have).filter(|have| have.len() >= HEADER);
            match whole.and_then(Answer::size_of) {
                Some(size) if !(HEADER..=TPM_MAX_COMMAND_SIZE).contains(&size) || have > size => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "what came is no answer of a TPM 2.0",
                    ));
                }
                Some(size) if size == have => {
                    answer.truncate(size);
                    return Ok(Answer(answer));
                }
                _ => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.limit(left)?;
            have += match self.read(answer.get_mut(have..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
        }
    }

    /// How long the next read or write may take.
    fn limit(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::File(_) => Ok(()),
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            #[cfg(unix)]
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(to),
            Self::Tcp(stream) => stream.read(to),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(to),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// Tries each address of the host, one after the other.
fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
