//! A heap of timers ordered by deadline, with removal by key.
//!
//! Values with the same deadline come out in the order of insertion. The heap reads no clock:
//! callers pass the current time. It knows nothing of threads and tasks.
//!
//! Rules:
//! 1. The deadline of a node is not earlier than that of its parent. Node `n` has the
//!    children `4n + 1` to `4n + 4`.
//! 2. The value in slot `s` holds the index of its node, and that node holds `s`.
//! 3. Vacant slots form a list, which begins at `free`.
//!
//! Most timers are inserted behind others and removed before they are due. Such a timer is inserted
//! and removed at a leaf, which takes constant time; in the worst case both take logarithmic time.
//! With a search tree, setting and cancelling a timer would cost twice as much.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::time::deadline::Deadline;

/// The number of children of a node. Four fit into two cache lines, and the heap is half as high as
/// with two.
const CHILDREN: usize = 4;

/// The limit of slots that are kept when all of them are vacant.
const MAX_KEPT_SLOTS: usize = 1024;

/// The key of one value in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    order: HeapOrder,
    slot: usize,
}

/// What the heap is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HeapOrder {
    deadline: Deadline,
    /// Orders values with the same deadline; never used twice.
    number: u64,
}

/// Values ordered by deadline.
pub(crate) struct TimerHeap<T> {
    /// The nodes of rule 1, each with the key of its value.
    nodes: Vec<TimerKey>,
    slots: Vec<Slot<T>>,
    /// The first vacant slot, or the number of slots if none is vacant.
    free: usize,
    /// The next number of an order.
    next_number: u64,
    /// How many nodes all changes had to look at.
    #[cfg(test)]
    looks: usize,
}

/// A slot for one value.
enum Slot<T> {
    Occupied {
        value: T,
        /// The index of its node.
        node: usize,
    },
    Vacant {
        /// The next vacant slot; see [`TimerHeap::free`].
        next: usize,
    },
}

impl TimerKey {
    /// Returns the deadline of the value.
    pub(crate) fn deadline(self) -> Deadline {
        self.order.deadline
    }
}

impl<T> TimerHeap<T> {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            slots: Vec::new(),
            free: 0,
            next_number: 0,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Inserts a value and returns its key.
    pub(crate) fn insert(&mut self, deadline: Deadline, value: T) -> TimerKey {
        let order = HeapOrder { deadline, number: self.next_number };
        self.next_number += 1;
        let node = self.nodes.len();
        let slot = self.insert_slot(Slot::Occupied { value, node });
        let key = TimerKey { order, slot };
        self.nodes.push(key);
        self.sift_up(node);
        key
    }

