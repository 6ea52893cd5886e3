//! The waits that need each other: what the error of a wait that can never end tells.

use std::fmt;
use std::panic::Location;

use super::escaped::Escaped;
use super::failed_task::TaskId;
use crate::sync::Arc;

/// The waits that need each other, in the errors `WouldDeadlock`: each waits for something that
/// cannot end before the next of them has ended, and the last one needs the first.
///
/// The first wait is the one that was refused. A task that joins itself is a cycle of one wait. The
/// cycle is [empty](Self::is_empty) if the wait was refused for another reason: waits were nested
/// too deep, or a group has no task that could succeed. It is also empty for a future.
///
/// `Display` writes one line, such as "task 17 (`mail`, src/a.rs:12:9) waits for group `b`, which
/// needs task 18 (`b`, src/b.rs:3:7), which waits for task 17".
///
/// # Examples
///
/// A task joins itself:
///
/// ```
/// use std::sync::mpsc::channel;
/// use workcrew::{JoinError, JoinHandle, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let (send, receive) = channel::<JoinHandle<()>>();
/// let (tell, told) = channel();
/// let own = pool.spawn(move || tell.send(receive.recv().unwrap().join()).unwrap())?;
/// let id = own.id();
/// send.send(own)?;
/// let Err(JoinError::WouldDeadlock(cycle)) = told.recv()? else { panic!("it cannot end") };
/// let [wait] = cycle.waits() else { panic!("one wait") };
/// assert_eq!(wait.target.task.as_ref().unwrap().id, id);
/// assert!(cycle.to_string().starts_with(&format!("task {id} (")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Cycle {
    /// `None` for an empty cycle, so that an error takes one word.
    waits: Option<Arc<Vec<CycleWait>>>,
}

/// One wait of a [`Cycle`]: a task that waits for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CycleWait {
    /// The task that waits. `None` if its thread is no worker.
    pub task: Option<CycleTask>,
    /// What it waits for.
    pub target: CycleTarget,
}

/// A task of a [`Cycle`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CycleTask {
    /// The identity of the task, unique within its pool.
    pub id: TaskId,
    /// The label of the task, or of its group, scope or executor.
    pub label: Option<Arc<str>>,
    /// The place where the task was submitted.
    pub location: &'static Location<'static>,
    /// The name of the task's pool: its [`thread_name`](crate::WorkerPoolBuilder::thread_name).
    pub pool: Arc<str>,
    /// Tells pools of one name apart.
    pool_number: u64,
}

/// The target of a wait of a [`Cycle`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CycleTarget {
    /// Its kind.
    pub kind: CycleKind,
    /// The label of a group, a scope or a keyed executor, or the name of a subscription.
    pub label: Option<Arc<str>>,
    /// The task, for the kind [`CycleKind::Task`] if it is known.
    pub task: Option<CycleTask>,
    /// The name of the pool that it belongs to.
    pub pool: Arc<str>,
    /// Tells pools of one name apart.
    pool_number: u64,
}

/// The kind of the target of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CycleKind {
    /// The end of a task.
    Task,
    /// The end of all tasks of a group or a scope.
    Group,
    /// The end of any task of a group, or the first success.
    AnyTask,
    /// Room for a task of a group.
    GroupRoom,
    /// Room for a task of a keyed executor, or of one of its keys.
    KeyedRoom,
    /// The end of all tasks of a keyed executor.
    Keyed,
    /// The end of all tasks of a pool, the end of the pool, or the start of its workers.
    Pool,
    /// Room in the queue of a pool.
    QueueRoom,
    /// The deliveries of an event.
    Event,
    /// Room in the mailbox of a subscription.
    Mailbox,
    /// The end of a subscription.
    Subscription,
    /// The end of all deliveries of a bus.
    Bus,
    /// A place at a driver.
    Driver,
}

/// The name of a pool, and a number that no other pool has.
pub(crate) type NamedPool = (Arc<str>, u64);

impl Cycle {
    pub(crate) fn new(waits: Vec<CycleWait>) -> Self {
        Self { waits: (!waits.is_empty()).then(|| Arc::new(waits)) }
    }

    /// Returns the waits, beginning with the one that was refused.
    #[must_use]
    pub fn waits(&self) -> &[CycleWait] {
        self.waits.as_ref().map_or(&[], |waits| waits)
    }

    /// Returns `true` if the wait was refused for another reason than a cycle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits.is_none()
    }

    /// Returns what the message of an error says after its first words.
    pub(crate) fn suffix(&self) -> Suffix<'_> {
        Suffix(self)
    }
}

impl CycleWait {
    pub(crate) fn new(task: Option<CycleTask>, target: CycleTarget) -> Self {
        Self { task, target }
    }
}

impl CycleTask {
    pub(crate) fn new(
        id: TaskId,
        label: Option<&Arc<str>>,
        location: &'static Location<'static>,
        (pool, pool_number): NamedPool,
    ) -> Self {
        Self { id, label: label.cloned(), location, pool, pool_number }
    }

    /// Returns `true` if it is the task of that pool with this id.
    pub(crate) fn is_of(&self, pool_number: u64, id: TaskId) -> bool {
        (self.id, self.pool_number) == (id, pool_number)
    }

    fn is(&self, other: &Self) -> bool {
        (self.id, self.pool_number) == (other.id, other.pool_number)
    }
}

impl CycleTarget {
    /// Does not allocate: waits are described before threads sleep.
    pub(crate) fn new(kind: CycleKind) -> Self {
        Self { kind, label: None, task: None, pool: Arc::default(), pool_number: 0 }
    }

