//! What the machine around the process does to a pool: few CPUs, few threads, a clock that is wrong.
//!
//! The steps of `cargo xtask verify L11` run these tests under `taskset`, `faketime` and a limit of threads; as they
//! are, they hold anywhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::process::{self, Command};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use common::{BlockedWorkers, Counter, LIMIT, assert_ran_one_test, pool, with_watchdog};
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
    with_watchdog(|| {
        println!("the wall clock says {:?}", SystemTime::now());
        let pool = pool(1, 4);
        let wedge = BlockedWorkers::new(&pool);
        let handle = pool.spawn(|| ()).unwrap();
        for timeout in [Duration::ZERO, Duration::from_millis(20)] {
            let since = Instant::now();
            assert!(!handle.wait_timeout(timeout) && !pool.wait_idle_timeout(timeout));
            assert!(pool.try_execute(|| ()).is_ok());
            assert!(since.elapsed() >= timeout && since.elapsed() < LIMIT);
        }
        let token = CancellationToken::with_deadline(Instant::now() + Duration::from_millis(20));
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

/// The library of `faketime`, whose name says that threads are cared for.
#[cfg(target_os = "linux")]
fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let below = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut libraries = folders.into_iter().chain(below).map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists())
}

/// Fault 127.
#[test]
#[cfg(target_os = "linux")]
fn a_wall_clock_that_jumps_a_day_either_way_changes_no_wait_and_no_timer() {
    let Some(library) = faketime() else {
        eprintln!("SKIPPED: libfaketime is not installed here");
        return;
    };
    let shift = env::temp_dir().join(format!("workcrew-shift-{}", process::id()));
    fs::write(&shift, "+0").unwrap();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "child_lives_through_jumps_of_the_wall_clock", "--ignored", "--nocapture"]);
    child.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &shift).env("FAKETIME_NO_CACHE", "1");
    child.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env_remove("FAKETIME"); // a shift that this process lives under
    let output = child.output().unwrap();
    fs::remove_file(&shift).unwrap();
    assert_ran_one_test(&output);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by the test above in a process of its own"]
#[cfg(target_os = "linux")]
fn child_lives_through_jumps_of_the_wall_clock() {
    const SOON: Duration = Duration::from_millis(30);
    const HALF_A_DAY: Duration = Duration::from_secs(12 * 3600);
    with_watchdog(|| {
        let (shift, start) = (env::var_os("FAKETIME_TIMESTAMP_FILE").unwrap(), SystemTime::now());
        let pool = pool(2, 4);
        let (held, woken, far) = (BlockedWorkers::new(&pool), Counter::new(), Counter::new());
        let counted = far.clone();
        let timer = pool.execute_after(HALF_A_DAY, move || counted.add()).unwrap();
        let token = CancellationToken::with_deadline(Instant::now() + HALF_A_DAY);
        let handle = pool.spawn(|| ()).unwrap();
        for jump in ["+1d", "-1d", "+0"] {
            let (since, counted, soon) = (Instant::now(), woken.clone(), woken.get());
            pool.execute_after(SOON, move || counted.add()).unwrap();
            let expired = CancellationToken::with_deadline(since + SOON);
            thread::scope(|threads| {
                // These wait while the clock jumps.
                let waits = threads.spawn(|| handle.wait_timeout(SOON) || pool.wait_idle_timeout(SOON));
                let tells = threads.spawn(|| expired.wait_timeout(Duration::MAX));
                fs::write(&shift, jump).unwrap();
                let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
                let distance = now.duration_since(start).unwrap_or_else(|earlier| earlier.duration());
                assert_eq!(distance > HALF_A_DAY, jump != "+0", "the clock did not jump: {distance:?}");
                assert!(distance < 2 * day);
                assert!(!waits.join().unwrap() && tells.join().unwrap());
            });
            assert!(since.elapsed() >= SOON * 2, "a wait was over early");
            while pool.metrics().timers_pending > 1 {
                thread::yield_now(); // until the thread of the timers has looked at what is due
            }
            assert_eq!(woken.get(), soon, "no worker was free");
            assert!(!token.is_cancelled() && far.get() == 0 && !timer.is_finished());
        }
        held.open();
        handle.join().unwrap();
        while woken.get() < 3 {
            thread::yield_now();
        }
        assert!(timer.cancel());
        assert!(pool.shutdown_timeout(LIMIT).drained);
        assert_eq!(far.get(), 0);
    });
}

/// Fault 118.
#[test]
fn a_busy_submitter_on_the_same_cpu_starves_no_worker() {
    with_watchdog(|| {
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
fn a_thread_limit_of_the_system_is_a_typed_error() {
    // No limit binds the superuser, so the child then runs as another user.
    let binary = env::current_exe().unwrap();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let folder = env::temp_dir().join(format!("workcrew-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let copy = folder.join("child");
    fs::copy(&binary, &copy).unwrap(); // the folder of the build may be closed to others
    let user = ["--reuid=61234", "--regid=61234", "--clear-groups", "prlimit"];
    let mut command = Command::new(if is_root { "setpriv" } else { "prlimit" });
    command.args(if is_root { &user[..] } else { &[] }).arg("--nproc=40").arg(&copy);
    command.args(["--exact", "child_starts_threads_until_it_may_not", "--ignored", "--nocapture"]);
    let output = command.current_dir("/").output();
    fs::remove_dir_all(&folder).unwrap();
    match output {
        Ok(output) => {
            assert_ran_one_test(&output);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
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
