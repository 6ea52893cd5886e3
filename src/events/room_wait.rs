//! The wait of a publisher for room in mailboxes; see the table of the module.

use super::inner::BusInner;
use super::key::EventKeyName;
use super::mailbox::Mailbox;
use super::watcher::{WatchKey, Watcher};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::waits::{self, Awaited, Kind, Needs, Next, Refused};
use crate::time::deadline::Deadline;

/// A full mailbox, and the key of the delivery that waits for room there.
pub(super) type Full<E> = (Arc<Mailbox<E>>, Option<EventKeyName>);

/// Within a task, waits until there may be room in some of the mailboxes that the publisher
/// watches. Returns their indices among the recipients.
///
/// While it helps, it watches no mailbox, because it could not react to a notification. A task that
/// it runs may itself wait for that room.
pub(super) fn wait_for_room<E: Send + Sync + 'static>(
    watcher: &Arc<Watcher>,
    watched: Vec<(usize, Full<E>, WatchKey)>,
) -> Result<Vec<usize>, Refused> {
    let indices: Vec<usize> = watched.iter().map(|(index, ..)| *index).collect();
    let keys: Vec<WatchKey> = watched.iter().map(|(.., key)| *key).collect();
    let full: Vec<_> = watched.into_iter().map(|(_, full, _)| full).collect();
    let inner = Arc::clone(&full[0].0.inner);
    let room = Arc::new(AwaitedRoom { watcher: Arc::clone(watcher), full });
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
                room.full.iter().zip(&keys).for_each(|((mailbox, _), key)| mailbox.unwatch(*key));
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
pub(super) fn awaited<E: Send + Sync + 'static>(watcher: &Arc<Watcher>, full: Vec<Full<E>>) -> Arc<dyn Awaited> {
    Arc::new(AwaitedRoom { watcher: Arc::clone(watcher), full })
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
    full: Vec<Full<E>>,
}

impl<E: Send + Sync + 'static> Awaited for AwaitedRoom<E> {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(&*self.watcher)
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        self.full.iter().flat_map(|(mailbox, _)| mailbox.related_ids()).collect()
    }

    fn pool(&self) -> PoolId {
        self.full[0].0.inner.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        for (mailbox, key) in &self.full {
            let state = mailbox.state.lock();
            if state.accepts_events() && !mailbox.has_room(&state, key.as_ref()) {
                mailbox.report_room_needs(&state, key.as_ref(), needs);
            }
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Mailbox).label(Some(&self.full[0].0.settings.name))
    }

    fn help(self: Arc<Self>) {
        self.full.iter().for_each(|(mailbox, key)| mailbox.advance_for_room(key.as_ref()));
    }

    fn wake_waiters(&self) {
        self.watcher.wake();
    }
}
