//! The locks, atomics and threads of production builds.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(crate) use parking_lot::{MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
pub(crate) use std::{thread, thread_local};

use super::adaptive_spin::AdaptiveSpin;

/// Defines a static of the process. Under a model checker each execution has its own.
macro_rules! statics {
    ($(#[$attribute:meta])* static $name:ident: $value:ty = $first:expr;) => {
        $(#[$attribute])*
        static $name: $value = $first;
    };
}
pub(crate) use statics as process_wide;

/// A mutex that is never held while user code runs.
#[derive(Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// Acquires the lock, and blocks until it is free.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }

    /// Returns the guarded value, which no other thread can access.
    #[cfg(feature = "events")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

/// A condition variable, always used with one [`Mutex`].
#[derive(Default)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    /// Blocks until a notification or, if there is one, the deadline. May wake spuriously.
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

/// Returns the current time.
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Spins until `check` returns `true`, for about `time`. Returns whether it did.
///
/// A thread calls this before it sleeps, because a wake-up takes tens of microseconds. It yields to
/// other threads between the checks, which is what helps on a single CPU. It checks at least once.
///
/// Spinning for the cost of a sleep, and then sleeping, costs at most twice the best choice:
/// Karlin, Manasse, `McGeoch`, Owicki, "Competitive randomized algorithms for non-uniform
/// problems", 1990.
#[inline]
pub(crate) fn spin_wait(time: Duration, mut check: impl FnMut() -> bool) -> bool {
    if check() || (HAS_SEVERAL_CPUS.load(Ordering::Relaxed) && spin_briefly(&mut check)) {
        return true;
    }
    let started = Instant::now();
    while started.elapsed() < time {
        thread::yield_now();
        if check() {
            return true;
        }
    }
    false
}

/// The number of checks of a spinning thread, each after twice the pause of the one before.
const CHECKS: u8 = 6;

thread_local! {
    /// Decides whether this thread spins. If the thread it waits for shares its CPU, spinning never
    /// succeeds, and costs both more than a context switch.
    static SPIN: Cell<AdaptiveSpin<63>> = const { Cell::new(AdaptiveSpin::NEW) };
}

/// Checks a few times without yielding, if that has succeeded lately. Takes less time than a
/// context switch.
fn spin_briefly(mut check: impl FnMut() -> bool) -> bool {
    let mut spin = SPIN.get();
    let found = spin.should_spin() && {
        let found = (0..CHECKS).any(|round| {
            (0..1 << round).for_each(|_| spin_loop());
            check()
        });
        spin.record(found);
        found
    };
    SPIN.set(spin);
    found
}

/// Whether a pool was built on several CPUs. On a single CPU no other thread can run while a thread
/// spins.
static HAS_SEVERAL_CPUS: AtomicBool = AtomicBool::new(false);

/// Reports that a pool was built by a thread that may run on `cpus` CPUs.
pub(crate) fn set_cpu_count(cpus: usize) {
    if cpus > 1 {
        HAS_SEVERAL_CPUS.store(true, Ordering::Relaxed);
    }
}
