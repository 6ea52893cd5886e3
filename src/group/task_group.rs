//! The public face of a group: settings, spawning and waiting.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::body::{Body, Outcome};
use super::result::TaskResult;
use super::settings::{GroupPolicy, GroupSettings, Progress};
use super::state::GroupInner;
use super::unwaited::Unwaited;
use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, Cycle, GroupError, Refuser, TrySubmitError};
use crate::pool::inner::PoolInner;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::{Arc, OnceLock};
use crate::task::waits::Kind;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A group of tasks that are waited for together and cancelled together. Returned by
/// [`WorkerPool::group`].
///
/// By default the first task that fails or panics cancels the group; see [`policy`](Self::policy).
/// Tasks that have not started by then never start, and their closures are dropped at once. Running
/// tasks can see the cancellation in the [token](Self::token). [`wait`](Self::wait) returns the
/// first error when all tasks that ran have ended.
///
/// Dropping a group without waiting cancels it, and does not block. Async code can await a group
/// instead of waiting for it: see [`WaitForGroup`](crate::WaitForGroup).
///
/// A group keeps each value and each error until it is waited for. If no thread will wait, turn it
/// [into a spawner](Self::into_spawner).
///
/// # Groups that are dropped by mistake
///
/// The drop of a group without a wait cancels tasks silently. An early return by `?` between
/// `spawn` and `wait` is such a drop. So debug builds write a line to stderr, with the label and
/// the place where the group was made, once for each of the first 16 such places.
///
/// Nothing is written in these cases:
/// - The drop cancels no task, or the group was cancelled before, by [`cancel`](Self::cancel) or
///   otherwise.
/// - A wait, a future or an iterator over the [completions](Self::completions) has begun.
/// - A panic drops the group.
///
/// # What tasks return
///
/// All tasks of a group return one type, `()` or a `Result`. A task that has a value and cannot
/// fail returns `Ok::<_, Infallible>(value)`. If closures use `?`, the compiler cannot infer their
/// error type. Name it once: `pool.group::<Result<_, io::Error>>()`.
///
/// A task that stops because of the token should return `Ok`: an `Err` is a failure like any other,
/// and becomes the first error if nothing has failed before.
///
/// # What waits return
///
/// | | [`FailFast`](GroupPolicy::FailFast) | [`CollectAll`](GroupPolicy::CollectAll) | [`FirstSuccess`](GroupPolicy::FirstSuccess) |
/// |---|---|---|---|
/// | [`wait`](Self::wait) | all values, or the first error, which cancelled the rest | all values, or the first error, after all have run | the values of those that succeeded; the first error if none did |
/// | [`wait_partial`](Self::wait_partial) | the values of those that succeeded, and the error of `wait` | the same | the same |
/// | [`wait_all`](Self::wait_all) | every outcome; the rest is cancelled | every outcome | every outcome; the rest is cancelled |
/// | [`wait_any`](Self::wait_any) | the first value; the first error if there is none | the same | the same |
/// | [`wait_any_or_errors`](Self::wait_any_or_errors) | the first value; every error if there is none | the same | the same |
///
/// A panic names its task. To learn which task has failed, call
/// [`wait_with_task`](Self::wait_with_task), which returns the same as `wait`, and the task with
/// the error.
///
/// # The values at a deadline
///
/// A group that is cancelled, for example at its [deadline](Self::deadline), keeps the values of
/// the tasks that have ended. `wait` drops them and returns [`GroupError::Cancelled`].
/// [`wait_partial`](Self::wait_partial) returns them with that error, and
/// [`wait_all`](Self::wait_all) returns each in the place of its task. `wait_timeout` cancels
/// nothing, and returns the group for another wait.
///
/// # Settings
///
/// Settings must be made before the first task. `limit`, `capacity`, `policy`, `deadline`,
/// `timeout`, `parent`, `label` and `priority` panic once the group has *started*: it has spawned a
/// task, or has returned its token or a spawner.
///
/// # Waiting on a worker
///
/// A task may make a group on its own pool and wait for it. The waiting worker runs tasks of that
/// group, and other tasks only if the group cannot end without them. A task that waits for its own
/// group gets [`GroupError::WouldDeadlock`]. So does a wait that is nested more than 64 tasks deep
/// on one stack, and a wait that closes a circle of waits.
///
/// # Examples
///
/// ```
/// use workcrew::{GroupError, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(4).build()?;
///
/// let group = pool.group();
/// for number in ["1", "2", "3"] {
///     group.spawn(move || number.parse::<u32>());
/// }
/// assert_eq!(group.wait()?, [1, 2, 3]); // in the order of spawning
///
/// let group = pool.group();
/// for number in ["1", "two", "3"] {
///     group.spawn(move || number.parse::<u32>());
/// }
/// assert!(matches!(group.wait(), Err(GroupError::Failed(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a group cancels it"]
pub struct TaskGroup<R: TaskResult> {
    /// The pool whose workers run the tasks.
    pool: Arc<PoolInner>,
    /// What the setters have set so far.
    settings: GroupSettings,
    /// Made on first use. The settings are final from then on.
    pub(super) inner: OnceLock<Arc<GroupInner<R>>>,
    /// Warns in debug builds if the group is dropped without a wait.
    unwaited: Unwaited,
}

