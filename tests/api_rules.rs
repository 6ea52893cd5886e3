//! The rules of the public API, as `CONTRIBUTING.md` states them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{BlockedWorkers, Gate, on_grid, pool};
use workcrew::{
    BuildError, CancelReason, CancellationToken, GroupError, JoinError, JoinHandle, TaskGroup, TimerHandle, WorkerPool,
};

/// Fault 307.
#[test]
fn a_setting_of_zero_is_refused_by_name_where_there_is_a_result() {
    let small = || WorkerPool::builder().workers(1);
    assert!(matches!(small().workers(0).build(), Err(BuildError::ZeroWorkers)));
    assert!(matches!(small().queue_capacity(0).build(), Err(BuildError::ZeroQueueCapacity)));
    let pool = pool(1, 4);
    assert!(matches!(pool.resize(0), Err(BuildError::ZeroWorkers)));
    assert!(pool.execute_every(Duration::ZERO, || ()).unwrap_err().is_zero_period());
    assert!(pool.execute_with_fixed_delay(Duration::ZERO, || ()).unwrap_err().is_zero_period());
    #[cfg(feature = "driver")]
    {
        use workcrew::driver::{Driver, DriverError};
        assert!(matches!(Driver::new(&pool, 0), Err(DriverError::ZeroInFlight)));
    }
    #[cfg(feature = "grpc")]
    {
        use workcrew::grpc::{Caller, CallerError};
        let caller = || Caller::builder(tonic::transport::Endpoint::from_static("http://[::1]:1"));
        assert!(matches!(caller().max_in_flight(0).build(&pool), Err(CallerError::MaxInFlight(_))));
        assert!(matches!(caller().stream_buffer(0).build(&pool), Err(CallerError::StreamBuffer { .. })));
    }
}

/// Fault 307.
#[test]
fn a_setting_of_zero_counts_as_one_where_there_is_no_result() {
    on_grid(|pool| {
        assert_eq!(pool.map(0..20, |n| n).window(0).count(), 20);
        assert_eq!(pool.map(0..20, |n| n).concurrency(0).count(), 20);
        #[cfg(feature = "retry")]
        {
            use workcrew::retry::RetryPolicy;
            let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(0);
            let error = pool.spawn_with_retry(policy, |_| Err::<(), _>("no")).unwrap().join().unwrap().unwrap_err();
            assert_eq!(error.attempts(), 1);
        }
        #[cfg(feature = "events")]
        {
            let bus = workcrew::events::EventBus::builder(&pool).mailbox_capacity(0).build();
            let ran = common::Counter::new();
            let [one, two, three] = [(); 3].map(|()| ran.clone());
            let _one = bus.subscribe(move |_: &u8| one.add());
            let _two = bus.subscription().concurrent(0).handle(move |_: &u8| two.add());
            let _three = bus.subscription().mailbox_capacity(0).handle(move |_: &u8| three.add());
            (0..10_u8).for_each(|n| drop(bus.publish(n)));
            bus.wait_idle();
            assert_eq!(ran.get(), 30);
        }
    });
}

/// Fault 308.
#[test]
fn a_timeout_and_a_deadline_limit_the_same_things() {
    on_grid(|pool| {
        let groups: [fn(TaskGroup<()>) -> TaskGroup<()>; 6] = [
            |group| group.timeout(Duration::ZERO),
            |group| group.deadline(Instant::now()),
            |group| group.timeout(Duration::ZERO).timeout(Duration::MAX),
            |group| group.timeout(Duration::MAX).timeout(Duration::ZERO),
            |group| group.deadline(Instant::now()).timeout(Duration::from_secs(3_600)),
            |group| group.timeout(Duration::from_secs(3_600)).deadline(Instant::now()),
        ];
        for limited in groups {
            let group = limited(pool.group());
            group.spawn(|| unreachable!("the time is over"));
            assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
        }
        for unlimited in [pool.group().timeout(Duration::MAX), pool.group().timeout(Duration::from_secs(3_600))] {
            unlimited.spawn(|| Ok::<_, ()>(1));
            assert_eq!(unlimited.wait().unwrap(), [1]);
        }
    });
    let (token, now) = (CancellationToken::new(), Instant::now());
    assert!(CancellationToken::with_deadline(now).is_cancelled());
    assert!(CancellationToken::with_timeout(Duration::ZERO).is_cancelled());
    assert!(token.child_with_deadline(now).is_cancelled());
    assert!(token.child_with_timeout(Duration::ZERO).is_cancelled());
    assert!(!token.child_with_timeout(Duration::MAX).is_cancelled() && !token.is_cancelled());
}

