//! The order of jobs by key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use workcrew::nats::{Job, NewJob, Worker, WorkerBuilder, WorkerError};
use workcrew::retry::{ErrorClass, RetryPolicy};

use super::nats_common::{DrainAtEnd, Server, invalid, is_refused, pool, queue, wait_until};
use super::{ACK_WAIT, Gate, Log, WORKERS, builder, drained, enqueue, figure, position, rest_of, wait_for_in_hand};

/// A worker whose keys are the subjects.
fn ordered<E>(builder: WorkerBuilder<E>) -> WorkerBuilder<E> {
    builder.ordered_by(|job| job.subject().to_owned())
}

/// Fault 542.
#[test]
fn jobs_of_a_key_run_one_at_a_time_in_stream_order_with_retries_and_panics_among_them() {
    let Some(server) = Server::start() else { return };
    const KEYS: usize = 8;
    const JOBS: usize = 160;
    for workers in WORKERS {
        let pool = pool(workers);
        let queue = queue(&server.connect(&pool));
        let subjects: Vec<_> = (0..JOBS).map(|number| format!("jobs.{}", number * 7 % 13 % KEYS)).collect();
        enqueue(&queue, subjects.iter().map(String::as_str));
        let policy = RetryPolicy::fixed(Duration::from_millis(5)).max_attempts(4);
        let worker = ordered(builder::<String>(&queue).retry(policy)).build().unwrap();
        let (log, running) = (Log::new(), Arc::new(Mutex::new(HashMap::<String, usize>::new())));
        let handler = {
            let log = log.clone();
            move |job: &Job| {
                let key = job.subject().to_owned();
                let among = *running.lock().unwrap().entry(key.clone()).and_modify(|jobs| *jobs += 1).or_insert(1);
                log.push((key.clone(), position(job), job.attempt().number(), among));
                thread::yield_now();
                *running.lock().unwrap().get_mut(&key).unwrap() -= 1;
                match (position(job) % 10, job.attempt().number()) {
                    (3, 1 | 2) => Err("again".to_owned()),
                    (7, 1) => panic!("as planned"),
                    _ => Ok(()),
                }
            }
        };
        super::nats_common::work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
        // What waits for its key waits in hand, and does not go back and forth.
        assert_eq!(worker.metrics().jobs_returned, 0, "{}", worker.metrics());
        let entries = log.entries();
        assert!(entries.iter().all(|(.., among)| *among == 1), "{workers} workers: two of one key at a time");
        for key in 0..KEYS {
            let key = format!("jobs.{key}");
            let ran: Vec<_> =
                entries.iter().filter(|(of, ..)| *of == key).map(|(_, n, attempt, _)| (*n, *attempt)).collect();
            let stored = (0..JOBS).filter(|number| subjects[*number] == key);
            let expected: Vec<_> = stored
                .flat_map(|number| {
                    (1..=[1, 1, 1, 3, 1, 1, 1, 2, 1, 1][number % 10]).map(move |attempt| (number, attempt))
                })
                .collect();
            assert_eq!(ran, expected, "{key} with {workers} workers");
        }
    }
}

/// Fault 543.
#[test]
fn a_job_that_is_tried_again_holds_its_key_and_no_other_and_no_slot() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, ["jobs.a", "jobs.a", "jobs.b", "jobs.b", "jobs.b"]);
    // It is tried again when the others of the other key are done.
    let policy = RetryPolicy::exponential()
        .max_attempts(50)
        .classify(|_: &String| ErrorClass::RetryAfter(Duration::from_millis(30)));
    let worker = ordered(builder::<String>(&queue).retry(policy).slots(1)).build().unwrap();
    let log = Log::new();
    let handler = {
        let log = log.clone();
        move |job: &Job| {
            let others = log.entries().iter().filter(|number| **number >= 2).count();
            log.push(position(job));
            if position(job) == 0 && others < 3 { Err("not yet".to_owned()) } else { Ok(()) }
        }
    };
    super::nats_common::work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    let mut entries = log.entries();
    assert_eq!(entries.pop(), Some(1), "{entries:?}");
    assert_eq!(entries.pop(), Some(0), "{entries:?}");
    assert!(!entries.contains(&1), "{entries:?}");
}

