//! The wait for an idle bus; see the table of the module.

use std::collections::BTreeMap;

use super::erased::AnyMailbox;
use super::inner::BusInner;
use crate::cancel::token::CancelGuard;
use crate::error::{CycleKind, CycleTarget};
use crate::sync::{Arc, Mutex};
use crate::task::context::{self, AwaitedId, GroupId, PoolId};
use crate::task::sleepers::{self, Listed};
use crate::task::waits::{self, Awaited, Kind, Needs, Next, Refused, Wait};
use crate::time::deadline::Deadline;

impl BusInner {
    /// Returns the idleness of the bus as something that is waited for.
    pub(super) fn idleness(self: &Arc<Self>) -> Arc<dyn Awaited> {
        Arc::new(Idleness { inner: Arc::clone(self), kept: Mutex::default() })
    }

    /// Blocks until all deliveries of all events have ended or the deadline has passed. Returns
    /// `true` if they have ended. Without a deadline, it does not wait for what was left behind.
    pub(super) fn wait_idle(self: &Arc<Self>, deadline: Deadline) -> Result<bool, Refused> {
        if deadline != Deadline::NEVER {
            let sleeps = !self.is_idle() && !deadline.is_past();
            let _listed = sleeps.then(|| self.list_idle_wait(deadline));
            let check = || if self.is_idle() || deadline.is_past() { Ok(self.is_idle()) } else { Err(deadline) };
            return Ok(self.idle.wait_until(check));
        }
        let is_within_task = context::depth() > 0;
        let _listed = (!is_within_task && !self.is_idle()).then(|| self.list_idle_wait(deadline));
        let target = self.idleness();
        let (mut guard, mut registered): (Option<CancelGuard>, Option<Wait>) = (None, None);
        self.idle.wait_until(|| {
            if self.is_idle() {
                return Ok(Ok(true));
            }
            guard.get_or_insert_with(|| self.notify_idle_when_left_behind());
            loop {
                let checked = registered.take().map_or(Ok(()), |wait| wait.check());
                if self.is_idle() || self.is_left_behind() {
                    return Ok(Ok(self.is_idle()));
                }
                if let Err(refused) = checked {
                    return Ok(Err(refused));
                }
                if !is_within_task {
                    // What the callbacks notify ends the sleep.
                    return waits::prepare(Deadline::NEVER)
                        .map_or_else(|refused| Ok(Err(refused)), |()| Err(Deadline::NEVER));
                }
                match waits::register(Arc::clone(&target), Kind::Certain) {
                    Ok(Next::Help(awaited)) => awaited.help(),
                    Ok(Next::Sleep(wait, until)) => {
                        registered = Some(wait);
                        return Err(Deadline::NEVER.earlier(until));
                    }
                    Err(refused) => return Ok(Err(refused)),
                }
            }
        })
    }

    /// Lists this thread, which waits for an idle bus, for snapshots.
    fn list_idle_wait(&self, deadline: Deadline) -> Listed {
        sleepers::list(CycleTarget::new(CycleKind::Bus), self.pool.id(), deadline)
    }
}

/// The idleness of a bus, as something that is waited for.
struct Idleness {
    /// The bus.
    inner: Arc<BusInner>,
    /// Every mailbox that reported its needs, so that a report drops none.
    kept: Mutex<BTreeMap<GroupId, Arc<dyn AnyMailbox>>>,
}

impl Awaited for Idleness {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(&*self.inner)
    }

    /// Any subscription may have deliveries by then, including one that is made meanwhile.
    fn related_ids(&self) -> Vec<AwaitedId> {
        vec![AwaitedId::ANYTHING]
    }

    fn pool(&self) -> PoolId {
        self.inner.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        if self.inner.is_idle() {
            return;
        }
        let mut kept = self.kept.lock();
        kept.extend(self.inner.members.lock().mailboxes());
        kept.values().for_each(|mailbox| mailbox.report_drain_needs(needs));
        // An event cannot end before its publishing, which cannot end before the tasks above it on
        // that stack.
        self.inner.publishers.lock().values().for_each(|thread| needs.end_of(*thread));
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Bus)
    }

    fn help(self: Arc<Self>) {
        let mailboxes: Vec<_> = self.kept.lock().values().cloned().collect();
        mailboxes.into_iter().for_each(AnyMailbox::advance);
    }

    fn wake_waiters(&self) {
        self.inner.idle.notify();
    }
}
