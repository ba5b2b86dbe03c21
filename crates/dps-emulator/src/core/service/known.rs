//! What the service knows of a device, for those who watch it.

use serde::Serialize;

use super::{Device, Progress, Service};
use crate::core::clock;

/// A device that has registered, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct KnownDevice {
    /// As the device wrote it first.
    pub registration_id: String,
    /// The enrollment that let it in.
    pub enrollment: String,
    /// The status word of its registration; `unassigned` before it has asked for one.
    pub status: String,
    /// Its last operation.
    pub operation_id: Option<String>,
    /// The hub that it belongs to.
    pub assigned_hub: Option<String>,
    /// How it came to that hub, like `initialAssignment`.
    pub substatus: Option<String>,
    /// When it got its first hub, by the service's clock.
    pub created_date_time_utc: Option<String>,
    /// When its hub was set last.
    pub last_updated_date_time_utc: Option<String>,
}

impl Service {
    /// All devices that have registered, ordered by their registration ids.
    pub(crate) fn known_devices(&self) -> Vec<KnownDevice> {
        self.devices.sorted().into_iter().map(|device| self.known(device)).collect()
    }

    pub(crate) fn known_device(&self, registration_id: &str) -> Option<KnownDevice> {
        self.devices.get(registration_id).map(|device| self.known(device))
    }

    fn known(&self, device: &Device) -> KnownDevice {
        let operation = device.operation.as_ref();
        let status = match operation.map(|operation| &operation.progress) {
            Some(Progress::Done { status, .. }) => status,
            Some(Progress::PollsLeft(_)) => "assigning",
            None => "unassigned",
        };
        let assignment = device.assignment.as_ref();
        let enrollment = self.enrollments.get(&device.enrollment);
        KnownDevice {
            registration_id: device.registration_id.clone(),
            enrollment: enrollment.map(|it| it.enrollment.name().to_owned()).unwrap_or_default(),
            status: status.to_owned(),
            operation_id: operation.map(|operation| operation.id.clone()),
            assigned_hub: assignment.map(|assignment| assignment.hub.clone()),
            substatus: assignment.map(|assignment| assignment.substatus.clone()),
            created_date_time_utc: assignment.map(|it| clock::rfc3339(it.created)),
            last_updated_date_time_utc: assignment.map(|it| clock::rfc3339(it.updated)),
        }
    }
}