/// Fault 544.
#[test]
fn jobs_that_wait_for_their_key_take_no_slot_and_a_drain_hands_them_on_in_their_order() {
    let Some(server) = Server::start() else { return };
    for fails in [false, true] {
        let pool = pool(4);
        let connection = server.connect(&pool);
        let queue = queue(&connection);
        let (mut gate, log) = (Gate::new(), Log::new());
        enqueue(&queue, ["jobs.a"; 20].into_iter().chain(["jobs.b"]));
        // Long enough for the drain to begin: a job that comes again before that may come here.
        let policy = RetryPolicy::fixed(Duration::from_millis(700)).max_attempts(3);
        let worker = ordered(builder::<String>(&queue).slots(2).retry(policy)).build().unwrap();
        thread::scope(|scope| {
            let (noted, wait) = (log.clone(), gate.waiter());
            let handler = move |job: &Job| {
                noted.push(position(job));
                if job.subject() == "jobs.a" {
                    wait();
                }
                if fails && position(job) == 0 { Err("again".to_owned()) } else { Ok(()) }
            };
            let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
            let _drained = DrainAtEnd(&worker);
            wait_until("the other key has its turn", || worker.metrics().jobs_acked == 1);
            assert_eq!((log.entries(), worker.metrics().jobs_in_flight_max), (vec![0, 20], 2));
            wait_for_in_hand(&connection, 20);
            worker.drain();
            gate.open_for_good();
            assert!(run.join().unwrap().drained);
        });
        assert_eq!((log.len(), worker.metrics().jobs_returned), (2, 19), "nothing more has begun");
        let first = usize::from(!fails);
        let expected: Vec<_> = (first..20).map(|number| (number, if number == 0 { 2 } else { 1 })).collect();
        assert_eq!(rest_of(&queue), expected, "fails: {fails}");
    }
}

/// Fault 544.
#[test]
fn a_drain_that_leaves_a_handler_behind_returns_the_jobs_behind_it() {
    let Some(server) = Server::start() else { return };
    let (keeper, pool) = (pool(1), pool(2));
    let connection = server.connect(&keeper);
    let queue = queue(&connection);
    enqueue(&queue, ["jobs.a"; 5]);
    let (gate, log) = (Gate::new(), Log::new());
    let worker = ordered(builder::<String>(&queue).drain_timeout(Duration::MAX)).build().unwrap();
    thread::scope(|scope| {
        let (noted, wait) = (log.clone(), gate.waiter());
        let handler = move |job: &Job| {
            noted.push(position(job));
            wait();
            Ok(())
        };
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_until("the first has begun", || log.len() == 1);
        wait_for_in_hand(&connection, 5);
        assert!(!pool.shutdown_timeout(Duration::from_millis(1)).drained);
        let report = run.join().unwrap();
        assert_eq!((report.drained, report.jobs_left, log.len()), (false, 1, 1));
    });
    assert_eq!(worker.metrics().jobs_returned, 4);
    drop(gate);
}

