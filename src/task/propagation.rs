//! Contexts that are carried from the submitter of a task to the thread that runs it.
//!
//! | slot of a task | meaning | changed by | next |
//! |---|---|---|---|
//! | none | the task has no context, or has ended | its submitter | *here* |
//! | *here* | the context waits for a thread that enters it | a thread that enters; the end of the task, or a run that ends it | *out*; none |
//! | *out* | a thread is in the context | that thread; the end of the task | *here*; *ended* |
//! | *ended* | the task has ended, and a thread is still in the context | that thread | none |
//!
//! Rules:
//! 1. A context is captured right after its task was admitted, before another thread can find the
//!    task. The task ends by one of the steps that also call the observer, which forget it.
//! 2. All changes are made under the lock of a shard, which is taken alone. User code (captures,
//!    wrappers and their destructors) is called outside of it.
//! 3. A thread that enters a context takes it out, so that the lock is not held meanwhile. A second
//!    thread that would enter meanwhile enters nothing. A run that ends the task takes it for good.
//!
//! Race:
//! - *Enter and end* (a future that is polled, and a cancellation): the end finds *out*, and leaves
//!   the context to the thread that is in it.
//!
//! The slots are beside the tasks, not in them. So a pool without propagation has no word for a
//! context in any task, and all kinds of tasks have contexts in the same way.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
#[cfg(any(feature = "retry", feature = "driver"))]
use std::mem;

use crate::nesting;
use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::observe::task_origin::TaskOrigin;
#[cfg(feature = "tracing")]
use crate::observe::task_span::{SourceSpan, TaskSpan};
use crate::sync::Mutex;

/// The number of shards; a power of two.
const SHARDS: usize = 16;
/// An empty shard with room for more slots than this gives its memory back.
const KEPT_CAPACITY: usize = 1_024;

/// Calls what it is given inside a context.
pub(crate) type Wrapper = Box<dyn FnMut(&mut dyn FnMut()) + Send>;

/// The user's hook that captures the context of the current thread.
pub(crate) type Capture = Box<dyn Fn() -> Wrapper + Send + Sync>;

/// The user's hook that returns the headers which carry the context of the current thread.
#[cfg(any(feature = "grpc", feature = "nats"))]
pub(crate) type Inject = Box<dyn Fn(&mut dyn FnMut(&str, &str)) + Send + Sync>;

/// The user's hook that makes a context of the headers of a message.
#[cfg(feature = "nats")]
pub(crate) type Extract = Box<dyn Fn(&[(&str, &str)]) -> Wrapper + Send + Sync>;

/// What is run in a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The closure of a task.
    Body,
    /// An attempt of a task that may make several.
    #[cfg_attr(not(feature = "retry"), allow(dead_code, reason = "for the feature `retry`"))]
    Attempt,
    /// A poll or the drop of a future.
    #[cfg_attr(not(feature = "driver"), allow(dead_code, reason = "for the feature `driver`"))]
    Poll,
    /// The hooks of a pool.
    #[cfg_attr(not(feature = "retry"), allow(dead_code, reason = "for the feature `retry`"))]
    Hooks,
}

/// The contexts of a pool's tasks.
#[derive(Default)]
pub(crate) struct Propagation {
    /// The user's hook.
    pub(crate) capture: Option<Capture>,
    /// Whether each task has a span.
    #[cfg(feature = "tracing")]
    pub(crate) has_spans: bool,
    /// The user's hook for messages that are sent.
    #[cfg(any(feature = "grpc", feature = "nats"))]
    pub(crate) inject: Option<Inject>,
    /// The user's hook for messages that arrive.
    #[cfg(feature = "nats")]
    pub(crate) extract: Option<Extract>,
    /// The slots of tasks that have not ended, by the id of the task.
    shards: [Mutex<Slots>; SHARDS],
}

/// A context, until it is dropped.
#[derive(Default)]
pub(crate) struct Carried {
    wrapper: Option<Wrapper>,
    /// Entered last, so that it is the current one.
    #[cfg(feature = "tracing")]
    span: Option<CarriedSpan>,
}

/// The span of a context.
#[cfg(feature = "tracing")]
enum CarriedSpan {
    /// That of a task.
    Task(TaskSpan),
    /// That of a thread which has set a timer.
    Source(SourceSpan),
}

/// The states of the table above.
enum Slot {
    Here(Carried),
    #[cfg_attr(not(any(feature = "retry", feature = "driver")), allow(dead_code, reason = "for these features"))]
    Out,
    #[cfg_attr(not(any(feature = "retry", feature = "driver")), allow(dead_code, reason = "for these features"))]
    Ended(Option<TaskOutcome>),
}

type Slots = HashMap<u64, Slot, BuildHasherDefault<IdHasher>>;

impl Propagation {
    /// Returns `true` if tasks have contexts.
    pub(crate) fn is_set(&self) -> bool {
        #[cfg(feature = "tracing")]
        if self.has_spans {
            return true;
        }
        self.capture.is_some()
    }

    /// Captures the context of this thread for a task.
    pub(crate) fn capture(&self, task: &TaskOrigin<'_>) {
        let carried = Carried {
            wrapper: self.capture.as_ref().map(|capture| capture()),
            #[cfg(feature = "tracing")]
            span: self.has_spans.then(|| CarriedSpan::Task(TaskSpan::new(task))),
        };
        let before = self.shard(task.id).lock().insert(task.id.0, Slot::Here(carried));
        debug_assert!(before.is_none(), "an id is never used again");
    }

