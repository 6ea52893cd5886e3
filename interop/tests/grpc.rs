//! Calls against a server in this process and against one by another implementation of gRPC, counted by the server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::error::Error;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Foreign, LIMIT, attempt, caller, pool, quick, with_watchdog};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use workcrew::grpc::{CallError, Caller, Target};
use workcrew::retry::{GiveUpReason, RetryBudget, RetryPolicy};
use workcrew::{CancelReason, JoinError, JoinHandle, Observer, TaskInfo, TaskOutcome, WorkerPool};
use workcrew_interop::{RawClient, Script, Server, vacant_address};

type Called = Result<Response<String>, CallError>;

/// What the server has seen of a key.
fn stats(caller: &Caller, key: &str) -> HashMap<String, String> {
    let report = caller.call_blocking(attempt("Stats", key)).unwrap().into_inner();
    report.split(' ').map(|part| part.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

/// Waits until the server has seen this.
fn wait_for(caller: &Caller, key: &str, figure: &str, value: &str) {
    let since = Instant::now();
    while stats(caller, key)[figure] != value {
        assert!(since.elapsed() < LIMIT, "{figure} of {key} is not {value}: {:?}", stats(caller, key));
        thread::sleep(Duration::from_millis(5));
    }
}

fn permanent_errors_are_not_tried_again(address: SocketAddr) {
    let pool = pool(2, 64);
    let caller = caller(address).retry(quick()).build(&pool).unwrap();
    let error = caller.call(attempt("Fail", "bad INVALID_ARGUMENT 9")).unwrap().join().unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.attempts(), error.reason()),
        (Code::InvalidArgument, 1, Some(GiveUpReason::Permanent))
    );
    assert!(!error.is_connect() && !error.is_deadline() && !error.is_shut_down());
    assert_eq!(error.to_string(), "InvalidArgument: as the script says");
    assert_eq!(stats(&caller, "bad")["attempts"], "1");
    // Running out of time, as the server sees it, is tried again only where that does no harm.
    let error = caller.call_blocking(attempt("Fail", "late DEADLINE_EXCEEDED 1")).unwrap_err();
    assert!(error.is_deadline() && error.attempts() == 1);
    let again = caller.clone().idempotent().call_blocking(attempt("Fail", "late2 DEADLINE_EXCEEDED 1"));
    assert_eq!(again.unwrap().into_inner(), "2");
}

fn transient_errors_are_retried_and_the_request_counts_the_attempts(address: SocketAddr) {
    let pool = pool(2, 64);
    let caller = caller(address).retry(quick()).build(&pool).unwrap();
    for code in ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"] {
        let call = caller.call(attempt("Fail", &format!("{code} {code} 2"))).unwrap();
        assert_eq!(call.join().unwrap().unwrap().into_inner(), "3");
        let seen = stats(&caller, code);
        assert_eq!((&*seen["attempts"], &*seen["headers"]), ("3", "0,1,2"));
    }
    let error = caller.call_blocking(attempt("Fail", "down UNAVAILABLE 99")).unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (5, Some(GiveUpReason::Attempts)));
    assert_eq!(stats(&caller, "down")["attempts"], "5");
}

fn the_policy_decides_which_errors_are_retried(address: SocketAddr) {
    let pool = pool(2, 64);
    let policy = quick().retry_if(|status: &Status| status.code() == Code::InvalidArgument);
    let caller = caller(address).retry(policy).build(&pool).unwrap();
    assert_eq!(caller.call_blocking(attempt("Fail", "odd INVALID_ARGUMENT 1")).unwrap().into_inner(), "2");
    assert_eq!(caller.call_blocking(attempt("Fail", "odd2 UNAVAILABLE 1")).unwrap_err().attempts(), 1);
}

fn the_deadline_is_for_all_attempts_together(address: SocketAddr) {
    let pool = pool(2, 64);
    let policy = quick().max_attempts(5).attempt_timeout(Duration::from_millis(200));
    let caller = caller(address).retry(policy).build(&pool).unwrap();
    stats(&caller, ""); // connects
    let short = caller.clone().idempotent().with_timeout(Duration::from_millis(500));
    let since = Instant::now();
    let error = short.call_blocking(attempt("Slow", "slow 60000")).unwrap_err();
    let took = since.elapsed();
    assert!(error.is_deadline() && error.code() == Code::DeadlineExceeded, "{error:?}");
    assert_eq!(error.reason(), Some(GiveUpReason::Deadline));
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    assert!((2..=3).contains(&error.attempts()), "{error:?}");
    // The last one may be given up on its way there.
    let seen: u32 = stats(&caller, "slow")["attempts"].parse().unwrap();
    assert!((2..=error.attempts()).contains(&seen), "the server has seen {seen} of {}", error.attempts());
    wait_for(&caller, "slow", "cancelled", &seen.to_string());
}

