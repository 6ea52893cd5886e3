//! Groups: order, limits, policies, deadlines, every way to wait.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, join_all, on_grid, pool,
    spawn_parked, with_watchdog,
};
use workcrew::{
    CancelReason, CancellationToken, GroupError, GroupPolicy, Spawner, TaskError, TaskGroup, TrySubmitError, WorkerPool,
};

/// Fault 64.
#[test]
fn an_empty_group_is_done_at_once() {
    on_grid(|pool| {
        assert_eq!(pool.group::<()>().wait().unwrap(), []);
        assert_eq!(pool.group::<Result<u8, ()>>().wait_all().len(), 0);
        assert_eq!(pool.group::<()>().completions().count(), 0);
        assert!(matches!(pool.group::<Result<u8, u8>>().wait_any(), Err(GroupError::WouldDeadlock)));
    });
}

/// A worker that waits for the group sleeps while the limit is reached, and is the only one who is left when the runner gives way.
#[test]
fn a_waiting_worker_takes_over_from_a_runner_that_gives_way() {
    let pool = Arc::new(pool(2, 64));
    let inner = Arc::clone(&pool);
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
    let pool = Arc::new(pool(2, 64));
    let inner = Arc::clone(&pool);
    let tasks = OneByOne::default();
    let (in_job, other) = (tasks.clone(), Gate::new());
    let in_other = other.clone();
    let handle = pool.spawn(move || {
        inner.execute(move || in_other.pass()).unwrap();
        other.wait_started(1); // The ticket comes to nobody,
        let group = inner.group().limit(1);
        for _ in 0..2 {
            let (task, other) = (in_job.clone(), other.clone());
            group.spawn(move || {
                other.open(); // until this worker, which waits, runs the first task.
                task.run();
            });
        }
        group.wait().unwrap().len()
    });
    tasks.gate.wait_started(1);
    tasks.open();
    assert_eq!(handle.unwrap().join().unwrap(), 2);
}

/// A task that a member runs in its own place leaves a gap between those that wait.
#[test]
fn what_is_cancelled_lands_where_it_was_spawned_whatever_ran_in_between() {
    let pool = pool(2, 64);
    let group = pool.group::<()>().capacity(2);
    let spawner = group.spawner();
    group.spawn(move || {
        let (first, second) = (Gate::new(), Gate::new());
        let (in_first, in_second) = (first.clone(), second.clone());
        spawner.spawn(move || in_first.pass());
        first.wait_started(1);
        spawner.spawn(move || in_second.pass());
        spawner.spawn(|| unreachable!("it waits until the group is cancelled"));
        spawner.spawn(|| ()); // The group is full: it runs here.
        first.open();
        second.wait_started(1);
        spawner.spawn(|| unreachable!("it waits until the group is cancelled"));
        spawner.token().cancel();
        second.open();
    });
    let fates: Vec<bool> = group.wait_all().iter().map(Result::is_ok).collect();
    assert_eq!(fates, [true, true, true, false, true, false]);
}

/// A group makes its token when it is asked for; whether that is before or after the event makes no difference.
#[test]
fn a_token_asked_for_late_tells_what_one_asked_for_early_tells() {
    on_grid(|pool| {
        for early in [true, false] {
            let group = pool.group::<Result<(), u8>>();
            if early {
                assert!(!group.token().is_cancelled());
            }
            group.cancel();
            assert_eq!(group.token().reason(), Some(CancelReason::Requested));

            let group = pool.group::<Result<(), u8>>();
            let spawner = group.spawner();
            if early {
                assert!(!spawner.token().is_cancelled());
            }
            group.spawn(|| Err(1));
            assert!(matches!(group.wait(), Err(GroupError::Failed(1))));
            assert_eq!(spawner.token().reason(), Some(CancelReason::GroupEnded));

            let group = pool.group();
            let spawner = group.spawner();
            if early {
                assert!(!spawner.token().is_cancelled());
            }
            group.spawn(|| ());
            group.wait().unwrap();
            assert!(!spawner.token().is_cancelled(), "a group that was waited for was not cancelled");
        }
    });
}

