//! The one door to threads, locks, atomics, thread locals and the time.
//!
//! Every other module takes these from here, so that a model checker stands behind this file without touching them:
//! `system` is what the product uses; `checked` has the same face over loom (`--cfg workcrew_loom`) or shuttle
//! (`--cfg workcrew_shuttle`), for the crate's own models. Guards are passed by value to the waits, the form that both
//! can offer. No lock in here poisons: a panic never happens under one, because no foreign code runs under one.
//!
//! `Arc` and `Weak` are those of the standard library in every build: the checkers' own know no weak
//! references and no trait objects.

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

/// For statics, which outlive every execution of a model.
pub(crate) use std::sync::OnceLock as StaticOnceLock;
pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::{Arc, Weak};

#[cfg(all(any(workcrew_loom, workcrew_shuttle), not(workcrew_model)))]
compile_error!("model checkers see through the twin of the queue only: set `--cfg workcrew_model` as well");
#[cfg(all(workcrew_loom, workcrew_shuttle))]
compile_error!("one model checker at a time");

/// A cell that is written once. It says by an atomic of its own that the value is there: what the standard library's cell
/// goes by is hidden from model checkers and sanitizers.
pub(crate) struct OnceLock<T> {
    value: StaticOnceLock<T>,
    /// Written after the value.
    is_set: AtomicBool,
    /// Held while the value is made.
    making: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { value: StaticOnceLock::new(), is_set: AtomicBool::new(false), making: Mutex::default() }
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

    /// The value, which `make` makes if need be: under a lock of the cell, so it runs nothing foreign.
    #[inline]
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.get().unwrap_or_else(|| self.init(make))
    }

    #[cold]
    fn init(&self, make: impl FnOnce() -> T) -> &T {
        let _making = self.making.lock();
        if self.get().is_none() {
            assert!(self.set(make()).is_ok(), "made under a lock");
        }
        self.get().expect("it is there now")
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
        assert!(cell.set(value).is_ok(), "it is new");
        cell
    }
}

/// A value that shares its cache line with nothing, at any address: what is made often had better not ask the allocator
/// for an alignment, which takes ten times as long.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Padded<T> {
    _before: Line,
    pub(crate) value: T,
    _after: Line,
}

/// A cache line, nearly everywhere; nothing is ever written into it.
type Line = std::mem::MaybeUninit<[u8; 64]>;

impl<T> Padded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { _before: Line::uninit(), value, _after: Line::uninit() }
    }
}

/// A value on cache lines of its own: 128 bytes, since x86-64 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

/// Gives out numbers, none twice in one process and zero never. Nothing is ordered by them, so that no checker looks.
pub(crate) struct IdGenerator(std::sync::atomic::AtomicU64);

impl IdGenerator {
    pub(crate) const fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(1))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
