//! Errors of waiting for a task or a group.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;

use super::cycle::Cycle;
use super::failed_task::FailedTask;
use super::failure::TaskFailure;
use super::panic::TaskPanic;

/// The reason of a cancellation.
///
/// The closure of a cancelled task never ran, with two exceptions: a retried task may have made
/// earlier attempts, and a future may have been polled. A running task gets the reason from its
/// token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelReason {
    /// A caller asked for it, by `cancel` or by dropping a group without waiting for it.
    Requested,
    /// The group had ended: a sibling failed or panicked, or succeeded where one success is enough.
    GroupEnded,
    /// The pool was shut down.
    ShutDown,
    /// The overflow policy discarded the task.
    Discarded,
    /// A deadline or a timeout passed.
    Expired,
}

impl JoinError {
    /// Returns the task that panicked. `None` for the other errors. They belong to the task of the
    /// handle, whose [`id`](crate::JoinHandle::id) names it.
    #[must_use]
    pub fn task(&self) -> Option<&FailedTask> {
        match self {
            Self::Panicked(panic) => Some(panic.task()),
            Self::Cancelled(_) | Self::WouldDeadlock(_) => None,
        }
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "cancelled on request",
            Self::GroupEnded => "cancelled because its group had already ended",
            Self::ShutDown => "cancelled because the pool was shut down",
            Self::Discarded => "discarded because the queue was full",
            Self::Expired => "cancelled because its deadline passed",
        })
    }
}

/// The error of [`CancellationToken::check`](crate::CancellationToken::check): the token is
/// cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Cancelled {
    /// The reason why the token was cancelled.
    pub(crate) reason: CancelReason,
}

impl Cancelled {
    /// Returns why the token was cancelled.
    #[must_use]
    pub fn reason(&self) -> CancelReason {
        self.reason
    }
}

/// The error of [`JoinHandle::join`](crate::JoinHandle::join).
///
/// # Examples
///
/// ```
/// use workcrew::{JoinError, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let handle = pool.spawn(|| if true { panic!("no luck") })?;
/// match handle.join() {
///     Ok(()) => println!("done"),
///     Err(JoinError::Panicked(panic)) => assert_eq!(panic.message(), Some("no luck")),
///     Err(other) => println!("not done: {other}"), // cancelled, or the wait could not end
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The task panicked.
    #[error("{0}")]
    Panicked(TaskPanic),
    /// The task was cancelled.
    ///
    /// A closure was cancelled before it started. A future of a `Driver`, such as a remote call,
    /// may have been polled, so the remote side may have acted.
    #[error("task {0}")]
    Cancelled(CancelReason),
    /// The wait could not end: a task joined itself, tasks waited for each other in a circle, or
    /// joins were nested too deep for a worker's stack. The [`Cycle`] names the waits that need
    /// each other.
    #[error("joining here would wait forever{}", .0.suffix())]
    WouldDeadlock(Cycle),
}

/// The error of one task of a group.
///
/// # Examples
///
/// ```
/// use workcrew::{GroupPolicy, TaskError};
///
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// let group = pool.group().policy(GroupPolicy::CollectAll);
/// group.spawn_all(["1", "x", "3"].map(|text| move || text.parse::<u32>()));
/// let mut sum = 0;
/// for outcome in group.wait_all() {
///     match outcome {
///         Ok(number) => sum += number,
///         Err(TaskError::Failed(error)) => println!("no number: {error}"),
///         Err(TaskError::Panicked(panic)) => panic.resume(),
///         Err(TaskError::Cancelled(reason)) => println!("{reason}"),
///     }
/// }
/// assert_eq!(sum, 4);
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[derive(Debug)]
pub enum TaskError<E> {
    /// The task returned an error.
    Failed(E),
    /// The task panicked.
    Panicked(TaskPanic),
    /// The task was cancelled before it started.
    Cancelled(CancelReason),
}

