//! How tasks are added to a group, by the rules 6 to 10 of `state`.

use std::panic::Location;
use std::time::Instant;

use super::body::Body;
use super::result::TaskResult;
use super::room::GroupRoom;
use super::run::Budget;
use super::small_deque::SmallDeque;
use super::state::{GroupInner, State};
use super::task_queue::PendingTask;
use crate::error::{CancelReason, CycleKind, CycleTarget, Refusal};
use crate::nesting;
use crate::sync::{Arc, MutexGuard};
use crate::task::context;
use crate::task::room::RoomWait;
use crate::task::sleepers::{self, List, Listed};
use crate::task::waits::{self, Kind, Next, Refused, Wait};
use crate::time::deadline::Deadline;
use crate::unwind;

/// Whether a task was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a group that dropped a task accepts no more"]
pub(crate) enum Spawned {
    /// The task will run, unless it is cancelled later.
    Accepted,
    /// The task was dropped unrun, and is recorded as cancelled.
    Dropped,
}

impl<R: TaskResult> GroupInner<R> {
    /// Adds a task. Blocks while the group is full. Calls `make_body` once with the index of the
    /// task, under the group's lock: a body that is made in its place in the queue need not be
    /// moved there.
    #[inline]
    pub(crate) fn spawn(
        self: &Arc<Self>,
        make_body: impl FnOnce(usize) -> Body<R>,
        location: &'static Location<'static>,
    ) -> Spawned {
        let executor = &self.pool.executor;
        let queued_at = executor.now_if_timing();
        let Some(id) = executor.admit(location, self.settings.label.as_ref()) else {
            return self.refuse(make_body);
        };
        match self.admit() {
            Admission::Queue(mut state) => {
                let index = state.next_index();
                state.unstarted.places().push_back(PendingTask {
                    index,
                    body: make_body(index),
                    id,
                    location,
                    queued_at,
                });
                self.notify_workers(state);
                Spawned::Accepted
            }
            admission => self.spawn_unqueued(admission, |index| PendingTask {
                index,
                body: make_body(index),
                id,
                location,
                queued_at,
            }),
        }
    }

    /// Adds a task for each closure, until the source ends or the group accepts no more. The source
    /// is user code, which may block, also on tasks of the group.
    pub(crate) fn spawn_all<F>(
        self: &Arc<Self>,
        mut closures: impl Iterator<Item = F>,
        location: &'static Location<'static>,
    ) where
        F: FnOnce() -> R + Send + 'static,
    {
        loop {
            if closures.size_hint().0 == 0 {
                self.run_before_blocking();
            }
            if let Some(reason) = self.refusal() {
                // A source that reports its end was not cut short.
                if closures.size_hint().1 != Some(0) {
                    self.state.lock().cut_short.get_or_insert(reason);
                }
                return;
            }
            let Some(closure) = closures.next() else { return };
            if self.spawn(|_| Body::once(closure), location) == Spawned::Dropped {
                return;
            }
        }
    }

    /// Returns the reason if a task that is added now would be dropped unrun.
    fn refusal(&self) -> Option<CancelReason> {
        if self.pool.executor.tracker.is_closed() {
            return Some(CancelReason::ShutDown);
        }
        if !self.is_cancelled() {
            return None;
        }
        self.close_if_cancelled();
        Some(self.state.lock().closed.unwrap_or(CancelReason::Requested))
    }

    /// Runs unstarted tasks before this thread blocks in user code, if it is a worker and no other
    /// worker is free.
    fn run_before_blocking(self: &Arc<Self>) {
        let position = context::position(self.pool.id(), self.id());
        let can_run = position.is_worker && !position.is_member && position.depth < context::MAX_HELP_DEPTH;
        if can_run && !self.pool.has_idle_worker(self.settings.priority) {
            let state = self.state.lock();
            if self.can_run(&state) {
                drop(self.run_unstarted(state, Budget::Unlimited, |_| false));
            }
        }
    }