#[test]
fn a_token_asked_for_while_tasks_are_queued_drops_them_when_it_is_cancelled() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let group = pool.group();
        let (inside, on_drop) = (ran.clone(), DropCounter(dropped.clone()));
        group.spawn(move || {
            let _on_drop = on_drop;
            inside.add();
        });
        group.token().clone().cancel();
        assert_eq!((ran.get(), dropped.get()), (0, 1));
        wedge.open();
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
    });
}

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

/// Fault 68.
#[test]
fn try_spawn_is_full_at_capacity_and_has_room_after_draining() {
    on_grid(|pool| {
        let group = pool.group().capacity(2).limit(1);
        let gate = Gate::new();
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        assert!(group.try_spawn(|| ()).is_ok() && group.try_spawn(|| ()).is_ok());
        let ran = Counter::new();
        let counted = ran.clone();
        let error = group.try_spawn(move || counted.add()).unwrap_err();
        assert!(error.is_full());
        error.into_inner()();
        assert_eq!(ran.get(), 1);
        gate.open();
        while group.progress().done < 3 {
            thread::yield_now();
        }
        assert!(group.try_spawn(|| ()).is_ok());
        group.wait().unwrap();
    });
}

/// Fault 68.
#[test]
fn a_group_that_can_hold_nothing_says_so_and_never_hangs() {
    on_grid(|pool| {
        for group in [pool.group().limit(0), pool.group().capacity(0)] {
            for _ in 0..1_024 {
                assert!(group.try_spawn(|| ()).unwrap_err().is_full());
            }
            let dropped = Counter::new();
            let held = DropCounter(dropped.clone());
            group.spawn(move || drop(held));
            assert_eq!(dropped.get(), 1);
            assert!(matches!(group.wait(), Err(GroupError::WouldDeadlock)));
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 69.
#[test]
#[should_panic(expected = "the settings of a group are made before its first task")]
fn a_setting_after_the_first_task_panics() {
    let pool = pool(1, 1);
    let group = pool.group();
    group.spawn(|| ());
    let _ = group.limit(3);
}

/// Fault 71.
#[test]
fn after_a_cancellation_nothing_starts_and_closures_are_dropped() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let task = || {
            let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
            move || {
                let _held = held;
                ran.add();
            }
        };
        let group = pool.group().capacity(10);
        (0..10).for_each(|_| group.spawn(task()));
        assert!(!group.is_cancelled());
        group.cancel();
        assert!(group.is_cancelled() && group.token().is_cancelled());
        assert_eq!(dropped.get(), 10);
        group.spawn(task());
        assert_eq!(dropped.get(), 11);
        let error = group.try_spawn(task()).unwrap_err();
        assert!(matches!(error, TrySubmitError::ShutDown(_)));
        drop(error);
        assert_eq!((group.progress().done, group.progress().total), (11, 11));
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        assert_eq!(ran.get(), 0);
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn cancelling_after_all_have_succeeded_loses_nothing() {
    on_grid(|pool| {
        let group = pool.group();
        group.spawn_all((0..5).map(|n| move || Ok::<_, ()>(n)));
        while group.progress().done < 5 {
            thread::yield_now();
        }
        group.cancel();
        assert_eq!(group.wait().unwrap(), [0, 1, 2, 3, 4]);
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
fn collect_all_runs_all_and_tells_each_outcome() {
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

trait AddAnd {
    fn add_and<T>(&self, value: T) -> T;
}

impl AddAnd for Counter {
    fn add_and<T>(&self, value: T) -> T {
        self.add();
        value
    }
}

#[test]
fn wait_any_does_not_wait_for_the_slow() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let gate = Gate::new();
        let group = pool.group();
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            Ok::<_, ()>("slow")
        });
        gate.wait_started(1);
        group.spawn(|| Ok("fast"));
        assert_eq!(group.wait_any().unwrap(), "fast");
        gate.open();
    });
}

#[test]
fn a_deadline_cancels_what_has_not_started() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let group = pool.group().deadline(Instant::now() + Duration::from_millis(20)).capacity(5);
        let dropped = Counter::new();
        for _ in 0..5 {
            let held = DropCounter(dropped.clone());
            group.spawn(move || drop(held));
        }
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
        assert_eq!(dropped.get(), 5);
        wedge.open();
        // One that has passed before the first task; and a spawn that waits for room gives up with the deadline.
        let late = pool.group().deadline(Instant::now());
        late.spawn(|| ());
        assert!(late.try_spawn(|| ()).unwrap_err().is_shut_down());
        assert!(matches!(late.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
        pool.wait_idle();
        let wedge = BlockedWorkers::new(&pool);
        let full = pool.group().deadline(Instant::now() + Duration::from_millis(20)).capacity(1);
        full.spawn(|| ());
        full.spawn(|| ());
        assert!(full.is_cancelled());
        wedge.open();
    });
}

#[test]
fn the_parents_cancellation_reaches_the_group_and_not_the_other_way_round() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let parent = CancellationToken::new();
        let (one, two) = (pool.group().parent(&parent), pool.group().parent(&parent));
        one.spawn(|| ());
        two.spawn(|| ());
        one.cancel();
        assert!(!parent.is_cancelled() && !two.is_cancelled());
        parent.cancel();
        assert_eq!(two.progress().done, 1);
        assert!(matches!(two.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        let born_cancelled = pool.group().parent(&parent);
        born_cancelled.spawn(|| ());
        assert!(born_cancelled.wait().is_err());
        wedge.open();
    });
}

#[test]
fn cancelling_the_token_cancels_the_group() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let group = pool.group();
        group.spawn(|| ());
        group.token().cancel();
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        wedge.open();
    });
}

