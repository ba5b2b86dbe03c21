//! All files that a command reads, keeps and writes.

use std::path::PathBuf;

use dps_client::{Error, disk::beside};

use super::{Plan, Registration, prepare::payload_file};
use crate::{
    apart::Files,
    device_file,
    files::Source,
    given::{self, Given},
};

impl Registration {
    /// An error that names the flag whose file would be overwritten.
    pub(super) fn ensure_files_apart(&self, plan: &Plan) -> Result<(), Error> {
        let given = |from: &'static str| {
            move |path: PathBuf| Given { from, text: path.display().to_string() }
        };
        let source = |Source { from, path }: Source| Given { from, text: path };
        let mut files = Files::default();
        if let Some(state) = plan.state.as_ref().map(|state| state.path().to_owned()) {
            let [lock, damaged] = [".lock", ".damaged"].map(|ending| beside(&state, ending));
            files.written.extend([state, lock, damaged].map(given(given::STATE.flag)));
        }
        if let Some(folder) = plan.folder.as_ref() {
            let paths = folder.files().map(given(given::REQUEST_CERTIFICATE.flag));
            files.read.extend(paths);
        }
        if let Some(handover) = &plan.handover {
            files.written.extend(handover.written().cloned().map(source));
            files.read.extend(handover.read().map(source));
        }
        files.read.extend(self.credential.files()?.into_iter().map(source));
        files.read.extend(given::CA_FILE.file(self.ca_file.as_ref())?.map(source));
        files.read.extend(self.payload()?.and_then(|text| payload_file(&text)).map(source));
        let config = device_file::path().map(ToOwned::to_owned);
        files.read.extend(config.map(given("the configuration file")));
        files.check()
    }
}