fn running_out_of_time_resets_the_stream_and_is_final(address: SocketAddr) {
    let pool = pool(2, 64);
    let caller = caller(address).retry(quick()).build(&pool).unwrap();
    let error = caller
        .clone()
        .with_timeout(Duration::from_millis(300))
        .call_blocking(attempt("Slow", "slow 60000"))
        .unwrap_err();
    assert!(error.is_deadline() && error.code() == Code::DeadlineExceeded, "{error:?}");
    assert_eq!((error.attempts(), error.reason()), (1, Some(GiveUpReason::Deadline)));
    wait_for(&caller, "slow", "cancelled", "1");
    // A time-out that tonic keeps says `Cancelled`; here it is what it is.
    let text = "slower 60000".to_owned();
    let timed = move |target| {
        let mut request = Request::new(text.clone());
        request.set_timeout(Duration::from_millis(50));
        async move { RawClient::new(target).call("Slow", request).await }
    };
    let error = caller.call_blocking(timed).unwrap_err();
    assert!(error.is_deadline() && error.code() == Code::DeadlineExceeded, "{error:?}");
    assert_eq!((error.attempts(), error.reason()), (1, Some(GiveUpReason::Permanent)));
}

fn pushback_is_kept_and_a_negative_one_stops(address: SocketAddr) {
    let pool = pool(2, 64);
    let caller = caller(address).retry(quick()).build(&pool).unwrap();
    assert_eq!(caller.call_blocking(attempt("Pushback", "later 300 1")).unwrap().into_inner(), "2");
    let gap: u64 = stats(&caller, "later")["gaps"].parse().unwrap();
    assert!((299..5_000).contains(&gap), "{gap} ms");
    for word in ["-1", "soon"] {
        let error = caller.call_blocking(attempt("Pushback", &format!("never{word} {word} 9"))).unwrap_err();
        assert_eq!((error.code(), error.attempts()), (Code::Unavailable, 1));
    }
    // Never beyond the deadline: it is given up at once.
    let short = caller.clone().with_timeout(Duration::from_secs(20));
    let error = short.call_blocking(attempt("Pushback", "far 600000 1")).unwrap_err();
    assert_eq!((error.attempts(), error.reason(), error.is_deadline()), (1, Some(GiveUpReason::Deadline), true));
}

fn a_budget_stops_a_storm_of_retries(address: SocketAddr) {
    let pool = pool(2, 64);
    let policy = quick().max_attempts(5).budget(RetryBudget::new(10).deposit_ratio(0.0));
    let caller = caller(address).retry(policy).build(&pool).unwrap();
    let calls: Vec<_> = (0..20).map(|_| caller.call(attempt("Fail", "storm UNAVAILABLE 999")).unwrap()).collect();
    let errors: Vec<_> = calls.into_iter().map(|call| call.join().unwrap().unwrap_err()).collect();
    assert_eq!(errors.iter().map(CallError::attempts).sum::<u32>(), 30);
    assert!(errors.iter().any(|error| error.reason() == Some(GiveUpReason::Budget)));
    assert_eq!(stats(&caller, "storm")["attempts"], "30");
}

fn the_limit_holds_at_the_server(address: SocketAddr) {
    let pool = pool(2, 64);
    let caller = caller(address).max_in_flight(8).build(&pool).unwrap();
    let calls: Vec<_> = (0..1_000)
        .map(|_| {
            assert!(caller.in_flight() <= 8);
            caller.call(attempt("Slow", "many 1")).unwrap()
        })
        .collect();
    calls.into_iter().for_each(|call| drop(call.join().unwrap().unwrap()));
    let seen = stats(&caller, "many");
    assert_eq!(seen["attempts"], "1000");
    assert!((2..=8).contains(&seen["peak"].parse::<u32>().unwrap()), "{seen:?}");
}

