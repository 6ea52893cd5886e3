//! A group as its owner sees it.

use std::borrow::Cow;
use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::completions::Completions;
use super::result::TaskResult;
use super::settings::{GroupPolicy, GroupSettings, Progress};
use super::spawner::Spawner;
use super::state::{Ended, GroupInner, WouldDeadlock};
use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, GroupError, TrySubmitError};
use crate::pool::inner::PoolInner;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, OnceLock};
use crate::task::closure::Closure;
use crate::task::waits::Kind;
use crate::time::deadline::Deadline;

/// Tasks with one fate: wait for all of them, and let the first error cancel the rest. From [`WorkerPool::group`].
///
/// Unless the [policy](Self::policy) says otherwise, the first task that fails or panics cancels the group: tasks that
/// have not started never do and their closures are dropped at once, tasks that run can see it in the
/// [token](Self::token), and [`wait`](Self::wait) returns that first error when all that ran have ended.
///
/// Dropping a group without waiting cancels it and does not block.
///
/// # What tasks return
///
/// All tasks of a group return one type, `()` or a `Result`. A task that has a value and cannot fail returns
/// `Ok::<_, Infallible>(value)`. A task that stops because the token tells it to had better return `Ok`: an `Err` is a
/// failure like any other, and if nothing has failed before, it is the first.
///
/// # What waits return
///
/// | | [`FailFast`](GroupPolicy::FailFast) | [`CollectAll`](GroupPolicy::CollectAll) | [`FirstSuccess`](GroupPolicy::FirstSuccess) |
/// |---|---|---|---|
/// | [`wait`](Self::wait) | all values, or the first error, which cancelled the rest | all values, or the first error, after all have run | the values of those that succeeded; the first error if none did |
/// | [`wait_all`](Self::wait_all) | every outcome; the rest is cancelled | every outcome | every outcome; the rest is cancelled |
/// | [`wait_any`](Self::wait_any) | the first value; or the first error, if it came before | the first value; the first error if there is none | the first value; the first error if there is none |
///
/// # Settings
///
/// The settings are made before the first task: `limit`, `capacity`, `policy`, `deadline`, `parent` and `label` panic
/// once the group has spawned, or has given out its token or a spawner.
///
/// # Waiting on a worker
///
/// A task may make a group of its own pool and wait for it: the waiting worker runs tasks of that group, and of nothing
/// else. A task that waits for the group it belongs to gets [`GroupError::WouldDeadlock`]; so do waits nested more than
/// 64 tasks deep on one stack.
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
    engine: Arc<PoolInner>,
    settings: GroupSettings,
    /// The inside, made when it is first needed: the settings are final then.
    core: OnceLock<Arc<GroupInner<R>>>,
}

impl<R: TaskResult> TaskGroup<R> {
    fn new(engine: Arc<PoolInner>) -> Self {
        let settings = GroupSettings::new(&engine);
        Self { engine, settings, core: OnceLock::new() }
    }

    /// Runs at most so many tasks at once. Unless set, as many as there are workers.
    ///
    /// A task that another task of the group runs in its own place (see [`spawn`](Self::spawn)) does not count. With a
    /// limit of zero nothing can run: `try_spawn` finds the group full, and `wait` answers
    /// [`GroupError::WouldDeadlock`] if something was spawned.
    ///
    /// Groups with limits are like semaphores: a task that adds to a full group whose limit is reached waits for it, on a
    /// worker too, and two groups with limits whose tasks fill each other may wait for each other for ever. The default
    /// limit cannot do that.
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn limit(self, tasks: usize) -> Self {
        self.set(|settings| settings.limit = tasks)
    }

    /// Holds at most so many tasks that have not started; then `spawn` waits. Unless set, the capacity of the pool's
    /// queue. Zero is like a [limit](Self::limit) of zero.
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn capacity(self, tasks: usize) -> Self {
        self.set(|settings| settings.capacity = tasks)
    }

    /// When the group cancels the tasks that are left. Unless set, at the first failure.
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn policy(self, policy: GroupPolicy) -> Self {
        self.set(|settings| settings.policy = policy)
    }

