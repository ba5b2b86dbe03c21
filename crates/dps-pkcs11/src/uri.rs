//! PKCS#11 URIs, which name a module, a token and a key in it.

use std::{
    fmt::{self, Write},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

use crate::Pin;

/// Which key of which token, as [RFC 7512](https://www.rfc-editor.org/rfc/rfc7512) writes it:
/// `pkcs11:token=factory;object=pump-17?pin-source=file:/etc/dps/pin&module-path=/usr/lib/softhsm/libsofthsm2.so`.
///
/// - `token`, `serial`, `manufacturer`, `model`, `slot-id`, `slot-description` and `slot-manufacturer` choose the token;
///   `slot-id` is best left out: modules renumber their slots.
/// - `object` and `id` choose the private key. `type` is `private` or left out.
/// - `module-path` is the module's library; with `module-name`, the folder that it is in. `module-name=softhsm2` alone is
///   `libsofthsm2.so` where the system looks for libraries. `library-manufacturer`, `library-description` and
///   `library-version` must be those of the module.
/// - `pin-source=file:PATH` is a file with the PIN, `pin-value` the PIN itself. Prefer the file: every user of the machine
///   sees the arguments of a command.
///
/// What an attribute names must match exactly; an attribute that is left out matches everything. Attributes that begin with
/// `x-` are for other programs, and ignored. The PIN is wiped from memory when this is dropped, and never printed.
///
/// ```
/// use dps_client::pkcs11::Pkcs11Uri;
/// let uri: Pkcs11Uri = "pkcs11:token=factory;object=pump-17?pin-value=1234".parse()?;
/// assert_eq!(uri.to_string(), "pkcs11:token=factory;object=pump-17?pin-value=***");
/// # Ok::<(), dps_client::Error>(())
/// ```
#[derive(Clone)]
pub struct Pkcs11Uri(Vec<Attribute>);

#[derive(Clone)]
struct Attribute {
    name: &'static str,
    /// Without its escapes.
    value: Zeroizing<Vec<u8>>,
}

const SCHEME: &str = "pkcs11:";
const FIELD: &str = "PKCS#11 URI";

/// What chooses a token.
pub(crate) const OF_TOKEN: &[&str] = &[
    "token",
    "serial",
    "manufacturer",
    "model",
    "slot-id",
    "slot-description",
    "slot-manufacturer",
];
/// What chooses a key in it.
pub(crate) const OF_KEY: &[&str] = &["object", "id"];
/// What the module must be.
pub(crate) const OF_LIBRARY: &[&str] =
    &["library-manufacturer", "library-description", "library-version"];
const TYPE: &str = "type";
const PIN_VALUE: &str = "pin-value";
const PIN_SOURCE: &str = "pin-source";
const MODULE_PATH: &str = "module-path";
const MODULE_NAME: &str = "module-name";
/// What stands behind the question mark.
const QUERY: &[&str] = &[PIN_SOURCE, PIN_VALUE, MODULE_PATH, MODULE_NAME];

fn in_path(name: &str) -> Option<&'static str> {
    [OF_TOKEN, OF_KEY, OF_LIBRARY, &[TYPE]].concat().into_iter().find(|known| *known == name)
}

fn in_query(name: &str) -> Option<&'static str> {
    QUERY.iter().copied().find(|known| *known == name)
}

/// Where the PIN comes from.
pub(crate) enum PinSource {
    Value(Pin),
    File(PathBuf),
}

impl Pkcs11Uri {
    /// Whether the text is meant as such a URI: whether it begins with `pkcs11:`.
    #[must_use]
    pub fn is_uri(text: &str) -> bool {
        after_scheme(text).is_some()
    }

    /// The same without `pin-value`, for a place that others read. A `pin-source` stays: it has no PIN in it.
    ///
    /// ```
    /// use dps_client::pkcs11::Pkcs11Uri;
    /// let uri: Pkcs11Uri = "pkcs11:token=factory;object=pump-17?pin-value=1234".parse()?;
    /// assert_eq!(uri.without_pin().to_string(), "pkcs11:token=factory;object=pump-17");
    /// # Ok::<(), dps_client::Error>(())
    /// ```
    #[must_use]
    pub fn without_pin(&self) -> Self {
        let others = self.0.iter().filter(|attribute| attribute.name != PIN_VALUE);
        Self(others.cloned().collect())
    }