#[test]
fn wait_timeout_gives_the_group_back() {
    on_grid(|pool| {
        let gate = Gate::new();
        let group = pool.group();
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            Ok::<_, ()>(1)
        });
        let group = group.wait_timeout(Duration::ZERO).unwrap_err();
        let group = group.wait_timeout(Duration::from_millis(1)).unwrap_err();
        gate.open();
        assert_eq!(group.wait_timeout(Duration::MAX).unwrap().unwrap(), [1]);
    });
}

#[test]
fn completions_come_as_tasks_end() {
    on_grid(|pool| {
        let mut group = pool.group().capacity(4).limit(2);
        let gate = Gate::new();
        let slow = pool.workers() > 1;
        let inside = gate.clone();
        group.spawn(move || {
            if slow {
                inside.pass();
            }
            Ok::<_, ()>(0)
        });
        for n in 1..4 {
            group.spawn(move || Ok(n));
        }
        let mut completions = group.completions();
        if slow {
            let fast: Vec<_> = completions.by_ref().take(3).map(|(index, outcome)| (index, outcome.unwrap())).collect();
            assert_eq!(fast, [(1, 1), (2, 2), (3, 3)]);
            gate.open();
            assert_eq!(completions.next().unwrap().0, 0);
        } else {
            assert_eq!(completions.by_ref().count(), 4);
        }
        assert!(completions.next().is_none());
        // More tasks, more completions; the wait returns what was not yielded.
        group.spawn(|| Ok(9));
        assert_eq!(group.completions().next().unwrap().0, 4);
        group.spawn(|| Ok(10));
        assert_eq!(group.wait().unwrap(), [10]);
    });
}

#[test]
fn completions_tell_of_cancelled_units_too() {
    on_grid(|pool| {
        let mut group = pool.group().limit(1).capacity(10);
        let gate = Gate::new();
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            Ok(())
        });
        group.spawn(|| Err("stop"));
        group.spawn_all((0..8).map(|_| || Ok(())));
        gate.open();
        let mut seen: Vec<_> = group.completions().map(|(index, outcome)| (index, outcome.is_ok())).collect();
        seen.sort_unstable();
        assert!(seen.iter().map(|(index, _)| *index).eq(0..10), "{seen:?}");
        assert_eq!(seen.iter().filter(|(_, ok)| *ok).count(), 1);
    });
}

