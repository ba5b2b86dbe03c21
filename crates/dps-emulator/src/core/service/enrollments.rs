//! The enrollments of the service, found by their names, each with what the service keeps beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use dps_attestation::GroupKey;
use serde::{Deserialize, Serialize};

use super::{Service, script::Cursor};
use crate::{
    behavior::Behavior,
    config_error::ConfigError,
    enrollment::{Enrollment, EnrollmentName, GroupAttestation, Members},
};

/// Individual enrollments and groups, two name spaces as in the service, each in the order of its names.
#[derive(Default)]
pub(crate) struct Enrollments {
    individual: BTreeMap<String, Stored>,
    groups: BTreeMap<String, Stored>,
    /// Those that were put, changed or removed since they were written last.
    pub(super) changed: BTreeSet<EnrollmentId>,
}

/// An enrollment and what the service keeps beside it.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) enrollment: Arc<Enrollment>,
    pub(crate) etag: String,
    pub(crate) created: SystemTime,
    pub(crate) updated: SystemTime,
}

/// Which of the two name spaces.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    #[default]
    Individual,
    Group,
}

/// Says which enrollment is meant; case does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct EnrollmentId {
    pub(crate) kind: Kind,
    /// In lower case.
    pub(super) key: String,
}

impl EnrollmentId {
    pub(crate) fn new(kind: Kind, name: &str) -> Self {
        Self { kind, key: name.to_ascii_lowercase() }
    }

    pub(crate) fn of(enrollment: &Enrollment) -> Self {
        let kind = if enrollment.is_group() { Kind::Group } else { Kind::Individual };
        Self::new(kind, enrollment.name())
    }

    /// Whose devices are dealt hubs in turn: those of a group, or those of all individual enrollments together.
    pub(super) fn dealt(&self) -> Self {
        match self.kind {
            Kind::Individual => Self::default(),
            Kind::Group => self.clone(),
        }
    }
}

impl Enrollments {
    pub(crate) fn get(&self, id: &EnrollmentId) -> Option<&Stored> {
        self.of_kind(id.kind).get(&id.key)
    }

    /// The enrollment that a program or a person means.
    pub(crate) fn find(&self, name: EnrollmentName<'_>) -> Result<EnrollmentId, ConfigError> {
        let (kinds, name): (&[Kind], _) = match name {
            EnrollmentName::Any(name) => (&[Kind::Individual, Kind::Group], name),
            EnrollmentName::Individual(name) => (&[Kind::Individual], name),
            EnrollmentName::Group(name) => (&[Kind::Group], name),
        };
        let mut ids = kinds.iter().map(|kind| EnrollmentId::new(*kind, name));
        ids.find(|id| self.get(id).is_some()).ok_or_else(|| {
            ConfigError::new("enrollment", "there is none with this name").value(name.chars())
        })
    }

    /// All of one kind, in the order of their names.
    pub(crate) fn of_kind(&self, kind: Kind) -> &BTreeMap<String, Stored> {
        match kind {
            Kind::Individual => &self.individual,
            Kind::Group => &self.groups,
        }
    }

    fn of_kind_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Stored> {
        match kind {
            Kind::Individual => &mut self.individual,
            Kind::Group => &mut self.groups,
        }
    }

    /// Puts an enrollment into the place of the one with its name; gives that one back. The creation time stays.
    pub(crate) fn put(
        &mut self,
        enrollment: Enrollment,
        etag: String,
        now: SystemTime,
    ) -> Option<Stored> {
        let id = EnrollmentId::of(&enrollment);
        self.changed.insert(id.clone());
        let created = self.get(&id).map_or(now, |former| former.created);
        let stored = Stored { enrollment: Arc::new(enrollment), etag, created, updated: now };
        self.of_kind_mut(id.kind).insert(id.key, stored)
    }

    /// Changes an enrollment where it is.
    pub(crate) fn change(
        &mut self,
        id: &EnrollmentId,
        etag: String,
        now: SystemTime,
        change: impl FnOnce(&mut Enrollment),
    ) {
        if let Some(stored) = self.of_kind_mut(id.kind).get_mut(&id.key) {
            change(Arc::make_mut(&mut stored.enrollment));
            stored.etag = etag;
            stored.updated = now;
            self.changed.insert(id.clone());
        }
    }

    /// Puts one back as it was kept.
    pub(super) fn restore(&mut self, id: EnrollmentId, stored: Stored) {
        self.of_kind_mut(id.kind).insert(id.key, stored);
    }

    /// Which there are.
    pub(super) fn ids(&self) -> impl Iterator<Item = EnrollmentId> {
        [Kind::Individual, Kind::Group].into_iter().flat_map(|kind| {
            self.of_kind(kind).keys().map(move |key| EnrollmentId { kind, key: key.clone() })
        })
    }

    pub(crate) fn remove(&mut self, id: &EnrollmentId) -> Option<Stored> {
        self.changed.insert(id.clone());
        self.of_kind_mut(id.kind).remove(&id.key)
    }
}

