//! What belongs to one job stays with it, one bad job hurts only itself, and standstills end: against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nats_common::{LONG, Server, consumer_figure, pool, queue, wait_until, work_until};
use workcrew::WorkerPool;
use workcrew::nats::{Connection, DeadLetterReason, Event, Job, JobQueue, QueueError, Worker, WorkerBuilder};
use workcrew::retry::RetryPolicy;

/// Longer than any test: what waits for this hangs.
const AGES: Duration = Duration::from_secs(600);

/// A connection whose events can be looked at.
fn observed(server: &Server, pool: &WorkerPool) -> (Connection, Receiver<Event>) {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| {
        eprintln!("{event}"); // shown when the test fails
        drop(sender.lock().unwrap().send(event.clone()));
    };
    (server.builder().observer(told).connect(pool).unwrap(), events)
}

fn enqueue(queue: &JobQueue, texts: impl IntoIterator<Item = String>) {
    for text in texts {
        queue.enqueue("jobs.a", text.as_str(), &text).unwrap();
    }
}

fn permanent() -> RetryPolicy<String> {
    RetryPolicy::fixed(Duration::ZERO).retry_if(|_: &String| false)
}

fn builder(queue: &JobQueue) -> WorkerBuilder<String> {
    Worker::builder(queue, "worker")
}

/// The texts of the jobs that a handler was called with.
type Ran = Arc<Mutex<Vec<String>>>;

/// A handler that notes what it has run, and holds jobs whose text begins with `held` until the gate is dropped.
fn held() -> (impl Fn(&Job) -> Result<(), String> + Send + Sync + 'static, Ran, Sender<()>) {
    let (open, gate) = channel::<()>();
    let (gate, ran) = (Mutex::new(gate), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&ran);
    let handler = move |job: &Job| {
        let text = job.text().unwrap().to_owned();
        seen.lock().unwrap().push(text.clone());
        if text.starts_with("held") {
            let _ = gate.lock().unwrap().recv();
        }
        Ok(())
    };
    (handler, ran, open)
}

/// Four jobs run while `harm` is done to their stream; then it is opened again and takes eight others. All of
/// those run, independent of the four.
fn new_jobs_run_after(harm: impl FnOnce(&mut Server, &Connection)) {
    let Some(mut server) = Server::start() else { return };
    let pool = pool(8);
    let (connection, events) = observed(&server, &pool);
    let jobs = queue(&connection);
    enqueue(&jobs, (0..4).map(|number| format!("held {number}")));
    let (handler, ran, open) = held();
    let worker = builder(&jobs).slots(4).ack_wait(Duration::from_secs(3)).build().unwrap();
    let second = builder(&jobs).slots(1).ack_wait(Duration::from_secs(3)).build().unwrap();
    let second_pool = nats_common::pool(1);
    let (stop, stopped) = channel::<()>();
    let stopped = Mutex::new(stopped);
    let (second_handler, second_ran, second_open) = held();
    drop(second_open);
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        wait_until("four run", || ran.lock().unwrap().len() == 4);
        harm(&mut server, &connection);
        wait_until("the stream is open again", || {
            connection.is_connected() && JobQueue::builder(&connection, "JOBS").subject("jobs.>").open().is_ok()
        });
        let again = queue(&connection);
        enqueue(&again, (0..8).map(|number| format!("new {number}")));
        // Another worker makes the consumer, so that acknowledgements find one; it runs one job and holds the others back.
        let other = scope.spawn(|| {
            second.run(&second_pool, move |job: &Job| {
                let done = second_handler(job);
                let _ = stopped.lock().unwrap().recv_timeout(Duration::from_millis(300));
                done
            })
        });
        wait_until("there is a consumer", || consumer_figure(&connection, "worker", "num_pending").is_some());
        drop(open);
        wait_until("all new jobs have run", || {
            let ran = ran.lock().unwrap().iter().chain(second_ran.lock().unwrap().iter()).cloned().collect::<Vec<_>>();
            (0..8).all(|number| ran.contains(&format!("new {number}")))
        });
        drop(stop);
        wait_until("the queue is empty", || again.is_empty().unwrap());
        worker.drain();
        second.drain();
        assert!(run.join().unwrap().drained && other.join().unwrap().unwrap().drained);
    });
    assert_eq!(worker.metrics().outcomes_lost, 4, "{:?}", worker.metrics());
    let events: Vec<_> = events.try_iter().collect();
    assert!(events.contains(&Event::StreamReplaced { stream: "JOBS".to_owned() }), "{events:?}");
}

