//! Which task failed: index, label, spawn site, and the error of the task.

use std::error::Error;
use std::io;
use std::panic::Location;
use std::sync::Arc;

use crate::common::{self, BlockedWorkers, Mutex, on_grid, pool, with_watchdog};
use workcrew::{
    CancelReason, Cycle, FailedTask, GroupError, GroupPolicy, JoinError, TaskError, TaskFailure, WorkerPool,
};

/// Returns the place of the line after the call.
#[track_caller]
fn next_line() -> (String, u32) {
    let here = Location::caller();
    (here.file().to_owned(), here.line() + 1)
}

fn place(task: &FailedTask) -> (String, u32) {
    (task.location().file().to_owned(), task.location().line())
}

/// Fault 340.
#[test]
fn an_error_names_its_task_by_index_label_and_spawn_site() {
    on_grid(|pool| {
        for label in [None, Some("backup")] {
            let mut group = pool.group().limit(1).capacity(4);
            if let Some(label) = label {
                group = group.label(label);
            }
            group.spawn(|| Ok(()));
            let site = next_line();
            group.spawn(|| Err(io::Error::from(io::ErrorKind::PermissionDenied)));
            let error = group.wait_with_task().unwrap_err();
            let task = error.task().unwrap();
            assert_eq!((task.index(), task.label(), place(task)), (Some(1), label, site));
            let group = label.map(|label| format!(" of group `{label}`")).unwrap_or_default();
            let expected = format!("task 1{group}, spawned at {}: permission denied", task.location());
            assert_eq!(error.to_string(), expected);
            assert!(matches!(error, GroupError::Failed(failure) if failure.kind() == io::ErrorKind::PermissionDenied));
        }
    });
}

/// Fault 340.
#[test]
fn every_outcome_of_a_group_names_its_task_however_it_was_run() {
    common::quiet_panics();
    on_grid(|pool| {
        // A capacity of one: the first task runs some of its siblings inline.
        let spawn = |capacity| {
            let group = pool.group::<Result<(), usize>>().policy(GroupPolicy::CollectAll).capacity(capacity);
            let spawner = group.spawner();
            group.spawn(move || {
                for index in 1..20 {
                    spawner.spawn(move || if index % 3 == 0 { panic!("third") } else { Err(index) });
                }
                Err(0)
            });
            group
        };
        for capacity in [1, 64] {
            let outcomes = spawn(capacity).wait_all();
            assert_eq!(outcomes.len(), 20);
            let check = |index: usize, outcome: Result<(), TaskError<usize>>| match outcome.unwrap_err() {
                TaskError::Panicked(panic) => assert_eq!((index % 3, panic.task().index()), (0, Some(index))),
                TaskError::Failed(error) => assert_eq!(error, index),
                other => panic!("{other}"),
            };
            outcomes.into_iter().enumerate().for_each(|(index, outcome)| check(index, outcome));
            spawn(capacity).completions().for_each(|(index, outcome)| check(index, outcome));
            let named = spawn(capacity).wait_any_or_errors().unwrap_err();
            let indices = named.errors().iter().map(|error| error.task().unwrap().index().unwrap());
            assert!(indices.eq(0..20));
            for error in named.into_errors() {
                assert!(
                    matches!(error, TaskError::Panicked(_))
                        || error.task().unwrap().index() == error.into_failed().map(|failure| failure.error).ok()
                );
            }
        }
    });
}

