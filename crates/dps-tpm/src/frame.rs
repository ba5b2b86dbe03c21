//! Commands and answers as bytes: a header, handles, authorizations, parameters (TPM 2.0 Library, Part 1, chapter 18).
//!
//! Commands are written here and not with tpm2-protocol's command types: those copy every field, passwords and keys
//! among them, into buffers that nobody wipes.

use tpm2_protocol::{
    TpmMarshal, TpmResult, TpmWriter,
    basic::{TpmUint16, TpmUint32},
    constant::TPM_MAX_COMMAND_SIZE,
    data::{TpmCc, TpmSt},
    tpm_value,
};
use zeroize::Zeroizing;

/// Stands for a password where a session could be (`TPM_RS_PW`).
const PASSWORD_SESSION: u32 = 0x4000_0009;

/// The header of an answer: a tag, the size, the code.
pub(crate) const HEADER: usize = 10;

/// What authorizes the use of a handle.
pub(crate) enum Auth<'a> {
    Password(&'a [u8]),
    /// A policy session, which ends with the command that it authorizes.
    Policy(u32),
}

/// A command as it is sent.
pub(crate) struct Command {
    pub(crate) code: TpmCc,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

impl Command {
    pub(crate) fn new(
        code: TpmCc,
        handles: &[u32],
        auths: &[Auth<'_>],
        parameters: impl FnOnce(&mut TpmWriter<'_>) -> TpmResult<()>,
    ) -> TpmResult<Self> {
        let mut bytes = Zeroizing::new(vec![0; TPM_MAX_COMMAND_SIZE]);
        let mut writer = TpmWriter::new(&mut bytes);
        let tag = if auths.is_empty() { TpmSt::NoSessions } else { TpmSt::Sessions };
        tag.marshal(&mut writer)?;
        TpmUint32::new(0).marshal(&mut writer)?; // the size, below
        code.marshal(&mut writer)?;
        handles.iter().try_for_each(|handle| TpmUint32::new(*handle).marshal(&mut writer))?;
        if !auths.is_empty() {
            let size = auths.iter().map(Auth::size).sum::<usize>();
            number(&mut writer, size)?;
            auths.iter().try_for_each(|auth| auth.write(&mut writer))?;
        }
        parameters(&mut writer)?;
        let size = writer.len();
        bytes.truncate(size);
        let size = u32::try_from(size).unwrap_or_default().to_be_bytes();
        bytes.iter_mut().skip(2).zip(size).for_each(|(to, from)| *to = from);
        Ok(Self { code, bytes })
    }
}

impl Auth<'_> {
    fn parts(&self) -> (u32, &[u8]) {
        match self {
            Self::Password(password) => (PASSWORD_SESSION, password),
            Self::Policy(session) => (*session, &[]),
        }
    }

    /// A handle, a nonce, attributes, and an HMAC or password, the two with their lengths.
    fn size(&self) -> usize {
        4 + 2 + 1 + 2 + self.parts().1.len()
    }

    fn write(&self, writer: &mut TpmWriter<'_>) -> TpmResult<()> {
        let (session, secret) = self.parts();
        TpmUint32::new(session).marshal(writer)?;
        sized(writer, &[])?;
        writer.write_bytes(&[0])?; // the attribute continueSession is clear
        sized(writer, secret)
    }
}

/// Writes a TPM2B: a length of two bytes, then the bytes.
pub(crate) fn sized(writer: &mut TpmWriter<'_>, bytes: &[u8]) -> TpmResult<()> {
    let too_large =
        |_| tpm2_protocol::TpmError::IntegerTooLarge { offset: 0, value: tpm_value(bytes.len()) };
    TpmUint16::new(u16::try_from(bytes.len()).map_err(too_large)?).marshal(writer)?;
    writer.write_bytes(bytes)
}

fn number(writer: &mut TpmWriter<'_>, number: usize) -> TpmResult<()> {
    let too_large =
        |_| tpm2_protocol::TpmError::IntegerTooLarge { offset: 0, value: tpm_value(number) };
    TpmUint32::new(u32::try_from(number).map_err(too_large)?).marshal(writer)
}

/// The answer to a command that the TPM carried out.
pub(crate) struct Answer(pub(crate) Zeroizing<Vec<u8>>);

impl Answer {
    /// What it has for its whole size: with a header, and no more or less than it says.
    pub(crate) fn size_of(bytes: &[u8]) -> Option<usize> {
        usize::try_from(Reader(bytes.get(2..)?).u32()?).ok()
    }

    pub(crate) fn code(&self) -> Option<u32> {
        Reader(self.0.get(6..)?).u32()
    }

    /// The parameters; behind a handle when the command gives one.
    pub(crate) fn parameters(&self, handles: usize) -> Option<Reader<'_>> {
        let mut reader = Reader(&self.0);
        let sessions = reader.u16()? == TpmSt::Sessions.value();
        let mut rest = Reader(self.0.get(HEADER + 4 * handles..)?);
        if !sessions {
            return Some(rest);
        }
        let size = usize::try_from(rest.u32()?).ok()?;
        rest.take(size).map(Reader)
    }

    pub(crate) fn handle(&self) -> Option<u32> {
        Reader(self.0.get(HEADER..)?).u32()
    }
}

/// Reads from the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// What is in a TPM2B.
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?.into();
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_size_its_handles_and_its_passwords() {
        let auths = [Auth::Password(b"pw"), Auth::Policy(0x0300_0001)];
        let command =
            Command::new(TpmCc::Hmac, &[0x8100_0100], &auths, |writer| sized(writer, b"text"));
        let bytes = command.unwrap().bytes;
        #[rustfmt::skip]
        let expected = [
            0x80, 0x02, 0, 0, 0, 44, 0, 0, 1, 0x55, 0x81, 0, 1, 0,
            0, 0, 0, 20,
            0x40, 0, 0, 9, 0, 0, 0, 0, 2, b'p', b'w',
            3, 0, 0, 1, 0, 0, 0, 0, 0,
            0, 4, b't', b'e', b'x', b't',
        ];
        assert_eq!(bytes.as_slice(), expected);
    }

    #[test]
    fn answers_that_are_cut_off_give_nothing() {
        let whole = [0x80, 2, 0, 0, 0, 22, 0, 0, 0, 0, 0x80, 0, 0, 1, 0, 0, 0, 4, 0, 2, 7, 8, 0];
        let answer = Answer(Zeroizing::new(whole.to_vec()));
        assert_eq!(answer.handle(), Some(0x8000_0001));
        assert_eq!(answer.parameters(1).unwrap().sized(), Some(&[7, 8][..]));
        for length in 0..whole.len() - 1 {
            let cut = Answer(Zeroizing::new(whole[..length].to_vec()));
            assert!(cut.parameters(1).is_none(), "{length}");
        }
    }
}
