//! The bounded queue between those who submit and the workers, and where both sleep.
//!
//! It has two lanes. The *bounded* lane takes what is submitted and refuses it when full. The *side* lane takes what
//! must not be refused and may not wait, such as the tickets of groups; it has no bound of its own, so only what is
//! bounded otherwise may go there.
//!
//! The contract:
//!
//! 1. The bounded lane never holds more than its capacity; each lane hands out in the order of arrival, and they take
//!    turns.
//! 2. An item that is not taken in comes back; an item that is taken in comes out once.
//! 3. A blocked `push` ends when there is room, when its deadline passes, or when the queue is closed. Closing refuses
//!    blocked pushes only: `try_push` asks no one, because admission is decided before (see `ledger`). It is *patient*
//!    first: it lets the lane drain to the half, so that pushers and poppers work in long turns instead of waking each
//!    other for each item; but not longer than [`PATIENCE`], and from then on it takes the first room there is.
//! 4. A blocked `pop` ends when there is an item, or when it is told to look up from its sleep. While an item lies in
//!    either lane and a worker sleeps, another worker is on its way to the item (see [`idle`]).
//!
//! Two engines can be the bounded lane: `channel`, a crossbeam channel, in the product, and `ring`, its twin for model
//! checks. Their contract: neither operation blocks; and of a successful operation followed by a `SeqCst` load, and a
//! `SeqCst` write to the same place followed by the opposite operation failing for fullness or emptiness, at least one
//! sees the other. Which engine is used is decided here and nowhere else. The queue knows nothing of jobs.

#[cfg_attr(workcrew_model, allow(dead_code))]
mod channel;
mod idle;
mod parking;
#[cfg(any(test, workcrew_model))]
#[cfg_attr(not(workcrew_model), allow(dead_code))]
mod ring;
mod side;

#[cfg(not(workcrew_model))]
use self::channel::Lane;
use self::idle::{Hope, Idle};
pub(crate) use self::parking::Spot;
use self::parking::{Parking, Woken};
#[cfg(workcrew_model)]
use self::ring::Lane;
use self::side::SideLane;
use std::mem;
use std::task::Waker;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::defect::defect;
use crate::fault::{self, Place};
use crate::sync::{AtomicBool, Ordering, thread};

/// How often a blocked pusher lets poppers run before it sleeps.
const YIELDS: u32 = 2;
/// How long a blocked pusher lets poppers work before it wants the first room there is.
const PATIENCE: Duration = Duration::from_millis(1);

/// The queue; see the contract above.
pub(crate) struct Queue<T> {
    bounded: Lane<T>,
    side: SideLane<T>,
    /// Where workers search and sleep.
    idle: Idle,
    /// Where patient pushers wait for half of the room.
    half_room: Parking,
    /// Where other pushers wait for any room.
    room: Parking,
    /// Blocked pushes are refused.
    closed: AtomicBool,
}

/// Why a `push` gave the item back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The queue was closed while the push waited.
    Closed(T),
}

