//! Which task failed: index, label, spawn site, and the error of the task.

use std::error::Error;
use std::io;
use std::panic::Location;
use std::sync::Arc;

use crate::common::{self, BlockedWorkers, Mutex, on_grid, pool, with_watchdog};
use workcrew::{FailedTask, GroupError, GroupPolicy, JoinError, TaskError, TaskFailure, WorkerPool};

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
            let error = group.wait().unwrap_err();
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
            for (index, outcome) in outcomes.into_iter().enumerate() {
                let error = outcome.unwrap_err();
                assert_eq!(error.task().unwrap().index(), Some(index));
                assert!(
                    matches!(&error, TaskError::Panicked(_))
                        || matches!(&error, TaskError::Failed(failure) if *failure == index)
                );
            }
            for (index, outcome) in spawn(capacity).completions() {
                assert_eq!(outcome.unwrap_err().task().unwrap().index(), Some(index));
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
        let error = group.wait().unwrap_err();
        let task = error.task().unwrap().clone();
        assert_eq!((task.index(), task.label(), place(&task)), (Some(1), Some("prints"), site));
        assert_eq!(error.to_string(), format!("{task}, panicked: out of paper"));
        let GroupError::Panicked(panic) = error else { panic!("{error}") };
        assert_eq!((panic.task(), panic.location()), (&task, task.location()));

        let mut site = None;
        let scope = pool.scope(|scope| {
            site = Some(next_line());
            scope.spawn(|| -> () { panic!("in a scope") });
        });
        let scope = scope.unwrap_err();
        assert_eq!((scope.task().unwrap().index(), Some(place(scope.task().unwrap()))), (Some(0), site));

        let site = next_line();
        let map = pool.try_map(0..9, |n| if n == 7 { panic!("seven") } else { Ok::<_, ()>(n) }).unwrap_err();
        assert_eq!((map.task().unwrap().index(), place(map.task().unwrap())), (Some(7), site));

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
    let error = group.wait().unwrap_err();
    let seen = seen.lock().unwrap();
    let ids: Vec<_> = seen.iter().map(|task| (Some(task.id()), task.label())).collect();
    assert_eq!(ids, [(error.task().unwrap().id(), Some("watched"))]);
}

/// Fault 340.
#[test]
fn a_cancellation_and_a_wait_that_cannot_end_name_no_task() {
    let pool = pool(1, 4);
    let wedge = BlockedWorkers::new(&pool);
    let group = pool.group::<Result<(), u8>>();
    group.spawn(|| Ok(()));
    group.cancel();
    wedge.open();
    let outcome = group.wait_all().remove(0).unwrap_err();
    assert!(outcome.task().is_none() && GroupError::from(outcome).task().is_none());
    assert!(GroupError::<u8>::WouldDeadlock.task().is_none() && JoinError::WouldDeadlock.task().is_none());
    let made: GroupError<u8> = GroupError::Failed(7.into());
    assert!(made.task().is_none() && made.to_string() == "7" && format!("{made:?}") == "Failed(7)");
}

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("drawer {0} is empty")]
struct Empty(u32);

#[derive(Debug, thiserror::Error)]
#[error("jammed")]
struct Jammed(#[source] Empty);

fn fails<E: Send + 'static>(pool: &WorkerPool, error: E) -> GroupError<E> {
    let group = pool.group();
    group.spawn(move || Err::<(), _>(error));
    group.wait().unwrap_err()
}

/// Fault 342.
#[test]
fn the_source_of_an_error_is_the_error_of_the_task() {
    type Boxed = Box<dyn Error + Send + Sync>;
    fn source_is<T: Error + 'static>(error: &dyn Error) -> bool {
        error.source().is_some_and(<dyn Error>::is::<T>)
    }
    let pool = pool(1, 4);
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    assert!(source_is::<io::Error>(&fails(&pool, denied())));
    assert!(source_is::<Empty>(&fails(&pool, Boxed::from(Empty(1)))));
    let only_send: Box<dyn Error + Send> = Box::new(Empty(1));
    assert!(source_is::<Empty>(&fails(&pool, only_send)));
    assert!(source_is::<std::num::ParseIntError>(&fails(&pool, "x".parse::<u8>().unwrap_err())));
    // Of other types when they are boxed, as the documentation says.
    assert!(fails(&pool, Empty(1)).source().is_none());
    assert!(source_is::<Empty>(&fails(&pool, Empty(1)).into_boxed()));
    let boxed = fails(&pool, String::from("text")).into_boxed();
    assert!(boxed.source().is_some() && boxed.to_string().ends_with(": text") && boxed.task().is_some());
    assert!(GroupError::<Empty>::WouldDeadlock.into_boxed().source().is_none());

    let group = pool.group();
    group.spawn(|| Err::<(), _>(Empty(2)));
    let outcome = group.wait_all().remove(0).unwrap_err();
    assert!(outcome.source().is_none() && source_is::<Empty>(&outcome.into_boxed()));
    // The failure itself has the source that the error of the task has.
    assert!(source_is::<Empty>(&TaskFailure::from(Jammed(Empty(3)))) && TaskFailure::from(Empty(3)).source().is_none());
}

/// Fault 342.
#[test]
fn anyhow_finds_the_error_of_the_task_and_the_task() {
    let pool = pool(1, 4);
    // By `?` alone, for a type of the standard library, in the chain.
    let plain = (|| -> anyhow::Result<()> { Err(fails(&pool, io::Error::other("disk")))? })().unwrap_err();
    assert!(plain.chain().any(<dyn Error>::is::<io::Error>) && plain.is::<GroupError<io::Error>>());
    // With the task as the context, for every type.
    let with_task: anyhow::Error = fails(&pool, Empty(4)).into_error_with(anyhow::Error::context);
    assert_eq!(with_task.downcast_ref(), Some(&Empty(4)));
    let task = with_task.downcast_ref::<FailedTask>().unwrap();
    assert_eq!((task.index(), with_task.to_string()), (Some(0), task.to_string()));
    assert_eq!(format!("{with_task:#}"), format!("{task}: drawer 4 is empty"));
    // The error alone, as Go's errgroup has it.
    let alone: anyhow::Error = fails(&pool, Empty(5)).into_error();
    assert_eq!((alone.downcast_ref(), alone.to_string()), (Some(&Empty(5)), "drawer 5 is empty".into()));
    // Nothing to add to what no task has returned.
    let stuck: anyhow::Error = GroupError::<Empty>::WouldDeadlock.into_error_with(anyhow::Error::context);
    assert!(matches!(stuck.downcast_ref(), Some(GroupError::<std::convert::Infallible>::WouldDeadlock)));
    let task: anyhow::Error = TaskError::Failed(Empty(6).into()).into_error_with(anyhow::Error::context);
    assert_eq!((task.downcast_ref(), task.chain().count()), (Some(&Empty(6)), 1));
}

/// Fault 342.
#[test]
fn a_failure_is_used_like_the_error_of_the_task() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let GroupError::Failed(failure) = fails(&pool, Empty(7)) else { panic!("a task has failed") };
        assert!(failure == Empty(7) && failure.0 == 7 && failure.to_string() == "drawer 7 is empty");
        let text = format!("{failure:?}");
        assert!(text.starts_with("Empty(7) from task 0, spawned at tests"), "{text}");
        let (error, task) = failure.into_parts();
        assert_eq!((error, task.unwrap().index()), (Empty(7), Some(0)));
        assert!(matches!(fails(&pool, "a"), GroupError::Failed(TaskFailure { error: "a", .. })));
    });
}
