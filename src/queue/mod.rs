//! The bounded queue between those who submit and the workers.
//!
//! The contract, which both engines keep and the tests below check on both:
//!
//! 1. It never holds more than its capacity, and hands out in the order of arrival.
//! 2. An item that is not taken in comes back; an item that is taken in comes out once.
//! 3. A blocked `push` ends when there is room, when its deadline passes, or when the queue is closed. Closing refuses
//!    blocked pushes only: `try_push` asks no one, because admission is decided before (see `ledger`).
//! 4. A blocked `pop` ends when there is an item, or when the queue is stopped. Stopping is for a queue that is drained.
//!
//! Which engine the crate uses is decided here and nowhere else. The queue knows nothing of jobs.

mod channel;
#[cfg(any(test, workcrew_model))]
#[cfg_attr(not(workcrew_model), allow(dead_code))]
mod ring;

#[cfg(not(workcrew_model))]
pub(crate) use channel::Queue;
#[cfg(workcrew_model)]
pub(crate) use ring::Queue;

/// Why a `push` gave the item back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The queue was closed while the push waited.
    Closed(T),
}

#[cfg(test)]
mod tests {
    use super::PushError;
    use crate::deadline::Deadline;
    use crate::sync::{Arc, thread};
    use std::time::Duration;

    /// The contract as tests, once for each engine.
    macro_rules! contract {
        ($engine:ident) => {
            mod $engine {
                use super::*;
                use crate::queue::$engine::Queue;

                #[test]
                fn items_come_out_in_the_order_of_arrival_and_a_full_queue_gives_back() {
                    let queue = Queue::new(2);
                    assert_eq!(queue.try_push(1), Ok(()));
                    assert_eq!(queue.try_push(2), Ok(()));
                    assert_eq!(queue.try_push(3), Err(3));
                    assert_eq!((queue.len(), queue.capacity()), (2, 2));
                    assert_eq!((queue.try_pop(), queue.pop(), queue.try_pop()), (Some(1), Some(2), None));
                }

                #[test]
                fn a_push_times_out_with_its_item() {
                    let queue = Queue::new(1);
                    assert_eq!(queue.try_push(1), Ok(()));
                    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2)] {
                        assert_eq!(queue.push(2, Deadline::after(timeout)), Err(PushError::Timeout(2)));
                    }
                }

                #[test]
                fn closing_wakes_a_blocked_push_and_stopping_a_blocked_pop() {
                    for _ in 0..100 {
                        let queue = Arc::new(Queue::new(1));
                        assert_eq!(queue.try_push(1), Ok(()));
                        let pusher = thread::spawn({
                            let queue = Arc::clone(&queue);
                            move || queue.push(2, Deadline::NEVER)
                        });
                        queue.close();
                        assert_eq!(pusher.join().expect("no panic"), Err(PushError::Closed(2)));
                        assert_eq!(queue.pop(), Some(1));
                        let popper = thread::spawn({
                            let queue = Arc::clone(&queue);
                            move || queue.pop()
                        });
                        queue.stop();
                        assert_eq!(popper.join().expect("no panic"), None);
                    }
                }

                #[test]
                fn a_push_blocked_for_ever_ends_when_there_is_room() {
                    let queue = Arc::new(Queue::new(1));
                    let pusher = thread::spawn({
                        let queue = Arc::clone(&queue);
                        move || (0..1_000).all(|item| queue.push(item, Deadline::after(Duration::MAX)).is_ok())
                    });
                    assert!((0..1_000).all(|item| queue.pop() == Some(item)));
                    assert!(pusher.join().expect("no panic"));
                }
            }
        };
    }

    contract!(channel);
    contract!(ring);
}