/// What a worker remembers from one item to the next.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Which lane it looks into first; that alternates, so that neither starves.
    side_first: bool,
    /// Whether it lingers before it sleeps.
    hope: Hope,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            bounded: Lane::new(capacity),
            side: SideLane::new(),
            idle: Idle::new(),
            half_room: Parking::new(),
            room: Parking::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Takes the item in, or gives it back if there is no room.
    #[inline]
    pub(crate) fn try_push(&self, item: T) -> Result<(), T> {
        self.bounded.try_push(item)?;
        fault::at(Place::Queued);
        self.call_worker();
        Ok(())
    }

    /// Takes the item in, waiting for room.
    pub(crate) fn push(&self, item: T, deadline: Deadline) -> Result<(), PushError<T>> {
        let mut item = Some(item);
        // The first two waits are short and let poppers work; the last is as long as need be.
        for _ in 0..YIELDS {
            if self.is_closed() || self.is_half_empty() || deadline.is_past() {
                break;
            }
            thread::yield_now();
        }
        let mut woken = self.wait_for_room(&self.half_room, deadline.sooner(PATIENCE), &mut item);
        while woken == Woken::Told || (woken == Woken::Late && !deadline.is_past()) {
            woken = self.wait_for_room(&self.room, deadline, &mut item);
        }
        match item {
            None => {
                self.call_worker();
                Ok(())
            }
            Some(refused) if matches!(woken, Woken::Early { .. }) => Err(PushError::Closed(refused)),
            Some(refused) => Err(PushError::Timeout(refused)),
        }
    }

    /// Waits in `parking` until the item has been taken in, the queue is closed (woken early, item kept), somebody says
    /// that there is room, or the deadline has passed.
    fn wait_for_room(&self, parking: &Parking, deadline: Deadline, item: &mut Option<T>) -> Woken {
        parking.park(deadline, || {
            let closed = self.is_closed();
            let tried = self.bounded.try_push(item.take().expect("the item is here until it is taken in"));
            *item = tried.err();
            item.is_none() || closed
        })
    }

    /// Takes the item in, or gives it back and has the waker called when there may be room. To be tried again then, with
    /// the same spot, or [`leave`](Self::leave) is to be called. Neither patient nor closed: who waits as a future is
    /// told of the closing by others.
    pub(crate) fn push_or_enroll(&self, item: T, spot: &mut Option<Spot>, waker: Waker) -> Result<(), T> {
        let Err(item) = self.bounded.try_push(item) else {
            self.call_worker();
            return Ok(());
        };
        self.room.enroll(spot, waker);
        self.try_push(item)
    }

    /// A future that had a spot waits no longer. `took_room` tells whether it has pushed what it waited to push.
    pub(crate) fn leave(&self, spot: Spot, took_room: bool) {
        if self.room.withdraw(spot) && !took_room && !defect!("wake-up not passed on") {
            self.room.wake(1, |_| ());
        }
    }

    /// Takes the item into the side lane. `is_dead` tells which items there need not be kept.
    pub(crate) fn push_aside(&self, item: T, is_dead: impl Fn(&T) -> bool) {
        let dead = self.side.push(item, is_dead);
        self.call_worker();
        drop(dead);
    }

    /// Takes back what was brought to the side lane last, if `is_it` tells that one. A worker that was called for it looks
    /// in vain.
    #[inline]
    pub(crate) fn take_back_aside(&self, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.side.take_back(is_it)
    }

    /// Hands out an item of the bounded lane.
    #[inline]
    pub(crate) fn try_pop_bounded(&self) -> Option<T> {
        let item = self.bounded.try_pop();
        if item.is_some() && !defect!("pop without a word of room") {
            self.room.wake(1, |_| ());
            if self.half_room.has_sleepers() && self.is_half_empty() {
                self.half_room.wake(self.bounded.capacity() - self.bounded.len(), |_| ());
            }
        }
        item
    }

    /// Hands out the next item, if there is one.
    #[inline]
    pub(crate) fn try_pop(&self, turn: &mut Turn) -> Option<T> {
        turn.side_first = !turn.side_first;
        if turn.side_first
            && let Some(item) = self.side.pop()
        {
            return Some(item);
        }
        self.try_pop_bounded().or_else(|| self.side.pop())
    }

    /// Hands out the next item, waiting for one; `None` if `look_up` says so, or for no reason. What makes `look_up`
    /// change its mind must call [`wake_all`](Self::wake_all) afterwards.
    pub(crate) fn pop(&self, turn: &mut Turn, look_up: impl Fn() -> bool) -> Option<T> {
        let mut hope = mem::take(&mut turn.hope);
        let item = self.idle.search(&mut hope, || self.try_pop(turn), look_up, || !self.seems_empty());
        turn.hope = hope;
        item
    }

    /// Makes every sleeping worker look up.
    pub(crate) fn wake_all(&self) {
        self.idle.call_all();
    }

    /// Refuses pushes that are blocked, now and later.
    pub(crate) fn close(&self) {
        // ORDERING: SeqCst, before the wake-up; see `push`.
        self.closed.store(true, Ordering::SeqCst);
        if !defect!("closing without a word to the patient") {
            self.half_room.wake_all(|_| ());
        }
        self.room.wake_all(|_| ());
    }

    /// There is an item for a worker.
    #[inline]
    fn call_worker(&self) {
        self.idle.call_one(|| !self.seems_empty());
    }

    fn is_closed(&self) -> bool {
        // ORDERING: SeqCst, like the announcement of a sleeper before it; `close` writes the flag before it wakes.
        self.closed.load(Ordering::SeqCst)
    }

    #[inline]
    fn is_half_empty(&self) -> bool {
        self.bounded.len() <= self.bounded.capacity() / 2
    }

    /// How many items the bounded lane holds; out of date when it arrives, but never above the capacity.
    pub(crate) fn len(&self) -> usize {
        self.bounded.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bounded.capacity()
    }

    /// How many items the side lane holds; out of date when it arrives.
    pub(crate) fn side_len(&self) -> usize {
        self.side.len()
    }

    /// How many items both lanes hold; out of date when it arrives.
    pub(crate) fn len_of_both(&self) -> usize {
        self.bounded.len() + self.side.len()
    }

    /// Whether neither lane holds anything; out of date when it arrives.
    pub(crate) fn seems_empty(&self) -> bool {
        self.len_of_both() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, AtomicUsize};
    use std::time::Duration;

    /// The contract of the engines as tests, once for each.
    macro_rules! engine {
        ($engine:ident) => {
            mod $engine {
                use crate::queue::$engine::Lane;
                use crate::sync::{Arc, thread};

                #[test]
                fn items_come_out_in_the_order_of_arrival_and_a_full_lane_gives_back() {
                    for capacity in [1, 2, 64] {
                        let lane = Lane::new(capacity);
                        assert_eq!(lane.try_pop(), None);
                        for round in 0..3 {
                            assert!((0..capacity).all(|item| lane.try_push((round, item)).is_ok()));
                            assert_eq!(lane.try_push((9, 9)), Err((9, 9)));
                            assert_eq!((lane.len(), lane.capacity()), (capacity, capacity));
                            assert!((0..capacity).all(|item| lane.try_pop() == Some((round, item))));
                            assert_eq!((lane.try_pop(), lane.len()), (None, 0));
                        }
                    }
                }

                #[test]
                fn every_item_comes_out_once_whoever_takes_it() {
                    let lane = Arc::new(Lane::new(3));
                    let takers: Vec<_> = (0..2)
                        .map(|_| {
                            let lane = Arc::clone(&lane);
                            thread::spawn(move || {
                                let (mut sum, mut count) = (0, 0);
                                while count < 5_000 {
                                    match lane.try_pop() {
                                        Some(item) => (sum, count) = (sum + item, count + 1),
                                        None => thread::yield_now(),
                                    }
                                }
                                sum
                            })
                        })
                        .collect();
                    for item in 0..10_000_u64 {
                        while lane.try_push(item).is_err() {
                            thread::yield_now();
                        }
                    }
                    let sum: u64 = takers.into_iter().map(|taker| taker.join().expect("no panic")).sum();
                    assert_eq!(sum, (0..10_000).sum::<u64>());
                }
            }
        };
    }

    engine!(channel);
    engine!(ring);

    #[test]
    fn a_push_times_out_with_its_item() {
        let queue = Queue::new(1);
        assert_eq!(queue.try_push(1), Ok(()));
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2)] {
            assert_eq!(queue.push(2, Deadline::after(timeout)), Err(PushError::Timeout(2)));
        }
    }

    #[test]
    fn closing_wakes_a_blocked_push_and_a_wake_up_a_blocked_pop() {
        for _ in 0..200 {
            let queue = Arc::new(Queue::new(1));
            assert_eq!(queue.try_push(1), Ok(()));
            let pusher = thread::spawn({
                let queue = Arc::clone(&queue);
                move || queue.push(2, Deadline::NEVER)
            });
            queue.close();
            assert_eq!(pusher.join().expect("no panic"), Err(PushError::Closed(2)));
            assert_eq!(queue.pop(&mut Turn::default(), || false), Some(1));
            let stopped = Arc::new(AtomicBool::new(false));
            let popper = thread::spawn({
                let (queue, stopped) = (Arc::clone(&queue), Arc::clone(&stopped));
                move || queue.pop(&mut Turn::default(), || stopped.load(Ordering::SeqCst))
            });
            stopped.store(true, Ordering::SeqCst);
            queue.wake_all();
            assert_eq!(popper.join().expect("no panic"), None);
        }
    }

    #[test]
    fn whatever_lane_an_item_goes_into_a_sleeping_worker_takes_it() {
        // Each item is pushed only when the one before was taken, so each push may find all workers falling asleep.
        let queue = Arc::new(Queue::new(1));
        let taken = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
                thread::spawn(move || {
                    let mut turn = Turn::default();
                    let done = || taken.load(Ordering::SeqCst) >= 20_000;
                    while !done() {
                        if queue.pop(&mut turn, done).is_some() {
                            taken.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    queue.wake_all();
                })
            })
            .collect();
        for item in 0..20_000 {
            if item % 2 == 0 {
                assert_eq!(queue.push(item, Deadline::after(Duration::MAX)), Ok(()));
            } else {
                queue.push_aside(item, |_| false);
            }
            while taken.load(Ordering::SeqCst) <= item {
                thread::yield_now();
            }
        }
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    }

    #[test]
    fn dead_items_of_the_side_lane_are_let_go() {
        let queue = Queue::new(1);
        for item in 0..100_000 {
            queue.push_aside(item, |item| *item > 0);
        }
        let mut left = 0;
        while queue.try_pop(&mut Turn::default()).is_some() {
            left += 1;
        }
        assert!(left < 1_000, "{left} dead items were kept");
    }

    /// Counts how often it is told.
    #[derive(Default)]
    struct Told(AtomicUsize);

    impl std::task::Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_future_that_finds_no_room_is_told_of_room_that_comes_meanwhile() {
        // Each item is taken out at about the time at which the future enrolls: it sees the room, or it is told.
        const ROUNDS: usize = 50_000;
        let queue = Arc::new(Queue::new(1));
        let (filled, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let popper = thread::spawn({
            let (queue, filled, taken) = (Arc::clone(&queue), Arc::clone(&filled), Arc::clone(&taken));
            move || {
                for round in 1..=ROUNDS {
                    while filled.load(Ordering::SeqCst) < round {
                        thread::yield_now();
                    }
                    assert_eq!(queue.try_pop_bounded(), Some(0));
                    taken.store(round, Ordering::SeqCst);
                }
            }
        });
        for round in 1..=ROUNDS {
            let told = Arc::new(Told::default());
            assert_eq!(queue.try_push(0), Ok(()));
            filled.store(round, Ordering::SeqCst);
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            let mut spot = None;
            let pushed = queue.push_or_enroll(1, &mut spot, Waker::from(Arc::clone(&told)));
            while taken.load(Ordering::SeqCst) < round {
                thread::yield_now();
            }
            assert!(pushed.is_ok() || told.0.load(Ordering::SeqCst) == 1, "nobody will come in round {round}");
            if let Some(spot) = spot {
                queue.leave(spot, pushed.is_ok());
            }
            let _ = queue.try_pop_bounded();
        }
        popper.join().expect("no panic");
        assert!(!queue.room.has_sleepers());
    }
}