/// Fault 190.
#[test]
fn outcomes_of_a_stream_that_was_made_again_touch_no_job_of_the_new_one() {
    new_jobs_run_after(|_, connection| {
        connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    });
}

/// Fault 190.
#[test]
fn outcomes_from_before_the_disk_was_lost_touch_no_new_job() {
    new_jobs_run_after(|server, connection| {
        server.kill();
        wait_until("the connection is lost", || !connection.is_connected());
        let _ = fs::remove_dir_all(server.folder().join("jetstream"));
        server.start_again();
    });
}

/// Gives one job up for good.
fn bury(queue: &JobQueue, pool: &WorkerPool, text: &str) {
    enqueue(queue, [text.to_owned()]);
    let worker = builder(queue).retry(permanent()).build().unwrap();
    work_until(&worker, pool, |_| Err("broken".to_owned()), || queue.is_empty().unwrap());
}

fn texts(queue: &JobQueue) -> Vec<String> {
    let letters = queue.dead_letters(9).unwrap();
    letters.iter().map(|letter| String::from_utf8(letter.bytes().to_vec()).unwrap()).collect()
}

/// Fault 191.
#[test]
fn each_job_has_its_letter_though_its_stream_was_made_again() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    bury(&queue(&connection), &pool, "first");
    connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    let queue = queue(&connection);
    bury(&queue, &pool, "second");
    assert_eq!(texts(&queue), ["first", "second"]);
}

/// Fault 191.
#[test]
fn a_letter_that_has_the_place_of_another_is_requeued_and_discarded_as_itself() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let jobs = queue(&connection);
    bury(&jobs, &pool, "first");
    let first = jobs.dead_letters(1).unwrap().remove(0);
    jobs.requeue(&first).unwrap();
    let worker = builder(&jobs).build().unwrap();
    work_until(&worker, &pool, |_| Ok(()), || jobs.is_empty().unwrap());
    connection.request("$JS.API.STREAM.DELETE.JOBS_DEAD", "").unwrap();
    let jobs = queue(&connection);
    bury(&jobs, &pool, "second");
    let second = jobs.dead_letters(1).unwrap().remove(0);
    assert_eq!(first.sequence(), second.sequence());
    for refused in [jobs.discard_dead_letter(&first), jobs.requeue(&first).map(drop)] {
        assert!(matches!(refused, Err(QueueError::Rejected(_))), "{refused:?}");
    }
    assert_eq!(texts(&jobs), ["second"]);
    assert!(!jobs.requeue(&second).unwrap().is_duplicate());
    assert_eq!((jobs.len().unwrap(), jobs.dead_letters_len().unwrap()), (1, 0));
}

/// Fault 192.
#[test]
fn the_id_of_a_job_survives_requeuing() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, ["order-7".to_owned()]);
    server.say("PUB jobs.a 2\r\nno\r\n"); // one without an id
    let ids = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..3 {
        let seen = Arc::clone(&ids);
        let handler = move |job: &Job| {
            seen.lock().unwrap().push(job.id().map(str::to_owned));
            Err("broken".to_owned())
        };
        let worker = builder(&queue).retry(permanent()).build().unwrap();
        work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
        for letter in queue.dead_letters(9).unwrap() {
            assert_eq!(letter.id(), (letter.bytes() != b"no").then_some("order-7"));
            queue.requeue(&letter).unwrap();
        }
    }
    let ids = ids.lock().unwrap();
    assert_eq!(ids.iter().filter(|id| id.as_deref() == Some("order-7")).count(), 3, "{ids:?}");
    assert_eq!(ids.iter().filter(|id| id.is_none()).count(), 3, "{ids:?}");
}

/// Fault 193.
#[test]
fn a_job_that_never_returns_has_the_attempts_of_its_policy_and_a_letter() {
    let Some(server) = Server::start() else { return };
    let pool = pool(6);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, ["held".to_owned()]);
    let (handler, ran, open) = held();
    let policy = RetryPolicy::fixed(Duration::from_millis(20)).max_attempts(3);
    let worker = builder(&queue).retry(policy).ack_wait(AGES).stuck_after(Duration::from_millis(150)).build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        wait_until("there is a letter", || queue.dead_letters_len().unwrap() == 1);
        enqueue(&queue, (0..20).map(|number| format!("good {number}")));
        wait_until("the others are done", || queue.is_empty().unwrap());
        drop(open);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(ran.lock().unwrap().iter().filter(|text| *text == "held").count(), 3);
    let letter = &queue.dead_letters(1).unwrap()[0];
    assert_eq!((letter.reason(), letter.attempts()), (Some(DeadLetterReason::Attempts), Some(3)));
}

