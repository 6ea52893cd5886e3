//! Runs of batches.

use std::thread;
use std::time::Duration;

use workcrew::WorkerPool;
use workcrew::nats::{DeadLetterReason, Job, JobOutcome, RunReport, Worker};
use workcrew::retry::RetryPolicy;

use super::nats_common::{DrainAtEnd, Server, consumer_figure, is_refused, pool, queue, wait_until};
use super::{AGES, Gate, Log, WORKERS, builder, drained, enqueue, position, rest_of};

/// Outcomes that say that all jobs are done.
fn done<E>(jobs: &[Job]) -> Vec<JobOutcome<E>> {
    jobs.iter().map(|_| JobOutcome::Done).collect()
}

/// Runs batches until `is_done`, then drains the worker.
fn batches_until<E: std::fmt::Display + Send + 'static>(
    worker: &Worker<E>,
    (pool, max, linger): (&WorkerPool, usize, Duration),
    handler: impl Fn(&[Job]) -> Vec<JobOutcome<E>> + Send + Sync + 'static,
    is_done: impl FnMut() -> bool,
) -> RunReport {
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run_batch(pool, max, linger, handler).unwrap());
        let _drained = DrainAtEnd(worker);
        let _shown = ShownAtPanic(worker);
        wait_until("the work", is_done);
        drained(worker, run)
    })
}

/// Shows the metrics of a worker whose test fails.
struct ShownAtPanic<'a, E>(&'a Worker<E>);

impl<E> Drop for ShownAtPanic<'_, E> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0.metrics());
        }
    }
}

/// Fault 547.
#[test]
fn full_batches_start_at_once_and_a_rest_waits_on_no_worker_and_goes_back_in_a_drain() {
    let Some(server) = Server::start() else { return };
    for workers in WORKERS {
        let pool = pool(workers);
        let connection = server.connect(&pool);
        let queue = queue(&connection);
        enqueue(&queue, ["jobs.a"; 11]);
        let worker = builder::<String>(&queue).build().unwrap();
        let log = Log::new();
        let noted = log.clone();
        let handler = move |jobs: &[Job]| {
            noted.push(jobs.iter().map(position).collect::<Vec<_>>());
            done(jobs)
        };
        let report = batches_until(&worker, (&pool, 4, Duration::MAX), handler, || {
            let is_there = worker.metrics().jobs_acked == 8 && worker.metrics().jobs_delivered == 11;
            // With three jobs waiting, all workers are free.
            is_there && pool.metrics().tasks_running == 0 && pool.spawn(|| 7).unwrap().join().unwrap() == 7
        });
        assert!(report.drained);
        let mut batches = log.entries();
        batches.sort();
        assert_eq!(batches, [[0, 1, 2, 3], [4, 5, 6, 7]], "{workers} workers");
        assert_eq!(worker.metrics().jobs_returned, 3);
        let mut rest = rest_of(&queue);
        rest.sort_unstable();
        assert_eq!(rest, [(8, 1), (9, 1), (10, 1)], "a return is no attempt");
    }
}

/// Fault 547.
#[test]
fn jobs_start_in_a_smaller_batch_when_the_first_has_lingered_and_have_heartbeats_until_then() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, ["jobs.a"; 3]);
    let ack_wait = Duration::from_millis(300);
    let worker = Worker::<String>::builder(&queue, "worker").ack_wait(ack_wait).build().unwrap();
    let log = Log::new();
    let noted = log.clone();
    let handler = move |jobs: &[Job]| {
        noted.push(jobs.iter().map(position).collect::<Vec<_>>());
        done(jobs)
    };
    let limits = (&pool, 100, 3 * ack_wait);
    assert!(batches_until(&worker, limits, handler, || queue.is_empty().unwrap()).drained);
    let metrics = worker.metrics();
    assert_eq!((metrics.jobs_delivered, metrics.jobs_acked, log.len()), (3, 3, 1), "{metrics}");
    assert!(metrics.heartbeats >= 3, "{metrics}");
}

