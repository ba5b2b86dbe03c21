//! Credentials in files that are replaced, half written, deleted and damaged while they are in use.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use dps_attestation::{Attestation, SymmetricKeyFile, X509Files};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tracing::subscriber::DefaultGuard;

/// A folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// What is traced on this thread.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<u8>>>);

impl Trace {
    fn start() -> (Self, DefaultGuard) {
        let trace = Self::default();
        let writer = trace.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        (trace, tracing::subscriber::set_default(subscriber))
    }

    /// What came since it was last asked.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Device {
    certificate: String,
    key: String,
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

impl Authority {
    fn new() -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), params("Line 4"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn device(&self) -> Device {
        self.device_with(|_| ())
    }

    fn device_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Device {
        let (key, mut params) = (KeyPair::generate().unwrap(), params("pump-17"));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Device { certificate, key: key.serialize_pem() }
    }
}

/// Two files and the identity that lives in them.
struct Bench {
    certificates: PathBuf,
    key: PathBuf,
    files: X509Files,
    trace: Trace,
    _tracing: DefaultGuard,
}

impl Bench {
    fn new(name: &str, chain: &str, device: &Device) -> Self {
        let folder = folder(name);
        let (certificates, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        fs::write(&certificates, chain).unwrap();
        fs::write(&key, &device.key).unwrap();
        let files = X509Files::open(&certificates, &key).unwrap();
        let (trace, _tracing) = Trace::start();
        Self { certificates, key, files, trace, _tracing }
    }

    /// Whose identity a handshake would show.
    fn shows(&self, device: &Device) -> bool {
        let identity = Attestation::from(self.files.clone()).x509().unwrap();
        let expected = pem_der(&device.certificate);
        identity.chain().next().unwrap() == expected
    }
}

fn pem_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn age(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn a_replaced_pair_is_taken_once_both_files_are_there() {
    let authority = Authority::new();
    let (old, new) = (authority.device(), authority.device());
    let bench = Bench::new("pair", &old.certificate, &old);
    assert!(bench.shows(&old));
    assert_eq!(bench.trace.take(), "", "nothing changed");

    fs::write(&bench.key, &new.key).unwrap();
    assert!(bench.shows(&old), "the certificate is still to come");
    let trace = bench.trace.take();
    assert!(trace.contains("WARN") && trace.contains("key.pem"), "{trace}");
    assert!(trace.contains("it is not the key of the certificate CN=pump-17"), "{trace}");
    assert!(bench.shows(&old) && bench.trace.take().is_empty(), "it is said once");

    fs::write(&bench.certificates, &new.certificate).unwrap();
    assert!(bench.shows(&new));
    let trace = bench.trace.take();
    assert!(trace.contains("INFO") && trace.contains("chain.pem"), "{trace}");
    assert!(bench.shows(&new) && bench.trace.take().is_empty());

    // The other way around, and back to what was before.
    fs::write(&bench.certificates, &old.certificate).unwrap();
    assert!(bench.shows(&new));
    fs::write(&bench.key, &old.key).unwrap();
    assert!(bench.shows(&old));
}

#[test]
fn a_file_cut_off_at_any_place_leaves_the_old_pair_in_use() {
    let authority = Authority::new();
    let (old, new) = (authority.device(), authority.device());
    let chain = |device: &Device| format!("{}{}", device.certificate, authority.pem);
    let bench = Bench::new("cut", &chain(&old), &old);
    let whole = chain(&new);
    fs::write(&bench.key, &new.key).unwrap();
    // Without its last dashes a file is as good as whole.
    let end = |text: &str| text.rfind("-----").unwrap();
    for length in (0..end(&whole)).rev() {
        fs::write(&bench.certificates, &whole[..length]).unwrap();
        assert!(bench.shows(&old), "{length} of {} bytes", whole.len());
    }
    fs::write(&bench.certificates, &whole).unwrap();
    for length in (0..end(&new.key)).rev() {
        fs::write(&bench.key, &new.key[..length]).unwrap();
        assert!(bench.shows(&old), "{length} of {} bytes", new.key.len());
    }
    fs::write(&bench.key, &new.key).unwrap();
    assert!(bench.shows(&new));
}

#[test]
fn a_shorter_chain_is_taken_when_it_was_left_alone() {
    let authority = Authority::new();
    let (old, new) = (authority.device(), authority.device());
    let chain = |device: &Device| format!("{}{}", device.certificate, authority.pem);
    let bench = Bench::new("shorter", &chain(&old), &old);
    fs::write(&bench.key, &new.key).unwrap();
    fs::write(&bench.certificates, &new.certificate).unwrap();
    assert!(bench.shows(&old));
    let trace = bench.trace.take();
    assert!(trace.contains("chain seems to be cut off"), "{trace}");
    age(&bench.key, 60);
    age(&bench.certificates, 5);
    assert!(bench.shows(&old));
    age(&bench.certificates, 11);
    assert!(bench.shows(&new));
    assert_eq!(bench.files.in_use().chain().len(), 1);

    // The chain of another authority is no cut-off one.
    let elsewhere = Authority::new();
    let other = elsewhere.device();
    let bench = Bench::new("elsewhere", &chain(&old), &old);
    fs::write(&bench.key, &other.key).unwrap();
    fs::write(&bench.certificates, format!("{}{}", other.certificate, elsewhere.pem)).unwrap();
    assert!(bench.shows(&other));
}

#[test]
fn a_pair_out_of_date_or_out_of_order_leaves_the_old_one_in_use() {
    let authority = Authority::new();
    let old = authority.device();
    let expired = authority.device_with(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = authority.device_with(|params| params.not_before = date_time_ymd(2090, 1, 1));
    let bench = Bench::new("dates", &old.certificate, &old);
    for (device, says) in [(&expired, "it expired at"), (&future, "not yet valid")] {
        fs::write(&bench.certificates, &device.certificate).unwrap();
        fs::write(&bench.key, &device.key).unwrap();
        assert!(bench.shows(&old));
        let trace = bench.trace.take();
        assert!(trace.contains(says), "{trace}");
    }
    let new = authority.device();
    let foreign = Authority::new().device_with(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Foreign");
    });
    fs::write(&bench.certificates, format!("{}{}", new.certificate, foreign.certificate)).unwrap();
    fs::write(&bench.key, &new.key).unwrap();
    assert!(bench.shows(&old));
    let trace = bench.trace.take();
    assert!(trace.contains("not the issuer of the one before"), "{trace}");
}

#[test]
fn a_deleted_file_leaves_the_old_one_in_use_until_it_is_back() {
    let authority = Authority::new();
    let (old, new) = (authority.device(), authority.device());
    let bench = Bench::new("deleted", &old.certificate, &old);
    fs::remove_file(&bench.certificates).unwrap();
    assert!(bench.shows(&old));
    let trace = bench.trace.take();
    assert!(trace.contains("chain.pem") && trace.contains("can't be read"), "{trace}");
    fs::remove_file(&bench.key).unwrap();
    assert!(bench.shows(&old));
    // A folder and a huge file in its place are no credential either.
    fs::create_dir(&bench.key).unwrap();
    assert!(bench.shows(&old));
    fs::remove_dir(&bench.key).unwrap();
    fs::write(&bench.key, vec![b' '; 1024 * 1024 + 1]).unwrap();
    fs::write(&bench.certificates, &new.certificate).unwrap();
    assert!(bench.shows(&old));
    let trace = bench.trace.take();
    assert!(trace.contains("larger than 1048576 bytes"), "{trace}");
    fs::write(&bench.key, &new.key).unwrap();
    assert!(bench.shows(&new));
}

#[test]
fn renamed_files_are_taken() {
    let authority = Authority::new();
    let (old, new) = (authority.device(), authority.device());
    let bench = Bench::new("renamed", &old.certificate, &old);
    let other = |path: &Path| path.with_extension("new");
    fs::write(other(&bench.certificates), &new.certificate).unwrap();
    fs::write(other(&bench.key), &new.key).unwrap();
    assert!(bench.shows(&old));
    fs::rename(other(&bench.certificates), &bench.certificates).unwrap();
    assert!(bench.shows(&old));
    fs::rename(other(&bench.key), &bench.key).unwrap();
    assert!(bench.shows(&new));
}

/// As secret volumes of orchestrators do it: the files are links into a folder, which is a link that is switched.
#[cfg(unix)]
#[test]
fn a_switched_folder_is_taken_as_a_whole() {
    use std::os::unix::fs::symlink;
    let authority = Authority::new();
    let (old, new) = (authority.device(), authority.device());
    let folder = folder("switched");
    for (name, device) in [("1", &old), ("2", &new)] {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("chain.pem"), &device.certificate).unwrap();
        fs::write(folder.join(name).join("key.pem"), &device.key).unwrap();
    }
    symlink("1", folder.join("data")).unwrap();
    let path = |name| folder.join("data").join(name);
    let files = X509Files::open(path("chain.pem"), path("key.pem")).unwrap();
    symlink("2", folder.join("next")).unwrap();
    fs::rename(folder.join("next"), folder.join("data")).unwrap();
    assert_eq!(files.current().chain().next().unwrap(), pem_der(&new.certificate), "{files:?}");
}

/// A pipe would be waited for without end.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_file_to_read_again() {
    let pipe = folder("pipe").join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = SymmetricKeyFile::open(&pipe).unwrap_err().to_string();
    assert!(error.contains("no regular file") && error.contains("pipe"), "{error}");
}

#[test]
fn what_is_wrong_at_first_is_an_error_that_names_the_file() {
    let authority = Authority::new();
    let (one, other) = (authority.device(), authority.device());
    let folder = folder("first");
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let open = || X509Files::open(&chain, &key).map(|files| format!("{files:?}"));
    let error = open().unwrap_err().to_string();
    assert!(error.contains("chain.pem") && error.contains("can't be read"), "{error}");
    fs::write(&chain, &one.certificate).unwrap();
    fs::write(&key, &other.key).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.starts_with("private key ") && error.contains("key.pem"), "{error}");
    fs::write(&chain, "nothing").unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.starts_with("certificate ") && error.contains("chain.pem"), "{error}");
    fs::write(&chain, &one.certificate).unwrap();
    fs::write(&key, &one.key).unwrap();
    let shown = open().unwrap();
    assert!(shown.contains("chain.pem") && shown.contains("key.pem"), "{shown}");
    assert!(shown.contains("CN=pump-17") && shown.contains("***"), "{shown}");
}

