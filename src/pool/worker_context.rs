//! The worker that the current thread is.
//!
//! This is separate from `task::context`, which every task reads and which does not know the pool.

use std::cell::RefCell;

use super::inbox::Inbox;
use super::inner::PoolInner;
use crate::sync::{Arc, Weak, thread_local};

/// A worker, as its own thread sees it.
#[derive(Clone)]
pub(super) struct ThisWorker {
    /// Its index.
    pub(super) index: usize,
    /// Its inbox.
    pub(super) inbox: Arc<Inbox>,
    /// Its pool.
    pub(super) pool: Weak<PoolInner>,
}

thread_local! {
    /// The worker that this thread is, if it is one.
    static WORKER: RefCell<Option<ThisWorker>> = const { RefCell::new(None) };
}

/// Makes this thread a worker, until [`clear`].
pub(super) fn set(worker: ThisWorker) {
    WORKER.with(|own| own.borrow_mut().replace(worker));
}

/// Undoes [`set`]: this thread is not a worker from now on.
pub(super) fn clear() {
    let worker = WORKER.try_with(|worker| worker.borrow_mut().take());
    drop(worker);
}

/// Returns the worker that this thread is.
pub(super) fn worker() -> Option<ThisWorker> {
    WORKER.try_with(|worker| worker.borrow().clone()).ok().flatten()
}