    /// Drops the body of a task that the pool did not admit, and records the cancellation.
    #[cold]
    fn refuse(&self, make_body: impl FnOnce(usize) -> Body<R>) -> Spawned {
        let mut state = self.state.lock();
        let index = state.next_index();
        let body = make_body(index);
        drop(state);
        self.as_closer(1, |_| {
            unwind::discard(body);
            let mut state = self.state.lock();
            state.record_cancelled(index..index + 1, CancelReason::ShutDown);
            self.count_done(&mut state, 1);
        });
        self.wake_due_poller();
        Spawned::Dropped
    }

    /// Adds a task that does not go to the queue of the group: runs it inline, or drops it.
    #[cold]
    fn spawn_unqueued(
        self: &Arc<Self>,
        admission: Admission<'_, R>,
        make_task: impl FnOnce(usize) -> PendingTask<R>,
    ) -> Spawned {
        match admission {
            Admission::Queue(_) => unreachable!("the caller queues the task"),
            Admission::RunInline(mut state) => {
                let task = make_task(state.next_index());
                state.running.push_back(task.index);
                drop(state);
                self.run_inline(task, false);
                Spawned::Accepted
            }
            Admission::Closed(mut state, reason) => {
                let task = make_task(state.next_index());
                drop(state);
                self.as_closer(1, |counters| self.drop_unstarted(counters, SmallDeque::from(task), reason));
                self.wake_due_poller();
                Spawned::Dropped
            }
        }
    }

    /// Adds a task if there is room now. Calls `make_body` only in that case, with the index of the
    /// task.
    pub(crate) fn try_spawn<F>(
        self: &Arc<Self>,
        f: F,
        make_body: impl FnOnce(F, usize) -> Body<R>,
        location: &'static Location<'static>,
    ) -> Result<(), (Refusal, F)> {
        let executor = &self.pool.executor;
        let queued_at = executor.now_if_timing();
        let Some(id) = executor.admit(location, self.settings.label.as_ref()) else {
            return Err((Refusal::ShutDown, f));
        };
        self.close_if_cancelled();
        let mut state = self.state.lock();
        let refusal = if state.closed.is_some() {
            Some(Refusal::ShutDown)
        } else if state.unstarted.len() >= self.settings.capacity {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(state);
            executor.refuse(&self.origin(id, location));
            return Err((refusal, f));
        }
        let index = state.next_index();
        state.unstarted.places().push_back(PendingTask { index, body: make_body(f, index), id, location, queued_at });
        self.notify_workers(state);
        Ok(())
    }

    /// Notifies the threads that can run a task that was just added.
    #[inline]
    fn notify_workers(self: &Arc<Self>, mut state: MutexGuard<'_, State<R>>) {
        let needed = self.count_ticket_if_needed(&mut state);
        if state.helpers > 0 || state.poller.is_some() {
            self.notify_helpers(state);
        } else {
            drop(state);
        }
        if needed {
            self.send_first_ticket();
        }
    }

    /// Notifies the waiters that can run a task that was just added.
    #[cold]
    fn notify_helpers(&self, mut state: MutexGuard<'_, State<R>>) {
        let helpers = state.helpers > 0;
        let poller = state.take_helping_poller();
        drop(state);
        if helpers {
            self.changed.notify_all();
        }
        poller.into_iter().for_each(nesting::wake);
    }

