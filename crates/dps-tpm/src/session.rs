//! One visit to the TPM: open, some commands, close, with nothing left behind.

use std::{io, sync::Arc, thread, time::Duration};

use tpm2_protocol::{
    TpmResult,
    data::{TpmCc, TpmRcBase},
};

use crate::{
    TpmConfig, TpmError,
    device::Device,
    error::ResponseCode,
    frame::{Answer, Command, Reader},
};

/// How often a command is sent again that the TPM puts off, and how long the first wait is; each next one is twice
/// as long. Together 2.5 s: a self-test takes about a second.
const RETRIES: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// What a visit holds in the TPM is flushed at its end, however it ends; that this fails changes nothing of what was done.
pub(crate) struct Session<'a> {
    pub(crate) config: &'a TpmConfig,
    /// `None` when the connection broke.
    device: Option<Device>,
    /// Keys and sessions that were loaded and not flushed yet.
    loaded: Vec<u32>,
    /// What was in the TPM before, if it is not the kernel's resource manager, which cleans up by itself.
    before: Option<Vec<u32>>,
}

impl<'a> Session<'a> {
    /// Opens the TPM, does the job, cleans up.
    pub(crate) fn run<T>(
        config: &'a TpmConfig,
        job: impl FnOnce(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let device = Some(open(config)?);
        let mut session = Self { config, device, loaded: Vec::new(), before: None };
        if !config.address.is_managed() {
            session.before = Some(session.in_memory()?);
        }
        let result = job(&mut session);
        if let Err(error) = session.clean_up() {
            tracing::warn!(%error, "something may be left in the TPM");
        }
        result
    }

    /// Sends a command, again when the TPM puts it off, and waits for its answer.
    pub(crate) fn send(&mut self, command: TpmResult<Command>) -> Result<Answer, TpmError> {
        // Writing fails only for what does not fit; everything that comes from outside has been measured before.
        let command = command.map_err(|_| TpmError::UnusableKey {
            reason: "it does not fit into a command of the TPM".into(),
        })?;
        let mut wait = FIRST_WAIT;
        for _ in 0..RETRIES {
            let (answer, code) = self.exchange(&command)?;
            if code.0 == 0 {
                return Ok(answer);
            }
            if !code.is_passing() {
                return Err(refused(&command, code));
            }
            thread::sleep(wait);
            wait *= 2;
        }
        match self.exchange(&command)? {
            (answer, ResponseCode(0)) => Ok(answer),
            (_, code) => Err(refused(&command, code)),
        }
    }

    fn exchange(&mut self, command: &Command) -> Result<(Answer, ResponseCode), TpmError> {
        let timeout = self.config.timeout;
        let mut device = self.device.take().ok_or(io::ErrorKind::NotConnected);
        let answer = match &mut device {
            Ok(device) => device.exchange(&command.bytes, timeout),
            Err(kind) => Err((*kind).into()),
        };
        let failed = |source: io::Error| self.failed(command.code, source);
        let answer = answer.map_err(failed)?;
        // The connection is kept only while it is in step.
        self.device = device.ok();
        let code = answer.code().unwrap_or_default();
        Ok((answer, ResponseCode(code)))
    }

    fn failed(&self, command: TpmCc, source: io::Error) -> TpmError {
        let (address, command) = (self.config.address.to_string(), command.to_string());
        match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                TpmError::Timeout { address, command, after: self.config.timeout }
            }
            _ => TpmError::Io { address, command, source: Arc::new(source) },
        }
    }

    /// What is read from an answer; `None` when the answer is not as it should be.
    pub(crate) fn read<T>(&self, command: TpmCc, read: Option<T>) -> Result<T, TpmError> {
        read.ok_or_else(|| {
            let nonsense = "the answer is not as the TPM 2.0 Library has it";
            self.failed(command, io::Error::new(io::ErrorKind::InvalidData, nonsense))
        })
    }

    /// Sends a command whose answer brings a handle, which is flushed at the end.
    pub(crate) fn load(&mut self, command: TpmResult<Command>) -> Result<(u32, Answer), TpmError> {
        let code = command.as_ref().map_or(TpmCc::Load, |command| command.code);
        let answer = self.send(command)?;
        let handle = self.read(code, answer.handle())?;
        self.loaded.push(handle);
        Ok((handle, answer))
    }

    /// The TPM dropped it by itself.
    pub(crate) fn is_gone(&mut self, handle: u32) {
        self.loaded.retain(|loaded| *loaded != handle);
    }

    /// The keys and the sessions that are loaded now.
    pub(crate) fn in_memory(&mut self) -> Result<Vec<u32>, TpmError> {
        let mut handles = self.handles(TRANSIENT)?;
        handles.extend(self.handles(SESSIONS)?);
        Ok(handles)
    }

    /// The handles from `first` on that are of the same kind.
    pub(crate) fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        let answer = self.send(Command::handles(first))?;
        let handles = || {
            let mut reader: Reader<'_> = answer.parameters(0)?;
            let (_more, _kind, count) = (reader.take(1)?, reader.u32()?, reader.u32()?);
            (0..count).map(|_| reader.u32()).collect::<Option<Vec<u32>>>()
        };
        self.read(TpmCc::GetCapability, handles())
    }

    fn clean_up(&mut self) -> Result<(), TpmError> {
        if self.device.is_some() && self.flush_loaded().is_ok() {
            return Ok(());
        }
        self.reconnect()
    }

    fn flush_loaded(&mut self) -> Result<(), TpmError> {
        while let Some(handle) = self.loaded.last().copied() {
            self.send(Command::flush(handle))?;
            self.is_gone(handle);
        }
        Ok(())
    }

    /// Opens the TPM anew, after the connection broke, and flushes all that was not there before: an answer may have been
    /// lost, so that a handle is not known here. The kernel's resource manager has done it by itself.
    pub(crate) fn reconnect(&mut self) -> Result<(), TpmError> {
        self.device = None; // Others, this one among them, may have to wait until it is closed.
        self.device = Some(open(self.config)?);
        self.loaded.clear();
        if let Some(before) = self.before.take() {
            self.loaded = self.in_memory()?;
            self.loaded.retain(|now| !before.contains(now));
            self.before = Some(before);
        }
        self.flush_loaded()
    }
}

/// The first transient handle and the first loaded session, by which `GetCapability` lists them.
pub(crate) const TRANSIENT: u32 = 0x8000_0000;
pub(crate) const SESSIONS: u32 = 0x0200_0000;

fn open(config: &TpmConfig) -> Result<Device, TpmError> {
    Device::open(&config.address, config.timeout).map_err(|source| TpmError::Open {
        address: config.address.to_string(),
        source: Arc::new(source),
    })
}

fn refused(command: &Command, code: ResponseCode) -> TpmError {
    TpmError::Refused { command: command.code.to_string(), code }
}

/// Makes a refusal for a wrong password one that names what the password would open.
pub(crate) fn name_password(hierarchy: &'static str) -> impl Fn(TpmError) -> TpmError {
    move |error| match error.code() {
        Some(code) if code.is(TpmRcBase::BadAuth) || code.is(TpmRcBase::AuthFail) => {
            TpmError::Password { hierarchy }
        }
        _ => error,
    }
}