impl<R: TaskResult> TaskGroup<R> {
    #[track_caller]
    fn new(pool: Arc<PoolInner>) -> Self {
        let settings = GroupSettings::new(&pool);
        Self { pool, settings, inner: OnceLock::new(), unwaited: Unwaited::new() }
    }

    /// Sets how many tasks may run at once. Zero counts as one. *Default: as many as there are
    /// workers.*
    ///
    /// A task that another task of the group runs inline does not count; see
    /// [`spawn`](Self::spawn).
    ///
    /// A limit works like a semaphore. A task that spawns on *another* group waits while that group
    /// is full and at its limit, even on a worker. So two groups with limits, whose tasks spawn on
    /// each other, may wait for each other forever. With the default limit this cannot happen.
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn limit(self, tasks: usize) -> Self {
        self.set(|settings| settings.limit = tasks)
    }

    /// Sets how many tasks that have not started the group holds. At that number `spawn` blocks.
    /// Zero counts as one. *Default: the capacity of the pool's queue.*
    ///
    /// A task of the group that spawns into the full group does not block, because it may be the
    /// one that has to make room. It runs the new task inline, up to 16 deep, and adds it beyond
    /// the capacity from there on. A task that a task of the group waits for also adds beyond the
    /// capacity, if there is no other way.
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn capacity(self, tasks: usize) -> Self {
        self.set(|settings| settings.capacity = tasks)
    }

    /// Sets when the group cancels its remaining tasks. *Default: at the first failure.*
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn policy(self, policy: GroupPolicy) -> Self {
        self.set(|settings| settings.policy = policy)
    }

    /// Cancels the group when `token` is cancelled.
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn parent(self, token: &CancellationToken) -> Self {
        self.set(|settings| settings.parent = Some(token.clone()))
    }

    /// Names the group's tasks for observers and [`WorkerPool::running`].
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn label(self, label: impl Into<Arc<str>>) -> Self {
        self.set(|settings| settings.label = Some(label.into()))
    }

    /// Sets the class of the group's tasks, which take no room in the queue of the class. *Default:
    /// [`Priority::Normal`].*
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn priority(self, priority: Priority) -> Self {
        self.set(|settings| settings.priority = priority)
    }

