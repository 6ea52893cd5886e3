//! What this thread is in the eyes of the crate: a worker of some pool or not, and which tasks are on its stack.
//!
//! While a thread's locals are being destroyed it counts as an outside thread with an empty stack.

use std::cell::{Cell, RefCell};

use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, IdGenerator, thread_local};

/// The deepest nesting of tasks on one stack at which a waiting worker still helps. Past it, a wait is an error.
pub(crate) const MAX_HELP_DEPTH: usize = 64;
/// The deepest nesting at which a worker that submits into its full queue still runs the job at once.
pub(crate) const MAX_INLINE_DEPTH: usize = 16;

/// Names a pool, a group or a thread; never used twice at the same time. Zero names nothing.
pub(crate) type Name = u64;

/// The name of what lies where `thing` lies, for as long as it does; costs nothing. The names that are given out are odd,
/// and such an address is even.
#[inline]
pub(crate) fn name_of<T>(thing: &T) -> Name {
    const { assert!(align_of::<T>() > 1) };
    std::ptr::from_ref(thing).addr() as Name
}

/// Gives out a new name.
pub(crate) fn new_name() -> Name {
    static NEXT: IdGenerator = IdGenerator::new();
    2 * NEXT.next() + 1
}

/// One task on this thread's stack.
#[derive(Clone, Copy)]
struct Frame {
    pool: Name,
    /// The group it belongs to, or its own name if it can be joined, or zero.
    group: Name,
    /// What of its group it is at, or zero. What stands for it is the group's business.
    #[cfg(feature = "events")]
    item: usize,
}

struct Local {
    /// The pool this thread works for, and its record there.
    worker: RefCell<Option<(Name, Arc<WorkerCounters>)>>,
    /// The tasks running on this thread, the innermost last.
    frames: RefCell<Vec<Frame>>,
}

thread_local! {
    static LOCAL: Local =
        const { Local { worker: RefCell::new(None), frames: RefCell::new(Vec::new()) } };
    /// The pool that this thread has ever been a worker of, or zero. No destructor: it can be read to the very end.
    static LAST_POOL: Cell<Name> = const { Cell::new(0) };
    /// The name of this thread; zero until somebody asks. Has no destructor either.
    static THREAD: Cell<Name> = const { Cell::new(0) };
}

/// Makes this thread a worker of `pool`, until [`clear_worker`].
pub(crate) fn set_worker(pool: Name, record: Arc<WorkerCounters>) {
    let before = LOCAL.with(|local| local.worker.replace(Some((pool, record))));
    assert!(before.is_none(), "a thread works for one pool only");
    LAST_POOL.with(|workplace| workplace.set(pool));
}

/// Makes this thread an outside thread again. Its record may be handed on afterwards, never before.
pub(crate) fn clear_worker() {
    let record = LOCAL.try_with(|local| local.worker.take());
    drop(record);
}

/// Whether this thread is a worker of `pool`.
pub(crate) fn is_worker_of(pool: Name) -> bool {
    is_worker(|own| own == pool)
}

/// Tells the workers of a pool apart, where they would else wait for each other; zero for outside threads.
#[inline]
pub(crate) fn shard() -> usize {
    LOCAL.try_with(|local| local.worker.borrow().as_ref().map_or(0, |(_, record)| record.worker() + 1)).unwrap_or(0)
}

/// Whether this thread is a worker of `pool`, or was one and is about to end.
pub(crate) fn was_worker_of(pool: Name) -> bool {
    LAST_POOL.with(Cell::get) == pool
}

/// Whether this thread is a worker of `pool`, or an outside thread that runs one of its tasks.
pub(crate) fn is_inside(pool: Name) -> bool {
    is_worker_of(pool) || any_frame(|frame| frame.pool == pool)
}

/// Whether a task of `group` is on this thread's stack.
pub(crate) fn is_member_of(group: Name) -> bool {
    any_frame(|frame| frame.group == group)
}

/// Says what the innermost task on this thread's stack is at from now on; zero stands for nothing.
#[cfg(feature = "events")]
pub(crate) fn set_item(item: usize) {
    let _ = LOCAL.try_with(|local| {
        if let Some(innermost) = local.frames.borrow_mut().last_mut() {
            innermost.item = item;
        }
    });
}

