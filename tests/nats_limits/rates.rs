//! The rate of a worker.

use std::thread;
use std::time::{Duration, Instant};

use workcrew::nats::Job;
use workcrew::retry::RetryPolicy;

use super::nats_common::{DrainAtEnd, Server, is_refused, pool, queue, wait_until};
use super::{Gate, Log, WORKERS, builder, drained, enqueue, figure, position, rest_of};

/// Fault 540.
#[test]
fn at_most_the_jobs_of_the_rate_begin_and_the_rest_stays_on_the_server() {
    let Some(server) = Server::start() else { return };
    for workers in WORKERS {
        let pool = pool(workers);
        let connection = server.connect(&pool);
        let queue = queue(&connection);
        enqueue(&queue, ["jobs.a"; 10]);
        let worker = builder::<String>(&queue).slots(8).rate(3, Duration::MAX).build().unwrap();
        let clone = worker.clone();
        thread::scope(|scope| {
            // Two runs share the rate.
            let runs = [&worker, &clone].map(|worker| scope.spawn(|| worker.run(&pool, |_: &Job| Ok(())).unwrap()));
            let _drained = DrainAtEnd(&worker);
            wait_until("as many are done", || worker.metrics().jobs_acked == 3);
            wait_until("the server knows", || figure(&connection, "num_ack_pending") == 0);
            assert_eq!(figure(&connection, "num_pending"), 7, "they are free for other workers");
            assert!(runs.map(|run| drained(&worker, run)).iter().all(|report| report.drained));
        });
        let metrics = worker.metrics();
        assert_eq!((metrics.jobs_delivered, metrics.jobs_acked, metrics.jobs_returned), (3, 3, 0), "{metrics}");
        assert_eq!(rest_of(&queue).len(), 7);
    }
}

/// Fault 540.
#[test]
fn a_rate_spreads_the_jobs_over_its_periods() {
    let Some(server) = Server::start() else { return };
    const PERIOD: Duration = Duration::from_millis(150);
    for workers in WORKERS {
        let pool = pool(workers);
        let queue = queue(&server.connect(&pool));
        enqueue(&queue, ["jobs.a"; 12]);
        let worker = builder::<String>(&queue).slots(5).rate(4, PERIOD).build().unwrap();
        let (log, since) = (Log::new(), Instant::now());
        let noted = log.clone();
        let handler = move |job: &Job| {
            noted.push((position(job), since.elapsed()));
            Ok(())
        };
        super::nats_common::work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
        let mut begun: Vec<_> = log.entries().into_iter().map(|(_, at)| at).collect();
        begun.sort();
        assert_eq!(begun.len(), 12);
        // A handler may be late, so only this is certain: two periods lie between the first and the last four.
        assert!(begun[8] >= 2 * PERIOD, "{begun:?}");
    }
}

/// Fault 541.
#[test]
fn each_attempt_counts_for_the_rate() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, ["jobs.a"]);
    let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(9);
    let worker = builder::<String>(&queue).retry(policy).rate(3, Duration::MAX).build().unwrap();
    let log = Log::new();
    thread::scope(|scope| {
        let noted = log.clone();
        let handler = move |job: &Job| {
            noted.push(job.attempt().number());
            Err("again".to_owned())
        };
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_until("it failed as often", || worker.metrics().jobs_retried == 3);
        assert!(drained(&worker, run).drained);
    });
    assert_eq!((log.entries(), worker.metrics().jobs_delivered), (vec![1, 2, 3], 3));
}

/// Fault 541.
#[test]
fn the_turn_of_a_job_that_goes_back_unrun_is_free_again() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, ["jobs.a"; 2]);
    let worker = builder::<String>(&queue).slots(4).rate(2, Duration::MAX);
    let worker = worker.build().unwrap();
    let mut gate = Gate::new();
    let wait = gate.waiter();
    pool.execute(wait).unwrap(); // the only worker is busy
    let log = Log::new();
    thread::scope(|scope| {
        let noted = log.clone();
        let handler = move |job: &Job| {
            noted.push(job.attempt().number());
            Ok(())
        };
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        for returned in [2, 4] {
            wait_until("both are in hand", || worker.metrics().jobs_in_flight == 2);
            worker.pause();
            wait_until("both went back", || worker.metrics().jobs_returned == returned);
            worker.resume();
        }
        wait_until("both are in hand", || worker.metrics().jobs_in_flight == 2);
        gate.open_for_good();
        wait_until("both are done", || worker.metrics().jobs_acked == 2);
        assert!(drained(&worker, run).drained);
    });
    assert_eq!(log.entries(), [1, 1], "a return is no attempt");
}

#[test]
fn a_rate_that_allows_nothing_is_refused_by_its_name() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let built = |jobs, period| builder::<String>(&queue).rate(jobs, period).build();
    is_refused("a rate", "0 in 1 s", "rate", built(0, Duration::from_secs(1)));
    is_refused("a rate", "1 in 0 s", "rate", built(1, Duration::ZERO));
    assert!(built(usize::MAX, Duration::MAX).is_ok() && built(1, Duration::from_nanos(1)).is_ok());
}
