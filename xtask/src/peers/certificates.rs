//! The peers' certificates, made with openssl so that nobody trusts our own code about them.

use std::path::{Path, PathBuf};

use xshell::{Shell, cmd};

use crate::process::Result;

/// Makes a root, an authority below it and a device below that in the folder. The device's certificate is
/// `DEVICE-chain.pem`, with its authority's, and its key `DEVICE.key`. Returns the root's certificate.
pub(super) fn family(shell: &Shell, folder: &Path, family: &str, device: &str) -> Result<PathBuf> {
    let (root, authority) = (format!("{family}-root"), format!("{family}-authority"));
    let made =
        Folder { shell, folder, config: shell.current_dir().join("tests/peers/openssl.cnf") };
    made.certificate(&root, "authority", None)?;
    made.certificate(&authority, "authority", Some(&root))?;
    made.certificate(device, "device", Some(&authority))?;
    let pem = |name: &str| shell.read_file(made.file(name, "pem"));
    let chain = pem(device)? + &pem(&authority)?;
    shell.write_file(made.file(&format!("{device}-chain"), "pem"), chain)?;
    Ok(made.file(&root, "pem"))
}

struct Folder<'a> {
    shell: &'a Shell,
    folder: &'a Path,
    config: PathBuf,
}

impl Folder<'_> {
    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }

    /// `name.pem` and `name.key`, signed by the issuer or by itself.
    fn certificate(&self, name: &str, kind: &str, issuer: Option<&str>) -> Result {
        let Self { shell, config, .. } = self;
        let [key, request, pem] = ["key", "csr", "pem"].map(|ending| self.file(name, ending));
        // RSA for devices and P-256 for authorities, so that both are seen.
        let kind_of_key: &[&str] = match kind {
            "device" => &["rsa:2048"],
            _ => &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        };
        cmd!(shell, "openssl req -nodes -subj /CN={name} -newkey {kind_of_key...} -config {config} -keyout {key} -out {request}")
            .quiet()
            .ignore_stderr()
            .run()?;
        let mut sign = cmd!(shell, "openssl x509 -req -days 2 -sha256 -in {request} -out {pem}");
        sign = match issuer {
            None => sign.arg("-signkey").arg(key),
            Some(issuer) => {
                let [authority, key] = ["pem", "key"].map(|ending| self.file(issuer, ending));
                sign.arg("-CAcreateserial").arg("-CA").arg(authority).arg("-CAkey").arg(key)
            }
        };
        let sign = sign.args(["-extensions", kind, "-extfile"]).arg(config);
        Ok(sign.quiet().ignore_stderr().run()?)
    }
}
