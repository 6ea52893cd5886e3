//! A closure of any type in four words: a small one is stored inline, a larger one in a box.
//!
//! Most submitted closures capture little. A box would be allocated on one thread and freed on
//! another, which costs more than everything else on the way of a small job.
//!
//! Rules:
//! 1. `store` holds one value of the type that `vtable` was made for, until the value is called,
//!    taken out or dropped. From then on `vtable` is that of [`Consumed`].
//! 2. The value is the closure itself if [`fits_inline`] is `true` for its type. Otherwise it is a
//!    box of the closure, which is a closure as well.
//! 3. Moving the store moves the value, as for any value: nothing points into it.

#![allow(unsafe_code, reason = "only the vtable knows the type of the stored value")]

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};

/// The most words that a closure may capture to be stored inline.
const MAX_INLINE_WORDS: usize = 3;

/// A closure that is called at most once, on any thread.
pub(crate) struct Closure<'a, R: 'static> {
    vtable: &'static VTable<R>,
    store: Store,
    /// Makes the store as good as this, for auto traits and variance.
    _closure: PhantomData<dyn FnOnce() -> R + Send + 'a>,
}

/// Space for a small closure or a box.
type Store = MaybeUninit<[usize; MAX_INLINE_WORDS]>;

/// The operations on a stored value of one type. `call` and `drop` take it out of the store.
struct VTable<R> {
    /// Calls the value.
    call: unsafe fn(*mut Store) -> R,
    /// Drops the value.
    drop: unsafe fn(*mut Store),
    /// The type of the closure, if it can be recovered.
    recoverable: Option<fn() -> TypeId>,
    /// Whether the value is gone.
    is_consumed: bool,
}

impl<'a, R: 'static> Closure<'a, R> {
    /// Creates a closure that may borrow and cannot be recovered.
    pub(crate) fn new<F: FnOnce() -> R + Send + 'a>(f: F) -> Self {
        if fits_inline::<F>() {
            Self::store(f, &Borrowing::<F, R>::VTABLE)
        } else {
            Self::store(Box::new(f), &Borrowing::<Box<F>, R>::VTABLE)
        }
    }

    /// Calls the closure and consumes it. Takes a reference, because copying four words that were
    /// just written stalls the processor.
    ///
    /// # Panics
    ///
    /// If the closure is consumed.
    #[inline]
    pub(crate) fn call(&mut self) -> R {
        let vtable = mem::replace(&mut self.vtable, &Consumed::<R>::VTABLE);
        // SAFETY: by rule 1 the store holds a value of the right type, which is consumed from now
        // on.
        unsafe { (vtable.call)(&raw mut self.store) }
    }

    /// Returns `true` if the closure was called.
    pub(crate) fn is_consumed(&self) -> bool {
        self.vtable.is_consumed
    }

    /// Erases the lifetime of the captured borrows.
    ///
    /// # Safety
    ///
    /// The closure must be called or dropped before `'a` ends.
    pub(crate) unsafe fn erase_lifetime(self) -> Closure<'static, R> {
        // SAFETY: only the lifetime changes, and the caller respects it.
        unsafe { mem::transmute(self) }
    }

    /// Stores a value that fits inline and has the type that `vtable` was made for.
    #[inline]
    fn store<S>(value: S, vtable: &'static VTable<R>) -> Self {
        const { assert!(fits_inline::<Box<u8>>()) };
        debug_assert!(fits_inline::<S>(), "a value that does not fit is boxed");
        let mut store = Store::uninit();
        // SAFETY: the value fits into the store, by size and alignment.
        unsafe { store.as_mut_ptr().cast::<S>().write(value) };
        Self { vtable, store, _closure: PhantomData }
    }
}

