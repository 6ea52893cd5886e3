//! The source of a map, and how far the map reads ahead in it.
//!
//! The source is user code that may block: forever, if it waits for one of the results. It need not
//! be `Send`, so only the thread that calls `next` can take items from it. Hence the rules:
//!
//! 1. If the first result is ready, `next` takes no item and returns the result.
//! 2. While a task is in progress, `next` takes only items that the source has promised by the
//!    lower bound of its `size_hint`. A window or a concurrency that the user has set counts as
//!    such a promise.
//! 3. If a concurrency is set and no task may begin, a thread that is not within a task waits for
//!    the end of any task, and takes the next item then. The end of the first task is one of them.
//! 4. While no task is in progress, `next` takes an item, because there is nothing else to wait
//!    for.
//!
//! A source that is fed by the results promises nothing while it is empty. So rule 4 applies, after
//! all results were returned. A collection or a range has promised its items, so rule 2 keeps the
//! workers busy.

use std::iter::Fuse;

use super::in_progress::Concurrency;
use crate::pool::inner::PoolInner;
use crate::priority::Priority;

/// The default window for each worker: one item runs, and the others are queued for workers that
/// outpace the caller.
const WINDOW_PER_WORKER: usize = 4;

/// The source of a map. `H` is what the map holds back when there is no room for a task.
pub(super) struct Source<I: Iterator, H> {
    items: Fuse<I>,
    /// What was made of an item that was taken when there was no room. `None` while no result is
    /// pending.
    pub(super) held_back: Option<H>,
    /// The window, if the user has set it; at least one.
    window: Option<usize>,
}

impl<I: Iterator, H> Source<I, H> {
    pub(super) fn new(items: I) -> Self {
        Self { items: items.fuse(), held_back: None, window: None }
    }

    /// Sets how many results may be pending or ready at once. Zero counts as one.
    pub(super) fn set_window(&mut self, items: usize) {
        self.window = Some(items.max(1));
    }

    pub(super) fn window(&self) -> Option<usize> {
        self.window
    }

    /// Returns what was held back, or what `make` makes of the next item.
    pub(super) fn next(&mut self, make: impl FnOnce(I::Item) -> H) -> Option<H> {
        self.held_back.take().or_else(|| self.items.next().map(make))
    }

    /// Returns `true` if an item may be taken while `results` results were not returned.
    pub(super) fn may_take(
        &self,
        results: usize,
        pool: (&PoolInner, Priority),
        concurrency: Option<&Concurrency>,
    ) -> bool {
        results == 0
            || self.held_back.is_some()
            || concurrency.is_none_or(Concurrency::has_room) && self.may_read_ahead(results, pool, concurrency)
    }

    /// Blocks until there is room for another task, if there is none and an item may be taken then.
    /// Returns `true` if it has blocked.
    pub(super) fn wait_for_room(
        &self,
        results: usize,
        pool: (&PoolInner, Priority),
        concurrency: Option<&Concurrency>,
    ) -> bool {
        // What is held back counts as in progress, and ends only after it was submitted.
        let may_wait = self.held_back.is_none() && self.may_read_ahead(results, pool, concurrency);
        concurrency.is_some_and(|limit| may_wait && limit.wait_for_room())
    }

    /// Returns `true` if the window has room, and the source has promised an item.
    fn may_read_ahead(&self, results: usize, pool: (&PoolInner, Priority), concurrency: Option<&Concurrency>) -> bool {
        let window = self.window.unwrap_or_else(|| default_window(pool.0, pool.1));
        let is_promised = self.window.is_some() || concurrency.is_some_and(Concurrency::is_promise);
        results < window && (is_promised || self.items.size_hint().0 > 0)
    }

    /// Returns the bounds of the number of results, of which `results` were not returned.
    pub(super) fn size_hint(&self, results: usize) -> (usize, Option<usize>) {
        let taken = results + usize::from(self.held_back.is_some());
        let (lower, upper) = self.items.size_hint();
        (lower.saturating_add(taken), upper.and_then(|upper| upper.checked_add(taken)))
    }
}

/// Returns the window of a map for which the user has set none.
fn default_window(pool: &PoolInner, class: Priority) -> usize {
    pool.workers.target().saturating_mul(WINDOW_PER_WORKER).min(pool.queue_capacity(class) + 1)
}
