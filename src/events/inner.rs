//! The shared inside of one bus: the pool, the hooks, and the notification of waiters.

use std::collections::BTreeMap;

use super::counters::EventCounters;
use super::dead_letter::{DeadLetter, UnhandledEvent};
use super::members::Members;
use super::notify::Notify;
use crate::cancel::token::CancelGuard;
use crate::nesting;
use crate::pool::inner::PoolInner;
use crate::sync::{Arc, CachePadded, Mutex, Ordering};
use crate::task::context::{AwaitedId, ThreadId};
use crate::timer::thread::TimerRefused;

/// A hook for events that no handler could handle.
pub(super) type DeadLetterHook = Box<dyn Fn(DeadLetter) + Send + Sync>;
/// A hook for events without a subscription.
pub(super) type UnhandledHook = Box<dyn Fn(&UnhandledEvent<'_>) + Send + Sync>;

/// The shared inside of one bus, except for its subscriptions, which are in the registry.
pub(super) struct BusInner {
    /// The pool whose workers make the deliveries.
    pub(super) pool: Arc<PoolInner>,
    /// The default capacity of mailboxes.
    pub(super) mailbox_capacity: usize,
    /// The user's hooks.
    pub(super) hooks: BusHooks,
    /// The counters of events.
    pub(super) events: CachePadded<EventCounters>,
    /// Notified when no event is pending.
    pub(super) idle: Notify,
    /// Notified with each step that a waiting worker may help with, or waits for.
    pub(super) steps: Notify,
    /// All subscriptions. A wait for an idle bus reports what they need.
    pub(super) members: Mutex<Members>,
    /// The threads that publish within a task and wait for room, by their watchers.
    pub(super) publishers: Mutex<BTreeMap<AwaitedId, ThreadId>>,
}

/// The user's hooks of a bus.
#[derive(Default)]
pub(super) struct BusHooks {
    /// Called with each event that a subscription could not handle.
    pub(super) on_dead_letter: Option<DeadLetterHook>,
    /// Called with each event without a subscription.
    pub(super) on_unhandled: Option<UnhandledHook>,
}

impl BusInner {
    pub(super) fn new(pool: Arc<PoolInner>, mailbox_capacity: usize, hooks: BusHooks) -> Self {
        let (idle, steps) = (Notify::default(), Notify::default());
        let (events, members, publishers) = (CachePadded::default(), Mutex::default(), Mutex::default());
        Self { pool, mailbox_capacity, hooks, events, idle, steps, members, publishers }
    }

    /// Calls a hook for an event of `generation`. Beyond the limit of rule 3 of `nesting`, skips
    /// the hook and counts that.
    pub(super) fn call_hook(&self, generation: usize, hook: impl FnOnce()) {
        let executor = &self.pool.executor;
        if generation < nesting::MAX_DEPTH {
            nesting::in_generation(generation + 1, || executor.call_hook(hook));
        } else {
            executor.skip_hook();
        }
    }

    /// Counts an event that is about to be delivered.
    pub(super) fn begin_event(&self) {
        self.events.0.pending.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts an event whose deliveries have all ended.
    pub(super) fn end_event(&self) {
        // ORDERING: SeqCst, before the notification; the rule of `notify`. The same holds for the
        // change itself: the envelope has counted the delivery as complete.
        if self.events.0.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify();
        }
        self.steps.notify();
    }

    /// Returns `true` if every delivery of every event has ended.
    pub(super) fn is_idle(&self) -> bool {
        // ORDERING: SeqCst, the rule of `notify`.
        self.events.0.pending.load(Ordering::SeqCst) == 0
    }

    /// Returns `true` if a report has left something behind, so that no wait without a limit
    /// continues.
    pub(super) fn is_left_behind(&self) -> bool {
        self.pool.left_behind.reason().is_some()
    }

    /// Notifies the waits for an idle bus when a report leaves something behind. Called after the
    /// wait has announced itself and before it checks: so the notification or the check ends it.
    pub(super) fn notify_idle_when_left_behind(self: &Arc<Self>) -> CancelGuard {
        let inner = Arc::clone(self);
        self.pool.left_behind.on_cancel(move || inner.idle.notify())
    }

    /// Starts the timer thread unless it is running. Deliveries can be delayed afterwards.
    pub(super) fn start_timer(&self) -> Result<(), TimerRefused> {
        // Without the thread, no timer can be added either.
        self.pool.timers.start_named().map_err(|_| TimerRefused::Full)
    }
}
