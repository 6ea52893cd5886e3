//! The queue: pushing, popping, sleeping, waking, closing, on both lanes.

use std::sync::atomic::Ordering::SeqCst;

use super::{Bell, counter};
use crate::deadline::Deadline;
use crate::models::explore::explore;
use crate::queue::{PushError, Queue, Turn};
use crate::sync::{Arc, AtomicBool, Time, thread};

/// A thread that takes so many items, sleeping if there is none, and adds them up.
fn popper(queue: &Arc<Queue<usize>>, items: usize) -> thread::JoinHandle<usize> {
    let queue = Arc::clone(queue);
    thread::spawn(move || {
        let mut turn = Turn::default();
        (0..items).filter_map(|_| queue.pop(&mut turn, || false)).sum()
    })
}

/// A thread that pushes one item, waiting for room for ever.
fn pusher(queue: &Arc<Queue<usize>>, item: usize) -> thread::JoinHandle<Result<(), PushError<usize>>> {
    let queue = Arc::clone(queue);
    thread::spawn(move || queue.push(item, Deadline::NEVER))
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("no panic")
}

#[test]
fn push_and_pop() {
    explore("push_and_pop", Time::Stands, || {
        let queue = Arc::new(Queue::new(1));
        let poppers = [popper(&queue, 1), popper(&queue, 1)];
        assert_eq!(queue.push(1, Deadline::NEVER), Ok(()));
        queue.push_aside(2, |_| false);
        let sum: usize = poppers.into_iter().map(join).sum();
        assert_eq!(sum, 3, "each item comes out once, and no sleeper is left with one");
    });
}

#[test]
fn two_pushes_and_one_sleeper() {
    explore("two_pushes_and_one_sleeper", Time::Stands, || {
        let queue = Arc::new(Queue::new(2));
        let popper = popper(&queue, 2);
        let pusher = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.try_push(1)
        });
        assert_eq!(queue.try_push(2), Ok(()));
        assert_eq!(join(pusher), Ok(()));
        assert_eq!(join(popper), 3);
    });
}

#[test]
fn push_aside_and_falling_asleep() {
    explore("push_aside_and_falling_asleep", Time::Stands, || {
        let queue = Arc::new(Queue::new(1));
        let popper = popper(&queue, 2);
        queue.push_aside(1, |_| false);
        queue.push_aside(2, |_| false);
        assert_eq!(join(popper), 3, "the side lane is looked at after the announcement");
    });
}

#[test]
fn parked_push_and_pop() {
    explore("parked_push_and_pop", Time::Stands, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1), Ok(()));
        let pusher = pusher(&queue, 2);
        let mut turn = Turn::default();
        let sum: usize = (0..2).filter_map(|_| queue.pop(&mut turn, || false)).sum();
        assert_eq!(sum, 3);
        assert_eq!(join(pusher), Ok(()), "room is told to who waits for it");
    });
}

#[test]
fn impatient_push_and_pop() {
    // As `parked_push_and_pop`, but the patience of the pusher is at its end at once.
    explore("impatient_push_and_pop", Time::Flies, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1), Ok(()));
        let pusher = pusher(&queue, 2);
        let mut turn = Turn::default();
        let sum: usize = (0..2).filter_map(|_| queue.pop(&mut turn, || false)).sum();
        assert_eq!(sum, 3);
        assert_eq!(join(pusher), Ok(()), "room is told to who waits for it");
    });
}

#[test]
fn two_parked_pushes_and_pop() {
    explore("two_parked_pushes_and_pop", Time::Flies, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1), Ok(()));
        let pushers = [pusher(&queue, 2), pusher(&queue, 4)];
        let mut turn = Turn::default();
        let sum: usize = (0..3).filter_map(|_| queue.pop(&mut turn, || false)).sum();
        assert_eq!(sum, 7);
        for pusher in pushers {
            assert_eq!(join(pusher), Ok(()));
        }
    });
}

#[test]
fn parked_push_and_close() {
    for (name, time) in [("parked_push_and_close", Time::Stands)] {
        explore(name, time, || {
            let queue = Arc::new(Queue::new(1));
            assert_eq!(queue.try_push(1), Ok(()));
            let pushers = [pusher(&queue, 2), pusher(&queue, 2)];
            queue.close();
            for pusher in pushers {
                assert_eq!(join(pusher), Err(PushError::Closed(2)), "closing wakes all who wait for room");
            }
            assert_eq!(queue.pop(&mut Turn::default(), || false), Some(1));
        });
    }
}

#[test]
fn impatient_push_and_close() {
    explore("impatient_push_and_close", Time::Flies, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1), Ok(()));
        let pushers = [pusher(&queue, 2), pusher(&queue, 2)];
        queue.close();
        for pusher in pushers {
            assert_eq!(join(pusher), Err(PushError::Closed(2)), "closing wakes all who wait for room");
        }
    });
}

#[test]
fn parked_push_and_close_and_pop() {
    explore("parked_push_and_close_and_pop", Time::Stands, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1), Ok(()));
        let pusher = pusher(&queue, 2);
        let closer = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.close()
        });
        let mut turn = Turn::default();
        assert_eq!(queue.pop(&mut turn, || false), Some(1));
        let pushed = join(pusher);
        join(closer);
        match pushed {
            Ok(()) => assert_eq!(queue.pop(&mut turn, || false), Some(2), "taken in means that it comes out"),
            Err(refused) => assert_eq!(refused, PushError::Closed(2)),
        }
        assert_eq!(queue.len_of_both(), 0);
    });
}

#[test]
fn sleep_and_call_to_look_up() {
    explore("sleep_and_call_to_look_up", Time::Stands, || {
        let queue = Arc::new(Queue::<usize>::new(1));
        let stopped = Arc::new(AtomicBool::new(false));
        let poppers = [(); 2].map(|()| {
            let (queue, stopped) = (Arc::clone(&queue), Arc::clone(&stopped));
            thread::spawn(move || {
                let mut turn = Turn::default();
                while !stopped.load(SeqCst) {
                    assert_eq!(queue.pop(&mut turn, || stopped.load(SeqCst)), None);
                }
            })
        });
        stopped.store(true, SeqCst);
        queue.wake_all();
        poppers.into_iter().for_each(join);
    });
}

#[test]
fn future_that_wants_room_and_pop() {
    explore("future_that_wants_room_and_pop", Time::Stands, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1), Ok(()));
        let popper = popper(&queue, 1);
        let bell = Arc::new(Bell::default());
        let (mut spot, mut item) = (None, 2);
        while let Err(refused) = queue.push_or_enroll(item, &mut spot, &bell.waker()) {
            item = refused;
            bell.wait();
        }
        if let Some(spot) = spot {
            queue.leave(spot, true);
        }
        let left = queue.pop(&mut Turn::default(), || false).unwrap_or(0);
        assert_eq!(join(popper) + left, 3, "a future is told of room");
    });
}

#[test]
fn future_that_leaves_and_another_that_wants_room() {
    explore("future_that_leaves_and_another_that_wants_room", Time::Stands, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1), Ok(()));
        let left = Arc::new(Bell::default());
        let mut spot = None;
        assert_eq!(queue.push_or_enroll(2, &mut spot, &left.waker()), Err(2));
        let pusher = pusher(&queue, 4);
        let popper = popper(&queue, 1);
        // It may have been told of the room that the pop made, and passes the word on.
        queue.leave(spot.expect("it waits"), false);
        assert_eq!(join(popper), 1);
        assert_eq!(join(pusher), Ok(()), "a wake-up is not lost with who got it");
        assert_eq!(Arc::strong_count(&left), 1);
        let _ = counter();
    });
}
