//! The start hooks of workers, and the report of hooks that may fail.
//!
//! The thread that starts workers waits for the report of each of them, if their hook may fail. It
//! holds no lock meanwhile, because the hook is user code. If it has tasks on its stack, its wait is
//! registered: a hook may wait for a task that only this thread can run, or for the waiter itself.

use std::borrow::Cow;
use std::error::Error;

use super::inner::PoolInner;
use super::worker_set::WorkerParts;
use crate::error::{BuildError, CycleKind, CycleTarget};
use crate::sync::{Arc, Condvar, Mutex};
use crate::task::context::{self, AwaitedId, GroupId, PoolId, ThreadId};
use crate::task::waits::{self, Awaited, Kind, Needs};
use crate::time::deadline::Deadline;
use crate::unwind;

/// A hook that a worker calls with its index.
pub(crate) type WorkerHook = Arc<dyn Fn(usize) + Send + Sync>;

/// A hook that a worker calls with its index, and that may fail.
pub(crate) type FallibleHook = Arc<dyn Fn(usize) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// What a worker calls when its thread starts.
#[derive(Clone)]
pub(crate) enum StartHook {
    /// Its panic is contained and counted, and the worker continues.
    Infallible(WorkerHook),
    /// Its error or panic ends the worker.
    Fallible(FallibleHook),
}

impl StartHook {
    /// Returns `true` if the hook may fail.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self, Self::Fallible(_))
    }
}

/// Calls the start hook of a worker, and reports the result if the hook may fail. Returns `true` if
/// the worker works from now on, and `false` if it has retired.
pub(crate) fn run_hook(
    pool: &PoolInner,
    hook: Option<&StartHook>,
    worker: &WorkerParts,
    starting: Option<Starting>,
) -> bool {
    let index = worker.counters.worker();
    let started = match hook {
        Some(StartHook::Infallible(hook)) => {
            pool.executor.call_hook(|| hook(index));
            Ok(())
        }
        Some(StartHook::Fallible(hook)) => call_fallible(pool, hook, index),
        None => Ok(()),
    };
    let works = started.is_ok();
    if let Some(starting) = starting {
        // Before the report, so that the thread that gets it finds the worker active or retired.
        if works {
            pool.workers.start_succeeded();
            worker.inbox.open();
        } else {
            pool.workers.start_failed();
        }
        starting.report(index, started);
    }
    works
}

fn call_fallible(pool: &PoolInner, hook: &FallibleHook, worker: usize) -> Result<(), BuildError> {
    match pool.executor.enter(GroupId::NONE, |_| unwind::catch(|| hook(worker))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(BuildError::StartHookFailed { worker, source }),
        Err(payload) => {
            let message = unwind::message(&payload).map(Cow::into_owned);
            unwind::discard(payload);
            pool.executor.tracker.count_hook_panic();
            Err(BuildError::StartHookPanicked { worker, message })
        }
    }
}

/// The report of the workers that one call starts.
pub(crate) struct StartReport {
    pool: PoolId,
    state: Mutex<State>,
    /// Notified when no worker is starting any more.
    done: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// The threads of the workers that have not reported.
    starting: Vec<ThreadId>,
    /// The error of the failed worker with the lowest index so far, and that index.
    error: Option<(usize, BuildError)>,
}

/// A worker that has to report. Its drop ends the wait for its report.
#[must_use = "a dropped value ends the wait for its report"]
pub(crate) struct Starting {
    report: Arc<StartReport>,
    thread: ThreadId,
}

impl StartReport {
    pub(crate) fn new(pool: PoolId) -> Arc<Self> {
        Arc::new(Self { pool, state: Mutex::default(), done: Condvar::new() })
    }

    /// Expects one more report, from the worker with this thread.
    pub(crate) fn expect(report: &Arc<Self>, thread: ThreadId) -> Starting {
        report.state.lock().starting.push(thread);
        Starting { report: Arc::clone(report), thread }
    }

    /// Blocks until every worker has reported. Returns the error of the failed worker with the
    /// lowest index, or an error where waits are nested too deep.
    pub(crate) fn wait(self: &Arc<Self>) -> Result<(), BuildError> {
        if !self.state.lock().starting.is_empty() {
            waits::prepare(Deadline::NEVER).map_err(|_| BuildError::WouldDeadlock)?;
            self.sleep();
        }
        self.state.lock().error.take().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Sleeps until every worker has reported. A waiter with tasks on its stack helps if a start
    /// hook needs it. A hook that waits for this waiter is refused its wait, and reports.
    fn sleep(self: &Arc<Self>) {
        let sleep_unless = |is_called: &dyn Fn() -> bool, deadline| {
            let is_waiting = |state: &State| !state.starting.is_empty() && !is_called();
            self.done.wait_while(self.state.lock(), deadline, is_waiting).starting.is_empty()
        };
        if context::depth() == 0 {
            sleep_unless(&|| false, Deadline::NEVER);
            return;
        }
        let target: Arc<dyn Awaited> = Arc::clone(self) as _;
        let waited = waits::wait(&target, Kind::Unrefusable, |wait, until| {
            sleep_unless(&|| wait.is_notified(), Deadline::NEVER.earlier(until))
        });
        debug_assert!(waited.is_ok(), "the wait must not be refused");
    }
}

impl Awaited for StartReport {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(self)
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        self.state.lock().starting.iter().map(|thread| (*thread).into()).collect()
    }

    fn pool(&self) -> PoolId {
        self.pool
    }

    fn report_needs(&self, needs: &mut Needs) {
        self.state.lock().starting.iter().for_each(|thread| needs.end_of(*thread));
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Pool)
    }

    fn help(self: Arc<Self>) {}

    fn wake_waiters(&self) {
        // A waiter has checked before this and sleeps, or checks after it.
        drop(self.state.lock());
        self.done.notify_all();
    }
}

impl Starting {
    /// Reports the start of the worker.
    fn report(self, worker: usize, started: Result<(), BuildError>) {
        let mut unused = started.err().map(|error| (worker, error));
        let mut state = self.report.state.lock();
        if unused.is_some() && state.error.as_ref().is_none_or(|(first, _)| worker < *first) {
            std::mem::swap(&mut state.error, &mut unused);
        }
        drop(state);
        unwind::discard(unused);
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut state = self.report.state.lock();
        state.starting.retain(|thread| *thread != self.thread);
        if state.starting.is_empty() {
            self.report.done.notify_all();
        }
    }
}
