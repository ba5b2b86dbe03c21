//! What the service knows of devices, the latest of them: nobody makes it remember more than so much.

use std::collections::HashMap;

use super::{Device, EnrollmentId, Operation, Progress, key};

/// How many bytes all devices may have; those that were not heard of for longest are forgotten for the latest.
const CAPACITY_BYTES: usize = 4 * 1024 * 1024;
/// What a device has at least, about.
const OVERHEAD: usize = 1024;

/// By their registration ids.
#[derive(Default)]
pub(super) struct Devices {
    known: HashMap<String, Known>,
    /// How often one was asked for.
    asked: u64,
}

struct Known {
    device: Device,
    asked: u64,
}

impl Devices {
    /// The device that an enrollment has let in, as it was left or a new one.
    pub(super) fn of(&mut self, registration_id: &str, enrollment: &EnrollmentId) -> &mut Device {
        self.asked += 1;
        let asked = self.asked;
        let new = || Device {
            registration_id: registration_id.to_owned(),
            enrollment: enrollment.clone(),
            ..Device::default()
        };
        let known = self.known.entry(key(registration_id));
        let known = known.or_insert_with(|| Known { device: new(), asked });
        known.asked = asked;
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

    /// Forgets as many as it takes, but not the latest.
    pub(super) fn bound(&mut self) {
        let size = |known: &Known| {
            let operation = known.device.operation.as_ref().map_or(0, size);
            OVERHEAD + operation + known.device.twin.bytes()
        };
        let mut bytes: usize = self.known.values().map(size).sum();
        while bytes > CAPACITY_BYTES && self.known.len() > 1 {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.asked);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            bytes -= self.known.remove(&key).as_ref().map_or(0, size);
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
        Some(&mut self.known.get_mut(&key(registration_id))?.device)
    }

    pub(super) fn get(&self, registration_id: &str) -> Option<&Device> {
        Some(&self.known.get(&key(registration_id))?.device)
    }

    /// Forgets one; says whether it was known.
    pub(super) fn remove(&mut self, registration_id: &str) -> bool {
        self.known.remove(&key(registration_id)).is_some()
    }

    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Device> {
        self.known.values_mut().map(|known| &mut known.device)
    }

    pub(super) fn forget(&mut self, enrollment: &EnrollmentId) {
        self.known.retain(|_, known| known.device.enrollment != *enrollment);
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

fn size(operation: &Operation) -> usize {
    let payload = operation.payload.as_ref().map_or(0, |payload| payload.get().len());
    match &operation.progress {
        Progress::Done { state, issued, .. } => {
            let issued: usize = issued.iter().map(|(_, value)| value.get().len()).sum();
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
                api_version: super::super::ApiVersion::find(Some("2021-06-01")).unwrap(),
                progress: Progress::PollsLeft(1),
                payload: Some(serde_json::Value::from("x".repeat(1 << 16)).into()),
                force: false,
                csr: None,
            });
            devices.bound();
            devices.known.len()
        };
        let most = CAPACITY_BYTES / (1 << 16);
        for number in 0..1000 {
            register("first");
            let known = register(&number.to_string());
            assert!(known <= most, "{known}");
        }
        assert!(devices.known.contains_key("first") && devices.known.contains_key("999"));
        assert!(!devices.known.contains_key("100"));
        for number in 0..10_000 {
            devices.of(&number.to_string(), &factory);
            devices.bound();
        }
        assert!(devices.known.len() <= CAPACITY_BYTES / OVERHEAD);
    }
}
