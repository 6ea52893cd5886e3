//! Chains of tokens, callbacks and wakers of tokens.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use crate::common::Counter;
use crate::{LINKS, in_processes, on_small_stack};
use workcrew::CancellationToken;

/// Fault 172.
#[test]
fn chains_of_tokens_and_callbacks_of_any_length_take_the_stack_of_a_few() {
    in_processes(&[
        "tokens::child_cancels_a_chain_of_tokens_by_callbacks",
        "tokens::child_registers_in_callbacks",
        "tokens::child_drops_tokens_that_callbacks_own",
        "tokens::child_cancels_and_drops_a_deep_tree",
        "tokens::child_wakes_a_chain_of_futures_that_await_tokens",
    ]);
}

#[test]
#[ignore = "run in a process of its own"]
fn child_cancels_a_chain_of_tokens_by_callbacks() {
    on_small_stack(|| {
        let tokens: Vec<_> = (0..LINKS).map(|_| CancellationToken::new()).collect();
        let (called, order) = (Counter::new(), Arc::new(AtomicBool::new(true)));
        for (index, pair) in tokens.windows(2).enumerate() {
            let (own, next, called, order) = (pair[0].clone(), pair[1].clone(), called.clone(), Arc::clone(&order));
            let guard = pair[0].on_cancel(move || {
                order.fetch_and(called.get() == index, Ordering::Relaxed);
                called.add();
                own.cancel();
                next.cancel();
                assert!(next.is_cancelled(), "marked before `cancel` returns, however deep");
            });
            guard.detach();
        }
        tokens[0].cancel();
        assert!(tokens.iter().all(CancellationToken::is_cancelled));
        assert_eq!((called.get(), order.load(Ordering::Relaxed)), (LINKS - 1, true));
    });
}

fn register(token: &CancellationToken, left: usize, called: &Counter) {
    let (own, called) = (token.clone(), called.clone());
    let guard = token.on_cancel(move || {
        called.add();
        if left > 1 {
            register(&own, left - 1, &called);
        }
    });
    guard.detach();
}

#[test]
#[ignore = "run in a process of its own"]
fn child_registers_in_callbacks() {
    on_small_stack(|| {
        let (token, called) = (CancellationToken::new(), Counter::new());
        token.cancel();
        register(&token, LINKS, &called);
        assert_eq!(called.get(), LINKS, "all have been called when the outermost returns");
        let token = CancellationToken::new();
        register(&token, LINKS, &called);
        token.cancel();
        assert_eq!(called.get(), 2 * LINKS);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_drops_tokens_that_callbacks_own() {
    on_small_stack(|| {
        let last = CancellationToken::new();
        let mut first = last.clone();
        for _ in 0..LINKS {
            let next = first;
            first = CancellationToken::new();
            first.on_cancel(move || next.cancel()).detach();
        }
        drop(first);
        assert!(!last.is_cancelled(), "dropped, not called");
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_cancels_and_drops_a_deep_tree() {
    on_small_stack(|| {
        for cancelled in [true, false] {
            let root = CancellationToken::new();
            let mut last = root.clone();
            let called = Counter::new();
            for _ in 0..LINKS {
                last = last.child_token();
                let called = called.clone();
                last.on_cancel(move || called.add()).detach();
            }
            if cancelled {
                root.cancel();
            }
            assert_eq!((last.is_cancelled(), called.get()), (cancelled, if cancelled { LINKS } else { 0 }));
        }
    });
}

/// A waker that cancels a token.
struct Cancels(CancellationToken);

impl Wake for Cancels {
    fn wake(self: Arc<Self>) {
        self.0.cancel();
    }
}

#[test]
#[ignore = "run in a process of its own"]
fn child_wakes_a_chain_of_futures_that_await_tokens() {
    on_small_stack(|| {
        let tokens: Vec<_> = (0..LINKS).map(|_| CancellationToken::new()).collect();
        let mut futures = Vec::new();
        for pair in tokens.windows(2) {
            let waker = Waker::from(Arc::new(Cancels(pair[1].clone())));
            let mut future = pair[0].cancelled();
            assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
            futures.push(future);
        }
        tokens[0].cancel();
        assert!(tokens.last().unwrap().is_cancelled());
    });
}
