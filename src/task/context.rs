//! The context of the current thread: whether it is a worker, and which tasks are on its stack.
//!
//! While a thread's locals are being destroyed, it counts as an external thread with an empty
//! stack.

use std::cell::{Cell, RefCell};

use crate::observe::task_info::RunningTask;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, IdGenerator, thread_local};

/// The number of tasks on one stack from which a waiting worker no longer helps. A wait is an error
/// there.
pub(crate) const MAX_HELP_DEPTH: usize = 64;
/// The number of tasks on one stack from which a worker that submits into its full queue no longer
/// runs the job at once.
pub(crate) const MAX_INLINE_DEPTH: usize = 16;

/// Identifies a pool. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolId(u64);

/// Identifies what a frame belongs to: a group, a subscription, or a single task that can be
/// joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupId(u64);

/// Identifies a thread. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ThreadId(u64);

/// Identifies anything that a thread or a future of this crate can wait for: a pool, a group, a
/// task, the room in a queue, an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AwaitedId(u64);

impl PoolId {
    /// Stands for no pool.
    pub(crate) const NONE: Self = Self(0);

    /// Returns a new id.
    pub(crate) fn new() -> Self {
        Self(next_id())
    }

    /// Returns a number that no other pool has.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl GroupId {
    /// Stands for no group.
    pub(crate) const NONE: Self = Self(0);

    /// Returns a new id.
    #[cfg(feature = "events")]
    pub(crate) fn new() -> Self {
        Self(next_id())
    }

    /// Returns the id of `value`: its address. Valid while `value` is neither moved nor dropped.
    #[inline]
    pub(crate) fn of<T>(value: &T) -> Self {
        Self(address_of(value))
    }
}

impl ThreadId {
    /// Returns a new id, for a thread that is about to start.
    pub(crate) fn new() -> Self {
        Self(next_id())
    }

    /// Returns a number that no other thread has. It is odd.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl AwaitedId {
    /// Stands for everything that may be waited for, where the needs are not known beforehand.
    pub(crate) const ANYTHING: Self = Self(0);

    /// Returns the id of `value`: its address. Valid while `value` is neither moved nor dropped.
    pub(crate) fn of<T>(value: &T) -> Self {
        Self(address_of(value))
    }

    /// Returns the id of an item; see [`set_item`].
    #[cfg(any(feature = "events", feature = "driver"))]
    pub(crate) fn of_item(item: usize) -> Self {
        Self(item as u64)
    }
}

impl From<PoolId> for AwaitedId {
    fn from(pool: PoolId) -> Self {
        Self(pool.0)
    }
}

impl From<ThreadId> for AwaitedId {
    fn from(thread: ThreadId) -> Self {
        Self(thread.0)
    }
}

impl From<GroupId> for AwaitedId {
    fn from(group: GroupId) -> Self {
        Self(group.0)
    }
}

/// Returns a new id. Ids are odd and addresses are even, so they never collide. The first is three.
fn next_id() -> u64 {
    static NEXT: IdGenerator = IdGenerator::new();
    2 * NEXT.next() + 1
}

/// Returns the address of `value`, which is even.
#[inline]
fn address_of<T>(value: &T) -> u64 {
    const { assert!(align_of::<T>() > 1) };
    std::ptr::from_ref(value).addr() as u64
}

/// A task on this thread's stack.
#[derive(Clone, Copy)]
struct Frame {
    /// The pool of the task.
    pool: PoolId,
    /// What the task belongs to. [`GroupId::NONE`] for a task that cannot be waited for.
    group: GroupId,
    /// The item of its group that the task handles, or that it belongs to; zero for none. The group
    /// decides what stands for an item. Odd if the thread runs no task; see [`no_task`].
    item: usize,
}

impl Frame {
    /// Returns `true` if the thread runs the task.
    fn is_task(&self) -> bool {
        self.item.is_multiple_of(2)
    }

    /// Returns how many tasks of the group end only with this frame.
    fn tasks(&self) -> usize {
        if self.is_task() { 1 } else { self.item / 2 }
    }
}

/// Returns the item of a frame whose thread runs no task: it cancels tasks, or drops what is left
/// of them. `ending` tasks are counted as done only after that.
fn no_task(ending: usize) -> usize {
    ending.saturating_mul(2) | 1
}

/// The context of one thread.
struct Context {
    /// The pool that this thread is a worker of, and its counters there.
    worker: RefCell<Option<(PoolId, Arc<WorkerCounters>)>>,
    /// The tasks on this thread's stack, the innermost last.
    frames: RefCell<Vec<Frame>>,
}

