//! Cooperative cancellation: a tree of tokens.
//!
//! | state | meaning | next |
//! |---|---|---|
//! | `LIVE` | not cancelled, as far as anybody has looked | a reason, by `cancel` of this token or an ancestor, or by whoever first sees the deadline pass |
//! | a reason | cancelled for ever | none |
//!
//! Rules:
//! 1. A node's state and its registrations (children, callbacks) change together, under the node's lock. So a
//!    registration either is found by the cancellation or finds the node cancelled.
//! 2. Cancelling marks the whole subtree first, one node's lock at a time, and only then calls the callbacks, under no
//!    lock.
//! 3. A child keeps its parent alive, a parent knows its children weakly; a node that is dropped leaves its parent's
//!    list, so a long-lived parent does not grow with the number of children it has had.
//!
//! There is no timer here: a deadline is noticed by whoever looks at the token or waits for it.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use crate::error::{CancelReason, Cancelled};
use crate::nesting;
use crate::sync::{self, Arc, AtomicU8, Condvar, Mutex, Ordering, Weak};
use crate::time::deadline::Deadline;

/// A flag that tells running tasks to stop, with children, deadlines and callbacks.
///
/// Clones share one flag. A [child](Self::child_token) is cancelled with its parent, not the other way round. Looking
/// at a token that is not cancelled costs one atomic load, and one reading of the clock if it has a deadline.
///
/// # Examples
///
/// ```
/// use workcrew::CancellationToken;
///
/// let parent = CancellationToken::new();
/// let child = parent.child_token();
/// child.cancel();
/// assert!(child.is_cancelled() && !parent.is_cancelled());
///
/// fn work(token: &CancellationToken) -> Result<u32, workcrew::Cancelled> {
///     token.check()?; // between two steps of a long task
///     Ok(1)
/// }
/// assert!(work(&child).is_err());
/// assert_eq!(work(&parent), Ok(1));
/// ```
#[derive(Clone)]
pub struct CancellationToken {
    /// The node of the tree that all clones share.
    node: Arc<Node>,
}

impl CancellationToken {
    /// A token without a parent.
    #[must_use]
    pub fn new() -> Self {
        Self { node: Arc::new(Node::new(None, None)) }
    }

    /// A token that is cancelled when this one is, at the latest. It is born cancelled if this one is cancelled.
    #[must_use]
    pub fn child_token(&self) -> Self {
        self.child(None)
    }

    /// Creates a token that cancels itself, with [`CancelReason::Expired`], when `deadline` has passed. See
    /// [`child_with_deadline`](Self::child_with_deadline).
    #[must_use]
    pub fn with_deadline(deadline: Instant) -> Self {
        Self { node: Arc::new(Node::new(None, Some(deadline))) }
    }

