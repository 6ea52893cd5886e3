//! How tasks are added to a key, by the rules 1 and 6 of `state`.

use std::hash::Hash;
use std::panic::Location;
use std::time::Instant;

use super::lookup::{Lookup, LookupRest};
use super::name::{KeyId, KeyName};
use super::pending::{Body, PendingTask};
use super::room::KeyRoom;
use super::state::{KeyedInner, State};
use crate::cancel::token::CancelGuard;
use crate::error::{CycleKind, CycleTarget, Refusal};
use crate::nesting;
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::pool::submit::WaitMode;
use crate::sync::{Arc, MutexGuard};
use crate::task::context;
use crate::task::room::RoomWait;
use crate::task::sleepers::{self, Listed};
use crate::task::waits::{self, Kind, Next, Refused, Wait};
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;

/// What a body is made of, besides its closure.
pub(super) type Origin = (TaskId, &'static Location<'static>, Option<Timestamp>);

/// The lock under which a task may be added, and the entry of its key if there is one.
pub(super) type Place<'a, K> = (MutexGuard<'a, State<K>>, Option<KeyId>);

/// A task that was admitted. Withdrawn when dropped, unless it was added.
struct Admitted<'a, K> {
    inner: &'a KeyedInner<K>,
    label: Option<Arc<str>>,
    id: TaskId,
    location: &'static Location<'static>,
    is_added: bool,
}

impl<K> Drop for Admitted<'_, K> {
    fn drop(&mut self) {
        if !self.is_added {
            let origin = TaskOrigin { id: self.id, location: self.location, label: self.label.as_ref() };
            self.inner.pool.executor.refuse(&origin);
        }
    }
}

/// How a submitter waits for room.
struct Waiting {
    /// When it no longer waits.
    deadline: Deadline,
    room: RoomWait,
    /// Wakes it when the pool is closed.
    _guard: CancelGuard,
}

impl<K: Hash + Eq + Send + Sync + 'static> KeyedInner<K> {
    /// Adds a task to a key. Calls `make` once if the task is accepted, under the lock.
    pub(super) fn submit(
        self: &Arc<Self>,
        key: K,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        make: impl FnOnce(&Arc<Self>, &Arc<KeyName<K>>, Origin) -> Body,
    ) -> Result<(), Refusal> {
        let executor = &self.pool.executor;
        let queued_at = executor.now_if_timing();
        let mut lookup = self.lookup(key);
        let label = self.label(&lookup.name).cloned();
        let Some(id) = executor.admit(location, label.as_ref()) else {
            nesting::discard(lookup);
            return Err(Refusal::ShutDown);
        };
        let mut admitted = Admitted { inner: self, label, id, location, is_added: false };
        let place = match self.wait_for_place(&mut lookup, wait_mode) {
            Ok(place) => place,
            Err(refusal) => {
                nesting::discard(lookup);
                return Err(refusal);
            }
        };
        let unneeded = self.add(place, lookup, (id, location, queued_at), make);
        admitted.is_added = true;
        nesting::discard(unneeded); // a key is dropped by user code
        Ok(())
    }

    /// Hashes a key and makes its label. Calls user code.
    pub(super) fn lookup(&self, key: K) -> Lookup<K> {
        let label = self.label_of.as_ref().and_then(|label_of| {
            let label = nesting::hook(|| label_of(&key));
            if label.is_none() {
                self.pool.executor.skip_hook();
            }
            label
        });
        Lookup::new(key, &self.hasher, label)
    }

    /// Adds a task to the key of an entry, or to a new one. Calls `make` under the lock. Returns
    /// what may own a key.
    pub(super) fn add(
        self: &Arc<Self>,
        (mut state, found): Place<'_, K>,
        lookup: Lookup<K>,
        origin: Origin,
        make: impl FnOnce(&Arc<Self>, &Arc<KeyName<K>>, Origin) -> Body,
    ) -> (LookupRest<K>, Arc<KeyName<K>>) {
        let (name, rest) = lookup.into_name(found.and_then(|key| state.turns.get(key)).map(|queue| &queue.name));
        let (id, location, queued_at) = origin;
        let body = make(self, &name, origin);
        state.add(&name, PendingTask { body, id, location, queued_at }, self);
        let notifications = self.notifications(&mut state, name.id());
        drop(state);
        self.send_first(notifications);
        (rest, name)
    }

    /// Returns `true` if a task may be added to a key that has this entry, or none.
    pub(super) fn has_room(&self, state: &State<K>, key: Option<KeyId>) -> bool {
        let tasks = key.map_or(0, |key| state.tasks_of(key));
        tasks < self.settings.capacity_per_key && state.turns.queued() < self.settings.capacity
    }

    /// Takes the lock, and returns the id of the key's entry if there is one.
    pub(super) fn find(&self, lookup: &mut Lookup<K>) -> Place<'_, K> {
        nesting::key_code(|| lookup.find(|| self.state.lock(), |state| Some(&state.turns)))
    }

    /// Returns the lock as soon as a task of the key may be added.
    pub(super) fn wait_for_place<'a>(
        self: &'a Arc<Self>,
        lookup: &mut Lookup<K>,
        wait_mode: WaitMode,
    ) -> Result<Place<'a, K>, Refusal> {
        let mut wait: Option<Waiting> = None;
        let mut ignores_bounds = false;
        loop {
            let (state, key) = self.find(lookup);
            if state.closed {
                return Err(Refusal::ShutDown);
            }
            let tasks = key.map_or(0, |key| state.tasks_of(key));
            let key_is_full = tasks >= self.settings.capacity_per_key;
            if ignores_bounds || !key_is_full && state.turns.queued() < self.settings.capacity {
                return Ok((state, key));
            }
            let deadline = match wait_mode {
                WaitMode::Never => return Err(Refusal::Full),
                WaitMode::Policy => Deadline::NEVER,
                WaitMode::Until(deadline) => deadline,
            };
            if context::is_worker_of(self.pool.id()) {
                if matches!(wait_mode, WaitMode::Until(_)) {
                    return Err(Refusal::Timeout);
                }
                drop(state);
                let is_deep = context::depth() >= context::MAX_INLINE_DEPTH;
                ignores_bounds = is_deep || !self.help(key.filter(|_| key_is_full));
                continue;
            }
            match &wait {
                None => {
                    drop(state);
                    match waits::prepare(deadline) {
                        Ok(()) => wait = Some(self.begin_wait(deadline)),
                        Err(_) if matches!(wait_mode, WaitMode::Until(_)) => return Err(Refusal::Timeout),
                        Err(_) => ignores_bounds = true,
                    }
                }
                Some(_) if self.pool.executor.tracker.is_closed() => return Err(Refusal::ShutDown),
                Some(wait) if wait.deadline.is_past() => return Err(Refusal::Timeout),
                Some(wait) if context::depth() == 0 || deadline != Deadline::NEVER => {
                    let list = || self.list_room_wait(deadline);
                    drop(self.room.sleep(state, wait.room, deadline, Some(&list), |state| &mut state.room_waiters));
                }
                Some(wait) => {
                    drop(state);
                    ignores_bounds = self.wait_registered(lookup, wait).is_err();
                }
            }
        }
    }

    /// Prepares a wait for room, which the end of the pool ends.
    fn begin_wait(self: &Arc<Self>, deadline: Deadline) -> Waiting {
        let inner = Arc::clone(self);
        let guard = self.pool.shutdown_token.on_cancel(move || inner.wake_waiters());
        Waiting { deadline, room: RoomWait::begin(), _guard: guard }
    }

    /// Waits for room on a thread with tasks on its stack. The wait is in the registry of waits
    /// meanwhile, which may have this thread help first.
    fn wait_registered(self: &Arc<Self>, lookup: &mut Lookup<K>, wait: &Waiting) -> Result<(), Refused> {
        let (state, key) = self.find(lookup);
        let name = key.and_then(|key| state.turns.get(key)).map(|queue| Arc::clone(&queue.name));
        let moves = state.moves;
        drop(state);
        let room = Arc::new(KeyRoom { inner: Arc::clone(self), name });
        match waits::register(Arc::clone(&room) as _, Kind::Yielding)? {
            Next::Help(awaited) => awaited.help(),
            Next::Sleep(registered, until) => {
                self.sleep_registered(&room, (&registered, until), moves, wait.room);
                registered.check()?;
            }
        }
        Ok(())
    }
}

