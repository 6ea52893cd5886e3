//! How deep user code that the crate calls is nested on this thread, and what happens past the bound.
//!
//! A hook or a callback may do the very thing that calls it again. Three rules keep it off the stack:
//! 1. A *hook* (an observer, a panic hook, a hook of a bus or a worker) only reports something. While
//!    [`MAX_DEPTH`] hooks are on the stack a further one is skipped, and the caller counts that.
//! 2. A *callback* (of a token, a waker, the destructor of a closure that is cancelled) must be called
//!    once. While [`MAX_DEPTH`] callbacks are on the stack a further one is put off. The innermost callback's
//!    frame calls what was put off, in order, when its own callback has returned. So a chain of any
//!    length takes the stack of `MAX_DEPTH` links.
//! 3. An event that a hook of a bus publishes is of a *generation* one higher than the event that the
//!    hook reports. The bus compares it with `MAX_DEPTH` as well: that bounds loops through the pool.
//!
//! What the callbacks share with the code around them is not known here, and no lock is held.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::sync::thread_local;
use crate::unwind;

/// How many hooks may be nested on one stack, how many callbacks, and how many generations events have.
pub(crate) const MAX_DEPTH: usize = 16;

/// What is nested on the stack of one thread.
struct Nesting {
    /// Hooks on this stack.
    hooks: Cell<usize>,
    /// Callbacks on this stack.
    callbacks: Cell<usize>,
    /// The generation of the event that this thread handles or reports; zero outside of both.
    #[cfg_attr(not(feature = "events"), allow(dead_code, reason = "only buses have generations"))]
    generation: Cell<usize>,
}

thread_local! {
    /// Has no destructor: it can be read to the very end.
    static NESTING: Nesting =
        const { Nesting { hooks: Cell::new(0), callbacks: Cell::new(0), generation: Cell::new(0) } };
    /// Callbacks that were put off. Empty while fewer than `MAX_DEPTH` callbacks are on the stack.
    static DEFERRED: RefCell<VecDeque<Box<dyn FnOnce()>>> = const { RefCell::new(VecDeque::new()) };
}

/// Calls a hook; returns `None` without calling it while [`MAX_DEPTH`] hooks are on the stack.
pub(crate) fn hook<T>(f: impl FnOnce() -> T) -> Option<T> {
    let nested = NESTING.with(|nesting| nesting.hooks.get());
    (nested < MAX_DEPTH).then(|| with(|nesting| &nesting.hooks, nested + 1, f))
}

/// Calls a callback once and contains its panic: now, or, while [`MAX_DEPTH`] callbacks are on the stack, when
/// the innermost of them has returned.
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

/// Drops a value as a callback, since its destructor is user code that may drop the next one.
pub(crate) fn discard<T: 'static>(value: T) {
    call_back(move || drop(value));
}

/// Whether a further callback would be put off.
pub(crate) fn is_at_max_depth() -> bool {
    NESTING.with(|nesting| nesting.callbacks.get()) >= MAX_DEPTH
}

/// The generation of an event that this thread would publish.
#[cfg(feature = "events")]
pub(crate) fn generation() -> usize {
    NESTING.with(|nesting| nesting.generation.get())
}

/// Calls `f`; what it publishes is of this generation.
#[cfg(feature = "events")]
pub(crate) fn in_generation<T>(generation: usize, f: impl FnOnce() -> T) -> T {
    with(|nesting| &nesting.generation, generation, f)
}

/// Puts a callback off; gives it back if this thread is about to end and keeps nothing any more.
fn defer<F: FnOnce() + 'static>(f: F) -> Option<F> {
    let mut f = Some(f);
    let kept = DEFERRED.try_with(|waiting| {
        if let Some(f) = f.take() {
            waiting.borrow_mut().push_back(Box::new(f));
        }
    });
    debug_assert!(kept.is_ok() || f.is_some(), "what is not kept is given back");
    f
}

fn next_deferred() -> Option<Box<dyn FnOnce()>> {
    DEFERRED.try_with(|waiting| waiting.borrow_mut().pop_front()).ok().flatten()
}

fn contain(f: impl FnOnce()) {
    let _ = unwind::catch(f).map_err(unwind::discard);
}

/// Selects one of the cells of a thread.
type Select = fn(&Nesting) -> &Cell<usize>;

/// Calls `f` while a cell of this thread holds `value`; then the cell holds again what it held before.
fn with<T>(select: Select, value: usize, f: impl FnOnce() -> T) -> T {
    let _restore = Restore { select, before: NESTING.with(|nesting| select(nesting).replace(value)) };
    f()
}

/// Restores a cell when dropped.
struct Restore {
    select: Select,
    before: usize,
}

impl Drop for Restore {
    fn drop(&mut self) {
        NESTING.with(|nesting| (self.select)(nesting).set(self.before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// Calls back `left` more times, each from within the one before.
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
    fn a_chain_of_callbacks_is_called_in_full_and_takes_the_stack_of_a_few() {
        let (deepest, called) = <(Rc<Cell<usize>>, Rc<Cell<usize>>)>::default();
        chain(100_000, &deepest, &called);
        assert_eq!((called.get(), deepest.get()), (100_000, MAX_DEPTH));
        assert!(!is_at_max_depth() && next_deferred().is_none());
    }

    #[test]
    fn hooks_are_skipped_past_the_bound_and_called_again_afterwards() {
        fn nest() -> usize {
            hook(nest).map_or(0, |below| below + 1)
        }
        assert_eq!((nest(), nest()), (MAX_DEPTH, MAX_DEPTH));
    }
}
