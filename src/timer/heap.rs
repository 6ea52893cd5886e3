//! What is to be done when: things in the order in which they fall due, each of which can be struck out.
//!
//! Two things that are due at the same moment come in the order in which they were put down. The agenda reads no clock:
//! whoever asks says what time it is. It knows nothing of threads and tasks.
//!
//! It is a heap whose nodes know their things and whose things know their nodes:
//! 1. A node is due no earlier than its parent; node `n` has the children `4n + 1` to `4n + 4`.
//! 2. The thing in slot `s` says at which node it is, and that node says `s`.
//! 3. Slots that hold no thing form a list, which begins at `free`.
//!
//! Nearly all timers are put down behind others and struck out before they are due. Such a one is put down at a leaf and
//! struck out there, which costs a constant; in the worst case both take logarithmic time. A search tree would make it twice
//! as dear to set and cancel a timer.

use std::time::{Duration, Instant};

/// Children of a node. Four lie in two cache lines, and the heap is half as high as with two.
const CHILDREN: usize = 4;

/// The most slots that are kept when they are all empty.
const KEPT: usize = 1024;

/// When something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// At this moment.
    At(Instant),
    /// Later than any moment the clock can hold.
    Never,
}

/// The place of one thing in the agenda.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    rank: Rank,
    slot: usize,
}

/// What things are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    due: Due,
    /// Tells those apart that are due at the same moment; never used twice.
    number: u64,
}

/// Things to be done.
pub(crate) struct TimerHeap<T> {
    /// See rule 1. A node is a place.
    nodes: Vec<Place>,
    slots: Vec<Slot<T>>,
    /// The first slot without a thing; as many as there are slots, if there is none.
    free: usize,
    /// The next number to give out.
    next_number: u64,
    /// How many nodes all changes had to look at.
    #[cfg(test)]
    looks: usize,
}

/// Room for one thing.
enum Slot<T> {
    Taken {
        thing: T,
        /// Where its node is.
        node: usize,
    },
    Free {
        /// The next one without a thing; see `TimerHeap::free`.
        next: usize,
    },
}

impl Due {
    /// So long after `now`; never, if the clock cannot hold that moment.
    pub(crate) fn after(now: Instant, delay: Duration) -> Self {
        now.checked_add(delay).map_or(Self::Never, Self::At)
    }

    /// The moment itself; `None` means never.
    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Self::At(instant) => Some(instant),
            Self::Never => None,
        }
    }
}

impl Place {
    /// When the thing is due.
    pub(crate) fn due(self) -> Due {
        self.rank.due
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

    /// Puts a thing down.
    pub(crate) fn put(&mut self, due: Due, thing: T) -> Place {
        let rank = Rank { due, number: self.next_number };
        self.next_number += 1;
        let node = self.nodes.len();
        let slot = self.fill_slot(Slot::Taken { thing, node });
        let place = Place { rank, slot };
        self.nodes.push(place);
        self.rise(node);
        place
    }

    /// Strikes a thing out, if it is there still.
    pub(crate) fn strike_out(&mut self, place: Place) -> Option<T> {
        let Some(Slot::Taken { node, .. }) = self.slots.get(place.slot) else { return None };
        let node = *node;
        (self.nodes[node] == place).then(|| self.remove(node))
    }

    /// Takes out the first thing that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        let first = self.first_due()?;
        (first <= Due::At(now)).then(|| self.remove(0))
    }