#[test]
fn tasks_add_siblings_through_a_spawner() {
    fn grow(spawner: &Spawner<Result<u32, ()>>, depth: u32) -> Result<u32, ()> {
        if depth > 0 {
            for _ in 0..2 {
                let siblings = spawner.clone();
                spawner.spawn(move || grow(&siblings, depth - 1));
            }
        }
        Ok(1)
    }
    on_grid(|pool| {
        for limit in [1, 2, usize::MAX] {
            let group = pool.group().limit(limit).capacity(4);
            grow(&group.spawner(), 9).unwrap();
            let total: u32 = group.wait().unwrap().into_iter().sum();
            assert_eq!(total, (1 << 10) - 2);
        }
    });
}

#[test]
fn a_member_may_add_any_number_of_siblings_to_its_full_group() {
    on_grid(|pool| {
        let group = pool.group().limit(1).capacity(1);
        let (spawner, ran) = (group.spawner(), Counter::new());
        let counter = ran.clone();
        group.spawn(move || {
            for _ in 0..20_000 {
                let counter = counter.clone();
                spawner.spawn(move || counter.add());
            }
        });
        group.wait().unwrap();
        assert_eq!(ran.get(), 20_000);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_spawner_that_outlives_the_wait_drops_what_it_is_given() {
    let pool = pool(1, 4);
    let group = pool.group();
    let spawner = group.spawner();
    group.wait().unwrap();
    let dropped = Counter::new();
    let held = DropCounter(dropped.clone());
    spawner.spawn(move || drop(held));
    assert_eq!(dropped.get(), 1);
    assert!(spawner.try_spawn(|| ()).unwrap_err().is_shut_down());
}

/// Fault 85.
#[test]
fn groups_nest_on_one_worker_and_a_queue_of_one() {
    fn nested(pool: &Arc<workcrew::WorkerPool>, levels: u32) -> usize {
        if levels == 0 {
            return 1;
        }
        let group = pool.group();
        for _ in 0..3 {
            let inner = Arc::clone(pool);
            group.spawn(move || Ok::<_, ()>(nested(&inner, levels - 1)));
        }
        group.wait().unwrap().into_iter().sum()
    }
    on_grid(|pool| assert_eq!(nested(&pool, 6), 729));
}

/// Fault 91.
#[test]
fn a_member_that_waits_for_its_group_is_told_so() {
    on_grid(|pool| {
        let (give, take) = mpsc::channel::<TaskGroup<()>>();
        let (told, tell) = mpsc::channel();
        let group = pool.group();
        let inner = Arc::clone(&pool);
        group.spawn(move || {
            let group = take.recv().unwrap();
            let is_told = move || matches!(group.wait(), Err(GroupError::WouldDeadlock));
            if inner.workers() > 1 {
                return told.send(is_told()).unwrap();
            }
            // With one worker the task of a group made here runs on the same stack, and is a member as well.
            let nested = inner.group();
            nested.spawn(move || told.send(is_told()).unwrap());
            nested.wait().unwrap();
        });
        give.send(group).unwrap();
        assert!(tell.recv_timeout(LIMIT).unwrap());
    });
}

/// Fault 90.
#[test]
fn a_group_dropped_without_a_wait_cancels_and_does_not_block() {
    on_grid(|pool| {
        let (group, gate, dropped) = (pool.group().capacity(10).limit(1), Gate::new(), Counter::new());
        let token = group.token().clone();
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        for _ in 0..9 {
            let held = DropCounter(dropped.clone());
            group.spawn(move || drop(held));
        }
        drop(group);
        assert!(token.is_cancelled());
        assert_eq!(dropped.get(), 9);
        gate.open();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_cancelled, 9);
    });
}

/// Fault 88.
#[test]
fn a_group_of_a_pool_that_is_shut_down_says_so() {
    on_grid(|pool| {
        let group = pool.group();
        pool.shutdown();
        group.spawn(|| ());
        assert!(group.try_spawn(|| ()).unwrap_err().is_shut_down());
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::ShutDown))));
    });
}

