//! The outcomes of a group, one by one, as they come.

use std::fmt;
use std::iter::FusedIterator;

use super::result::TaskResult;
use super::state::{GroupInner, Outcome, WouldDeadlock};
use crate::sync::Arc;

/// Yields each task of a group when it has ended: its index in spawn order, and its outcome. From
/// [`TaskGroup::completions`](crate::TaskGroup::completions).
///
/// `next` blocks until a task has ended; it ends when every task that was spawned has been yielded. On a worker of the
/// pool it helps.
///
/// # Panics
///
/// `next` panics where a wait would answer [`GroupError::WouldDeadlock`](crate::GroupError::WouldDeadlock): in a task
/// of the group itself, and when it would have to help more than 64 tasks deep.
#[must_use = "iterators are lazy"]
pub struct Completions<'a, R: TaskResult> {
    inner: &'a Arc<GroupInner<R>>,
    /// Whether every task had been yielded. A spawner may add more later, for another iterator to yield.
    is_over: bool,
}

impl<'a, R: TaskResult> Completions<'a, R> {
    pub(super) fn new(inner: &'a Arc<GroupInner<R>>) -> Self {
        Self { inner, is_over: false }
    }
}

impl<R: TaskResult> Iterator for Completions<'_, R> {
    type Item = (usize, Outcome<R>);

    #[track_caller]
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.inner.next_completion() {
            Ok(next) => {
                self.is_over = next.is_none();
                next
            }
            Err(WouldDeadlock) => panic!("a task cannot wait for its own group, nor help more than 64 tasks deep"),
        }
    }
}

impl<R: TaskResult> FusedIterator for Completions<'_, R> {}

impl<R: TaskResult> fmt::Debug for Completions<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").field("progress", &self.inner.progress()).finish()
    }
}
