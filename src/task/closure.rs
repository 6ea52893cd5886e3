//! A closure of any type in four words: a small one lies inside, a larger one in a box.
//!
//! Most closures that are handed over capture little. Boxed, each would be allocated on one thread and freed on
//! another, which costs more than the rest of its way.
//!
//! Rules:
//! 1. `store` holds one value of the type that `vtable` was made for, until it is called, taken out or dropped. From
//!    then on `vtable` is [`Consumed`].
//! 2. That value is the closure itself, if [`fits_inline`] says so of its type, or else a box of it, which is a closure as
//!    well.
//! 3. Moving the store moves the value, as with any value: nothing points into it.

#![allow(unsafe_code, reason = "the type of what is stored is known to its vtable alone")]

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};

/// How many words a closure may capture and still lie inside.
const WORDS: usize = 3;

/// A closure that is called at most once, on any thread.
pub(crate) struct Closure<'a, R: 'static> {
    vtable: &'static VTable<R>,
    store: Store,
    /// What is stored is as good as this.
    _closure: PhantomData<dyn FnOnce() -> R + Send + 'a>,
}

/// Room for a small closure or a box.
type Store = MaybeUninit<[usize; WORDS]>;

/// What can be done to a value of one type. Each takes it out of the store that it is given.
struct VTable<R> {
    call: unsafe fn(*mut Store) -> R,
    drop: unsafe fn(*mut Store),
    /// The type of the closure, if it can be had back.
    recoverable: Option<fn() -> TypeId>,
    /// Whether there is no value any more.
    is_consumed: bool,
}

impl<'a, R: 'static> Closure<'a, R> {
    pub(crate) fn new<F: FnOnce() -> R + Send + 'a>(f: F) -> Self {
        if fits_inline::<F>() {
            Self::store(f, &Borrowing::<F, R>::VTABLE)
        } else {
            Self::store(Box::new(f), &Borrowing::<Box<F>, R>::VTABLE)
        }
    }

    /// Calls it and uses it up. By reference, since copying four words that were just written stalls the processor.
    ///
    /// # Panics
    ///
    /// If it is used up.
    #[inline]
    pub(crate) fn call(&mut self) -> R {
        let vtable = mem::replace(&mut self.vtable, &Consumed::<R>::VTABLE);
        // SAFETY: by rule 1 the value is there and of the right type; it is used up from now on.
        unsafe { (vtable.call)(&raw mut self.store) }
    }

    /// Whether it was called.
    pub(crate) fn is_consumed(&self) -> bool {
        self.vtable.is_consumed
    }

    /// Forgets how long the captured borrows live.
    ///
    /// # Safety
    ///
    /// The closure must be called or dropped before `'a` ends.
    pub(crate) unsafe fn erase_lifetime(self) -> Closure<'static, R> {
        // SAFETY: only the lifetime changes, which the caller keeps.
        unsafe { mem::transmute(self) }
    }

    /// Stores a value, which must be small and what the vtable were made for.
    #[inline]
    fn store<S>(value: S, vtable: &'static VTable<R>) -> Self {
        const { assert!(fits_inline::<Box<u8>>()) };
        debug_assert!(fits_inline::<S>(), "a value that is not small is boxed");
        let mut store = Store::uninit();
        // SAFETY: a small value fits in, size and alignment.
        unsafe { store.as_mut_ptr().cast::<S>().write(value) };
        Self { vtable, store, _closure: PhantomData }
    }
}

impl<R: 'static> Closure<'static, R> {
    /// Makes one that can be had back by [`into_inner`](Self::into_inner).
    #[inline]
    pub(crate) fn recoverable<F: FnOnce() -> R + Send + 'static>(f: F) -> Self {
        if fits_inline::<F>() {
            Self::store(f, &Recoverable::<F, F, R>::VTABLE)
        } else {
            Self::store(Box::new(f), &Recoverable::<Box<F>, F, R>::VTABLE)
        }
    }

    /// What [`recoverable`](Self::recoverable) was given; `None` if that was something else.
    pub(crate) fn into_inner<F: FnOnce() -> R + Send + 'static>(mut self) -> Option<F> {
        let type_id = self.vtable.recoverable?;
        if type_id() != TypeId::of::<F>() {
            return None;
        }
        self.vtable = &Consumed::<R>::VTABLE;
        let store = &raw mut self.store;
        Some(if fits_inline::<F>() {
            // SAFETY: the type is the one that `recoverable` stored, and it is used up from now on.
            unsafe { take::<F>(store) }
        } else {
            // SAFETY: as above, in a box.
            *unsafe { take::<Box<F>>(store) }
        })
    }
}

impl<R: 'static> Drop for Closure<'_, R> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by rule 1 the value is there and of the right type, or used up, which `Consumed` knows.
        unsafe { (self.vtable.drop)(&raw mut self.store) }
    }
}