    /// The files that it names: the one with the PIN, and the module.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let pin = self.text(PIN_SOURCE).and_then(path_of_file);
        pin.into_iter().chain(self.modules()).collect()
    }

    /// An attribute's bytes.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        let attribute = self.0.iter().find(|attribute| attribute.name == name)?;
        Some(&attribute.value)
    }

    /// An attribute that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.bytes(name)?).ok()
    }

    pub(crate) fn slot_id(&self) -> Option<u64> {
        self.text("slot-id")?.parse().ok()
    }

    /// The libraries that may be the module, the likeliest first; none when the URI names none.
    pub(crate) fn modules(&self) -> Vec<PathBuf> {
        use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
        let folder = self.text(MODULE_PATH).map(PathBuf::from);
        let Some(name) = self.text(MODULE_NAME) else { return Vec::from_iter(folder) };
        let names = [format!("{DLL_PREFIX}{name}{DLL_SUFFIX}"), format!("{name}{DLL_SUFFIX}")];
        names.map(|name| folder.clone().unwrap_or_default().join(name)).into()
    }

    pub(crate) fn pin_source(&self) -> Result<Option<PinSource>, Error> {
        if let Some(value) = self.bytes(PIN_VALUE) {
            return Ok(Some(PinSource::Value(Pin::from_bytes(value)?)));
        }
        Ok(self.text(PIN_SOURCE).and_then(path_of_file).map(PinSource::File))
    }

    /// The attributes of these names, in the form of a URI.
    pub(crate) fn part(&self, names: &[&str]) -> String {
        let of_part = self.0.iter().filter(|attribute| names.contains(&attribute.name));
        pairs(of_part.map(|attribute| (attribute.name, attribute.value.as_slice())))
    }

    fn read(&mut self, text: &str, separator: char) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let is_query = separator == '&';
        let part = if is_query { "behind" } else { "before" };
        for (index, attribute) in text.split(separator).enumerate() {
            let number = index + 1;
            let Some((name, value)) = attribute.split_once('=') else {
                // It may be the rest of a PIN that has a separator in it.
                return Err(wrong(&format!(
                    "attribute {number} {part} the `?` has no `=`; write %3B, %26 and %3F for `;`, `&` and `?` within a value"
                )));
            };
            let (here, there, place) = match is_query {
                true => (in_query(name), in_path(name), "before the `?`"),
                false => (in_path(name), in_query(name), "behind the `?`"),
            };
            match (here, there) {
                (Some(name), _) => self.add(name, value)?,
                (None, Some(name)) => return Err(of(name, &format!("it belongs {place}"))),
                (None, None) if name.starts_with("x-") => {}
                (None, None) if self.bytes(PIN_VALUE).is_some() => {
                    return Err(wrong(
                        "what follows `pin-value` is no attribute; write %26 for a `&` in the PIN",
                    ));
                }
                // What has other characters is no misspelled name, and may have a PIN in it.
                (None, None) if name.bytes().all(is_of_names) => {
                    return Err(wrong(&format!(
                        "there is no attribute `{name}`; check its spelling"
                    )));
                }
                (None, None) => {
                    return Err(wrong(&format!(
                        "attribute {number} {part} the `?` has a name that no attribute has"
                    )));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &'static str, value: &str) -> Result<(), Error> {
        if self.bytes(name).is_some() {
            return Err(of(name, "it is there twice"));
        }
        let value = decoded(value).ok_or_else(|| {
            of(
                name,
                "a `%` is not followed by two hexadecimal digits; write %25 for the sign itself",
            )
        })?;
        self.0.push(Attribute { name, value });
        self.check(name).map_err(|reason| of(name, reason))
    }

    /// Whether an attribute has a value that it can have.
    fn check(&self, name: &'static str) -> Result<(), &'static str> {
        let value = self.bytes(name).unwrap_or_default();
        if value.is_empty() {
            return Err("its value is empty; leave the attribute out, or give it one");
        }
        if name == PIN_VALUE {
            return Ok(());
        }
        // With the wrong separator before it a PIN would be a part of this value, and be printed with it.
        if value.to_ascii_lowercase().windows(PIN_IN_VALUE.len()).any(|part| part == PIN_IN_VALUE) {
            return Err("there is a `pin-value` in its value; that belongs behind a `?` or a `&`");
        }
        if name == "id" {
            return Ok(());
        }
        let text = self.text(name).ok_or("its value is not UTF-8 text")?;
        if text.contains('\0') {
            return Err("there is a zero byte in its value");
        }
        match name {
            TYPE if text != "private" => {
                Err("only a private key signs; give `private`, or leave it out")
            }
            "slot-id" if text.parse::<u64>().is_err() => Err("give a number"),
            MODULE_NAME if text.contains(['/', '\\']) => {
                Err("it is a name without a path; give `module-path` for a path")
            }
            // The value may be the PIN itself, given under the wrong name.
            PIN_SOURCE if path_of_file(text).is_none() => {
                Err("give `file:` and the path of a file")
            }
            PIN_SOURCE if self.bytes(PIN_VALUE).is_some() => Err(BOTH_PINS),
            _ => Ok(()),
        }
    }
}

const PIN_IN_VALUE: &[u8] = b"pin-value=";
const BOTH_PINS: &str = "`pin-value` is there too; give one of the two";

fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

/// Whether the names of attributes may have it.
fn is_of_names(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// `file:PATH`, `file://` with no host or this one, or an absolute path alone, as other programs take it.
fn path_of_file(source: &str) -> Option<PathBuf> {
    if source.starts_with('/') {
        return Some(source.into());
    }
    let path = source.strip_prefix("file:")?;
    let path = match path.strip_prefix("//") {
        Some(with_host) => with_host.strip_prefix("localhost").unwrap_or(with_host),
        None => path,
    };
    let has_host = source.starts_with("file://") && !path.starts_with('/');
    (!path.is_empty() && !has_host).then(|| path.into())
}

fn decoded(value: &str) -> Option<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a buffer that grows leaves pieces of a PIN behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            other => other,
        });
    }
    Some(bytes)
}

