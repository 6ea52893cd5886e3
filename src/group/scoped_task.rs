//! The state of one task of a scope that has a handle, without its value.
//!
//! The value may borrow, so it lies in a cell of its own, which the task and the handle share. This
//! part borrows nothing, and so the registry of waits and the payload of a panic can refer to it.
//!
//! | state | meaning | changed by | next |
//! |---|---|---|---|
//! | `Pending` | the closure waits in the queue of the group | the thread that runs or drops it | `Running`; `Done` with a cancellation |
//! | `Running` | the closure is on the stack of the named thread | that thread | `Done` |
//! | `Done` | the value is in its cell, or the panic is here, or the task was cancelled | the handle | `Taken` |
//! | `Taken` | the handle has taken the outcome | – | – |
//!
//! All changes are made under the lock of this file. Under it, no other lock is taken and no user
//! code runs.
//!
//! Races:
//! - *Complete and wait*: the waiter checks under the lock that the completion takes.
//! - *Panic and drop of the handle*: the first under the lock decides whether the panic belongs to
//!   the handle. A handle that is dropped with a panic leaves it to the group.
//! - *Claim and claim* (a runner and a joining worker): the group's queue decides.

use std::mem;
use std::time::Instant;

use super::one_task::Turn;
use super::result::TaskResult;
use super::state::GroupInner;
use crate::error::panic::{PanicReceiver, TaskPanic};
use crate::error::{CancelReason, Cycle, CycleKind, CycleTarget, JoinError};
use crate::nesting;
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, spin_wait};
use crate::task::cell::SPIN_TIME;
use crate::task::context::{self, AwaitedId, PoolId, ThreadId};
use crate::task::sleepers;
use crate::task::waits::{self, Awaited, Kind, Needs, Next, Wait};
use crate::time::deadline::Deadline;

/// A task of a scope that has a handle.
pub(super) struct ScopedTask<R: TaskResult> {
    group: Arc<GroupInner<R>>,
    /// The task's position in spawn order.
    index: usize,
    /// Whether the task has an outcome. Written under the lock, read without it.
    completed: AtomicBool,
    state: Mutex<State>,
    /// Notified when the task completes, and by `wake_waiters`.
    done: Condvar,
}

/// What the lock guards.
struct State {
    stage: Stage,
    /// Whether the handle is gone.
    detached: bool,
    /// Why the handle has cancelled the task, if it has.
    cancelled: Option<CancelReason>,
}

/// The states of the table above.
enum Stage {
    Pending,
    Running(ThreadId),
    Done(Ending),
    Taken,
}

/// How a task has ended.
pub(super) enum Ending {
    /// Its value is in the value cell.
    Value,
    Panicked(TaskPanic),
    /// It never ran.
    Cancelled,
}

/// A task of any scope, as its handle sees it.
pub(super) trait ScopedTarget: Send + Sync {
    /// Blocks until the task has ended or the deadline has passed, and helps if there is no
    /// deadline. Returns `true` if the task has ended.
    fn wait(self: Arc<Self>, deadline: Deadline) -> Result<bool, JoinError>;

    /// Returns `true` if the task has ended.
    fn is_done(&self) -> bool;

    /// Cancels the task if it has not started.
    fn cancel(&self) -> bool;

    /// Takes the outcome of a task that has ended: `Ok` means that the value is in its cell.
    fn take(&self) -> Result<(), JoinError>;

    /// Notes that the handle is gone. A panic that it has not taken is left to the scope.
    fn detach(&self);
}

impl<R: TaskResult> ScopedTask<R> {
    pub(super) fn new(group: Arc<GroupInner<R>>, index: usize) -> Self {
        let state = State { stage: Stage::Pending, detached: false, cancelled: None };
        Self { group, index, completed: AtomicBool::new(false), state: Mutex::new(state), done: Condvar::new() }
    }

    /// Notes that this thread runs the closure.
    pub(super) fn start(&self) {
        self.state.lock().stage = Stage::Running(context::thread_id());
    }

    /// Notes that the task was dropped, if it has not started.
    pub(super) fn end_unstarted(&self) {
        if matches!(self.state.lock().stage, Stage::Pending) {
            let _ = self.complete(Ending::Cancelled);
        }
    }

    /// Stores the outcome and wakes the waiters. Returns the outcome if the handle is gone.
    pub(super) fn complete(&self, ending: Ending) -> Option<Ending> {
        let mut state = self.state.lock();
        let returned = if state.detached {
            state.stage = Stage::Taken;
            Some(ending)
        } else {
            state.stage = Stage::Done(ending);
            None
        };
        // ORDERING: Release pairs with the Acquire of `is_completed`.
        self.completed.store(true, Ordering::Release);
        drop(state);
        self.done.notify_all();
        returned
    }

    fn is_completed(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `complete`.
        self.completed.load(Ordering::Acquire)
    }

