//! The interface of `native` over a model checker, and the time of a model.
//!
//! The differences from production, and why the models still check the production code:
//!
//! 1. *Time* stands still except for waits with a deadline, and is the same whenever a schedule is
//!    repeated. [`Time`] selects how a timed wait behaves. It skips to its deadline at once, as if
//!    all other threads were slow; or it waits for a notification, as if they were fast. So no
//!    model depends on its speed.
//! 2. *Spinning* is a single check. What several checks find, a single check finds in a later
//!    schedule.
//! 3. All threads of a model are one thread for the standard library. So it considers a lock
//!    poisoned that one of them releases while another unwinds. That has no meaning and is ignored.
//! 4. loom treats `SeqCst` accesses as `AcqRel`. Here they get fences: one after each store, one
//!    before each load. So of two threads that each write and then read what the other wrote, at
//!    least one sees the other's write. This also holds if a thread relies on a write before its
//!    own steps. No ORDERING note of the crate claims more.

#[cfg(workcrew_loom)]
pub(crate) use ::loom as checker;
#[cfg(workcrew_shuttle)]
pub(crate) use ::shuttle as checker;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64 as RealU64, Ordering};
use std::sync::{OnceLock as RealOnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Defines thread locals of a model. loom does not support the `const` form.
macro_rules! locals {
    ($($(#[$attribute:meta])* static $name:ident: $value:ty = const { $first:expr };)*) => {
        $crate::sync::model::checker::thread_local! {$($(#[$attribute])* static $name: $value = $first;)*}
    };
}
pub(crate) use locals as thread_local;

/// Defines a static of each execution.
macro_rules! statics {
    ($(#[$attribute:meta])* static $name:ident: $value:ty = $first:expr;) => {
        $crate::sync::model::checker::lazy_static! {
            $(#[$attribute])*
            static ref $name: $value = $first;
        }
    };
}
pub(crate) use statics as process_wide;

/// A mutex; see `native`.
#[derive(Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

/// The guard of a [`Mutex`].
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

/// A reader-writer lock; see `native`.
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

/// A condition variable; see `native`.
#[derive(Default)]
pub(crate) struct Condvar(checker::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(checker::sync::Condvar::new())
    }

    pub(crate) fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Option<Instant>) -> MutexGuard<'a, T> {
        let MutexGuard { mutex, held } = guard;
        match deadline {
            Some(instant) if Time::skips() => {
                drop(held);
                skip_to(instant);
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
        /// An atomic; see rule 4.
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

/// Implements rule 4. shuttle treats every access as `SeqCst`.
fn fence(ordering: Ordering) {
    if cfg!(workcrew_loom) && ordering == Ordering::SeqCst {
        checker::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// See `native`. Without effect, because models do not spin.
pub(crate) fn set_cpu_count(cpus: usize) {
    let _ = cpus;
}

/// Implements rule 2.
pub(crate) fn spin_wait(_: Duration, mut check: impl FnMut() -> bool) -> bool {
    check()
}

/// The threads of a model.
pub(crate) mod thread {
    use super::checker;
    use std::io;

    #[allow(unused_imports, reason = "used with the feature `driver`")]
    pub(crate) use checker::thread::{Thread, current};

    #[cfg(workcrew_shuttle)]
    pub(crate) use checker::thread::yield_now;

    /// Does nothing. loom counts each resumption after a yield as a preemption, so three yields
    /// would use up the bound.
    #[cfg(workcrew_loom)]
    pub(crate) fn yield_now() {}

    /// The handle of a thread, which joins it.
    pub(crate) struct JoinHandle<T>(checker::thread::JoinHandle<T>);

    impl<T> JoinHandle<T> {
        pub(crate) fn join(self) -> std::thread::Result<T> {
            self.0.join()
        }

        /// Returns `false`: models do not know this.
        pub(crate) fn is_finished(&self) -> bool {
            false
        }

        #[allow(dead_code, reason = "used with the feature `driver`")]
        pub(crate) fn thread(&self) -> &Thread {
            self.0.thread()
        }
    }

    /// A builder of threads.
    pub(crate) struct Builder(checker::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(checker::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        /// Has no effect: the checker chooses the size of the stack.
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

/// Primitives of the test run, which are not part of a model.
pub(crate) mod real {
    #[cfg(workcrew_loom)]
    pub(crate) use std::sync::Once;
    pub(crate) use std::sync::atomic::AtomicBool;
}

/// How waits with a deadline behave; see rule 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// They wait for a notification.
    Frozen,
    /// They skip to their deadline at once.
    Skips,
}

/// Whether time skips in the current model, and the nanoseconds that have passed in this execution.
/// They belong to the checker and not to the model, so they are atomics of the standard library.
static SKIPS: RealU64 = RealU64::new(0);
static PASSED: RealU64 = RealU64::new(0);

impl Time {
    fn skips() -> bool {
        SKIPS.load(Ordering::Relaxed) > 0
    }

    /// Resets the time, at the beginning of each execution.
    pub(crate) fn begin(self) {
        SKIPS.store(u64::from(self == Self::Skips), Ordering::Relaxed);
        PASSED.store(0, Ordering::Relaxed);
    }
}

/// Returns the time at which each execution begins.
fn epoch() -> Instant {
    static EPOCH: RealOnceLock<Instant> = RealOnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Returns the current time of the model.
pub(crate) fn now() -> Instant {
    epoch() + Duration::from_nanos(PASSED.load(Ordering::Relaxed))
}

fn skip_to(instant: Instant) {
    let nanoseconds = u64::try_from((instant - epoch()).as_nanos()).expect("models last less than centuries");
    PASSED.fetch_max(nanoseconds, Ordering::Relaxed);
}
