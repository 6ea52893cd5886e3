//! A handle that adds tasks to a group from elsewhere, such as from its own tasks.

use std::fmt;
use std::panic::Location;

use super::adder::Adder;
use super::body::Body;
use super::result::TaskResult;
use super::settings::Progress;
use super::state::GroupInner;
use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, Refuser, TrySubmitError};
use crate::sync::Arc;
use crate::unwind;

/// A handle that adds tasks to a [`TaskGroup`](crate::TaskGroup), from any thread and from the
/// group's own tasks.
///
/// A spawner does not keep the group open: once the group has been waited for, cancelled or
/// dropped, a closure that is spawned is dropped unrun. The exception is a spawner that
/// [owns](crate::TaskGroup::into_spawner) its group.
///
/// # Examples
///
/// ```
/// use workcrew::{Spawner, WorkerPool};
///
/// /// Counts a tree of depth `depth`, each node a task.
/// fn grow(spawner: &Spawner<()>, depth: u32) {
///     if depth > 0 {
///         for _ in 0..2 {
///             let siblings = spawner.clone();
///             spawner.spawn(move || grow(&siblings, depth - 1));
///         }
///     }
/// }
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let group = pool.group();
/// grow(&group.spawner(), 4);
/// assert_eq!(group.wait()?.len(), 2 + 4 + 8 + 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Spawner<R: TaskResult> {
    inner: Adder<R>,
    /// The owner of the group, if the group was turned into a spawner. Never used, only dropped.
    owner: Option<Arc<Owner<R>>>,
}

/// Cancels a group when its last spawner is dropped.
struct Owner<R: TaskResult>(Arc<GroupInner<R>>);

impl<R: TaskResult> Drop for Owner<R> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl<R: TaskResult> Spawner<R> {
    pub(super) fn new(inner: Arc<GroupInner<R>>) -> Self {
        Self { inner: Adder::new(inner), owner: None }
    }

    /// Creates a spawner that, with its clones, owns the group.
    pub(super) fn owning(inner: Arc<GroupInner<R>>) -> Self {
        let owner = Some(Arc::new(Owner(Arc::clone(&inner))));
        Self { inner: Adder::new(inner), owner }
    }

    /// Returns the inside of the group.
    pub(crate) fn inner(&self) -> &Arc<GroupInner<R>> {
        &self.inner
    }

    /// Adds a task; see [`TaskGroup::spawn`](crate::TaskGroup::spawn).
    #[track_caller]
    pub fn spawn<F>(&self, f: F)
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let _ = self.inner.spawn(|_| Body::once(f), Location::caller());
    }

    /// Adds a task if there is room now; see [`TaskGroup::try_spawn`](crate::TaskGroup::try_spawn).
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if the group is full or closed.
    #[track_caller]
    pub fn try_spawn<F>(&self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let location = Location::caller();
        self.inner.try_spawn(f, |f, _| Body::once(f), location).map_err(TrySubmitError::by(Refuser::Group))
    }

    /// Returns the token of the group.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.inner.token()
    }

    /// Cancels the group; see [`TaskGroup::cancel`](crate::TaskGroup::cancel). A task of the group
    /// may call this to end its siblings, and returns as usual.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let group = pool.group().limit(1);
    /// let spawner = group.spawner();
    /// group.spawn(move || {
    ///     spawner.cancel(); // the answer has been found
    ///     Ok::<_, String>(42)
    /// });
    /// let (values, _) = group.wait_partial();
    /// assert_eq!(values, [42]);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn cancel(&self) {
        self.inner.close(CancelReason::Requested);
    }

    /// Returns `true` if the group was cancelled, for any reason. `true` is final.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled()
    }

    /// Returns how many tasks were spawned and how many are done. May be stale when it returns.
    ///
    /// Use it to show progress while another thread waits for the group, because a wait consumes
    /// the group.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.inner.progress()
    }
}

impl<R: TaskResult> Clone for Spawner<R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), owner: self.owner.clone() }
    }
}

unwind::safe!(Spawner<R>, R: TaskResult);

impl<R: TaskResult> fmt::Debug for Spawner<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").field("progress", &self.inner.progress()).finish()
    }
}
