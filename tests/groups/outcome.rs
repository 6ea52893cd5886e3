//! Values, first errors and policies.

use std::thread;

use crate::AddAnd;
use crate::common::{
    self, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, on_grid, pool, spawn_parked, with_watchdog,
};
use workcrew::{GroupError, GroupPolicy, TaskError, TaskGroup};

/// Fault 65.
#[test]
fn the_first_error_of_each_sequence_is_returned() {
    // The table of Go's errgroup: what each task returns, in the order in which they end, and what `wait` returns.
    let table: [(&[Option<u8>], Option<u8>); 5] = [
        (&[], None),
        (&[None], None),
        (&[Some(1)], Some(1)),
        (&[Some(1), None], Some(1)),
        (&[Some(1), None, Some(2)], Some(1)),
    ];
    on_grid(|pool| {
        for (results, expected) in table {
            let group = pool.group().policy(GroupPolicy::CollectAll).limit(1);
            for result in results.iter().copied() {
                group.spawn(move || result.map_or(Ok(()), Err));
            }
            let found = match group.wait() {
                Ok(_) => None,
                Err(GroupError::Failed(error)) => Some(error),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, expected);
        }
    });
}

#[test]
fn values_come_in_the_order_of_spawning() {
    on_grid(|pool| {
        let group = pool.group();
        group.spawn_all((0..1_000).map(|n| {
            move || {
                if n % 97 == 0 {
                    thread::yield_now();
                }
                Ok::<_, ()>(n)
            }
        }));
        assert!(group.wait().unwrap().into_iter().eq(0..1_000));
        let units = pool.group();
        units.spawn_all((0..1_000).map(|_| || ()));
        assert_eq!(units.wait().unwrap().len(), 1_000);
    });
}

/// Fault 73.
#[test]
fn a_wait_returns_when_running_siblings_have_ended() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        let (group, gate, ended) = (pool.group(), Gate::new(), Counter::new());
        let (inside, counted) = (gate.clone(), ended.clone());
        group.spawn(move || {
            inside.pass();
            counted.add();
            Ok(())
        });
        gate.wait_started(1);
        group.spawn(|| Err("early"));
        let token = group.token().clone();
        let waiter = spawn_parked(move || (group.wait().map(drop).unwrap_err().to_string(), ended.get()));
        assert!(token.wait_timeout(LIMIT) && !waiter.is_finished());
        gate.open();
        assert_eq!(waiter.join().unwrap(), ("early".to_owned(), 1));
    });
}

#[test]
fn a_panic_is_a_first_error_too() {
    common::quiet_panics();
    on_grid(|pool| {
        let group = pool.group().limit(1);
        group.spawn(|| {
            if true {
                panic!("at the disco")
            }
        });
        group.spawn_all((0..10).map(|_| || ()));
        match group.wait() {
            Err(GroupError::Panicked(panic)) => assert_eq!(panic.message(), Some("at the disco")),
            other => panic!("{other:?}"),
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn collect_all_runs_all_tasks_and_returns_each_outcome() {
    common::quiet_panics();
    on_grid(|pool| {
        let group = pool.group().policy(GroupPolicy::CollectAll);
        for n in 0..30 {
            group.spawn(move || match n % 3 {
                0 => Ok(n),
                1 => Err(n),
                _ => panic!("third"),
            });
        }
        let outcomes = group.wait_all();
        assert_eq!(outcomes.len(), 30);
        for (n, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!((n % 3, value), (0, n)),
                Err(TaskError::Failed(value)) => assert_eq!((n % 3, value), (1, n)),
                Err(TaskError::Panicked(_)) => assert_eq!(n % 3, 2),
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn the_first_success_cancels_the_rest() {
    on_grid(|pool| {
        let group = pool.group().policy(GroupPolicy::FirstSuccess).limit(1);
        let (ran, gate) = (Counter::new(), Gate::new());
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            Err("no")
        });
        gate.wait_started(1);
        group.spawn(|| Ok(1));
        for n in 2..20 {
            let ran = ran.clone();
            if group.try_spawn(move || ran.add_and(Ok(n))).is_err() {
                break; // a queue of one
            }
        }
        gate.open();
        assert_eq!(group.wait_any().unwrap(), 1);
        pool.wait_idle();
        assert_eq!(ran.get(), 0);

        let group = pool.group().policy(GroupPolicy::FirstSuccess);
        group.spawn_all(["a", "b", "c"].map(|error| move || Err::<(), _>(error)));
        assert!(matches!(group.wait_any(), Err(GroupError::Failed("a" | "b" | "c"))));
    });
}

/// Fault 147.
#[test]
fn errors_and_values_that_a_wait_does_not_return_are_dropped_before_it_returns() {
    type Kept = Result<DropCounter, DropCounter>;
    let rounds = |wait: fn(TaskGroup<Kept>)| {
        let (pool, dropped) = (pool(2, 8), Counter::new());
        for round in 1..=200 {
            let group = pool.group().policy(GroupPolicy::CollectAll);
            for n in 0..4 {
                let outcome = DropCounter(dropped.clone());
                group.spawn(move || if n % 2 == 0 { Err(outcome) } else { Ok(outcome) });
            }
            wait(group);
            assert_eq!(dropped.get(), 4 * round, "in round {round}");
        }
    };
    with_watchdog(|| {
        rounds(|group| drop(group.wait()));
        rounds(|group| drop(group.wait_timeout(LIMIT)));
        rounds(|group| drop(group.wait_all()));
        rounds(|mut group| group.completions().for_each(drop));
        let (pool, dropped) = (pool(2, 8), Counter::new());
        for round in 1..=200 {
            let failed: Result<(), GroupError<DropCounter>> = pool.scope(|scope| {
                for _ in 0..4 {
                    let error = DropCounter(dropped.clone());
                    scope.spawn(move || Err(error));
                }
            });
            drop(failed);
            assert_eq!(dropped.get(), 4 * round, "in round {round} of the scopes");
        }
    });
}
