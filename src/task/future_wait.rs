//! What a pending future has registered until its next poll.
//!
//! It is the counterpart of the loop in [`waits::wait`] for a future: a poll that is about to
//! return `Pending` registers with the registry of waits, and sets an alarm where a thread would
//! sleep until a point in time.

use std::task::Context;
use std::time::Instant;

use super::context;
use super::waits::{self, Awaited, Next, Wait};
use crate::cancel::alarm::Alarm;
use crate::cancel::waker_cell::WakerCell;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// What a pending future has registered. Removed when dropped.
#[derive(Default)]
pub(crate) struct FutureWait {
    /// The entry of the last poll in the registry of waits, if the poll was within a task or a
    /// driven future.
    wait: Option<Wait>,
    /// The alarm, and the cell with the waker that it wakes.
    alarm: Option<(Alarm, Arc<WakerCell>)>,
}

impl FutureWait {
    /// Removes the entry of the last poll. Called when a poll begins.
    pub(crate) fn begin_poll(&mut self) {
        self.wait = None;
    }

    /// Registers a future that is about to be pending, to be polled again at the deadline at the
    /// latest. Its own waker must be registered already.
    ///
    /// Returns what this thread helps with instead. The future then checks its condition again.
    #[must_use]
    pub(crate) fn register(
        &mut self,
        target: impl FnOnce() -> Arc<dyn Awaited>,
        deadline: Deadline,
        context: &Context<'_>,
    ) -> Option<Arc<dyn Awaited>> {
        let mut until = deadline.instant();
        if context::depth() > 0 {
            match waits::register_future(target(), context.waker()) {
                Next::Help(awaited) => return Some(awaited),
                Next::Sleep(wait, moment) => {
                    self.wait = Some(wait);
                    until = until.into_iter().chain(moment).min();
                }
            }
        }
        if let Some(at) = until {
            self.set_alarm(at, context);
        }
        None
    }

    /// Has the future woken at a point in time.
    fn set_alarm(&mut self, at: Instant, context: &Context<'_>) {
        if let Some((alarm, cell)) = &self.alarm
            && alarm.at() == at
        {
            cell.register(context.waker());
            // Between the two polls, the alarm may have fired and found no waker.
            if !Deadline::at(at).is_past() {
                return;
            }
        }
        let cell = Arc::new(WakerCell::new(context.waker()));
        self.alarm = Alarm::set(at, Arc::clone(&cell)).ok().map(|alarm| (alarm, cell));
        if self.alarm.is_none() {
            // Without the alarm thread the future is polled until the time has passed.
            context.waker().wake_by_ref();
        }
    }
}
