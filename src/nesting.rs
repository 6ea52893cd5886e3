//! A limit for user code that calls itself through the crate on one stack.
//!
//! A hook or a callback may do what caused its own call. Four rules bound the recursion:
//! 1. A *hook* (an observer, a panic hook, a hook of a bus or a worker, a label) only reports an
//!    event. While [`MAX_DEPTH`] hooks are on the stack, a further hook is skipped, and the caller
//!    counts that. If each hook brought about several others, their number would still be
//!    exponential. So the outermost hook has at most [`MAX_DEEP_HOOKS`] hooks below the second
//!    level; further ones are skipped too.
//! 2. A *callback* (of a token, a waker, the destructor of a closure that is cancelled) must be
//!    called once. While [`MAX_DEPTH`] callbacks are on the stack, a further callback is deferred.
//!    The frame of the innermost callback calls deferred callbacks in order, when its own callback
//!    has returned. So a chain of any length takes the stack of `MAX_DEPTH` callbacks.
//!    A callback is *pending* while it is deferred, or while another callback of the same token is
//!    called before it. A wait of this thread may need what a pending callback does. So a wait
//!    without a time limit calls the pending callbacks before it sleeps. Such calls are nested at
//!    most `MAX_DEPTH` deep too. A deeper wait does not sleep while a callback is pending: it ends
//!    with an error, or its caller goes on without what it waited for.
//! 3. An event that a hook of a bus publishes has a *generation* one higher than the event that the
//!    hook reports. The bus limits the generation to `MAX_DEPTH` too, which bounds loops through
//!    the pool.
//! 4. *Code of a key* (its hash, its comparison, the function that makes it) may submit with a key.
//!    Nothing can take its place. So beyond the limits of rule 1, which it has for itself, the call
//!    panics.
//!
//! This module does not know what callbacks share with the code around them. It holds no lock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use crate::sync::thread_local;
use crate::unwind;

/// The limit of nested hooks on one stack, of nested callbacks, and of generations of events.
pub(crate) const MAX_DEPTH: usize = 16;

/// The limit of hooks that one outermost hook brings about below the second level, and of calls of
/// key code likewise.
pub(crate) const MAX_DEEP_HOOKS: usize = 256;

/// The nesting on the stack of one thread.
struct Nesting {
    /// The number of hooks on this stack.
    hooks: Cell<usize>,
    /// The number of hooks below the second level that the outermost hook has brought about.
    deep_hooks: Cell<usize>,
    /// The number of calls of key code on this stack.
    keys: Cell<usize>,
    /// The number of calls below the second level that the outermost key code has brought about.
    deep_keys: Cell<usize>,
    /// The number of callbacks on this stack.
    callbacks: Cell<usize>,
    /// The number of waits on this stack that call pending callbacks.
    waits: Cell<usize>,
    /// The number of pending callbacks.
    pending: Cell<usize>,
    /// The generation of the event that this thread handles or reports; zero if it does neither.
    #[cfg_attr(not(feature = "events"), allow(dead_code, reason = "used with the feature `events`"))]
    generation: Cell<usize>,
}

impl Nesting {
    const fn new() -> Self {
        let [hooks, deep_hooks, keys, deep_keys, callbacks, waits, pending, generation] = [const { Cell::new(0) }; 8];
        Self { hooks, deep_hooks, keys, deep_keys, callbacks, waits, pending, generation }
    }
}

/// Counts a call below `nested` others by rule 1. Returns `false` beyond its limits.
fn count_call(nested: usize, deep_calls: &Cell<usize>) -> bool {
    let deep = if nested == 0 { 0 } else { deep_calls.get() + usize::from(nested > 1) };
    let may_call = nested < MAX_DEPTH && deep <= MAX_DEEP_HOOKS;
    if may_call {
        deep_calls.set(deep);
    }
    may_call
}

thread_local! {
    /// Has no destructor, so it can be accessed until the thread has ended.
    static NESTING: Nesting = const { Nesting::new() };
    /// Deferred callbacks. Empty while fewer than `MAX_DEPTH` callbacks are on the stack.
    static DEFERRED: RefCell<VecDeque<Callback>> = const { RefCell::new(VecDeque::new()) };
    /// The callbacks that are left to each caller of several callbacks on this stack, the innermost
    /// last.
    static LEFT: RefCell<Vec<VecDeque<Callback>>> = const { RefCell::new(Vec::new()) };
}

type Callback = Box<dyn FnOnce()>;