#[test]
fn a_replaced_symmetric_key_signs_the_next_token() {
    let (trace, _tracing) = Trace::start();
    let path = folder("symmetric").join("device.key");
    fs::write(&path, "b2xkIGtleSBvZiBwdW1wLTE3LCB3aGljaCBpcyBhcyBsb25n\n").unwrap();
    let file = SymmetricKeyFile::open(&path).unwrap();
    let attestation = Attestation::from(file.clone());
    let now = || file.current().expose_base64().to_string();
    let old = "b2xkIGtleSBvZiBwdW1wLTE3LCB3aGljaCBpcyBhcyBsb25n";
    assert_eq!(now(), old);

    for (damaged, says) in [
        (&b""[..], "it is empty"),
        (b"bmV3IGtleSBvZiBwdW1wLTE3", "it is shorter than the key before"),
        (b"bmV3IGtl", "it has 6 bytes"),
        (b"bmV3IGtle", "it has 9 characters"),
        (b"\xff\xfeb\0", "UTF-16"),
        (b"\x80\x81", "it is not text"),
    ] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(now(), old, "{damaged:?}");
        let trace = trace.take();
        assert!(trace.contains("WARN") && trace.contains(says), "{damaged:?}: {trace}");
        assert!(!trace.contains("bmV3IGtl"), "no secret: {trace}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(now(), old);

    fs::write(&path, "bmV3IGtleSBvZiBwdW1wLTE3LCB3aGljaCBpcyBhcyBsb25n").unwrap();
    assert_eq!(now(), "bmV3IGtleSBvZiBwdW1wLTE3LCB3aGljaCBpcyBhcyBsb25n");
    // A shorter key is taken too, when nobody writes any more.
    fs::write(&path, "YSBzaG9ydGVyIGtleSBvZiAx").unwrap();
    age(&path, 11);
    assert_eq!(now(), "YSBzaG9ydGVyIGtleSBvZiAx");
    assert_eq!(*file.in_use().expose_base64(), "YSBzaG9ydGVyIGtleSBvZiAx");
    assert!(format!("{attestation:?}").ends_with("device.key; ***))"), "{attestation:?}");
    assert!(!trace.take().contains("YSBzaG9ydGVyIGtleSBvZiAx"));
}
