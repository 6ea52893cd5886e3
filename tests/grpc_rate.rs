//! The rate and the class of a caller of gRPC, without a server: attempts are counted where they begin.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};
use workcrew::driver::Driver;
use workcrew::grpc::{Caller, CallerBuilder, CallerError, Target};
use workcrew::retry::{GiveUpReason, RetryPolicy};
use workcrew::{CancelReason, JoinError, Priority, WorkerPool};

/// Longer than a test may take.
const AGES: Duration = Duration::from_secs(600);

fn pool(workers: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).build().unwrap()
}

fn caller() -> CallerBuilder {
    // Nothing listens there, and nothing needs to.
    Caller::builder(Endpoint::from_static("http://127.0.0.1:9"))
}

/// Attempts that count themselves.
#[derive(Clone, Default)]
struct Attempts(Arc<AtomicUsize>);

impl Attempts {
    fn begun(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// An attempt that succeeds from the given one on.
    fn succeeding(
        &self,
        from: usize,
    ) -> impl FnMut(Target) -> std::future::Ready<Result<Response<usize>, Status>> + Send + 'static {
        let this = self.clone();
        move |_| {
            let number = this.0.fetch_add(1, Ordering::SeqCst) + 1;
            std::future::ready(if number >= from { Ok(Response::new(number)) } else { Err(Status::unavailable("no")) })
        }
    }
}

/// Fault 540.
#[test]
fn at_most_the_attempts_of_the_rate_begin_and_calls_without_a_turn_fail_unsent() {
    for workers in [1, 2, 8] {
        let (pool, attempts) = (pool(workers), Attempts::default());
        let caller = caller().rate(3, Duration::MAX).timeout(AGES).build(&pool).unwrap();
        let clone = caller.clone().with_timeout(AGES);
        let calls: Vec<_> = [&caller, &clone, &caller, &clone, &caller]
            .map(|caller| caller.call(attempts.succeeding(0)).unwrap())
            .into();
        let results: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        assert_eq!((attempts.begun(), results.iter().filter(|result| result.is_ok()).count()), (3, 3));
        for error in results.into_iter().filter_map(Result::err) {
            assert!(error.is_deadline() && error.is_unsent() && !error.is_connect(), "{error:?}");
            assert_eq!((error.code(), error.attempts()), (Code::DeadlineExceeded, 0));
            assert_eq!(error.reason(), Some(GiveUpReason::Deadline));
            assert_eq!(error.to_string(), "no answer in time: no turn of the rate in time");
        }
        assert_eq!((caller.in_flight(), pool.metrics().tasks_failed), (0, 2));
    }
}

/// Fault 541.
#[test]
fn retries_count_for_the_rate_and_one_without_a_turn_ends_with_the_last_error() {
    let (pool, attempts) = (pool(1), Attempts::default());
    let quick = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(9);
    let caller = caller().rate(3, AGES).retry(quick).timeout(AGES / 2).build(&pool).unwrap();
    let error = caller.call_blocking(attempts.succeeding(99)).unwrap_err();
    assert_eq!((attempts.begun(), error.attempts(), error.code()), (3, 3, Code::Unavailable));
    assert_eq!(error.reason(), Some(GiveUpReason::Deadline));
}

/// Fault 540.
#[test]
fn calls_wait_for_their_turn_without_a_worker() {
    const PERIOD: Duration = Duration::from_millis(100);
    for workers in [1, 2, 8] {
        let (pool, attempts) = (pool(workers), Attempts::default());
        let caller = caller().rate(4, PERIOD).timeout(AGES).build(&pool).unwrap();
        let since = Instant::now();
        let calls: Vec<_> = (0..10).map(|_| caller.call(attempts.succeeding(0)).unwrap()).collect();
        assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
        calls.into_iter().for_each(|call| drop(call.join().unwrap().unwrap()));
        assert!(since.elapsed() >= 2 * PERIOD, "{:?}", since.elapsed());
        assert_eq!((attempts.begun(), pool.metrics().tasks_succeeded), (10, 11));
    }
}

