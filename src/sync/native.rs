//! The locks, atomics and threads of the product.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(crate) use parking_lot::{MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
pub(crate) use std::{thread, thread_local};

use super::adaptive_spin::AdaptiveSpin;

/// Makes a static of the process. Under a model checker it is one of each execution.
macro_rules! statics {
    ($(#[$attribute:meta])* static $name:ident: $value:ty = $first:expr;) => {
        $(#[$attribute])*
        static $name: $value = $first;
    };
}
pub(crate) use statics as process_wide;

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

/// What time it is.
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Looks for something that others are about to bring, for about `time`, and says whether `look` has found it: what a
/// thread does before it sleeps, since to be woken takes tens of microseconds. It lets others run meanwhile; where
/// there is one CPU only, that is what helps. It looks once at least.
///
/// To wait for as long as the sleep would cost, and then to sleep, is never worse than twice the best choice: Karlin,
/// Manasse, `McGeoch`, Owicki, "Competitive randomized algorithms for non-uniform problems", 1990.
#[inline]
pub(crate) fn spin_wait(time: Duration, mut look: impl FnMut() -> bool) -> bool {
    if look() || (HAS_SEVERAL_CPUS.load(Ordering::Relaxed) && spin(&mut look)) {
        return true;
    }
    let started = Instant::now();
    while started.elapsed() < time {
        thread::yield_now();
        if look() {
            return true;
        }
    }
    false
}

/// How often a spinning thread looks, waiting twice as long each time.
const SPINS: u8 = 6;

thread_local! {
    /// Whether spinning pays for this thread. Where the one that it waits for shares a CPU with it, it never does, and costs
    /// both of them more than the switch to the other.
    static SPINNING: Cell<AdaptiveSpin<63>> = const { Cell::new(AdaptiveSpin::NEW) };
}

/// Looks a few times without letting others run, if that has paid lately; for less time than it takes to give the CPU away.
fn spin(mut look: impl FnMut() -> bool) -> bool {
    let mut spinning = SPINNING.get();
    let found = spinning.should_spin() && {
        let found = (0..SPINS).any(|round| {
            (0..1 << round).for_each(|_| spin_loop());
            look()
        });
        spinning.record(found);
        found
    };
    SPINNING.set(spinning);
    found
}

/// Whether a pool was built where there are several CPUs. On one, what a spinning thread looks for cannot come meanwhile.
static HAS_SEVERAL_CPUS: AtomicBool = AtomicBool::new(false);

/// A pool is built by a thread that may run on so many CPUs.
pub(crate) fn set_cpu_count(cpus: usize) {
    if cpus > 1 {
        HAS_SEVERAL_CPUS.store(true, Ordering::Relaxed);
    }
}
