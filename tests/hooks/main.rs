//! Hooks, callbacks and destructors that cause themselves again: their depth on the stack is bounded,
//! and skipped calls are counted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "events")]
mod bus;
mod destructors;
mod observers;
mod tokens;
mod workers;

use std::sync::{Arc, OnceLock};
use std::thread;

use common::{Counter, run_child, with_watchdog};
use workcrew::{WeakWorkerPool, WorkerPool, WorkerPoolBuilder};

/// The maximum depth of nested hooks.
pub(crate) const DEPTH: usize = 16;

/// The length of chains. Ten bytes of stack for each link would overflow the stack.
pub(crate) const LINKS: usize = 100_000;

/// The stack size of the threads of these tests.
pub(crate) const STACK: usize = 512 << 10;

/// Runs each named test of this binary in its own process, because a stack overflow ends the process.
pub(crate) fn in_processes(children: &[&str]) {
    for child in children {
        let output = run_child(child, &[]);
        assert!(output.status.success(), "{child}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{child} is no test");
    }
}

pub(crate) fn on_small_stack(f: impl FnOnce() + Send + 'static) {
    with_watchdog(|| thread::Builder::new().stack_size(STACK).spawn(f).unwrap().join().unwrap());
}

/// Runs a scenario on a small stack, with builders of pools of 1, 2 and 8 workers and queues of 1 and 64.
pub(crate) fn on_small_stacks(scenario: impl Fn(WorkerPoolBuilder) + Send + 'static) {
    on_small_stack(move || {
        for (workers, capacity) in [(1, 1), (1, 64), (2, 1), (8, 1), (8, 64)] {
            scenario(WorkerPool::builder().workers(workers).queue_capacity(capacity).stack_size(STACK));
        }
    });
}

/// A pool that its own hooks can reach, and how often they were called.
pub(crate) type Reach = (Arc<OnceLock<WeakWorkerPool>>, Counter);