    pub(crate) fn label(self, label: Option<&Arc<str>>) -> Self {
        Self { label: label.cloned(), ..self }
    }

    pub(crate) fn task(id: TaskId, label: Option<&Arc<str>>, location: &'static Location<'static>) -> Self {
        Self { task: Some(CycleTask::new(id, label, location, (Arc::default(), 0))), ..Self::new(CycleKind::Task) }
    }

    /// Sets its pool.
    pub(crate) fn of_pool(mut self, (pool, pool_number): NamedPool) -> Self {
        if let Some(task) = &mut self.task {
            (task.pool, task.pool_number) = (Arc::clone(&pool), pool_number);
        }
        Self { pool, pool_number, ..self }
    }

    /// Returns `true` if it belongs to the pool of the other one.
    pub(crate) fn has_pool_of(&self, other: &Self) -> bool {
        self.pool_number == other.pool_number
    }

    /// Returns `true` if it belongs to the pool of a task.
    pub(crate) fn has_pool_of_task(&self, task: &CycleTask) -> bool {
        self.pool_number == task.pool_number
    }

    /// Returns `true` if it is this task.
    fn is(&self, task: Option<&CycleTask>) -> bool {
        self.task.as_ref().zip(task).is_some_and(|(own, other)| own.is(other))
    }
}

/// Writes a task or a target, with the name of its pool if the flag is set.
pub(crate) struct Named<'a, T>(pub(crate) &'a T, pub(crate) bool);

impl fmt::Display for Named<'_, CycleTask> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_task(f, Some(self.0), self.1)
    }
}

impl fmt::Display for Named<'_, CycleTarget> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_target(f, self.0, self.1)
    }
}

/// Writes a cycle after a colon; nothing for an empty one.
pub(crate) struct Suffix<'a>(&'a Cycle);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

impl fmt::Debug for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.waits()).finish()
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = self.waits();
        let [first, ..] = waits else { return f.write_str("no cycle of waits") };
        let names_pools = waits.iter().any(|wait| wait.target.pool_number != first.target.pool_number);
        let mut before: Option<&CycleTarget> = None;
        for wait in waits {
            let task = wait.task.as_ref();
            match before {
                None => write_task(f, task, names_pools)?,
                Some(target) if target.is(task) => f.write_str(", which")?,
                Some(_) => {
                    f.write_str(", which needs ")?;
                    write_task(f, task, names_pools)?;
                    f.write_str(", which")?;
                }
            }
            f.write_str(" waits for ")?;
            match &wait.target {
                target if target.is(first.task.as_ref()) => write_again(f, first.task.as_ref(), names_pools)?,
                target => write_target(f, target, names_pools)?,
            }
            before = Some(&wait.target);
        }
        if before.is_some_and(|target| !target.is(first.task.as_ref())) {
            f.write_str(", which needs ")?;
            write_again(f, first.task.as_ref(), names_pools)?;
        }
        Ok(())
    }
}

/// Writes what a cycle writes, without the pool: "task 17 (`mail`, src/a.rs:12:9)".
impl fmt::Display for CycleTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_task(f, Some(self), false)
    }
}

/// Writes what a cycle writes, without the pool: "room in group `mail`".
impl fmt::Display for CycleTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_target(f, self, false)
    }
}

fn write_again(f: &mut fmt::Formatter<'_>, task: Option<&CycleTask>, names_pool: bool) -> fmt::Result {
    match task {
        Some(CycleTask { id, pool, .. }) if names_pool => write!(f, "task {id} of pool `{}`", Escaped(pool)),
        Some(CycleTask { id, .. }) => write!(f, "task {id}"),
        None => f.write_str("that task"),
    }
}

fn write_task(f: &mut fmt::Formatter<'_>, task: Option<&CycleTask>, names_pool: bool) -> fmt::Result {
    let Some(CycleTask { id, label, location, pool, .. }) = task else { return f.write_str("a task") };
    write!(f, "task {id} (")?;
    if let Some(label) = label {
        write!(f, "`{}`, ", Escaped(label))?;
    }
    write!(f, "{location})")?;
    if names_pool { write!(f, " of pool `{}`", Escaped(pool)) } else { Ok(()) }
}

fn write_target(f: &mut fmt::Formatter<'_>, target: &CycleTarget, names_pool: bool) -> fmt::Result {
    let CycleTarget { kind, label, task, pool, .. } = target;
    let what = match kind {
        CycleKind::Task if task.is_some() => return write_task(f, task.as_ref(), names_pool),
        CycleKind::Task => "a task",
        CycleKind::Group => "group",
        CycleKind::AnyTask => "any task of group",
        CycleKind::GroupRoom => "room in group",
        CycleKind::KeyedRoom => "room in keyed executor",
        CycleKind::Keyed => "keyed executor",
        CycleKind::Pool => return write!(f, "pool `{}`", Escaped(pool)),
        CycleKind::QueueRoom => return write!(f, "room in the queue of pool `{}`", Escaped(pool)),
        CycleKind::Event => "the deliveries of an event",
        CycleKind::Mailbox => "room in the mailbox of subscription",
        CycleKind::Subscription => "the end of subscription",
        CycleKind::Bus => "an idle bus",
        CycleKind::Driver => "a place at driver",
    };
    f.write_str(what)?;
    if let Some(label) = label {
        write!(f, " `{}`", Escaped(label))?;
    }
    if names_pool { write!(f, " of pool `{}`", Escaped(pool)) } else { Ok(()) }
}
