//! Tests of the contract of the queue and of the bounded lanes.

use super::*;
use crate::sync::{Arc, AtomicUsize, thread};
use std::cell::Cell;
use std::time::Duration;

const NORMAL: Priority = Priority::Normal;

/// Tests of the contract of bounded lanes, for each implementation.
macro_rules! lane_tests {
    ($lane:ident) => {
        mod $lane {
            use crate::queue::$lane::Lane;
            use crate::sync::{Arc, thread};

            #[test]
            fn items_come_out_in_the_order_of_arrival_and_a_full_lane_returns_the_item() {
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
            fn every_item_comes_out_once_with_several_poppers() {
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

lane_tests!(channel);
lane_tests!(locked);

#[test]
fn a_push_times_out_with_its_item() {
    let queue = Queue::new(1);
    assert_eq!(queue.try_push(1, NORMAL), Ok(()));
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2)] {
        assert_eq!(queue.push(2, Deadline::after(timeout)), Err(PushError::Timeout(2)));
    }
}

#[test]
fn closing_wakes_a_blocked_push_and_a_wake_up_a_blocked_pop() {
    for _ in 0..200 {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1, NORMAL), Ok(()));
        let pusher = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(2, Deadline::NEVER)
        });
        queue.close();
        assert_eq!(pusher.join().expect("no panic"), Err(PushError::Closed(2)));
        assert_eq!(queue.pop(&mut PopCursor::default(), || false), Some(1));
        let stopped = Arc::new(AtomicBool::new(false));
        let popper = thread::spawn({
            let (queue, stopped) = (Arc::clone(&queue), Arc::clone(&stopped));
            move || queue.pop(&mut PopCursor::default(), || stopped.load(Ordering::SeqCst))
        });
        stopped.store(true, Ordering::SeqCst);
        queue.wake_workers();
        assert_eq!(popper.join().expect("no panic"), None);
    }
}

#[test]
fn a_sleeping_worker_takes_an_item_of_either_lane() {
    // Each item is pushed after the one before was popped, so each push may find all workers
    // falling asleep.
    let queue = Arc::new(Queue::new(1));
    let taken = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
            thread::spawn(move || {
                let mut cursor = PopCursor::default();
                let done = || taken.load(Ordering::SeqCst) >= 20_000;
                while !done() {
                    if queue.pop(&mut cursor, done).is_some() {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                }
                queue.wake_workers();
            })
        })
        .collect();
    for item in 0..20_000 {
        if item % 2 == 0 {
            assert_eq!(queue.push(item, Deadline::after(Duration::MAX)), Ok(()));
        } else {
            queue.push_unbounded(item, NORMAL, item, |_| false);
        }
        while taken.load(Ordering::SeqCst) <= item {
            thread::yield_now();
        }
    }
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
}

#[test]
fn stale_items_of_the_unbounded_lane_are_dropped() {
    let queue = Queue::new(1);
    for item in 0..100_000 {
        queue.push_unbounded(item, NORMAL, 0, |item| *item > 0);
    }
    let mut left = 0;
    while queue.try_pop(&mut PopCursor::default()).is_some() {
        left += 1;
    }
    assert!(left < 1_000, "{left} stale items were kept");
}

#[test]
fn the_search_for_stale_items_takes_constant_time_per_item() {
    let queue = Queue::new(1);
    let looks = Cell::new(0);
    let is_stale = |_: &i32| {
        looks.set(looks.get() + 1);
        false
    };
    (0..10_000).for_each(|item| queue.push_unbounded(item, NORMAL, 0, is_stale));
    assert!((1..=20_000).contains(&looks.get()), "{} looks", looks.get());
}

/// A waker that counts its calls.
#[derive(Default)]
struct CountWakes(AtomicUsize);

impl std::task::Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_future_that_finds_no_room_is_notified_of_room_that_comes_meanwhile() {
    // Each item is popped at about the time at which the future registers. It sees the room, or it
    // is notified.
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
                assert_eq!(queue.try_pop_bounded(NORMAL), Some(0));
                taken.store(round, Ordering::SeqCst);
            }
        }
    });
    for round in 1..=ROUNDS {
        let wakes = Arc::new(CountWakes::default());
        assert_eq!(queue.try_push(0, NORMAL), Ok(()));
        filled.store(round, Ordering::SeqCst);
        (0..round % 64).for_each(|_| std::hint::spin_loop());
        let mut id = None;
        let pushed = queue.push_or_register(1, NORMAL, &mut id, Waker::from(Arc::clone(&wakes)));
        while taken.load(Ordering::SeqCst) < round {
            thread::yield_now();
        }
        assert!(pushed.is_ok() || wakes.0.load(Ordering::SeqCst) == 1, "the notification of round {round} is lost");
        if let Some(id) = id {
            queue.deregister(id, NORMAL, pushed.is_ok());
        }
        let _ = queue.try_pop_bounded(NORMAL);
    }
    popper.join().expect("no panic");
    assert!(!queue.normal.room.has_waiters());
}

