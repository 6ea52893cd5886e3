//! The locks, atomics and threads of the product.

use std::hint::spin_loop;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(crate) use parking_lot::{MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
pub(crate) use std::{thread, thread_local};

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

/// How often a lingering thread looks again before it lets others run, waiting twice as long each time; where other CPUs
/// may bring what it looks for.
const SPINS: u8 = 6;

/// Looks for something that others are about to bring, for about `time`, and says whether `look` has found it: what a
/// thread does before it sleeps, since to be woken takes tens of microseconds. It lets others run meanwhile; where
/// there is one CPU only, that is what helps. It looks once at least.
///
/// To wait for as long as the sleep would cost, and then to sleep, is never worse than twice the best choice: Karlin,
/// Manasse, `McGeoch`, Owicki, "Competitive randomized algorithms for non-uniform problems", 1990.
#[inline]
pub(crate) fn linger(time: Duration, mut look: impl FnMut() -> bool) -> bool {
    for round in 0..SPINS_NOW.load(Ordering::Relaxed) {
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

/// [`SPINS`], as soon as a pool was built where there are several CPUs.
static SPINS_NOW: AtomicU8 = AtomicU8::new(0);

/// A pool is built by a thread that may run on so many CPUs.
pub(crate) fn note_cpus(cpus: usize) {
    if cpus > 1 {
        SPINS_NOW.store(SPINS, Ordering::Relaxed);
    }
}
