//! Tokens: cancelling races with children, callbacks, waiting threads and waiting futures.

use std::pin::pin;
use std::task::{Context, Poll};

use super::{Bell, counter};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::models::explore::{explore, join, race};
use crate::sync::{Arc, AtomicUsize, Ordering, Time, thread};

/// Returns a closure that cancels the token.
fn canceller(token: &CancellationToken) -> impl FnOnce() + Send + use<> {
    let token = token.clone();
    move || token.cancel()
}

#[test]
fn cancel_and_wait() {
    explore("cancel_and_wait", Time::Frozen, || {
        let parent = CancellationToken::new();
        let child = parent.child_token();
        let (cancelled, ()) = race(
            move || {
                child.wait();
                child.is_cancelled()
            },
            canceller(&parent),
        );
        assert!(cancelled);
    });
}

#[test]
fn cancel_and_new_child() {
    explore("cancel_and_new_child", Time::Frozen, || {
        let parent = CancellationToken::new();
        let ancestor = parent.clone();
        let (grandchild, ()) = race(move || ancestor.child_token().child_token(), canceller(&parent));
        assert!(grandchild.is_cancelled(), "the cancellation finds a child, or the child finds the cancellation");
    });
}

/// Returns a callback that counts its calls.
fn counted(called: &Arc<AtomicUsize>) -> impl FnOnce() + Send + use<> {
    let called = Arc::clone(called);
    move || {
        called.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn cancel_and_cancel_and_register() {
    explore("cancel_and_cancel_and_register", Time::Frozen, || {
        let token = CancellationToken::new();
        let called = counter();
        let other = thread::spawn(canceller(&token));
        let (to_register, callback) = (token.clone(), counted(&called));
        let (guard, ()) = race(move || to_register.on_cancel(callback), canceller(&token));
        join(other);
        assert_eq!(called.load(Ordering::Relaxed), 1, "a callback is called once");
        drop(guard);
    });
}

#[test]
fn cancel_and_deregister() {
    explore("cancel_and_deregister", Time::Frozen, || {
        let token = CancellationToken::new();
        let called = counter();
        let guard = token.on_cancel(counted(&called));
        race(move || drop(guard), canceller(&token));
        assert!(called.load(Ordering::Relaxed) <= 1);
        assert_eq!(Arc::strong_count(&called), 1, "a callback is dropped whether or not it was called");
    });
}

#[test]
fn cancelled_shows_effects() {
    explore("cancelled_shows_effects", Time::Frozen, || {
        let token = CancellationToken::new();
        let (done, cancelled) = (counter(), token.clone());
        let written = Arc::clone(&done);
        let ((seen, done), ()) = race(
            move || (token.is_cancelled(), done.load(Ordering::Relaxed)),
            move || {
                written.store(1, Ordering::Relaxed);
                cancelled.cancel();
            },
        );
        assert!(!seen || done == 1, "a thread that sees the token cancelled sees what happened before");
    });
}

#[test]
fn cancel_and_await() {
    explore("cancel_and_await", Time::Frozen, || {
        let token = CancellationToken::new();
        let (first, second) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let (bells, awaited) = ([Arc::clone(&first), Arc::clone(&second)], token.clone());
        let awaiter = move || {
            let mut cancelled = pin!(awaited.cancelled());
            let _ = cancelled.as_mut().poll(&mut Context::from_waker(&bells[0].waker()));
            // The future moves to another async executor, so the last waker must be called.
            loop {
                match cancelled.as_mut().poll(&mut Context::from_waker(&bells[1].waker())) {
                    Poll::Ready(reason) => break reason,
                    Poll::Pending => bells[1].wait(),
                }
            }
        };
        let (reason, ()) = race(awaiter, canceller(&token));
        assert_eq!(reason, CancelReason::Requested);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1), "no waker is kept");
    });
}

#[test]
fn cancel_and_drop_of_the_future() {
    explore("cancel_and_drop_of_the_future", Time::Frozen, || {
        let token = CancellationToken::new();
        let bell = Arc::new(Bell::default());
        let (waker, mut cancelled) = (bell.waker(), token.cancelled());
        let awaiter = move || pin!(&mut cancelled).poll(&mut Context::from_waker(&waker)).is_ready();
        let _ = race(awaiter, canceller(&token));
        assert_eq!(Arc::strong_count(&bell), 1, "no waker is kept after the future was dropped");
    });
}
