//! The builder of tasks with a token, a time limit, a label or a class.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::spawn_async::{Submission, TaskSettings};
use super::submit::{SubmitSettings, WaitMode};
use super::worker_pool::WorkerPool;
use crate::cancel::token::CancellationToken;
use crate::error::{Refusal, Refuser, SubmitError, SubmitTimeoutError, TrySubmitError};
use crate::observe::task_info::TaskId;
use crate::priority::Priority;
use crate::sync::Arc;
use crate::task::executor::Executor;
use crate::task::handle::JoinHandle;
use crate::task::limited::{LimitedTask, TaskLimits};
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;

/// A builder of tasks with a token, a time limit, a label or a class. Returned by
/// [`WorkerPool::task`].
///
/// Its methods that submit have the same names as those of the pool. Their closures get the token
/// of the task. A builder is reusable, and each task gets a token of its own.
///
/// ```
/// use std::time::Duration;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let report = pool.task().timeout(Duration::from_millis(20)).label("report").spawn(|token| {
///     let mut pages = 0;
///     while !token.is_cancelled() {
///         pages += 1; // one step of a long task
///         std::thread::yield_now();
///     }
///     pages // the pages so far
/// })?;
/// assert!(report.join()? > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Time limits
///
/// | | limits | when the time is over |
/// |---|---|---|
/// | [`timeout`](Self::timeout) | the run of the task, from its start | the token of the task is cancelled |
/// | [`deadline`](Self::deadline) | the wait in the queue and the run | the token is cancelled; a task that has not started never starts |
/// | [`expires_after`](Self::expires_after), [`expires_at`](Self::expires_at) | the wait for the start | a task that has not started never starts; a running one continues |
/// | [`try_spawn_for`](Self::try_spawn_for) | the submission | the error returns the closure |
/// | [`JoinHandle::wait_timeout`] | the wait for the task | the wait ends, and the task continues |
///
/// The handle tells these cases apart. A task that ran past its `timeout` has the outcome of its
/// closure, and its token says [`Expired`](crate::CancelReason::Expired). A task that was too late
/// to start is [`Cancelled`](crate::JoinError::Cancelled) with that reason. A task that a caller or
/// a shutdown cancelled has another reason.
///
/// **A running task is never killed.** It must check its token and return. A task that ignores its
/// token continues, and `join` waits for it.
///
/// # Cancellation
///
/// The token of a task is cancelled in these cases, too:
/// - The [parent](Self::token) of the token is cancelled.
/// - [`JoinHandle::cancel`] is called while the task runs. It returns `false`, because the task has
///   started.
/// - A shutdown [cancels](WorkerPool#what-a-shutdown-cancels) the tasks of the pool.
///
/// A task whose token is cancelled before it starts never starts. Its outcome is
/// [`JoinError::Cancelled`](crate::JoinError::Cancelled) with the reason of the token.
#[must_use = "a builder does nothing before it submits a task"]
#[derive(Clone)]
pub struct TaskBuilder<'pool> {
    pool: &'pool WorkerPool,
    recipe: TaskRecipe,
}

/// The settings of a builder.
#[derive(Clone, Default)]
struct TaskRecipe {
    /// The parent of the tasks' tokens.
    token: Option<CancellationToken>,
    /// The time from the start of a task to the cancellation of its token.
    timeout: Option<Duration>,
    /// When tasks and their tokens are cancelled.
    deadline: Option<Instant>,
    /// The time from the submission of a task until it must have started.
    expires_after: Option<Duration>,
    /// When tasks must have started.
    expires_at: Option<Instant>,
    /// What observers see of the tasks.
    label: Option<Arc<str>>,
    /// The class of the tasks.
    priority: Priority,
}

/// # Tasks with settings
impl WorkerPool {
    /// Returns a builder for tasks with a token, a time limit, a label or a class.
    pub fn task(&self) -> TaskBuilder<'_> {
        TaskBuilder { pool: self, recipe: TaskRecipe::default() }
    }
}

