//! What all parts of one bus need: the pool, the hooks, who waits for quiet.

use std::collections::BTreeMap;

use super::dead_letter::{DeadLetter, UnhandledEvent};
use super::erased::AnyMailbox;
use super::notify::Notify;
use crate::nesting;
use crate::pool::inner::PoolInner;
use crate::sync::thread_name::thread_name;
use crate::sync::{Arc, AtomicUsize, CachePadded, Mutex, Ordering, Weak};
use crate::task::context::{AwaitedId, GroupId, ThreadId};
use crate::timer::thread::TimerRefused;

/// A hook for events that no handler could handle.
pub(super) type DeadLetterHook = Box<dyn Fn(DeadLetter) + Send + Sync>;
/// A hook for events that nobody listens to.
pub(super) type UnhandledHook = Box<dyn Fn(&UnhandledEvent<'_>) + Send + Sync>;

/// The inside of one bus, but for who listens.
pub(super) struct BusInner {
    pub(super) pool: Arc<PoolInner>,
    /// What the pool's threads are named after.
    thread_name: String,
    /// What mailboxes hold unless told otherwise.
    pub(super) mailbox_capacity: usize,
    pub(super) hooks: BusHooks,
    /// Events that have deliveries to come.
    pending: CachePadded<AtomicUsize>,
    /// Beats when there are none.
    pub(super) idle: Notify,
    /// Beats with every step that a worker might help with, or wait for.
    pub(super) steps: Notify,
    /// Every mailbox there is, by the name of its group: an idle bus is waited for by what is in them.
    pub(super) mailboxes: Mutex<BTreeMap<GroupId, Weak<dyn AnyMailbox>>>,
    /// The threads of publishers that wait for room within a task, by their waiters.
    pub(super) publishers: Mutex<BTreeMap<AwaitedId, ThreadId>>,
}

/// What users have hung into the bus.
#[derive(Default)]
pub(super) struct BusHooks {
    pub(super) on_dead_letter: Option<DeadLetterHook>,
    pub(super) on_unhandled: Option<UnhandledHook>,
}

impl BusInner {
    pub(super) fn new(pool: Arc<PoolInner>, thread_name: String, mailbox_capacity: usize, hooks: BusHooks) -> Self {
        let (idle, steps) = (Notify::default(), Notify::default());
        let (pending, mailboxes, publishers) = (CachePadded::default(), Mutex::default(), Mutex::default());
        Self { pool, thread_name, mailbox_capacity, hooks, pending, idle, steps, mailboxes, publishers }
    }

    /// Calls a hook because of an event of this generation. Past the bound of rule 3 of `nesting` it is skipped, and that
    /// is counted.
    pub(super) fn call_hook(&self, generation: usize, hook: impl FnOnce()) {
        let executor = &self.pool.executor;
        if generation < nesting::MAX_DEPTH {
            nesting::in_generation(generation + 1, || executor.call_hook(hook));
        } else {
            executor.skip_hook();
        }
    }

    /// An event is about to be delivered.
    pub(super) fn begin_event(&self) {
        self.pending.0.fetch_add(1, Ordering::SeqCst);
    }

    /// All deliveries of an event have ended.
    pub(super) fn end_event(&self) {
        // ORDERING: SeqCst, before the beat; the rule of `pulse`. So is the step itself, which has landed in the envelope.
        if self.pending.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify();
        }
        self.steps.notify();
    }

    /// Whether no event has deliveries to come.
    pub(super) fn is_idle(&self) -> bool {
        // ORDERING: SeqCst, the rule of `pulse`.
        self.pending.0.load(Ordering::SeqCst) == 0
    }

    /// Whether a report has left something behind, so that no wait without a limit goes on.
    pub(super) fn is_left_behind(&self) -> bool {
        self.pool.left_behind.reason().is_some()
    }

    /// Sees to it that delays can be begun.
    pub(super) fn start_timer(&self) -> Result<(), TimerRefused> {
        // Without a thread there is no place for a timer either.
        let name = || thread_name(&self.thread_name, "timer");
        self.pool.timers.start(name).map_err(|_| TimerRefused::Full)
    }
}
