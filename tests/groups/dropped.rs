//! What debug builds say of a group that is dropped without a wait.

use std::future::IntoFuture;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use crate::common::{BlockedWorkers, pool, quiet_panics, run_child};
use workcrew::{TaskGroup, WorkerPool};

/// What every line begins with.
const SAYS: &str = "workcrew: the group";

/// Makes a group that has tasks to start.
#[track_caller]
fn with_tasks(pool: &WorkerPool) -> TaskGroup<()> {
    let group = pool.group();
    group.spawn(|| ());
    group.spawn(|| ());
    group
}

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child_drops_groups() {
    let pool = pool(1, 8);
    let wedge = BlockedWorkers::new(&pool);
    // Twice at the same place, once at another.
    for _ in 0..2 {
        drop(with_tasks(&pool));
    }
    eprintln!("line {}", line!() - 2);
    let labelled = pool.group::<()>().label("reports");
    eprintln!("line {}", line!() - 1);
    labelled.spawn(|| ());
    drop(labelled);
    wedge.open();
}

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child_ends_groups_on_purpose() {
    quiet_panics();
    let pool = pool(1, 8);
    let wedge = BlockedWorkers::new(&pool);
    drop(pool.group::<()>());
    let cancelled = with_tasks(&pool);
    cancelled.cancel();
    drop(cancelled);
    let by_token = with_tasks(&pool);
    by_token.token().cancel();
    drop(by_token);
    let Err(too_long) = with_tasks(&pool).wait_timeout(Duration::ZERO) else { panic!("no worker is free") };
    drop(too_long);
    let mut iterated = with_tasks(&pool);
    assert!(iterated.completions().next_timeout(Duration::ZERO).is_err());
    drop(iterated);
    drop(with_tasks(&pool).into_future());
    drop(with_tasks(&pool).into_spawner());
    let unwinding = panic::catch_unwind(AssertUnwindSafe(|| {
        let _group = with_tasks(&pool);
        panic::resume_unwind(Box::new("unwinds"));
    }));
    assert!(unwinding.is_err());
    wedge.open();
    // All tasks are done, and their values are dropped.
    let done = with_tasks(&pool);
    pool.wait_idle();
    drop(done);
    let first = pool.group();
    first.spawn_all([Ok::<_, ()>(1); 20].map(|result| move || result));
    assert_eq!(first.wait_any().unwrap(), 1);
}

fn stderr(test: &str) -> String {
    let child = run_child(test, &[]);
    assert!(child.status.success(), "{child:?}");
    String::from_utf8(child.stderr).unwrap()
}

/// Fault 349.
#[test]
fn a_group_that_is_dropped_without_a_wait_says_so_once_for_each_place_in_debug_builds() {
    let told = stderr("dropped::child_drops_groups");
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with(SAYS)).collect();
    if !cfg!(debug_assertions) {
        assert!(lines.is_empty(), "{told}");
        return;
    }
    let places: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("line ")).collect();
    assert!(lines.len() == 2 && places.len() == 2, "{told}");
    let place = |line: &str| format!("made at {}:{line}:", file!());
    assert!(lines[0].contains(&place(places[0])) && lines[0].contains("unstarted tasks (2)"), "{told}");
    assert!(lines[1].starts_with("workcrew: the group `reports` made at ") && lines[1].contains("(1)"), "{told}");
    assert!(lines[1].contains(&place(places[1])), "{told}");
}

/// Fault 349.
#[test]
fn a_group_that_is_ended_on_purpose_says_nothing_when_it_is_dropped() {
    let told = stderr("dropped::child_ends_groups_on_purpose");
    assert!(!told.contains(SAYS), "{told}");
}