/// Attributes as a URI has them.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    const GRAPHIC: RangeInclusive<u8> = b'!'..=b'~';
    let mut text = String::new();
    for (name, value) in pairs {
        let separator = if text.is_empty() { "" } else { ";" };
        let _ = write!(text, "{separator}{name}=");
        // The bytes of an id are no text, even where they look like it.
        let is_text = name != "id" && str::from_utf8(value).is_ok();
        for byte in value {
            match byte {
                b'%' | b';' | b'?' | b'&' | b'#' => _ = write!(text, "%{byte:02X}"),
                byte if is_text && GRAPHIC.contains(byte) => text.push(char::from(*byte)),
                byte => _ = write!(text, "%{byte:02X}"),
            }
        }
    }
    text
}

impl FromStr for Pkcs11Uri {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that names the attribute: one that there is not, that is there twice, in the wrong place, or
    /// has a broken escape or a value that it can't have. Neither the URI nor any value is in the message.
    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = after_scheme(text).ok_or_else(|| {
            wrong("it does not begin with `pkcs11:`; an example is pkcs11:token=factory;object=pump-17")
        })?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self(Vec::new());
        uri.read(path, ';')?;
        uri.read(query, '&')?;
        if uri.bytes(PIN_VALUE).is_some() && uri.bytes(PIN_SOURCE).is_some() {
            return Err(of(PIN_SOURCE, BOTH_PINS));
        }
        Ok(uri)
    }
}

/// As it was given, but for a PIN.
impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.part(&[OF_TOKEN, OF_KEY, OF_LIBRARY, &[TYPE]].concat()))?;
        let query = self.0.iter().filter(|attribute| in_query(attribute.name).is_some());
        for (index, Attribute { name, value }) in query.enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            match *name {
                PIN_VALUE => write!(f, "{separator}{name}=***")?,
                name => write!(f, "{separator}{}", pairs([(name, value.as_slice())]))?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Uri({self})")
    }
}

fn wrong(reason: &str) -> Error {
    ConfigurationError::new(FIELD, "", reason).into()
}

