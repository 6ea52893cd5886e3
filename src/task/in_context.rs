//! How the executor calls code in the context that was carried to it.
//!
//! The hooks of users are called as hooks. Wrappers are not: the task that a wrapper runs may wait
//! and help, which nests deeper than hooks may. Their panics are contained, and the task runs in
//! any case.

use super::executor::{Executor, TaskHooks, TaskMeta};
use super::propagation::{Carried, Part};
use crate::error::panic::TaskPanic;
#[cfg(feature = "nats")]
use crate::nesting;
use crate::observe::task_info::{TaskId, TaskInfo, TaskOutcome};
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::{Started, WorkerCounters};
use crate::unwind;

impl Executor {
    /// Captures the context of this thread for something that submits tasks later, such as a timer.
    pub(crate) fn capture(&self) -> Option<Carried> {
        let hooks = self.hooks.of_tasks.as_deref().filter(|hooks| hooks.propagation.is_set())?;
        let mut carried = None;
        self.call_hook(|| carried = Some(hooks.propagation.capture_source()));
        carried
    }

    /// Calls `f` in a context that was captured for it. `f` contains its panics.
    pub(crate) fn within_carried<T>(&self, carried: Option<&mut Carried>, f: impl FnOnce() -> T) -> T {
        match carried {
            None => f(),
            Some(carried) => self.call_within(f, |call| carried.enter(Part::Body, call)),
        }
    }

    /// Calls `f` in the context of a task, if it has one. `f` contains its panics.
    #[cfg(any(feature = "retry", feature = "driver"))]
    pub(crate) fn in_context<T>(&self, id: Option<TaskId>, part: Part, f: impl FnOnce() -> T) -> T {
        match (&self.hooks.of_tasks, id) {
            (Some(hooks), Some(id)) => self.within(hooks, id, part, f),
            _ => f(),
        }
    }

    /// Returns the headers that carry the context of this thread to another process.
    #[cfg(any(feature = "grpc", feature = "nats"))]
    pub(crate) fn headers_to_send(&self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        let hooks = self.hooks.of_tasks.as_deref();
        if let Some(inject) = hooks.and_then(|hooks| hooks.propagation.inject.as_ref()) {
            self.call_hook(|| inject(&mut |name, value| headers.push((name.to_owned(), value.to_owned()))));
        }
        headers
    }

    /// Calls `f` in the context that came with a message, if the pool reads it. `f` contains its
    /// panics.
    #[cfg(feature = "nats")]
    pub(crate) fn within_received<'a, T, I>(&self, headers: impl FnOnce() -> I, f: impl FnOnce() -> T) -> T
    where
        I: Iterator<Item = (&'a str, &'a str)>,
    {
        let hooks = self.hooks.of_tasks.as_deref();
        let Some(extract) = hooks.and_then(|hooks| hooks.propagation.extract.as_ref()) else { return f() };
        let (headers, mut carried) = (headers().collect::<Vec<_>>(), None);
        self.call_hook(|| carried = Some(Carried::from(extract(&headers))));
        let value = self.within_carried(carried.as_mut(), f);
        nesting::discard(carried);
        value
    }

    /// Counts the start of a task that hooks follow. Not inlined, so that the code for tasks
    /// without hooks stays small.
    #[cold]
    #[inline(never)]
    pub(super) fn start_followed(&self, counters: &WorkerCounters, task: &TaskMeta<'_>) -> Started {
        counters.start(&task.origin, task.queued_at)
    }

    /// Counts the end of a task that hooks follow, and calls them.
    #[cold]
    #[inline(never)]
    pub(super) fn end_followed(
        &self,
        hooks: &TaskHooks,
        (counters, started): (&WorkerCounters, Started),
        task: &TaskMeta<'_>,
        panic: Option<&TaskPanic>,
        outcome: TaskOutcome,
    ) {
        let at = started.at;
        let ended = counters.end(started, outcome);
        panic.into_iter().for_each(|panic| self.report(panic));
        self.call_observers(hooks, |observer| observer.task_ended(&self.ended(task, at, ended), outcome));
    }

    /// Calls the hooks for a task that was admitted: captures its context and tells the observer.
    #[cold]
    pub(super) fn submitted(&self, hooks: &TaskHooks, task: &TaskOrigin<'_>) {
        if hooks.propagation.is_set() {
            self.call_hook(|| hooks.propagation.capture(task));
        }
        self.call_observers(hooks, |observer| observer.task_submitted(&TaskInfo::of(task)));
    }

    /// Calls the hooks for a task that is refused.
    pub(super) fn refused(&self, task: &TaskOrigin<'_>) {
        let Some(hooks) = &self.hooks.of_tasks else { return };
        self.call_observers(hooks, |observer| observer.task_refused(&TaskInfo::of(task)));
        hooks.propagation.forget(task.id, None);
    }

    /// Drops the context of a task that has ended, if it has one.
    pub(crate) fn end_context(&self, id: TaskId, outcome: TaskOutcome) {
        if let Some(hooks) = &self.hooks.of_tasks {
            hooks.propagation.forget(id, Some(outcome));
        }
    }

    #[cfg(any(feature = "retry", feature = "driver"))]
    pub(super) fn within<T>(&self, hooks: &TaskHooks, id: TaskId, part: Part, f: impl FnOnce() -> T) -> T {
        self.call_within(f, |call| hooks.propagation.within(id, part, call))
    }

    /// Calls `f` once, by `enter`. A panic of `enter` itself is contained and counted. If `enter`
    /// does not call `f`, this does.
    fn call_within<T>(&self, f: impl FnOnce() -> T, enter: impl FnOnce(&mut dyn FnMut())) -> T {
        let (mut f, mut value) = (Some(f), None);
        let mut call = || {
            if let Some(f) = f.take() {
                value = Some(f());
            }
        };
        if let Err(payload) = unwind::catch(|| enter(&mut call)) {
            unwind::discard(payload);
            self.tracker.count_hook_panic();
        }
        call();
        value.expect("`f` returns, because it contains its panics")
    }
}
