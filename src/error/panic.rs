//! The panic of a task, as a value.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};

use crate::sync::Mutex;
use crate::unwind::{self, Payload};

/// The panic that ended a task.
///
/// It keeps the payload, the message where the payload is a string, and the place where the task was submitted (the
/// place of the panic itself has gone to the panic hook). Dropping it contains a panic of the payload's destructor.
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
    /// What the panic carried; behind a lock only so that a `TaskPanic` can be shared between threads.
    payload: Mutex<Option<Payload>>,
    /// The payload as text, if it was a `&'static str` or a `String`.
    message: Option<Cow<'static, str>>,
    /// Where the task was submitted.
    location: &'static Location<'static>,
}

impl TaskPanic {
    pub(crate) fn new(payload: Payload, location: &'static Location<'static>) -> Self {
        let message = match payload.downcast_ref::<&'static str>() {
            Some(text) => Some(Cow::Borrowed(*text)),
            None => payload.downcast_ref::<String>().map(|text| Cow::Owned(text.clone())),
        };
        Self { payload: Mutex::new(Some(payload)), message, location }
    }

    /// The message, if the panic carried a string, as `panic!` does.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Where the task was submitted: the caller of `execute`, `spawn` and their kin.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Takes the payload out, as `std::thread::JoinHandle::join` would have returned it.
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.lock().take().expect("the payload leaves only with the panic itself")
    }

    /// Goes on panicking on this thread with the same payload. The panic hook is not called again.
    ///
    /// # Panics
    ///
    /// Always: that is its purpose.
    pub fn resume(self) -> ! {
        unwind::resume(self.into_payload())
    }
}

impl Drop for TaskPanic {
    fn drop(&mut self) {
        unwind::discard(mem::take(&mut self.payload).into_inner());
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for TaskPanic {}
impl RefUnwindSafe for TaskPanic {}

impl fmt::Debug for TaskPanic {
    /// Shows the message as it is. Escaped, it would double in length with each task that unwraps the error of another
    /// and panics in turn.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskPanic({self})")
    }
}

impl fmt::Display for TaskPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            Some(message) => write!(f, "task submitted at {} panicked: {message}", self.location),
            None => write!(f, "task submitted at {} panicked", self.location),
        }
    }
}