impl Service {
    /// All enrollments, those of single devices first, in the order of their names.
    pub(crate) fn enrollments(&self) -> impl Iterator<Item = &Enrollment> {
        let kinds = [Kind::Individual, Kind::Group].into_iter();
        kinds.flat_map(|kind| self.enrollments.of_kind(kind).values()).map(|it| &*it.enrollment)
    }

    /// The hubs that devices are assigned to, or were, each as often as it is named.
    pub(crate) fn hubs(&self) -> impl Iterator<Item = &str> {
        let assigned = self.devices.all().filter_map(|device| device.assignment.as_ref());
        let enrollments = self.enrollments().flat_map(|enrollment| &enrollment.hubs);
        let hubs = self.instance.linked_hubs.iter().chain(enrollments);
        hubs.chain(assigned.map(|assignment| &assignment.hub)).map(String::as_str)
    }

    /// The enrollment that a program or a person means.
    pub(crate) fn enrollment_named(
        &self,
        name: EnrollmentName<'_>,
    ) -> Result<&Enrollment, ConfigError> {
        let id = self.enrollments.find(name)?;
        let unknown = || ConfigError::new("enrollment", "there is none with this name");
        self.enrollments.get(&id).map(|stored| &*stored.enrollment).ok_or_else(unknown)
    }

    /// The key of a group whose devices have symmetric keys.
    pub(crate) fn group_key(&self, name: &str) -> Option<&GroupKey> {
        match self.enrollment_named(EnrollmentName::Group(name)).map(|it| &it.members) {
            Ok(Members::Group(GroupAttestation::SymmetricKey(keys))) => Some(&keys.primary),
            _ => None,
        }
    }

    /// Adds an enrollment whose name is not taken.
    pub(crate) fn add(
        &mut self,
        now: SystemTime,
        enrollment: Enrollment,
    ) -> Result<(), ConfigError> {
        if self.enrollments.get(&EnrollmentId::of(&enrollment)).is_some() {
            return Err(enrollment.name_is_taken());
        }
        self.put(now, enrollment).map(|_| ())
    }

    /// Adds an enrollment, or puts it into the place of the one with its name, which it gives back. What its devices
    /// were assigned stays; with another behavior, each starts at the beginning of the script.
    pub(crate) fn put(
        &mut self,
        now: SystemTime,
        enrollment: Enrollment,
    ) -> Result<Option<Arc<Enrollment>>, ConfigError> {
        enrollment.check(&self.instance.verified_cas)?;
        let id = EnrollmentId::of(&enrollment);
        let (behavior, tpm) = (enrollment.behavior.clone(), enrollment.tpm().cloned());
        let etag = self.guids.next_record_etag();
        let former = self.enrollments.put(enrollment, etag, now).map(|stored| stored.enrollment);
        if let Some(former) = &former {
            if former.behavior != behavior {
                self.restart_scripts(&id);
            }
            if former.tpm() != tpm.as_ref() {
                self.tpms.forget(former.name());
            }
        }
        Ok(former)
    }

    /// Removes an enrollment; its devices are forgotten with it.
    pub(crate) fn remove(&mut self, name: EnrollmentName<'_>) -> Result<(), ConfigError> {
        let id = self.enrollments.find(name)?;
        self.remove_id(&id);
        Ok(())
    }

    pub(crate) fn remove_id(&mut self, id: &EnrollmentId) {
        let removed = self.enrollments.remove(id);
        self.devices.forget(id);
        self.turns.remove(id);
        if let (Kind::Individual, Some(removed)) = (id.kind, removed) {
            self.tpms.forget(removed.enrollment.name());
        }
    }

    /// Sets the behavior toward an enrollment's devices; each starts at the beginning of the new script.
    pub(crate) fn set_behavior(
        &mut self,
        now: SystemTime,
        name: EnrollmentName<'_>,
        behavior: Behavior,
    ) -> Result<(), ConfigError> {
        let id = self.enrollments.find(name)?;
        let etag = self.guids.next_record_etag();
        self.enrollments.change(&id, etag, now, |enrollment| enrollment.behavior = behavior);
        self.restart_scripts(&id);
        Ok(())
    }

    /// Enables or disables an enrollment.
    pub(crate) fn set_enabled(
        &mut self,
        now: SystemTime,
        name: EnrollmentName<'_>,
        enabled: bool,
    ) -> Result<(), ConfigError> {
        let id = self.enrollments.find(name)?;
        let etag = self.guids.next_record_etag();
        self.enrollments.change(&id, etag, now, |enrollment| enrollment.enabled = enabled);
        Ok(())
    }

    fn restart_scripts(&mut self, id: &EnrollmentId) {
        for name in self.devices.of_enrollment(id) {
            if let Some(device) = self.devices.get_mut(&name) {
                device.register = Cursor::default();
                device.query = Cursor::default();
            }
        }
    }
}
