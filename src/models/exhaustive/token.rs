//! Tokens: cancelling meets children, callbacks, threads that wait and futures that do.

use std::pin::pin;
use std::task::{Context, Poll};

use super::{Bell, counter};
use crate::cancel::CancellationToken;
use crate::error::CancelReason;
use crate::models::explore::explore;
use crate::sync::{Arc, Ordering, Time, thread};

/// A thread that cancels.
fn canceller(token: &CancellationToken) -> thread::JoinHandle<()> {
    let token = token.clone();
    thread::spawn(move || token.cancel())
}

#[test]
fn cancel_and_wait() {
    explore("cancel_and_wait", Time::Stands, || {
        let parent = CancellationToken::new();
        let child = parent.child_token();
        let canceller = canceller(&parent);
        child.wait();
        assert!(child.is_cancelled());
        canceller.join().expect("no panic");
    });
}

#[test]
fn cancel_and_birth_of_a_child() {
    explore("cancel_and_birth_of_a_child", Time::Stands, || {
        let parent = CancellationToken::new();
        let canceller = canceller(&parent);
        let grandchild = parent.child_token().child_token();
        canceller.join().expect("no panic");
        assert!(grandchild.is_cancelled(), "a child is found by the cancellation, or finds it");
    });
}

#[test]
fn cancel_and_cancel_and_callback() {
    explore("cancel_and_cancel_and_callback", Time::Stands, || {
        let token = CancellationToken::new();
        let called = counter();
        let cancellers = [canceller(&token), canceller(&token)];
        let guard = token.on_cancel({
            let called = Arc::clone(&called);
            move || {
                called.fetch_add(1, Ordering::Relaxed);
            }
        });
        cancellers.into_iter().for_each(|canceller| canceller.join().expect("no panic"));
        assert_eq!(called.load(Ordering::Relaxed), 1, "a callback is called once");
        drop(guard);
    });
}

#[test]
fn cancel_and_withdrawal_of_a_callback() {
    explore("cancel_and_withdrawal_of_a_callback", Time::Stands, || {
        let token = CancellationToken::new();
        let called = counter();
        let guard = token.on_cancel({
            let called = Arc::clone(&called);
            move || {
                called.fetch_add(1, Ordering::Relaxed);
            }
        });
        let canceller = canceller(&token);
        drop(guard);
        canceller.join().expect("no panic");
        assert!(called.load(Ordering::Relaxed) <= 1);
        assert_eq!(Arc::strong_count(&called), 1, "called or not, it is dropped");
    });
}

#[test]
fn cancelled_shows_what_was_done() {
    explore("cancelled_shows_what_was_done", Time::Stands, || {
        let token = CancellationToken::new();
        let done = counter();
        let canceller = thread::spawn({
            let (token, done) = (token.clone(), Arc::clone(&done));
            move || {
                done.store(1, Ordering::Relaxed);
                token.cancel();
            }
        });
        if token.is_cancelled() {
            assert_eq!(done.load(Ordering::Relaxed), 1, "who sees the token cancelled sees what was done before");
        }
        canceller.join().expect("no panic");
    });
}

#[test]
fn cancel_and_await() {
    explore("cancel_and_await", Time::Stands, || {
        let token = CancellationToken::new();
        let canceller = canceller(&token);
        let (first, second) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        {
            let mut cancelled = pin!(token.cancelled());
            let _ = cancelled.as_mut().poll(&mut Context::from_waker(&first.waker()));
            // Polled by another executor meanwhile: the last waker is the one to be called.
            let reason = loop {
                match cancelled.as_mut().poll(&mut Context::from_waker(&second.waker())) {
                    Poll::Ready(reason) => break reason,
                    Poll::Pending => second.wait(),
                }
            };
            assert_eq!(reason, CancelReason::Requested);
        }
        canceller.join().expect("no panic");
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1), "no waker is kept");
    });
}

#[test]
fn cancel_and_drop_of_the_future() {
    explore("cancel_and_drop_of_the_future", Time::Stands, || {
        let token = CancellationToken::new();
        let canceller = canceller(&token);
        let bell = Arc::new(Bell::default());
        let mut cancelled = token.cancelled();
        let _ = pin!(&mut cancelled).poll(&mut Context::from_waker(&bell.waker()));
        drop(cancelled);
        canceller.join().expect("no panic");
        assert_eq!(Arc::strong_count(&bell), 1, "no waker is kept when the future is gone");
    });
}