    /// Captures the context of this thread for something that submits tasks later.
    pub(crate) fn capture_source(&self) -> Carried {
        Carried {
            wrapper: self.capture.as_ref().map(|capture| capture()),
            #[cfg(feature = "tracing")]
            span: self.has_spans.then(|| CarriedSpan::Source(SourceSpan::current())),
        }
    }

    /// Returns the context of a task that ends on this thread. The caller ends it.
    pub(crate) fn remove(&self, id: TaskId) -> Option<Carried> {
        if !self.is_set() {
            return None;
        }
        let slot = Self::remove_slot(&mut self.shard(id).lock(), id);
        match slot? {
            Slot::Here(carried) => Some(carried),
            Slot::Out | Slot::Ended(_) => unreachable!("a future is not polled while its task runs"),
        }
    }

    /// Drops the context of a task that has ended. Without an outcome it was refused.
    pub(crate) fn forget(&self, id: TaskId, outcome: Option<TaskOutcome>) {
        if !self.is_set() {
            return;
        }
        let mut slots = self.shard(id).lock();
        let Some(slot) = slots.get_mut(&id.0) else { return };
        if matches!(slot, Slot::Out) {
            *slot = Slot::Ended(outcome);
            return;
        }
        let slot = Self::remove_slot(&mut slots, id);
        drop(slots);
        if let Some(Slot::Here(carried)) = slot {
            carried.end(outcome);
        }
    }

    fn remove_slot(slots: &mut Slots, id: TaskId) -> Option<Slot> {
        let slot = slots.remove(&id.0);
        if slots.is_empty() && slots.capacity() > KEPT_CAPACITY {
            *slots = Slots::default();
        }
        slot
    }

    fn shard(&self, id: TaskId) -> &Mutex<Slots> {
        &self.shards[id.0 as usize % SHARDS]
    }
}

/// For tasks that are entered more than once.
#[cfg(any(feature = "retry", feature = "driver"))]
impl Propagation {
    /// Calls `run` in the context of a task, if it has one.
    pub(crate) fn within(&self, id: TaskId, part: Part, run: &mut dyn FnMut()) {
        let Some(mut entered) = self.take(id) else { return run() };
        entered.carried.as_mut().expect("it is returned when dropped").enter(part, run);
    }

    fn take(&self, id: TaskId) -> Option<Entered<'_>> {
        if !self.is_set() {
            return None;
        }
        let mut slots = self.shard(id).lock();
        let slot = slots.get_mut(&id.0).filter(|slot| matches!(slot, Slot::Here(_)))?;
        match mem::replace(slot, Slot::Out) {
            Slot::Here(carried) => Some(Entered { propagation: self, id, carried: Some(carried) }),
            Slot::Out | Slot::Ended(_) => unreachable!("the slot was checked under the same lock"),
        }
    }
}

/// A context that this thread has entered. Puts it back when dropped, also by a panic of the
/// wrapper.
#[cfg(any(feature = "retry", feature = "driver"))]
struct Entered<'a> {
    propagation: &'a Propagation,
    id: TaskId,
    /// Taken when dropped.
    carried: Option<Carried>,
}

#[cfg(any(feature = "retry", feature = "driver"))]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Some(carried) = self.carried.take() else { return };
        let mut slots = self.propagation.shard(self.id).lock();
        match slots.get_mut(&self.id.0) {
            Some(slot @ Slot::Out) => *slot = Slot::Here(carried),
            _ => {
                let slot = Propagation::remove_slot(&mut slots, self.id);
                drop(slots);
                carried.end(match slot {
                    Some(Slot::Ended(outcome)) => outcome,
                    _ => None,
                });
            }
        }
    }
}

#[cfg(feature = "nats")]
impl From<Wrapper> for Carried {
    fn from(wrapper: Wrapper) -> Self {
        Self { wrapper: Some(wrapper), ..Self::default() }
    }
}

impl Carried {
    /// Calls `run` in the context. Panics if the wrapper does.
    pub(crate) fn enter(&mut self, part: Part, run: &mut dyn FnMut()) {
        #[cfg(feature = "tracing")]
        let run = &mut || match &mut self.span {
            Some(CarriedSpan::Task(span)) => match part {
                Part::Hooks => span.enter_for_hooks(run),
                Part::Body | Part::Attempt | Part::Poll => span.enter(part == Part::Attempt, run),
            },
            Some(CarriedSpan::Source(span)) => span.enter(run),
            None => run(),
        };
        #[cfg(not(feature = "tracing"))]
        let _ = part;
        match &mut self.wrapper {
            Some(wrapper) => wrapper(run),
            None => run(),
        }
    }

    /// Drops the context, whose task has ended.
    pub(crate) fn end(self, outcome: Option<TaskOutcome>) {
        nesting::call_back(move || {
            #[cfg(feature = "tracing")]
            if let Some(CarriedSpan::Task(span)) = &self.span {
                span.end(outcome);
            }
            #[cfg(not(feature = "tracing"))]
            let _ = outcome;
            drop(self);
        });
    }
}

/// A hasher for ids, which are distinct already: spreads their low bits.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is one number")
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
