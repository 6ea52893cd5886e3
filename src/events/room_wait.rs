//! The wait of a publisher for room in mailboxes; see the table of the module.

use super::inner::BusInner;
use super::mailbox::Mailbox;
use super::watcher::{WatchKey, Watcher};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::waits::{self, Awaited, Kind, Needs, Next, Refused};
use crate::time::deadline::Deadline;

/// Within a task, waits until there may be room in some of the mailboxes that the publisher
/// watches. Returns their indices among the recipients.
///
/// While it helps, it watches no mailbox, because it could not react to a notification. A task that
/// it runs may itself wait for that room.
pub(super) fn wait_for_room<E: Send + Sync + 'static>(
    watcher: &Arc<Watcher>,
    watched: Vec<(usize, Arc<Mailbox<E>>, WatchKey)>,
) -> Result<Vec<usize>, Refused> {
    let indices: Vec<usize> = watched.iter().map(|(index, ..)| *index).collect();
    let keys: Vec<WatchKey> = watched.iter().map(|(.., key)| *key).collect();
    let mailboxes: Vec<_> = watched.into_iter().map(|(_, mailbox, _)| mailbox).collect();
    let inner = Arc::clone(&mailboxes[0].inner);
    let room = Arc::new(AwaitedRoom { watcher: Arc::clone(watcher), mailboxes });
    let _publisher = Publisher::new(&inner, room.awaited_id());
    loop {
        match waits::register(Arc::clone(&room) as Arc<dyn Awaited>, Kind::Certain)? {
            Next::Sleep(wait, until) => {
                let notified = watcher.wait_unless(|| wait.is_notified(), Deadline::NEVER.earlier(until));
                if !notified.is_empty() {
                    return Ok(notified);
                }
                wait.check()?;
            }
            Next::Help(awaited) => {
                room.mailboxes.iter().zip(&keys).for_each(|(mailbox, key)| mailbox.unwatch(*key));
                if watcher.take_notified().is_empty() {
                    awaited.help();
                }
                return Ok(indices);
            }
        }
    }
}

/// Returns the room in at least one of some mailboxes as something that a future waits for. The
/// watcher gives it its identity.
pub(super) fn awaited<E: Send + Sync + 'static>(
    watcher: &Arc<Watcher>,
    mailboxes: Vec<Arc<Mailbox<E>>>,
) -> Arc<dyn Awaited> {
    Arc::new(AwaitedRoom { watcher: Arc::clone(watcher), mailboxes })
}

/// A guard that keeps this thread in the list of waiting publishers.
struct Publisher<'a> {
    /// The bus.
    inner: &'a BusInner,
    /// The id of its watcher.
    watcher: AwaitedId,
}

impl<'a> Publisher<'a> {
    fn new(inner: &'a BusInner, watcher: AwaitedId) -> Self {
        inner.publishers.lock().insert(watcher, context::thread_id());
        Self { inner, watcher }
    }
}

impl Drop for Publisher<'_> {
    fn drop(&mut self) {
        self.inner.publishers.lock().remove(&self.watcher);
    }
}

/// Room in at least one of some mailboxes, as something that is waited for.
struct AwaitedRoom<E> {
    /// The watcher of the publisher.
    watcher: Arc<Watcher>,
    /// The full mailboxes; at least one.
    mailboxes: Vec<Arc<Mailbox<E>>>,
}

impl<E: Send + Sync + 'static> Awaited for AwaitedRoom<E> {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(&*self.watcher)
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        self.mailboxes.iter().map(|mailbox| mailbox.group.into()).collect()
    }

    fn pool(&self) -> PoolId {
        self.mailboxes[0].inner.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        for mailbox in &self.mailboxes {
            let state = mailbox.state.lock();
            if state.accepts_events() && state.occupied() >= mailbox.settings.capacity {
                mailbox.report_runner_needs(&state, needs);
            }
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Mailbox).label(Some(&self.mailboxes[0].settings.name))
    }

    fn help(self: Arc<Self>) {
        self.mailboxes.iter().for_each(Mailbox::advance);
    }

    fn wake_waiters(&self) {
        self.watcher.wake();
    }
}
