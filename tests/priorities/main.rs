//! Classes of tasks: turns, bounds, the limit of background workers, and what carries a class.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod bounds;
mod carriers;
mod ends;
mod limit;
mod turns;

use std::sync::mpsc;

use common::{BlockedWorkers, Gate};
use workcrew::{Priority, WorkerPool};

/// All classes, those that workers take first before the others.
const CLASSES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Background];

/// Returns a pool whose queues hold `capacity` jobs of each class.
fn pool(workers: usize, capacity: usize) -> WorkerPool {
    common::pool(workers, capacity)
}

/// Returns the classes in which one worker starts jobs, of which `counts` gives the number of each
/// class. All of them wait when the worker takes the first.
fn order_of(counts: [usize; 3]) -> Vec<Priority> {
    let pool = pool(1, counts.into_iter().max().unwrap().max(1));
    let blocked = BlockedWorkers::new(&pool);
    let (sender, order) = mpsc::channel();
    for (priority, count) in CLASSES.into_iter().zip(counts).rev() {
        for _ in 0..count {
            let sender = sender.clone();
            pool.task().priority(priority).execute(move |_| sender.send(priority).unwrap()).unwrap();
        }
    }
    blocked.open();
    drop(sender);
    order.iter().collect()
}

/// Returns the largest number of other jobs between two of `priority`, and before the first.
fn longest_wait(order: &[Priority], priority: Priority) -> usize {
    let last = order.iter().rposition(|taken| *taken == priority).unwrap();
    order[..last].split(|taken| *taken == priority).map(<[Priority]>::len).max().unwrap()
}

/// Submits one job of a class that waits at the gate.
fn hold(pool: &WorkerPool, priority: Priority, gate: &Gate) {
    let inside = gate.clone();
    pool.task().priority(priority).execute(move |_| inside.pass()).unwrap();
}