/// The error of a group, a scope or [`try_map`](crate::WorkerPool::try_map): the first failure or
/// panic, or the cancellation if it came before any failure.
///
/// The `Display` of a failure is that of the task's error, with its causes if its type shows them.
/// A panic names its task.
///
/// # Which task failed?
///
/// [`TaskGroup::wait_with_task`](crate::TaskGroup::wait_with_task) returns a
/// `GroupError<TaskFailure<E>>`, where each failure holds the error and the task. See
/// [`TaskFailure`].
///
/// # How do I get the error of my task?
///
/// The operator `?` converts a `GroupError<E>` into `anyhow::Error` or
/// `Box<dyn Error + Send + Sync>`, if `E` implements `Debug` and `Display`. The result then holds
/// the whole `GroupError<E>`. To get at the error of the task:
///
/// | you want to | write |
/// |---|---|
/// | match the error | `Err(GroupError::Failed(error))` |
/// | return it instead of the group's error, like Go's `errgroup` | `group.wait().map_err(GroupError::into_error)?` |
/// | return it with the task as its context, for `anyhow` or `eyre` | `group.wait_with_task().map_err(\|error\| error.into_error_with(anyhow::Error::context))?` |
/// | return an error that names the task and has it as its [source](Error::source) | `group.wait_with_task().map_err(GroupError::into_error)?` |
///
/// After the second and the third form, `downcast_ref` of `anyhow` finds the error of the task.
///
/// # Examples
///
/// ```
/// use std::num::ParseIntError;
/// use workcrew::{GroupError, WorkerPool};
///
/// fn parse(pool: &WorkerPool) -> anyhow::Result<Vec<u32>> {
///     let group = pool.group();
///     group.spawn_all(["1", "two"].map(|text| move || text.parse::<u32>()));
///     group.wait().map_err(GroupError::into_error)
/// }
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// assert!(parse(&pool).unwrap_err().is::<ParseIntError>());
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[derive(Debug)]
pub enum GroupError<E> {
    /// A task returned this error before any other task failed.
    Failed(E),
    /// A task panicked before any other task failed.
    Panicked(TaskPanic),
    /// The group was cancelled while it had tasks to run, and no task had failed.
    ///
    /// A running task that reacts to its token by returning an error counts as a failure, and may
    /// be the first. To tell the two apart, have the task return `Ok`, or check for the error that
    /// it returns.
    Cancelled(CancelReason),
    /// The wait could not end.
    ///
    /// A task of the group itself waited, tasks waited for each other in a circle, or waits were
    /// nested too deep for a worker's stack. Or [`wait_any`](crate::TaskGroup::wait_any) was called
    /// on a group without tasks. The [`Cycle`] names the waits that need each other.
    WouldDeadlock(Cycle),
}

impl<E> TaskError<E> {
    /// Converts into an error type of the caller.
    ///
    /// A failure is converted by `From<E>`, which keeps its type and its causes. A panic or a
    /// cancellation is converted by the other bound. See [`GroupError::into_error`].
    pub fn into_error<X>(self) -> X
    where
        X: From<E> + From<TaskError<Infallible>>,
    {
        match self {
            Self::Failed(error) => error.into(),
            Self::Panicked(panic) => TaskError::Panicked(panic).into(),
            Self::Cancelled(reason) => TaskError::Cancelled(reason).into(),
        }
    }

    /// Returns the error that the task returned, if it did.
    ///
    /// # Errors
    ///
    /// Returns `self` if the task panicked or was cancelled.
    pub fn into_failed(self) -> Result<E, Self> {
        match self {
            Self::Failed(error) => Ok(error),
            other => Err(other),
        }
    }
}

impl<E> GroupError<E> {
    /// Converts into an error type of the caller.
    ///
    /// A failure is converted by `From<E>`, so the result is the task's own error, as with Go's
    /// `errgroup`. Any other variant, which no task returned, is converted by the other bound.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::ParseIntError;
    ///
    /// fn numbers(pool: &workcrew::WorkerPool) -> anyhow::Result<Vec<u8>> {
    ///     let group = pool.group();
    ///     group.spawn_all(["1", "two"].map(|text| move || text.parse::<u8>()));
    ///     group.wait().map_err(workcrew::GroupError::into_error)
    /// }
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// assert!(numbers(&pool).unwrap_err().is::<ParseIntError>());
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn into_error<X>(self) -> X
    where
        X: From<E> + From<GroupError<Infallible>>,
    {
        match self {
            Self::Failed(error) => error.into(),
            Self::Panicked(panic) => GroupError::Panicked(panic).into(),
            Self::Cancelled(reason) => GroupError::Cancelled(reason).into(),
            Self::WouldDeadlock(cycle) => GroupError::WouldDeadlock(cycle).into(),
        }
    }

    /// Returns the error that a task returned, if there is one.
    ///
    /// This gives access to the source of the error. `GroupError` itself has no `source`, because
    /// it requires only `Display` of `E`.
    ///
    /// # Errors
    ///
    /// Returns `self` if no task returned the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::ParseIntError;
    ///
    /// fn sum(pool: &workcrew::WorkerPool, texts: [&'static str; 2]) -> Result<u32, ParseIntError> {
    ///     match pool.try_map(texts, str::parse::<u32>) {
    ///         Ok(numbers) => Ok(numbers.into_iter().sum()),
    ///         Err(error) => Err(error.into_failed().expect("no task panics or is cancelled")),
    ///     }
    /// }
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// assert_eq!(sum(&pool, ["1", "2"])?, 3);
    /// assert!(sum(&pool, ["1", "two"]).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_failed(self) -> Result<E, Self> {
        match self {
            Self::Failed(error) => Ok(error),
            other => Err(other),
        }
    }
}

