//! The tasks of a map on the workers of a pool, and their results in the order of the items.
//!
//! `read_ahead` has the rules for taking items. This module does not know how the task of an item is
//! made and submitted: the public iterators say so.

use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;

use super::in_progress::{Concurrency, InProgress};
use super::read_ahead::Source;
use crate::error::{CancelReason, JoinError, Refusal};
use crate::pool::submit::{SubmitSettings, WaitMode};
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::task::handle::JoinHandle;
use crate::unwind;

/// The tasks of a map. `C` is the closure of one task, and `T` the output of its handle.
pub(crate) struct MapTasks<'a, I: Iterator, C, T> {
    /// The pool whose workers run the tasks.
    pool: &'a WorkerPool,
    /// The source. What is held back is the closure of a task for which the queue had no room.
    source: Source<I, C>,
    /// The results of the items that were taken, in the order of the items. They are pending or
    /// ready.
    results: VecDeque<Result<JoinHandle<T>, JoinError>>,
    /// The limit of tasks in progress, if the user has set it.
    concurrency: Option<Concurrency>,
    /// The class of the tasks.
    priority: Priority,
    /// Where the map was made.
    location: &'static Location<'static>,
}

impl<'a, I: Iterator, C, T> MapTasks<'a, I, C, T> {
    pub(crate) fn new(pool: &'a WorkerPool, items: I, location: &'static Location<'static>) -> Self {
        let (source, results) = (Source::new(items), VecDeque::new());
        Self { pool, source, results, concurrency: None, priority: Priority::Normal, location }
    }

    pub(crate) fn set_window(&mut self, items: usize) {
        self.source.set_window(items);
    }

    pub(crate) fn set_concurrency(&mut self, tasks: usize) {
        self.concurrency = Some(Concurrency::new(tasks));
    }

    pub(crate) fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// Returns the next result in order, which may be that of a later item than before. `make`
    /// makes the closure of an item, and `submit` submits it or gives it back.
    pub(crate) fn next(
        &mut self,
        make: impl Fn(I::Item, Option<InProgress>) -> C,
        submit: impl Fn(&WorkerPool, C, SubmitSettings<'_>) -> Result<JoinHandle<T>, (Refusal, C)>,
    ) -> Option<Result<T, JoinError>> {
        loop {
            while !self.is_first_ready() && self.may_submit() && self.submit_next(&make, &submit) {}
            let is_ready = self.is_first_ready();
            let pool = (&**self.pool.inner(), self.priority);
            if is_ready || !self.source.wait_for_room(self.results.len(), pool, self.concurrency.as_ref()) {
                break;
            }
        }
        match self.results.pop_front()? {
            Ok(handle) => Some(handle.join()),
            Err(error) => Some(Err(error)),
        }
    }

    pub(crate) fn size_hint(&self) -> (usize, Option<usize>) {
        self.source.size_hint(self.results.len())
    }

    /// Submits the closure held back, or that of the next item. Returns `true` if that succeeded.
    fn submit_next(
        &mut self,
        make: impl Fn(I::Item, Option<InProgress>) -> C,
        submit: impl Fn(&WorkerPool, C, SubmitSettings<'_>) -> Result<JoinHandle<T>, (Refusal, C)>,
    ) -> bool {
        let concurrency = &self.concurrency;
        let make = |item| make(item, concurrency.as_ref().map(Concurrency::count));
        let Some(closure) = self.source.next(make) else { return false };
        // Without a task in progress, there is only room to wait for.
        let wait_mode = if self.results.is_empty() { WaitMode::Policy } else { WaitMode::Never };
        let settings = SubmitSettings { class: self.priority, ..SubmitSettings::plain(wait_mode, self.location) };
        match submit(self.pool, closure, settings) {
            Ok(handle) => self.results.push_back(Ok(handle)),
            Err((Refusal::ShutDown, _)) => {
                self.results.push_back(Err(JoinError::Cancelled(CancelReason::ShutDown)));
            }
            Err((Refusal::Full | Refusal::Timeout, closure)) => {
                self.source.held_back = Some(closure);
                return false;
            }
        }
        true
    }

    /// Returns `true` if the next result can be returned without waiting.
    fn is_first_ready(&self) -> bool {
        match self.results.front() {
            Some(Ok(handle)) => handle.is_finished(),
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// Returns `true` if another task may be submitted, by the rules of `read_ahead`.
    fn may_submit(&self) -> bool {
        self.source.may_take(self.results.len(), (self.pool.inner(), self.priority), self.concurrency.as_ref())
    }

    /// Writes the map under its public name.
    pub(crate) fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("results", &self.results.len())
            .field("window", &self.source.window())
            .field("priority", &self.priority)
            .field("concurrency", &self.concurrency.as_ref().map(Concurrency::limit))
            .finish_non_exhaustive()
    }
}

impl<I: Iterator, C, T> Drop for MapTasks<'_, I, C, T> {
    fn drop(&mut self) {
        for handle in self.results.iter().flatten() {
            handle.cancel();
        }
        unwind::discard(self.source.held_back.take());
    }
}