impl<R: 'static> Closure<'static, R> {
    /// Creates a closure that [`into_inner`](Self::into_inner) can recover.
    #[inline]
    pub(crate) fn recoverable<F: FnOnce() -> R + Send + 'static>(f: F) -> Self {
        if fits_inline::<F>() {
            Self::store(f, &Recoverable::<F, F, R>::VTABLE)
        } else {
            Self::store(Box::new(f), &Recoverable::<Box<F>, F, R>::VTABLE)
        }
    }

    /// Returns the closure that was passed to [`recoverable`](Self::recoverable); `None` if its
    /// type is not `F`.
    pub(crate) fn into_inner<F: FnOnce() -> R + Send + 'static>(mut self) -> Option<F> {
        let type_id = self.vtable.recoverable?;
        if type_id() != TypeId::of::<F>() {
            return None;
        }
        self.vtable = &Consumed::<R>::VTABLE;
        let store = &raw mut self.store;
        Some(if fits_inline::<F>() {
            // SAFETY: `recoverable` stored a value of this type, which is consumed from now on.
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
        // SAFETY: by rule 1 the store holds a value of the right type. If that is consumed, `drop`
        // of `Consumed` does nothing.
        unsafe { (self.vtable.drop)(&raw mut self.store) }
    }
}

/// Makes the vtable of a stored `S` that may borrow.
struct Borrowing<S, R>(PhantomData<(S, R)>);

impl<S: FnOnce() -> R, R> Borrowing<S, R> {
    const VTABLE: VTable<R> = VTable { call: call::<S, R>, drop: discard::<S>, recoverable: None, is_consumed: false };
}

/// Makes the vtable of a stored `S`, which is an `F` or a box of it.
struct Recoverable<S, F, R>(PhantomData<(S, F, R)>);

impl<S: FnOnce() -> R, F: 'static, R> Recoverable<S, F, R> {
    const VTABLE: VTable<R> = VTable { recoverable: Some(TypeId::of::<F>), ..Borrowing::<S, R>::VTABLE };
}

/// Makes the vtable of a closure that was called or taken out.
struct Consumed<R>(PhantomData<R>);

impl<R> Consumed<R> {
    const VTABLE: VTable<R> = VTable {
        call: |_| panic!("a closure is called at most once"),
        drop: |_| (),
        recoverable: None,
        is_consumed: true,
    };
}

/// Returns `true` if values of type `S` fit into a store.
const fn fits_inline<S>() -> bool {
    size_of::<S>() <= size_of::<Store>() && align_of::<S>() <= align_of::<Store>()
}

/// Takes the value out of the store.
///
/// # Safety
///
/// The store holds an `S`, which is consumed by this.
unsafe fn take<S>(store: *mut Store) -> S {
    // SAFETY: the caller upholds the contract.
    unsafe { store.cast::<S>().read() }
}

/// Takes the value out of the store and calls it.
///
/// # Safety
///
/// The same as for [`take`].
unsafe fn call<S: FnOnce() -> R, R>(store: *mut Store) -> R {
    // SAFETY: the caller upholds the contract.
    let value = unsafe { take::<S>(store) };
    value()
}

/// Takes the value out of the store and drops it.
///
/// # Safety
///
/// The same as for [`take`].
unsafe fn discard<S>(store: *mut Store) {
    // SAFETY: the caller upholds the contract.
    drop(unsafe { take::<S>(store) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;

    /// Calls, drops and recovers closures that capture `N` words besides a counted reference.
    fn each_way_drops_once<const N: usize>() {
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
    fn closures_of_all_sizes_are_dropped_once() {
        each_way_drops_once::<0>();
        each_way_drops_once::<1>();
        each_way_drops_once::<2>();
        each_way_drops_once::<3>();
        each_way_drops_once::<100>();
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
    fn a_panic_drops_the_captured_values() {
        let token = Arc::new(());
        let captured = Arc::clone(&token);
        let mut closure = Closure::new(move || -> () {
            let _captured = captured;
            panic!("expected by the test");
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
    fn a_closure_takes_four_words_and_has_a_niche() {
        assert_eq!(size_of::<Closure<'_, ()>>(), 4 * size_of::<usize>());
        assert_eq!(size_of::<Option<Closure<'_, ()>>>(), 4 * size_of::<usize>());
    }
}
