//! What of the service outlives the process when it has a file for its state: each record on its own, as JSON.

#![cfg_attr(
    not(feature = "state"),
    expect(dead_code, reason = "without the feature there is no file to keep it in")
)]

use std::{collections::BTreeSet, time::SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Device, EnrollmentId, IssuingCa, Kind, Operation, Progress, Service, Stored, Webhook,
    issuing::KeptCa, tpm::DeviceTpm,
};
use crate::enrollment::Enrollment;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RecordKind {
    Individual,
    Group,
    Device,
    Tpm,
    IssuingCa,
}

/// A record: which one, and its JSON; `None` when there is none any more.
pub(crate) type Record = ((RecordKind, String), Option<String>);

/// What may be other than in the file, beside what the parts of the service keep themselves.
#[derive(Default)]
pub(super) struct Changed(BTreeSet<(RecordKind, String)>);

impl Changed {
    pub(super) fn issuing_ca(&mut self) {
        self.0.insert((RecordKind::IssuingCa, String::new()));
    }
}

impl RecordKind {
    const ALL: [(Self, &str); 5] = [
        (Self::Individual, "enrollment"),
        (Self::Group, "enrollment-group"),
        (Self::Device, "device"),
        (Self::Tpm, "tpm"),
        (Self::IssuingCa, "issuing-ca"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Which record an enrollment has.
    pub(crate) fn of(enrollment: &Enrollment) -> (Self, String) {
        record_of(EnrollmentId::of(enrollment))
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// An enrollment as its record has it.
#[derive(Serialize, Deserialize)]
struct KeptEnrollment {
    etag: String,
    created: SystemTime,
    updated: SystemTime,
    enrollment: Value,
}

impl Operation {
    /// Whether its device begins it anew after a start: it is under way, and waits for a webhook or is to end with a
    /// certificate, neither of which is kept.
    #[expect(clippy::ref_option, reason = "serde gives it so")]
    pub(super) fn is_begun_anew(this: &Option<Self>) -> bool {
        this.as_ref().is_some_and(|it| {
            let waits = it.csr.is_some() || !matches!(it.webhook, Webhook::Unasked);
            waits && matches!(it.progress, Progress::PollsLeft(_))
        })
    }
}

impl Service {
    /// What is other than it was when this was asked last.
    pub(crate) fn take_changes(&mut self) -> Vec<Record> {
        let mut changed = std::mem::take(&mut self.changed.0);
        changed.extend(std::mem::take(&mut self.enrollments.changed).into_iter().map(record_of));
        let named = |kind| move |name| (kind, name);
        let devices = std::mem::take(&mut self.devices.changed);
        changed.extend(devices.into_iter().map(named(RecordKind::Device)));
        let tpms = std::mem::take(&mut self.tpms.changed);
        changed.extend(tpms.into_iter().map(named(RecordKind::Tpm)));
        changed.into_iter().map(|id| (id.clone(), self.kept(id.0, &id.1))).collect()
    }

    /// Forgets what was changed: there is no file to write it to.
    pub(crate) fn drop_changes(&mut self) {
        self.changed.0.clear();
        self.enrollments.changed.clear();
        self.devices.changed.clear();
        self.tpms.changed.clear();
    }

    /// The names of all records that there are.
    pub(super) fn all_names(&self) -> super::kept::Changed {
        let devices = self.devices.all().map(|device| super::key(&device.registration_id));
        let devices = devices.map(|name| (RecordKind::Device, name));
        let tpms = self.tpms.names().map(|name| (RecordKind::Tpm, name.clone()));
        Changed(self.enrollments.ids().map(record_of).chain(devices).chain(tpms).collect())
    }

    fn kept(&self, kind: RecordKind, name: &str) -> Option<String> {
        match kind {
            RecordKind::Individual | RecordKind::Group => {
                let stored = self.enrollments.get(&id_of(kind, name))?;
                let (etag, enrollment) = (stored.etag.clone(), stored.enrollment.to_json());
                let (created, updated) = (stored.created, stored.updated);
                json(&KeptEnrollment { etag, created, updated, enrollment })
            }
            RecordKind::Device => json(self.devices.get(name)?),
            RecordKind::Tpm => json(self.tpms.get(name)?),
            RecordKind::IssuingCa => json(&self.issuing.as_ref()?.to_kept()),
        }
    }

    /// Puts a record back. Why it can't be, if it is damaged.
    pub(crate) fn restore(
        &mut self,
        kind: RecordKind,
        name: String,
        text: &str,
    ) -> Result<(), String> {
        // What the parser says may have a key in it.
        let damaged = |error: serde_json::Error| {
            format!("there is something wrong at column {}", error.column())
        };
        match kind {
            RecordKind::Individual | RecordKind::Group => {
                let kept: KeptEnrollment = serde_json::from_str(text).map_err(damaged)?;
                let enrollment = Enrollment::from_json(&kept.enrollment);
                let enrollment = enrollment.map_err(|error| error.to_string())?.into();
                let KeptEnrollment { etag, created, updated, .. } = kept;
                let stored = Stored { enrollment, etag, created, updated };
                self.enrollments.restore(id_of(kind, &name), stored);
            }
            RecordKind::Device => {
                let device: Device = serde_json::from_str(text).map_err(damaged)?;
                if let Some(turn) = device.turn {
                    let next = self.turns.entry(device.enrollment.dealt()).or_default();
                    *next = (*next).max(turn + 1);
                }
                let id = device.registration_id.clone();
                let enrollment = device.enrollment.clone();
                *self.devices.of(&id, &enrollment) = device;
                self.devices.bound(&id);
            }
            RecordKind::Tpm => {
                let tpm: DeviceTpm = serde_json::from_str(text).map_err(damaged)?;
                self.tpms.put(name, tpm);
            }
            RecordKind::IssuingCa => {
                let kept: KeptCa = serde_json::from_str(text).map_err(damaged)?;
                self.issuing = Some(IssuingCa::from_kept(&kept).ok_or("it is damaged")?);
            }
        }
        Ok(())
    }
}

fn record_of(id: EnrollmentId) -> (RecordKind, String) {
    let kind = match id.kind {
        Kind::Individual => RecordKind::Individual,
        Kind::Group => RecordKind::Group,
    };
    (kind, id.key)
}

fn id_of(kind: RecordKind, name: &str) -> EnrollmentId {
    let kind = if kind == RecordKind::Group { Kind::Group } else { Kind::Individual };
    EnrollmentId::new(kind, name)
}

/// Of texts, numbers and what is JSON already: there is nothing that can fail to serialize.
fn json(record: &impl Serialize) -> Option<String> {
    serde_json::to_string(record).ok()
}
