//! The same face over a model checker, and the way to run a model under it.
//!
//! What differs from the product, and why it is still the product that is checked:
//!
//! 1. *Time* stands still but for waits with a deadline, and is the same whenever a schedule is run again. A
//!    timed wait either lets the time pass to its end at once, as if all others were slow, or waits to be told, as if they
//!    were fast ([`Time`] says which). So no model depends on how fast it runs.
//! 2. *Lingering* is one look: what it finds in several, it finds in one of a later schedule.
//! 3. All threads of a model are one thread for the standard library, which therefore takes a lock for poisoned that one
//!    of them leaves while another unwinds. That says nothing.
//! 4. loom takes `SeqCst` accesses for `AcqRel` ones. They are given fences here: one after each store, one before each load.
//!    So of two that each write and then read what the other wrote, one sees the other, also where one relies on a
//!    write that came before its own steps; more than that no ORDERING note of the crate claims.

#[cfg(workcrew_loom)]
pub(crate) use ::loom as checker;
#[cfg(workcrew_shuttle)]
pub(crate) use ::shuttle as checker;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64 as RealU64, Ordering};
use std::sync::{OnceLock as RealOnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Thread locals of the model; loom does not know the `const` form.
macro_rules! locals {
    ($($(#[$attribute:meta])* static $name:ident: $value:ty = const { $first:expr };)*) => {
        $crate::sync::model::checker::thread_local! {$($(#[$attribute])* static $name: $value = $first;)*}
    };
}
pub(crate) use locals as thread_local;

/// A static of each execution.
macro_rules! statics {
    ($(#[$attribute:meta])* static $name:ident: $value:ty = $first:expr;) => {
        $crate::sync::model::checker::lazy_static! {
            $(#[$attribute])*
            static ref $name: $value = $first;
        }
    };
}
pub(crate) use statics as process_wide;

/// A lock, see `system`.
#[derive(Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

/// The lock is held.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: checker::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: self.0.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().expect("no panic happens under a lock")
    }

    #[cfg(feature = "events")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held
    }
}

/// A lock with readers, see `system`.
#[derive(Default)]
pub(crate) struct RwLock<T>(checker::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> checker::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> checker::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition, see `system`.
#[derive(Default)]
pub(crate) struct Condvar(checker::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(checker::sync::Condvar::new())
    }

    pub(crate) fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Option<Instant>) -> MutexGuard<'a, T> {
        let MutexGuard { mutex, held } = guard;
        match deadline {
            Some(instant) if Time::passes() => {
                drop(held);
                pass_until(instant);
                thread::yield_now();
                mutex.lock()
            }
            _ => MutexGuard { mutex, held: self.0.wait(held).unwrap_or_else(PoisonError::into_inner) },
        }
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

macro_rules! atomics {
    ($($name:ident: $value:ty,)*) => {$(
        /// See rule 4.
        #[derive(Debug)]
        pub(crate) struct $name(checker::sync::atomic::$name);

        #[allow(dead_code, reason = "not every type uses every operation")]
        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self(checker::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                fence(ordering);
                self.0.load(ordering)
            }

            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                self.0.store(value, ordering);
                fence(ordering);
            }

            pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                fence(ordering);
                let before = self.0.swap(value, ordering);
                fence(ordering);
                before
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                fence(success);
                let result = self.0.compare_exchange(current, new, success, failure);
                fence(success);
                result
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(<$value>::default())
            }
        }
    )*};
}

macro_rules! arithmetic {
    ($($name:ident: $value:ty, $($operation:ident)*;)*) => {$(
        #[allow(dead_code, reason = "not every type uses every operation")]
        impl $name {
            $(pub(crate) fn $operation(&self, value: $value, ordering: Ordering) -> $value {
                fence(ordering);
                let before = self.0.$operation(value, ordering);
                fence(ordering);
                before
            })*
        }
    )*};
}

atomics! {
    AtomicBool: bool,
    AtomicU8: u8,
    AtomicU64: u64,
    AtomicUsize: usize,
}

arithmetic! {
    AtomicBool: bool, fetch_or fetch_and;
    AtomicU8: u8, fetch_or fetch_and fetch_max;
    AtomicU64: u64, fetch_add fetch_sub fetch_or fetch_and fetch_max;
    AtomicUsize: usize, fetch_add fetch_sub fetch_or fetch_and fetch_max;
}

/// Rule 4; shuttle takes every access for a `SeqCst` one.
fn fence(ordering: Ordering) {
    if cfg!(workcrew_loom) && ordering == Ordering::SeqCst {
        checker::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// See `system`; nothing spins here.
pub(crate) fn set_cpu_count(cpus: usize) {
    let _ = cpus;
}

/// Rule 2.
pub(crate) fn spin_wait(_: Duration, mut look: impl FnMut() -> bool) -> bool {
    look()
}

/// Threads of the model.
pub(crate) mod thread {
    use super::checker;
    use std::io;

    #[allow(unused_imports, reason = "used with the feature `io`")]
    pub(crate) use checker::thread::{Thread, current};

    #[cfg(workcrew_shuttle)]
    pub(crate) use checker::thread::yield_now;

    /// A hint. To go on after one counts as a preemption for loom; so three would be the end of what is explored.
    #[cfg(workcrew_loom)]
    pub(crate) fn yield_now() {}

    /// A thread to be joined.
    pub(crate) struct JoinHandle<T>(checker::thread::JoinHandle<T>);

    impl<T> JoinHandle<T> {
        pub(crate) fn join(self) -> std::thread::Result<T> {
            self.0.join()
        }

        /// Never known.
        pub(crate) fn is_finished(&self) -> bool {
            false
        }

        #[allow(dead_code, reason = "used with the feature `io`")]
        pub(crate) fn thread(&self) -> &Thread {
            self.0.thread()
        }
    }

    /// Starts threads.
    pub(crate) struct Builder(checker::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(checker::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        /// What a worker's stack holds in the model is what the checker gives it.
        pub(crate) fn stack_size(self, _: usize) -> Self {
            self
        }

        pub(crate) fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
        where
            F: FnOnce() -> T + Send + 'static,
            T: Send + 'static,
        {
            self.0.spawn(f).map(JoinHandle)
        }
    }

    pub(crate) fn spawn<F, T>(f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        JoinHandle(checker::thread::spawn(f))
    }
}

/// What belongs to the run of the models and not to a model.
pub(crate) mod real {
    #[cfg(workcrew_loom)]
    pub(crate) use std::sync::Once;
    pub(crate) use std::sync::atomic::AtomicBool;
}

/// How a wait with a deadline ends; see rule 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// By a notification only: the time does not pass.
    Frozen,
    /// The time skips to the deadline at once.
    Skips,
}

/// Whether the time skips in the current model, and how many nanoseconds have passed in this execution.
/// They belong to the checker and not to the model, so they are not atomics of the model.
static SKIPS: RealU64 = RealU64::new(0);
static PASSED: RealU64 = RealU64::new(0);

impl Time {
    fn passes() -> bool {
        SKIPS.load(Ordering::Relaxed) > 0
    }

    /// Sets the time back, at the beginning of each execution.
    pub(crate) fn begin(self) {
        SKIPS.store(u64::from(self == Self::Skips), Ordering::Relaxed);
        PASSED.store(0, Ordering::Relaxed);
    }
}

/// When every execution begins.
fn epoch() -> Instant {
    static EPOCH: RealOnceLock<Instant> = RealOnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// What time it is in the model.
pub(crate) fn now() -> Instant {
    epoch() + Duration::from_nanos(PASSED.load(Ordering::Relaxed))
}

fn pass_until(instant: Instant) {
    let nanoseconds = u64::try_from((instant - epoch()).as_nanos()).expect("models last less than centuries");
    PASSED.fetch_max(nanoseconds, Ordering::Relaxed);
}