/// The vtable of a stored `S` that may borrow.
struct Borrowing<S, R>(PhantomData<(S, R)>);

impl<S: FnOnce() -> R, R> Borrowing<S, R> {
    const VTABLE: VTable<R> = VTable { call: call::<S, R>, drop: discard::<S>, recoverable: None, is_consumed: false };
}

/// The vtable of a stored `S`, which is an `F` or its box.
struct Recoverable<S, F, R>(PhantomData<(S, F, R)>);

impl<S: FnOnce() -> R, F: 'static, R> Recoverable<S, F, R> {
    const VTABLE: VTable<R> = VTable { recoverable: Some(TypeId::of::<F>), ..Borrowing::<S, R>::VTABLE };
}

/// The vtable of a closure that was called or taken out.
struct Consumed<R>(PhantomData<R>);

impl<R> Consumed<R> {
    const VTABLE: VTable<R> =
        VTable { call: |_| panic!("a closure is called once"), drop: |_| (), recoverable: None, is_consumed: true };
}

/// Whether values of this type lie in a store.
const fn fits_inline<S>() -> bool {
    size_of::<S>() <= size_of::<Store>() && align_of::<S>() <= align_of::<Store>()
}

/// Takes the value out of a store.
///
/// # Safety
///
/// The store holds an `S`, which is used up.
unsafe fn take<S>(store: *mut Store) -> S {
    // SAFETY: as promised.
    unsafe { store.cast::<S>().read() }
}

/// Takes the value out of a store and calls it.
///
/// # Safety
///
/// As for [`take`].
unsafe fn call<S: FnOnce() -> R, R>(store: *mut Store) -> R {
    // SAFETY: as promised.
    let value = unsafe { take::<S>(store) };
    value()
}

/// Takes the value out of a store and drops it.
///
/// # Safety
///
/// As for [`take`].
unsafe fn discard<S>(store: *mut Store) {
    // SAFETY: as promised.
    drop(unsafe { take::<S>(store) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;

    /// Calls, drops and recovers closures that capture `N` words besides a counted reference.
    fn each_way_lets_go_once<const N: usize>() {
        let token = Arc::new(N);
        let capture = || {
            let (token, words) = (Arc::clone(&token), [7_usize; N]);
            move || words.iter().sum::<usize>() + *token
        };
        assert_eq!(Closure::new(capture()).call(), 8 * N);
        drop(Closure::new(capture()));
        let again = recover(Closure::recoverable(capture()), &capture);
        assert_eq!(again.map(|f| f()), Some(8 * N));
        assert!(Closure::recoverable(capture()).into_inner::<fn() -> usize>().is_none());
        assert!(Closure::new(capture()).into_inner::<fn() -> usize>().is_none());
        assert_eq!(Arc::strong_count(&token), 1);
    }

    fn recover<F: FnOnce() -> usize + Send + 'static>(
        closure: Closure<'static, usize>,
        _: &impl Fn() -> F,
    ) -> Option<F> {
        closure.into_inner()
    }

    #[test]
    fn closures_of_all_sizes_are_let_go_once() {
        each_way_lets_go_once::<0>();
        each_way_lets_go_once::<1>();
        each_way_lets_go_once::<2>();
        each_way_lets_go_once::<3>();
        each_way_lets_go_once::<100>();
    }

    #[test]
    fn a_closure_that_needs_more_alignment_is_boxed() {
        #[repr(align(64))]
        #[derive(Clone, Copy)]
        struct Aligned(u8);
        let aligned = Aligned(7);
        let closure = Closure::new(move || {
            let aligned = &aligned;
            (std::ptr::from_ref(aligned).addr() % 64, aligned.0)
        });
        assert_eq!(
            {
                let mut boxed = Box::new(closure);
                boxed.call()
            },
            (0, 7)
        );
    }

    #[test]
    fn a_panic_lets_go_of_what_was_captured() {
        let token = Arc::new(());
        let captured = Arc::clone(&token);
        let mut closure = Closure::new(move || -> () {
            let _captured = captured;
            panic!("as the test wants it");
        });
        assert!(crate::unwind::catch(|| closure.call()).is_err());
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn borrows_and_results_pass_through() {
        let words = [String::from("one"), String::from("two")];
        let mut closure = Closure::new(|| words.iter().map(String::len).sum::<usize>());
        assert_eq!(closure.call(), 6);
        let mut not_send = Closure::new(|| Rc::new(Cell::new(1)));
        assert_eq!(not_send.call().get(), 1);
    }

    #[test]
    fn it_takes_four_words_and_has_a_niche() {
        assert_eq!(size_of::<Closure<'_, ()>>(), 4 * size_of::<usize>());
        assert_eq!(size_of::<Option<Closure<'_, ()>>>(), 4 * size_of::<usize>());
    }
}
