//! Groups: order, limits, policies, deadlines, every way to wait.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod any;
mod cancel;
mod completions;
mod dropped;
mod failed_task;
mod fairness;
mod limit;
mod outcome;
mod partial;
mod spawn;
mod unwaited;
mod wait;

use common::Counter;

pub(crate) trait AddAnd {
    fn add_and<T>(&self, value: T) -> T;
}

impl AddAnd for Counter {
    fn add_and<T>(&self, value: T) -> T {
        self.add();
        value
    }
}
