//! A folder, a point in time, and a service that needs no network.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use dps_client::{
    BoxTransport, Client, Error, OperationId, Progress, RegistrationRequest, Response, Settings,
    StateMachine, TransportHandlers,
};
use dps_provisioner::Identity;

pub(crate) const ID: &str = "pump-17";
pub(crate) const HOUR: u64 = 3600;

/// So many seconds after the tests' beginning of time.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

pub(crate) fn identity() -> Identity {
    Identity {
        id_scope: "0ne00AABBCC".parse().unwrap(),
        registration_id: ID.parse().unwrap(),
        endpoint: "dps.example".parse().unwrap(),
    }
}

/// A folder of its own that goes away with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A service that assigns each device to one hub, refuses it, or never answers.
#[derive(Clone)]
pub(crate) struct Fake {
    answer: Option<Response>,
    calls: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) fn new(hub: &str) -> Self {
        let state =
            format!(r#"{{"assignedHub":"{hub}","deviceId":"{ID}","payload":{{"a": 1.50}}}}"#);
        let body =
            format!(r#"{{"status":"assigned","operationId":"op","registrationState":{state}}}"#);
        Self { answer: Some(Response::new(200, body)), calls: Arc::default() }
    }

    pub(crate) fn refusing() -> Self {
        Self { answer: Some(Response::new(403, "")), ..Self::silent() }
    }

    pub(crate) fn silent() -> Self {
        Self { answer: None, calls: Arc::default() }
    }

    pub(crate) fn client(&self) -> Client {
        StateMachine::new(BoxTransport::new(self.clone()), Settings::default())
    }

    /// So many registrations were sent.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl TransportHandlers for Fake {
    async fn registration_request(
        &mut self,
        _: &RegistrationRequest,
        _: &Progress,
    ) -> Result<Response, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match &self.answer {
            Some(answer) => Ok(answer.clone()),
            None => std::future::pending().await,
        }
    }

    async fn query_operation_status(
        &mut self,
        _: &RegistrationRequest,
        _: &OperationId,
        _: &Progress,
    ) -> Result<Response, Error> {
        Ok(Response::new(404, ""))
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