    /// Cancels the group, with [`CancelReason::Expired`], when the moment has come. The earliest of several counts.
    ///
    /// No thread watches the clock: who waits for the group, or is about to start one of its tasks, finds that the time
    /// has come. The wait then says [`GroupError::Cancelled`] if nothing had failed before; a task that heeds the time by
    /// `token.check()?` fails by that, so ask the [token's](Self::token) [`reason`](CancellationToken::reason) if you need to
    /// tell them apart.
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn deadline(self, deadline: Instant) -> Self {
        self.set(|settings| {
            settings.deadline = Some(settings.deadline.map_or(deadline, |other| other.min(deadline)));
        })
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
    pub fn label(self, label: impl Into<Cow<'static, str>>) -> Self {
        self.set(|settings| settings.label = Some(Arc::from(&*label.into())))
    }

    /// Adds a task. Blocks while the group is at [capacity](Self::capacity). A task of the group that adds siblings needs a
    /// [`spawner`](Self::spawner).
    ///
    /// If the group has been cancelled, or the pool shut down, the closure is dropped unrun and the task counts as
    /// cancelled.
    ///
    /// On a worker of the pool it makes room by itself: a task of the group that adds to the full group runs the new
    /// task at once, in its own place (or adds it beyond the capacity, when tasks are nested 16 deep on that
    /// worker); any other worker runs tasks of the group until there is room.
    ///
    /// May wait or run tasks in place: hold no [lock](crate#may-i-hold-a-lock-while-i-submit) that tasks take.
    #[track_caller]
    pub fn spawn<F>(&self, f: F)
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let _ = self.core().add(|| Closure::new(f), Location::caller());
    }

    /// Adds a task if there is room now. Never blocks, and never runs a task in place.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure: `Full` if the group is at capacity, `ShutDown` if it was cancelled or the
    /// pool shut down.
    #[track_caller]
    pub fn try_spawn<F>(&self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let location = Location::caller();
        self.core().try_add(f, Closure::new, location).map_err(|(refusal, f)| TrySubmitError::new(refusal, f))
    }

    /// Adds a task for each closure. Blocks while the group is at [capacity](Self::capacity), and while the source does.
    ///
    /// Like [`spawn`](Self::spawn) for each closure, also as to locks. A closure is taken on the calling thread, and then
    /// waits there for room. Once the group was cancelled, or
    /// the pool shut down, no further closure is taken. [`wait`](Self::wait) then returns an error also if every task
    /// that was added has succeeded, so that it does not mistake the part for the whole; but not by
    /// [`GroupPolicy::FirstSuccess`], where success is what ends the group.
    ///
    /// The source may wait for tasks of the group. On a worker of the pool this first runs the tasks that have not
    /// started, if no other worker is free and the source [promises](Iterator::size_hint) no further closure.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let group = pool.group();
    /// group.spawn_all((0..).map(|n| move || if n == 7 { Err(n) } else { Ok(n) })); // ends at the first error
    /// assert_eq!(group.wait().unwrap_err().to_string(), "7");
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn spawn_all<F>(&self, closures: impl IntoIterator<Item = F>)
    where
        F: FnOnce() -> R + Send + 'static,
    {
        self.core().add_all(closures.into_iter(), Location::caller());
    }

    /// Something that adds tasks from elsewhere, also from the group's own tasks.
    #[must_use]
    pub fn spawner(&self) -> Spawner<R> {
        Spawner::new(Arc::clone(self.core()))
    }