    /// Takes out everything, the first due first.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let Self { mut nodes, mut slots, .. } = std::mem::replace(self, Self::new());
        nodes.sort_unstable_by_key(|place| place.rank);
        let take = |place: Place| match std::mem::replace(&mut slots[place.slot], Slot::Free { next: 0 }) {
            Slot::Taken { thing, .. } => thing,
            Slot::Free { .. } => unreachable!("rule 2"),
        };
        nodes.into_iter().map(take).collect()
    }

    /// When the first thing is due; `None` if there is none.
    pub(crate) fn first_due(&self) -> Option<Due> {
        self.nodes.first().map(|place| place.due())
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Takes out the thing at a node.
    fn remove(&mut self, node: usize) -> T {
        let removed = self.nodes.swap_remove(node);
        if node < self.nodes.len() {
            self.note(node);
            // What has come from the end may belong further up, or down.
            let node = self.rise(node);
            self.sink(node);
        }
        let thing = self.empty_slot(removed.slot);
        if self.nodes.is_empty() && self.slots.len() > KEPT {
            // After a rush its memory is given back. [A number is never used again.]
            *self = Self { next_number: self.next_number, ..Self::new() };
        }
        thing
    }

    /// Restores rule 1 above a node; says where its place has come to.
    fn rise(&mut self, mut node: usize) -> usize {
        while let Some(above) = node.checked_sub(1).map(|before| before / CHILDREN)
            && self.nodes[node].rank < self.nodes[above].rank
        {
            self.swap(node, above);
            node = above;
            self.note_looks(1);
        }
        node
    }

    /// Restores rule 1 below a node.
    fn sink(&mut self, mut node: usize) {
        loop {
            let children = CHILDREN * node + 1..self.nodes.len().min(CHILDREN * node + 1 + CHILDREN);
            self.note_looks(children.len());
            match children.min_by_key(|child| self.nodes[*child].rank) {
                Some(child) if self.nodes[child].rank < self.nodes[node].rank => {
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
        self.note(one);
        self.note(two);
    }

    /// Restores rule 2 for a node that holds another place than before.
    fn note(&mut self, at: usize) {
        match &mut self.slots[self.nodes[at].slot] {
            Slot::Taken { node, .. } => *node = at,
            Slot::Free { .. } => unreachable!("rule 2"),
        }
    }

    /// Puts a thing into a slot that holds none.
    fn fill_slot(&mut self, taken: Slot<T>) -> usize {
        let slot = self.free;
        match self.slots.get_mut(slot) {
            Some(room) => match std::mem::replace(room, taken) {
                Slot::Free { next } => self.free = next,
                Slot::Taken { .. } => unreachable!("rule 3"),
            },
            None => {
                self.slots.push(taken);
                self.free = self.slots.len();
            }
        }
        slot
    }

    /// Takes the thing out of a slot.
    fn empty_slot(&mut self, slot: usize) -> T {
        let emptied = std::mem::replace(&mut self.slots[slot], Slot::Free { next: self.free });
        self.free = slot;
        match emptied {
            Slot::Taken { thing, .. } => thing,
            Slot::Free { .. } => unreachable!("rule 2"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fault 126.
    #[test]
    fn things_come_out_when_they_are_due_in_due_order_and_ties_in_order_of_arrival() {
        let now = Instant::now();
        let mut agenda = TimerHeap::new();
        for (seconds, name) in [(3, "c"), (1, "a"), (u64::MAX, "never"), (1, "b"), (1_000_000_000, "far")] {
            agenda.put(Due::after(now, Duration::from_secs(seconds)), name);
        }
        assert_eq!(agenda.take_due(now), None);
        let at = |agenda: &mut TimerHeap<_>, seconds| agenda.take_due(now + SECOND * seconds);
        assert_eq!((at(&mut agenda, 1), at(&mut agenda, 1), at(&mut agenda, 1)), (Some("a"), Some("b"), None));
        assert_eq!(agenda.first_due(), Some(Due::At(now + 3 * SECOND)));
        assert_eq!((at(&mut agenda, 4), at(&mut agenda, 4)), (Some("c"), None));
        assert_eq!(agenda.len(), 2);
    }

    /// Fault 125.
    #[test]
    fn a_delay_beyond_the_clock_is_never_due_and_none_is_due_at_once() {
        let now = Instant::now();
        let delays = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX];
        assert_eq!(delays.map(|delay| Due::after(now, delay) <= Due::At(now)), [true, false, false, false]);
        assert_eq!(delays.map(|delay| Due::after(now, delay) == Due::Never), [false, false, true, true]);
        let mut agenda = TimerHeap::new();
        let _ = delays.map(|delay| agenda.put(Due::after(now, delay), delay));
        let century = Duration::from_secs(3_155_760_000);
        assert_eq!(std::iter::from_fn(|| agenda.take_due(now + century)).count(), 2);
        assert_eq!((agenda.len(), agenda.first_due()), (2, Some(Due::Never)));
    }

    #[test]
    fn what_is_struck_out_is_gone_at_once_and_only_once() {
        let now = Instant::now();
        let mut agenda = TimerHeap::new();
        let places: Vec<_> = (0..1_000).map(|n| agenda.put(Due::after(now, SECOND * (n % 7)), n)).collect();
        assert_eq!(places.iter().filter_map(|place| agenda.strike_out(*place)).sum::<u32>(), 499_500);
        assert!(places.iter().all(|place| agenda.strike_out(*place).is_none()));
        assert_eq!((agenda.len(), agenda.first_due()), (0, None));
    }

    /// Fault 169.
    #[test]
    fn setting_or_cancelling_one_of_a_hundred_thousand_timers_looks_at_few_others() {
        const TIMERS: usize = 100_000;
        /// Nine levels hold 87,381 timers and ten more than that; four children each on the way down.
        const FEW: usize = 10 + 4 * 10;
        let now = Instant::now();
        let mut agenda = TimerHeap::new();
        // In no order: a stride that has no factor in common with the number.
        let due = |number: usize| Due::after(now, SECOND * (number * 7_919 % TIMERS) as u32);
        let places: Vec<_> = (0..TIMERS).map(|number| agenda.put(due(number), number)).collect();
        let mut most = 0;
        for (number, place) in places.iter().enumerate().step_by(97) {
            agenda.looks = 0;
            assert_eq!(agenda.strike_out(*place), Some(number));
            let _ = agenda.put(due(number), number);
            most = most.max(agenda.looks);
        }
        assert!(most > 0 && most <= 2 * FEW, "one change looked at {most} of {TIMERS} timers");
    }

    #[test]
    fn the_memory_of_a_rush_is_given_back_and_its_places_lead_nowhere() {
        let now = Instant::now();
        let (mut agenda, mut places) = (TimerHeap::new(), Vec::new());
        for (things, kept) in [(KEPT, KEPT), (2 * KEPT, 0)] {
            places.extend((0..things).map(|thing| agenda.put(Due::At(now), thing)));
            assert!((0..things).all(|thing| agenda.take_due(now) == Some(thing)));
            assert_eq!((agenda.len(), agenda.slots.len()), (0, kept));
            let last = agenda.put(Due::At(now), things);
            assert!(places.iter().all(|place| agenda.strike_out(*place).is_none()));
            assert_eq!(agenda.strike_out(last), Some(things));
        }
    }

    #[test]
    fn it_agrees_with_a_search_tree_whatever_is_done_to_it() {
        // A small random generator is enough: xorshift.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let start = Instant::now();
        for round in 0..200 {
            let (mut agenda, mut tree) = (TimerHeap::new(), std::collections::BTreeMap::new());
            let mut places = Vec::new();
            for step in 0..400_u64 {
                match next(4 + round % 3) {
                    0 | 1 => {
                        let due =
                            Due::after(start, Duration::from_secs(if next(20) == 0 { u64::MAX } else { next(50) }));
                        places.push((agenda.put(due, step), due, step));
                        tree.insert((due, step), step);
                    }
                    2 if !places.is_empty() => {
                        // Perhaps one that is gone.
                        let (place, due, step) = places[next(places.len() as u64) as usize];
                        assert_eq!(agenda.strike_out(place), tree.remove(&(due, step)));
                    }
                    _ => {
                        let now = start + Duration::from_secs(next(50));
                        let first = tree.first_key_value().map(|(key, _)| *key).filter(|(due, _)| *due <= Due::At(now));
                        assert_eq!(agenda.take_due(now), first.map(|(_, step)| step));
                        first.map(|key| tree.remove(&key));
                    }
                }
                assert_eq!(agenda.len(), tree.len());
                assert_eq!(agenda.first_due(), tree.first_key_value().map(|((due, _), _)| *due));
            }
            assert_eq!(agenda.take_all(), tree.into_values().collect::<Vec<_>>());
        }
    }
}
