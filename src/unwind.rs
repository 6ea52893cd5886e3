//! The only module that catches panics.
//!
//! User code is called through [`catch`]. User values without an owner that could handle a panic
//! are dropped through [`discard`]. Callers decide what a caught panic means.

use std::any::Any;
use std::borrow::Cow;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

/// The payload of a panic.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Calls `f` and returns its value, or the payload of the panic that ended it.
///
/// Unwind safety is asserted: `f` is consumed. It shares state with other code only through types
/// that handle panics themselves (locks with poisoning, atomics), as a thread that panics does.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    panic::catch_unwind(AssertUnwindSafe(f))
}

/// Resumes unwinding with a caught payload, without calling the panic hook again.
pub(crate) fn resume(payload: Payload) -> ! {
    panic::resume_unwind(payload)
}

/// Returns the message of a panic, if its payload is a string, as with `panic!`.
pub(crate) fn message(payload: &Payload) -> Option<Cow<'static, str>> {
    match payload.downcast_ref::<&'static str>() {
        Some(text) => Some(Cow::Borrowed(*text)),
        None => payload.downcast_ref::<String>().map(|text| Cow::Owned(text.clone())),
    }
}

/// Drops `value` and contains a panic of its destructor. Returns `true` if there was no panic.
///
/// The payload of such a panic may itself panic when it is dropped. The payload of that second
/// panic is leaked.
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

/// Marks a type as unwind safe: `unwind::safe!(Pool)`. Generic parameters follow the type:
/// `unwind::safe!(Handle<T>, T)`.
///
/// No lock of this crate is held while user code may panic, so a reference never shows a broken
/// state.
macro_rules! safe {
    ($type:ty $(, $($parameters:tt)*)?) => {
        impl$(<$($parameters)*>)? std::panic::UnwindSafe for $type {}
        impl$(<$($parameters)*>)? std::panic::RefUnwindSafe for $type {}
    };
}
pub(crate) use safe;

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