/// Fault 341.
#[test]
fn a_panic_names_its_task_in_groups_scopes_maps_and_handles() {
    common::quiet_panics();
    on_grid(|pool| {
        let group = pool.group::<()>().label("prints").limit(1).capacity(4);
        group.spawn(|| ());
        let site = next_line();
        group.spawn(|| panic!("out of paper"));
        let error = group.wait_with_task().unwrap_err();
        let task = error.task().unwrap().clone();
        assert_eq!((task.index(), task.label(), place(&task)), (Some(1), Some("prints"), site));
        assert_eq!(error.to_string(), format!("{task}, panicked: out of paper"));
        let GroupError::Panicked(panic) = error.without_task() else { panic!("{task}") };
        assert_eq!((panic.task(), panic.location()), (&task, task.location()));

        let mut site = None;
        let scope = pool.scope(|scope| {
            site = Some(next_line());
            scope.spawn(|| -> () { panic!("in a scope") });
        });
        let Err(GroupError::Panicked(scope)) = scope else { panic!("{scope:?}") };
        assert_eq!((scope.task().index(), Some(place(scope.task()))), (Some(0), site));

        let site = next_line();
        let map = pool.try_map(0..9, |n| if n == 7 { panic!("seven") } else { Ok::<_, ()>(n) });
        let Err(GroupError::Panicked(map)) = map else { panic!("{map:?}") };
        assert_eq!((map.task().index(), place(map.task())), (Some(7), site));

        let site = next_line();
        let handle = pool.spawn(|| panic!("alone")).unwrap();
        let id = handle.id();
        let alone: JoinError = handle.join().unwrap_err();
        let task = alone.task().unwrap();
        assert_eq!((task.id(), task.index(), task.label(), place(task)), (Some(id), None, None, site));
        assert_eq!(alone.to_string(), format!("task submitted at {} panicked: alone", task.location()));
    });
}

/// Fault 340.
#[test]
fn the_id_of_a_failed_task_is_that_of_its_observers_and_running_tasks() {
    let pool = pool(1, 4);
    let group = pool.group::<Result<(), _>>().label("watched");
    let (seen, inner) = (Arc::new(Mutex::new(Vec::new())), pool.clone());
    let kept = Arc::clone(&seen);
    group.spawn(move || {
        *kept.lock().unwrap() = inner.running();
        Err("seen")
    });
    let error = group.wait_with_task().unwrap_err();
    let seen = seen.lock().unwrap();
    let ids: Vec<_> = seen.iter().map(|task| (Some(task.id()), task.label())).collect();
    assert_eq!(ids, [(error.task().unwrap().id(), Some("watched"))]);
}

/// Fault 340.
#[test]
fn a_cancellation_and_a_wait_that_cannot_end_name_no_task() {
    let pool = pool(1, 4);
    let wedge = BlockedWorkers::new(&pool);
    let cancelled = || {
        let group = pool.group::<Result<(), u8>>();
        group.spawn(|| Ok(()));
        group.cancel();
        group
    };
    let (one, all) = (cancelled(), cancelled());
    wedge.open();
    let error = one.wait_with_task().unwrap_err();
    assert!(matches!(error, GroupError::Cancelled(CancelReason::Requested)) && error.task().is_none());
    assert!(all.wait_any_or_errors().unwrap_err().errors()[0].task().is_none());
    assert!(
        GroupError::<TaskFailure<u8>>::WouldDeadlock(Cycle::default()).task().is_none()
            && JoinError::WouldDeadlock(Cycle::default()).task().is_none()
    );
}

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("drawer {0} is empty")]
struct Empty(u32);

fn fails<E: Send + 'static>(pool: &WorkerPool, error: E) -> GroupError<TaskFailure<E>> {
    let group = pool.group();
    group.spawn(move || Err::<(), _>(error));
    group.wait_with_task().unwrap_err()
}

/// Fault 340.
#[test]
fn a_wait_with_the_task_agrees_with_the_plain_wait() {
    common::quiet_panics();
    on_grid(|pool| {
        for policy in [GroupPolicy::FailFast, GroupPolicy::CollectAll, GroupPolicy::FirstSuccess] {
            for tasks in [vec![], vec![Ok(1), Ok(2)], vec![Err("a"), Ok(3), Err("b")], vec![Err("c"), Err("d")]] {
                let fill = || {
                    let group = pool.group().policy(policy).limit(1).capacity(8);
                    group.spawn_all(tasks.clone().into_iter().map(|result| move || result));
                    group
                };
                let (plain, with_task) = (fill().wait(), fill().wait_with_task());
                let is_error = with_task.is_err();
                assert_eq!(with_task.as_ref().err().and_then(|error| error.task()?.index()), is_error.then_some(0));
                assert_eq!(format!("{plain:?}"), format!("{:?}", with_task.map_err(GroupError::without_task)));
            }
        }
    });
}