/// Fault 548.
#[test]
fn each_job_of_a_batch_has_its_own_outcome() {
    let Some(server) = Server::start() else { return };
    for workers in WORKERS {
        let pool = pool(workers);
        let queue = queue(&server.connect(&pool));
        enqueue(&queue, ["jobs.a"; 6]);
        let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(2);
        let worker = builder::<String>(&queue).retry(policy).slots(6).build().unwrap();
        let log = Log::new();
        let noted = log.clone();
        let handler = move |jobs: &[Job]| {
            jobs.iter()
                .map(|job| {
                    let again = noted.entries().iter().filter(|(number, _)| *number == position(job)).count();
                    noted.push((position(job), job.attempt().number()));
                    match position(job) {
                        1 => JobOutcome::Failed("fails always".to_owned()),
                        2 if again == 0 => JobOutcome::RetryAfter(Duration::from_millis(3), "once".to_owned()),
                        3 => JobOutcome::Dead("for good".to_owned()),
                        4 if again < 2 => JobOutcome::Return(Duration::ZERO),
                        _ => JobOutcome::Done,
                    }
                })
                .collect()
        };
        let limits = (&pool, 6, Duration::from_millis(100));
        assert!(batches_until(&worker, limits, handler, || queue.is_empty().unwrap()).drained);
        let mut ran = log.entries();
        ran.sort_unstable();
        let expected = [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1), (4, 1), (4, 1), (5, 1)];
        assert_eq!(ran, expected, "{workers} workers");
        let metrics = worker.metrics();
        assert_eq!((metrics.jobs_acked, metrics.jobs_retried, metrics.jobs_returned), (4, 2, 2), "{metrics}");
        let mut letters: Vec<_> =
            queue.dead_letters(9).unwrap().iter().map(|letter| (letter.reason(), letter.attempts())).collect();
        letters.sort_by_key(|(_, attempts)| *attempts);
        assert_eq!(
            letters,
            [(Some(DeadLetterReason::Permanent), Some(1)), (Some(DeadLetterReason::Attempts), Some(2))]
        );
        for letter in queue.dead_letters(9).unwrap() {
            queue.discard_dead_letter(&letter).unwrap();
        }
    }
}

/// Fault 548.
#[test]
fn a_panic_and_missing_outcomes_are_failed_attempts_of_each_job_and_further_outcomes_are_ignored() {
    let Some(server) = Server::start() else { return };
    type Outcomes = fn(&[Job]) -> Vec<JobOutcome<String>>;
    let panics: Outcomes = |_| panic!("as planned");
    let (few, many): (Outcomes, Outcomes) =
        (|jobs| done(&jobs[1..]), |jobs| [jobs, jobs].into_iter().flat_map(done).collect());
    for (outcomes, acked, dead) in [(panics, 0, 3), (few, 2, 1), (many, 3, 0)] {
        let pool = pool(2);
        let queue = queue(&server.connect(&pool));
        enqueue(&queue, ["jobs.a"; 3]);
        let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(2);
        let worker = builder::<String>(&queue).retry(policy).build().unwrap();
        // One job of those without an outcome is left when it is tried again alone.
        let limits = (&pool, 3, Duration::from_millis(100));
        assert!(batches_until(&worker, limits, outcomes, || queue.is_empty().unwrap()).drained);
        let metrics = worker.metrics();
        assert_eq!((metrics.jobs_acked, metrics.jobs_dead), (acked, dead), "{metrics}");
        for letter in queue.dead_letters(9).unwrap() {
            let error = letter.error().unwrap();
            assert!(error.contains("as planned") || error.contains("no outcome"), "{error}");
            assert_eq!(letter.attempts(), Some(2));
            queue.discard_dead_letter(&letter).unwrap();
        }
    }
}

