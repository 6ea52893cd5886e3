//! Where a task comes from, as its executor knows it.

use std::panic::Location;

use crate::error::{FailedTask, TaskId};
use crate::sync::Arc;

/// The identity of a task, its place of submission and its label.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskOrigin<'a> {
    pub(crate) id: TaskId,
    pub(crate) location: &'static Location<'static>,
    pub(crate) label: Option<&'a Arc<str>>,
}

impl TaskOrigin<'_> {
    /// Returns the task for an error to hold.
    #[cold]
    pub(crate) fn to_failed(self) -> FailedTask {
        FailedTask::new(Some(self.id), self.label.cloned(), self.location)
    }
}