/// Calls a hook. Returns `None` without calling it beyond the limits of rule 1.
pub(crate) fn hook<T>(f: impl FnOnce() -> T) -> Option<T> {
    bounded(|nesting| &nesting.hooks, |nesting| &nesting.deep_hooks, f)
}

/// Calls code of a key. Panics beyond the limits of rule 4.
pub(crate) fn key_code<T>(f: impl FnOnce() -> T) -> T {
    let called = bounded(|nesting| &nesting.keys, |nesting| &nesting.deep_keys, f);
    called.expect("code of keys that submits with keys is nested too deep")
}

/// Calls code of the user, counted in two cells. Returns `None` without calling it beyond the limits
/// of rule 1.
fn bounded<T>(nested: Select, deep_calls: Select, f: impl FnOnce() -> T) -> Option<T> {
    let below = NESTING.with(|nesting| nested(nesting).get());
    let may_call = NESTING.with(|nesting| count_call(below, deep_calls(nesting)));
    may_call.then(|| with(nested, below + 1, f))
}

/// Calls a callback once and contains its panic.
///
/// While [`MAX_DEPTH`] callbacks are on the stack, the callback is deferred until the innermost has
/// returned.
pub(crate) fn call_back(f: impl FnOnce() + 'static) {
    let nested = NESTING.with(|nesting| nesting.callbacks.get());
    let Some(f) = (if nested < MAX_DEPTH { Some(f) } else { defer(f) }) else { return };
    with(
        |nesting| &nesting.callbacks,
        nested + 1,
        || {
            contain(f);
            if nested + 1 == MAX_DEPTH {
                while let Some(next) = next_deferred() {
                    contain(next);
                }
            }
        },
    );
}

/// Calls several callbacks in order, each as [`call_back`] does. A wait in one of them calls those
/// that are left.
pub(crate) fn call_all(callbacks: Vec<Box<dyn FnOnce() + Send>>) {
    if callbacks.len() < 2 || is_at_max_depth() {
        return callbacks.into_iter().for_each(call_back);
    }
    let mut left: VecDeque<Callback> = callbacks.into_iter().map(|callback| callback as Callback).collect();
    let number = left.len();
    let entered = LEFT.try_with(|lists| lists.borrow_mut().push(mem::take(&mut left)));
    if entered.is_err() {
        return left.into_iter().for_each(call_back); // the thread is about to end
    }
    add_pending(number);
    while let Some(callback) = next_left(false) {
        call_back(callback);
    }
    let _ = LEFT.try_with(|lists| lists.borrow_mut().pop());
}

/// Returns `true` if this thread has pending callbacks.
#[inline]
pub(crate) fn has_pending() -> bool {
    NESTING.with(|nesting| nesting.pending.get()) > 0
}

/// Calls the pending callbacks of this thread, because a wait without a time limit is about to
/// sleep. Called without a lock. Returns `false` if waits are nested too deep for that.
#[must_use = "a wait that is nested too deep must not sleep"]
#[inline]
pub(crate) fn call_pending() -> bool {
    !has_pending() || call_all_pending()
}

/// Returns `true` if a wait on this stack may call what is pending before it sleeps. So a wait that
/// must not be refused may follow.
pub(crate) fn may_wait() -> bool {
    NESTING.with(|nesting| nesting.waits.get()) < MAX_DEPTH
}

#[cold]
fn call_all_pending() -> bool {
    if !may_wait() {
        return false;
    }
    with(
        |nesting| &nesting.waits,
        NESTING.with(|nesting| nesting.waits.get()) + 1,
        || {
            while let Some(callback) = next_deferred() {
                contain(callback);
            }
            while let Some(callback) = next_left(true) {
                call_back(callback);
                while let Some(callback) = next_deferred() {
                    contain(callback);
                }
            }
        },
    );
    true
}

/// Takes the next callback that is left to the innermost caller of several; of all such callers if
/// `of_all` is `true`.
fn next_left(of_all: bool) -> Option<Callback> {
    let take = |lists: &RefCell<Vec<VecDeque<Callback>>>| {
        let mut lists = lists.borrow_mut();
        let callers = if of_all { usize::MAX } else { 1 };
        lists.iter_mut().rev().take(callers).find_map(VecDeque::pop_front)
    };
    let next = LEFT.try_with(take).ok().flatten();
    next.inspect(|_| remove_pending())
}

fn add_pending(number: usize) {
    NESTING.with(|nesting| nesting.pending.set(nesting.pending.get() + number));
}