fn cancelling_resets_the_stream(address: SocketAddr) {
    let pool = pool(2, 64);
    let caller = caller(address).timeout(Duration::MAX).build(&pool).unwrap();
    let call = caller.call(attempt("Slow", "gone 600000")).unwrap();
    wait_for(&caller, "gone", "attempts", "1");
    assert!(call.cancel());
    assert!(matches!(call.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
    wait_for(&caller, "gone", "cancelled", "1");
}

fn a_call_outlives_its_submitter(address: SocketAddr) {
    // A request's own context is gone when its handler returns; the call it made is not.
    let pool = pool(2, 64);
    let other = caller(address).build(&pool).unwrap();
    {
        let caller = caller(address).build(&pool).unwrap();
        drop(caller.call(attempt("Slow", "after 200")).unwrap());
    }
    pool.wait_idle();
    let seen = stats(&other, "after");
    assert_eq!((&*seen["attempts"], &*seen["cancelled"]), ("1", "0"));
    assert_eq!(pool.metrics().tasks_succeeded, 2);
}

fn metadata_is_carried(address: SocketAddr) {
    let pool = pool(2, 64);
    let mut incoming = MetadataMap::new();
    incoming.insert("traceparent", "00-abc-def-01".parse().unwrap());
    incoming.insert("authorization", "secret".parse().unwrap());
    incoming.insert("grpc-timeout", "1n".parse().unwrap());
    let plain = caller(address).build(&pool).unwrap();
    let carrying = plain.clone().propagate(&incoming, &["traceparent", "grpc-timeout", "absent"]);
    let trace = |caller: &Caller, key: &str| {
        caller.call_blocking(attempt("Trace", &format!("trace {key}"))).unwrap().into_inner()
    };
    assert_eq!(trace(&carrying, "traceparent"), "00-abc-def-01");
    assert_eq!(trace(&carrying, "authorization"), "");
    assert_eq!(trace(&plain, "traceparent"), "");
    // What the request says itself comes first.
    let own = |target| {
        let mut request = Request::new("trace traceparent".to_owned());
        request.metadata_mut().insert("traceparent", "own".parse().unwrap());
        async move { RawClient::new(target).call("Trace", request).await }
    };
    assert_eq!(carrying.call_blocking(own).unwrap().into_inner(), "own");
}

/// Each scenario against both servers.
macro_rules! on_both_servers {
    ($($scenario:ident)*) => {
        mod own_server {
            $(#[test]
            fn $scenario() {
                super::with_watchdog(|| {
                    let server = super::Server::start(&super::Script::default());
                    super::$scenario(server.address());
                });
            })*
        }
        mod foreign_server {
            $(#[test]
            fn $scenario() {
                super::with_watchdog(|| {
                    let Some(server) = super::Foreign::start(0) else { return };
                    super::$scenario(server.address);
                });
            })*
        }
    };
}

on_both_servers! {
    permanent_errors_are_not_tried_again
    transient_errors_are_retried_and_the_request_counts_the_attempts
    the_policy_decides_which_errors_are_retried
    the_deadline_is_for_all_attempts_together
    running_out_of_time_resets_the_stream_and_is_final
    pushback_is_kept_and_a_negative_one_stops
    a_budget_stops_a_storm_of_retries
    the_limit_holds_at_the_server
    cancelling_resets_the_stream
    a_call_outlives_its_submitter
    metadata_is_carried
}

/// A server that can be killed and started again at the same address.
trait Mortal: Sized {
    fn start(port: u16) -> Option<Self>;
    fn address(&self) -> SocketAddr;
}

impl Mortal for Foreign {
    fn start(port: u16) -> Option<Self> {
        Self::start(port)
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Mortal for Server {
    fn start(port: u16) -> Option<Self> {
        Some(Self::start_at(&Script::default(), ([127, 0, 0, 1], port).into()))
    }
    fn address(&self) -> SocketAddr {
        self.address()
    }
}

/// Kills the server while calls are in flight. Every call in flight has an outcome, calls made while
/// the server is down fail, and after its restart the same caller works.
fn a_server_may_die_and_come_back<S: Mortal>() {
    let Some(server) = S::start(0) else { return };
    let pool = pool(2, 64);
    let address = server.address();
    let once = caller(address).retry(quick().max_attempts(1)).max_in_flight(64).build(&pool).unwrap();
    let calls: Vec<_> = (0..32).map(|n| once.call(attempt("Slow", &format!("k{n} 60000"))).unwrap()).collect();
    for n in 0..32 {
        wait_for(&once, &format!("k{n}"), "attempts", "1");
    }
    drop(server);
    for call in calls {
        let error = call.join().unwrap().unwrap_err();
        assert_eq!((error.code(), error.attempts(), error.is_deadline()), (Code::Unavailable, 1, false), "{error:?}");
    }
    let error = once.call_blocking(attempt("Echo", "k hello")).unwrap_err();
    assert!(error.is_connect() && error.code() == Code::Unavailable, "{error:?}");

    // A call that may wait is there when the server is.
    let patient = caller(address)
        .retry(RetryPolicy::fixed(Duration::from_millis(50)).max_attempts(u32::MAX))
        .timeout(LIMIT)
        .build(&pool)
        .unwrap();
    let waiting = patient.call(attempt("Echo", "k hello")).unwrap();
    assert!(!waiting.wait_timeout(Duration::from_millis(200)));
    let server = S::start(address.port()).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().into_inner(), "hello");
    let since = Instant::now();
    while once.call_blocking(attempt("Echo", "k hello")).is_err() {
        assert!(since.elapsed() < LIMIT, "the caller does not recover");
    }
    drop(server);
}

#[test]
fn a_server_in_this_process_may_die_and_come_back() {
    with_watchdog(a_server_may_die_and_come_back::<Server>);
}

#[test]
fn a_foreign_server_may_die_and_come_back() {
    with_watchdog(a_server_may_die_and_come_back::<Foreign>);
}

/// Runs a test against a server in this process.
fn on_server(test: impl FnOnce(SocketAddr)) {
    with_watchdog(|| {
        let server = Server::start(&Script::default());
        test(server.address());
    });
}

#[test]
fn calls_that_wait_for_their_next_attempt_hold_no_worker_and_end_with_the_pool() {
    on_server(|address| {
        let pool = pool(4, 64);
        let policy = RetryPolicy::fixed(Duration::from_secs(3_600)).max_attempts(9);
        let caller = caller(address).retry(policy).timeout(Duration::MAX).max_in_flight(201).build(&pool).unwrap();
        let calls: Vec<_> = (0..200).map(|_| caller.call(attempt("Fail", "rest UNAVAILABLE 999")).unwrap()).collect();
        wait_for(&caller, "rest", "attempts", "200");
        // All workers are free: four jobs that wait for one another come together.
        let meeting = Arc::new(std::sync::Barrier::new(4));
        for _ in 0..50 {
            let jobs: Vec<_> = (0..4)
                .map(|_| {
                    let meeting = Arc::clone(&meeting);
                    pool.spawn(move || meeting.wait().is_leader()).unwrap()
                })
                .collect();
            assert_eq!(jobs.into_iter().map(|job| job.join().unwrap()).filter(|leads| *leads).count(), 1);
        }
        assert_eq!((caller.in_flight(), pool.running().len()), (200, 0));
        pool.shutdown();
        for call in calls {
            let error = call.join().unwrap().unwrap_err();
            assert_eq!((error.attempts(), error.code(), error.is_shut_down()), (1, Code::Unavailable, true));
            assert_eq!(error.reason(), Some(GiveUpReason::Cancelled(CancelReason::ShutDown)));
        }
        assert!(caller.call_blocking(attempt("Echo", "x y")).unwrap_err().is_shut_down());
    });
}

/// Prints how long other jobs take, from submission to result, beside calls that wait for their next attempt and without them.
#[test]
#[ignore = "a measurement: cargo test --release -p workcrew-interop --test grpc -- --ignored --nocapture"]
fn latency_of_other_jobs_beside_200_calls_in_back_off() {
    on_server(|address| {
        let pool = pool(4, 64);
        let median = || {
            let mut took: Vec<_> = (0..20_000)
                .map(|_| {
                    let start = Instant::now();
                    pool.spawn(|| ()).unwrap().join().unwrap();
                    start.elapsed()
                })
                .collect();
            let (_, median, _) = took.select_nth_unstable(10_000);
            *median
        };
        let policy = RetryPolicy::fixed(Duration::from_secs(5)).max_attempts(99);
        for round in 1..=3 {
            let alone = median();
            let caller =
                caller(address).retry(policy.clone()).timeout(Duration::MAX).max_in_flight(201).build(&pool).unwrap();
            let key = format!("rest{round}");
            let script = format!("{key} UNAVAILABLE 999");
            let calls: Vec<_> = (0..200).map(|_| caller.call(attempt("Fail", &script)).unwrap()).collect();
            wait_for(&caller, &key, "attempts", "200");
            let beside = median();
            assert_eq!(caller.in_flight(), 200);
            println!("alone {alone:?}, beside 200 calls in back-off {beside:?}");
            calls.iter().for_each(|call| assert!(call.cancel()));
            drop(calls);
            while caller.in_flight() > 0 {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn a_full_caller_blocks_or_refuses_like_the_pool_and_gives_the_closure_back() {
    on_server(|address| {
        let pool = pool(1, 4);
        let other = caller(address).build(&pool).unwrap();
        let caller = caller(address).max_in_flight(1).build(&pool).unwrap();
        let first = caller.call(attempt("Slow", "only 60000")).unwrap();
        wait_for(&other, "only", "attempts", "1");
        let refused = caller.try_call(attempt("Echo", "a b")).unwrap_err();
        assert!(refused.is_full());
        let echo = refused.into_inner(); // whole: it can be called again
        assert!(caller.try_call_for(Duration::from_millis(5), attempt("Echo", "a b")).unwrap_err().is_timeout());
        assert!(caller.try_notify(attempt("Echo", "a b")).unwrap_err().is_full());
        let blocked = thread::spawn({
            let caller = caller.clone();
            move || caller.call(echo).unwrap().join().unwrap().unwrap().into_inner()
        });
        assert!(first.cancel());
        assert_eq!(blocked.join().unwrap(), "b");
        // Closing wakes a call that waits.
        let last = caller.call(attempt("Slow", "last 60000")).unwrap();
        wait_for(&other, "last", "attempts", "1");
        let (told, tell) = mpsc::channel();
        let blocked = thread::spawn({
            let caller = caller.clone();
            move || {
                told.send(()).unwrap();
                caller.call(attempt("Echo", "a b")).map(drop).unwrap_err().is_shut_down()
            }
        });
        tell.recv().unwrap();
        pool.close();
        assert!(blocked.join().unwrap());
        assert!(last.cancel());
    });
}

#[test]
fn on_the_only_worker_a_full_caller_neither_blocks_nor_hangs() {
    on_server(|address| {
        let pool = pool(1, 4);
        let caller = caller(address).max_in_flight(1).build(&pool).unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let (inner, counted) = (caller.clone(), Arc::clone(&ran));
        // Each callback needs the one worker, and holds the one slot until it comes.
        pool.spawn(move || {
            for n in 0..20 {
                let counted = Arc::clone(&counted);
                let call = inner.call_then(attempt("Echo", &format!("one {n}")), move |called: Called| {
                    assert_eq!(called.unwrap().into_inner(), n.to_string());
                    counted.fetch_add(1, Ordering::SeqCst);
                });
                drop(call.unwrap());
            }
            assert!(inner.try_call_for(Duration::MAX, attempt("Echo", "one x")).unwrap_err().is_timeout());
        })
        .unwrap()
        .join()
        .unwrap();
        pool.wait_idle();
        assert_eq!((ran.load(Ordering::SeqCst), pool.metrics().tasks_panicked), (20, 0));
        // The limit holds for calls, too, that were launched without waiting.
        let inner = caller.clone();
        let calls =
            pool.spawn(move || (0..20).map(|_| inner.call(attempt("Slow", "slow 5")).unwrap()).collect::<Vec<_>>());
        calls.unwrap().join().unwrap().into_iter().for_each(|call| drop(call.join().unwrap().unwrap()));
        let seen = stats(&caller, "slow");
        assert_eq!((&*seen["peak"], &*seen["attempts"]), ("1", "20"));
        // A worker may wait for a call, and for the callback of one.
        let inner = caller.clone();
        let echo = pool.spawn(move || {
            let direct = inner.call(attempt("Echo", "one direct")).unwrap().join().unwrap().unwrap().into_inner();
            let then = inner.call_then(attempt("Echo", "one then"), |called: Called| called.unwrap().into_inner());
            (direct, then.unwrap().join().unwrap())
        });
        assert_eq!(echo.unwrap().join().unwrap(), ("direct".into(), "then".into()));
    });
}

/// Runs `task` on each worker of a pool at the same time, and returns what all return.
fn on_each_worker(pool: &WorkerPool, task: impl Fn() -> String + Clone + Send + 'static) -> Vec<String> {
    let together = Arc::new(std::sync::Barrier::new(pool.workers()));
    let tasks: Vec<_> = (0..pool.workers())
        .map(|_| {
            let (together, task) = (Arc::clone(&together), task.clone());
            let run = move || {
                together.wait();
                task()
            };
            pool.spawn(run).unwrap()
        })
        .collect();
    tasks.into_iter().map(|task| task.join().unwrap()).collect()
}

/// Fault 654.
#[test]
fn workers_that_all_join_what_follows_their_calls_run_it_themselves() {
    on_server(|address| {
        for workers in [1, 2, 8] {
            let (home, abroad) = (pool(workers, 64), pool(1, 64));
            let caller = caller(address).max_in_flight(2 * workers).build(&home).unwrap();
            // What follows a call needs a worker, as does the task that it joins, and the next call.
            let called = {
                let (caller, home) = (caller, home.downgrade());
                move || {
                    let (again, home) = (caller.clone(), home.clone());
                    let then = move |called: Called| {
                        let first = called.unwrap().into_inner();
                        let next =
                            again.call_then(attempt("Echo", "r2 b"), |called: Called| called.unwrap().into_inner());
                        let task = home.upgrade().unwrap().spawn(|| "c").unwrap();
                        first + &next.unwrap().join().unwrap() + task.join().unwrap()
                    };
                    caller.call_then(attempt("Echo", "r2 a"), then).unwrap().join().unwrap()
                }
            };
            let direct = on_each_worker(&home, called.clone());
            let through = on_each_worker(&home, move || abroad.spawn(called.clone()).unwrap().join().unwrap());
            assert!(direct.iter().chain(&through).all(|answer| answer == "abc"), "{direct:?}, {through:?}");
        }
    });
}

/// Remembers how tasks with a label ended.
#[derive(Default)]
struct Ends(Mutex<Vec<(String, TaskOutcome)>>);

impl Observer for Ends {
    fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
        self.0.lock().unwrap().extend(task.label().map(|label| (label.to_owned(), outcome)));
    }
}

#[test]
fn errors_without_a_waiter_reach_the_hook_on_a_worker_and_the_observer() {
    on_server(|address| {
        let ends = Arc::new(Ends::default());
        let pool = WorkerPool::builder().workers(1).observer(Arc::clone(&ends)).build().unwrap();
        let (told, tell) = mpsc::channel();
        let caller = caller(address)
            .retry(quick().max_attempts(2))
            .label("payments")
            .on_error(move |error| told.send((thread::current().name().map(str::to_owned), error)).unwrap())
            .build(&pool)
            .unwrap();
        caller.notify(attempt("Echo", "a fine")).unwrap();
        pool.wait_idle();
        assert!(tell.try_recv().is_err(), "nothing to tell");
        caller.notify(attempt("Fail", "b UNAVAILABLE 9")).unwrap();
        let (worker, error) = tell.recv_timeout(LIMIT).unwrap();
        assert_eq!((worker.as_deref(), error.attempts()), (Some("workcrew-0"), 2));
        drop(caller.call(attempt("Fail", "c INVALID_ARGUMENT 9")).unwrap());
        pool.wait_idle();
        let seen = ends.0.lock().unwrap().clone();
        let named = |outcome| ("payments".to_owned(), outcome);
        assert_eq!(seen, [TaskOutcome::Succeeded, TaskOutcome::Failed, TaskOutcome::Failed].map(named));
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_succeeded, metrics.tasks_failed), (1, 2));
    });
}

#[test]
fn shutting_down_waits_for_calls_in_flight_and_now_cancels_them() {
    on_server(|address| {
        let drained = pool(1, 4);
        let other = pool(1, 4);
        let caller = caller(address).build(&drained).unwrap();
        let watcher = common::caller(address).build(&other).unwrap();
        let call = caller.call(attempt("Slow", "drained 200")).unwrap();
        let then = caller.call_then(attempt("Slow", "drained 200"), |called: Called| called.is_ok()).unwrap();
        drained.shutdown();
        assert!(call.is_finished() && call.join().unwrap().is_ok());
        assert!(then.join().unwrap());

        let cancelled = pool(1, 4);
        let caller = common::caller(address).timeout(Duration::MAX).build(&cancelled).unwrap();
        let call = caller.call(attempt("Slow", "cancelled 600000")).unwrap();
        wait_for(&watcher, "cancelled", "attempts", "1");
        let report = cancelled.shutdown_now();
        assert_eq!((report.tasks_cancelled, report.drained), (1, false));
        assert!(matches!(call.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
        wait_for(&watcher, "cancelled", "cancelled", "1");
    });
}

#[test]
fn pushback_that_is_said_twice_stops() {
    // The Go server always sends a single value of this key.
    on_server(|address| {
        let pool = pool(1, 4);
        let caller = caller(address).retry(quick()).build(&pool).unwrap();
        let error = caller.call_blocking(attempt("Pushback", "twice 1+1 9")).unwrap_err();
        assert_eq!(
            (error.code(), error.attempts(), error.reason()),
            (Code::Unavailable, 1, Some(GiveUpReason::Permanent))
        );
    });
}

#[test]
fn a_call_that_fails_after_the_pool_was_closed_takes_nothing_out_of_the_budget() {
    with_watchdog(|| {
        let (pool, budget) = (pool(1, 4), RetryBudget::new(1));
        let policy = quick().budget(budget.clone());
        let caller = caller(vacant_address()).retry(policy).build(&pool).unwrap();
        let (fail, failing) = tokio::sync::oneshot::channel::<()>();
        let mut failing = Some(failing);
        let call = caller.call(move |_: Target| {
            let failing = failing.take();
            async move {
                failing.unwrap().await.unwrap();
                Err(Status::unavailable("down")) as Result<Response<String>, _>
            }
        });
        pool.close();
        fail.send(()).unwrap();
        let error = call.unwrap().join().unwrap().unwrap_err();
        assert_eq!((error.attempts(), error.reason()), (1, Some(GiveUpReason::Cancelled(CancelReason::ShutDown))));
        assert_eq!(budget.retries_left(), 1);
    });
}

#[test]
fn a_panic_ends_its_call_and_no_other() {
    on_server(|address| {
        let pool = pool(1, 4);
        let caller = caller(address).build(&pool).unwrap();
        let other = caller.call(attempt("Slow", "other 100")).unwrap();
        let panics = caller.call(|_: Target| async { panic!("in flight") });
        let outcome: Result<Called, _> = panics.unwrap().join();
        assert!(matches!(outcome, Err(JoinError::Panicked(panic)) if panic.message() == Some("in flight")));
        let error = caller.call_blocking(|_: Target| -> std::future::Pending<_> { panic!("before") }) as Called;
        assert!(matches!(error.unwrap_err().join_error(), Some(JoinError::Panicked(_))));
        assert!(other.join().unwrap().is_ok());
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_panicked, metrics.tasks_succeeded), (2, 1));
    });
}

#[test]
fn waiting_inside_a_call_is_an_error_and_awaiting_is_not() {
    on_server(|address| {
        let pool = pool(1, 4);
        let caller = caller(address).build(&pool).unwrap();
        let (inner, made) = (caller.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&made);
        let nested = caller.call_blocking(move |_: Target| {
            let (counted, mut echo) = (Arc::clone(&counted), attempt("Echo", "never y"));
            let counts = move |target| {
                counted.fetch_add(1, Ordering::SeqCst);
                echo(target)
            };
            let blocking = inner.call_blocking(counts).unwrap_err();
            assert!(matches!(blocking.join_error(), Some(JoinError::WouldDeadlock(_))));
            assert_eq!(blocking.attempts(), 0);
            let awaited = inner.call(attempt("Echo", "x awaited")).unwrap();
            async move { Ok(Response::new(awaited.await.unwrap().unwrap().into_inner())) }
        });
        assert_eq!(nested.unwrap().into_inner(), "awaited");
        // What was refused was not made either.
        pool.wait_idle();
        assert_eq!((made.load(Ordering::SeqCst), &*stats(&caller, "never")["attempts"]), (0, "0"));
    });
}

#[test]
fn a_failed_connection_is_a_distinct_error() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let caller = caller(vacant_address()).retry(quick().max_attempts(3)).build(&pool).unwrap();
        let error = caller.call_blocking(attempt("Echo", "x y")).unwrap_err();
        assert!(error.is_connect() && !error.is_deadline() && error.join_error().is_none());
        assert_eq!((error.code(), error.attempts()), (Code::Unavailable, 3));
        assert!(error.to_string().starts_with("no connection (attempt 3): "), "{error}");
        let status = Status::from(error);
        assert_eq!(status.code(), Code::Unavailable);
    });
}

#[test]
fn the_deadline_ends_a_call_that_waits_for_something_else_than_the_server() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let caller = caller(vacant_address()).timeout(Duration::from_millis(20)).build(&pool).unwrap();
        let error = caller.call_blocking(|_: Target| pending()) as Called;
        let error = error.unwrap_err();
        assert!(error.is_deadline() && error.code() == Code::DeadlineExceeded, "{error:?}");
        assert_eq!((error.attempts(), error.reason()), (1, Some(GiveUpReason::Deadline)));
        assert_eq!(error.to_string(), "no answer in time: the deadline passed");
    });
}

