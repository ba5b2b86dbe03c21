//! Where a device is in its enrollment's script of faults.

use serde::{Deserialize, Serialize};

pub(crate) use crate::behavior::Fault;
use crate::behavior::{Delivery, Times};

/// A place in a script.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Which fault is next.
    fault: usize,
    /// How often it has held.
    held: u32,
}

impl Cursor {
    /// The fault for the next request, if one is left.
    pub(crate) fn next(&mut self, script: &[Fault]) -> Option<Fault> {
        loop {
            let fault = script.get(self.fault)?;
            match fault.times {
                Times::Count(times) if self.held >= times => {
                    *self = Self { fault: self.fault + 1, held: 0 };
                }
                Times::Count(_) => {
                    self.held += 1;
                    return Some(fault.clone());
                }
                Times::Forever => return Some(fault.clone()),
            }
        }
    }
}

/// Whether the fault takes the request's place: the service does not see it.
pub(crate) fn takes_the_place(fault: &Fault) -> bool {
    fault.refuse.is_some() || matches!(fault.delivery, Delivery::Never | Delivery::CloseBefore)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_hold_as_often_as_they_say_one_after_the_other() {
        let script = [
            Fault::refuse(429).times(2),
            Fault::refuse(500).times(0),
            Fault::none(),
            Fault::refuse(503).forever(),
        ];
        let mut cursor = Cursor::default();
        let mut next = || cursor.next(&script).map(|f| f.refuse.map(|r| r.status));
        let seen: Vec<_> = (0..5).map(|_| next()).collect();
        assert_eq!(
            seen,
            [Some(Some(429)), Some(Some(429)), Some(None), Some(Some(503)), Some(Some(503))]
        );
        assert_eq!(Cursor::default().next(&[]), None);
    }
}
