//! A cell with the waker of the last poll of one future.

use std::task::Waker;

use crate::nesting;
use crate::sync::Mutex;
use crate::unwind;

/// A cell with the waker of the last poll. Wakers are user code: they are cloned, called and
/// dropped with no lock held.
pub(crate) struct WakerCell {
    waker: Mutex<Option<Waker>>,
}

impl WakerCell {
    /// Creates a cell that wakes `waker`.
    pub(crate) fn new(waker: &Waker) -> Self {
        Self { waker: Mutex::new(Some(waker.clone())) }
    }

    /// Replaces the waker.
    pub(crate) fn register(&self, waker: &Waker) {
        let waker = waker.clone();
        let old = self.waker.lock().replace(waker);
        unwind::discard(old);
    }

    /// Wakes and removes the waker, if there is one. Contains its panic.
    pub(crate) fn wake(&self) {
        let waker = self.waker.lock().take();
        waker.into_iter().for_each(nesting::wake);
    }
}

impl Drop for WakerCell {
    fn drop(&mut self) {
        let waker = self.waker.lock().take();
        unwind::discard(waker);
    }
}