thread_local! {
    static CONTEXT: Context =
        const { Context { worker: RefCell::new(None), frames: RefCell::new(Vec::new()) } };
    /// The pool that this thread is or was a worker of. Has no destructor: it can be read until the
    /// thread ends.
    static LAST_POOL: Cell<PoolId> = const { Cell::new(PoolId::NONE) };
    /// The id of this thread; zero until first used. Has no destructor either.
    static THREAD: Cell<ThreadId> = const { Cell::new(ThreadId(0)) };
    /// Whether this thread drives the futures of a pool. Has no destructor either.
    #[cfg(feature = "driver")]
    static IS_IO_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Makes this thread a worker of `pool`, until [`clear_worker`], with an id that other threads
/// know.
pub(crate) fn set_worker(pool: PoolId, counters: Arc<WorkerCounters>, id: ThreadId) {
    THREAD.with(|thread| thread.set(id));
    let before = CONTEXT.with(|context| context.worker.replace(Some((pool, counters))));
    assert!(before.is_none(), "a thread is a worker of one pool only");
    LAST_POOL.with(|last_pool| last_pool.set(pool));
}

/// Makes this thread an external thread again. Call it before its counters are given to another
/// worker.
pub(crate) fn clear_worker() {
    let worker = CONTEXT.try_with(|context| context.worker.take());
    drop(worker);
}

/// Makes this thread one that drives the futures of a pool, with an id that other threads know.
#[cfg(feature = "driver")]
pub(crate) fn set_io_thread(id: ThreadId) {
    THREAD.with(|thread| thread.set(id));
    IS_IO_THREAD.with(|is_io_thread| is_io_thread.set(true));
}

/// Returns `true` if this thread drives the futures of any pool.
#[cfg(feature = "driver")]
pub(crate) fn is_io_thread() -> bool {
    IS_IO_THREAD.with(Cell::get)
}

/// Returns `true` if this thread is a worker of `pool`.
pub(crate) fn is_worker_of(pool: PoolId) -> bool {
    let is_own = |context: &Context| matches!(&*context.worker.borrow(), Some((own, _)) if *own == pool);
    CONTEXT.try_with(is_own).unwrap_or(false)
}

/// Returns the preferred shard of this thread: a different number for each worker of a pool, zero
/// for external threads.
#[inline]
pub(crate) fn shard() -> usize {
    let of_worker =
        |context: &Context| context.worker.borrow().as_ref().map_or(0, |(_, counters)| counters.worker() + 1);
    CONTEXT.try_with(of_worker).unwrap_or(0)
}

/// Returns `true` if this thread is a worker of `pool`, or was one and is about to end.
pub(crate) fn was_worker_of(pool: PoolId) -> bool {
    LAST_POOL.with(Cell::get) == pool
}

/// Returns `true` if this thread is a worker of `pool`, or an external thread that runs one of its
/// tasks.
pub(crate) fn is_inside(pool: PoolId) -> bool {
    is_worker_of(pool) || any_frame(|frame| frame.pool == pool)
}

/// Returns `true` if a task of `group` is on this thread's stack.
pub(crate) fn is_member_of(group: GroupId) -> bool {
    any_frame(|frame| frame.group == group)
}

/// Sets the item of the innermost task on this thread's stack; zero stands for none.
#[cfg(any(feature = "events", feature = "driver"))]
pub(crate) fn set_item(item: usize) {
    with_innermost(|innermost| {
        if innermost.is_task() {
            innermost.item = item;
        }
    });
}

/// Notes that the innermost frame on this thread's stack is not that of a running task. Its thread
/// cancels tasks, or drops what is left of them. `ending` tasks of the group end only with the
/// frame.
pub(crate) fn set_no_task(ending: usize) {
    with_innermost(|innermost| innermost.item = no_task(ending));
}

/// Notes that the innermost frame is that of a thread that cancels the task which `group` stands
/// for. The task ends only with the frame.
pub(crate) fn set_cancelling(group: GroupId) {
    with_innermost(|innermost| (innermost.group, innermost.item) = (group, no_task(1)));
}

fn with_innermost(f: impl FnOnce(&mut Frame)) {
    let _ = CONTEXT.try_with(|context| {
        if let Some(innermost) = context.frames.borrow_mut().last_mut() {
            f(innermost);
        }
    });
}

/// Returns `true` if a task of `group` that handles `item` is on this thread's stack.
#[cfg(feature = "events")]
pub(crate) fn is_handling(group: GroupId, item: usize) -> bool {
    any_frame(|frame| frame.group == group && frame.item == item)
}

/// The position of a thread with respect to a pool and one of its groups.
pub(crate) struct Position {
    /// Whether the thread is a worker of the pool.
    pub(crate) is_worker: bool,
    /// Whether a task of the group is on its stack.
    pub(crate) is_member: bool,
    /// The number of tasks on its stack.
    pub(crate) depth: usize,
}

/// Returns the position of this thread, with one access to its context.
#[inline]
pub(crate) fn position(pool: PoolId, group: GroupId) -> Position {
    let of_thread = |context: &Context| {
        let frames = context.frames.borrow();
        Position {
            is_worker: context.worker.borrow().as_ref().is_some_and(|(own, _)| *own == pool),
            is_member: frames.iter().any(|frame| frame.group == group),
            depth: frames.len(),
        }
    };
    CONTEXT.try_with(of_thread).unwrap_or(Position { is_worker: false, is_member: false, depth: 0 })
}

/// The tasks that a wait of a thread would block.
#[derive(Default)]
pub(crate) struct Stack {
    /// The pool that the thread is a worker of.
    pub(crate) worker: Option<PoolId>,
    /// The thread.
    pub(crate) thread: ThreadId,
    /// The number of tasks on the stack.
    pub(crate) depth: usize,
    /// Those tasks, their items, groups and pools, and the thread itself; each once, in order.
    pub(crate) names: Vec<AwaitedId>,
    /// The groups of the tasks that end only with a frame of the stack, and their number in each.
    pub(crate) tasks: Vec<(AwaitedId, usize)>,
    /// The innermost of these tasks, if the thread is a worker.
    pub(crate) innermost: Option<RunningTask>,
}

/// Returns the tasks that a wait of this thread would block. Allocates.
pub(crate) fn stack() -> Stack {
    let thread = thread_id();
    let of_thread = |context: &Context| {
        let frames = context.frames.borrow();
        let of_frame = |frame: &Frame| [AwaitedId::from(frame.pool), AwaitedId::from(frame.group)];
        let mut names: Vec<AwaitedId> = frames.iter().flat_map(of_frame).collect();
        names.extend(frames.iter().filter(|frame| frame.is_task()).map(|frame| AwaitedId(frame.item as u64)));
        names.push(thread.into());
        names.sort_unstable();
        names.dedup();
        names.retain(|name| *name != AwaitedId::ANYTHING);
        let grouped = frames.iter().filter(|frame| frame.group != GroupId::NONE && frame.tasks() > 0);
        let tasks = grouped.map(|frame| (frame.group.into(), frame.tasks())).collect();
        let (worker, depth) = (context.worker.borrow().as_ref().map(|(pool, _)| *pool), frames.len());
        drop(frames);
        Stack { worker, thread, depth, names, tasks, innermost: current_task() }
    };
    CONTEXT.try_with(of_thread).unwrap_or_default()
}

/// Returns the id of the innermost task on this thread's stack, if it can be waited for.
#[cfg(feature = "driver")]
pub(crate) fn innermost_group() -> Option<AwaitedId> {
    let innermost = |context: &Context| context.frames.borrow().last().map(|frame| frame.group);
    let group = CONTEXT.try_with(innermost).ok().flatten();
    group.filter(|group| *group != GroupId::NONE).map(AwaitedId::from)
}

/// Returns the pool that this thread is a worker of.
pub(crate) fn worker_pool() -> Option<PoolId> {
    CONTEXT.try_with(|context| context.worker.borrow().as_ref().map(|(pool, _)| *pool)).ok().flatten()
}

/// Returns the innermost task on this thread's stack, if the thread is a worker.
pub(crate) fn current_task() -> Option<RunningTask> {
    let counters = |context: &Context| context.worker.borrow().as_ref().map(|(_, counters)| Arc::clone(counters));
    CONTEXT.try_with(counters).ok().flatten()?.running()
}

/// Returns the number of tasks on this thread's stack.
pub(crate) fn depth() -> usize {
    CONTEXT.try_with(|context| context.frames.borrow().len()).unwrap_or(0)
}

/// Returns the id of this thread.
pub(crate) fn thread_id() -> ThreadId {
    THREAD.with(|thread| {
        if thread.get() == ThreadId(0) {
            thread.set(ThreadId(next_id()));
        }
        thread.get()
    })
}

/// Calls `f` with one more frame on this thread's stack, for a task of `pool` and `group`.
///
/// Passes the counters of this thread if it is a worker of `pool`, and whether other tasks are
/// below the new frame.
#[inline]
pub(crate) fn with_frame<T>(pool: PoolId, group: GroupId, f: impl FnOnce(Option<&WorkerCounters>, bool) -> T) -> T {
    let mut f = Some(f);
    let mut call = |counters: Option<&WorkerCounters>, is_nested| (f.take().expect("called once"))(counters, is_nested);
    let called = CONTEXT.try_with(|context| {
        let mut frames = context.frames.borrow_mut();
        let is_nested = !frames.is_empty();
        frames.push(Frame { pool, group, item: 0 });
        drop(frames);
        let _guard = FrameGuard(context);
        let worker = context.worker.borrow();
        let counters = worker.as_ref().filter(|(own, _)| *own == pool).map(|(_, counters)| &**counters);
        call(counters, is_nested)
    });
    called.unwrap_or_else(|_| call(None, false))
}

/// Pops the innermost frame when dropped.
struct FrameGuard<'a>(&'a Context);

impl Drop for FrameGuard<'_> {
    fn drop(&mut self) {
        self.0.frames.borrow_mut().pop();
    }
}

fn any_frame(test: impl FnMut(&Frame) -> bool) -> bool {
    CONTEXT.try_with(|context| context.frames.borrow().iter().any(test)).unwrap_or(false)
}