#[test]
fn a_spawn_that_waits_for_room_ends_with_the_group() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let wedge = BlockedWorkers::new(&pool);
        let group = pool.group().capacity(1);
        group.spawn(|| ());
        let spawner = group.spawner();
        let parked = spawn_parked(move || spawner.spawn(|| ()));
        assert!(!parked.is_finished());
        group.cancel();
        parked.join().unwrap();
        assert!(group.wait().is_err());
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

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
fn a_task_added_while_the_group_is_waited_for_is_run_or_dropped_and_never_lost() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        for _ in 0..20_000 {
            let group = pool.group();
            let spawner = group.spawner();
            let dropped = Counter::new();
            let held = DropCounter(dropped.clone());
            thread::scope(|threads| {
                let adder = threads.spawn(move || spawner.spawn(move || drop(held)));
                let _ = group.wait();
                join_all([adder]);
            });
            pool.wait_idle();
            assert_eq!(dropped.get(), 1);
        }
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_helper_that_sleeps_wakes_for_a_new_task() {
    // The one worker that is not busy waits for the group; only it can run what a member adds and then depends on.
    with_watchdog(|| {
        let pool = pool(2, 4);
        let (inner, gate) = (Arc::clone(&pool), Gate::new());
        let held = gate.clone();
        let outer = pool.spawn(move || {
            let group = inner.group().limit(2);
            let (spawner, inside) = (group.spawner(), held.clone());
            group.spawn(move || {
                inside.pass();
                let (told, tell) = mpsc::channel();
                spawner.spawn(move || told.send(()).unwrap());
                tell.recv_timeout(LIMIT).unwrap();
            });
            held.wait_started(1); // on the other worker
            group.wait().unwrap();
        });
        let outer = outer.unwrap();
        gate.wait_started(1);
        thread::sleep(Duration::from_millis(5)); // lets the helper fall asleep; not needed for the test to hold
        gate.open();
        outer.join().unwrap();
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

#[test]
fn a_part_is_never_mistaken_for_the_whole() {
    with_watchdog(|| {
        for round in 0..300 {
            let pool = pool(1, 2);
            let done = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&done);
            let items = (0..50).inspect(|n| {
                if *n == round % 50 {
                    pool.shutdown_now();
                }
            });
            let values = pool.try_map(items, move |n| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ()>(n)
            });
            if let Ok(values) = values {
                assert!(values.into_iter().eq(0..50));
            }
        }
        let pool = pool(1, 2);
        let group = pool.group();
        let token = group.token().clone();
        group.spawn_all((0..50).map(|n| {
            if n == 20 {
                token.cancel();
            }
            move || Ok::<_, ()>(n)
        }));
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
    });
}

#[test]
fn waiting_for_a_group_inside_its_own_cancellation_is_answered() {
    // In a callback of the token, and in the destructor of a task that is cancelled.
    on_grid(|pool| {
        let (told, tell) = mpsc::channel();
        let group = pool.group();
        let slot = Arc::new(Mutex::new(None::<TaskGroup<Result<(), ()>>>));
        let (inside, token) = (Arc::clone(&slot), group.token().clone());
        let _guard = token.on_cancel(move || {
            let group = inside.lock().unwrap().take().unwrap();
            told.send(matches!(group.wait(), Err(GroupError::WouldDeadlock))).unwrap();
        });
        let gate = Gate::new();
        let held = gate.clone();
        group.spawn(move || {
            held.pass();
            Err(())
        });
        *slot.lock().unwrap() = Some(group);
        gate.open();
        assert!(tell.recv_timeout(LIMIT).unwrap());
    });
}

#[test]
fn a_cancelled_token_stops_the_group_even_while_its_callbacks_are_held_up() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let parent = CancellationToken::new();
        let hold = Gate::new();
        let held = hold.clone();
        let _first = parent.on_cancel(move || held.pass()); // called before the group's own
        let group = pool.group().parent(&parent).limit(1);
        let (gate, ran) = (Gate::new(), Counter::new());
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        for _ in 0..5 {
            let ran = ran.clone();
            group.spawn(move || ran.add());
        }
        let canceller = thread::spawn(move || parent.cancel());
        hold.wait_started(1);
        assert!(group.is_cancelled());
        gate.open();
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        assert_eq!(ran.get(), 0);
        hold.open();
        canceller.join().unwrap();
    });
}

