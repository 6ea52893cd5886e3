//! Shares of the workers between groups and plain jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Counter, Gate, assert_counts_add_up, on_grid, pool, with_watchdog};
use workcrew::{Spawner, WorkerPool};

#[test]
fn groups_and_plain_jobs_share_the_workers_fairly() {
    // A long group must not hold up a plain job for longer than a turn.
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (group, gate, ran) = (pool.group().capacity(10_000), Gate::new(), Counter::new());
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        for _ in 0..5_000 {
            let ran = ran.clone();
            group.spawn(move || ran.add());
        }
        let counted = ran.clone();
        let before = pool.spawn(move || counted.get()).unwrap();
        gate.open();
        assert!(before.join().unwrap() < 100);
        group.wait().unwrap();
    });
}

#[test]
fn a_thousand_groups_at_once_on_one_small_pool() {
    on_grid(|pool| {
        let groups: Vec<_> = (0..1_000)
            .map(|n| {
                let group = pool.group();
                (0..3).for_each(|k| group.spawn(move || Ok::<_, ()>(n + k)));
                group
            })
            .collect();
        for (n, group) in groups.into_iter().enumerate() {
            assert_eq!(group.wait().unwrap(), [n, n + 1, n + 2]);
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn new_workers_run_tasks_of_groups_that_were_there_before() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (group, gate) = (pool.group(), Gate::new());
        for _ in 0..4 {
            let inside = gate.clone();
            group.spawn(move || inside.pass());
        }
        gate.wait_started(1);
        pool.resize(4).unwrap();
        gate.wait_started(4);
        gate.open();
        group.wait().unwrap();
    });
}

/// Spawns itself again and again, until `until` tasks of all groups have run.
fn go_on(spawner: &Spawner<()>, own: &Arc<AtomicUsize>, all: &Arc<AtomicUsize>, until: usize) {
    let (again, own, all) = (spawner.clone(), Arc::clone(own), Arc::clone(all));
    spawner.spawn(move || {
        own.fetch_add(1, Ordering::Relaxed);
        if all.fetch_add(1, Ordering::Relaxed) < until {
            go_on(&again, &own, &all, until);
        }
    });
}

#[test]
fn groups_have_equal_shares_on_any_thread() {
    const GROUPS: usize = 16;
    let (pool, all) = (pool(1, 64), Arc::new(AtomicUsize::new(0)));
    let shares: Vec<_> = (0..GROUPS).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let begin = |pool: &WorkerPool, share| {
        let group = pool.group::<()>();
        go_on(&group.spawner(), share, &all, GROUPS * 1_000);
        group
    };
    // One is made by the worker, which runs nothing before all are there.
    let (gate, mut groups) = (Gate::new(), Vec::new());
    pool.scope(|scope| {
        scope.spawn(|| {
            groups.push(begin(&pool, &shares[0]));
            gate.pass();
        });
        gate.wait_started(1);
        let others: Vec<_> = shares[1..].iter().map(|share| begin(&pool, share)).collect();
        gate.open();
        others
    })
    .map(|others| groups.extend(others))
    .unwrap();
    with_watchdog(|| groups.into_iter().for_each(|group| drop(group.wait().unwrap())));
    let shares: Vec<_> = shares.iter().map(|share| share.load(Ordering::Relaxed)).collect();
    assert!(shares.iter().all(|share| (500..2_000).contains(share)), "{shares:?}");
}
