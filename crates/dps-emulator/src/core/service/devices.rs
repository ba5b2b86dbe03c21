//! What the service knows of devices, the latest of them: nobody makes it remember more than so much.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Device, EnrollmentId, Operation, Progress, key};

/// How many bytes all devices may have; those that were not heard of for longest are forgotten for the latest.
const CAPACITY_BYTES: usize = 16 * 1024 * 1024;
/// What a device has at least, about.
const OVERHEAD: usize = 1024;

/// By their registration ids. What each call takes does not grow with how many there are, but for those about all of them.
#[derive(Default)]
pub(super) struct Devices {
    known: HashMap<String, Known>,
    /// Their keys by when they were asked for last, that of longest ago first.
    by_age: BTreeMap<u64, String>,
    /// What all of them have together, as it was counted last.
    bytes: usize,
    /// How often one was asked for.
    asked: u64,
    /// Those that may be other than when they were written last.
    pub(super) changed: BTreeSet<String>,
}

struct Known {
    device: Device,
    asked: u64,
    bytes: usize,
}

impl Devices {
    /// The device that an enrollment has let in, as it was left or a new one.
    pub(super) fn of(&mut self, registration_id: &str, enrollment: &EnrollmentId) -> &mut Device {
        let new = || Device {
            registration_id: registration_id.to_owned(),
            enrollment: enrollment.clone(),
            ..Device::default()
        };
        let key = key(registration_id);
        if !self.changed.contains(&key) {
            self.changed.insert(key.clone());
        }
        // One call asks several times for the same device.
        let is_latest = self.by_age.last_key_value().is_some_and(|(_, latest)| *latest == key);
        let known = self.known.entry(key.clone()).or_insert_with(|| {
            self.bytes += OVERHEAD;
            Known { device: new(), asked: 0, bytes: OVERHEAD }
        });
        if !is_latest {
            self.by_age.remove(&known.asked);
            self.asked += 1;
            known.asked = self.asked;
            self.by_age.insert(self.asked, key);
        }
        if known.device.enrollment != *enrollment {
            known.device = new();
        }
        &mut known.device
    }

    /// The names of an enrollment's devices, in order.
    pub(super) fn of_enrollment(&self, enrollment: &EnrollmentId) -> Vec<String> {
        let known = self.known.iter().filter(|(_, known)| known.device.enrollment == *enrollment);
        let mut names: Vec<_> = known.map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Counts anew what this device has, and forgets as many others as it takes.
    pub(super) fn bound(&mut self, registration_id: &str) {
        let latest = key(registration_id);
        if let Some(known) = self.known.get_mut(&latest) {
            let operation = known.device.operation.as_ref().map_or(0, size);
            let bytes = OVERHEAD + operation + known.device.twin.bytes();
            self.bytes = self.bytes + bytes - known.bytes;
            known.bytes = bytes;
        }
        while self.bytes > CAPACITY_BYTES
            && let Some((_, oldest)) =
                self.by_age.first_key_value().filter(|(_, it)| **it != latest)
        {
            self.remove(&oldest.clone());
        }
    }

    /// All of them, ordered by their names.
    pub(super) fn sorted(&self) -> Vec<&Device> {
        let mut known: Vec<_> = self.known.iter().collect();
        known.sort_by_key(|(name, _)| *name);
        known.into_iter().map(|(_, known)| &known.device).collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Device> {
        self.known.values().map(|known| &known.device)
    }

    pub(super) fn get_mut(&mut self, registration_id: &str) -> Option<&mut Device> {
        let key = key(registration_id);
        let known = self.known.get_mut(&key)?;
        self.changed.insert(key);
        Some(&mut known.device)
    }

    pub(super) fn get(&self, registration_id: &str) -> Option<&Device> {
        Some(&self.known.get(&key(registration_id))?.device)
    }

    /// Forgets one; says whether it was known.
    pub(super) fn remove(&mut self, registration_id: &str) -> bool {
        let key = key(registration_id);
        let Some(known) = self.known.remove(&key) else { return false };
        self.changed.insert(key);
        self.by_age.remove(&known.asked);
        self.bytes -= known.bytes;
        true
    }

    pub(super) fn forget(&mut self, enrollment: &EnrollmentId) {
        for name in self.of_enrollment(enrollment) {
            self.remove(&name);
        }
    }

    pub(super) fn clear(&mut self) {
        self.known.keys().for_each(|key| {
            self.changed.insert(key.clone());
        });
        let changed = std::mem::take(&mut self.changed);
        *self = Self { asked: self.asked, changed, ..Self::default() };
    }
}

fn size(operation: &Operation) -> usize {
    let payload = operation.payload.as_ref().map_or(0, |payload| payload.get().len());
    match &operation.progress {
        Progress::Done { state, issued, .. } => {
            let issued: usize = issued.values().map(|value| value.get().len()).sum();
            payload + state.get().len() + issued
        }
        Progress::PollsLeft(_) => payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::service::Kind;

    #[test]
    fn those_not_heard_of_for_longest_are_forgotten_for_the_latest() {
        let mut devices = Devices::default();
        let factory = EnrollmentId::new(Kind::Group, "factory");
        let mut register = |name: &str| {
            devices.of(name, &factory).operation = Some(Operation {
                id: String::new(),
                etag: String::new(),
                begun: std::time::SystemTime::UNIX_EPOCH,
                progress: Progress::PollsLeft(1),
                payload: Some(serde_json::Value::from("x".repeat(1 << 16)).into()),
                force: false,
                csr: None,
                webhook: Default::default(),
            });
            devices.bound(name);
            devices.known.len()
        };
        let most = CAPACITY_BYTES / (1 << 16);
        for number in 0..400 {
            register("first");
            let known = register(&number.to_string());
            assert!(known <= most, "{known}");
        }
        assert!(devices.known.contains_key("first") && devices.known.contains_key("399"));
        assert!(!devices.known.contains_key("100"));
        for number in 0..20_000 {
            devices.of(&number.to_string(), &factory);
            devices.bound(&number.to_string());
        }
        assert!(devices.known.len() <= CAPACITY_BYTES / OVERHEAD);
        // What is counted is what there is.
        assert_eq!(devices.bytes, devices.known.values().map(|known| known.bytes).sum::<usize>());
        assert!(devices.by_age.values().all(|key| devices.known.contains_key(key)));
        assert_eq!(devices.by_age.len(), devices.known.len());
        devices.forget(&factory);
        assert_eq!((devices.bytes, devices.known.len(), devices.by_age.len()), (0, 0, 0));
    }
}