    /// Returns `true` if the closure is on the stack of this thread.
    fn is_on_this_stack(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Running(thread) if thread == context::thread_id())
    }

    /// Returns the deadline at which the clock cancels the group, unless it is closed.
    fn group_deadline(&self) -> Option<Instant> {
        if self.group.is_cancelled() { None } else { self.group.deadline() }
    }

    /// Blocks until the task has ended, `is_called` returns `true` or the deadline has passed.
    fn block_unless(&self, is_called: impl Fn() -> bool, deadline: Deadline) {
        drop(self.done.wait_while(self.state.lock(), deadline, |_| !self.is_completed() && !is_called()));
    }

    /// Waits on a thread with tasks on its stack, and helps.
    fn wait_helping(self: &Arc<Self>) -> Result<(), JoinError> {
        let position = self.group.position();
        loop {
            self.group.close_if_cancelled();
            if self.is_completed() {
                return Ok(());
            }
            let turn = match position.is_worker {
                true => self.group.run_out_of_turn(self.index, &position),
                false => Turn::Started,
            };
            match turn {
                Turn::Ran => continue,
                Turn::TooDeep => return Err(JoinError::WouldDeadlock(Cycle::default())),
                Turn::Started | Turn::AtLimit => {}
            }
            if spin_wait(SPIN_TIME, || self.is_completed()) {
                return Ok(());
            }
            match waits::register(Arc::clone(self) as _, Kind::Certain)? {
                Next::Help(awaited) => awaited.help(),
                Next::Sleep(wait, until) => {
                    let until = Deadline::NEVER.earlier(until).earlier(self.group_deadline());
                    self.sleep(&wait, until, turn == Turn::AtLimit);
                    wait.check()?;
                }
            }
        }
    }

    /// Sleeps until the task has ended, the wait is notified, or the time has passed. If the task
    /// waits for the limit of its group, also until this thread may run it.
    fn sleep(&self, wait: &Wait, until: Deadline, at_limit: bool) {
        let is_ready = || self.is_completed() || wait.is_notified();
        if at_limit {
            self.group.sleep_unless(
                |state| is_ready() || !state.is_unstarted(self.index) || self.group.may_start(state, self.index),
                until,
            );
        } else {
            self.block_unless(is_ready, until);
        }
    }
}

impl<R: TaskResult> ScopedTarget for ScopedTask<R> {
    fn wait(self: Arc<Self>, deadline: Deadline) -> Result<bool, JoinError> {
        if self.is_on_this_stack() {
            let cycle = waits::own_cycle(self.describe(), self.group.pool.id());
            return Err(JoinError::WouldDeadlock(cycle));
        }
        if deadline == Deadline::NEVER && !self.is_completed() && !nesting::call_pending() {
            return Err(JoinError::WouldDeadlock(Cycle::default()));
        }
        if deadline == Deadline::NEVER && context::depth() > 0 {
            return self.wait_helping().map(|()| true);
        }
        spin_wait(SPIN_TIME, || self.is_completed() || deadline.is_past());
        let sleeps = !self.is_completed() && !deadline.is_past();
        let _listed = sleeps.then(|| sleepers::list(self.describe(), self.group.pool.id(), deadline));
        while !self.is_completed() && !deadline.is_past() {
            self.group.close_if_cancelled();
            self.block_unless(|| false, deadline.earlier(self.group_deadline()));
        }
        Ok(self.is_completed())
    }

    fn is_done(&self) -> bool {
        self.is_completed()
    }

    fn cancel(&self) -> bool {
        let before = self.state.lock().cancelled.replace(CancelReason::Requested);
        let cancelled = self.group.cancel_task(self.index);
        if !cancelled {
            self.state.lock().cancelled = before;
        }
        cancelled
    }

    fn take(&self) -> Result<(), JoinError> {
        let mut state = self.state.lock();
        let stage = mem::replace(&mut state.stage, Stage::Taken);
        let reason = state.cancelled;
        drop(state);
        match stage {
            Stage::Done(Ending::Value) => Ok(()),
            Stage::Done(Ending::Panicked(panic)) => Err(JoinError::Panicked(panic)),
            Stage::Done(Ending::Cancelled) => Err(JoinError::Cancelled(
                reason.or_else(|| self.group.close_reason()).unwrap_or(CancelReason::ShutDown),
            )),
            Stage::Pending | Stage::Running(_) | Stage::Taken => {
                unreachable!("a handle takes the outcome once, at its end")
            }
        }
    }

    fn detach(&self) {
        let mut state = self.state.lock();
        state.detached = true;
        let left = match &state.stage {
            Stage::Done(_) => mem::replace(&mut state.stage, Stage::Taken),
            _ => return,
        };
        drop(state);
        if let Stage::Done(Ending::Panicked(panic)) = left {
            self.group.record_late(self.index, panic);
        }
    }
}

impl<R: TaskResult> PanicReceiver for ScopedTask<R> {
    fn receive(&self, panic: TaskPanic) -> Option<TaskPanic> {
        match self.complete(Ending::Panicked(panic)) {
            Some(Ending::Panicked(panic)) => Some(panic),
            _ => None,
        }
    }
}

/// The task as the registry of waits sees it.
impl<R: TaskResult> Awaited for ScopedTask<R> {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(self)
    }

    fn pool(&self) -> PoolId {
        self.group.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        let running_on = match &self.state.lock().stage {
            Stage::Pending => None,
            Stage::Running(thread) => Some(*thread),
            Stage::Done(_) | Stage::Taken => return,
        };
        match running_on {
            Some(thread) => needs.end_of(thread),
            None => {
                let state = self.group.state.lock();
                if !state.is_unstarted(self.index) {
                    return; // a runner has taken the task, and is about to start or has ended it
                }
                needs.worker = self.group.may_start(&state, self.index);
                if !needs.worker {
                    self.group.report_limit(&state, needs);
                }
            }
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Task).label(self.group.settings.label.as_ref())
    }

    fn help(self: Arc<Self>) {
        let _ = self.group.run_out_of_turn(self.index, &self.group.position());
    }

    fn wake_waiters(&self) {
        drop(self.state.lock()); // so a waiter is either asleep by now, or has yet to check
        self.done.notify_all();
        self.group.wake_waiters();
    }
}
