//! The limit of a group, and the tickets and runners that keep it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{Gate, on_grid, pool, with_watchdog};
use workcrew::Spawner;

/// A worker that waits for the group sleeps while the limit is reached. When the runner gives way,
/// it is the only worker left.
#[test]
fn a_waiting_worker_takes_over_from_a_runner_that_gives_way() {
    let pool = pool(2, 64);
    let inner = pool.clone();
    let waiter = pool.spawn(move || {
        let (first, is_over) = (Gate::new(), Gate::new());
        let (in_first, in_job) = (first.clone(), is_over.clone());
        let group = inner.group().limit(1);
        group.spawn(move || in_first.pass());
        first.wait_started(1); // The other worker is the runner.
        (0..40).for_each(|_| group.spawn(|| thread::sleep(Duration::from_millis(1))));
        inner.execute(move || in_job.pass()).unwrap();
        first.open();
        let ended = group.wait();
        is_over.open();
        ended.unwrap().len()
    });
    assert_eq!(with_watchdog(|| waiter.unwrap().join().unwrap()), 41);
}

/// Passes a gate, and counts those that do so at once.
#[derive(Clone, Default)]
struct OneByOne {
    gate: Gate,
    running: Arc<AtomicUsize>,
}

impl OneByOne {
    fn run(&self) {
        assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "a second one runs");
        self.gate.pass();
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Lets them run on, after time enough to do wrong; nothing depends on it that is right.
    fn open(&self) {
        thread::sleep(Duration::from_millis(20));
        self.gate.open();
    }
}

#[test]
fn a_worker_that_waits_for_room_does_not_exceed_the_limit() {
    let pool = pool(2, 64);
    let group = pool.group().limit(1).capacity(1);
    let tasks = OneByOne::default();
    let spawn = |spawner: &Spawner<()>, tasks: OneByOne| spawner.spawn(move || tasks.run());
    spawn(&group.spawner(), tasks.clone());
    tasks.gate.wait_started(1);
    spawn(&group.spawner(), tasks.clone());
    let adder = Gate::new();
    let (in_adder, spawner, task) = (adder.clone(), group.spawner(), tasks.clone());
    let handle = pool.spawn(move || {
        in_adder.pass();
        spawn(&spawner, task);
    });
    adder.wait_started(1);
    adder.open();
    tasks.open();
    handle.unwrap().join().unwrap();
    assert_eq!(group.wait().unwrap().len(), 3);
}

#[test]
fn a_worker_that_waits_for_the_group_does_not_exceed_the_limit() {
    let pool = pool(2, 64);
    let group = pool.group().limit(1);
    let tasks = OneByOne::default();
    for _ in 0..2 {
        let task = tasks.clone();
        group.spawn(move || task.run());
    }
    tasks.gate.wait_started(1);
    let waiter = Gate::new();
    let in_waiter = waiter.clone();
    let handle = pool.spawn(move || {
        in_waiter.pass();
        group.wait().unwrap().len()
    });
    waiter.wait_started(1);
    waiter.open();
    tasks.open();
    assert_eq!(handle.unwrap().join().unwrap(), 2);
}

#[test]
fn a_ticket_that_comes_when_the_limit_is_reached_is_void() {
    let pool = pool(2, 64);
    let inner = pool.clone();
    let tasks = OneByOne::default();
    let (in_job, other) = (tasks.clone(), Gate::new());
    let in_other = other.clone();
    let handle = pool.spawn(move || {
        inner.execute(move || in_other.pass()).unwrap();
        other.wait_started(1); // No worker is free for the ticket
        let group = inner.group().limit(1);
        for _ in 0..2 {
            let (task, other) = (in_job.clone(), other.clone());
            group.spawn(move || {
                other.open(); // until this waiting worker runs the first task.
                task.run();
            });
        }
        group.wait().unwrap().len()
    });
    tasks.gate.wait_started(1);
    tasks.open();
    assert_eq!(handle.unwrap().join().unwrap(), 2);
}

/// Fault 67.
#[test]
fn the_limit_holds_for_1025_tasks() {
    on_grid(|pool| {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let group = pool.group().limit(3);
        for _ in 0..1_025 {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            group.spawn(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            });
        }
        group.wait().unwrap();
        assert!(most.load(Ordering::SeqCst) <= 3.min(pool.workers()));
    });
}

#[test]
fn a_limited_group_parks_no_worker() {
    // Eight tasks of a group limited to one must not keep the other worker from plain jobs.
    with_watchdog(|| {
        let pool = pool(2, 64);
        let (group, gate) = (pool.group().limit(1), Gate::new());
        for _ in 0..8 {
            let inside = gate.clone();
            group.spawn(move || inside.pass());
        }
        gate.wait_started(1);
        for _ in 0..100 {
            pool.spawn(|| ()).unwrap().join().unwrap();
        }
        assert_eq!(gate.started(), 1);
        gate.open();
        group.wait().unwrap();
    });
}
