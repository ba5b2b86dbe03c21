//! Finding a token and being let in.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{LazyLock, Mutex},
};

use cryptoki::{
    error::{Error as Failure, RvError},
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
    types::RawAuthPin,
};

use crate::{
    Pin, PinProblem, Pkcs11Error,
    module::{Module, lock},
    uri::{OF_TOKEN, Pkcs11Uri, pairs},
};

/// A token that is plugged in.
pub(crate) struct Token {
    pub(crate) slot: Slot,
    pub(crate) label: String,
    info: TokenInfo,
}

impl Token {
    /// The one that the URI wants. Slots have other numbers each time for some modules, so that all are looked at.
    pub(crate) fn find(module: &Module, uri: &Pkcs11Uri) -> Result<Self, Pkcs11Error> {
        let wanted = uri.part(OF_TOKEN);
        let failed = |failure| Pkcs11Error::of(uri.text("token").unwrap_or("any"), &failure);
        let mut found = Vec::new();
        let mut slots = module.context.get_slots_with_token();
        if let Err(Failure::Pkcs11(RvError::CryptokiNotInitialized, _)) = slots {
            module.initialize()?;
            slots = module.context.get_slots_with_token();
        }
        for slot in slots.map_err(failed)? {
            let info = match module.context.get_token_info(slot) {
                Ok(info) => info,
                Err(Failure::Pkcs11(RvError::HostMemory, function)) => {
                    return Err(failed(Failure::Pkcs11(RvError::HostMemory, function)));
                }
                // It was pulled out just now, or is of no use to anybody.
                Err(_) => continue,
            };
            if info.token_initialized() {
                let label = info.label().trim_end().to_owned();
                found.push(Self { slot, label, info });
            }
        }
        let names = |tokens: &[Self]| tokens.iter().map(Self::name).collect();
        let (mut matching, others): (Vec<Self>, Vec<Self>) =
            found.into_iter().partition(|token| token.is(module, uri));
        match (matching.pop(), matching.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                matching.push(last);
                Err(Pkcs11Error::SeveralTokens { wanted, found: names(&matching) })
            }
            (None, _) => Err(Pkcs11Error::NoToken { wanted, found: names(&others) }),
        }
    }

    fn is(&self, module: &Module, uri: &Pkcs11Uri) -> bool {
        let matches = |name: &str, is: &str| {
            uri.text(name).is_none_or(|wanted| wanted.trim_end() == is.trim_end())
        };
        let info = &self.info;
        let of_slot = || {
            let slot = module.context.get_slot_info(self.slot).ok();
            let description = slot.as_ref().map_or("", |slot| slot.slot_description());
            let manufacturer = slot.as_ref().map_or("", |slot| slot.manufacturer_id());
            matches("slot-description", description) && matches("slot-manufacturer", manufacturer)
        };
        matches("token", info.label())
            && matches("serial", info.serial_number())
            && matches("manufacturer", info.manufacturer_id())
            && matches("model", info.model())
            && uri.slot_id().is_none_or(|id| id == self.slot.id())
            && of_slot()
    }

    fn name(&self) -> String {
        let (label, serial) = (self.info.label(), self.info.serial_number());
        pairs([("token", label.trim_end().as_bytes()), ("serial", serial.trim_end().as_bytes())])
    }

    pub(crate) fn failed(&self, failure: &Failure) -> Pkcs11Error {
        Pkcs11Error::of(&self.label, failure)
    }

    fn problem(&self, problem: PinProblem) -> Pkcs11Error {
        Pkcs11Error::Pin { token: self.label.clone(), problem }
    }

    /// Opens a session in which private keys can be seen.
    pub(crate) fn session(
        &self,
        module: &Module,
        pin: Option<&Pin>,
    ) -> Result<Session, Pkcs11Error> {
        let failed = |failure| self.failed(&failure);
        let session = module.context.open_ro_session(self.slot).map_err(failed)?;
        // Sessions of one program share the login.
        let state = session.get_session_info().map_err(failed)?.session_state();
        let is_in = matches!(state, SessionState::RoUser | SessionState::RwUser);
        if !is_in && self.info.login_required() {
            self.log_in(&session, pin)?;
        }
        Ok(session)
    }

    fn log_in(&self, session: &Session, pin: Option<&Pin>) -> Result<(), Pkcs11Error> {
        if self.info.user_pin_locked() {
            return Err(self.problem(PinProblem::Locked));
        }
        if !self.info.user_pin_initialized() {
            return Err(self.problem(PinProblem::NotSet));
        }
        match pin {
            // The user types it at the token.
            None if self.info.protected_authentication_path() => {
                match session.login(UserType::User, None) {
                    Ok(()) | Err(Failure::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
                    Err(failure) => Err(self.failed(&failure)),
                }
            }
            None => Err(self.problem(PinProblem::Missing)),
            Some(_) if self.info.user_pin_final_try() => Err(self.problem(PinProblem::LastTry)),
            Some(pin) => self.present(session, UserType::User, pin),
        }
    }

    /// Gives the PIN to the token, unless it refused it before.
    pub(crate) fn present(
        &self,
        session: &Session,
        user: UserType,
        pin: &Pin,
    ) -> Result<(), Pkcs11Error> {
        let digest = KEYED.hash_one((&self.label, self.info.serial_number(), pin.bytes()));
        // Held for as long as the token takes: two threads don't try the same wrong PIN.
        let mut refused = lock(&REFUSED);
        if refused.contains(&digest) {
            return Err(self.problem(PinProblem::RefusedBefore));
        }
        let raw = RawAuthPin::new(Box::new(pin.bytes().to_vec()));
        let Err(failure) = session.login_with_raw(user, &raw) else { return Ok(()) };
        if matches!(failure, Failure::Pkcs11(RvError::UserAlreadyLoggedIn, _)) {
            return Ok(());
        }
        let error = self.failed(&failure);
        if matches!(error, Pkcs11Error::Pin { problem: PinProblem::Wrong, .. }) {
            refused.push(digest);
        }
        Err(error)
    }
}

/// The PINs that tokens refused in this process, by a keyed hash of token and PIN: a program that tries again must not lock
/// the token.
static REFUSED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