/// Whether a task of `group` that is at `item` is on this thread's stack.
#[cfg(feature = "events")]
pub(crate) fn is_handling(group: Name, item: usize) -> bool {
    any_frame(|frame| frame.group == group && frame.item == item)
}

/// What this thread is to a pool and a group of it.
pub(crate) struct Position {
    /// Whether it is a worker of the pool.
    pub(crate) is_worker: bool,
    /// Whether a task of the group is on its stack.
    pub(crate) is_member: bool,
    /// How many tasks are on its stack.
    pub(crate) depth: usize,
}

/// All of that at one look.
#[inline]
pub(crate) fn position(pool: Name, group: Name) -> Position {
    let look = |local: &Local| {
        let frames = local.frames.borrow();
        Position {
            is_worker: local.worker.borrow().as_ref().is_some_and(|(own, _)| *own == pool),
            is_member: frames.iter().any(|frame| frame.group == group),
            depth: frames.len(),
        }
    };
    LOCAL.try_with(look).unwrap_or(Position { is_worker: false, is_member: false, depth: 0 })
}

/// What a wait of this thread holds up.
#[derive(Default)]
pub(crate) struct Stack {
    /// The pool that the thread works for.
    pub(crate) worker: Option<Name>,
    pub(crate) thread: Name,
    /// How many tasks are on the stack.
    pub(crate) depth: usize,
    /// Those tasks, what they are at, their groups and pools; each once.
    pub(crate) names: Vec<Name>,
}

/// What a wait of this thread holds up. Allocates.
pub(crate) fn stack() -> Stack {
    let thread = thread_id();
    let look = |local: &Local| {
        let frames = local.frames.borrow();
        let mut names: Vec<Name> = frames.iter().flat_map(|frame| [frame.pool, frame.group]).collect();
        #[cfg(feature = "events")]
        names.extend(frames.iter().map(|frame| frame.item as Name));
        names.sort_unstable();
        names.dedup();
        names.retain(|name| *name != 0);
        Stack { worker: local.worker.borrow().as_ref().map(|(pool, _)| *pool), thread, depth: frames.len(), names }
    };
    LOCAL.try_with(look).unwrap_or_default()
}

/// How many tasks are on this thread's stack.
pub(crate) fn depth() -> usize {
    LOCAL.try_with(|local| local.frames.borrow().len()).unwrap_or(0)
}

/// The name of this thread.
pub(crate) fn thread_id() -> Name {
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(new_name());
        }
        thread.get()
    })
}

/// Calls `f` with a task of `pool` and `group` on this thread's stack; zero stands for no pool and no group. Passes on
/// the record of this thread in `pool`, if it is a worker there, and whether there are tasks below this one.
#[inline]
pub(crate) fn with_frame<T>(pool: Name, group: Name, f: impl FnOnce(Option<&WorkerCounters>, bool) -> T) -> T {
    let mut f = Some(f);
    let mut call = |record: Option<&WorkerCounters>, is_nested| (f.take().expect("called once"))(record, is_nested);
    let entered = LOCAL.try_with(|local| {
        let mut frames = local.frames.borrow_mut();
        let is_nested = !frames.is_empty();
        frames.push(Frame {
            pool,
            group,
            #[cfg(feature = "events")]
            item: 0,
        });
        drop(frames);
        let _frame = FrameGuard(local);
        let worker = local.worker.borrow();
        let record = worker.as_ref().filter(|(own, _)| *own == pool).map(|(_, record)| &**record);
        call(record, is_nested)
    });
    entered.unwrap_or_else(|_| call(None, false))
}

/// Takes the innermost task off the stack when dropped.
struct FrameGuard<'a>(&'a Local);

impl Drop for FrameGuard<'_> {
    fn drop(&mut self) {
        self.0.frames.borrow_mut().pop();
    }
}

fn is_worker(test: impl FnOnce(Name) -> bool) -> bool {
    LOCAL.try_with(|local| matches!(&*local.worker.borrow(), Some((own, _)) if test(*own))).unwrap_or(false)
}

fn any_frame(test: impl FnMut(&Frame) -> bool) -> bool {
    LOCAL.try_with(|local| local.frames.borrow().iter().any(test)).unwrap_or(false)
}
