//! Where a pool finds those who must hear of its end, and of more workers: each of them has a seat.

use std::mem;

use crate::sync::{Arc, CachePadded, Mutex, Weak};

/// How many rows of seats there are, so that threads that come and go do not wait for each other.
const ROWS: usize = 8;
/// How many free seats of a row are kept when nobody sits there.
const KEPT: usize = 64;

/// Members, each in a seat. To enter and to leave take a lock once, and seldom memory: seats are used again.
pub(crate) struct GroupRegistry<T: ?Sized>([CachePadded<Mutex<Row<T>>>; ROWS]);

/// What a lock guards.
struct Row<T: ?Sized> {
    seats: Vec<Option<Weak<T>>>,
    /// The seats without a member.
    free: Vec<usize>,
}

/// The seat of one member, until it leaves.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) shard: usize,
    number: usize,
}

impl<T: ?Sized> GroupRegistry<T> {
    pub(crate) fn new() -> Self {
        Self(Default::default())
    }

    /// Gives a seat to a new member; any number is a row.
    #[inline]
    pub(crate) fn register(&self, member: Weak<T>, shard: usize) -> Registration {
        let shard = shard % ROWS;
        let mut members = self.0[shard].0.lock();
        let number = if let Some(number) = members.free.pop() {
            members.seats[number] = Some(member);
            number
        } else {
            members.seats.push(Some(member));
            members.seats.len() - 1
        };
        Registration { shard, number }
    }

    /// Frees the seat of a member. Each leaves once.
    #[inline]
    pub(crate) fn deregister(&self, registration: &Registration) {
        let mut row = self.0[registration.shard].0.lock();
        let member = row.seats[registration.number].take();
        row.free.push(registration.number);
        let mut unused = Row::default();
        if row.free.len() == row.seats.len() && row.seats.len() > KEPT {
            mem::swap(&mut *row, &mut unused);
        }
        drop(row);
        drop((member, unused)); // outside of the lock
    }

    /// Those members that live. A member that enters meanwhile may be missing.
    pub(crate) fn live(&self) -> Vec<Arc<T>> {
        let mut members = Vec::new();
        for row in &self.0 {
            members.extend(row.0.lock().seats.iter().flatten().filter_map(Weak::upgrade));
        }
        members
    }

    /// How many seats are taken.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let taken = |row: &CachePadded<Mutex<Row<T>>>| row.0.lock().seats.iter().flatten().count();
        self.0.iter().map(taken).sum()
    }
}

impl<T: ?Sized> Default for Row<T> {
    fn default() -> Self {
        Self { seats: Vec::new(), free: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_used_again_and_given_back_when_nobody_is_there() {
        let seats = GroupRegistry::new();
        let members: Vec<Arc<usize>> = (0..10 * KEPT).map(Arc::new).collect();
        let enter = |member| seats.register(Arc::downgrade(member), 5);
        let row = || seats.0[5].0.lock();
        for _ in 0..3 {
            let taken: Vec<_> = members.iter().map(enter).collect();
            assert_eq!(seats.live(), members);
            taken[1..].iter().for_each(|registration| seats.deregister(registration));
            assert_eq!(seats.live(), members[..1]);
            let again = enter(&members[1]);
            assert_eq!(seats.live(), members[..2]);
            assert_eq!(row().seats.len(), members.len());
            seats.deregister(&again);
            seats.deregister(&taken[0]);
            assert_eq!(row().seats.capacity(), 0);
        }
        let few: Vec<_> = members[..KEPT].iter().map(enter).collect();
        few.iter().for_each(|registration| seats.deregister(registration));
        assert_eq!(row().seats.len(), KEPT, "so many are kept");
    }

    #[test]
    fn members_of_all_threads_are_found_and_the_dead_are_not() {
        let seats = GroupRegistry::new();
        let members: Vec<Arc<usize>> = (0..100).map(Arc::new).collect();
        let taken: Vec<_> = members.iter().map(|member| seats.register(Arc::downgrade(member), **member)).collect();
        let dead = seats.register(Arc::downgrade(&Arc::new(1)), 1);
        let mut found = seats.live();
        found.sort_unstable();
        assert_eq!(found, members);
        taken.iter().chain([&dead]).for_each(|registration| seats.deregister(registration));
        assert_eq!(seats.live(), []);
    }
}