/// # Settings
impl TaskBuilder<'_> {
    /// Sets the parent of the tasks' tokens. Cancelling it cancels the tasks. *Default: none.*
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{CancellationToken, JoinError};
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let request = CancellationToken::new();
    /// request.cancel(); // the client is gone
    /// let task = pool.task().token(&request).spawn(|_| "never computed")?;
    /// assert!(matches!(task.join(), Err(JoinError::Cancelled(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn token(mut self, token: &CancellationToken) -> Self {
        self.recipe.token = Some(token.clone());
        self
    }

    /// Sets the time limit of a task: its token is cancelled with
    /// [`CancelReason::Expired`](crate::CancelReason::Expired) when `timeout` has passed since the
    /// task started. The time in the queue does not count. With zero, the closure gets a token that
    /// has already expired; `Duration::MAX` means no limit. *Default: no limit.*
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.recipe.timeout = Some(timeout);
        self
    }

    /// Sets the time at which a task's token is cancelled with
    /// [`CancelReason::Expired`](crate::CancelReason::Expired), whether the task has started or
    /// not. If it is set several times, the earliest counts. *Default: none.*
    ///
    /// No thread watches the clock. A task that has not started at its deadline is cancelled when a
    /// worker reaches it.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.recipe.deadline = Deadline::at(deadline).earlier(self.recipe.deadline).instant();
        self
    }

    /// Sets how long a task may wait for its start. A task that has not started when `time` has
    /// passed since its submission never starts: its outcome is
    /// [`JoinError::Cancelled`](crate::JoinError::Cancelled) with
    /// [`CancelReason::Expired`](crate::CancelReason::Expired). A task that has started is not
    /// affected, and neither is its token.
    ///
    /// The time for which the submission waits for room counts. With zero, no task starts;
    /// `Duration::MAX` means no limit. *Default: no limit.*
    ///
    /// No thread watches the clock. A task that has expired is cancelled, and its closure dropped,
    /// when a worker reaches it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::{CancelReason, JoinError};
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// pool.execute(|| std::thread::sleep(Duration::from_millis(20)))?; // an overloaded pool
    /// let task = pool.task().expires_after(Duration::from_millis(1)).spawn(|_| "an answer")?;
    /// assert!(matches!(task.join(), Err(JoinError::Cancelled(CancelReason::Expired))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expires_after(mut self, time: Duration) -> Self {
        self.recipe.expires_after = Some(time);
        self
    }

    /// Sets when a task must have started; see [`expires_after`](Self::expires_after). If it is set
    /// several times, or beside `expires_after`, the earliest time counts. *Default: none.*
    pub fn expires_at(mut self, deadline: Instant) -> Self {
        self.recipe.expires_at = Deadline::at(deadline).earlier(self.recipe.expires_at).instant();
        self
    }

    /// Names the tasks for observers and [`WorkerPool::running`]. *Default: no name.*
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.recipe.label = Some(label.into());
        self
    }

    /// Sets the class of the tasks. *Default: [`Priority::Normal`].*
    ///
    /// If the queue of the class is full, a submission waits for room in that queue alone, or
    /// follows the pool's [policy](crate::Overflow) with the tasks of that class.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.recipe.priority = priority;
        self
    }
}

/// # Submitting
///
/// Each method behaves like that of the pool with the same name, and has the same errors. The
/// closure gets the task's token.
impl TaskBuilder<'_> {
    /// Submits a task without a handle; see [`WorkerPool::execute`].
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    #[track_caller]
    pub fn execute<F>(&self, f: F) -> Result<(), SubmitError<F>>
    where
        F: FnOnce(&CancellationToken) + Send + 'static,
    {
        self.submit(f, WaitMode::Policy, Location::caller()).map(drop).map_err(SubmitError::by(Refuser::Pool))
    }

    /// Submits a task without a handle if there is room; see [`WorkerPool::try_execute`].
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if the queue is full or the pool is shut down.
    #[track_caller]
    pub fn try_execute<F>(&self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnOnce(&CancellationToken) + Send + 'static,
    {
        let submitted = self.submit(f, WaitMode::Never, Location::caller());
        submitted.map(drop).map_err(TrySubmitError::by(Refuser::Pool))
    }

    /// Submits a task without a handle, and waits at most `timeout` for room; see
    /// [`WorkerPool::try_execute_for`].
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if the queue stayed full or the pool is shut down.
    #[track_caller]
    pub fn try_execute_for<F>(&self, timeout: Duration, f: F) -> Result<(), SubmitTimeoutError<F>>
    where
        F: FnOnce(&CancellationToken) + Send + 'static,
    {
        let submitted = self.submit(f, WaitMode::Until(Deadline::after(timeout)), Location::caller());
        submitted.map(drop).map_err(SubmitTimeoutError::by(Refuser::Pool))
    }

    /// Submits a task and returns the handle for its result; see [`WorkerPool::spawn`].
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce(&CancellationToken) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit(f, WaitMode::Policy, Location::caller()).map_err(SubmitError::by(Refuser::Pool))
    }

    /// Submits a task if there is room, and returns the handle; see [`WorkerPool::try_spawn`].
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if the queue is full or the pool is shut down.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, TrySubmitError<F>>
    where
        F: FnOnce(&CancellationToken) -> T + Send + 'static,
        T: Send + 'static,
    {
        let submitted = self.submit(f, WaitMode::Never, Location::caller());
        submitted.map_err(TrySubmitError::by(Refuser::Pool))
    }

    /// Submits a task, waits at most `timeout` for room, and returns the handle; see
    /// [`WorkerPool::try_spawn_for`].
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if the queue stayed full or the pool is shut down.
    #[track_caller]
    pub fn try_spawn_for<F, T>(&self, timeout: Duration, f: F) -> Result<JoinHandle<T>, SubmitTimeoutError<F>>
    where
        F: FnOnce(&CancellationToken) -> T + Send + 'static,
        T: Send + 'static,
    {
        let submitted = self.submit(f, WaitMode::Until(Deadline::after(timeout)), Location::caller());
        submitted.map_err(SubmitTimeoutError::by(Refuser::Pool))
    }

    /// Like [`spawn`](Self::spawn), for async code; see [`WorkerPool::spawn_async`]. The settings
    /// are read at this call. The time of [`expires_after`](Self::expires_after) begins with the
    /// first poll.
    ///
    /// If the token is cancelled while the future waits for room, the wait continues. The task is
    /// then accepted, and cancelled at once.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let request = pool.task().label("request").timeout(Duration::from_secs(5));
    /// let answer = block_on(async {
    ///     let handle = request.spawn_async(|token| token.check().map(|()| 42)).await?;
    ///     Ok::<_, Box<dyn std::error::Error>>(handle.await??)
    /// })?;
    /// assert_eq!(answer, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_async<F, T>(
        &self,
        f: F,
    ) -> impl Future<Output = Result<JoinHandle<T>, SubmitError<F>>> + Send + use<F, T>
    where
        F: FnOnce(&CancellationToken) -> T + Send + 'static,
        T: Send + 'static,
    {
        Submission::<F, TaskRecipe, LimitedTask<F, T>>::new(self.pool, self.recipe.clone(), f, Location::caller())
    }

    fn submit<F, T>(
        &self,
        f: F,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
    ) -> Result<JoinHandle<T>, (Refusal, F)>
    where
        F: FnOnce(&CancellationToken) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (pool, recipe) = (self.pool.inner(), &self.recipe);
        let make = |f, id, queued_at| recipe.make(f, id, location, queued_at);
        let task = pool.submit_task(f, self.settings(wait_mode, location), make, TaskRecipe::withdraw)?;
        recipe.accepted(&task, &pool.executor);
        Ok(JoinHandle::new(task, Arc::clone(&pool.executor)))
    }

    /// Returns the settings of the submission.
    pub(crate) fn settings(&self, wait_mode: WaitMode, location: &'static Location<'static>) -> SubmitSettings<'_> {
        SubmitSettings { wait_mode, location, label: self.recipe.label.as_ref(), class: self.recipe.priority }
    }
}

