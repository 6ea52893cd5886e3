//! Groups that no thread waits for: they keep no outcome, and end with their last spawner.

use crate::common::{BlockedWorkers, Counter, DropCounter, Gate, assert_counts_add_up, on_grid, quiet_panics};
use workcrew::{GroupPolicy, Spawner, TaskGroup, WorkerPool};

type Lane = Spawner<Result<DropCounter, DropCounter>>;

/// Spawns tasks that succeed, fail and panic; each outcome is counted when it is dropped.
fn spawn_some(lane: &Lane, tasks: usize, dropped: &Counter) {
    for number in 0..tasks {
        let outcome = DropCounter(dropped.clone());
        lane.spawn(move || match number % 3 {
            0 => Ok(outcome),
            1 => Err(outcome),
            _ => panic!("{}", outcome.0.get()),
        });
    }
}

fn lane(pool: &WorkerPool) -> TaskGroup<Result<DropCounter, DropCounter>> {
    pool.group().limit(1).capacity(64).policy(GroupPolicy::CollectAll)
}

/// Fault 285.
#[test]
fn a_group_that_was_turned_into_a_spawner_keeps_no_outcome() {
    quiet_panics();
    on_grid(|pool| {
        let dropped = Counter::new();
        let group = lane(&pool);
        spawn_some(&group.spawner(), 30, &dropped);
        pool.wait_idle();
        assert_eq!(dropped.get(), 10, "a group keeps its values and errors for a wait");
        let lane = group.into_spawner();
        assert_eq!(dropped.get(), 30, "what it has kept is dropped");
        for round in 1..=10 {
            spawn_some(&lane, 30, &dropped);
            pool.wait_idle();
            assert_eq!(dropped.get(), 30 * (round + 1));
        }
        assert!(!lane.token().is_cancelled());
        drop(lane);
        assert_counts_add_up(&pool);
    });
}

/// Fault 285.
#[test]
fn dropping_the_last_spawner_cancels_what_has_not_started() {
    on_grid(|pool| {
        for clones in [0, 2] {
            let (lane, gate, ran) =
                (pool.group::<()>().limit(1).capacity(64).into_spawner(), Gate::new(), Counter::new());
            let inside = gate.clone();
            lane.spawn(move || inside.pass());
            gate.wait_started(1);
            let before = pool.metrics().tasks_cancelled;
            for _ in 0..5 {
                let ran = ran.clone();
                lane.spawn(move || ran.add());
            }
            let (token, clones) = (lane.token().clone(), vec![lane.clone(); clones]);
            drop(lane);
            assert_eq!(token.is_cancelled(), clones.is_empty(), "its clones own the group as well");
            drop(clones);
            assert!(token.is_cancelled());
            assert_eq!((ran.get(), pool.metrics().tasks_cancelled - before), (0, 5));
            gate.open();
            pool.wait_idle();
        }
    });
}

/// Spawns a task that spawns the next, each with a spawner of its own.
fn descend(lane: Spawner<()>, ran: Counter, left: usize) {
    if left > 0 {
        lane.clone().spawn(move || {
            ran.add();
            descend(lane, ran, left - 1);
        });
    }
}

/// Fault 285.
#[test]
fn a_spawner_that_a_queued_task_holds_keeps_the_group_open() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let (lane, ran) = (pool.group::<()>().limit(1).capacity(64).into_spawner(), Counter::new());
        descend(lane.clone(), ran.clone(), 5);
        let token = lane.token().clone();
        drop(lane);
        assert!(!token.is_cancelled());
        blocked.open();
        pool.wait_idle();
        assert!(token.is_cancelled(), "the last spawner is gone");
        assert_eq!(ran.get(), 5);
        assert_counts_add_up(&pool);
    });
}

/// Fault 285.
#[test]
fn the_policy_of_a_group_without_a_wait_still_counts() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let (lane, ran) = (pool.group().limit(1).capacity(64).into_spawner(), Counter::new());
        for number in 0..4 {
            let ran = ran.clone();
            lane.spawn(move || {
                ran.add();
                if number == 1 { Err("failed") } else { Ok(()) }
            });
        }
        blocked.open();
        pool.wait_idle();
        assert_eq!(ran.get(), 2, "the failure cancels the rest");
        assert!(lane.token().is_cancelled());
        assert!(lane.try_spawn(|| Ok(())).is_err());
        assert_counts_add_up(&pool);
    });
}