    /// Waits until a task may be added, or the group is closed.
    #[inline]
    fn admit(self: &Arc<Self>) -> Admission<'_, R> {
        self.close_if_cancelled();
        let state = self.state.lock();
        if state.closed.is_none() && state.unstarted.len() < self.settings.capacity {
            Admission::Queue(state)
        } else {
            self.admit_slow(state)
        }
    }

    /// Waits for room in a group that is full or closed.
    fn admit_slow<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State<R>>) -> Admission<'a, R> {
        let position = context::position(self.pool.id(), self.id());
        let mut wait = None;
        let mut ignores_capacity = false;
        loop {
            if let Some(reason) = state.closed {
                return Admission::Closed(state, reason);
            }
            if ignores_capacity || state.unstarted.len() < self.settings.capacity {
                return Admission::Queue(state);
            }
            if position.is_member {
                let deep = position.depth >= context::MAX_INLINE_DEPTH;
                return if deep { Admission::Queue(state) } else { Admission::RunInline(state) };
            }
            if position.is_worker && position.depth >= context::MAX_HELP_DEPTH {
                return Admission::Queue(state);
            }
            if nesting::has_pending() {
                drop(state);
                ignores_capacity = !nesting::call_pending();
                self.close_if_cancelled();
                state = self.state.lock();
                continue;
            }
            if position.is_worker && state.tickets.runners() < self.settings.limit {
                state = self
                    .run_unstarted(state, Budget::Unlimited, |state| state.unstarted.len() < self.settings.capacity);
            } else {
                let wait = *wait.get_or_insert_with(RoomWait::begin);
                state = if position.depth == 0 {
                    self.wait_for_room(state, wait, None, Some(&|| self.list_room_wait()))
                } else {
                    drop(state);
                    ignores_capacity = self.wait_for_room_registered(wait).is_err();
                    self.state.lock()
                };
            }
            drop(state);
            self.close_if_cancelled();
            state = self.state.lock();
        }
    }

    /// Waits for room on a thread with tasks on its stack. The wait is in the registry of waits
    /// meanwhile, which may have this thread help first. It is refused if the room needs a task
    /// that waits for this thread.
    fn wait_for_room_registered(self: &Arc<Self>, room_wait: RoomWait) -> Result<(), Refused> {
        let room = Arc::new(GroupRoom(Arc::clone(self)));
        let moves = self.state.lock().moves();
        match waits::register(Arc::clone(&room) as _, Kind::Yielding)? {
            Next::Help(awaited) => awaited.help(),
            Next::Sleep(wait, moment) => {
                self.sleep_for_room(&room, (&wait, moment), moves, room_wait);
                wait.check()?;
            }
        }
        Ok(())
    }

    /// Sleeps until there is room, the wait is notified, or the time has passed. May wake early.
    ///
    /// Does not sleep if a task was added or taken since `moves`, before the wait was registered:
    /// it may need other tasks now.
    pub(super) fn sleep_for_room(
        &self,
        room: &GroupRoom<R>,
        (wait, moment): (&Wait, Option<Instant>),
        moves: (usize, usize),
        room_wait: RoomWait,
    ) {
        let state = self.state.lock();
        if state.moves() == moves && room.is_full(&state) && !wait.is_notified() {
            drop(self.wait_for_room(state, room_wait, moment, None));
        }
    }

    /// Sleeps until there is room, the group is closed, or its deadline or the moment has passed;
    /// see rule 10 of `state`. May wake early.
    fn wait_for_room<'a>(
        &self,
        state: MutexGuard<'a, State<R>>,
        wait: RoomWait,
        moment: Option<Instant>,
        list: Option<List<'_>>,
    ) -> MutexGuard<'a, State<R>> {
        let deadline = Deadline::NEVER.earlier(self.deadline()).earlier(moment);
        self.room.sleep(state, wait, deadline, list, |state| &mut state.room_waiters)
    }

    /// Lists this thread, which is about to sleep until there is room.
    fn list_room_wait(&self) -> Listed {
        let target = CycleTarget::new(CycleKind::GroupRoom).label(self.settings.label.as_ref());
        sleepers::list(target, self.pool.id(), Deadline::NEVER)
    }
}

/// How a task may be added. The lock is still held.
enum Admission<'a, R: TaskResult> {
    /// The task goes to the queue of the group.
    Queue(MutexGuard<'a, State<R>>),
    /// The caller runs the task at once.
    RunInline(MutexGuard<'a, State<R>>),
    /// The task is dropped unrun.
    Closed(MutexGuard<'a, State<R>>, CancelReason),
}