#[test]
fn every_call_without_an_outcome_has_a_reason_in_its_text_and_its_status() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let caller = caller(vacant_address()).build(&pool).unwrap();
        let (started, start) = mpsc::channel();
        thread::scope(|scope| {
            let cancelled = scope.spawn(|| {
                caller.call_blocking(move |_: Target| {
                    started.send(()).unwrap();
                    pending()
                }) as Called
            });
            start.recv_timeout(LIMIT).unwrap();
            pool.shutdown_now();
            let error = cancelled.join().unwrap().unwrap_err();
            assert!(error.is_shut_down() && error.code() == Code::Cancelled && error.source().is_none());
            assert_eq!(error.to_string(), JoinError::Cancelled(CancelReason::ShutDown).to_string());
        });
        let refused = (caller.call_blocking(|_: Target| pending()) as Called).unwrap_err();
        assert!(refused.is_shut_down() && refused.code() == Code::Unavailable && refused.attempts() == 0);
        assert_eq!(refused.to_string(), "the pool is shut down");
        assert!(format!("{refused:?}").starts_with("CallError { kind: ShutDown, code: Unavailable,"), "{refused:?}");
    });
}

#[test]
fn an_idempotent_call_after_the_other_is_unaffected_and_debug_shows_no_secret() {
    on_server(|address| {
        let pool = pool(1, 4);
        let mut incoming = MetadataMap::new();
        incoming.insert("authorization", "secret".parse().unwrap());
        let builder = caller(address).max_in_flight(7);
        assert!(format!("{builder:?}").contains("max_in_flight: 7"), "{builder:?}");
        let caller = builder.build(&pool).unwrap().propagate(&incoming, &["authorization"]);
        assert!(caller.max_in_flight() == 7 && !format!("{caller:?}").contains("secret"));
        let shown = caller.call_blocking(|target: Target| async move { Ok(Response::new(format!("{target:?}"))) });
        assert!(!shown.unwrap().into_inner().contains("secret"));
    });
}

