//! The start hooks of workers, and the report of hooks that may fail.
//!
//! The thread that starts workers waits for the report of each of them, if their hook may fail. It
//! holds no lock meanwhile, because the hook is user code.

use std::borrow::Cow;
use std::error::Error;

use super::inner::PoolInner;
use super::worker_set::WorkerParts;
use crate::error::BuildError;
use crate::sync::{Arc, Condvar, Mutex};
use crate::task::context::GroupId;
use crate::task::waits;
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
#[derive(Default)]
pub(crate) struct StartReport {
    state: Mutex<State>,
    /// Notified when no worker is starting any more.
    done: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// The workers that have not reported.
    starting: usize,
    /// The error of the failed worker with the lowest index so far, and that index.
    error: Option<(usize, BuildError)>,
}

/// A worker that has to report. Its drop ends the wait for its report.
#[must_use = "a dropped value ends the wait for its report"]
pub(crate) struct Starting(Arc<StartReport>);

impl StartReport {
    /// Expects one more report.
    pub(crate) fn expect(report: &Arc<Self>) -> Starting {
        report.state.lock().starting += 1;
        Starting(Arc::clone(report))
    }

    /// Blocks until every worker has reported. Returns the error of the failed worker with the
    /// lowest index, or an error where waits are nested too deep.
    pub(crate) fn wait(&self) -> Result<(), BuildError> {
        if self.state.lock().starting > 0 {
            waits::prepare(Deadline::NEVER).map_err(|_| BuildError::WouldDeadlock)?;
        }
        let mut state = self.done.wait_while(self.state.lock(), Deadline::NEVER, |state| state.starting > 0);
        state.error.take().map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Starting {
    /// Reports the start of the worker.
    fn report(self, worker: usize, started: Result<(), BuildError>) {
        let mut unused = started.err().map(|error| (worker, error));
        let mut state = self.0.state.lock();
        if unused.is_some() && state.error.as_ref().is_none_or(|(first, _)| worker < *first) {
            std::mem::swap(&mut state.error, &mut unused);
        }
        drop(state);
        unwind::discard(unused);
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.starting -= 1;
        if state.starting == 0 {
            self.0.done.notify_all();
        }
    }
}
