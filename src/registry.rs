//! Where a pool finds those who must hear of its end, and of more workers: each of them has a seat.

use std::mem;

use crate::sync::{Arc, Mutex, Weak};

/// How many free seats are kept when nobody is there.
const KEPT: usize = 64;

/// Members, each in a seat. To enter and to leave take the lock once, and seldom memory: seats are used again.
pub(crate) struct Registry<T: ?Sized>(Mutex<Seats<T>>);

/// What the lock guards.
struct Seats<T: ?Sized> {
    members: Vec<Option<Weak<T>>>,
    /// The seats without a member.
    free: Vec<usize>,
}

/// The seat of one member, until it leaves.
#[derive(Debug)]
pub(crate) struct Seat(usize);

impl<T: ?Sized> Registry<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Gives a seat to a new member. It may be dead: nobody but it will know the seat.
    #[inline]
    pub(crate) fn enter(&self, member: Weak<T>) -> Seat {
        let mut seats = self.0.lock();
        if let Some(seat) = seats.free.pop() {
            seats.members[seat] = Some(member);
            Seat(seat)
        } else {
            seats.members.push(Some(member));
            Seat(seats.members.len() - 1)
        }
    }

    /// Frees the seat of a member. Each leaves once.
    #[inline]
    pub(crate) fn leave(&self, Seat(seat): &Seat) {
        let mut seats = self.0.lock();
        let member = seats.members[*seat].take();
        seats.free.push(*seat);
        let mut unused = Seats::default();
        if seats.free.len() == seats.members.len() && seats.members.len() > KEPT {
            mem::swap(&mut *seats, &mut unused);
        }
        drop(seats);
        drop((member, unused)); // outside of the lock
    }

    /// Those members that live.
    pub(crate) fn members(&self) -> Vec<Arc<T>> {
        self.0.lock().members.iter().flatten().filter_map(Weak::upgrade).collect()
    }
}

impl<T: ?Sized> Default for Seats<T> {
    fn default() -> Self {
        Self { members: Vec::new(), free: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_given_back_when_nobody_is_there() {
        let registry = Registry::new();
        let members: Vec<Arc<usize>> = (0..10 * KEPT).map(Arc::new).collect();
        for _ in 0..3 {
            let seats: Vec<_> = members.iter().map(|member| registry.enter(Arc::downgrade(member))).collect();
            assert_eq!(registry.members(), members);
            seats[1..].iter().for_each(|seat| registry.leave(seat));
            assert_eq!(registry.members(), members[..1]);
            let again = registry.enter(Arc::downgrade(&members[1]));
            assert_eq!(registry.members(), members[..2]);
            assert_eq!(registry.0.lock().members.len(), members.len());
            registry.leave(&again);
            registry.leave(&seats[0]);
            assert_eq!(registry.0.lock().members.capacity(), 0);
        }
    }

    #[test]
    fn the_dead_are_no_members() {
        let registry = Registry::new();
        let seat = registry.enter(Arc::downgrade(&Arc::new(1)));
        assert_eq!(registry.members(), []);
        registry.leave(&seat);
    }
}
