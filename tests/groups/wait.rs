//! Every way to wait for a group.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::AddAnd;
use crate::common::{Counter, Gate, LIMIT, Mutex, on_grid, pool, with_watchdog};
use workcrew::{GroupError, GroupPolicy, TaskGroup};

/// Fault 64.
#[test]
fn an_empty_group_is_done_at_once() {
    on_grid(|pool| {
        assert_eq!(pool.group::<()>().wait().unwrap(), []);
        assert_eq!(pool.group::<Result<u8, ()>>().wait_all().len(), 0);
        assert_eq!(pool.group::<()>().completions().count(), 0);
        assert!(matches!(pool.group::<Result<u8, u8>>().wait_any(), Err(GroupError::WouldDeadlock(_))));
    });
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

/// Fault 85.
#[test]
fn groups_nest_on_one_worker_and_a_queue_of_one() {
    fn nested(pool: &workcrew::WorkerPool, levels: u32) -> usize {
        if levels == 0 {
            return 1;
        }
        let group = pool.group();
        for _ in 0..3 {
            let inner = pool.clone();
            group.spawn(move || Ok::<_, ()>(nested(&inner, levels - 1)));
        }
        group.wait().unwrap().into_iter().sum()
    }
    on_grid(|pool| assert_eq!(nested(&pool, 6), 729));
}

/// Fault 91.
#[test]
fn a_member_that_waits_for_its_group_gets_would_deadlock() {
    on_grid(|pool| {
        let (give, take) = mpsc::channel::<TaskGroup<()>>();
        let (told, tell) = mpsc::channel();
        let group = pool.group();
        let inner = pool.clone();
        group.spawn(move || {
            let group = take.recv().unwrap();
            let is_told = move || matches!(group.wait(), Err(GroupError::WouldDeadlock(_)));
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

#[test]
fn a_helper_that_sleeps_wakes_for_a_new_task() {
    // The one worker that is not busy waits for the group; only it can run what a member adds and then depends on.
    with_watchdog(|| {
        let pool = pool(2, 4);
        let (inner, gate) = (pool.clone(), Gate::new());
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
fn waiting_for_a_group_inside_its_own_cancellation_is_answered() {
    // In a callback of the token, and in the destructor of a task that is cancelled.
    on_grid(|pool| {
        let (told, tell) = mpsc::channel();
        let group = pool.group();
        let slot = Arc::new(Mutex::new(None::<TaskGroup<Result<(), ()>>>));
        let (inside, token) = (Arc::clone(&slot), group.token().clone());
        let _guard = token.on_cancel(move || {
            let group = inside.lock().unwrap().take().unwrap();
            told.send(matches!(group.wait(), Err(GroupError::WouldDeadlock(_)))).unwrap();
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
fn wait_any_on_a_worker_stops_at_the_first_success() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let (inner, ran) = (pool.clone(), Counter::new());
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

        let inner = pool.clone();
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
fn wait_any_on_a_worker_ends_when_another_worker_has_the_first_value() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let inner = pool.clone();
        let waiting = pool.spawn(move || {
            let group = inner.group::<Result<u32, ()>>();
            let (token, gate) = (group.token().clone(), Gate::new());
            // The other worker is held, so this worker runs the first task, which opens the gate.
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
