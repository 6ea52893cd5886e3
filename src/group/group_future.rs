//! The common part of the futures that own a group and wait for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::poll::GroupWait;
use super::result::TaskResult;
use super::state::WouldDeadlock;
use super::task_group::TaskGroup;
use crate::error::GroupError;
use crate::unwind;

/// A future that owns a group, waits for it by `poll`, and drops the group when it is ready.
pub(super) struct GroupFuture<R: TaskResult, P> {
    /// The wait; `None` if it was never polled. Dropped before the group, which would wake it.
    wait: Option<GroupWait<R>>,
    /// The group; `None` once the future was ready.
    pub(super) group: Option<TaskGroup<R>>,
    poll: P,
}

impl<R: TaskResult, P> GroupFuture<R, P> {
    /// Returns a future that waits for the group, and notes that the group is waited for.
    pub(super) fn new<T>(mut group: TaskGroup<R>, poll: P) -> Self
    where
        P: FnMut(&mut GroupWait<R>, &Context<'_>) -> Poll<T>,
    {
        group.waits();
        Self { wait: None, group: Some(group), poll }
    }

    pub(super) fn poll_group<T>(&mut self, context: &mut Context<'_>) -> Poll<T>
    where
        P: FnMut(&mut GroupWait<R>, &Context<'_>) -> Poll<T>,
    {
        let Self { group, wait, poll } = self;
        let Some(waited) = group else { return Poll::Pending };
        let polled = poll(wait.get_or_insert_with(|| GroupWait::new(waited.inner())), context);
        if polled.is_ready() {
            *wait = None;
            *group = None;
        }
        polled
    }
}

impl<R: TaskResult, T, P: FnMut(&mut GroupWait<R>, &Context<'_>) -> Poll<T>> Future for GroupFuture<R, P> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.poll_group(context)
    }
}

// No field is ever pinned.
impl<R: TaskResult, P> Unpin for GroupFuture<R, P> {}

unwind::safe!(GroupFuture<R, P>, R: TaskResult, P);

/// Returns the error of a wait that would never end.
pub(super) fn refused<T, E>(error: WouldDeadlock) -> Result<T, GroupError<E>> {
    Err(error.into())
}