/// Fault 545.
#[test]
fn no_more_jobs_wait_than_the_lookahead_allows_and_a_job_that_is_tried_again_still_comes() {
    let Some(server) = Server::start() else { return };
    for workers in WORKERS {
        let pool = pool(workers);
        let connection = server.connect(&pool);
        let queue = queue(&connection);
        enqueue(&queue, ["jobs.a"; 30]);
        let policy = RetryPolicy::fixed(Duration::from_millis(20)).max_attempts(3);
        let worker = ordered(builder::<String>(&queue).retry(policy).slots(4).lookahead(3)).build().unwrap();
        let (mut gate, log) = (Gate::new(), Log::new());
        thread::scope(|scope| {
            let (noted, wait) = (log.clone(), gate.waiter());
            let handler = move |job: &Job| {
                noted.push((position(job), job.attempt().number()));
                wait();
                let fails = position(job) == 0 && job.attempt().number() < 3;
                if fails { Err("again".to_owned()) } else { Ok(()) }
            };
            let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
            let _drained = DrainAtEnd(&worker);
            wait_for_in_hand(&connection, 4);
            wait_until("the first has begun", || log.len() == 1);
            gate.open(2); // it fails twice while all places are taken
            wait_until("it is tried again", || log.len() == 3);
            assert_eq!(log.entries(), [(0, 1), (0, 2), (0, 3)]);
            gate.open_for_good();
            wait_until("all is done", || queue.is_empty().unwrap());
            assert!(drained(&worker, run).drained);
        });
        let ran: Vec<_> = log.entries().into_iter().skip(3).collect();
        assert_eq!(ran, (1..30).map(|number| (number, 1)).collect::<Vec<_>>(), "{workers} workers");
    }
}

/// Fault 545.
#[test]
fn a_job_that_left_the_queue_elsewhere_frees_its_key() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, ["jobs.a"; 3]);
    let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
    let worker = ordered(builder::<String>(&queue).retry(policy)).build().unwrap();
    let log = Log::new();
    thread::scope(|scope| {
        let (noted, pausing) = (log.clone(), worker.clone());
        let handler = move |job: &Job| {
            noted.push(position(job));
            if position(job) > 0 {
                return Ok(());
            }
            pausing.pause(); // so that it does not come back here
            Err("again".to_owned())
        };
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_until("it failed", || worker.metrics().jobs_retried == 1);
        connection.request("$JS.API.STREAM.MSG.DELETE.JOBS", r#"{"seq":1}"#).unwrap();
        worker.resume();
        wait_until("the others are done", || worker.metrics().jobs_acked == 2);
        assert!(drained(&worker, run).drained);
    });
    assert_eq!(log.entries(), [0, 1, 2]);
}

/// Fault 546.
#[test]
fn a_delayed_job_and_one_without_a_key_hold_no_key() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let queue = queue(&server.connect(&pool));
    let delayed = NewJob::new("jobs.a", "0", "delayed").unwrap().delay(Duration::from_secs(3_600));
    queue.enqueue_job(delayed).unwrap();
    for number in ["1", "2", "3"] {
        queue.enqueue("jobs.a", number, number).unwrap();
    }
    let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(2);
    let settings = builder::<String>(&queue).retry(policy);
    let key = |job: &Job| if job.text() == Some("2") { panic!("no key") } else { 7 };
    let worker = settings.ordered_by(key).build().unwrap();
    let log = Log::new();
    let noted = log.clone();
    let handler = move |job: &Job| {
        noted.push(position(job));
        Ok(())
    };
    super::nats_common::work_until(&worker, &pool, handler, || queue.len().unwrap() == 1);
    assert_eq!(log.entries(), [1, 3]);
    let letters = queue.dead_letters(9).unwrap();
    assert!(letters[0].error().unwrap().contains("the key function panicked: no key"), "{letters:?}");
    assert_eq!((letters.len(), letters[0].attempts()), (1, Some(2)));
}

