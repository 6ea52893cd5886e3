//! The queue: pushing, popping, sleeping, waking and closing, on both lanes and in all classes.

use crate::models::explore::{explore, explore_deeper, join, race};
use crate::priority::Priority;
use crate::queue::{PopCursor, PushError, Queue, QueueSettings};
use crate::sync::Ordering::SeqCst;
use crate::sync::{Arc, AtomicBool, Time, thread};
use crate::time::deadline::Deadline;

/// Returns a closure that pops `items` items, and blocks while there is none. It returns their sum.
fn popper(queue: &Arc<Queue<usize>>, items: usize) -> impl FnOnce() -> usize + Send + use<> {
    let queue = Arc::clone(queue);
    move || {
        let mut turn = PopCursor::default();
        (0..items).filter_map(|_| queue.pop(&mut turn, || false)).sum()
    }
}

/// Returns a closure that pushes one item, and blocks until there is room.
fn pusher(queue: &Arc<Queue<usize>>, item: usize) -> impl FnOnce() -> Result<(), PushError<usize>> + Send + use<> {
    let queue = Arc::clone(queue);
    move || queue.push(item, Deadline::NEVER)
}

/// Returns a closure that closes the queue.
fn closer(queue: &Arc<Queue<usize>>) -> impl FnOnce() + Send + use<> {
    let queue = Arc::clone(queue);
    move || queue.close()
}

/// Returns a queue of capacity one that holds an item.
fn full_queue() -> Arc<Queue<usize>> {
    let queue = Arc::new(Queue::new(1));
    assert_eq!(queue.try_push(1, Priority::Normal), Ok(()));
    queue
}

#[test]
fn push_and_pop() {
    explore("push_and_pop", Time::Frozen, || {
        let queue = Arc::new(Queue::new(1));
        let sleeper = thread::spawn(popper(&queue, 1));
        let both_lanes = Arc::clone(&queue);
        let pusher = move || {
            both_lanes.push_unbounded(2, Priority::Normal, 1, |_| false);
            both_lanes.push(1, Deadline::NEVER)
        };
        let (one, pushed) = race(popper(&queue, 1), pusher);
        assert_eq!(pushed, Ok(()));
        assert_eq!(one + join(sleeper), 3, "each item is popped once, and no worker sleeps while there is one");
    });
}

#[test]
fn two_pushes_and_one_sleeper() {
    explore("two_pushes_and_one_sleeper", Time::Frozen, || {
        let queue = Arc::new(Queue::new(2));
        let other = Arc::clone(&queue);
        let second = thread::spawn(move || other.try_push(1, Priority::Normal));
        let (sum, pushed) = race(popper(&queue, 2), {
            let queue = Arc::clone(&queue);
            move || queue.try_push(2, Priority::Normal)
        });
        assert_eq!((pushed, join(second), sum), (Ok(()), Ok(()), 3));
    });
}

/// A notifier whose sleeping worker has found the item by itself, another push that relies on it,
/// and a worker that falls asleep meanwhile.
#[test]
fn two_pushes_and_a_sleeper_after_another() {
    explore_deeper("two_pushes_and_a_sleeper_after_another", Time::Frozen, || {
        let queue = Arc::new(Queue::new(2));
        let other = Arc::clone(&queue);
        let second = thread::spawn(move || other.try_push(1, Priority::Normal));
        let ((one, another), pushed) = race(
            {
                let (first, then) = (thread::spawn(popper(&queue, 1)), popper(&queue, 1));
                move || (join(first), then())
            },
            {
                let queue = Arc::clone(&queue);
                move || queue.try_push(2, Priority::Normal)
            },
        );
        assert_eq!((pushed, join(second), one + another), (Ok(()), Ok(()), 3));
    });
}

