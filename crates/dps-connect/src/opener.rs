//! The streams of one transport, one of which can be opened before there is a request for it.

use std::{future::poll_fn, pin::Pin, task::Poll};

use dps_state_machine::{ConnectionError, Error, Progress, Response, Stage};
use tokio::io::{AsyncRead as _, ReadBuf};

use crate::{
    carrier::{Carrier, Io, Protocol},
    config::Config,
    connector::{Connector, Opened, catch_up},
    failure::Peer,
};

/// Opens the streams for one protocol on one carrier.
#[derive(Debug)]
pub struct Opener {
    connector: Connector,
    protocol: Protocol,
    carrier: Carrier,
    /// The stream that was opened ahead, on which nothing was sent yet.
    ready: Option<Ready>,
}

struct Ready(Box<dyn Io>);

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ready")
    }
}

impl Opener {
    /// Prepares all that needs no I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`], see [`Connector::new`]; or the carrier is not compiled in.
    pub fn new(config: Config, protocol: Protocol, carrier: Carrier) -> Result<Self, Error> {
        carrier.ensure_built()?;
        Ok(Self { connector: Connector::new(config)?, protocol, carrier, ready: None })
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.connector.config()
    }

    /// Where its streams lead.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the environment names a proxy that can't be used.
    pub fn peer(&self) -> Result<Peer, Error> {
        Peer::of(self.config(), self.protocol.port(self.carrier))
    }

    /// Opens the stream that the next [`open`](Self::open) gives, unless there is one.
    ///
    /// # Errors
    /// Those of [`Connector::open`]; the service's refusal is [`Error::Connection`] here.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was open.
    pub async fn open_ahead(&mut self, progress: &Progress) -> Result<(), Error> {
        match self.open(progress).await? {
            Opened::Ready(stream) => {
                self.ready = Some(Ready(stream));
                Ok(())
            }
            Opened::Refused(refusal) => Err(self.refused(&refusal)?.into()),
        }
    }

    /// The stream that was opened ahead, if it still stands, or else a new one.
    ///
    /// # Errors
    /// Those of [`Connector::open`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was open.
    pub async fn open(&mut self, progress: &Progress) -> Result<Opened<Box<dyn Io>>, Error> {
        if let Some(Ready(mut stream)) = self.ready.take()
            && is_silent(&mut stream).await
        {
            return Ok(Opened::Ready(stream));
        }
        self.connector.open(&self.protocol, self.carrier, progress).await
    }

    /// Closes the stream that was opened ahead.
    pub fn close(&mut self) {
        self.ready = None;
    }

    fn refused(
        &self,
        Response { status, reason, hint, .. }: &Response,
    ) -> Result<ConnectionError, Error> {
        let peer = self.peer()?;
        let what = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let message =
            format!("{peer} refused the upgrade to WebSocket with the status {status}{what}");
        let mut error = ConnectionError::new(Stage::Websocket, message);
        error.hint.clone_from(hint);
        Ok(error)
    }
}

/// Whether the peer has neither closed nor said anything before it was asked, by now.
async fn is_silent(stream: &mut Box<dyn Io>) -> bool {
    catch_up().await;
    let mut byte = [0];
    let mut byte = ReadBuf::new(&mut byte);
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut byte).is_pending())).await
}
