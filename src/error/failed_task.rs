//! The task that an error comes from.

use std::fmt;
use std::panic::Location;

use super::escaped::Escaped;
use crate::sync::Arc;

/// The identity of a task, unique within its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// Returns the number of the task, which logs and traces may keep. `Display` writes the same.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let id = pool.spawn(|| ())?.id();
    /// assert_eq!(id.as_u64().to_string(), id.to_string());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The task that failed or panicked: its index, its label, its id, and the place where it was
/// spawned.
///
/// Returned by [`TaskFailure::task`](crate::TaskFailure::task),
/// [`TaskPanic::task`](crate::TaskPanic::task), and the `task` methods of other errors. `Display`
/// writes what is known, for example "task 3 of group \`backup\`, spawned at src/main.rs:10:5".
///
/// # Examples
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let group = pool.group().label("backup");
/// group.spawn(|| Ok::<_, &str>(()));
/// group.spawn(|| Err("permission denied"));
/// let error = group.wait_with_task().unwrap_err();
/// let task = error.task().unwrap();
/// assert_eq!((task.index(), task.label()), (Some(1), Some("backup")));
/// assert_eq!(error.to_string(), format!("{task}: permission denied"));
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailedTask {
    /// `None` for a future that is no task of a pool.
    id: Option<TaskId>,
    /// The position in spawn order, of a task of a group.
    index: Option<usize>,
    /// The label of the task or of its group.
    label: Option<Arc<str>>,
    /// Where the task was submitted.
    location: &'static Location<'static>,
}

impl FailedTask {
    /// Returns what is known of a task without a group.
    pub(crate) fn new(id: Option<TaskId>, label: Option<Arc<str>>, location: &'static Location<'static>) -> Self {
        Self { id, index: None, label, location }
    }

    /// Adds the position in the spawn order of a group.
    pub(crate) fn set_index(&mut self, index: usize) {
        self.index = Some(index);
    }

    /// Returns the id of the task, which observers and
    /// [`WorkerPool::running`](crate::WorkerPool::running) show as well. `None` for a future that a
    /// call of this crate has blocked on, because such a future is no task of a pool.
    #[must_use]
    pub fn id(&self) -> Option<TaskId> {
        self.id
    }

    /// Returns the position of the task in the spawn order of its group or scope, counted from
    /// zero. For [`try_map`](crate::WorkerPool::try_map) it is the position of the item. `None` for
    /// a task without a group, and in [`on_panic`](crate::WorkerPoolBuilder::on_panic).
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// Returns the label of the task or of its group, if there is one.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns the place where the task was submitted: the caller of `spawn`, `spawn_all` and
    /// similar methods.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }
}

impl fmt::Display for FailedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = self.location;
        match (self.index, self.label()) {
            (Some(index), Some(label)) => {
                write!(f, "task {index} of group `{}`, spawned at {location}", Escaped(label))
            }
            (Some(index), None) => write!(f, "task {index}, spawned at {location}"),
            (None, Some(label)) => write!(f, "task `{}`, submitted at {location}", Escaped(label)),
            (None, None) => write!(f, "task submitted at {location}"),
        }
    }
}