#[test]
fn a_worker_that_fills_a_group_runs_its_tasks_instead_of_piling_them_up() {
    on_grid(|pool| {
        let (inner, ahead) = (Arc::clone(&pool), Arc::new(AtomicUsize::new(0)));
        let most = Arc::new(AtomicUsize::new(0));
        let watched = Arc::clone(&most);
        pool.spawn(move || {
            let taken = Arc::clone(&ahead);
            let items = (0..20_000).inspect(|_| {
                watched.fetch_max(taken.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            });
            let done = Arc::clone(&ahead);
            inner.try_map(items, move |_| {
                done.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, ()>(())
            })
        })
        .unwrap()
        .join()
        .unwrap()
        .unwrap();
        assert!(most.load(Ordering::SeqCst) <= pool.queue_capacity() + pool.workers() + 1);
    });
}

#[test]
fn outcomes_that_were_handed_out_do_not_come_back() {
    on_grid(|pool| {
        let mut group = pool.group().policy(GroupPolicy::CollectAll).limit(1).capacity(8);
        group.spawn_all([Ok(1), Err("one"), Ok(2), Err("two")].map(|result| move || result));
        let handed_out: Vec<_> = group.completions().take(2).collect();
        assert!(matches!(handed_out[..], [(0, Ok(1)), (1, Err(TaskError::Failed("one")))]));
        assert_eq!(group.wait_any().unwrap(), 2);

        let mut units = pool.group().policy(GroupPolicy::CollectAll).limit(1).capacity(8);
        units.spawn_all([Err("one"), Ok(()), Ok(())].map(|result| move || result));
        assert!(units.completions().next().unwrap().1.is_err());
        assert_eq!(units.wait().unwrap().len(), 2);
    });
}

#[test]
fn outcomes_streamed_one_by_one_take_no_memory() {
    let pool = pool(1, 4);
    let mut group = pool.group();
    let spawner = group.spawner();
    spawner.spawn(|| Ok::<_, ()>([1_u8; 1_000]));
    let mut seen = 0;
    for (index, outcome) in group.completions() {
        assert!(index == seen && outcome.is_ok());
        seen += 1;
        if seen < 10_000 {
            spawner.spawn(|| Ok([1; 1_000]));
        }
    }
    assert_eq!(seen, 10_000);
}

#[test]
fn completions_that_would_wait_for_ever_panic() {
    common::quiet_panics();
    on_grid(|pool| {
        let (give, take) = mpsc::channel::<TaskGroup<Result<(), ()>>>();
        let group = pool.group();
        let (told, tell) = mpsc::channel();
        group.spawn(move || {
            let mut group = take.recv().unwrap();
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| group.completions().count()));
            told.send(panicked.is_err()).unwrap();
            Ok(())
        });
        give.send(group).unwrap();
        assert!(tell.recv_timeout(LIMIT).unwrap());
    });
}

/// Fault 66.
#[test]
fn a_group_that_was_waited_for_leaves_its_token_as_it_is() {
    on_grid(|pool| {
        let group = pool.group();
        let token = group.token().clone();
        group.spawn(|| ());
        group.wait().unwrap();
        assert!(!token.is_cancelled());
    });
}

