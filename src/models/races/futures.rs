//! Futures that wait for room: a free slot, a future that stops waiting, closing.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Bell, one_worker};
use crate::models::explore::{explore, join, race};
use crate::pool::spawn_async::SpawnAsync;
use crate::priority::Priority;
use crate::queue::{PopCursor, Queue};
use crate::sync::{Arc, Time, thread};

/// Pushes an item as a future does in an async executor.
fn push(queue: &Queue<u32>, item: u32) {
    let bell = Arc::new(Bell::default());
    let (mut id, mut item) = (None, item);
    while let Err(refused) = queue.push_or_register(item, Priority::Normal, &mut id, bell.waker()) {
        item = refused;
        bell.wait();
    }
    if let Some(id) = id {
        queue.deregister(id, Priority::Normal, true);
    }
}

#[test]
fn waiting_future_and_pop() {
    explore("waiting_future_and_pop", Time::Frozen, || {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.try_push(1, Priority::Normal), Ok(()));
        let (pushing, popping) = (Arc::clone(&queue), Arc::clone(&queue));
        let ((), popped) = race(move || push(&pushing, 2), move || popping.pop(&mut PopCursor::default(), || false));
        assert_eq!(popped, Some(1), "in the order of arrival");
        assert_eq!(queue.pop(&mut PopCursor::default(), || false), Some(2), "a future is notified of room");
    });
}

#[test]
fn dropped_future_and_waiting_push() {
    for time in [Time::Frozen, Time::Skips] {
        explore("dropped_future_and_waiting_push", time, || {
            let queue = Arc::new(Queue::new(1));
            assert_eq!(queue.try_push(1, Priority::Normal), Ok(()));
            let bell = Arc::new(Bell::default());
            let mut id = None;
            assert_eq!(queue.push_or_register(2, Priority::Normal, &mut id, bell.waker()), Err(2));
            let id = id.expect("the future waits");
            let (pushing, leaving, popping) = (Arc::clone(&queue), Arc::clone(&queue), Arc::clone(&queue));
            let pusher = thread::spawn(move || push(&pushing, 4));
            // It may have been notified of the room that the pop makes, and forwards the
            // notification.
            let leaver = move || leaving.deregister(id, Priority::Normal, false);
            let ((), popped) = race(leaver, move || popping.pop(&mut PopCursor::default(), || false));
            join(pusher); // a notification is not lost with the future that received it
            assert_eq!(popped, Some(1), "in the order of arrival");
            assert_eq!(Arc::strong_count(&bell), 1, "no waker is kept");
        });
    }
}

/// Polls a future until it is ready, as an async executor does.
fn finish<F: Future + Unpin>(mut future: F) -> F::Output {
    let bell = Arc::new(Bell::default());
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&bell.waker())) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.wait(),
        }
    }
}

#[test]
fn spawn_async_and_pop() {
    explore("spawn_async_and_pop", Time::Frozen, || {
        let pool = one_worker(1);
        let first = pool.spawn(|| 1).expect("there is room");
        let handle = finish(pool.spawn_async(|| 2)).unwrap_or_else(|_| panic!("the pool is not closed"));
        assert_eq!(finish(handle).ok(), Some(2));
        assert_eq!(first.join().ok(), Some(1));
        drop(pool);
    });
}

#[test]
fn spawn_async_and_close() {
    explore("spawn_async_and_close", Time::Frozen, || {
        let pool = Arc::new(one_worker(1));
        let first = pool.spawn(|| 1).expect("there is room");
        let future: SpawnAsync<_, _> = pool.spawn_async(|| 2);
        let closing = Arc::clone(&pool);
        let (submitted, ()) = race(move || finish(future), move || closing.close());
        match submitted {
            Ok(handle) => assert_eq!(handle.join().ok(), Some(2), "an accepted task is drained"),
            Err(refused) => assert_eq!((refused.into_inner())(), 2, "a refused closure is returned"),
        }
        assert_eq!(first.join().ok(), Some(1));
        pool.shutdown();
    });
}

#[test]
fn forgotten_submission_and_close() {
    explore("forgotten_submission_and_close", Time::Frozen, || {
        let pool = one_worker(1);
        let _first = pool.spawn(|| 1).expect("there is room");
        let mut future = pool.spawn_async(|| 2);
        let bell = Arc::new(Bell::default());
        let waits = Pin::new(&mut future).poll(&mut Context::from_waker(&bell.waker())).is_pending();
        // The future is not polled again. The pool becomes idle and drains nevertheless.
        pool.wait_idle();
        pool.shutdown();
        drop(future);
        assert_eq!(pool.metrics().tasks_refused, u64::from(waits), "the task is refused once");
    });
}
