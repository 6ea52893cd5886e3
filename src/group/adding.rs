//! How tasks get into a group, by the rules 6 to 9 of `core`.

use std::panic::Location;

use super::core::{Body, GroupCore, Intake, State, Unstarted};
use super::result::TaskResult;
use super::running::Stint;
use crate::error::{CancelReason, Refusal, TaskError};
use crate::local;
use crate::sync::{Arc, MutexGuard};
use crate::unwind;

/// What became of a task that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a group that takes nothing more need not be offered more"]
pub(crate) enum Added {
    /// It will run, unless it is cancelled later.
    Taken,
    /// It was dropped unrun, and has landed as cancelled.
    Dropped,
}

impl<R: TaskResult> GroupCore<R> {
    /// Adds a task, waiting for room if need be. `make_body` is called once; it is not the body yet, so that this can be
    /// written where it belongs at once.
    #[inline]
    pub(crate) fn add(
        self: &Arc<Self>,
        make_body: impl FnOnce() -> Body<R>,
        location: &'static Location<'static>,
    ) -> Added {
        let supervisor = &self.engine.supervisor;
        let queued_at = supervisor.now_if_timing();
        let Some(id) = supervisor.admit(location, self.settings.label.as_ref()) else {
            return self.refuse(make_body());
        };
        match self.wait_for_room() {
            Room::Here(mut intake) => {
                intake.add(|index| Unstarted { index, body: make_body(), id, location, queued_at });
                self.call_runners(intake);
                Added::Taken
            }
            room => self.add_elsewhere(room, Unstarted { index: 0, body: make_body(), id, location, queued_at }),
        }
    }

    /// Drops the body of a task that the pool has not admitted.
    fn refuse(&self, body: Body<R>) -> Added {
        unwind::discard(body);
        let mut state = self.state.0.lock();
        let mut intake = self.draw(&mut state);
        let index = state.add_unqueued(&mut intake);
        drop(intake);
        state.outcomes.put(index, Err(TaskError::Cancelled(CancelReason::ShutDown)));
        self.count_done(&mut state, 1);
        self.announce_end(&mut state);
        Added::Dropped
    }

    /// Adds a task, but not to the queue of the group.
    fn add_elsewhere(self: &Arc<Self>, room: Room<'_, R>, mut task: Unstarted<R>) -> Added {
        match room {
            Room::Here(_) => unreachable!("the caller knows what to do here"),
            Room::OnThisStack(mut state, mut intake) => {
                task.index = state.add_unqueued(&mut intake);
                state.running.push(task.index);
                drop(intake);
                drop(state);
                self.perform(task);
                Added::Taken
            }
            Room::Never(mut state, mut intake, reason) => {
                task.index = state.add_unqueued(&mut intake);
                drop(intake);
                drop(state);
                self.enter(|record| self.drop_unstarted(record, vec![task], reason));
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
        let supervisor = &self.engine.supervisor;
        let queued_at = supervisor.now_if_timing();
        let Some(id) = supervisor.admit(location, self.settings.label.as_ref()) else {
            return Err((Refusal::ShutDown, f));
        };
        self.close_if_told();
        let mut intake = self.intake.0.lock();
        let refusal = if intake.closed.is_some() {
            Some(Refusal::ShutDown)
        } else if self.holds_nothing() || !self.has_room(&mut intake) {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(intake);
            supervisor.withdrawn(&self.info(id, location));
            return Err((refusal, f));
        }
        intake.add(|index| Unstarted { index, body: box_up(f), id, location, queued_at });
        self.call_runners(intake);
        Ok(())
    }

    /// A task has been added: calls whoever can run it.
    #[inline]
    fn call_runners(self: &Arc<Self>, intake: MutexGuard<'_, Intake<R>>) {
        let helpers = intake.helpers > 0;
        self.send_ticket_if_needed(intake);
        if helpers {
            drop(self.state.0.lock());
            self.changed.notify_all();
        }
    }

    /// Whether no task could ever be held or run.
    fn holds_nothing(&self) -> bool {
        self.settings.limit == 0 || self.settings.capacity == 0
    }

    /// Waits until a task may be added.
    #[inline]
    fn wait_for_room(self: &Arc<Self>) -> Room<'_, R> {
        self.close_if_told();
        let mut intake = self.intake.0.lock();
        if intake.closed.is_none() && !self.holds_nothing() && self.has_room(&mut intake) {
            Room::Here(intake)
        } else {
            drop(intake);
            self.wait_for_room_slowly()
        }
    }

    fn wait_for_room_slowly(self: &Arc<Self>) -> Room<'_, R> {
        let on_worker = local::is_worker_of(self.engine.pool());
        loop {
            self.close_if_told();
            let mut state = self.state.0.lock();
            let mut intake = self.draw(&mut state);
            if let Some(reason) = state.closed {
                return Room::Never(state, intake, reason);
            }
            if self.holds_nothing() {
                state.impossible = true;
                return Room::Never(state, intake, CancelReason::Requested);
            }
            if self.has_room(&mut intake) {
                return Room::Here(intake);
            }
            if local::is_member_of(self.name) {
                let deep = local::depth() >= local::INLINE_DEPTH;
                return if deep { Room::Here(intake) } else { Room::OnThisStack(state, intake) };
            }
            if on_worker && local::depth() >= local::HELP_DEPTH {
                return Room::Here(intake);
            }
            if on_worker && intake.runners < self.settings.limit {
                intake.runners += 1;
                drop(intake);
                drop(state);
                self.run_unstarted(Stint::Whole, |_| self.has_room(&mut self.intake.0.lock()));
                continue;
            }
            drop(intake);
            state.wait_for_room += 1;
            let mut state = self.room.wait_until(state, self.token.deadline());
            state.wait_for_room -= 1;
        }
    }
}

/// Whether a task may be added; the locks are still held.
enum Room<'a, R: TaskResult> {
    /// To the queue of the group.
    Here(MutexGuard<'a, Intake<R>>),
    /// By running it at once.
    OnThisStack(MutexGuard<'a, State<R>>, MutexGuard<'a, Intake<R>>),
    /// Not at all.
    Never(MutexGuard<'a, State<R>>, MutexGuard<'a, Intake<R>>, CancelReason),
}