/// Two workers are called at once. One of them sleeps again before the other has woken, and cannot
/// take what wakes the other.
#[test]
fn calls_and_a_worker_that_sleeps_again() {
    explore("calls_and_a_worker_that_sleeps_again", Time::Frozen, || {
        let queue = Arc::new(Queue::<usize>::new(1));
        let flags = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let sleep_until = |flag: usize| {
            let (queue, flag) = (Arc::clone(&queue), Arc::clone(&flags[flag]));
            move || {
                let mut cursor = PopCursor::default();
                while !flag.load(SeqCst) {
                    assert!(queue.pop(&mut cursor, || flag.load(SeqCst)).is_none(), "nothing is pushed");
                }
            }
        };
        let call = |called: &[usize]| {
            let queue = Arc::clone(&queue);
            let called: Vec<_> = called.iter().map(|flag| Arc::clone(&flags[*flag])).collect();
            move || {
                called.iter().for_each(|flag| flag.store(true, SeqCst));
                queue.call_workers();
            }
        };
        let (first, again) = (sleep_until(0), sleep_until(2));
        let twice = thread::spawn(move || {
            first();
            again();
        });
        let (second, and_call) = (sleep_until(1), call(&[2]));
        race(
            move || {
                second();
                and_call();
            },
            call(&[0, 1]),
        );
        join(twice);
    });
}

#[test]
fn unbounded_pushes_and_sleeper() {
    explore("unbounded_pushes_and_sleeper", Time::Frozen, || {
        let queue = Arc::new(Queue::new(1));
        let (sum, ()) = race(popper(&queue, 2), {
            let queue = Arc::clone(&queue);
            move || {
                queue.push_unbounded(1, Priority::Normal, 0, |_| false);
                queue.push_unbounded(2, Priority::Normal, 1, |_| false);
            }
        });
        assert_eq!(sum, 3, "a worker checks the unbounded lane after its registration");
    });
}

#[test]
fn blocked_push_and_pop() {
    // The wait for low water never ends, or ends at once.
    for time in [Time::Frozen, Time::Skips] {
        explore("blocked_push_and_pop", time, || {
            let queue = full_queue();
            let (sum, pushed) = race(popper(&queue, 2), pusher(&queue, 2));
            assert_eq!((sum, pushed), (3, Ok(())), "a waiting pusher is notified of room");
        });
    }
}

#[test]
fn two_blocked_pushes_and_pop() {
    for time in [Time::Frozen, Time::Skips] {
        explore("two_blocked_pushes_and_pop", time, || {
            let queue = full_queue();
            let other = thread::spawn(pusher(&queue, 4));
            let (sum, pushed) = race(popper(&queue, 3), pusher(&queue, 2));
            assert_eq!((sum, pushed, join(other)), (7, Ok(()), Ok(())));
        });
    }
}

#[test]
fn blocked_push_and_close() {
    for time in [Time::Frozen, Time::Skips] {
        explore("blocked_push_and_close", time, || {
            let queue = full_queue();
            let other = thread::spawn(pusher(&queue, 2));
            let (pushed, ()) = race(pusher(&queue, 2), closer(&queue));
            let refused = Err(PushError::Closed(2));
            assert_eq!(
                (pushed, join(other)),
                (refused, Err(PushError::Closed(2))),
                "closing wakes all waiting pushers"
            );
            assert_eq!(queue.pop(&mut PopCursor::default(), || false), Some(1));
        });
    }
}

#[test]
fn blocked_push_and_close_and_pop() {
    for time in [Time::Frozen, Time::Skips] {
        explore("blocked_push_and_close_and_pop", time, || {
            let queue = full_queue();
            let popper = thread::spawn(popper(&queue, 1));
            let (pushed, ()) = race(pusher(&queue, 2), closer(&queue));
            assert_eq!(join(popper), 1);
            match pushed {
                Ok(()) => {
                    assert_eq!(queue.pop(&mut PopCursor::default(), || false), Some(2), "an accepted item is popped");
                }
                Err(refused) => assert_eq!(refused, PushError::Closed(2)),
            }
            assert_eq!(queue.total_len(), 0);
        });
    }
}

#[test]
fn sleep_and_wake_workers() {
    explore("sleep_and_wake_workers", Time::Frozen, || {
        let queue = Arc::new(Queue::<usize>::new(1));
        let stopped = Arc::new(AtomicBool::new(false));
        let sleeper = || {
            let (queue, stopped) = (Arc::clone(&queue), Arc::clone(&stopped));
            move || {
                let mut turn = PopCursor::default();
                while !stopped.load(SeqCst) {
                    assert_eq!(queue.pop(&mut turn, || stopped.load(SeqCst)), None);
                }
            }
        };
        let other = thread::spawn(sleeper());
        let (queue_to_wake, flag) = (Arc::clone(&queue), Arc::clone(&stopped));
        let caller = move || {
            flag.store(true, SeqCst);
            queue_to_wake.wake_workers();
        };
        race(sleeper(), caller);
        join(other);
    });
}