    /// The token that is cancelled with the group, for tasks to look at; cancelling it cancels the group.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.core().token()
    }

    /// Cancels the group: tasks that have not started never do, and their closures are dropped before this returns;
    /// running tasks can see it in the token. Cancelling twice does nothing; the second call may return before the first has
    /// dropped every closure.
    pub fn cancel(&self) {
        self.core().close(CancelReason::Requested);
    }

    /// Whether the group was cancelled, by whatever cause. `true` is final.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.core().is_cancelled()
    }

    /// How many tasks were spawned and how many of them have met their fate; out of date when it arrives.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.core().progress()
    }

    /// Blocks until every task has met its fate and returns the values in the order of spawning. A group without tasks
    /// returns at once.
    ///
    /// With [`GroupPolicy::FirstSuccess`] these are the values of the tasks that did succeed.
    ///
    /// # Errors
    ///
    /// The first failure or panic, by time. Else [`GroupError::Cancelled`], if a task was cancelled.
    /// [`GroupError::WouldDeadlock`], if a task of the group itself waits, and in the cases
    /// [above](Self#waiting-on-a-worker); the group is cancelled then.
    pub fn wait(self) -> Result<Vec<R::Value>, GroupError<R::Error>> {
        match self.core().wait_values(Deadline::NEVER, Kind::Certain) {
            Ok(Some(values)) => values,
            Ok(None) | Err(WouldDeadlock) => Err(GroupError::WouldDeadlock),
        }
    }

    /// Like [`wait`](Self::wait), but blocks at most `timeout`, and then gives the group back. `Duration::MAX` waits
    /// for ever. On a worker it does not help, unless the wait is for ever: a task run on the way could take longer
    /// than the timeout.
    ///
    /// # Errors
    ///
    /// The group itself, if it was not done in time.
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
    #[allow(
        clippy::type_complexity,
        reason = "the outer result says whether it was in time, the inner one is `wait`'s"
    )]
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<Vec<R::Value>, GroupError<R::Error>>, Self> {
        match self.core().wait_values(Deadline::after(timeout), Kind::Certain) {
            Ok(Some(values)) => Ok(values),
            Ok(None) => Err(self),
            Err(WouldDeadlock) => Ok(Err(GroupError::WouldDeadlock)),
        }
    }

    /// Blocks until every task has met its fate and returns every outcome in the order of spawning. With
    /// [`GroupPolicy::CollectAll`] all tasks run.
    ///
    /// # Panics
    ///
    /// Where [`wait`](Self::wait) would answer [`GroupError::WouldDeadlock`], which has no place in the list.
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
    pub fn wait_all(self) -> Vec<Ended<R>> {
        match self.core().wait_outcomes() {
            Ok(outcomes) => outcomes,
            Err(WouldDeadlock) => panic!("a task cannot wait for its own group, nor help more than 64 tasks deep"),
        }
    }

    /// Yields each outcome as it comes, with the task's index in spawn order. Outcomes that were yielded are not
    /// returned again by a wait, and take no memory any more. Those that wait to be yielded do: the
    /// [capacity](Self::capacity) is about tasks that have not started. What holds its source back until results are taken is
    /// [`map`](crate::WorkerPool::map).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let mut group = pool.group();
    /// group.spawn_all((0..10).map(|n| move || Ok::<_, String>(n * n)));
    /// for (index, outcome) in group.completions() {
    ///     assert_eq!(outcome.unwrap(), index * index);
    /// }
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn completions(&mut self) -> Completions<'_, R> {
        Completions::new(self.core())
    }

    /// Blocks until a task succeeds, and returns its value; the rest is cancelled at that moment. It does not wait for tasks
    /// that are still running, but for one that this worker, helping, has begun itself.
    ///
    /// # Errors
    ///
    /// If no task succeeded, or by [`GroupPolicy::FailFast`] none before: the first failure or panic, else the cancellation. [`GroupError::WouldDeadlock`] also for
    /// a group without tasks.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{GroupPolicy, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let mirrors = pool.group().policy(GroupPolicy::FirstSuccess);
    /// mirrors.spawn(|| Err("unreachable"));
    /// mirrors.spawn(|| Ok("the page"));
    /// assert_eq!(mirrors.wait_any().unwrap(), "the page");
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn wait_any(self) -> Result<R::Value, GroupError<R::Error>> {
        self.core().wait_first()
    }

    fn core(&self) -> &Arc<GroupInner<R>> {
        self.core.get_or_init(|| GroupInner::new(Arc::clone(&self.engine), self.settings.clone()))
    }

    #[track_caller]
    fn set(mut self, change: impl FnOnce(&mut GroupSettings)) -> Self {
        assert!(
            self.core.get().is_none(),
            "the settings of a group are made before its first task, and before it gives out its token or a spawner"
        );
        change(&mut self.settings);
        self
    }
}

impl<R: TaskResult> Drop for TaskGroup<R> {
    fn drop(&mut self) {
        if let Some(core) = self.core.get() {
            core.abandon();
        }
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl<R: TaskResult> UnwindSafe for TaskGroup<R> {}
impl<R: TaskResult> RefUnwindSafe for TaskGroup<R> {}

impl<R: TaskResult> fmt::Debug for TaskGroup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.core.get().map(|core| core.progress()).unwrap_or_default();
        f.debug_struct("TaskGroup")
            .field("label", &self.settings.label)
            .field("policy", &self.settings.policy)
            .field("progress", &progress)
            .finish_non_exhaustive()
    }
}

/// # Groups
impl WorkerPool {
    /// A group of tasks on this pool. What its closures return, `()` or a `Result`, is inferred from the first `spawn`.
    pub fn group<R: TaskResult>(&self) -> TaskGroup<R> {
        TaskGroup::new(Arc::clone(self.inner()))
    }
}
