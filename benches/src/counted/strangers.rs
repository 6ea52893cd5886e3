//! Instructions of what ends one of many: a token, a callback, a group, a timer, a future that waits for room, a
//! subscription. Nothing of this may search through the others.
//!
//! Each probe makes as many as it is told, and ends them one by one, from the middle. A search through the others would
//! cost thousands of instructions each, so the bounds leave room for everything else.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use workcrew::events::{EventBus, Subscription};
use workcrew::{CancellationToken, WorkerPool};

use super::instructions::{WITHIN, collected_by_callgrind, count};
use super::wedge::BlockedWorkers;
use super::{Counted, job};
use crate::probe::Probe;

/// A search passes 4,000 others on average, and takes several instructions for each.
const BOUND: f64 = 4_000.0;

pub(super) const PROBES: [Probe; 6] = [
    ("end_token", token),
    ("end_callback", callback),
    ("end_group", group),
    ("end_timer", timer),
    ("end_future", future),
    ("end_subscription", subscription),
];

pub(super) fn counts() -> impl Iterator<Item = Counted> {
    const NAMES: [&str; PROBES.len()] = [
        "instructions_end_token",
        "instructions_end_callback",
        "instructions_end_group",
        "instructions_end_timer",
        "instructions_end_future",
        "instructions_end_subscription",
    ];
    NAMES.into_iter().zip(PROBES).map(|(name, (probe, _))| count(name, probe, &WITHIN, BOUND))
}

/// Ends all of them, each from the middle of those that are left.
fn end_all<T>(mut all: Vec<T>, mut end: impl FnMut(T)) -> u64 {
    let number = all.len();
    collected_by_callgrind(number, |_| end(all.swap_remove(all.len() / 2)));
    number as u64
}

fn token(operations: usize) -> u64 {
    let root = CancellationToken::new();
    end_all((0..operations).map(|_| root.child_token()).collect(), drop)
}

fn callback(operations: usize) -> u64 {
    let root = CancellationToken::new();
    end_all((0..operations).map(|_| root.on_cancel(|| ())).collect(), drop)
}

fn pool() -> WorkerPool {
    WorkerPool::builder().workers(1).queue_capacity(1).build().expect("its thread starts")
}

fn group(operations: usize) -> u64 {
    let (pool, root) = (pool(), CancellationToken::new());
    let make = |_| {
        let group = pool.group::<()>().parent(&root);
        let _ = group.token();
        group
    };
    end_all((0..operations).map(make).collect(), drop)
}

fn timer(operations: usize) -> u64 {
    const FAR: Duration = Duration::from_secs(86_400);
    let pool = pool();
    let make = |number| pool.execute_after(FAR, job::<1>(number)).expect("there is room");
    end_all((0..operations).map(make).collect(), |timer| assert!(timer.cancel()))
}

fn future(operations: usize) -> u64 {
    let pool = pool();
    let wedge = BlockedWorkers::of(&pool);
    while pool.try_execute(|| ()).is_ok() {}
    let mut context = Context::from_waker(Waker::noop());
    let make = |_| {
        let mut future = Box::pin(pool.spawn_async(|| ()));
        assert!(Future::poll(Pin::as_mut(&mut future), &mut context).is_pending());
        future
    };
    let ended = end_all((0..operations).map(make).collect(), drop);
    drop(wedge);
    ended
}

fn subscription(operations: usize) -> u64 {
    let pool = pool();
    let bus = EventBus::new(&pool);
    let subscriptions: Vec<Subscription> = (0..operations).map(|_| bus.subscribe(|_: &u32| ())).collect();
    end_all(subscriptions, drop)
}
