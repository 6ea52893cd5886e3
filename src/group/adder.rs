//! The references through which tasks are added to a group without its owner.

use std::ops::Deref;

use super::result::TaskResult;
use super::state::GroupInner;
use crate::sync::{Arc, Ordering};

/// A reference to a group that may add tasks. Counted, because a wait for any task of the group may
/// end through it.
pub(super) struct Adder<R: TaskResult>(Arc<GroupInner<R>>);

impl<R: TaskResult> Adder<R> {
    pub(super) fn new(group: Arc<GroupInner<R>>) -> Self {
        // ORDERING: Relaxed; see `GroupInner::may_grow`.
        group.adders.fetch_add(1, Ordering::Relaxed);
        Self(group)
    }
}

impl<R: TaskResult> Clone for Adder<R> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl<R: TaskResult> Deref for Adder<R> {
    type Target = Arc<GroupInner<R>>;

    fn deref(&self) -> &Arc<GroupInner<R>> {
        &self.0
    }
}

impl<R: TaskResult> Drop for Adder<R> {
    fn drop(&mut self) {
        // ORDERING: Relaxed; a waiter that has not seen the change sleeps before the lock is taken
        // here.
        if self.0.adders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.wake_any_waiters();
        }
    }
}
