//! The one door to threads, locks and atomics.
//!
//! Every other module takes its synchronisation from here, so that a model checker can be put behind this file without
//! touching them. Guards are passed by value to the waits, the form that both `parking_lot` and the model checkers can
//! offer. No lock in here poisons: a panic never happens under one, because no foreign code runs under one.

use std::time::{Duration, Instant};

pub(crate) use parking_lot::{MutexGuard, RwLock};
use std::hint::spin_loop;

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub(crate) use std::thread;

/// A lock that is never held while foreign code runs.
#[derive(Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// Takes the lock, waiting for it if needed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }

    /// What it guards, where nobody else can hold it.
    #[cfg(feature = "events")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

/// A condition that threads wait for, always together with one [`Mutex`].
#[derive(Default)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    /// Waits for a notification, or until `deadline` where there is one; may wake for no reason.
    pub(crate) fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, T> {
        match deadline {
            Some(instant) => {
                self.0.wait_until(&mut guard, instant);
            }
            None => self.0.wait(&mut guard),
        }
        guard
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

/// How often a lingering thread looks again before it lets others run, waiting twice as long each time.
const SPINS: u32 = 2;

/// Looks for something that others are about to bring, for about `time`, and says whether `look` has found it: what a
/// thread does before it sleeps, since to be woken takes tens of microseconds. It lets others run meanwhile; where
/// there is one CPU only, that is what helps. It looks once at least.
///
/// To wait for as long as the sleep would cost, and then to sleep, is never worse than twice the best choice: Karlin,
/// Manasse, `McGeoch`, Owicki, "Competitive randomized algorithms for non-uniform problems", 1990.
#[inline]
pub(crate) fn linger(time: Duration, mut look: impl FnMut() -> bool) -> bool {
    for round in 0..SPINS {
        if look() {
            return true;
        }
        (0..1 << round).for_each(|_| spin_loop());
    }
    let started = Instant::now();
    loop {
        if look() {
            return true;
        }
        if started.elapsed() >= time {
            return false;
        }
        thread::yield_now();
    }
}

/// A value that shares its cache line with nothing, at any address: what is made often had better not ask the allocator
/// for an alignment, which takes ten times as long.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Apart<T> {
    _before: [u8; LINE],
    pub(crate) value: T,
    _after: [u8; LINE],
}

/// The size of a cache line, nearly everywhere.
const LINE: usize = 64;

impl<T> Apart<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { _before: [0; LINE], value, _after: [0; LINE] }
    }
}

/// A value on cache lines of its own: 128 bytes, since x86-64 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CacheAligned<T>(pub(crate) T);
