//! The lanes of the classes `High` and `Background`, which are made when they are first used.
//!
//! `seen` has one bit for each class that has lanes. The bit is set before any thread can push to
//! the lanes. A worker that has registered and then finds the bit clear relies on the push that
//! comes later and notifies it. A worker that finds it set waits for the lanes to be made. All of
//! these are `SeqCst`, like the steps of the queue's rules.

use super::class_picker::Popped;
use super::lanes::{LaneCursor, Lanes};
use super::permits::Permits;
use crate::priority::Priority;
use crate::sync::{AtomicUsize, OnceLock, Ordering};

/// The capacities of a queue, and how many workers run items of `Background`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSettings {
    /// The capacity of `High`.
    pub(crate) high: usize,
    /// The capacity of `Normal`.
    pub(crate) normal: usize,
    /// The capacity of `Background`.
    pub(crate) background: usize,
    /// How many workers run items of `Background` at the same time; not zero. `usize::MAX` means
    /// all of them.
    pub(crate) background_workers: usize,
}

impl QueueSettings {
    /// Returns the settings of a queue with one capacity for all classes, and without a limit.
    #[cfg(test)]
    pub(crate) fn new(capacity: usize) -> Self {
        Self { high: capacity, normal: capacity, background: capacity, background_workers: usize::MAX }
    }

    /// Returns the capacity of a class.
    pub(crate) fn capacity(&self, class: Priority) -> usize {
        match class {
            Priority::High => self.high,
            Priority::Normal => self.normal,
            Priority::Background => self.background,
        }
    }
}

/// The classes other than `Normal`.
pub(super) struct Classes<T> {
    settings: QueueSettings,
    /// See the head of this file.
    seen: AtomicUsize,
    high: OnceLock<Box<Lanes<T>>>,
    background: OnceLock<Box<Lanes<T>>>,
    permits: Permits,
}

/// The position of a worker in the lanes of these classes.
#[derive(Debug, Default)]
pub(super) struct ClassCursor {
    high: LaneCursor,
    background: LaneCursor,
    /// Whether the worker holds a permit for `Background`.
    has_permit: bool,
}

const HIGH: usize = 1;
const BACKGROUND: usize = 2;

impl<T> Classes<T> {
    pub(super) fn new(settings: QueueSettings) -> Self {
        Self {
            settings,
            seen: AtomicUsize::new(0),
            high: OnceLock::new(),
            background: OnceLock::new(),
            permits: Permits::new(settings.background_workers),
        }
    }

    pub(super) fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// Returns the lanes of `High`. Makes them if necessary.
    pub(super) fn high(&self) -> &Lanes<T> {
        self.high.get_or_init(|| self.make(HIGH, self.settings.high))
    }

    /// Returns the lanes of `Background`. Makes them if necessary.
    pub(super) fn background(&self) -> &Lanes<T> {
        self.background.get_or_init(|| self.make(BACKGROUND, self.settings.background))
    }

    /// Returns the lanes of a class if they were made.
    pub(super) fn lanes_if_made(&self, class: Priority) -> Option<&Lanes<T>> {
        match class {
            Priority::High => self.is_seen(HIGH).then(|| self.high()),
            Priority::Normal => None,
            Priority::Background => self.is_seen(BACKGROUND).then(|| self.background()),
        }
    }

    #[cold]
    fn make(&self, bit: usize, capacity: usize) -> Box<Lanes<T>> {
        // ORDERING: SeqCst, before the lanes can be found; pairs with `is_seen`.
        self.seen.fetch_or(bit, Ordering::SeqCst);
        Box::new(Lanes::new(capacity))
    }

    fn is_seen(&self, bit: usize) -> bool {
        // ORDERING: SeqCst, after the registration of a worker that falls asleep; see the head of
        // this file.
        self.seen.load(Ordering::SeqCst) & bit != 0
    }

    /// Returns whether one of these classes has lanes; may be stale when it returns.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.is_seen(HIGH | BACKGROUND)
    }

    /// Returns the lanes that were made.
    pub(super) fn made(&self) -> impl Iterator<Item = &Lanes<T>> {
        [Priority::High, Priority::Background].into_iter().filter_map(|class| self.lanes_if_made(class))
    }

    /// Pops the next item of `High`.
    pub(super) fn pop_high(&self, cursor: &mut ClassCursor) -> Popped<T> {
        let high = self.lanes_if_made(Priority::High).and_then(|lanes| lanes.pop(&mut cursor.high));
        high.map_or(Popped::Empty, Popped::Item)
    }

    /// Pops the next item of `Background`, by the rules of [`permits`](super::permits).
    pub(super) fn pop_background(&self, cursor: &mut ClassCursor) -> Popped<T> {
        let Some(lanes) = self.lanes_if_made(Priority::Background) else { return Popped::Empty };
        if !self.permits.is_limited() {
            return lanes.pop(&mut cursor.background).map_or(Popped::Empty, Popped::Item);
        }
        loop {
            if lanes.is_empty() {
                return Popped::Empty;
            }
            if !cursor.has_permit && !self.permits.try_take() {
                return Popped::Held;
            }
            if let Some(item) = lanes.pop(&mut cursor.background) {
                cursor.has_permit = true;
                return Popped::Item(item);
            }
            // Another worker was faster. The check for items follows.
            cursor.has_permit = false;
            self.permits.put_back();
        }
    }

    /// Returns the permit of a worker, if it has one. If so, the worker then takes an item or
    /// notifies another worker, if [`has_background`](Self::has_background).
    #[must_use]
    pub(super) fn put_permit_back(&self, cursor: &mut ClassCursor) -> bool {
        let had_permit = std::mem::take(&mut cursor.has_permit);
        if had_permit {
            self.permits.put_back();
        }
        had_permit
    }

    /// Pops an item of any of these classes, with or without a permit.
    pub(super) fn pop_any(&self, cursor: &mut ClassCursor) -> Option<T> {
        let high = self.lanes_if_made(Priority::High).and_then(|lanes| lanes.pop(&mut cursor.high));
        high.or_else(|| self.lanes_if_made(Priority::Background)?.pop(&mut cursor.background))
    }

    /// Returns whether a worker may take an item of `Background`; may be stale when it returns.
    pub(super) fn has_permits(&self) -> bool {
        !self.permits.is_limited() || self.permits.is_left()
    }

    /// Returns how many workers may run items of `Background`.
    #[cfg(feature = "nats")]
    pub(super) fn background_workers(&self) -> usize {
        self.permits.limit()
    }

    fn has_high(&self) -> bool {
        self.lanes_if_made(Priority::High).is_some_and(|lanes| !lanes.is_empty())
    }

    /// Returns whether there is an item of `Background` that a worker without a permit may take;
    /// may be stale when it returns.
    pub(super) fn has_background(&self) -> bool {
        self.lanes_if_made(Priority::Background).is_some_and(|lanes| !lanes.is_empty()) && self.has_permits()
    }

    /// Returns whether there is an item that a worker may take; may be stale when it returns.
    pub(super) fn has_work(&self) -> bool {
        self.is_used() && (self.has_high() || self.has_background())
    }
}