/// Fault 546.
#[test]
fn an_ordered_worker_has_one_run_at_a_time() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let worker = ordered(builder::<String>(&queue)).build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_: &Job| Ok(())).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_until("it runs", || super::nats_common::consumer_figure(&connection, "worker", "num_waiting") == Some(1));
        let second = worker.clone().run(&pool, |_: &Job| Ok(())).unwrap_err();
        assert_eq!(invalid(&second).unwrap().field(), "ordered_by");
        assert!(matches!(second, WorkerError::Invalid(_)));
        assert!(drained(&worker, run).drained);
    });
    assert!(worker.run(&pool, |_: &Job| Ok(())).unwrap().drained, "one after the other");
    assert_eq!(figure(&connection, "num_ack_pending"), 0);
    let settings = || builder::<String>(&queue);
    is_refused("look-ahead", "0", "lookahead", ordered(settings().lookahead(0)).build());
    is_refused("look-ahead", "too many", "lookahead", ordered(settings().lookahead(usize::MAX)).build());
    is_refused("look-ahead", "without an order", "lookahead", settings().lookahead(1).build());
    is_refused("an order", "without heartbeats", "ordered_by", ordered(settings().without_heartbeats()).build());
}

/// Fault 619.
#[test]
fn the_loss_of_the_consumer_leaves_the_jobs_of_each_key_in_order_and_runs_none_twice() {
    let Some(server) = Server::start() else { return };
    const JOBS: usize = 30;
    for workers in WORKERS {
        let pool = pool(workers);
        let connection = server.connect(&pool);
        let queue = queue(&connection);
        let subject = |number: usize| ["jobs.a", "jobs.b", "jobs.c"][number % 3];
        enqueue(&queue, (0..JOBS).map(subject));
        let worker = ordered(builder::<String>(&queue).slots(4)).build().unwrap();
        let (mut gate, log) = (Gate::new(), Log::new());
        thread::scope(|scope| {
            let (noted, wait) = (log.clone(), gate.waiter());
            let handler = move |job: &Job| {
                noted.push((position(job), job.attempt().number()));
                wait();
                Ok(())
            };
            let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
            let _drained = DrainAtEnd(&worker);
            wait_for_in_hand(&connection, JOBS as u64);
            wait_until("some have begun", || log.len() == workers.min(3));
            connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
            wait_for_in_hand(&connection, JOBS as u64); // of the new consumer
            gate.open_for_good();
            wait_until("all is done", || queue.is_empty().unwrap());
            assert!(drained(&worker, run).drained);
        });
        for key in 0..3 {
            let ran: Vec<_> = log.entries().into_iter().filter(|(number, _)| number % 3 == key).collect();
            let expected: Vec<_> = (key..JOBS).step_by(3).map(|number| (number, 1)).collect();
            assert_eq!(ran, expected, "{workers} workers");
        }
    }
}

/// Fault 619.
#[test]
fn a_job_that_must_run_alone_does_so_and_the_others_of_its_key_and_of_others_stay_in_order() {
    let Some(server) = Server::start() else { return };
    const JOBS: usize = 20;
    let pool = pool(4);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, (0..JOBS).map(|number| ["jobs.a", "jobs.b"][number % 2]));
    // A second delivery without an outcome is more than the policy allows, so it runs alone.
    let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(1);
    let settings = ordered(Worker::<String>::builder(&queue, "worker").retry(policy)).slots(4);
    let worker = settings.ack_wait(Duration::from_secs(1)).build().unwrap();
    worker.pause();
    let (mut gate, log, running) = (Gate::new(), Log::new(), Arc::new(Mutex::new(0)));
    thread::scope(|scope| {
        let (noted, wait) = (log.clone(), gate.waiter());
        let handler = move |job: &Job| {
            *running.lock().unwrap() += 1;
            if position(job) > 0 {
                wait();
            }
            noted.push((position(job), job.attempt().number(), *running.lock().unwrap()));
            thread::yield_now();
            *running.lock().unwrap() -= 1;
            Ok(())
        };
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        let consumer = || super::nats_common::consumer_figure(&connection, "worker", "num_pending");
        wait_until("there is a consumer", || consumer() == Some(JOBS as u64));
        // A process takes the first job, and vanishes.
        let lost = connection.subscribe("lost").start(|_| ()).unwrap();
        server.say("PUB $JS.API.CONSUMER.MSG.NEXT.JOBS.worker lost 1\r\n1\r\n");
        wait_for_in_hand(&connection, 1);
        drop(lost);
        worker.resume();
        wait_until("it is delivered again", || worker.metrics().jobs_redelivered == 1);
        gate.open_for_good();
        wait_until("all is done", || queue.is_empty().unwrap());
        assert!(drained(&worker, run).drained);
    });
    let entries = log.entries();
    let alone = entries.iter().find(|(number, ..)| *number == 0);
    assert_eq!(alone, Some(&(0, 2, 1)), "no other job is running");
    for key in 0..2 {
        let others = entries.iter().filter(|(number, ..)| *number > 0 && number % 2 == key);
        let ran: Vec<_> = others.map(|(number, attempt, _)| (*number, *attempt)).collect();
        let expected: Vec<_> = (1..JOBS).filter(|number| number % 2 == key).map(|number| (number, 1)).collect();
        assert_eq!(ran, expected);
    }
}

