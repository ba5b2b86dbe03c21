//! The library that speaks to the tokens. It is loaded and initialized once, and stays until the process ends.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as Failure, RvError},
};

use crate::{
    Pkcs11Error,
    uri::{OF_LIBRARY, Pkcs11Uri, pairs},
};

/// A module that is loaded.
#[derive(Clone)]
pub(crate) struct Module {
    path: PathBuf,
    pub(crate) context: Pkcs11,
}

/// Modules keep threads and state of their own, and few of them can be loaded a second time.
static LOADED: Mutex<Vec<Module>> = Mutex::new(Vec::new());

impl Module {
    /// Loads the first of these libraries that can be loaded and initializes it, unless it is there already.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, Pkcs11Error> {
        let mut loaded = lock(&LOADED);
        if let Some(module) = loaded.iter().find(|module| paths.contains(&module.path)) {
            return Ok(module.clone());
        }
        let mut first = None;
        for path in paths {
            match Pkcs11::new(path) {
                Ok(context) => {
                    let module = Self { path: path.clone(), context };
                    module.initialize_locked()?;
                    loaded.push(module.clone());
                    return Ok(module);
                }
                Err(failure) => _ = first.get_or_insert_with(|| unloadable(path, &failure)),
            }
        }
        Err(first.unwrap_or(Pkcs11Error::NoModule))
    }

    /// Initializes it again, after another part of the program finalized it.
    pub(crate) fn initialize(&self) -> Result<(), Pkcs11Error> {
        let _alone = lock(&LOADED);
        self.initialize_locked()
    }

    /// Modules break when two threads initialize them at once.
    fn initialize_locked(&self) -> Result<(), Pkcs11Error> {
        match self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Failure::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Err(failure) => Err(self.failed(&failure)),
        }
    }

    /// Whether it is the one that the URI wants.
    pub(crate) fn check(&self, uri: &Pkcs11Uri) -> Result<(), Pkcs11Error> {
        let wanted = uri.part(OF_LIBRARY);
        if wanted.is_empty() {
            return Ok(());
        }
        let info = self.context.get_library_info().map_err(|failure| self.failed(&failure))?;
        let version = info.library_version().to_string();
        let is = |name: &str| match name {
            "library-manufacturer" => info.manufacturer_id().trim_end().to_owned(),
            "library-description" => info.library_description().trim_end().to_owned(),
            _ => version.clone(),
        };
        let found: Vec<(&str, String)> = OF_LIBRARY
            .iter()
            .filter(|name| uri.bytes(name).is_some())
            .map(|name| (*name, is(name)))
            .collect();
        if found.iter().all(|(name, is)| uri.text(name) == Some(is)) {
            return Ok(());
        }
        let found = pairs(found.iter().map(|(name, is)| (*name, is.as_bytes())));
        Err(Pkcs11Error::OtherModule { path: self.path.clone(), wanted, found })
    }

    fn failed(&self, failure: &Failure) -> Pkcs11Error {
        unloadable(&self.path, failure)
    }
}

fn unloadable(path: &Path, failure: &Failure) -> Pkcs11Error {
    let reason = match failure {
        Failure::LibraryLoading(error) => error.to_string(),
        Failure::MissingSymbol(name) => format!("it is no PKCS#11 module: it has no {name}"),
        failure => Pkcs11Error::of("", failure)
            .to_string()
            .trim_start_matches("the token \"\": ")
            .to_owned(),
    };
    Pkcs11Error::Module { path: path.to_owned(), reason }
}

/// What it guards is whole after every panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