/// Fault 309.
#[test]
fn the_cancel_of_one_task_returns_whether_it_cancelled() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let handle: JoinHandle<()> = pool.spawn(|| ()).unwrap();
        let timer: TimerHandle = pool.execute_after(Duration::MAX, || ()).unwrap();
        assert_eq!((handle.cancel(), handle.cancel()), (true, false));
        assert_eq!((timer.cancel(), timer.cancel()), (true, false));
        // A group or a token is always cancelled afterwards, so there is nothing to return.
        let (group, token) = (pool.group::<()>(), CancellationToken::new());
        let ((), ()) = (group.cancel(), token.cancel());
        assert!(group.is_cancelled() && token.is_cancelled());
        wedge.open();
    });
}

/// Fault 310.
#[test]
fn a_join_with_a_timeout_returns_the_result_or_the_handle() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let mut handle = pool.spawn(move || {
            inside.pass();
            7
        });
        gate.wait_started(1);
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1)] {
            handle = Ok(handle.unwrap().join_timeout(timeout).unwrap_err());
        }
        gate.open();
        assert_eq!(handle.unwrap().join_timeout(Duration::MAX).unwrap().unwrap(), 7);

        let done = pool.spawn(|| 8).unwrap();
        pool.wait_idle();
        assert_eq!(done.join_timeout(Duration::ZERO).unwrap().unwrap(), 8);
    });
}

/// Fault 310.
#[test]
fn a_timed_wait_that_cannot_end_returns_and_never_panics() {
    on_grid(|pool| {
        let (give, take) = mpsc::channel::<JoinHandle<()>>();
        let own = pool.clone();
        let itself = pool
            .spawn(move || {
                assert!(!own.wait_idle_timeout(Duration::MAX));
                assert!(!own.shutdown_timeout(Duration::MAX).drained);
                let joined = take.recv().unwrap().join_timeout(Duration::MAX).unwrap();
                assert!(matches!(joined, Err(JoinError::WouldDeadlock(_))));
            })
            .unwrap();
        give.send(itself).unwrap();
        pool.shutdown();
        assert_eq!(pool.metrics().tasks_panicked, 0);
    });
}

/// The enums that users match in full, because their variants are all the answers to one question.
const EXHAUSTIVE: [&str; 4] = ["TrySubmitError", "SubmitTimeoutError", "TaskError", "GroupError"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn public_enums_and_public_fields_may_grow() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let (mut enums, mut structs) = (0, 0);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let attributes = || lines[..number].iter().rev().take_while(|line| line.starts_with(['#', '/']));
            let may_grow = || attributes().any(|line| *line == "#[non_exhaustive]");
            let is_internal = || path.ends_with("failpoint.rs");
            let name = |rest: &str| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
            if let Some(name) = line.strip_prefix("pub enum ").map(name) {
                enums += 1;
                let is_exhaustive = EXHAUSTIVE.contains(&&*name);
                assert!(is_internal() || may_grow() != is_exhaustive, "{}: {name}", path.display());
            } else if let Some(name) = line.strip_prefix("pub struct ").map(name) {
                let fields = lines[number + 1..].iter().take_while(|line| !line.starts_with('}'));
                if line.ends_with('{') && fields.clone().any(|line| line.starts_with("    pub ")) {
                    structs += 1;
                    assert!(may_grow(), "{}: {name}", path.display());
                }
            }
        }
    }
    assert!(enums > 15 && structs > 10, "the sources were not found: {enums}, {structs}");
}