    /// Adds a task. Blocks while the group is at [capacity](Self::capacity).
    ///
    /// Two compile errors have a remedy that the compiler does not name:
    /// - A task that uses its own `group` gets "closure may outlive", or with `move` "cannot move
    ///   out of `group`". Move a [`spawner`](Self::spawner) into the task.
    /// - "Type annotations needed" means that no task says which error it returns. Name it once, as
    ///   in `pool.group::<Result<_, std::io::Error>>()`.
    ///
    /// If the group is cancelled or the pool is shut down, the closure is dropped unrun and the
    /// outcome of the task is a cancellation. The pool's metrics count the task as cancelled in the
    /// first case, and as refused in the second.
    ///
    /// A worker of the pool makes room by itself:
    /// - A task of the group that adds to the full group runs the new task inline. If tasks are
    ///   nested 16 deep on that worker, it adds the task beyond the capacity instead.
    /// - Any other worker runs tasks of the group until there is room.
    ///
    /// This method may block or run tasks inline: hold no [lock](crate#locks-and-submissions) that
    /// tasks take.
    #[track_caller]
    pub fn spawn<F>(&self, f: F)
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let _ = self.inner().spawn(|_| Body::once(f), Location::caller());
    }

    /// Adds a task if there is room now. Never blocks, and never runs a task inline.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure: `Full` if the group is at capacity, `ShutDown` if the
    /// group is cancelled or the pool shut down.
    #[track_caller]
    pub fn try_spawn<F>(&self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let added = self.inner().try_spawn(f, |f, _| Body::once(f), Location::caller());
        added.map_err(TrySubmitError::by(Refuser::Group))
    }

    /// Adds a task for each closure. Blocks while the group is at [capacity](Self::capacity), and
    /// while the source blocks.
    ///
    /// Behaves like [`spawn`](Self::spawn) for each closure, also with regard to locks. The calling
    /// thread takes a closure, and then waits for room. Once the group is cancelled or the pool is
    /// shut down, it takes no more closures. [`wait`](Self::wait) then returns an error even if
    /// every task that was added has succeeded. The exception is [`GroupPolicy::FirstSuccess`],
    /// where a success ends the group.
    ///
    /// The source may wait for tasks of the group. So a worker of the pool first runs the tasks
    /// that have not started, if no other worker is free and the source
    /// [promises](Iterator::size_hint) no further closure. A `next` that blocks is not interrupted.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let group = pool.group();
    /// // The source is endless; the first error ends it.
    /// group.spawn_all((0..).map(|n| move || if n == 7 { Err(n) } else { Ok(n) }));
    /// assert_eq!(group.wait().unwrap_err().to_string(), "7");
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn spawn_all<F>(&self, closures: impl IntoIterator<Item = F>)
    where
        F: FnOnce() -> R + Send + 'static,
    {
        self.inner().spawn_all(closures.into_iter(), Location::caller());
    }

    /// Returns the token that is cancelled with the group, for tasks to check. Cancelling the token
    /// cancels the group.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.inner().token()
    }

    /// Cancels the group. Tasks that have not started never start, and their closures are dropped
    /// before this returns. Running tasks can see the cancellation in the token.
    ///
    /// A second call is without effect, and may return before the first has dropped every closure.
    pub fn cancel(&self) {
        self.inner().close(CancelReason::Requested);
    }

    /// Returns `true` if the group was cancelled, for any reason. `true` is final.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner().is_cancelled()
    }

    /// Returns how many tasks were spawned and how many are done. May be stale when it returns.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.inner().progress()
    }

    /// Blocks until every task is done, and returns the values in the order of spawning. Returns at
    /// once if the group has no tasks.
    ///
    /// With [`GroupPolicy::FirstSuccess`] these are the values of the tasks that succeeded, and
    /// there is an error only if none did.
    ///
    /// # Errors
    ///
    /// The first failure or panic by time, or else [`GroupError::Cancelled`] if a task was
    /// cancelled.
    ///
    /// [`GroupError::WouldDeadlock`] if a task of the group itself waits, and in the other cases
    /// [above](Self#waiting-on-a-worker). The group is then cancelled.
    pub fn wait(mut self) -> Result<Vec<R::Value>, GroupError<R::Error>> {
        match self.waits().wait_values(Deadline::NEVER, Kind::Certain) {
            Ok(Some(values)) => values,
            Ok(None) => Err(GroupError::WouldDeadlock(Cycle::default())),
            Err(error) => Err(error.into()),
        }
    }

    /// Like [`wait`](Self::wait), but blocks for at most `timeout`. `Duration::MAX` waits forever.
    ///
    /// A worker of the pool runs no tasks of the group meanwhile, because one of them could take
    /// longer than the timeout. With `Duration::MAX` it does.
    ///
    /// # Errors
    ///
    /// The group itself, if not all tasks were done in time. The inner result is that of `wait`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let group = pool.group();
    /// group.spawn(|| Ok::<_, String>(1));
    /// match group.wait_timeout(Duration::from_secs(60)) {
    ///     Ok(ended) => assert_eq!(ended.unwrap(), [1]),
    ///     Err(group) => group.cancel(), // it is not done
    /// }
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[allow(clippy::type_complexity, reason = "the outer result is about the time, the inner one is that of `wait`")]
    #[cfg_attr(workcrew_model, allow(clippy::result_large_err, reason = "a model's types are larger"))]
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<Vec<R::Value>, GroupError<R::Error>>, Self> {
        match self.waits().wait_values(Deadline::after(timeout), Kind::Certain) {
            Ok(Some(values)) => Ok(values),
            Ok(None) => Err(self),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Blocks until every task is done, and returns every outcome in the order of spawning. With
    /// [`GroupPolicy::CollectAll`] all tasks run.
    ///
    /// # Panics
    ///
    /// In the cases in which [`wait`](Self::wait) returns [`GroupError::WouldDeadlock`].
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{GroupPolicy, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let group = pool.group().policy(GroupPolicy::CollectAll);
    /// group.spawn_all(["1", "two", "3"].map(|text| move || text.parse::<u32>()));
    /// let outcomes = group.wait_all();
    /// assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok());
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[must_use]
    #[track_caller]
    pub fn wait_all(mut self) -> Vec<Outcome<R>> {
        match self.waits().wait_outcomes() {
            Ok(outcomes) => outcomes,
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns the shared state. Makes it on first use.
    pub(crate) fn inner(&self) -> &Arc<GroupInner<R>> {
        self.inner.get_or_init(|| GroupInner::new(Arc::clone(&self.pool), self.settings.clone()))
    }

    /// Returns the shared state for a wait, and notes that the group is waited for.
    pub(super) fn waits(&mut self) -> &Arc<GroupInner<R>> {
        self.unwaited.note_wait();
        self.inner()
    }

    /// Changes a setting. Panics if the settings are final.
    #[track_caller]
    pub(super) fn set(mut self, change: impl FnOnce(&mut GroupSettings)) -> Self {
        assert!(
            self.inner.get().is_none(),
            "the settings of a group are made before its first task, and before it returns its token or a spawner"
        );
        change(&mut self.settings);
        self
    }
}

impl<R: TaskResult> Drop for TaskGroup<R> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.get() {
            let unstarted = inner.abandon();
            self.unwaited.report(self.settings.label.as_deref(), unstarted);
        }
    }
}

impl<R: TaskResult, F: FnOnce() -> R + Send + 'static> Extend<F> for TaskGroup<R> {
    /// Adds a task for each closure, as [`spawn_all`](TaskGroup::spawn_all) does.
    #[track_caller]
    fn extend<I: IntoIterator<Item = F>>(&mut self, closures: I) {
        self.spawn_all(closures);
    }
}

unwind::safe!(TaskGroup<R>, R: TaskResult);

impl<R: TaskResult> fmt::Debug for TaskGroup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.inner.get().map(|inner| inner.progress()).unwrap_or_default();
        f.debug_struct("TaskGroup")
            .field("label", &self.settings.label)
            .field("policy", &self.settings.policy)
            .field("progress", &progress)
            .finish_non_exhaustive()
    }
}

/// # Groups
impl WorkerPool {
    /// Returns a new group of tasks on this pool. Its closures return `()` or a `Result`; the
    /// compiler infers the type from the first `spawn`.
    #[track_caller]
    pub fn group<R: TaskResult>(&self) -> TaskGroup<R> {
        TaskGroup::new(Arc::clone(self.inner()))
    }
}