impl<K> KeyedInner<K> {
    /// Sleeps until there is room, the wait is notified, or the time has passed. May wake early.
    /// Does not sleep if there were other moves than `moves` before the wait was registered.
    fn sleep_registered(
        &self,
        room: &KeyRoom<K>,
        (registered, until): (&Wait, Option<Instant>),
        moves: u64,
        wait: RoomWait,
    ) {
        let state = self.state.lock();
        let is_current = state.moves == moves && !registered.is_notified();
        if is_current && room.is_full(&state) && !self.pool.executor.tracker.is_closed() {
            let until = Deadline::NEVER.earlier(until);
            drop(self.room.sleep(state, wait, until, None, |state| &mut state.room_waiters));
        }
    }

    /// Lists this thread, which is about to sleep until there is room or the deadline has passed.
    fn list_room_wait(&self, deadline: Deadline) -> Listed {
        let target = CycleTarget::new(CycleKind::KeyedRoom).label(self.settings.label.as_ref());
        sleepers::list(target, self.pool.id(), deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::keyed::state::KeyedSettings;
    use crate::pool::worker_pool::WorkerPool;
    use crate::priority::Priority;
    use crate::task::closure::Closure;

    /// Fault 491.
    #[test]
    fn a_submitter_whose_room_is_taken_after_its_wait_was_registered_registers_again() {
        let pool = WorkerPool::builder().workers(1).build().expect("a thread");
        let settings = KeyedSettings { capacity: 1, capacity_per_key: 1, label: None, priority: Priority::Normal };
        let inner = KeyedInner::new(pool.inner(), settings, None);
        let submit = |f: Closure<'static, ()>| {
            inner.submit('k', WaitMode::Never, Location::caller(), |_, _, _| Body::Closure(f)).expect("there is room");
        };
        let ((enter, entered), (end, ended)) = (channel(), channel::<()>());
        submit(Closure::new(move || {
            enter.send(()).expect("the test waits");
            ended.recv().expect("the test ends the task");
        }));
        entered.recv().expect("the task starts");
        let room = Arc::new(KeyRoom { inner: Arc::clone(&inner), name: None });
        let moves = inner.state.lock().moves;
        let Ok(Next::Sleep(wait, None)) = waits::register(Arc::clone(&room) as _, Kind::Yielding) else {
            panic!("there is nothing to help with")
        };
        submit(Closure::new(|| ()));
        assert!(room.is_full(&inner.state.lock()), "another thread has taken the room");
        let until = Instant::now() + std::time::Duration::from_secs(60);
        inner.sleep_registered(&room, (&wait, Some(until)), moves, RoomWait::for_any_room());
        assert!(Instant::now() < until, "the waiter was registered with the needs of before");
        end.send(()).expect("the task waits");
    }
}
