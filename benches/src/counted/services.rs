//! Instructions of what services ask of a pool, of all threads together, from the submission until
//! the end: observers, timelines, tokens, classes, keys, retries and events.

use std::hint::black_box;

use workcrew::events::{EventBus, Subscription, SubscriptionBuilder};
use workcrew::retry::RetryPolicy;
use workcrew::timeline::Timeline;
use workcrew::{Observer, Priority, WorkerPool};

use super::instructions::{collected_by_callgrind, count, on_busy_pool, on_busy_pool_of};
use super::wedge::BlockedWorkers;
use super::{Counted, job};
use crate::probe::Probe;

/// Keys that take turns.
const KEYS: usize = 64;
const CLASSES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Background];
/// More than any probe publishes.
const MAILBOX: usize = 4_096;

pub(super) const PROBES: [Probe; 9] = [
    ("observe", observe),
    ("timeline", timeline),
    ("task", task),
    ("classes", classes),
    ("keyed", keyed),
    ("retry", retry),
    ("publish", publish),
    ("publish_by_key", publish_by_key),
    ("publish_in_batches", publish_in_batches),
];

pub(super) fn counts() -> impl Iterator<Item = Counted> {
    [
        count("instructions_observe_and_run", "observe", &[], 1_450.0),
        count("instructions_timeline_and_run", "timeline", &[], 2_500.0),
        count("instructions_task_and_run", "task", &[], 3_000.0),
        count("instructions_classes_and_run", "classes", &[], 3_380.0),
        count("instructions_keyed_and_run", "keyed", &[], 2_700.0),
        count("instructions_retry_and_run", "retry", &[], 5_900.0),
        count("instructions_publish_and_handle", "publish", &[], 3_050.0),
        count("instructions_publish_by_key_and_handle", "publish_by_key", &[], 5_100.0),
        count("instructions_publish_in_batches_and_handle", "publish_in_batches", &[], 2_930.0),
    ]
    .into_iter()
}

struct Seen;
impl Observer for Seen {}

/// `execute` in a pool with an observer that does nothing.
fn observe(operations: usize) -> u64 {
    on_busy_pool_of(WorkerPool::builder().observer(Seen), operations, |pool, number| {
        pool.execute(job::<3>(number)).expect("the pool is open");
    })
}

/// `execute` in a pool whose tasks a timeline records. Its ring is full.
fn timeline(operations: usize) -> u64 {
    let builder = WorkerPool::builder().timing(true).observer(Timeline::new(KEYS));
    on_busy_pool_of(builder, operations, |pool, number| {
        pool.execute(job::<3>(number)).expect("the pool is open");
    })
}

/// A job with a token, in a pool of one class.
fn task(operations: usize) -> u64 {
    on_busy_pool(operations, |pool, number| of_class(pool, Priority::Normal, number))
}

/// The same in three classes, in turn.
fn classes(operations: usize) -> u64 {
    on_busy_pool(operations, |pool, number| of_class(pool, CLASSES[number % CLASSES.len()], number))
}

fn of_class(pool: &WorkerPool, class: Priority, number: usize) {
    let job = job::<3>(number);
    pool.task().priority(class).execute(move |_| job()).expect("the pool is open");
}

/// A task that is not retried, since it succeeds. Includes the drop of the handle.
fn retry(operations: usize) -> u64 {
    on_busy_pool(operations, |pool, number| {
        let attempt = move |_| Ok::<_, ()>(black_box(number));
        drop(pool.spawn_with_retry(RetryPolicy::fixed(std::time::Duration::ZERO), attempt).expect("the pool is open"));
    })
}

fn keyed(operations: usize) -> u64 {
    let pool = pool();
    let (wedge, executor) = (BlockedWorkers::of(&pool), pool.keyed());
    collected_by_callgrind(operations, |number| {
        executor.execute(number % KEYS, job::<3>(number)).expect("the pool is open");
    });
    drop(wedge);
    executor.wait_idle();
    operations as u64
}

fn publish(operations: usize) -> u64 {
    on_bus(operations, |builder| builder.handle(|number: &usize| _ = black_box(*number)))
}

fn publish_by_key(operations: usize) -> u64 {
    on_bus(operations, |builder| {
        builder.ordered_by(|number| number % KEYS).handle(|number: &usize| _ = black_box(*number))
    })
}

fn publish_in_batches(operations: usize) -> u64 {
    on_bus(operations, |builder| {
        let batches = builder.batch(KEYS, std::time::Duration::ZERO);
        batches.handle(|numbers: &[&usize]| _ = black_box(numbers.len()))
    })
}

fn on_bus(operations: usize, subscribe: impl FnOnce(SubscriptionBuilder<'_, usize>) -> Subscription) -> u64 {
    let pool = pool();
    let wedge = BlockedWorkers::of(&pool);
    let bus = EventBus::builder(&pool).mailbox_capacity(MAILBOX).build();
    let _subscription = subscribe(bus.subscription());
    collected_by_callgrind(operations, |number| drop(bus.publish(number)));
    drop(wedge);
    bus.wait_idle();
    operations as u64
}

fn pool() -> WorkerPool {
    WorkerPool::builder().workers(1).queue_capacity(MAILBOX).build().expect("its thread starts")
}
