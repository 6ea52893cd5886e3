//! The first success, and every error if there is none.

use std::sync::mpsc;
use std::thread;

use crate::common::{self, BlockedWorkers, Counter, Gate, LIMIT, on_grid, pool, spawn_parked, with_watchdog};
use workcrew::{CancelReason, GroupError, GroupPolicy, NoSuccess, TaskGroup};

const POLICIES: [GroupPolicy; 3] = [GroupPolicy::FailFast, GroupPolicy::CollectAll, GroupPolicy::FirstSuccess];

/// Fault 343.
#[test]
fn wait_any_is_the_first_success_under_every_policy() {
    with_watchdog(|| {
        on_grid(|pool| {
            for policy in POLICIES {
                let group = pool.group().policy(policy).limit(1).capacity(8);
                let (first, token, ran) = (Gate::new(), group.token().clone(), Counter::new());
                let inside = first.clone();
                group.spawn(move || {
                    inside.pass();
                    Err("the first error")
                });
                first.wait_started(1);
                let (second, not_cancelled) = (Gate::new(), token.clone());
                let inside = second.clone();
                group.spawn(move || {
                    inside.pass();
                    assert!(!not_cancelled.is_cancelled(), "an error has cancelled the group");
                    Ok("the first success")
                });
                let counted = ran.clone();
                group.spawn(move || {
                    counted.add();
                    Ok("too late")
                });
                let waiter = spawn_parked(move || group.wait_any());
                first.open();
                second.wait_started(1); // the error is recorded by now, since one task runs at a time
                second.open();
                assert_eq!(waiter.join().unwrap().unwrap(), "the first success");
                assert_eq!(token.reason(), Some(CancelReason::GroupEnded));
                pool.wait_idle();
                assert_eq!(ran.get(), 0, "the rest is cancelled");
            }
        });
    });
}

/// Fault 344.
#[test]
fn after_an_early_error_wait_any_returns_the_success_of_a_running_task() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let (group, gate) = (pool.group(), Gate::new());
        let (inside, token) = (gate.clone(), group.token().clone());
        group.spawn(move || {
            inside.pass();
            Ok("running")
        });
        gate.wait_started(1);
        group.spawn(|| Err("early"));
        assert!(token.wait_timeout(LIMIT), "the error cancels the group");
        let waiter = spawn_parked(move || group.wait_any());
        gate.open();
        assert_eq!(waiter.join().unwrap().unwrap(), "running");
    });
}

/// Fault 344.
#[test]
fn an_early_error_cancels_unstarted_tasks_unless_the_policy_is_the_first_success() {
    on_grid(|pool| {
        for (policy, expected) in [(GroupPolicy::FailFast, Err("early")), (GroupPolicy::FirstSuccess, Ok("late"))] {
            let group = pool.group().policy(policy).limit(1).capacity(4);
            let gate = Gate::new();
            let inside = gate.clone();
            group.spawn(move || {
                inside.pass();
                Err("early")
            });
            gate.wait_started(1);
            group.spawn(|| Ok("late"));
            gate.open();
            while group.progress().done < 2 {
                thread::yield_now();
            }
            assert_eq!(group.wait_any().map_err(|error| error.into_failed().unwrap()), expected);
        }
    });
}

/// Fault 345.
#[test]
fn every_error_can_be_had_when_no_task_succeeds() {
    common::quiet_panics();
    with_watchdog(|| {
        on_grid(|pool| {
            for policy in [GroupPolicy::CollectAll, GroupPolicy::FirstSuccess] {
                let group = pool.group::<Result<(), usize>>().policy(policy).label("mirrors").capacity(64);
                for index in 0..20 {
                    group.spawn(move || if index == 3 { panic!("third") } else { Err(index) });
                }
                let none = group.wait_any_or_errors().unwrap_err();
                assert!(!none.is_would_deadlock());
                for (index, error) in none.errors().iter().enumerate() {
                    assert_eq!(error.task().unwrap().index(), Some(index));
                }
                let text = none.to_string();
                assert!(text.starts_with("no task succeeded: task 0 of group `mirrors`, spawned at "), "{text}");
                assert!(text.contains("panicked: third") && text.ends_with(": 7; and 12 more"), "{text}");
                let errors: Vec<_> =
                    none.into_errors().into_iter().map(|error| error.without_task().into_failed()).collect();
                assert!(errors.len() == 20 && matches!(errors[..4], [Ok(0), Ok(1), Ok(2), Err(_)]));
            }
            let group = pool.group::<Result<usize, usize>>().policy(GroupPolicy::FirstSuccess).limit(1).capacity(64);
            group.spawn_all((0..9).map(|index| move || if index == 5 { Ok(index) } else { Err(index) }));
            assert_eq!(group.wait_any_or_errors().unwrap(), 5);
        });
    });
}

/// Fault 345.
#[test]
fn the_errors_of_a_group_that_cannot_succeed_say_why() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let none = |group: TaskGroup<Result<u8, u8>>| -> NoSuccess<u8> { group.wait_any_or_errors().unwrap_err() };
        assert!(none(pool.group()).is_would_deadlock(), "no tasks");
        assert!(none(pool.group()).to_string().contains("forever"));
        // A task that waits for its own group.
        let (give, take) = mpsc::channel::<TaskGroup<Result<u8, u8>>>();
        let (told, tell) = mpsc::channel();
        let group = pool.group();
        group.spawn(move || {
            let is_would_deadlock = none(take.recv().unwrap()).is_would_deadlock();
            told.send(is_would_deadlock).unwrap();
            Ok(1)
        });
        give.send(group).unwrap();
        assert!(tell.recv_timeout(LIMIT).unwrap());
        // A group that was cancelled, and a pool that was closed.
        let wedge = BlockedWorkers::new(&pool);
        let cancelled = pool.group();
        cancelled.spawn(|| Ok(1));
        cancelled.cancel();
        let cancelled = none(cancelled);
        wedge.open();
        assert!(!cancelled.is_would_deadlock() && cancelled.to_string().ends_with("task cancelled on request"));
        pool.close();
        let closed = pool.group();
        closed.spawn_all([|| Ok(1)]);
        let closed = none(closed);
        assert_eq!((closed.is_would_deadlock(), closed.errors().len()), (false, 0));
        assert_eq!(closed.to_string(), "no task succeeded");
        let stays = pool.group::<Result<u8, u8>>().wait_any();
        assert!(matches!(stays, Err(GroupError::WouldDeadlock(_))));
    });
}