fn of(name: &'static str, reason: &str) -> Error {
    wrong(&format!("`{name}`: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(text: &str) -> Pkcs11Uri {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn escapes_are_read_and_written() {
        let given = "pkcs11:token=My%20token%20(25%25);id=%01%ff%41;object=k%C3%A4se";
        let read = uri(given);
        assert_eq!(read.text("token"), Some("My token (25%)"));
        assert_eq!(read.bytes("id"), Some(&[1, 255, 0x41][..]));
        assert_eq!(read.text("object"), Some("käse"));
        let written = "pkcs11:token=My%20token%20(25%25);id=%01%FF%41;object=k%C3%A4se";
        assert_eq!(read.to_string(), written);
        assert_eq!(uri(written).to_string(), written);
    }

    #[test]
    fn uris_of_other_programs_are_taken() {
        for text in [
            "pkcs11:",
            "PKCS11:token=a",
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=e78;token=dps;id=%01;object=key;type=private",
            "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin",
            "pkcs11:slot-description=Sun%20Metaslot;slot-manufacturer=a;slot-id=327",
            "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;library-version=1.23",
            "pkcs11:token=a;x-muppet=cookie?x-chest=%a",
            "pkcs11:object=a@b:c[d]?pin-source=file:/etc/token_pin&module-name=mypkcs11&module-path=/opt",
        ] {
            assert!(Pkcs11Uri::is_uri(text) && text.parse::<Pkcs11Uri>().is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is_repeated() {
        for (text, says) in [
            ("", "does not begin with `pkcs11:`"),
            ("tpm:0x81000002", "does not begin with `pkcs11:`"),
            ("pkcs11:token=S3cret;token=S3cret", "`token`: it is there twice"),
            (
                "pkcs11:token=S3cret?pin-value=S3cret&pin-value=S3cret",
                "`pin-value`: it is there twice",
            ),
            ("pkcs11:tokne=S3cret", "no attribute `tokne`"),
            ("pkcs11:token=a?pin=S3cret", "no attribute `pin`"),
            ("pkcs11:Token=S3cret", "no attribute `Token`"),
            ("pkcs11:token=%2", "`token`: a `%`"),
            ("pkcs11:object=a%2", "`object`: a `%`"),
            ("pkcs11:object=a%zz", "`object`: a `%`"),
            ("pkcs11:object=%+1", "`object`: a `%`"),
            ("pkcs11:object=%é", "`object`: a `%`"),
            ("pkcs11:object=%FF", "`object`: its value is not UTF-8"),
            ("pkcs11:object=a%00", "`object`: there is a zero byte"),
            ("pkcs11:object", "attribute 1 before the `?` has no `=`"),
            ("pkcs11:token=a;", "attribute 2 before the `?` has no `=`"),
            ("pkcs11:token=a?pin-value=S3&cret", "attribute 2 behind the `?` has no `=`"),
            ("pkcs11:token=a?pin-value=1&S3cret=2", "what follows `pin-value` is no attribute"),
            ("pkcs11:token=", "`token`: its value is empty"),
            ("pkcs11:id=", "`id`: its value is empty"),
            ("pkcs11:token=a?pin-value=", "`pin-value`: its value is empty"),
            ("pkcs11:type=cert", "`type`: only a private key"),
            ("pkcs11:slot-id=0x1", "`slot-id`: give a number"),
            ("pkcs11:pin-value=S3cret", "`pin-value`: it belongs behind the `?`"),
            ("pkcs11:token=a;module-path=S3cret", "`module-path`: it belongs behind the `?`"),
            ("pkcs11:?token=S3cret", "`token`: it belongs before the `?`"),
            ("pkcs11:token=a&pin-value=S3cret", "`token`: there is a `pin-value` in its value"),
            ("pkcs11:id=%01&pin-value=S3cret", "`id`: there is a `pin-value` in its value"),
            ("pkcs11:?pin-value%3DS3cret=", "attribute 1 behind the `?` has a name that no"),
            ("pkcs11:?module-path=/m;PIN-VALUE=S3cret", "`module-path`: there is a `pin-value`"),
            ("pkcs11:?pin-source=S3cret", "`pin-source`: give `file:`"),
            ("pkcs11:?pin-source=|S3cret", "`pin-source`: give `file:`"),
            ("pkcs11:?pin-source=https://S3cret", "`pin-source`: give `file:`"),
            ("pkcs11:?pin-source=file:", "`pin-source`: give `file:`"),
            ("pkcs11:?pin-source=file://S3cret/pin", "`pin-source`: give `file:`"),
            (
                "pkcs11:?pin-source=file:/a&pin-value=S3cret",
                "`pin-source`: `pin-value` is there too",
            ),
            (
                "pkcs11:?pin-value=S3cret&pin-source=file:/a",
                "`pin-source`: `pin-value` is there too",
            ),
            ("pkcs11:?module-name=../S3cret", "`module-name`: it is a name"),
        ] {
            let error = text.parse::<Pkcs11Uri>().unwrap_err();
            assert!(matches!(error, Error::Configuration(_)), "{error:?}");
            let message = format!("{error} {error:?}");
            assert!(message.contains(says), "{text}: {message}");
            assert!(!message.contains("S3") && !message.contains("cret"), "{text}: {message}");
        }
    }

    #[test]
    fn a_pin_is_never_printed() {
        let uri = uri("pkcs11:token=a?pin-value=hunter%32&module-path=/m");
        assert_eq!(uri.to_string(), "pkcs11:token=a?pin-value=***&module-path=/m");
        assert_eq!(format!("{uri:?}"), "Pkcs11Uri(pkcs11:token=a?pin-value=***&module-path=/m)");
        assert!(
            matches!(uri.pin_source(), Ok(Some(PinSource::Value(pin))) if pin.bytes() == b"hunter2")
        );
    }

    proptest! {
        #[test]
        fn every_value_is_read_as_it_was_written(
            token in "\\PC{1,20}",
            object in "[^\\x00]{1,20}",
            id in proptest::collection::vec(any::<u8>(), 1..20),
            pin in "[ -~]{1,20}",
        ) {
            let values = [("token", token.as_bytes()), ("object", object.as_bytes()), ("id", &id)];
            let pin_value = pairs([("pin-value", pin.as_bytes())]);
            let text = format!("pkcs11:{}?{pin_value}", pairs(values));
            let read = uri(&text);
            for (name, value) in values {
                prop_assert_eq!(read.bytes(name), Some(value));
            }
            prop_assert_eq!(read.bytes("pin-value"), Some(pin.as_bytes()));
            prop_assert_eq!(read.to_string(), text.replace(&pin_value, "pin-value=***"));
        }

        #[test]
        fn a_pin_is_not_printed_wherever_it_is_given(
            before in "[a-z;&?=%#0-9 -]{0,30}",
            separator in "[;&?=%/ ]",
            name in "(pin-value|PIN-VALUE|pin_value|pin|xpin-value|x-pin)",
            equals in "(=|%3D)",
            after in "[a-z;&?=%0-9 ]{0,10}",
        ) {
            for start in ["", "pkcs11:", "pkcs11:token=a", "pkcs11:id=a?module-path=/m"] {
                let text = format!("{start}{before}{separator}{name}{equals}S3CRET{after}");
                let said = match text.parse::<Pkcs11Uri>() {
                    Ok(uri) if name == "pin-value" => format!("{uri} {uri:?}"),
                    // A part of another value, or of an attribute of other programs.
                    Ok(_) => continue,
                    Err(error) => format!("{error} {error:?}"),
                };
                prop_assert!(!said.contains("S3CRET"), "{}: {}", text, said);
            }
        }
    }

    #[test]
    fn a_file_with_the_pin_may_be_written_in_each_way() {
        for (source, path) in [
            ("file:/etc/pin", "/etc/pin"),
            ("file:///etc/my%20pin", "/etc/my pin"),
            ("file://localhost/etc/pin", "/etc/pin"),
            ("file:pin", "pin"),
            ("/etc/pin", "/etc/pin"),
        ] {
            let uri = uri(&format!("pkcs11:?pin-source={source}"));
            let found = uri.pin_source().unwrap();
            assert!(matches!(&found, Some(PinSource::File(file)) if file.to_str() == Some(path)));
        }
    }

    #[test]
    fn a_module_is_a_path_a_name_or_both() {
        let modules = |query: &str| uri(&format!("pkcs11:?{query}")).modules();
        assert_eq!(modules("module-path=/lib/m.so"), [PathBuf::from("/lib/m.so")]);
        assert_eq!(modules(""), Vec::<PathBuf>::new());
        if cfg!(target_os = "linux") {
            let both = ["/lib/libm.so", "/lib/m.so"].map(PathBuf::from);
            assert_eq!(modules("module-path=/lib&module-name=m"), both);
            assert_eq!(modules("module-name=m"), ["libm.so", "m.so"].map(PathBuf::from));
        }
    }
}
