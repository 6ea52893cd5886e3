//! The facade over threads, locks, atomics, thread locals and the clock.
//!
//! All other modules take these from here, so a model checker can replace them. Production builds
//! use `native`. The crate's own models use `model`, which has the same interface over loom
//! (`--cfg workcrew_loom`) or shuttle (`--cfg workcrew_shuttle`). Waits take and return guards by
//! value, the form that both support. No lock is poisoned: no user code runs under a lock, so no
//! panic happens under one.
//!
//! `Arc` and `Weak` are those of the standard library in every build, because those of the checkers
//! support neither weak references nor trait objects.

#[cfg(all(test, any(workcrew_loom, workcrew_shuttle)))]
pub(crate) mod model;
#[cfg_attr(all(test, any(workcrew_loom, workcrew_shuttle)), allow(dead_code, unused_imports, unused_macros))]
pub(crate) mod native;

pub(crate) mod adaptive_spin;
pub(crate) mod thread_name;

#[cfg(all(test, any(workcrew_loom, workcrew_shuttle)))]
pub(crate) use self::model::*;
#[cfg(not(all(test, any(workcrew_loom, workcrew_shuttle))))]
pub(crate) use self::native::*;

/// A lock that is hidden from model checkers. It guards what is shown to users only, it is held for
/// a few steps, and nothing waits under it.
pub(crate) use self::native::Mutex as HiddenMutex;
/// The cell for statics, which outlive the executions of a model.
pub(crate) use std::sync::OnceLock as StaticOnceLock;
pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::{Arc, Weak};
#[cfg(debug_assertions)]
pub(crate) use std::thread::panicking;
/// A thread, for its name.
pub(crate) use std::thread::{Thread, current as current_thread};

#[cfg(all(any(workcrew_loom, workcrew_shuttle), not(workcrew_model)))]
compile_error!("model checkers need the model implementation of the queue: set `--cfg workcrew_model` as well");
#[cfg(all(workcrew_loom, workcrew_shuttle))]
compile_error!("only one model checker can be used at a time");

/// A cell that is written once. It has an atomic flag of its own, because that of the standard
/// library's cell is hidden from model checkers and sanitizers.
pub(crate) struct OnceLock<T> {
    value: StaticOnceLock<T>,
    /// Whether the value is set; written after the value.
    is_set: AtomicBool,
    /// Held while the value is initialised.
    init: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { value: StaticOnceLock::new(), is_set: AtomicBool::new(false), init: Mutex::default() }
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // ORDERING: Acquire pairs with the Release of `set`.
        if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns the value, after initialising it if necessary. `make` is called under a lock of the
    /// cell, so it runs no user code.
    #[inline]
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.get().unwrap_or_else(|| self.init(make))
    }

    #[cold]
    fn init(&self, make: impl FnOnce() -> T) -> &T {
        let _init = self.init.lock();
        if self.get().is_none() {
            assert!(self.set(make()).is_ok(), "the value is initialised under a lock");
        }
        self.get().expect("the value is set")
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        let cell = Self::new();
        assert!(cell.set(value).is_ok(), "a new cell is empty");
        cell
    }
}

/// A value that shares its cache line with no other, at any address. Padding avoids an over-aligned
/// allocation, which is about ten times slower.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Padded<T> {
    _before: Line,
    pub(crate) value: T,
    _after: Line,
}

/// The size of a cache line on most machines. Never written.
type Line = std::mem::MaybeUninit<[u8; 64]>;

impl<T> Padded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { _before: Line::uninit(), value, _after: Line::uninit() }
    }
}

/// A value aligned to 128 bytes, because x86-64 fetches cache lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

/// A source of ids. Each is unique within the process, and none is zero. They order no other memory
/// access, so the counter is hidden from model checkers.
pub(crate) struct IdGenerator(std::sync::atomic::AtomicU64);

impl IdGenerator {
    pub(crate) const fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(1))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
