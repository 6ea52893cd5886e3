//! What the machine around the process does to a pool: few CPUs, few threads, a clock that is wrong.
//!
//! The steps of `cargo xtask verify L11` run these tests under `taskset`, `faketime` and a limit of threads; as they
//! are, they hold anywhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::{Counter, LIMIT, Wedge, pool, within_limit};
use workcrew::{CancelReason, CancellationToken, GroupError, WorkerPool};

/// Fault 119.
#[test]
fn a_pool_by_default_has_a_worker_whatever_the_machine_has() {
    let pool = WorkerPool::new().unwrap();
    assert!(pool.workers() >= 1);
    assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    assert!(WorkerPool::global().workers() >= 1);
    let sum: usize = WorkerPool::global().map(0..100, |n| n).map(Result::unwrap).sum();
    assert_eq!(sum, 4_950);
}

/// What follows must hold while the wall clock says anything at all: nothing here looks at it.
#[test]
fn waits_and_deadlines_follow_the_monotonic_clock() {
    within_limit(|| {
        println!("the wall clock says {:?}", SystemTime::now());
        let pool = pool(1, 4);
        let wedge = Wedge::new(&pool);
        let handle = pool.spawn(|| ()).unwrap();
        for timeout in [Duration::ZERO, Duration::from_millis(20)] {
            let since = Instant::now();
            assert!(!handle.wait_timeout(timeout) && !pool.wait_idle_timeout(timeout));
            assert!(pool.try_execute(|| ()).is_ok());
            assert!(since.elapsed() >= timeout && since.elapsed() < LIMIT);
        }
        let token = CancellationToken::new().with_deadline(Instant::now() + Duration::from_millis(20));
        assert!(!token.is_cancelled() && token.wait_timeout(Duration::MAX));
        assert_eq!(token.reason(), Some(CancelReason::Expired));
        let group = pool.group().deadline(Instant::now() + Duration::from_millis(20));
        group.spawn(|| ());
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
        wedge.open();
        handle.join().unwrap();
        assert!(pool.shutdown_timeout(LIMIT).drained);
    });
}

/// Fault 118.
#[test]
fn a_busy_submitter_on_the_same_cpu_starves_nobody() {
    within_limit(|| {
        let pool = pool(2, 1);
        let ran = Counter::new();
        for _ in 0..2_000 {
            let counted = ran.clone();
            pool.execute(move || counted.add()).unwrap();
        }
        while ran.get() < 2_000 {
            thread::yield_now();
        }
    });
}

/// Fault 111.
#[test]
#[cfg(target_os = "linux")]
fn a_user_who_may_start_few_threads_gets_a_typed_error() {
    // The superuser is bound by no limit, so there the child is somebody else.
    let binary = std::env::current_exe().unwrap();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let folder = std::env::temp_dir().join(format!("workcrew-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let copy = folder.join("child");
    fs::copy(&binary, &copy).unwrap(); // the folder of the build may be closed to others
    let somebody = ["--reuid=61234", "--regid=61234", "--clear-groups", "prlimit"];
    let mut command = Command::new(if is_root { "setpriv" } else { "prlimit" });
    command.args(if is_root { &somebody[..] } else { &[] }).arg("--nproc=40").arg(&copy);
    command.args(["--exact", "child_starts_threads_until_it_may_not", "--ignored", "--nocapture"]);
    let output = command.current_dir("/").output();
    fs::remove_dir_all(&folder).unwrap();
    match output {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
#[ignore = "run by the test above in a process of its own"]
#[cfg(target_os = "linux")]
fn child_starts_threads_until_it_may_not() {
    let (started, stopped) = (Counter::new(), Counter::new());
    let (start, stop) = (started.clone(), stopped.clone());
    let builder = WorkerPool::builder().workers(200).stack_size(64 << 10);
    let error = builder.on_thread_start(move |_| start.add()).on_thread_stop(move |_| stop.add()).build().unwrap_err();
    let workcrew::BuildError::Spawn { worker, source, .. } = &error else { panic!("{error}") };
    assert!((1..200).contains(worker), "{worker}");
    assert_eq!(source.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!((started.get(), stopped.get()), (*worker, *worker));
    assert_eq!(pool(2, 4).spawn(|| 1).unwrap().join().unwrap(), 1);
}