/// The internal API for tasks that are retried.
#[cfg(feature = "retry")]
impl TaskBuilder<'_> {
    pub(crate) fn pool(&self) -> &WorkerPool {
        self.pool
    }

    /// Returns the limits of one task, with a token of its own.
    pub(crate) fn limits(&self) -> TaskLimits {
        self.recipe.limits()
    }

    /// Returns `true` if another token may cancel those of the tasks.
    pub(crate) fn has_parent_token(&self) -> bool {
        self.recipe.token.is_some()
    }
}

impl TaskRecipe {
    /// Makes the token of one task.
    fn limits(&self) -> TaskLimits {
        let token = match (&self.token, self.deadline) {
            (Some(parent), Some(deadline)) => parent.child_with_deadline(deadline),
            (Some(parent), None) => parent.child_token(),
            (None, Some(deadline)) => CancellationToken::with_deadline(deadline),
            (None, None) => CancellationToken::new(),
        };
        let start_by = self.expires_after.map_or(Deadline::NEVER, Deadline::after).earlier(self.expires_at);
        TaskLimits { token, timeout: self.timeout, start_by, label: self.label.clone() }
    }
}

impl<F, T> TaskSettings<F, LimitedTask<F, T>> for TaskRecipe
where
    F: FnOnce(&CancellationToken) -> T + Send + 'static,
    T: Send + 'static,
{
    fn make(
        &self,
        f: F,
        id: TaskId,
        location: &'static Location<'static>,
        queued_at: Option<Timestamp>,
    ) -> Arc<LimitedTask<F, T>> {
        Arc::new(LimitedTask::new(f, self.limits(), (id, location, queued_at)))
    }

    fn withdraw(task: &LimitedTask<F, T>) -> F {
        task.withdraw()
    }

    fn accepted(&self, task: &Arc<LimitedTask<F, T>>, executor: &Arc<Executor>) {
        if self.token.is_some() {
            task.watch_token(executor);
        }
    }

    fn label(&self) -> Option<Arc<str>> {
        self.label.clone()
    }

    fn class(&self) -> Priority {
        self.priority
    }
}

impl fmt::Debug for TaskBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("token", &self.recipe.token)
            .field("timeout", &self.recipe.timeout)
            .field("deadline", &self.recipe.deadline)
            .field("expires_after", &self.recipe.expires_after)
            .field("expires_at", &self.recipe.expires_at)
            .field("label", &self.recipe.label)
            .field("priority", &self.recipe.priority)
            .finish_non_exhaustive()
    }
}
