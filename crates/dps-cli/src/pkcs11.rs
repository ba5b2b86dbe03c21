//! `--key pkcs11:..`: a certificate's key in a PKCS#11 token.

use std::path::PathBuf;

use dps_client::{
    Error,
    pkcs11::{Pin, Pkcs11Key, Pkcs11Options, Pkcs11Uri},
};

use crate::{
    files::{Deadline, Source, aside},
    given::{PKCS11_MODULE, PKCS11_PIN_FILE, named, wrong},
};

/// Whether this program can load the library of a token: a static one has no loader.
pub(crate) const LOADS_MODULES: bool = !cfg!(all(unix, target_feature = "crt-static"));

/// What the URI of a key may leave out.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "PKCS#11")]
pub(crate) struct Pkcs11Flags {
    /// The token's PKCS#11 library, for a URI in --key without module-path
    #[arg(long, value_name = "PATH")]
    pkcs11_module: Option<String>,
    /// File with the token's PIN, for a URI in --key without pin-source
    #[arg(long, value_name = "FILE")]
    pkcs11_pin_file: Option<String>,
}

/// A key in a token that was not opened yet.
#[derive(Clone, Debug)]
pub(crate) struct TokenKey {
    /// What was given, without the PIN that may be in it.
    pub(crate) source: Source,
    uri: Pkcs11Uri,
    options: Pkcs11Options,
}

impl Pkcs11Flags {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { pkcs11_module: None, pkcs11_pin_file: None };

    pub(crate) fn pin_file(&self) -> Result<Option<Source>, Error> {
        PKCS11_PIN_FILE.file(self.pkcs11_pin_file.as_ref())
    }

    /// The files that a key in a token needs besides its PIN: the module, and what the URIs of these keys name.
    pub(crate) fn files(&self, keys: &[Source]) -> Result<Vec<Source>, Error> {
        let module = PKCS11_MODULE.file(self.pkcs11_module.as_ref())?;
        let mut files: Vec<Source> = module.into_iter().collect();
        for key in keys {
            let uri = key.path.parse::<Pkcs11Uri>().ok();
            let named = uri.iter().flat_map(Pkcs11Uri::files);
            files.extend(named.map(|path| Source::new(key.from, &path.display().to_string())));
        }
        Ok(files)
    }

    /// What `--key` names, when that is in a token.
    pub(crate) fn key(&self, given: &Source) -> Result<Option<TokenKey>, Error> {
        if !Pkcs11Uri::is_uri(&given.path) {
            return Ok(None);
        }
        if !LOADS_MODULES {
            let reason = "this dps is a static program, which can't load a token's module; build one that is not, as README.md says";
            return Err(wrong(given.from, "", reason));
        }
        let uri: Pkcs11Uri = given.path.parse().map_err(|error| named(given.from, "", error))?;
        let mut options = Pkcs11Options::default();
        let module = PKCS11_MODULE.find(self.pkcs11_module.as_ref())?;
        options.module = module.map(|given| PathBuf::from(given.text));
        if let Some(file) = self.pin_file()? {
            let pin = Pin::from_bytes(&file.read_password()?);
            options.pin = Some(pin.map_err(|error| named(file.from, &file.path, error))?);
        }
        let source = Source::new(given.from, &uri.to_string());
        Ok(Some(TokenKey { source, uri, options }))
    }
}

impl TokenKey {
    /// The URI for other programs. It has no PIN: a masked one in its place would be taken for the PIN, and tokens lock after
    /// a few wrong ones.
    pub(crate) fn name(&self) -> String {
        self.uri.without_pin().to_string()
    }

    /// Opens it aside: a module may ask the user for the PIN, or an HSM over the network.
    pub(crate) async fn open_until(&self, deadline: Deadline) -> Result<Pkcs11Key, Error> {
        let (uri, options) = (self.uri.clone(), self.options.clone());
        let opened = aside(deadline, move || Pkcs11Key::open(&uri, &options)).await;
        opened.map_err(|reason| self.source.wrong(&reason))?
    }
}
