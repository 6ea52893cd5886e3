//! The wait for room in an executor, as the registry of waits sees it. Only tasks that do not run
//! on a worker of the pool wait in this way.

use super::name::KeyName;
use super::state::{KeyedInner, State};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::context::{AwaitedId, PoolId};
use crate::task::waits::{Awaited, Needs};

/// Room for one more task of a key, as something that is waited for.
///
/// Room comes when a task starts. If no key is ready, that needs the end of one of those that run.
pub(super) struct KeyRoom<K> {
    pub(super) inner: Arc<KeyedInner<K>>,
    /// The key, if it has an entry. Otherwise the executor is full.
    pub(super) name: Option<Arc<KeyName<K>>>,
}

impl<K> KeyRoom<K> {
    /// Returns `true` if the executor is open, and it or the key is full.
    pub(super) fn is_full(&self, state: &State<K>) -> bool {
        !state.closed && (state.turns.queued() >= self.inner.settings.capacity || self.key_is_full(state))
    }

    fn key_is_full(&self, state: &State<K>) -> bool {
        let tasks = self.name.as_ref().map_or(0, |name| state.tasks_of(name.id()));
        tasks >= self.inner.settings.capacity_per_key
    }
}

impl<K: Send + Sync + 'static> Awaited for KeyRoom<K> {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(self)
    }

    /// Room may come from any running key, which may need anything. Room in a full key needs a turn
    /// of that key.
    fn related_ids(&self) -> Vec<AwaitedId> {
        let key = self.name.as_ref().map(|name| name.group().into());
        [AwaitedId::of(&*self.inner), AwaitedId::ANYTHING].into_iter().chain(key).collect()
    }

    fn pool(&self) -> PoolId {
        self.inner.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        let mut state = self.inner.state.lock();
        if !self.is_full(&state) {
            return;
        }
        if let Some(name) = self.name.as_ref().filter(|_| self.key_is_full(&state)) {
            return self.inner.report_turn(&mut state, name.id(), Ok(()), needs);
        }
        self.inner.report_any_turn(&mut state, needs);
        if !needs.worker && needs.worker_at.is_none() {
            needs.end_of_one(state.running_groups());
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::KeyedRoom).label(self.inner.settings.label.as_ref())
    }

    fn help(self: Arc<Self>) {
        let full_key = self.name.as_ref().filter(|_| self.key_is_full(&self.inner.state.lock()));
        self.inner.help(full_key.map(KeyName::id));
    }

    fn wake_waiters(&self) {
        self.inner.wake_waiters();
    }
}