/// # Errors with their task
impl<E> TaskError<TaskFailure<E>> {
    /// Returns the task that failed or panicked. `None` for a cancellation.
    #[must_use]
    pub fn task(&self) -> Option<&FailedTask> {
        match self {
            Self::Failed(failure) => Some(failure.task()),
            Self::Panicked(panic) => Some(panic.task()),
            Self::Cancelled(_) => None,
        }
    }

    /// Returns the error without the task of a failure. A panic keeps its task.
    #[cold]
    #[must_use]
    pub fn without_task(self) -> TaskError<E> {
        match self {
            Self::Failed(failure) => TaskError::Failed(failure.error),
            Self::Panicked(panic) => TaskError::Panicked(panic),
            Self::Cancelled(reason) => TaskError::Cancelled(reason),
        }
    }
}

/// # Errors with their task
impl<E> GroupError<TaskFailure<E>> {
    /// Returns the task that failed or panicked. `None` if no task did.
    #[must_use]
    pub fn task(&self) -> Option<&FailedTask> {
        match self {
            Self::Failed(failure) => Some(failure.task()),
            Self::Panicked(panic) => Some(panic.task()),
            Self::Cancelled(_) | Self::WouldDeadlock(_) => None,
        }
    }

    /// Returns the error without the task of a failure, as [`wait`](crate::TaskGroup::wait) returns
    /// it. A panic keeps its task.
    #[cold]
    #[must_use]
    pub fn without_task(self) -> GroupError<E> {
        match self {
            Self::Failed(failure) => GroupError::Failed(failure.error),
            Self::Panicked(panic) => GroupError::Panicked(panic),
            Self::Cancelled(reason) => GroupError::Cancelled(reason),
            Self::WouldDeadlock(cycle) => GroupError::WouldDeadlock(cycle),
        }
    }

    /// Converts the error of the task as [`into_error`](Self::into_error) does, and calls `context`
    /// with the converted error and the task. A panic already names its task.
    ///
    /// `anyhow::Error::context` and `eyre::Report::wrap_err` have the form of `context`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use workcrew::{FailedTask, WorkerPool};
    ///
    /// fn read(pool: &WorkerPool) -> anyhow::Result<Vec<Vec<u8>>> {
    ///     let group = pool.group().label("config");
    ///     group.spawn(|| std::fs::read("no such file"));
    ///     group.wait_with_task().map_err(|error| error.into_error_with(anyhow::Error::context))
    /// }
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let error = read(&pool).unwrap_err();
    /// assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::NotFound);
    /// assert_eq!(error.downcast_ref::<FailedTask>().unwrap().label(), Some("config"));
    /// assert!(error.to_string().starts_with("task 0 of group `config`, spawned at "));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn into_error_with<X>(self, context: impl FnOnce(X, FailedTask) -> X) -> X
    where
        X: From<E> + From<GroupError<Infallible>>,
    {
        match self {
            Self::Failed(failure) => {
                let (error, task) = failure.into_parts();
                context(error.into(), task)
            }
            other => other.without_task().into_error(),
        }
    }
}

impl<E> From<JoinError> for GroupError<E> {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Panicked(panic) => Self::Panicked(panic),
            JoinError::Cancelled(reason) => Self::Cancelled(reason),
            JoinError::WouldDeadlock(cycle) => Self::WouldDeadlock(cycle),
        }
    }
}

impl<E> From<TaskError<E>> for GroupError<E> {
    fn from(error: TaskError<E>) -> Self {
        match error {
            TaskError::Failed(error) => Self::Failed(error),
            TaskError::Panicked(panic) => Self::Panicked(panic),
            TaskError::Cancelled(reason) => Self::Cancelled(reason),
        }
    }
}

impl<E: fmt::Display> fmt::Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error:#}"), // with its causes, if the type shows them
            Self::Panicked(panic) => write!(f, "{panic}"),
            Self::Cancelled(reason) => write!(f, "task {reason}"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error:#}"), // with its causes, if the type shows them
            Self::Panicked(panic) => write!(f, "{panic}"),
            Self::Cancelled(reason) => write!(f, "group {reason}"),
            Self::WouldDeadlock(cycle) => {
                write!(f, "waiting for the group here would wait forever{}", cycle.suffix())
            }
        }
    }
}

// No `source`: it would need `E: Error`, which `String`, `anyhow::Error` and boxed errors are not.
// See `into_error`.
impl<E: fmt::Debug + fmt::Display> Error for TaskError<E> {}
impl<E: fmt::Debug + fmt::Display> Error for GroupError<E> {}
