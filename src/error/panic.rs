//! The panic of a task as a value.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::panic::Location;

use super::failed_task::FailedTask;
use crate::sync::{Arc, Mutex};
use crate::unwind::{self, Payload};

/// The panic that ended a task.
///
/// It holds the payload, the message if the payload is a string, and the [task](FailedTask) with
/// the place where it was submitted. Only Rust's panic hook gets the place of the panic itself. If
/// the destructor of the payload panics, dropping a `TaskPanic` contains that panic.
///
/// # Examples
///
/// ```
/// use workcrew::{JoinError, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// match pool.spawn(|| { if true { panic!("no such user") } })?.join() {
///     Err(JoinError::Panicked(panic)) => assert_eq!(panic.message(), Some("no such user")),
///     other => unreachable!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TaskPanic {
    /// The payload of the panic. The lock only makes `TaskPanic` implement `Sync`.
    payload: Mutex<Option<Payload>>,
    /// The payload as text, if it was a `&'static str` or a `String`.
    message: Option<Cow<'static, str>>,
    /// The task.
    task: Box<FailedTask>,
}

/// The owner of a task's panic.
pub(crate) trait PanicReceiver: Send + Sync {
    /// Takes the panic, or returns it if the owner is gone.
    fn receive(&self, panic: TaskPanic) -> Option<TaskPanic>;
}

/// The payload of a panic that has a receiver. Wrapped by the task and unwrapped by
/// [`TaskPanic::deliver`], before a waiter can own the panic. Hooks see only its message.
struct Addressed {
    payload: Payload,
    receiver: Arc<dyn PanicReceiver>,
}

/// Resumes a panic on its way out of a task, addressed to `receiver`.
pub(crate) fn resume_to(receiver: Arc<dyn PanicReceiver>, payload: Payload) -> ! {
    unwind::resume(Box::new(Addressed { payload, receiver }))
}

impl TaskPanic {
    pub(crate) fn new(payload: Payload, task: FailedTask) -> Self {
        let inner = payload.downcast_ref::<Addressed>().map_or(&payload, |addressed| &addressed.payload);
        let message = unwind::message(inner);
        Self { payload: Mutex::new(Some(payload)), message, task: Box::new(task) }
    }

    /// Adds the position of the task in the spawn order of its group.
    #[must_use]
    pub(crate) fn with_index(mut self, index: usize) -> Self {
        self.task.set_index(index);
        self
    }

    /// Hands the panic to its receiver. Returns the panic if there is no receiver, or it is gone.
    pub(crate) fn deliver(self) -> Option<Self> {
        let payload = self.payload.lock().take()?;
        let (payload, receiver) = match payload.downcast::<Addressed>() {
            Ok(addressed) => (addressed.payload, Some(addressed.receiver)),
            Err(payload) => (payload, None),
        };
        *self.payload.lock() = Some(payload);
        match receiver {
            Some(receiver) => receiver.receive(self),
            None => Some(self),
        }
    }

    /// Returns the message, if the payload is a string, as with `panic!`.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the place where the task was submitted: the caller of `execute`, `spawn` and similar
    /// methods.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.task.location()
    }

    /// Returns the task that panicked.
    #[must_use]
    pub fn task(&self) -> &FailedTask {
        &self.task
    }

    /// Returns the payload, as `std::thread::JoinHandle::join` does.
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.lock().take().expect("only `into_payload` takes the payload, and it consumes the panic")
    }

    /// Resumes the panic on this thread with the same payload. The panic hook is not called again.
    ///
    /// # Panics
    ///
    /// Always.
    pub fn resume(self) -> ! {
        unwind::resume(self.into_payload())
    }
}

impl Drop for TaskPanic {
    fn drop(&mut self) {
        unwind::discard(mem::take(&mut self.payload).into_inner());
    }
}

unwind::safe!(TaskPanic);

impl fmt::Debug for TaskPanic {
    /// Formats the message without escapes. Escapes would double its length with each task that
    /// unwraps the error of another task and panics with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskPanic({self})")
    }
}

impl fmt::Display for TaskPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = &self.task;
        // The text of a task with an index or a label ends with a clause of its own.
        let comma = if task.index().is_some() || task.label().is_some() { "," } else { "" };
        match self.message() {
            Some(message) => write!(f, "{task}{comma} panicked: {message}"),
            None => write!(f, "{task}{comma} panicked"),
        }
    }
}
