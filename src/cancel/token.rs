//! Cooperative cancellation: a tree of tokens.
//!
//! | state of a token | meaning | next |
//! |---|---|---|
//! | `LIVE` | not cancelled; a passed deadline may not have been noticed | a reason, by `cancel` of this token or an ancestor, or by the first thread that notices the passed deadline |
//! | a reason | cancelled forever | none |
//!
//! Rules:
//! 1. A node's reason and its listeners (children, callbacks) change together, under the node's
//!    lock. So a registration is either found by the cancellation or finds the node cancelled.
//! 2. Cancelling first sets the reason in the whole subtree, locking one node at a time. Then
//!    it calls the callbacks, with no lock held.
//! 3. A child keeps its parent alive; a parent holds its children weakly. A node that is dropped
//!    leaves its parent's list, so a long-lived parent does not grow with the number of children it
//!    has had.
//!
//! There is no timer here: a passed deadline is noticed by threads that check the token or wait for
//! it, and by the poll of a future that waits for it (see `future`).

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::time::{Duration, Instant};

use crate::error::{CancelReason, Cancelled};
use crate::nesting;
use crate::sync::{self, Arc, AtomicU8, Condvar, Mutex, Ordering, Weak};
use crate::time::deadline::Deadline;
use crate::unwind;

/// A flag that asks running tasks to stop, with children, deadlines and callbacks.
///
/// Clones share one flag. A [child](Self::child_token) is cancelled with its parent, but not the
/// other way round. Checking a token that is not cancelled costs one atomic load, and one reading
/// of the clock if the token has a deadline.
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
    /// The node of the tree, shared by all clones.
    node: Arc<Node>,
}

impl CancellationToken {
    /// Creates a token without a parent.
    #[must_use]
    pub fn new() -> Self {
        Self { node: Arc::new(Node::new(None, None)) }
    }

    /// Returns a child token, which is cancelled when this token is. If this token is already
    /// cancelled, so is the child.
    #[must_use]
    pub fn child_token(&self) -> Self {
        self.child(None)
    }

    /// Creates a token that is cancelled with [`CancelReason::Expired`] when `deadline` has passed.
    /// See [`child_with_deadline`](Self::child_with_deadline).
    #[must_use]
    pub fn with_deadline(deadline: Instant) -> Self {
        Self { node: Arc::new(Node::new(None, Some(deadline))) }
    }