/// Fault 541.
#[test]
fn a_cancelled_call_uses_up_no_turn_and_the_end_of_the_pool_ends_the_wait() {
    const PERIOD: Duration = Duration::from_millis(200);
    let (one, attempts) = (pool(1), Attempts::default());
    let caller = caller().rate(1, PERIOD).timeout(AGES).build(&one).unwrap();
    caller.call_blocking(attempts.succeeding(0)).unwrap();
    let waiting: Vec<_> = (0..50).map(|_| caller.call(attempts.succeeding(0)).unwrap()).collect();
    let since = Instant::now();
    assert!(waiting.iter().filter(|call| call.cancel()).count() > 0);
    caller.call_blocking(attempts.succeeding(0)).unwrap();
    assert!(since.elapsed() < 40 * PERIOD, "cancelled calls are not waited for");
    // A call in its attempt, and one that waits for its turn.
    let hanging = caller.call(|_| pending::<Result<Response<()>, Status>>()).unwrap();
    let waiting = caller.call(attempts.succeeding(0)).unwrap();
    one.shutdown_now();
    let is_cancelled = |error| matches!(error, JoinError::Cancelled(CancelReason::ShutDown));
    assert!(is_cancelled(hanging.join().unwrap_err()) && is_cancelled(waiting.join().unwrap_err()));
}

/// Fault 541.
#[test]
fn a_closed_pool_makes_the_first_attempts_of_its_calls_and_no_retries() {
    let (pool, attempts, retried) = (pool(1), Attempts::default(), Attempts::default());
    let quick = RetryPolicy::fixed(Duration::ZERO);
    let caller = caller().rate(1, Duration::from_millis(100)).retry(quick).timeout(AGES).build(&pool).unwrap();
    let failing = caller.call(retried.succeeding(99)).unwrap();
    let waiting = caller.call(attempts.succeeding(0)).unwrap();
    while retried.begun() == 0 {
        std::thread::yield_now();
    }
    pool.close();
    assert!(waiting.join().unwrap().is_ok());
    let error = failing.join().unwrap().unwrap_err();
    assert_eq!((error.code(), error.is_shut_down()), (Code::Unavailable, true));
    pool.shutdown();
}

#[test]
fn a_rate_that_allows_nothing_is_refused_by_its_name() {
    let pool = pool(1);
    for (calls, period) in [(0, AGES), (1, Duration::ZERO)] {
        let error = caller().rate(calls, period).build(&pool).unwrap_err();
        assert!(matches!(error, CallerError::Rate { .. }) && error.to_string().starts_with("rate: "), "{error}");
    }
    assert!(caller().rate(usize::MAX, Duration::MAX).build(&pool).is_ok());
}

/// Fault 615.
#[test]
fn what_follows_a_call_waits_for_a_worker_in_the_class_of_its_caller() {
    let pool = pool(1);
    let (open, gate) = channel::<()>();
    let (begun, has_begun) = channel();
    let busy = pool.spawn(move || {
        begun.send(()).unwrap();
        gate.recv().is_err()
    });
    has_begun.recv().unwrap();
    let (sender, order) = channel();
    for class in [Priority::Background, Priority::Normal, Priority::High] {
        let (then, failed) = (sender.clone(), sender.clone());
        let settings = caller().priority(class).on_error(move |_| failed.send(class).unwrap());
        let caller = settings.build(&pool).unwrap();
        drop(caller.call_then(Attempts::default().succeeding(0), move |_| then.send(class).unwrap()).unwrap());
        caller.notify(|_| std::future::ready(Err::<Response<()>, _>(Status::invalid_argument("no")))).unwrap();
        while caller.in_flight() > 0 {
            std::thread::yield_now();
        }
        // The I/O thread drives this one after it has passed both on.
        Driver::new(&pool, 1).unwrap().spawn(async {}).unwrap().join().unwrap();
    }
    drop((open, sender));
    let order: Vec<_> = order.iter().collect();
    assert!(busy.unwrap().join().unwrap());
    let expected = [Priority::High, Priority::Normal, Priority::Background].map(|class| [class; 2]);
    assert_eq!(order, expected.concat());
}

/// Fault 637.
#[test]
fn a_snapshot_shows_the_calls_in_flight_with_their_caller() {
    let pool = pool(1);
    let caller = caller().label("payments").max_in_flight(2).timeout(AGES).build(&pool).unwrap();
    let calls: Vec<_> = (0..2).map(|_| caller.call(|_| pending::<Result<Response<()>, Status>>()).unwrap()).collect();
    let snapshot = pool.snapshot();
    let [shown] = &*snapshot.drivers.entries else { panic!("{snapshot}") };
    assert_eq!((shown.label.as_deref(), shown.in_flight, shown.max_in_flight), (Some("payments"), 2, 2));
    assert_eq!(shown.kind, workcrew::snapshot::DriverKind::Calls);
    let ids: Vec<_> = shown.futures.entries.iter().map(|call| call.task.id).collect();
    assert_eq!(ids, calls.iter().map(workcrew::JoinHandle::id).collect::<Vec<_>>());
    assert!(snapshot.to_string().contains("caller `payments`: 2 of 2 in flight"), "{snapshot}");
    assert!(calls.iter().all(workcrew::JoinHandle::cancel));
}