/// Fault 194.
#[test]
fn waiting_for_a_worker_of_the_pool_is_not_being_stuck() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let (open, gate) = channel::<()>();
    pool.execute(move || assert!(gate.recv().is_err(), "the gate is only dropped")).unwrap();
    enqueue(&queue, ["one".to_owned()]);
    let runs = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&runs);
    let stuck_after = Duration::from_millis(100);
    let worker = builder(&queue).ack_wait(Duration::from_millis(300)).stuck_after(stuck_after).build().unwrap();
    let handler = move |_: &Job| {
        seen.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let (mut open, mut beats) = (Some(open), 0);
    let is_done = || {
        beats = worker.metrics().heartbeats;
        if beats >= 5 {
            open.take(); // far longer than `stuck_after`
        }
        queue.is_empty().unwrap()
    };
    work_until(&worker, &pool, handler, is_done);
    assert_eq!((runs.load(Ordering::SeqCst), worker.metrics().jobs_stuck), (1, 0));
}

/// Fault 195.
#[test]
fn a_job_whose_headers_cannot_be_read_is_set_aside_and_the_rest_goes_on() {
    for head in [
        &b"NATS/1.0\r\nOrder Number: 7\r\n\r\n"[..],
        b"NATS/1.0\r\nName: \xe9t\xe9\r\n\r\n",
        b"NATS/1.0\r\nno colon\r\n\r\n",
    ] {
        let Some(server) = Server::start() else { return };
        let pool = pool(2);
        let (connection, events) = observed(&server, &pool);
        let queue = queue(&connection);
        server.say_bytes(
            &[format!("HPUB jobs.a {} {}\r\n", head.len(), head.len() + 3).as_bytes(), head, b"bad\r\n"].concat(),
        );
        enqueue(&queue, (0..20).map(|number| format!("good {number}")));
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
        let builder = builder(&queue).retry(policy).max_deliveries(3).slots(32).ack_wait(Duration::from_millis(500));
        let worker = builder.build().unwrap();
        // What is asked while the connection breaks has no answer.
        work_until(&worker, &pool, |_| Ok(()), || queue.is_empty().unwrap_or(false));
        assert_eq!(worker.metrics().jobs_acked, 20);
        let letters = queue.dead_letters(9).unwrap();
        assert_eq!((letters.len(), letters[0].reason()), (1, Some(DeadLetterReason::Unreadable)), "{letters:?}");
        assert_eq!((letters[0].bytes(), letters[0].subject()), (&b"bad"[..], "jobs.a"));
        let is_named = |event: &Event| matches!(event, Event::JobSetAside { sequence: 1, .. });
        assert!(events.try_iter().any(|event| is_named(&event)));
    }
}

/// Fault 196.
#[test]
fn a_letter_that_is_too_large_is_shortened_and_the_job_is_run_once() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let largest = 1 << 20;
    for (size, is_whole) in [(largest - 900, true), (largest - 60, false)] {
        queue.enqueue("jobs.a", &vec![b'x'; size][..], "large").unwrap();
        let runs = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&runs);
        let worker = builder(&queue).retry(permanent()).build().unwrap();
        let handler = move |_: &Job| {
            seen.fetch_add(1, Ordering::SeqCst);
            Err("broken for good ".repeat(50))
        };
        work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let letter = queue.dead_letters(1).unwrap().remove(0);
        assert_eq!((letter.bytes().len() == size, letter.is_without_payload()), (is_whole, !is_whole));
        assert_eq!((letter.reason(), letter.error()), (Some(DeadLetterReason::Permanent), None));
        assert!(letter.header("Workcrew-Omitted").unwrap().contains("error"));
        if !is_whole {
            assert!(matches!(queue.requeue(&letter), Err(QueueError::Rejected(_))));
        }
        queue.discard_dead_letter(&letter).unwrap();
        // The window in which an id is remembered does not matter here.
        let _ = queue.enqueue("jobs.a", "", size.to_string());
        let rest = builder_done(&queue);
        work_until(&rest, &pool, |_| Ok(()), || queue.is_empty().unwrap());
        server.connect(&pool).request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
        nats_common::queue(&server.connect(&pool));
    }
}

