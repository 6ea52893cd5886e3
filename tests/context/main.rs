//! The context of a submitter is carried to its tasks, wherever a closure crosses threads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod hooks;
mod kinds;

use std::cell::Cell;

use common::Counter;
use workcrew::{WorkerPool, WorkerPoolBuilder};

thread_local! {
    /// What the tests carry: the number of a request. Zero is none.
    static REQUEST: Cell<u32> = const { Cell::new(0) };
}

/// Calls `f` with this request, and restores the one before.
fn as_request<T>(request: u32, f: impl FnOnce() -> T) -> T {
    let before = REQUEST.replace(request);
    let value = f();
    REQUEST.set(before);
    value
}

/// How many wrappers exist.
#[derive(Clone, Default)]
struct Live {
    made: Counter,
    dropped: Counter,
}

/// Counted while it exists.
struct Held(Live);

impl Live {
    fn hold(&self) -> Held {
        self.made.add();
        Held(self.clone())
    }

    fn get(&self) -> usize {
        self.made.get() - self.dropped.get()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dropped.add();
    }
}

/// Carries `REQUEST`, and counts the wrappers.
fn carrying(builder: WorkerPoolBuilder) -> (WorkerPoolBuilder, Live) {
    let live = Live::default();
    let own = live.clone();
    let builder = builder.propagate(move || {
        let (request, held) = (REQUEST.get(), own.hold());
        move |run| {
            let _held = &held;
            as_request(request, run);
        }
    });
    (builder, live)
}

fn carrying_pool(workers: usize) -> (WorkerPool, Live) {
    let (builder, live) = carrying(WorkerPool::builder().workers(workers).queue_capacity(64));
    (builder.build().unwrap(), live)
}