fn remove_pending() {
    NESTING.with(|nesting| nesting.pending.set(nesting.pending.get() - 1));
}

/// Drops a value as a callback, because its destructor is user code that may drop further values.
pub(crate) fn discard<T: 'static>(value: T) {
    call_back(move || drop(value));
}

/// Wakes a waker as a callback. Called without a lock, because a waker is user code.
pub(crate) fn wake(waker: Waker) {
    call_back(move || waker.wake());
}

/// Returns whether a further callback would be deferred.
pub(crate) fn is_at_max_depth() -> bool {
    NESTING.with(|nesting| nesting.callbacks.get()) >= MAX_DEPTH
}

/// Returns the generation of an event that this thread would publish.
#[cfg(feature = "events")]
pub(crate) fn generation() -> usize {
    NESTING.with(|nesting| nesting.generation.get())
}

/// Calls `f`. Events that it publishes have this generation.
#[cfg(feature = "events")]
pub(crate) fn in_generation<T>(generation: usize, f: impl FnOnce() -> T) -> T {
    with(|nesting| &nesting.generation, generation, f)
}

/// Defers a callback. Returns it if the thread is about to end and its thread locals are gone.
fn defer<F: FnOnce() + 'static>(f: F) -> Option<F> {
    let mut f = Some(f);
    let deferred = DEFERRED.try_with(|deferred| {
        if let Some(f) = f.take() {
            deferred.borrow_mut().push_back(Box::new(f));
            add_pending(1);
        }
    });
    debug_assert!(deferred.is_ok() || f.is_some(), "a callback is either deferred or returned");
    f
}

fn next_deferred() -> Option<Callback> {
    let next = DEFERRED.try_with(|deferred| deferred.borrow_mut().pop_front()).ok().flatten();
    next.inspect(|_| remove_pending())
}

fn contain(f: impl FnOnce()) {
    let _ = unwind::catch(f).map_err(unwind::discard);
}

/// Selects one of the cells of a thread.
type Select = fn(&Nesting) -> &Cell<usize>;

/// Calls `f` while a cell of this thread holds `value`, and restores the cell afterwards.
fn with<T>(select: Select, value: usize, f: impl FnOnce() -> T) -> T {
    let _restore = Restore { select, previous: NESTING.with(|nesting| select(nesting).replace(value)) };
    f()
}

/// A guard that restores a cell when dropped.
struct Restore {
    select: Select,
    previous: usize,
}

impl Drop for Restore {
    fn drop(&mut self) {
        NESTING.with(|nesting| (self.select)(nesting).set(self.previous));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// Calls `left` nested callbacks.
    fn chain(left: usize, deepest: &Rc<Cell<usize>>, called: &Rc<Cell<usize>>) {
        let (deepest, called) = (Rc::clone(deepest), Rc::clone(called));
        call_back(move || {
            called.set(called.get() + 1);
            deepest.set(deepest.get().max(NESTING.with(|nesting| nesting.callbacks.get())));
            if left > 1 {
                chain(left - 1, &deepest, &called);
            }
        });
    }

    #[test]
    fn a_long_chain_of_callbacks_is_called_with_bounded_stack() {
        let (deepest, called) = <(Rc<Cell<usize>>, Rc<Cell<usize>>)>::default();
        chain(100_000, &deepest, &called);
        assert_eq!((called.get(), deepest.get()), (100_000, MAX_DEPTH));
        assert!(!is_at_max_depth() && next_deferred().is_none());
    }

    #[test]
    fn hooks_are_skipped_beyond_the_limit_and_called_again_afterwards() {
        fn nest() -> usize {
            hook(nest).map_or(0, |below| below + 1)
        }
        assert_eq!((nest(), nest()), (MAX_DEPTH, MAX_DEPTH));
    }

    /// Fault 598.
    #[test]
    fn hooks_that_each_bring_about_several_others_are_bounded_in_number() {
        fn nest(calls: &Cell<usize>) {
            calls.set(calls.get() + 1);
            (0..3).for_each(|_| _ = hook(|| nest(calls)));
        }
        for _ in 0..2 {
            let calls = Cell::new(0);
            hook(|| nest(&calls));
            assert_eq!(calls.get(), 1 + 3 + MAX_DEEP_HOOKS);
        }
        let calls = Cell::new(0);
        hook(|| (0..10_000).for_each(|_| _ = hook(|| calls.set(calls.get() + 1))));
        assert_eq!(calls.get(), 10_000);
    }
}