#[test]
fn the_deadline_of_a_closed_group_does_not_keep_a_waiter_busy() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let gate = Gate::new();
        let group = pool.group().deadline(Instant::now());
        let inside = gate.clone();
        assert!(group.try_spawn(move || inside.pass()).is_err());
        let deadline = Instant::now() + Duration::from_millis(500);
        let group = pool.group().deadline(deadline);
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1); // before the deadline, which it then outlives
        let group = group.wait_timeout(Duration::from_millis(600)).unwrap_err();
        assert!(Instant::now() > deadline && group.is_cancelled());
        gate.open();
        group.wait().unwrap();
    });
}

#[test]
fn a_worker_that_waits_for_room_wakes_when_a_runner_leaves_tasks_behind() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let inner = Arc::clone(&pool);
        let ended = pool.spawn(move || {
            let mut group = inner.group().limit(1).capacity(1);
            let (spawner, gate) = (group.spawner(), Gate::new());
            let (ready, starts) = mpsc::channel();
            let held = gate.clone();
            let filler = inner.spawn(move || {
                ready.send(()).unwrap();
                held.wait_started(1);
                spawner.spawn(|| Ok(()));
                held.open();
                spawner.spawn(|| Ok(())); // full, and the one runner is at its limit
            });
            starts.recv().unwrap(); // so the other worker is busy, and this one runs the first task
            let inside = gate.clone();
            group.spawn(move || {
                inside.pass();
                Ok::<_, ()>(())
            });
            // This worker runs the first task, and stops with the second left.
            assert!(group.completions().next().is_some());
            filler.unwrap().join().unwrap();
            group.completions().count()
        });
        assert_eq!(ended.unwrap().join().unwrap(), 2);
    });
}

#[test]
fn wait_any_on_a_worker_stops_at_the_first_success() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let (inner, ran) = (Arc::clone(&pool), Counter::new());
        let counted = ran.clone();
        let value = pool.spawn(move || {
            let group = inner.group().policy(GroupPolicy::CollectAll);
            for n in 0..10 {
                let ran = counted.clone();
                group.spawn(move || ran.add_and(Ok::<_, ()>(n)));
            }
            group.wait_any().unwrap()
        });
        assert_eq!((value.unwrap().join().unwrap(), ran.get()), (0, 1));

        let inner = Arc::clone(&pool);
        let value = pool.spawn(move || {
            let mut group = inner.group().policy(GroupPolicy::CollectAll);
            group.spawn_all([Err(0), Err(1), Err(2), Ok(3)].map(|result| move || result));
            assert!(group.completions().next().is_some());
            group.wait_any().unwrap()
        });
        assert_eq!(value.unwrap().join().unwrap(), 3);
    });
}

