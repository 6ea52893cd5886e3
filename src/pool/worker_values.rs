//! The current worker's values of worker locals.
//!
//! They are in a thread local, so they need not be `Send`. Nothing is borrowed while user code
//! runs: a value in use is on the stack, and a mark takes its place. See the rules of
//! `worker_local`.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::inbox::LocalId;
use super::inner::PoolInner;
use crate::error::WorkerLocalError;
use crate::nesting;
use crate::sync::{Arc, thread_local};
use crate::task::context::GroupId;
use crate::task::executor::Executor;
use crate::unwind;

/// The values of one worker.
struct Values {
    /// Whether the worker is leaving, and makes no more values.
    is_closed: bool,
    /// A value is `None` while it is in use.
    by_id: BTreeMap<LocalId, Option<Box<dyn Any>>>,
}

thread_local! {
    static VALUES: RefCell<Values> = const { RefCell::new(Values { is_closed: false, by_id: BTreeMap::new() }) };
}

/// Marks the value of this worker as in use, and takes it if there is one.
pub(super) fn take(id: LocalId) -> Result<Option<Box<dyn Any>>, WorkerLocalError> {
    let taken = VALUES.try_with(|values| {
        let mut values = values.borrow_mut();
        if values.is_closed {
            return Err(WorkerLocalError::NotOnWorker);
        }
        match values.by_id.get_mut(&id) {
            Some(None) => Err(WorkerLocalError::InUse),
            Some(value) => Ok(value.take()),
            None => {
                values.by_id.insert(id, None);
                Ok(None)
            }
        }
    });
    taken.unwrap_or(Err(WorkerLocalError::NotOnWorker))
}

/// Puts back a value that was in use, or removes the mark if the value is gone.
pub(super) fn put(id: LocalId, value: Option<Box<dyn Any>>) {
    VALUES.with(|values| {
        let mut values = values.borrow_mut();
        match value {
            Some(value) => values.by_id.insert(id, Some(value)),
            None => values.by_id.remove(&id),
        };
    });
}

/// Drops this worker's value of a worker local whose handles are gone.
pub(super) fn drop_one(pool: &PoolInner, id: LocalId) {
    let removed = VALUES.try_with(|values| values.borrow_mut().by_id.remove(&id));
    if let Ok(Some(Some(value))) = removed {
        discard(&pool.executor, value);
    }
}

/// Drops all values of this worker, which is leaving. It makes none from now on.
pub(super) fn drop_all(pool: &PoolInner) {
    let all = VALUES.try_with(|values| {
        let mut values = values.borrow_mut();
        values.is_closed = true;
        std::mem::take(&mut values.by_id)
    });
    for value in all.into_iter().flat_map(BTreeMap::into_values).flatten() {
        discard(&pool.executor, value);
    }
}

/// Drops a value inside the pool, and contains and counts a panic of its destructor. The destructor
/// may drop further worker locals; see rule 2 of `nesting`.
pub(super) fn discard(executor: &Arc<Executor>, value: Box<dyn Any>) {
    let own = Arc::clone(executor);
    nesting::call_back(move || {
        own.enter(GroupId::NONE, |_| {
            if !unwind::discard(value) {
                own.tracker.count_hook_panic();
            }
        });
    });
}