fn builder_done(queue: &JobQueue) -> Worker<String> {
    builder(queue).build().unwrap()
}

/// Fault 197.
#[test]
fn a_job_that_is_known_to_be_dead_is_not_run_again_by_any_worker() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(&server, &pool);
    let jobs = queue(&connection);
    enqueue(&jobs, ["bad".to_owned()]);
    connection.request("$JS.API.STREAM.DELETE.JOBS_DEAD", "").unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let handler = {
        let runs = Arc::clone(&runs);
        move |_: &Job| {
            runs.fetch_add(1, Ordering::SeqCst);
            Err("broken".to_owned())
        }
    };
    let mut failures = 0;
    // Two workers, as two processes would be.
    for _ in 0..2 {
        let worker = builder(&jobs).retry(permanent()).build().unwrap();
        let wanted = failures + 1;
        let is_failing = |event: &Event| matches!(event, Event::DeadLetterFailed { sequence: 1, .. });
        let is_done = || {
            failures += events.try_iter().filter(is_failing).count();
            failures >= wanted
        };
        work_until(&worker, &pool, handler.clone(), is_done);
    }
    let jobs = queue(&connection);
    let worker = builder(&jobs).retry(permanent()).build().unwrap();
    work_until(&worker, &pool, handler, || jobs.is_empty().unwrap());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(jobs.dead_letters(1).unwrap()[0].error(), Some("broken"));
}

/// Fault 198.
#[test]
fn a_deleted_consumer_is_made_again_at_once_while_all_slots_are_taken() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, (0..2).map(|number| format!("held {number}")));
    enqueue(&queue, (0..4).map(|number| format!("good {number}")));
    let (handler, ran, open) = held();
    let worker = builder(&queue).ack_wait(AGES).build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        wait_until("both run", || ran.lock().unwrap().len() == 2);
        connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
        let since = Instant::now();
        drop(open);
        wait_until("all are done", || queue.is_empty().unwrap());
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    let ran: BTreeSet<_> = ran.lock().unwrap().iter().cloned().collect();
    assert_eq!(ran.len(), 6);
}

/// Fault 199.
#[test]
fn what_a_drain_gives_back_comes_at_once_though_more_was_asked_for() {
    let Some(server) = Server::start() else { return };
    let keeper = pool(1);
    let connection = server.connect(&keeper);
    for slots in [4, 5, 8, 16] {
        let queue = queue(&connection);
        enqueue(&queue, [format!("held {slots}")]);
        enqueue(&queue, (0..3).map(|number| format!("{slots} {number}")));
        let (pool, (handler, ran, open)) = (pool(1), held());
        let worker = builder(&queue).ack_wait(AGES).slots(slots).build().unwrap();
        thread::scope(|scope| {
            let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
            wait_until("one runs", || ran.lock().unwrap().len() == 1 && worker.metrics().jobs_in_flight == 4);
            worker.drain();
            wait_until("three go back", || worker.metrics().jobs_returned == 3);
            drop(open);
            assert!(run.join().unwrap().drained);
        });
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&attempts);
        let next = builder(&queue).ack_wait(AGES).build().unwrap();
        let note = move |job: &Job| {
            seen.lock().unwrap().push(job.attempt().number());
            Ok(())
        };
        work_until(&next, &pool, note, || queue.is_empty().unwrap());
        assert_eq!(*attempts.lock().unwrap(), [1, 1, 1], "with {slots} slots");
    }
}

/// Fault 200.
#[test]
fn a_handler_that_heeds_its_token_at_the_end_of_a_drain_has_its_outcome_told() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, ["one".to_owned()]);
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(5);
    let worker = builder(&queue).retry(policy).ack_wait(AGES).drain_timeout(Duration::from_secs(2)).build().unwrap();
    let (started, start) = channel();
    let started = Mutex::new(started);
    let handler = move |job: &Job| {
        started.lock().unwrap().send(()).unwrap();
        job.token().wait();
        Err("told to stop".to_owned())
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        start.recv_timeout(LONG).unwrap();
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(worker.metrics().jobs_retried, 1);
    let next = builder(&queue).ack_wait(AGES).build().unwrap();
    work_until(&next, &pool, |_| Ok(()), || queue.is_empty().unwrap());
}