    /// Creates a token that is cancelled with [`CancelReason::Expired`] when `timeout` has passed
    /// from now on. `Duration::MAX` means never.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self { node: Arc::new(Node::new(None, Deadline::after(timeout).instant())) }
    }

    /// Returns a [child](Self::child_token) that is also cancelled, with [`CancelReason::Expired`],
    /// when `timeout` has passed from now on. `Duration::MAX` means never. See
    /// [`child_with_deadline`](Self::child_with_deadline).
    #[must_use]
    pub fn child_with_timeout(&self, timeout: Duration) -> Self {
        self.child(Deadline::after(timeout).instant())
    }

    /// Returns a [child](Self::child_token) that is also cancelled, with [`CancelReason::Expired`],
    /// when `deadline` has passed.
    ///
    /// No thread watches the clock. The first thread that checks the token or waits for it after
    /// the deadline cancels it, and calls the callbacks. A thread in [`wait`](Self::wait) does so
    /// when the deadline passes. So does the poll of a future of [`cancelled`](Self::cancelled),
    /// which the deadline wakes.
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

    /// Cancels this token and its descendants, wakes their waiters and calls their callbacks on
    /// this thread.
    ///
    /// A second call is without effect, and may return before the first has reached every
    /// descendant. A panic of a callback is contained, and the other callbacks are still called.
    ///
    /// A callback may cancel this token or others, and register callbacks. Callbacks are nested at
    /// most 16 deep on one stack. Beyond that this method cancels the tokens and returns, and the
    /// callbacks run on the same thread when the innermost running callback has returned.
    ///
    /// A callback may also wait for what other callbacks do. A wait of this crate without a time
    /// limit first calls the callbacks that its thread has still to call. Such waits are nested at
    /// most 16 deep on one stack. Beyond that, nothing blocks while there are such callbacks. Waits
    /// return `WouldDeadlock`, a timeout or `false`; [`wait`](Self::wait) and each `wait_idle`
    /// panic. Submissions exceed the capacity, and full mailboxes refuse the event. Shutdowns and
    /// drops return before the end.
    pub fn cancel(&self) {
        self.cancel_with(CancelReason::Requested);
    }

    /// Returns `true` if the token is cancelled. `true` is final.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Returns an error if the token is cancelled, for use with `?`.
    ///
    /// # Errors
    ///
    /// Returns [`Cancelled`], with the reason, if the token is cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.reason().map_or(Ok(()), |reason| Err(Cancelled { reason }))
    }

    /// Blocks until the token is cancelled. A worker that calls this runs no other task meanwhile.
    ///
    /// # Panics
    ///
    /// If [too many waits](Self::cancel) are nested in callbacks.
    pub fn wait(&self) {
        let cancelled = self.wait_timeout(Duration::MAX);
        assert!(cancelled, "too many waits are nested in callbacks");
    }

    /// Blocks until the token is cancelled or `timeout` has passed. Returns `true` if the token is
    /// cancelled.
    ///
    /// `Duration::MAX` waits forever, or returns `false` where [`wait`](Self::wait) panics. A worker
    /// that calls this runs no other task meanwhile.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        let either = deadline.earlier(self.node.deadline);
        if either == Deadline::NEVER && self.node.reason().is_none() && !nesting::call_pending() {
            return false;
        }
        drop(self.node.cancelled.wait_while(self.node.state.lock(), either, |_| self.node.reason().is_none()));
        self.is_cancelled()
    }

    /// Registers a callback that is called once, when the token is cancelled.
    ///
    /// It is called on the thread that cancels the token, with no lock held. If the token is
    /// already cancelled, it is called at once or, inside callbacks nested 16 deep, when the
    /// innermost has returned; see [`cancel`](Self::cancel). Dropping the guard removes the
    /// callback, unless the cancellation has begun.
    ///
    /// A passed deadline alone does not call it: a thread must check the token or wait for it, or
    /// poll the future of [`cancelled`](Self::cancelled); see
    /// [`child_with_deadline`](Self::child_with_deadline).
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
            .then(|| self.node.register(|| Listener::Callback(callback.take().expect("registered at most once"))))
            .flatten();
        // A callback that was not registered is called now, because the token is cancelled.
        if let Some(callback) = callback {
            nesting::call_back(callback);
        }
        CancelGuard { registration: key.map(|key| (Arc::downgrade(&self.node), key)) }
    }

    /// Returns why the token is cancelled, or `None` if it is not.
    #[must_use]
    pub fn reason(&self) -> Option<CancelReason> {
        let reason = self.node.reason();
        if reason.is_none() && self.node.deadline.is_some_and(|deadline| sync::now() >= deadline) {
            self.cancel_with(CancelReason::Expired);
            return self.node.reason();
        }
        reason
    }

    /// Returns `true` if [`reason`](Self::reason) may return a reason: the token is cancelled or
    /// has a deadline.
    #[inline]
    pub(crate) fn may_be_cancelled(&self) -> bool {
        self.node.deadline.is_some() || self.node.reason().is_some()
    }

    /// Returns the deadline of the token: the earliest of its own and its ancestors' deadlines.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline
    }

    pub(crate) fn cancel_with(&self, reason: CancelReason) {
        let mut callbacks = Vec::new();
        let mut subtree = vec![Arc::clone(&self.node)];
        while let Some(node) = subtree.pop() {
            for listener in node.set_reason(reason) {
                match listener {
                    Listener::Child(child) => subtree.extend(child.upgrade()),
                    Listener::Callback(callback) => callbacks.push(callback),
                }
            }
        }
        nesting::call_all(callbacks);
    }

    fn child(&self, deadline: Option<Instant>) -> Self {
        let deadline = match (deadline, self.node.deadline) {
            (Some(own), Some(inherited)) => Some(own.min(inherited)),
            (own, inherited) => own.or(inherited),
        };
        let mut node = Arc::new(Node::new(None, deadline));
        let key = self.node.register(|| Listener::Child(Arc::downgrade(&node)));
        match key {
            // The parent already holds a weak reference to the node, so its parent is set under its
            // lock.
            Some(key) => node.state.lock().parent = Some((Arc::clone(&self.node), key)),
            None => node = Arc::new(Node::already_cancelled(self.node.reason())),
        }
        Self { node }
    }
}

impl Default for CancellationToken {
    fn default() -> Self {
        Self::new()
    }
}

unwind::safe!(CancellationToken);

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancellationToken")
            .field("cancelled", &self.node.reason())
            .field("deadline", &self.node.deadline)
            .finish()
    }
}

/// A guard that removes a callback of [`CancellationToken::on_cancel`] when dropped.
#[must_use = "dropping the guard removes the callback, as `let _ =` does at once: bind it to a name, or call `detach`"]
pub struct CancelGuard {
    /// The node and the key of the callback; `None` if the callback was called at once or is
    /// detached.
    registration: Option<(Weak<Node>, u64)>,
}

impl CancelGuard {
    /// Keeps the callback registered until the token is dropped.
    pub fn detach(mut self) {
        self.registration = None;
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some((node, key)) = self.registration.take()
            && let Some(node) = node.upgrade()
        {
            let listener = node.state.lock().listeners.remove(&key);
            listener.into_iter().for_each(Listener::discard);
        }
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelGuard").finish_non_exhaustive()
    }
}