    /// Creates a token that cancels itself, with [`CancelReason::Expired`], when `timeout` has passed from now on.
    /// `Duration::MAX` means never.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self { node: Arc::new(Node::new(None, Deadline::after(timeout).instant())) }
    }

    /// Returns a [child](Self::child_token) that cancels itself when `timeout` has passed from now on. `Duration::MAX`
    /// means never. See [`child_with_deadline`](Self::child_with_deadline).
    #[must_use]
    pub fn child_with_timeout(&self, timeout: Duration) -> Self {
        self.child(Deadline::after(timeout).instant())
    }

    /// Returns a [child](Self::child_token) that also cancels itself, with [`CancelReason::Expired`], when `deadline` has
    /// passed.
    ///
    /// No thread watches the clock: whoever looks at the token, or waits for it, finds that the time has come.
    /// Callbacks run at that moment, on that thread.
    ///
    /// ```
    /// use std::time::Instant;
    /// let token = workcrew::CancellationToken::with_deadline(Instant::now());
    /// assert!(token.is_cancelled());
    /// ```
    #[must_use]
    pub fn child_with_deadline(&self, deadline: Instant) -> Self {
        self.child(Some(deadline))
    }

    /// Cancels this token and its descendants, wakes who waits for them and calls the callbacks, on this thread.
    ///
    /// Cancelling twice does nothing; the second call may return before the first has reached every descendant. A panic
    /// of a callback is contained, and the other callbacks are called all the same.
    ///
    /// A callback may cancel this token or others, and register callbacks. Callbacks are nested at most
    /// 16 deep on one stack. Deeper ones are put off: this marks the tokens and returns, and the callbacks
    /// run, on the same thread, when the innermost running callback has returned.
    pub fn cancel(&self) {
        self.cancel_because(CancelReason::Requested);
    }

    /// Whether the token is cancelled. Once it is, it stays so.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// `is_cancelled` in the form that goes with `?`.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], with the reason, if the token is cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.reason().map_or(Ok(()), |reason| Err(Cancelled { reason }))
    }

    /// Blocks until the token is cancelled. On a worker this holds the worker.
    pub fn wait(&self) {
        let cancelled = self.wait_timeout(Duration::MAX);
        debug_assert!(cancelled, "a wait for ever ends with the cancellation");
    }

    /// Blocks until the token is cancelled or `timeout` has passed, and returns whether it is cancelled.
    ///
    /// `Duration::MAX` waits for ever. On a worker this holds the worker.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        let either = deadline.earlier(self.node.deadline);
        let mut links = self.node.links.lock();
        while self.node.marked().is_none() && !either.is_past() {
            links = self.node.cancelled.wait_until(links, either.instant());
        }
        drop(links);
        self.is_cancelled()
    }

    /// Registers `f` to be called once, when the token is cancelled, on the thread that cancels it and under no lock.
    /// Called at once if the token is cancelled already, or, inside callbacks nested 16 deep, when the innermost
    /// of them has returned; see [`cancel`](Self::cancel). Dropping the guard withdraws it, unless the cancellation
    /// has begun. Of a token with a deadline that nobody looks at it is not called; see [`with_deadline`](Self::with_deadline).
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// let token = workcrew::CancellationToken::new();
    /// let (sender, receiver) = channel();
    /// let _guard = token.on_cancel(move || sender.send("stop").unwrap());
    /// token.cancel();
    /// assert_eq!(receiver.recv(), Ok("stop"));
    /// ```
    pub fn on_cancel(&self, f: impl FnOnce() + Send + 'static) -> CancelGuard {
        let mut callback: Option<Callback> = Some(Box::new(f));
        let key = (self.reason().is_none())
            .then(|| self.node.register(|| Link::Callback(callback.take().expect("registered at most once"))))
            .flatten();
        // Not registered means cancelled: the callback is still here, to be called now.
        if let Some(callback) = callback {
            nesting::call_back(callback);
        }
        CancelGuard { registration: key.map(|key| (Arc::downgrade(&self.node), key)) }
    }

    /// Why the token is cancelled, if it is.
    #[must_use]
    pub fn reason(&self) -> Option<CancelReason> {
        let marked = self.node.marked();
        if marked.is_none() && self.node.deadline.is_some_and(|deadline| sync::now() >= deadline) {
            self.cancel_because(CancelReason::Expired);
            return self.node.marked();
        }
        marked
    }

    /// Whether [`reason`](Self::reason) may have something to say: the token is cancelled, or has a deadline.
    #[inline]
    pub(crate) fn needs_a_look(&self) -> bool {
        self.node.deadline.is_some() || self.node.marked().is_some()
    }

    /// The moment at which the token cancels itself: the earliest of its own and its ancestors' deadlines.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline
    }

    pub(crate) fn cancel_because(&self, reason: CancelReason) {
        let mut callbacks = Vec::new();
        let mut subtree = vec![Arc::clone(&self.node)];
        while let Some(node) = subtree.pop() {
            for link in node.mark(reason) {
                match link {
                    Link::Child(child) => subtree.extend(child.upgrade()),
                    Link::Callback(callback) => callbacks.push(callback),
                }
            }
        }
        for callback in callbacks {
            nesting::call_back(callback);
        }
    }

    fn child(&self, deadline: Option<Instant>) -> Self {
        let deadline = match (deadline, self.node.deadline) {
            (Some(own), Some(inherited)) => Some(own.min(inherited)),
            (own, inherited) => own.or(inherited),
        };
        let mut node = Arc::new(Node::new(None, deadline));
        let key = self.node.register(|| Link::Child(Arc::downgrade(&node)));
        match key {
            // The weak reference is in the parent's list already, so the node is completed through its own lock.
            Some(key) => node.links.lock().parent = Some((Arc::clone(&self.node), key)),
            None => node = Arc::new(Node::born_cancelled(self.node.marked())),
        }
        Self { node }
    }
}

impl Default for CancellationToken {
    fn default() -> Self {
        Self::new()
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for CancellationToken {}
impl RefUnwindSafe for CancellationToken {}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancellationToken")
            .field("cancelled", &self.node.marked())
            .field("deadline", &self.node.deadline)
            .finish()
    }
}

/// Withdraws a callback of [`CancellationToken::on_cancel`] when dropped.
#[must_use = "dropping the guard withdraws the callback, as `let _ =` does at once: bind it to a name, or call `detach`"]
pub struct CancelGuard {
    /// Where the callback is registered; `None` once the token was cancelled.
    registration: Option<(Weak<Node>, u64)>,
}

