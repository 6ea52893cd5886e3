//! How tasks get into a group, by the rules 6 to 9 of `core`.

use std::panic::Location;
use std::time::Duration;

use super::result::TaskResult;
use super::run::Budget;
use super::small_deque::SmallDeque;
use super::state::{Body, GroupInner, PendingTask, State};
use crate::defect::defect;
use crate::error::{CancelReason, Refusal};
use crate::sync::{Arc, MutexGuard};
use crate::task::closure::Closure;
use crate::task::context;
use crate::task::waits::{self, Kind, Next, Refused};
use crate::time::deadline::Deadline;
use crate::unwind;

/// How long one who waits for room waits for half of it, before it takes the first there is.
const PATIENCE: Duration = Duration::from_millis(1);

/// What became of a task that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a group that takes nothing more need not be offered more"]
pub(crate) enum Added {
    /// It will run, unless it is cancelled later.
    Taken,
    /// It was dropped unrun, and has landed as cancelled.
    Dropped,
}

impl<R: TaskResult> GroupInner<R> {
    /// Adds a task, waiting for room if need be. `make_body` is called once; it is not the body yet, so that this can be
    /// written where it belongs at once.
    #[inline]
    pub(crate) fn add(
        self: &Arc<Self>,
        make_body: impl FnOnce() -> Body<R>,
        location: &'static Location<'static>,
    ) -> Added {
        let executor = &self.engine.executor;
        let queued_at = executor.now_if_timing();
        let Some(id) = executor.admit(location, self.settings.label.as_ref()) else {
            return self.refuse(make_body());
        };
        match self.wait_for_room() {
            Room::Here(mut state) => {
                let index = state.next_index();
                state.unstarted.push_back(PendingTask { index, body: make_body(), id, location, queued_at });
                self.call_runners(state);
                Added::Taken
            }
            room => self.add_elsewhere(room, PendingTask { index: 0, body: make_body(), id, location, queued_at }),
        }
    }

    /// Adds a task for each closure, until the source ends or nothing is taken in any more. The source is user code that
    /// may block, also for what tasks of the group bring about.
    pub(crate) fn add_all<F>(
        self: &Arc<Self>,
        mut closures: impl Iterator<Item = F>,
        location: &'static Location<'static>,
    ) where
        F: FnOnce() -> R + Send + 'static,
    {
        loop {
            if closures.size_hint().0 == 0 {
                self.run_what_only_this_worker_can();
            }
            if let Some(reason) = self.refusal() {
                // A source that says that it is at its end is not cut short.
                if closures.size_hint().1 != Some(0) {
                    self.state.lock().cut_short.get_or_insert(reason);
                }
                return;
            }
            let Some(closure) = closures.next() else { return };
            if self.add(|| Closure::new(closure), location) == Added::Dropped {
                return;
            }
        }
    }

    /// Why a task that is added now would be dropped unrun, if it would.
    fn refusal(&self) -> Option<CancelReason> {
        if self.engine.executor.tracker.is_closed() {
            return Some(CancelReason::ShutDown);
        }
        if !self.is_cancelled() {
            return None;
        }
        self.close_if_told();
        Some(self.state.lock().closed.unwrap_or(CancelReason::Requested))
    }

    /// Runs unstarted tasks before this thread blocks in user code, if it is a worker and no other worker is free to.
    fn run_what_only_this_worker_can(self: &Arc<Self>) {
        let local = context::position(self.engine.id(), self.name());
        let can_run = local.is_worker && !local.is_member && local.depth < context::MAX_HELP_DEPTH;
        if can_run && !self.engine.has_idle_worker() {
            let state = self.state.lock();
            if !state.unstarted.is_empty() && state.runners < self.settings.limit {
                drop(self.run_unstarted(state, Budget::Unlimited, |_| false));
            }
        }
    }

    /// Drops the body of a task that the pool has not admitted.
    fn refuse(&self, body: Body<R>) -> Added {
        unwind::discard(body);
        let mut state = self.state.lock();
        let index = state.next_index();
        state.put_cancelled(index..index + 1, CancelReason::ShutDown);
        self.count_done(&mut state, 1);
        Added::Dropped
    }

    /// Adds a task, but not to the queue of the group.
    fn add_elsewhere(self: &Arc<Self>, room: Room<'_, R>, mut task: PendingTask<R>) -> Added {
        match room {
            Room::Here(_) => unreachable!("the caller knows what to do here"),
            Room::OnThisStack(mut state) => {
                task.index = state.next_index();
                state.running.push_back(task.index);
                drop(state);
                self.perform(task);
                Added::Taken
            }
            Room::Never(mut state, reason) => {
                task.index = state.next_index();
                drop(state);
                self.enter(|record| self.drop_unstarted(record, SmallDeque::from(task), reason));
                Added::Dropped
            }
        }
    }

