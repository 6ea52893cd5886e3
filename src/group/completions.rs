//! An iterator over the outcomes of a group, in the order in which tasks end.

use std::fmt;
use std::iter::FusedIterator;

use super::body::Outcome;
use super::poll::GroupWait;
use super::result::TaskResult;
use super::state::{GroupInner, WouldDeadlock};
use crate::sync::Arc;

/// An iterator over the outcomes of a group, each with the index of its task in spawn order. From
/// [`TaskGroup::completions`](crate::TaskGroup::completions).
///
/// `next` blocks until a task has ended, and returns `None` when every task that was spawned has
/// been yielded. On a worker of the pool it helps.
///
/// # Panics
///
/// `next` panics if a wait would return
/// [`GroupError::WouldDeadlock`](crate::GroupError::WouldDeadlock): in a task of the group itself,
/// and if it would have to help more than 64 tasks deep.
#[must_use = "iterators are lazy"]
pub struct Completions<'a, R: TaskResult> {
    /// The group.
    pub(super) inner: &'a Arc<GroupInner<R>>,
    /// Whether every task has been yielded. A spawner may add more later, which another iterator
    /// yields.
    pub(super) is_over: bool,
    /// The wait of `poll_next`; `None` if it was never polled.
    pub(super) wait: Option<GroupWait<R>>,
}

impl<'a, R: TaskResult> Completions<'a, R> {
    pub(super) fn new(inner: &'a Arc<GroupInner<R>>) -> Self {
        Self { inner, is_over: false, wait: None }
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