/// Fault 201.
#[test]
fn twenty_drains_before_a_job_began_are_not_attempts() {
    let Some(server) = Server::start() else { return };
    let keeper = pool(1);
    let queue = queue(&server.connect(&keeper));
    enqueue(&queue, ["one".to_owned()]);
    for round in 0..20 {
        let pool = pool(1);
        let (open, gate) = channel::<()>();
        let (started, start) = channel();
        let hold = move || {
            started.send(()).unwrap();
            assert!(gate.recv().is_err(), "the gate is only dropped");
        };
        pool.execute(hold).unwrap();
        start.recv().unwrap(); // a job may overtake a task that has not begun
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
        let worker = builder(&queue).retry(policy).ack_wait(AGES).slots(1).build().unwrap();
        work_until(&worker, &pool, |_| panic!("nothing runs"), || worker.metrics().jobs_delivered == 1);
        assert_eq!(worker.metrics().jobs_returned, 1, "in round {round}");
        drop(open);
    }
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&attempts);
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
    let worker = builder(&queue).retry(policy).ack_wait(AGES).build().unwrap();
    let handler = move |job: &Job| {
        seen.lock().unwrap().push(job.attempt().number());
        Err("broken".to_owned())
    };
    work_until(&worker, &keeper, handler, || queue.is_empty().unwrap());
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 3]);
    assert_eq!(queue.dead_letters(1).unwrap()[0].attempts(), Some(3));
}

/// A queue on a limits stream, which keeps acknowledged jobs, as a killed server may.
fn keeping_queue(connection: &Connection) -> JobQueue {
    let jobs = queue(connection);
    connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    let config = r#"{"name":"JOBS","subjects":["jobs.>"],"retention":"limits","storage":"file","num_replicas":1}"#;
    connection.request("$JS.API.STREAM.CREATE.JOBS", config).unwrap();
    jobs
}

/// Runs a worker until an event tells of jobs that are done and stay, and returns the event.
fn jobs_left_behind(worker: &Worker<String>, pool: &WorkerPool, events: &Receiver<Event>) -> Event {
    let mut told = None;
    let is_told = || {
        told = told.take().or_else(|| events.try_iter().find(|event| matches!(event, Event::JobsLeftBehind { .. })));
        told.is_some()
    };
    work_until(worker, pool, |_| Ok(()), is_told);
    told.unwrap()
}

/// Fault 202.
#[test]
fn done_jobs_that_stay_are_told_of_and_cleared() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(&server, &pool);
    let jobs = keeping_queue(&connection);
    enqueue(&jobs, (0..5).map(|number| number.to_string()));
    let worker = builder(&jobs).build().unwrap();
    let told = jobs_left_behind(&worker, &pool, &events);
    assert_eq!(told, Event::JobsLeftBehind { consumer: "worker".to_owned(), first: 1, jobs: 5 });
    assert_eq!((worker.clear_finished().unwrap(), jobs.len().unwrap()), (5, 0));
}