/// Fault 340.
#[test]
fn errors_without_their_task_match_nested_patterns_and_have_their_own_text() {
    on_grid(|pool| {
        let fill = |policy| {
            let group = pool.group::<Result<u8, _>>().policy(policy);
            group.spawn(|| Err(Empty(1)));
            group
        };
        for policy in [GroupPolicy::FailFast, GroupPolicy::CollectAll, GroupPolicy::FirstSuccess] {
            let error = fill(policy).wait().unwrap_err();
            assert_eq!(error.to_string(), "drawer 1 is empty");
            assert!(matches!(error, GroupError::Failed(Empty(1))));
            assert!(matches!(fill(policy).wait_any(), Err(GroupError::Failed(Empty(1)))));
            assert!(matches!(fill(policy).wait_partial().1, Err(GroupError::Failed(Empty(1)))));
            assert!(matches!(fill(policy).wait_all()[..], [Err(TaskError::Failed(Empty(1)))]));
            assert!(matches!(fill(policy).completions().next(), Some((0, Err(TaskError::Failed(Empty(1)))))));
        }
    });
}

/// Fault 342.
#[test]
fn anyhow_finds_the_error_of_the_task_and_the_task() {
    let pool = pool(1, 4);
    // With the task as the context, for every type.
    let with_task: anyhow::Error = fails(&pool, Empty(4)).into_error_with(anyhow::Error::context);
    assert_eq!(with_task.downcast_ref(), Some(&Empty(4)));
    let task = with_task.downcast_ref::<FailedTask>().unwrap();
    assert_eq!((task.index(), with_task.to_string()), (Some(0), task.to_string()));
    assert_eq!(format!("{with_task:#}"), format!("{task}: drawer 4 is empty"));
    // As the source of an error that names the task.
    let failure: anyhow::Error = fails(&pool, Empty(5)).into_error();
    assert_eq!(failure.to_string(), format!("{task}: drawer 5 is empty"));
    assert_eq!(failure.downcast_ref::<TaskFailure<Empty>>().unwrap().task().index(), Some(0));
    assert_eq!(failure.root_cause().downcast_ref(), Some(&Empty(5)));
    // The error alone, as Go's errgroup has it.
    let alone: anyhow::Error = fails(&pool, Empty(6)).without_task().into_error();
    assert_eq!((alone.downcast_ref(), alone.to_string()), (Some(&Empty(6)), "drawer 6 is empty".into()));
    // Nothing to add to what no task has returned.
    let stuck: anyhow::Error =
        GroupError::<TaskFailure<Empty>>::WouldDeadlock(Cycle::default()).into_error_with(anyhow::Error::context);
    assert!(matches!(stuck.downcast_ref(), Some(GroupError::<std::convert::Infallible>::WouldDeadlock(_))));
}

/// Fault 342.
#[test]
fn a_failure_is_used_like_the_error_of_the_task() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let GroupError::Failed(failure) = fails(&pool, Empty(7)) else { panic!("a task has failed") };
        assert!(failure.error == Empty(7) && failure.0 == 7);
        assert!(failure.source().unwrap().is::<Empty>());
        let (error, task) = failure.into_parts();
        assert_eq!((error, task.index()), (Empty(7), Some(0)));
        assert!(matches!(fails(&pool, "a"), GroupError::Failed(TaskFailure { error: "a", .. })));
        // An error whose alternate form shows its causes.
        let causes = anyhow::Error::from(Empty(8)).context("load");
        assert!(fails(&pool, causes).to_string().ends_with(": load: drawer 8 is empty"));
    });
}
