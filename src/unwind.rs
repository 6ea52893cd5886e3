//! The one place where panics are caught.
//!
//! Foreign code is called through [`catch`], foreign values that nobody is waiting for are dropped through [`discard`].
//! What a caught panic means is decided elsewhere.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

/// What a panic carries.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Calls `f` and returns its value, or the payload of the panic that ended it.
///
/// Unwind safety is asserted: `f` is consumed, and whatever it shared with others it shared through types that answer
/// for themselves (locks that poison, atomics), as with a thread that panics.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    panic::catch_unwind(AssertUnwindSafe(f))
}

/// Goes on unwinding with a payload caught before, without calling the panic hook again.
pub(crate) fn resume(payload: Payload) -> ! {
    panic::resume_unwind(payload)
}

/// Drops `value` and contains a panic of its destructor. Returns whether there was none.
///
/// The payload of such a panic may itself panic when dropped; after two rounds it is leaked rather than chased.
pub(crate) fn discard<T>(value: T) -> bool {
    match catch(move || drop(value)) {
        Ok(()) => true,
        Err(payload) => {
            if let Err(second) = catch(move || drop(payload)) {
                mem::forget(second);
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic::panic_any(Bomb);
        }
    }

    #[test]
    #[cfg(panic = "unwind")]
    fn a_destructor_whose_panic_carries_a_bomb_is_contained() {
        assert!(!discard(Bomb));
        assert!(discard(1));
    }
}