/// Fault 259.
#[cfg(unix)]
#[test]
fn a_pending_job_that_the_stream_no_longer_has_does_not_hide_what_is_done() {
    let Some(mut server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(&server, &pool);
    let jobs = keeping_queue(&connection);
    let worker = builder(&jobs).ack_wait(AGES).build().unwrap();
    work_until(&worker, &pool, |_| Ok(()), || worker.status().is_ok()); // makes the consumer
    enqueue(&jobs, (0..5).map(|number| number.to_string()));
    // The first is done. (The jobs arrive under their own subject, which is no answer to a request.)
    let nowhere = connection.subscribe("nowhere").start(|_| ()).unwrap();
    server.say("PUB $JS.API.CONSUMER.MSG.NEXT.JOBS.worker nowhere 1\r\n2\r\n");
    wait_until("two are delivered", || worker.status().is_ok_and(|status| status.jobs_ack_pending == 2));
    drop(nowhere);
    connection.request("$JS.ACK.JOBS.worker.1.1.1.0.0", "+ACK").unwrap();
    // As a killed server leaves it: the stream has lost the second, and the consumer waits for its acknowledgement.
    let consumer = server.folder().join("jetstream/$G/streams/JOBS/obs/worker");
    let copied = server.folder().join("copied");
    let copy =
        |from: &Path, to: &Path| assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    server.stop();
    copy(&consumer, &copied);
    server.start_again();
    wait_until("it is deleted", || {
        let deleted = connection.request("$JS.API.STREAM.MSG.DELETE.JOBS", r#"{"seq":2}"#);
        deleted.is_ok_and(|answer| answer.text().unwrap().contains("\"success\":true"))
    });
    server.stop();
    fs::remove_dir_all(&consumer).unwrap();
    copy(&copied, &consumer);
    server.start_again();
    wait_until("it waits for that", || worker.status().is_ok_and(|status| status.jobs_ack_pending == 1));
    let worker = builder(&jobs).ack_wait(AGES).build().unwrap();
    let told = jobs_left_behind(&worker, &pool, &events);
    assert_eq!(told, Event::JobsLeftBehind { consumer: "worker".to_owned(), first: 1, jobs: 4 });
    assert_eq!((worker.clear_finished().unwrap(), jobs.len().unwrap()), (4, 0));
}

/// Fault 203.
#[test]
fn a_server_that_says_nothing_is_connected_to_anew_within_half_a_minute() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(&server, &pool);
    let queue = queue(&connection);
    enqueue(&queue, ["one".to_owned()]);
    let worker = builder(&queue).build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        wait_until("it is done", || worker.metrics().jobs_acked == 1);
        server.freeze();
        let is_gone = |event: &Event| *event == Event::Disconnected;
        let deadline = Instant::now() + Duration::from_secs(40);
        let gone = events.iter().find(|event| is_gone(event) || Instant::now() > deadline);
        server.signal("CONT");
        assert_eq!(gone, Some(Event::Disconnected), "the client's own pings take three minutes");
        enqueue_until_it_works(&queue);
        wait_until("it goes on", || worker.metrics().jobs_acked == 2);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
}

/// Not a test: a worker process, which the job `abort` ends.
#[cfg(unix)]
#[test]
fn works_when_it_is_called_again() {
    let Ok(url) = std::env::var("WORKCREW_TEST_URL") else { return };
    let pool = pool(4);
    let connection = Connection::builder(url).connect(&pool).unwrap();
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
    let builder = builder(&queue(&connection)).retry(policy).max_deliveries(6).ack_wait(Duration::from_millis(300));
    let worker = builder.build().unwrap();
    let handler = |job: &Job| {
        if job.text() == Some("abort") {
            thread::sleep(Duration::from_millis(20));
            std::process::abort();
        }
        thread::sleep(Duration::from_millis(200));
        Ok(())
    };
    let done = worker.clone();
    thread::scope(|scope| {
        scope.spawn(|| worker.run(&pool, handler).unwrap());
        let jobs = queue(&connection);
        while !jobs.is_empty().unwrap() {
            thread::sleep(Duration::from_millis(20));
        }
        done.drain();
    });
}

/// Fault 205.
#[cfg(unix)]
#[test]
fn the_neighbours_of_a_job_that_ends_its_process_finish() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, ["abort".to_owned()]);
    enqueue(&queue, (0..3).map(|number| format!("good {number}")));
    let mut starts = 0;
    while !queue.is_empty().unwrap() {
        starts += 1;
        assert!(starts < 20, "{} jobs are left, {:?}", queue.len().unwrap(), queue.dead_letters(9));
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "works_when_it_is_called_again", "--test-threads=1"])
            .env("WORKCREW_TEST_URL", server.url())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        process.wait().unwrap();
    }
    let letters = queue.dead_letters(9).unwrap();
    assert_eq!(texts(&queue), ["abort"], "{letters:?}");
    assert_eq!(letters[0].reason(), Some(DeadLetterReason::Deliveries));
}

fn enqueue_until_it_works(queue: &JobQueue) {
    wait_until("it can be enqueued", || queue.enqueue("jobs.a", "", "again").is_ok());
}

/// Fault 204.
#[test]
fn a_worker_asks_for_no_more_bytes_than_it_may() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    for number in 0..12 {
        queue.enqueue("jobs.a", &vec![b'x'; 900 << 10][..], number.to_string()).unwrap();
    }
    let is_open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&is_open);
    let worker = builder(&queue).slots(12).pull_max_bytes(2 << 20).build().unwrap();
    let handler = move |_: &Job| {
        while !gate.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        Ok(())
    };
    let is_done = || {
        is_open.store(worker.metrics().jobs_in_flight == 12 || is_open.load(Ordering::SeqCst), Ordering::SeqCst);
        queue.is_empty().unwrap()
    };
    work_until(&worker, &pool, handler, is_done);
    assert_eq!((worker.metrics().jobs_acked, worker.metrics().jobs_redelivered), (12, 0));
}