/// Fault 544.
#[test]
fn one_consumer_for_each_partition_keeps_the_order_between_processes() {
    let Some(server) = Server::start() else { return };
    const JOBS: usize = 24;
    let keeper = pool(1);
    let stored = queue(&server.connect(&keeper));
    let subjects: Vec<_> = (0..JOBS).map(|number| format!("jobs.{}.key", number % 2)).collect();
    enqueue(&stored, subjects.iter().map(String::as_str));
    let log = Log::new();
    // Two processes, each with a pool and a connection of its own.
    let pools = [pool(2), pool(2)];
    thread::scope(|scope| {
        let workers = pools.iter().flat_map(|pool| {
            let queue = queue(&server.connect(pool));
            [0, 1].map(|partition| {
                let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
                let worker = Worker::builder(&queue, format!("worker-{partition}")).ack_wait(ACK_WAIT).retry(policy);
                let worker = worker.subject(format!("jobs.{partition}.>")).max_ack_pending(1).build().unwrap();
                let (log, runner) = (log.clone(), worker.clone());
                let handler = move |job: &Job| {
                    log.push((partition, position(job)));
                    let fails = position(job).is_multiple_of(5) && job.attempt().number() == 1;
                    if fails { Err("again".to_owned()) } else { Ok(()) }
                };
                scope.spawn(move || runner.run(pool, handler).unwrap());
                worker
            })
        });
        let workers: Vec<_> = workers.collect();
        let _drained: Vec<_> = workers.iter().map(DrainAtEnd).collect();
        wait_until("all is done", || stored.is_empty().unwrap());
    });
    for partition in [0, 1] {
        let mut ran: Vec<_> = log.entries().into_iter().filter(|(of, _)| *of == partition).map(|(_, n)| n).collect();
        assert!(ran.is_sorted(), "{partition}: {ran:?}");
        ran.dedup();
        assert_eq!(ran, (partition..JOBS).step_by(2).collect::<Vec<_>>());
    }
}

/// Fault 541.
#[test]
fn with_a_rate_a_job_whose_key_has_become_free_is_not_stuck_before_one_that_came_later() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, ["jobs.a", "jobs.a", "jobs.b", "jobs.c", "jobs.d"]);
    // All turns but one are spent when the key is free, and the last job waits for a slot.
    let worker = ordered(builder::<String>(&queue).slots(3).rate(4, Duration::MAX)).build().unwrap();
    let (mut gate, log) = (Gate::new(), Log::new());
    thread::scope(|scope| {
        let (noted, wait) = (log.clone(), gate.waiter());
        let handler = move |job: &Job| {
            noted.push(position(job));
            wait();
            Ok(())
        };
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_until("the slots are taken", || log.len() == 3);
        gate.open_for_good();
        wait_until("all turns are spent", || worker.metrics().jobs_acked == 4);
        assert!(drained(&worker, run).drained);
    });
    assert_eq!(log.len(), 4);
    assert_eq!(rest_of(&queue).len(), 1);
}