#[test]
fn two_pushes_to_one_shard_and_two_sleepers() {
    explore("two_pushes_to_one_shard_and_two_sleepers", Time::Frozen, || {
        let queue = Arc::new(Queue::new(1));
        let pusher = |item| {
            let queue = Arc::clone(&queue);
            move || queue.push_unbounded(item, Priority::Normal, 3, |_| false)
        };
        let (sleeper, first) = (thread::spawn(popper(&queue, 1)), thread::spawn(pusher(1)));
        let (item, ()) = race(popper(&queue, 1), pusher(2));
        join(first);
        assert_eq!(item + join(sleeper), 3, "a push to a shard that is not empty relies on the push before");
        assert!(queue.is_empty());
    });
}

#[test]
fn unpush_and_push_to_one_shard() {
    explore("unpush_and_push_to_one_shard", Time::Frozen, || {
        let queue = Arc::new(Queue::new(1));
        let (other, maker) = (Arc::clone(&queue), Arc::clone(&queue));
        let maker = thread::spawn(move || {
            maker.push_unbounded(10, Priority::Normal, 3, |_| false);
            maker.unpush(Priority::Normal, 3, |item| *item == 10).is_some()
        });
        let (item, ()) = race(popper(&queue, 1), move || other.push_unbounded(1, Priority::Normal, 3, |_| false));
        let was_taken_back = join(maker);
        let left = queue.try_pop(&mut PopCursor::default()).unwrap_or(0);
        assert_eq!(item + left, if was_taken_back { 1 } else { 11 });
        assert!(queue.is_empty());
    });
}

/// Returns a queue with one permit for the class `Background`.
fn one_permit() -> Arc<Queue<usize>> {
    Arc::new(Queue::with_settings(QueueSettings { background_workers: 1, ..QueueSettings::new(2) }))
}

/// Returns a closure that pops one item as a worker does, and then leaves.
fn worker(queue: &Arc<Queue<usize>>) -> impl FnOnce() -> usize + Send + use<> {
    let queue = Arc::clone(queue);
    move || {
        let mut cursor = PopCursor::default();
        let item = queue.pop(&mut cursor, || false).unwrap_or(0);
        queue.put_permit_back(&mut cursor);
        item
    }
}

/// The first item of a class, which makes its lanes, and a worker that falls asleep.
#[test]
fn first_item_of_a_class_and_sleeper() {
    explore("first_item_of_a_class_and_sleeper", Time::Frozen, || {
        let queue = Arc::new(Queue::new(1));
        let (item, pushed) = race(popper(&queue, 1), {
            let queue = Arc::clone(&queue);
            move || queue.try_push(1, Priority::High)
        });
        assert_eq!((item, pushed), (1, Ok(())));
    });
}

/// A push that finds no permit, and the worker that returns it.
#[test]
fn push_without_a_permit_and_return() {
    explore("push_without_a_permit_and_return", Time::Frozen, || {
        let queue = one_permit();
        assert_eq!(queue.try_push(1, Priority::Background), Ok(()));
        let mut cursor = PopCursor::default();
        assert_eq!(queue.try_pop_by_class(&mut cursor), Some(1));
        let sleeper = thread::spawn(worker(&queue));
        let pushing = Arc::clone(&queue);
        let returns = {
            let queue = Arc::clone(&queue);
            move || queue.put_permit_back(&mut cursor)
        };
        let (pushed, ()) = race(move || pushing.try_push(2, Priority::Background), returns);
        assert_eq!((pushed, join(sleeper)), (Ok(()), 2), "a worker takes the item when there is a permit");
    });
}

/// Two workers, one permit, and an item for each.
#[test]
fn two_workers_and_one_permit() {
    explore("two_workers_and_one_permit", Time::Frozen, || {
        let queue = one_permit();
        let pushing = Arc::clone(&queue);
        let other = thread::spawn(worker(&queue));
        let (one, ()) = race(worker(&queue), move || {
            (1..=2).for_each(|item| assert_eq!(pushing.try_push(item, Priority::Background), Ok(())));
        });
        assert_eq!(one + join(other), 3, "no worker sleeps while there is an item and a permit");
        assert!(queue.is_empty());
    });
}