    /// Removes the value with this key, if it is still in the heap.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<T> {
        let Some(Slot::Occupied { node, .. }) = self.slots.get(key.slot) else { return None };
        let node = *node;
        (self.nodes[node] == key).then(|| self.remove_node(node))
    }

    /// Removes the first value, if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T> {
        let first = self.next_deadline()?;
        (first <= Deadline::at(now)).then(|| self.remove_node(0))
    }

    /// Removes all values and returns them in the order of their deadlines.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let Self { mut nodes, mut slots, .. } = std::mem::replace(self, Self::new());
        nodes.sort_unstable_by_key(|key| key.order);
        let take = |key: TimerKey| match std::mem::replace(&mut slots[key.slot], Slot::Vacant { next: 0 }) {
            Slot::Occupied { value, .. } => value,
            Slot::Vacant { .. } => unreachable!("rule 2"),
        };
        nodes.into_iter().map(take).collect()
    }

    /// Returns the earliest deadline, or `None` if the heap is empty.
    pub(crate) fn next_deadline(&self) -> Option<Deadline> {
        self.nodes.first().map(|key| key.deadline())
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the first values with their deadlines, at most `limit`. Looks at `limit` nodes and
    /// their children only.
    pub(crate) fn first(&self, limit: usize) -> Vec<(Deadline, &T)> {
        let mut first = Vec::new();
        let mut open: BTreeSet<(HeapOrder, usize)> = self.nodes.first().map(|key| (key.order, 0)).into_iter().collect();
        while first.len() < limit
            && let Some((order, node)) = open.pop_first()
        {
            if let Slot::Occupied { value, .. } = &self.slots[self.nodes[node].slot] {
                first.push((order.deadline, value));
            }
            let children = CHILDREN * node + 1..self.nodes.len().min(CHILDREN * node + 1 + CHILDREN);
            open.extend(children.map(|child| (self.nodes[child].order, child)));
        }
        first
    }

    /// Removes the value at a node.
    fn remove_node(&mut self, node: usize) -> T {
        let removed = self.nodes.swap_remove(node);
        if node < self.nodes.len() {
            self.update_slot(node);
            // The node that was moved here from the end may belong further up, or down.
            let node = self.sift_up(node);
            self.sift_down(node);
        }
        let value = self.remove_slot(removed.slot);
        if self.nodes.is_empty() && self.slots.len() > MAX_KEPT_SLOTS {
            // Free the memory after a burst. The numbers go on, since none may be used twice.
            *self = Self { next_number: self.next_number, ..Self::new() };
        }
        value
    }

    /// Restores rule 1 above a node; returns the new index of the node.
    fn sift_up(&mut self, mut node: usize) -> usize {
        while let Some(above) = node.checked_sub(1).map(|before| before / CHILDREN)
            && self.nodes[node].order < self.nodes[above].order
        {
            self.swap(node, above);
            node = above;
            self.note_looks(1);
        }
        node
    }

    /// Restores rule 1 below a node.
    fn sift_down(&mut self, mut node: usize) {
        loop {
            let children = CHILDREN * node + 1..self.nodes.len().min(CHILDREN * node + 1 + CHILDREN);
            self.note_looks(children.len());
            match children.min_by_key(|child| self.nodes[*child].order) {
                Some(child) if self.nodes[child].order < self.nodes[node].order => {
                    self.swap(node, child);
                    node = child;
                }
                _ => return,
            }
        }
    }

    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "tests count"))]
    fn note_looks(&mut self, looks: usize) {
        #[cfg(test)]
        {
            self.looks += looks;
        }
        #[cfg(not(test))]
        let _ = looks;
    }

    fn swap(&mut self, one: usize, two: usize) {
        self.nodes.swap(one, two);
        self.update_slot(one);
        self.update_slot(two);
    }

    /// Restores rule 2 for a node that has a new key.
    fn update_slot(&mut self, at: usize) {
        match &mut self.slots[self.nodes[at].slot] {
            Slot::Occupied { node, .. } => *node = at,
            Slot::Vacant { .. } => unreachable!("rule 2"),
        }
    }

    /// Fills a vacant slot and returns its index.
    fn insert_slot(&mut self, taken: Slot<T>) -> usize {
        let slot = self.free;
        match self.slots.get_mut(slot) {
            Some(room) => match std::mem::replace(room, taken) {
                Slot::Vacant { next } => self.free = next,
                Slot::Occupied { .. } => unreachable!("rule 3"),
            },
            None => {
                self.slots.push(taken);
                self.free = self.slots.len();
            }
        }
        slot
    }

    /// Empties a slot and returns its value.
    fn remove_slot(&mut self, slot: usize) -> T {
        let emptied = std::mem::replace(&mut self.slots[slot], Slot::Vacant { next: self.free });
        self.free = slot;
        match emptied {
            Slot::Occupied { value, .. } => value,
            Slot::Vacant { .. } => unreachable!("rule 2"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fault 126.
    #[test]
    fn values_come_out_when_they_are_due_by_deadline_and_ties_in_the_order_of_insertion() {
        let now = Instant::now();
        let mut heap = TimerHeap::new();
        for (seconds, name) in [(3, "c"), (1, "a"), (u64::MAX, "never"), (1, "b"), (1_000_000_000, "far")] {
            heap.insert(Deadline::after_instant(now, Duration::from_secs(seconds)), name);
        }
        assert_eq!(heap.pop_due(now), None);
        let at = |heap: &mut TimerHeap<_>, seconds| heap.pop_due(now + SECOND * seconds);
        assert_eq!((at(&mut heap, 1), at(&mut heap, 1), at(&mut heap, 1)), (Some("a"), Some("b"), None));
        assert_eq!(heap.next_deadline(), Some(Deadline::at(now + 3 * SECOND)));
        assert_eq!((at(&mut heap, 4), at(&mut heap, 4)), (Some("c"), None));
        assert_eq!(heap.len(), 2);
    }

    /// Fault 125.
    #[test]
    fn a_delay_beyond_the_clock_is_never_due_and_none_is_due_at_once() {
        let now = Instant::now();
        let delays = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX];
        assert_eq!(
            delays.map(|delay| Deadline::after_instant(now, delay) <= Deadline::at(now)),
            [true, false, false, false]
        );
        assert_eq!(
            delays.map(|delay| Deadline::after_instant(now, delay) == Deadline::NEVER),
            [false, false, true, true]
        );
        let mut heap = TimerHeap::new();
        let _ = delays.map(|delay| heap.insert(Deadline::after_instant(now, delay), delay));
        let century = Duration::from_secs(3_155_760_000);
        assert_eq!(std::iter::from_fn(|| heap.pop_due(now + century)).count(), 2);
        assert_eq!((heap.len(), heap.next_deadline()), (2, Some(Deadline::NEVER)));
    }

    #[test]
    fn a_value_is_removed_at_once_and_only_once() {
        let now = Instant::now();
        let mut heap = TimerHeap::new();
        let keys: Vec<_> = (0..1_000).map(|n| heap.insert(Deadline::after_instant(now, SECOND * (n % 7)), n)).collect();
        assert_eq!(keys.iter().filter_map(|key| heap.remove(*key)).sum::<u32>(), 499_500);
        assert!(keys.iter().all(|key| heap.remove(*key).is_none()));
        assert_eq!((heap.len(), heap.next_deadline()), (0, None));
    }

    /// Fault 169.
    #[test]
    fn setting_or_cancelling_one_of_a_hundred_thousand_timers_looks_at_few_others() {
        const TIMERS: usize = 100_000;
        /// Nine levels hold 87,381 timers and ten more than that; four children each on the way
        /// down.
        const FEW: usize = 10 + 4 * 10;
        let now = Instant::now();
        let mut heap = TimerHeap::new();
        // In no order: a stride that has no factor in common with the number.
        let due = |number: usize| Deadline::after_instant(now, SECOND * (number * 7_919 % TIMERS) as u32);
        let keys: Vec<_> = (0..TIMERS).map(|number| heap.insert(due(number), number)).collect();
        let mut most = 0;
        for (number, key) in keys.iter().enumerate().step_by(97) {
            heap.looks = 0;
            assert_eq!(heap.remove(*key), Some(number));
            let _ = heap.insert(due(number), number);
            most = most.max(heap.looks);
        }
        assert!(most > 0 && most <= 2 * FEW, "one change looked at {most} of {TIMERS} timers");
    }

    #[test]
    fn the_memory_of_a_burst_is_freed_and_its_keys_are_stale() {
        let now = Instant::now();
        let (mut heap, mut keys) = (TimerHeap::new(), Vec::new());
        for (values, kept) in [(MAX_KEPT_SLOTS, MAX_KEPT_SLOTS), (2 * MAX_KEPT_SLOTS, 0)] {
            keys.extend((0..values).map(|value| heap.insert(Deadline::at(now), value)));
            assert!((0..values).all(|value| heap.pop_due(now) == Some(value)));
            assert_eq!((heap.len(), heap.slots.len()), (0, kept));
            let last = heap.insert(Deadline::at(now), values);
            assert!(keys.iter().all(|key| heap.remove(*key).is_none()));
            assert_eq!(heap.remove(last), Some(values));
        }
    }

    #[test]
    fn it_agrees_with_a_search_tree_after_any_sequence_of_operations() {
        // A small random number generator is enough: xorshift.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let start = Instant::now();
        for round in 0..200 {
            let (mut heap, mut tree) = (TimerHeap::new(), std::collections::BTreeMap::new());
            let mut keys = Vec::new();
            for step in 0..400_u64 {
                match next(4 + round % 3) {
                    0 | 1 => {
                        let deadline = Deadline::after_instant(
                            start,
                            Duration::from_secs(if next(20) == 0 { u64::MAX } else { next(50) }),
                        );
                        keys.push((heap.insert(deadline, step), deadline, step));
                        tree.insert((deadline, step), step);
                    }
                    2 if !keys.is_empty() => {
                        // The value may have been removed before.
                        let (key, deadline, step) = keys[next(keys.len() as u64) as usize];
                        assert_eq!(heap.remove(key), tree.remove(&(deadline, step)));
                    }
                    _ => {
                        let now = start + Duration::from_secs(next(50));
                        let first = tree
                            .first_key_value()
                            .map(|(key, _)| *key)
                            .filter(|(deadline, _)| *deadline <= Deadline::at(now));
                        assert_eq!(heap.pop_due(now), first.map(|(_, step)| step));
                        first.map(|key| tree.remove(&key));
                    }
                }
                assert_eq!(heap.len(), tree.len());
                assert_eq!(heap.next_deadline(), tree.first_key_value().map(|((deadline, _), _)| *deadline));
            }
            assert_eq!(heap.take_all(), tree.into_values().collect::<Vec<_>>());
        }
    }
}