impl CancelGuard {
    /// Leaves the callback registered for as long as the token lives.
    pub fn detach(mut self) {
        self.registration = None;
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some((node, key)) = self.registration.take()
            && let Some(node) = node.upgrade()
        {
            let link = node.links.lock().registered.remove(&key);
            link.into_iter().for_each(Link::discard);
        }
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelGuard").finish_non_exhaustive()
    }
}

type Callback = Box<dyn FnOnce() + Send>;

const LIVE: u8 = 0;

/// The reasons, each at the place whose number, counted from one, is its state.
const REASONS: [CancelReason; 5] = [
    CancelReason::Requested,
    CancelReason::GroupEnded,
    CancelReason::ShutDown,
    CancelReason::Discarded,
    CancelReason::Expired,
];

/// One token of the tree.
struct Node {
    /// `LIVE`, or the place of the reason in [`REASONS`] counted from one. Changed under `links`' lock.
    state: AtomicU8,
    /// When the token cancels itself: the earliest of its own and its ancestors' deadlines.
    deadline: Option<Instant>,
    /// Who must be told.
    links: Mutex<Links>,
    /// Notified when the token is cancelled.
    cancelled: Condvar,
}

/// The neighbours of a node.
#[derive(Default)]
struct Links {
    /// The parent and the key of this node in its list.
    parent: Option<(Arc<Node>, u64)>,
    /// Children and callbacks by key. Empty once cancelled.
    registered: BTreeMap<u64, Link>,
    /// The next key to give out.
    next_key: u64,
}

/// Somebody who must be told of a cancellation.
enum Link {
    Child(Weak<Node>),
    Callback(Callback),
}

impl Link {
    /// Drops it. A callback may own the last reference to the next token, and so on: see `nesting`.
    fn discard(self) {
        if let Self::Callback(callback) = self {
            nesting::discard(callback);
        }
    }
}

impl Node {
    fn new(reason: Option<CancelReason>, deadline: Option<Instant>) -> Self {
        let place = reason.and_then(|reason| REASONS.iter().position(|known| *known == reason));
        let state = place.map_or(LIVE, |place| place as u8 + 1);
        Self { state: AtomicU8::new(state), deadline, links: Mutex::default(), cancelled: Condvar::new() }
    }

    fn born_cancelled(reason: Option<CancelReason>) -> Self {
        Self::new(reason.or(Some(CancelReason::Requested)), None)
    }

    /// The reason written into the node; does not look at the clock.
    fn marked(&self) -> Option<CancelReason> {
        // ORDERING: Acquire pairs with the Release of `mark`: who sees the token cancelled sees what was done before.
        let state = self.state.load(Ordering::Acquire);
        usize::from(state).checked_sub(1).map(|place| REASONS[place])
    }

    /// Marks the node and takes out who must be told; nobody, if it was marked before.
    fn mark(&self, reason: CancelReason) -> impl Iterator<Item = Link> + use<> {
        let place = REASONS.iter().position(|known| *known == reason).expect("REASONS holds every reason");
        let mut links = self.links.lock();
        let mut registered = BTreeMap::new();
        if self.marked().is_none() {
            // ORDERING: Release pairs with the Acquire of `marked`.
            self.state.store(place as u8 + 1, Ordering::Release);
            registered = mem::take(&mut links.registered);
        }
        drop(links);
        self.cancelled.notify_all();
        registered.into_values()
    }

    /// Adds the link that `make` makes, unless the node is cancelled: then `make` is not called.
    fn register(&self, make: impl FnOnce() -> Link) -> Option<u64> {
        let mut links = self.links.lock();
        if self.marked().is_some() {
            return None;
        }
        let key = links.next_key;
        links.next_key += 1;
        links.registered.insert(key, make());
        Some(key)
    }
}

impl Drop for Node {
    /// Leaves the parent's list; goes up in a loop, since a chain of a million tokens must not be dropped recursively.
    fn drop(&mut self) {
        let registered = mem::take(&mut self.links.lock().registered);
        registered.into_values().for_each(Link::discard);
        let mut up = self.links.lock().parent.take();
        while let Some((parent, key)) = up {
            let link = parent.links.lock().registered.remove(&key);
            drop(link);
            up = Arc::into_inner(parent).and_then(|node| node.links.lock().parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_forgets_the_children_and_callbacks_it_has_had() {
        let parent = CancellationToken::new();
        for _ in 0..1_000 {
            let child = parent.child_token();
            drop(child.on_cancel(|| ()));
            drop(parent.on_cancel(|| ()));
        }
        assert_eq!(parent.node.links.lock().registered.len(), 0);
    }

    #[test]
    fn a_long_chain_is_cancelled_and_dropped_without_recursion() {
        let root = CancellationToken::new();
        let mut last = root.clone();
        for _ in 0..200_000 {
            last = last.child_token();
        }
        root.cancel();
        assert!(last.is_cancelled());
    }
}
