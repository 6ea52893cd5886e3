//! The lane beside the bounded one, nearly always empty.
//!
//! It has rows, so that threads that bring much do not wait for each other: each row hands out in the order of arrival, and
//! they take turns. `occupied` says which rows hold something, in one word that every worker can look at.
//!
//! A row's bit is set under the row's lock before the first item is seen by anyone, and cleared under it after the last
//! was taken. So who brings an item and then looks for sleepers has written the bit, or it was written under a hold of
//! the lock that came before; and a worker that has announced its sleep and then finds the bit clear has come before
//! that write, or after the item was taken. [All of these are `SeqCst`.]

use std::array;
use std::collections::VecDeque;
use std::mem;

use crate::sync::{AtomicUsize, CachePadded, Mutex, Ordering};

/// How many rows there are.
pub(super) const ROWS: usize = 8;
/// The shortest length at which dead items of a row are looked for.
const FIRST_PURGE: usize = 64;

/// A lane that refuses nothing, but forgets what has died in it.
pub(super) struct UnboundedLane<T> {
    rows: [CachePadded<Row<T>>; ROWS],
    /// Bit by bit, which rows hold something.
    occupied: CachePadded<AtomicUsize>,
}

struct Row<T> {
    items: Mutex<Items<T>>,
    /// The number of items. Changed under the lock.
    len: AtomicUsize,
}

/// What the lock of a row guards.
struct Items<T> {
    queue: VecDeque<T>,
    /// The length at which dead items are looked for: twice what the last look left, so that looking costs each item a
    /// constant.
    next_purge: usize,
}

impl<T> UnboundedLane<T> {
    pub(super) fn new() -> Self {
        Self { rows: array::from_fn(|_| CachePadded(Row::new())), occupied: CachePadded::default() }
    }

    /// Takes the item in; returns dead ones, to be dropped by the caller, who holds no lock. `row` is any number.
    #[must_use = "what is returned is to be dropped outside of locks"]
    #[inline]
    pub(super) fn push(&self, item: T, row: usize, is_dead: impl Fn(&T) -> bool) -> Option<Vec<T>> {
        self.change(row, |items| {
            let dead = (items.queue.len() >= items.next_purge).then(|| items.purge(is_dead));
            items.queue.push_back(item);
            dead
        })
    }

    /// Hands out the oldest item of some row, if there is one. `next_row` is where to look first, and is moved on.
    #[inline]
    pub(super) fn pop(&self, next_row: &mut usize) -> Option<T> {
        // ORDERING: SeqCst; see the head of this file.
        let occupied = self.occupied.0.load(Ordering::SeqCst);
        if occupied == 0 { None } else { self.pop_one_of(occupied, next_row) }
    }

    fn pop_one_of(&self, occupied: usize, next_row: &mut usize) -> Option<T> {
        let first = *next_row;
        (0..ROWS).map(|step| (first + step) % ROWS).filter(|row| occupied & (1 << row) != 0).find_map(|row| {
            *next_row = (row + 1) % ROWS;
            self.change(row, |items| items.queue.pop_front())
        })
    }

    /// Takes back the youngest item of a row, if it is the one that `is_it` tells.
    #[inline]
    pub(super) fn take_back(&self, row: usize, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.change(row, |items| if items.queue.back().is_some_and(is_it) { items.queue.pop_back() } else { None })
    }

    /// Whether it holds nothing; out of date when it arrives.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // ORDERING: see the head of this file; a worker that has ended its search looks here as well.
        self.occupied.0.load(Ordering::SeqCst) == 0
    }

    /// How many items it holds; out of date when it arrives.
    pub(super) fn len(&self) -> usize {
        let occupied = self.occupied.0.load(Ordering::SeqCst);
        rows_of(occupied).map(|row| self.rows[row].0.len.load(Ordering::Relaxed)).sum()
    }

    /// Changes the items of a row, and says what that makes of it.
    #[inline]
    fn change<V>(&self, row: usize, change: impl FnOnce(&mut Items<T>) -> V) -> V {
        let row = row % ROWS;
        let Row { items, len } = &self.rows[row].0;
        let mut items = items.lock();
        let before = items.queue.len();
        let value = change(&mut items);
        let after = items.queue.len();
        len.store(after, Ordering::Relaxed);
        // ORDERING: SeqCst; see the head of this file. Nobody else changes this bit meanwhile.
        if before == 0 && after > 0 {
            self.occupied.0.fetch_add(1 << row, Ordering::SeqCst);
        } else if before > 0 && after == 0 {
            self.occupied.0.fetch_sub(1 << row, Ordering::SeqCst);
        }
        value
    }
}

/// The rows whose bits are set.
fn rows_of(occupied: usize) -> impl Iterator<Item = usize> {
    (0..ROWS).filter(move |row| occupied & (1 << row) != 0)
}

impl<T> Row<T> {
    fn new() -> Self {
        Self { items: Mutex::new(Items { queue: VecDeque::new(), next_purge: FIRST_PURGE }), len: AtomicUsize::new(0) }
    }
}

impl<T> Items<T> {
    /// Removes dead items.
    #[cold]
    fn purge(&mut self, is_dead: impl Fn(&T) -> bool) -> Vec<T> {
        let (dead, alive): (Vec<T>, _) = mem::take(&mut self.queue).into_iter().partition(is_dead);
        self.queue = alive.into();
        self.next_purge = FIRST_PURGE.max(2 * self.queue.len());
        dead
    }
}