type Callback = Box<dyn FnOnce() + Send>;

/// The code of a node that is not cancelled.
const LIVE: u8 = 0;

/// The reasons. The code of a reason is its index plus one.
const REASONS: [CancelReason; 5] = [
    CancelReason::Requested,
    CancelReason::GroupEnded,
    CancelReason::ShutDown,
    CancelReason::Discarded,
    CancelReason::Expired,
];

/// One token of the tree.
struct Node {
    /// `LIVE`, or the code of the reason. Changed under the lock of `state`.
    reason_code: AtomicU8,
    /// The earliest of its own and its ancestors' deadlines.
    deadline: Option<Instant>,
    /// The parent and the listeners.
    state: Mutex<State>,
    /// Signalled when the token is cancelled.
    cancelled: Condvar,
}

/// What the lock of a node guards.
#[derive(Default)]
struct State {
    /// The parent, and the key of this node in the parent's list.
    parent: Option<(Arc<Node>, u64)>,
    /// Children and callbacks by key. Empty once cancelled.
    listeners: BTreeMap<u64, Listener>,
    /// The key of the next listener.
    next_key: u64,
}

/// A listener of a cancellation.
enum Listener {
    Child(Weak<Node>),
    Callback(Callback),
}

impl Listener {
    /// Drops the listener. A callback may own the last reference to another token, and so on; see
    /// `nesting`.
    fn discard(self) {
        if let Self::Callback(callback) = self {
            nesting::discard(callback);
        }
    }
}

impl Node {
    fn new(reason: Option<CancelReason>, deadline: Option<Instant>) -> Self {
        let index = reason.and_then(|reason| REASONS.iter().position(|known| *known == reason));
        let reason_code = index.map_or(LIVE, |index| index as u8 + 1);
        Self { reason_code: AtomicU8::new(reason_code), deadline, state: Mutex::default(), cancelled: Condvar::new() }
    }

    fn already_cancelled(reason: Option<CancelReason>) -> Self {
        Self::new(reason.or(Some(CancelReason::Requested)), None)
    }

    /// Returns the reason that is set; does not read the clock.
    fn reason(&self) -> Option<CancelReason> {
        // ORDERING: Acquire pairs with the Release of `set_reason`: a thread that sees the token
        // cancelled sees what happened before the cancellation.
        let reason_code = self.reason_code.load(Ordering::Acquire);
        usize::from(reason_code).checked_sub(1).map(|index| REASONS[index])
    }

    /// Sets the reason and removes the listeners. Returns no listeners if a reason was already set.
    fn set_reason(&self, reason: CancelReason) -> impl Iterator<Item = Listener> + use<> {
        let index = REASONS.iter().position(|known| *known == reason).expect("REASONS holds every reason");
        let mut state = self.state.lock();
        let mut listeners = BTreeMap::new();
        if self.reason().is_none() {
            // ORDERING: Release pairs with the Acquire of `reason`.
            self.reason_code.store(index as u8 + 1, Ordering::Release);
            listeners = mem::take(&mut state.listeners);
        }
        drop(state);
        self.cancelled.notify_all();
        listeners.into_values()
    }

    /// Adds the listener that `make` returns. Does not call `make` if the node is cancelled.
    fn register(&self, make: impl FnOnce() -> Listener) -> Option<u64> {
        let mut state = self.state.lock();
        if self.reason().is_some() {
            return None;
        }
        let key = state.next_key;
        state.next_key += 1;
        state.listeners.insert(key, make());
        Some(key)
    }
}

impl Drop for Node {
    /// Leaves the parent's list. Drops ancestors in a loop, because a chain of a million tokens
    /// must not be dropped recursively.
    fn drop(&mut self) {
        let listeners = mem::take(&mut self.state.lock().listeners);
        listeners.into_values().for_each(Listener::discard);
        let mut up = self.state.lock().parent.take();
        while let Some((parent, key)) = up {
            let listener = parent.state.lock().listeners.remove(&key);
            drop(listener);
            up = Arc::into_inner(parent).and_then(|node| node.state.lock().parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_keeps_nothing_of_dropped_children_and_callbacks() {
        let parent = CancellationToken::new();
        for _ in 0..1_000 {
            let child = parent.child_token();
            drop(child.on_cancel(|| ()));
            drop(parent.on_cancel(|| ()));
        }
        assert_eq!(parent.node.state.lock().listeners.len(), 0);
    }

    #[test]
    fn a_long_chain_is_cancelled_and_dropped_without_recursion() {
        let root = CancellationToken::new();
        let last = (0..200_000).fold(root.clone(), |token, _| token.child_token());
        root.cancel();
        assert!(last.is_cancelled());
    }
}
