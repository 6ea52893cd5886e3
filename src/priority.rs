//! The class of a task.

/// The class of a task: which tasks a worker takes first.
///
/// Each class has a queue of its own. So a full queue of one class neither delays nor refuses tasks
/// of another. A worker takes `High` before `Normal`, and `Normal` before `Background`, but no
/// class starves:
///
/// | the oldest task of this class | waits on each worker for at most |
/// |---|---|
/// | `High` | 2 turns of the other classes |
/// | `Normal` | 8 turns of the other classes |
/// | `Background` | 32 turns of the other classes, while fewer workers run tasks of this class than [`background_workers`] allows |
///
/// A *turn* is one task, or at most 16 tasks of a group or a keyed executor. No task is
/// interrupted: a task that runs keeps its worker until it ends.
///
/// Set the class of a [task](crate::TaskBuilder::priority), a [timer](crate::TimerBuilder), a
/// [group](crate::TaskGroup::priority), a [scope](crate::ScopeBuilder::priority) or a [keyed
/// executor](crate::KeyedExecutorBuilder::priority). The builders of subscriptions to events, of
/// gRPC callers, and of NATS workers and subscriptions have the method `priority`, too, and so has
/// a driver of futures. A task that is retried keeps its class.
///
/// A worker that waits ignores classes: it runs the tasks that its wait needs.
///
/// A pool in which each task is `Normal` pays nothing for the other classes. The first task of
/// another class allocates the queue of that class.
///
/// [`background_workers`]: crate::WorkerPoolBuilder::background_workers
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
/// use workcrew::{Priority, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let (open, gate) = channel::<()>();
/// pool.execute(move || gate.recv().unwrap())?; // the only worker is busy
/// let (sender, order) = channel();
/// for priority in [Priority::Background, Priority::Normal, Priority::High] {
///     let sender = sender.clone();
///     pool.task().priority(priority).execute(move |_| sender.send(priority).unwrap())?;
/// }
/// drop((open, sender));
/// let order: Vec<_> = order.iter().collect();
/// assert_eq!(order, [Priority::High, Priority::Normal, Priority::Background]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Urgent tasks, which a caller waits for.
    High,
    /// The class of all other tasks.
    #[default]
    Normal,
    /// Tasks that may wait, such as batches.
    Background,
}