    /// Adds a task if there is room now; `box_up` is called only then.
    pub(crate) fn try_add<F>(
        self: &Arc<Self>,
        f: F,
        box_up: impl FnOnce(F) -> Body<R>,
        location: &'static Location<'static>,
    ) -> Result<(), (Refusal, F)> {
        let executor = &self.engine.executor;
        let queued_at = executor.now_if_timing();
        let Some(id) = executor.admit(location, self.settings.label.as_ref()) else {
            return Err((Refusal::ShutDown, f));
        };
        self.close_if_told();
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
            executor.refuse(&self.info(id, location));
            return Err((refusal, f));
        }
        let index = state.next_index();
        state.unstarted.push_back(PendingTask { index, body: box_up(f), id, location, queued_at });
        self.call_runners(state);
        Ok(())
    }

    /// A task has been added: calls whoever can run it.
    #[inline]
    fn call_runners(self: &Arc<Self>, mut state: MutexGuard<'_, State<R>>) {
        let helpers = state.helpers > 0;
        let needed = self.count_ticket_if_needed(&mut state);
        drop(state);
        if needed {
            self.send_first_ticket();
        }
        if helpers {
            self.changed.notify_all();
        }
    }

    /// Waits until a task may be added.
    #[inline]
    fn wait_for_room(self: &Arc<Self>) -> Room<'_, R> {
        self.close_if_told();
        let state = self.state.lock();
        if state.closed.is_none() && state.unstarted.len() < self.settings.capacity {
            Room::Here(state)
        } else {
            self.wait_for_room_slowly(state)
        }
    }

    fn wait_for_room_slowly<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State<R>>) -> Room<'a, R> {
        let local = context::position(self.engine.id(), self.name());
        let mut wait_mode = None;
        loop {
            if let Some(reason) = state.closed {
                return Room::Never(state, reason);
            }
            // No task could ever be held.
            if self.settings.capacity == 0 {
                state.impossible = true;
                return Room::Never(state, CancelReason::Requested);
            }
            if state.unstarted.len() < self.settings.capacity || defect!("forgotten capacity") {
                return Room::Here(state);
            }
            if local.is_member {
                let deep = local.depth >= context::MAX_INLINE_DEPTH;
                return if deep { Room::Here(state) } else { Room::OnThisStack(state) };
            }
            if local.is_worker && local.depth >= context::MAX_HELP_DEPTH {
                return Room::Here(state);
            }
            if local.is_worker && state.runners < self.settings.limit {
                state = self
                    .run_unstarted(state, Budget::Unlimited, |state| state.unstarted.len() < self.settings.capacity);
            } else {
                let wait_mode = *wait_mode.get_or_insert_with(|| Deadline::after(PATIENCE));
                state = if local.depth == 0 {
                    self.sleep_for_room(state, wait_mode)
                } else {
                    drop(state);
                    self.sleep_for_room_entered(wait_mode);
                    self.state.lock()
                };
            }
            drop(state);
            self.close_if_told();
            state = self.state.lock();
        }
    }

    /// The same, where tasks are on this thread's stack. The registry of waits knows of it meanwhile, and may have this
    /// thread help first.
    fn sleep_for_room_entered(self: &Arc<Self>, wait_mode: Deadline) {
        match waits::enter(Arc::clone(self) as _, Kind::Open) {
            Ok(Next::Help(awaited)) => awaited.help(),
            Ok(Next::Sleep(wait, moment)) => {
                let state = self.state.lock();
                let is_full = state.closed.is_none() && state.unstarted.len() >= self.settings.capacity;
                if is_full && !wait.is_called() {
                    drop(self.sleep_for_room(state, wait_mode.earlier(moment)));
                }
            }
            Err(Refused) => unreachable!("an open wait is not refused"),
        }
    }

    /// Sleeps until there is room, or something else to look at; see rule 10 of `core`.
    fn sleep_for_room<'a>(&self, mut state: MutexGuard<'a, State<R>>, wait_mode: Deadline) -> MutexGuard<'a, State<R>> {
        let expiry = self.expiry();
        if wait_mode.is_past() {
            state.wait_for_room += 1;
            state = self.room.wait_until(state, expiry);
            state.wait_for_room -= 1;
        } else {
            state.wait_for_half_room += 1;
            state = self.half_room.wait_until(state, wait_mode.earlier(expiry).instant());
            state.wait_for_half_room -= 1;
        }
        state
    }
}

/// Whether a task may be added; the lock is still held.
enum Room<'a, R: TaskResult> {
    /// To the queue of the group.
    Here(MutexGuard<'a, State<R>>),
    /// By running it at once.
    OnThisStack(MutexGuard<'a, State<R>>),
    /// Not at all.
    Never(MutexGuard<'a, State<R>>, CancelReason),
}