#[test]
fn unpush_removes_only_the_last_item_of_a_shard() {
    let queue = Queue::new(1);
    assert_eq!(queue.unpush(NORMAL, 0, |_| true), None);
    (0..3).for_each(|item| queue.push_unbounded(item, NORMAL, 0, |_| false));
    assert_eq!(queue.unpush(NORMAL, 0, |item| *item == 0), None);
    assert_eq!(queue.unpush(NORMAL, 1, |item| *item == 2), None);
    assert_eq!(queue.unpush(NORMAL, 0, |item| *item == 2), Some(2));
    assert_eq!(queue.unbounded_len(), 2);
    let mut cursor = PopCursor::default();
    assert_eq!([queue.try_pop(&mut cursor), queue.try_pop(&mut cursor)], [Some(0), Some(1)]);
    assert_eq!(queue.unpush(NORMAL, 0, |_| true), None);
    assert!(queue.is_empty());
}

#[test]
fn shards_and_lanes_alternate_and_keep_their_order() {
    let queue = Queue::new(100);
    for item in 0..30 {
        // Different numbers stand for one shard.
        queue.push_unbounded(("unbounded", item % 3, item), NORMAL, (item % 3) + 1024 * item, |_| false);
        assert_eq!(queue.try_push(("bounded", 0, item), NORMAL), Ok(()));
    }
    assert_eq!((queue.unbounded_len(), queue.total_len()), (30, 60));
    let mut cursor = PopCursor::default();
    let out: Vec<_> = std::iter::from_fn(|| queue.try_pop(&mut cursor)).collect();
    assert!(queue.is_empty());
    let expected: Vec<_> = (0..30).flat_map(|item| [("unbounded", item % 3, item), ("bounded", 0, item)]).collect();
    assert_eq!(out, expected, "one of each lane, and of each shard, in turn");
}

/// Fault 166.
#[test]
fn the_oldest_item_of_a_shard_waits_for_at_most_fifteen_others_and_that_of_the_bounded_lane_for_one() {
    let queue = Queue::new(512);
    let shards = unbounded::SHARDS;
    (0..512).for_each(|_| assert!(queue.try_push(shards, NORMAL).is_ok()));
    (0..shards).for_each(|shard| (0..40).for_each(|_| queue.push_unbounded(shard, NORMAL, shard, |_| false)));
    for first in [0, 3, 7] {
        let mut cursor =
            PopCursor { normal: LaneCursor { next_shard: first, ..LaneCursor::default() }, ..PopCursor::default() };
        let mut waited = vec![0; shards + 1];
        for _ in 0..6 * 2 * shards {
            let lane = queue.try_pop(&mut cursor).expect("neither lane is empty");
            waited.iter_mut().for_each(|waits| *waits += 1);
            waited[lane] = 0;
            assert!(waited[..shards].iter().all(|waits| *waits < 2 * shards), "{waited:?}");
            assert!(waited[shards] < 2, "{waited:?}");
        }
    }
}

/// Fault 511.
#[test]
fn a_high_item_behind_a_million_background_items_waits_for_at_most_two_others() {
    const ITEMS: usize = 1_000_000;
    let settings = QueueSettings { background: ITEMS, ..QueueSettings::new(8) };
    let queue = Queue::with_settings(settings);
    (0..ITEMS).for_each(|_| assert!(queue.try_push(Priority::Background, Priority::Background).is_ok()));
    let mut cursor = PopCursor::default();
    for before in 0..200 {
        (0..before).for_each(|_| assert!(queue.try_pop_by_class(&mut cursor).is_some()));
        assert_eq!(queue.try_push(Priority::High, Priority::High), Ok(()));
        let pops = (1..).find(|_| queue.try_pop_by_class(&mut cursor) == Some(Priority::High));
        assert!(pops.is_some_and(|pops| pops <= 3), "{before}: {pops:?}");
    }
}

/// A worker that may take nothing finds nothing, and is not woken for it.
#[test]
fn items_without_a_permit_are_no_work() {
    let settings = QueueSettings { background_workers: 1, ..QueueSettings::new(8) };
    let queue = Queue::with_settings(settings);
    (0..3).for_each(|item| assert_eq!(queue.try_push(item, Priority::Background), Ok(())));
    let (mut one, mut other) = (PopCursor::default(), PopCursor::default());
    assert_eq!(queue.try_pop_by_class(&mut one), Some(0));
    assert!(!queue.has_work() && !queue.is_empty() && !queue.has_idle_worker(Priority::Background));
    assert_eq!(queue.try_pop_by_class(&mut other), None);
    assert_eq!(queue.try_pop_by_class(&mut one), Some(1), "a worker uses its permit again");
    assert_eq!(queue.try_push(3, Priority::High), Ok(()));
    assert_eq!(queue.try_pop_by_class(&mut one), Some(3), "and returns it when it takes another class");
    assert!(queue.has_work());
    assert_eq!(queue.try_pop_by_class(&mut other), Some(2));
    assert_eq!(queue.try_pop_by_class(&mut one), None);
    queue.put_permit_back(&mut other);
    assert_eq!(queue.try_push(4, Priority::Background), Ok(()));
    assert_eq!(queue.try_pop_by_class(&mut one), Some(4));
}
