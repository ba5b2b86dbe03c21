//! Which hub a device gets, the first time and when it registers again.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Device, webhook::Chosen};
use crate::enrollment::{Allocation, Enrollment, Reprovisioning};

/// Where a device belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) hub: String,
    pub(crate) substatus: String,
    pub(crate) created: SystemTime,
    pub(crate) updated: SystemTime,
    /// The hub that it was assigned to first.
    initial_hub: String,
}

impl Device {
    /// Runs the allocation as the enrollment's policy wants it, and keeps what comes of it. `turn` counts the devices
    /// that were dealt a hub before; `nearest` has hubs by their latency, `chosen` what a webhook said.
    pub(super) fn allocate(
        &mut self,
        enrollment: &Enrollment,
        turn: usize,
        nearest: &[String],
        now: SystemTime,
        force: bool,
        chosen: Option<&Chosen>,
    ) -> Assignment {
        let former = self.assignment.take();
        let stays =
            former.is_some() && enrollment.reprovisioning == Reprovisioning::Never && !force;
        let assignment = match former {
            Some(former) if stays => former,
            former => {
                let next = || self.next_hub(enrollment, turn, nearest);
                let hub = chosen.map_or_else(next, |chosen| chosen.iot_hub_host_name.clone());
                assign(enrollment, now, force, hub, former)
            }
        };
        self.assignment.insert(assignment).clone()
    }

    fn next_hub(&mut self, enrollment: &Enrollment, turn: usize, nearest: &[String]) -> String {
        let place_of = |hub: &String| enrollment.hubs.iter().position(|own| own == hub);
        let place = match enrollment.allocation {
            Allocation::Evenly => turn,
            Allocation::Static | Allocation::Custom { .. } => 0,
            Allocation::EachRun => self.allocations,
            Allocation::GeoLatency => nearest.iter().find_map(place_of).unwrap_or(0),
        };
        self.allocations += 1;
        let place = place % enrollment.hubs.len().max(1);
        enrollment.hubs.get(place).cloned().unwrap_or_default()
    }
}

fn assign(
    enrollment: &Enrollment,
    now: SystemTime,
    force: bool,
    hub: String,
    former: Option<Assignment>,
) -> Assignment {
    let Some(former) = former else {
        return Assignment {
            initial_hub: hub.clone(),
            hub,
            substatus: "initialAssignment".to_owned(),
            created: now,
            updated: now,
        };
    };
    if hub == former.hub && !force {
        return former;
    }
    let substatus = match enrollment.reprovisioning {
        _ if hub == former.initial_hub => "reprovisionedToInitialAssignment",
        Reprovisioning::ResetData => "deviceDataReset",
        Reprovisioning::MigrateData | Reprovisioning::Never => "deviceDataMigrated",
    };
    Assignment { hub, substatus: substatus.to_owned(), updated: now, ..former }
}
