//! The worker that the current thread is.
//!
//! This is apart from `task::context`, which every task reads and which does not know the pool.

use std::cell::RefCell;

use super::inner::PoolInner;
use crate::sync::{Arc, Weak, thread_local};

thread_local! {
    /// The index of the worker that this thread is, if it is one, and its pool.
    static WORKER: RefCell<Option<(usize, Weak<PoolInner>)>> = const { RefCell::new(None) };
}

/// Makes this thread the worker of `pool` with this index, until [`clear`].
pub(super) fn set(pool: &Arc<PoolInner>, index: usize) {
    let weak = Arc::downgrade(pool);
    WORKER.with(|worker| worker.borrow_mut().replace((index, weak)));
}

/// Makes this thread no worker.
pub(super) fn clear() {
    let _ = WORKER.try_with(|worker| worker.borrow_mut().take());
}

/// Returns the index and the pool of the worker that this thread is.
pub(super) fn worker() -> Option<(usize, Weak<PoolInner>)> {
    WORKER.try_with(|worker| worker.borrow().clone()).ok().flatten()
}