#[test]
fn a_callback_of_an_expired_group_may_end_the_pool() {
    on_grid(|pool| {
        // A busy machine may let the deadline pass before the callback is registered, which is then called here and now.
        let (group, deadline, _guard) = (0..)
            .find_map(|doublings| {
                let deadline = Instant::now() + Duration::from_millis(1 << doublings);
                let group = pool.group().deadline(deadline);
                let registered = Arc::new(AtomicBool::new(false));
                let (inner, in_time) = (Arc::clone(&pool), Arc::clone(&registered));
                let called = Arc::new(AtomicBool::new(false));
                let noted = Arc::clone(&called);
                let guard = group.token().on_cancel(move || {
                    noted.store(true, Ordering::SeqCst);
                    if in_time.load(Ordering::SeqCst) {
                        assert!(!inner.wait_idle_timeout(LIMIT));
                        inner.shutdown();
                    }
                });
                registered.store(true, Ordering::SeqCst);
                (!called.load(Ordering::SeqCst)).then_some((group, deadline, guard))
            })
            .expect("some deadline is late enough");
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        group.spawn(|| ());
        assert!(pool.is_shut_down());
        assert!(group.wait().is_err());
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn completions_in_the_destructor_of_a_member_panic_and_do_not_hang() {
    struct Looks(mpsc::Receiver<TaskGroup<()>>, mpsc::Sender<bool>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let mut group = self.0.recv().unwrap();
            let look = std::panic::AssertUnwindSafe(|| group.completions().next().is_some());
            self.1.send(std::panic::catch_unwind(look).is_err()).unwrap();
        }
    }
    let quiet = thread::Builder::new().name("workcrew-test".into());
    common::quiet_panics();
    let run = || {
        on_grid(|pool| {
            let wedge = BlockedWorkers::new(&pool);
            let (give, take) = mpsc::channel();
            let (told, tell) = mpsc::channel();
            let group = pool.group();
            let looks = Looks(take, told);
            group.spawn(move || drop(looks));
            let token = group.token().clone();
            give.send(group).unwrap();
            token.cancel();
            assert!(tell.recv_timeout(LIMIT).unwrap());
            wedge.open();
        });
    };
    quiet.spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_late_spawn_does_not_spoil_a_wait() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        for _ in 0..5_000 {
            let group = pool.group().policy(GroupPolicy::CollectAll);
            let spawner = group.spawner();
            thread::scope(|threads| {
                let adder = threads.spawn(move || (0..3_usize).for_each(|n| spawner.spawn(move || Ok::<_, ()>(n))));
                // All, or those that came in time; never an error.
                let values = group.wait().unwrap();
                assert!(values.len() <= 3 && values.iter().copied().eq(0..values.len()));
                join_all([adder]);
            });
        }
    });
}

#[test]
fn wait_any_gives_the_error_that_came_before_every_value_when_the_first_error_counts() {
    with_watchdog(|| {
        for (policy, expected) in [(GroupPolicy::FailFast, Err("early")), (GroupPolicy::FirstSuccess, Ok(1))] {
            let pool = pool(2, 4);
            let group = pool.group().policy(policy);
            let (gate, token) = (Gate::new(), group.token().clone());
            let running = gate.clone();
            group.spawn(move || {
                running.pass();
                Ok(1)
            });
            gate.wait_started(1);
            group.spawn(|| Err("early"));
            while group.progress().done == 0 {
                thread::yield_now();
            }
            assert_eq!(token.is_cancelled(), policy == GroupPolicy::FailFast);
            gate.open();
            while group.progress().done < 2 {
                thread::yield_now();
            }
            assert_eq!(group.wait_any().map_err(|error| error.into_failed().unwrap()), expected);
        }
    });
}

#[test]
fn wait_any_on_a_worker_ends_when_another_worker_has_the_first_value() {
    with_watchdog(|| {
        let pool = Arc::new(pool(2, 4));
        let inner = Arc::clone(&pool);
        let waiting = pool.spawn(move || {
            let group = inner.group::<Result<u32, ()>>();
            let (token, gate) = (group.token().clone(), Gate::new());
            // The other worker is held, so this one comes to the first task, and lets it go from there.
            let held = gate.clone();
            inner.execute(move || held.pass()).unwrap();
            gate.wait_started(1);
            group.spawn(move || {
                gate.open();
                token.wait();
                Ok(1)
            });
            group.spawn(|| Ok(2));
            group.wait_any()
        });
        assert_eq!(waiting.unwrap().join().unwrap().unwrap(), 2);
    });
}

#[test]
fn completions_that_have_come_to_an_end_stay_there() {
    let pool = pool(1, 4);
    let mut group = pool.group();
    let spawner = group.spawner();
    group.spawn(|| ());
    let mut completions = group.completions();
    assert!(completions.next().is_some() && completions.next().is_none());
    spawner.spawn(|| ());
    assert!(completions.next().is_none());
    assert_eq!(group.completions().count(), 1);
}

/// Spawns itself again and again, until so many tasks of all groups have run.
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
fn groups_have_equal_shares_whoever_made_them() {
    const GROUPS: usize = 16;
    let (pool, all) = (Arc::new(pool(1, 64)), Arc::new(AtomicUsize::new(0)));
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
