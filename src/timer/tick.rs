//! The types that the closure of a periodic timer may return.

use std::ops::ControlFlow;

/// The types that the closure of a periodic timer may return: `()` and [`ControlFlow`].
///
/// After `()` and [`ControlFlow::Continue`] the timer continues. [`ControlFlow::Break`] ends it.
/// The trait is sealed.
#[diagnostic::on_unimplemented(
    message = "the closure of a periodic timer returns `()` or a `ControlFlow`, not `{Self}`",
    note = "to end the timer, return `ControlFlow::Break(())`; to go on, `ControlFlow::Continue(())` or `()`",
    note = "for a closure that only panics, write its type: `|| -> () {{ panic!() }}`"
)]
pub trait TickResult: Sealed + 'static {
    #[doc(hidden)]
    fn ends_timer(&self) -> bool;
}

/// Prevents implementations of [`TickResult`] outside of this crate.
pub trait Sealed {}

impl Sealed for () {}

impl TickResult for () {
    fn ends_timer(&self) -> bool {
        false
    }
}

impl Sealed for ControlFlow<()> {}

impl TickResult for ControlFlow<()> {
    fn ends_timer(&self) -> bool {
        self.is_break()
    }
}