/// Fault 549.
#[test]
fn a_stuck_batch_is_one_handler_and_each_of_its_jobs_has_its_attempts() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, ["jobs.stuck", "jobs.stuck"]);
    let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(1);
    let settings = builder::<String>(&queue).retry(policy).stuck_after(Duration::from_secs(1));
    let worker = settings.build().unwrap();
    let mut gate = Gate::new();
    let wait = gate.waiter();
    let handler = move |jobs: &[Job]| {
        if jobs[0].subject() == "jobs.stuck" {
            wait();
        }
        done(jobs)
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run_batch(&pool, 2, AGES, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_until("both are stuck and dead", || worker.metrics().jobs_dead == 2);
        // One handler of two workers is stuck, so the run goes on.
        enqueue(&queue, ["jobs.b", "jobs.b"]);
        wait_until("the others are done", || worker.metrics().jobs_acked == 2);
        gate.open_for_good();
        assert!(drained(&worker, run).drained);
    });
    assert_eq!((worker.metrics().jobs_stuck, queue.dead_letters_len().unwrap()), (2, 2));
}

/// Fault 549.
#[test]
fn a_batch_keeps_the_rate_and_the_order() {
    let Some(server) = Server::start() else { return };
    for workers in WORKERS {
        let pool = pool(workers);
        let connection = server.connect(&pool);
        let queue = queue(&connection);
        enqueue(&queue, ["jobs.a", "jobs.a", "jobs.b", "jobs.b", "jobs.c", "jobs.c", "jobs.c"]);
        let settings = builder::<String>(&queue).rate(5, Duration::MAX);
        let worker = settings.ordered_by(|job| job.subject().to_owned()).build().unwrap();
        let log = Log::new();
        let noted = log.clone();
        let handler = move |jobs: &[Job]| {
            noted.push(jobs.iter().map(|job| (job.subject().to_owned(), position(job))).collect::<Vec<_>>());
            done(jobs)
        };
        let limits = (&pool, 4, Duration::from_millis(10));
        assert!(batches_until(&worker, limits, handler, || worker.metrics().jobs_acked == 5).drained);
        let batches = log.entries();
        for batch in &batches {
            let mut keys: Vec<_> = batch.iter().map(|(key, _)| key).collect();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), batch.len(), "two jobs of a key in {batch:?}");
        }
        let ran: Vec<_> = batches.concat();
        assert_eq!(ran.len(), 5);
        for key in ["jobs.a", "jobs.b", "jobs.c"] {
            let of_key: Vec<_> = ran.iter().filter(|(of, _)| of == key).map(|(_, number)| *number).collect();
            assert!(of_key.is_sorted(), "{key}: {of_key:?}");
        }
        assert_eq!(rest_of(&queue).len(), 2);
        wait_until("the server knows", || consumer_figure(&connection, "worker", "num_ack_pending") == Some(0));
    }
}

#[test]
fn fewer_slots_return_as_many_jobs_of_unstarted_batches_as_do_not_fit() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, ["jobs.a"; 6]);
    let worker = builder::<String>(&queue).slots(6).build().unwrap();
    let mut gate = Gate::new();
    pool.execute(gate.waiter()).unwrap(); // the only worker is busy
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run_batch(&pool, 2, AGES, done::<String>).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_until("three batches wait", || worker.metrics().jobs_in_flight == 6);
        worker.set_slots(4).unwrap();
        wait_until("one batch went back", || worker.metrics().jobs_returned == 2);
        wait_until("they left their slots", || worker.metrics().jobs_in_flight == 4);
        gate.open_for_good();
        wait_until("all are done", || queue.is_empty().unwrap());
        assert!(drained(&worker, run).drained);
    });
    assert_eq!((worker.metrics().jobs_acked, worker.metrics().jobs_returned), (6, 2));
}

#[test]
fn a_batch_of_no_or_of_too_many_jobs_is_refused_by_its_name() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let worker = builder::<String>(&queue).build().unwrap();
    for max in [0, usize::MAX] {
        is_refused("a batch", &max.to_string(), "max", worker.run_batch(&pool, max, Duration::ZERO, done::<String>));
    }
}
