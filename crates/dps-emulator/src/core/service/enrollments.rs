//! The enrollments of the service, found by their names, each with what the service keeps beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    config_error::ConfigError,
    enrollment::{Enrollment, EnrollmentName},
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