#[test]
fn a_handle_of_a_call_is_awaited_in_another_runtime() {
    on_server(|address| {
        let pool = pool(1, 4);
        let caller = caller(address).build(&pool).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut call: JoinHandle<Called> = caller.call(attempt("Slow", "awaited 200")).unwrap();
        runtime.block_on(async {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut call).await.is_err());
            assert!(call.await.unwrap().is_ok());
        });
        let never = caller.call(|_: Target| pending::<Result<Response<String>, Status>>()).unwrap();
        runtime.block_on(async { drop(tokio::time::timeout(Duration::from_millis(1), never).await) });
        assert_eq!(caller.in_flight(), 1, "a dropped handle leaves the call alone");
        pool.shutdown_now();
    });
}

#[test]
fn the_request_carries_the_time_left_unless_it_sets_its_own() {
    on_server(|address| {
        let pool = pool(1, 4);
        let caller = caller(address).timeout(Duration::from_secs(20)).build(&pool).unwrap();
        let told = caller.call_blocking(attempt("Trace", "t grpc-timeout")).unwrap().into_inner();
        let (time, unit) = told.split_at(told.len() - 1);
        let left = time.parse::<u64>().unwrap() * if unit == "u" { 1 } else { 1_000 };
        assert!(["u", "m"].contains(&unit) && (10_000_000..=20_000_000).contains(&left), "{told}");
        let own = |target| {
            let mut request = Request::new("t grpc-timeout".to_owned());
            request.set_timeout(Duration::from_secs(7));
            async move { RawClient::new(target).call("Trace", request).await }
        };
        assert_eq!(caller.call_blocking(own).unwrap().into_inner(), "7000000u");
        let endless = caller.clone().with_timeout(Duration::MAX);
        assert_eq!(endless.call_blocking(attempt("Trace", "t grpc-timeout")).unwrap().into_inner(), "");
        // The protocol has no words for some millions of years.
        let long = caller.clone().with_timeout(Duration::from_secs(1 << 50));
        assert_eq!(long.call_blocking(attempt("Trace", "t grpc-timeout")).unwrap().into_inner(), "99999999H");
    });
}
