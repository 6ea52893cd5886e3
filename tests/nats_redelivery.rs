//! A job that is delivered again while it is in flight, a server that returns with less than it had, and a client that has ended: what ran is
//! not run again without need, no attempt is lost, and no outcome touches another job.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

mod nats_common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nats_common::{DrainAtEnd, LONG, Server, consumer_figure, pool, queue, wait_until, work_until};
use workcrew::WorkerPool;
use workcrew::nats::{
    Connection, DeadLetterReason, Event, Job, JobQueue, ReconnectSettings, Worker, WorkerBuilder, WorkerError,
};
use workcrew::retry::RetryPolicy;

/// After this time the server delivers a job again, since no heartbeats are sent.
const SOON: Duration = Duration::from_millis(200);

/// Handlers that end when they are told how, and what they were called with.
struct Held {
    ran: Arc<Mutex<Vec<(String, u32)>>>,
    end: Sender<Result<(), String>>,
    gate: Arc<Mutex<Receiver<Result<(), String>>>>,
}

impl Held {
    fn new() -> Self {
        let (end, gate) = channel();
        Self { ran: Arc::default(), end, gate: Arc::new(Mutex::new(gate)) }
    }

    fn handler(&self) -> impl Fn(&Job) -> Result<(), String> + Send + Sync + 'static {
        let (ran, gate) = (Arc::clone(&self.ran), Arc::clone(&self.gate));
        move |job| {
            ran.lock().unwrap().push((job.text().unwrap().to_owned(), job.attempt().number()));
            gate.lock().unwrap().recv().unwrap_or(Ok(()))
        }
    }

    fn ran(&self) -> Vec<(String, u32)> {
        self.ran.lock().unwrap().clone()
    }

    /// Has one end so.
    fn end(&self, result: Result<(), String>) {
        self.end.send(result).unwrap();
    }
}

/// A handler that notes what it is called with, and gives each job up.
fn failing() -> (Arc<AtomicUsize>, impl Fn(&Job) -> Result<(), String> + Clone + Send + Sync + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let handler = move |_: &Job| {
        counted.fetch_add(1, Ordering::SeqCst);
        Err("for good".to_owned())
    };
    (runs, handler)
}

fn builder(queue: &JobQueue) -> WorkerBuilder<String> {
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
    Worker::builder(queue, "worker").retry(policy.retry_if(|error: &String| error != "for good"))
}

fn observed(server: &Server, pool: &WorkerPool) -> (Connection, Receiver<Event>) {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| drop(sender.lock().unwrap().send(event.clone()));
    (server.builder().observer(told).connect(pool).unwrap(), events)
}

fn delete_consumer(connection: &Connection) {
    let deleted = connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
    assert!(deleted.text().unwrap().contains("\"success\":true"), "{deleted:?}");
}

/// Fault 262.
#[test]
fn the_deliveries_of_a_job_that_runs_are_no_attempts_when_it_fails() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let jobs = queue(&server.connect(&pool));
    jobs.enqueue("jobs.a", "job", "1").unwrap();
    let held = Held::new();
    let worker = builder(&jobs).slots(4).ack_wait(SOON).without_heartbeats().max_deliveries(3).build().unwrap();
    thread::scope(|scope| {
        let _drained = DrainAtEnd(&worker);
        let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
        // More often than it may be delivered without an outcome.
        wait_until("it came again and again", || worker.metrics().jobs_duplicated >= 5);
        held.end(Err("for now".to_owned()));
        wait_until("it runs again", || held.ran().len() == 2 || jobs.dead_letters_len().unwrap() > 0);
        held.end(Ok(()));
        wait_until("it is done", || jobs.is_empty().unwrap());
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(held.ran(), [("job".to_owned(), 1), ("job".to_owned(), 2)]);
    assert_eq!((worker.metrics().jobs_acked, jobs.dead_letters_len().unwrap()), (1, 0));
}

/// Fault 260.
#[test]
fn a_job_that_is_delivered_again_while_its_worker_drains_or_pauses_ends_once() {
    for drains in [true, false] {
        let Some(server) = Server::start() else { return };
        let pool = pool(4);
        let jobs = queue(&server.connect(&pool));
        jobs.enqueue("jobs.a", "job", "1").unwrap();
        let held = Held::new();
        let worker = builder(&jobs).slots(4).ack_wait(SOON).without_heartbeats().build().unwrap();
        thread::scope(|scope| {
            let _drained = DrainAtEnd(&worker);
            let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
            wait_until("it came again", || worker.metrics().jobs_duplicated >= 1);
            if drains {
                worker.drain();
            } else {
                worker.pause();
            }
            held.end(Ok(()));
            wait_until("it is done", || jobs.is_empty().unwrap());
            worker.drain();
            assert!(run.join().unwrap().drained);
        });
        assert_eq!(held.ran(), [("job".to_owned(), 1)]);
    }
}

/// Fault 263.
#[test]
fn a_job_whose_letter_is_being_stored_is_not_run_by_a_new_consumer() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let (connection, events) = observed(&server, &pool);
    let jobs = queue(&connection);
    jobs.enqueue("jobs.a", "job", "1").unwrap();
    // Letters arrive here, and are not answered.
    connection.request("$JS.API.STREAM.DELETE.JOBS_DEAD", "").unwrap();
    let (sender, letters) = channel();
    let sender = Mutex::new(sender);
    let silent = connection.subscribe("dead.JOBS").start(move |_| sender.lock().unwrap().send(()).unwrap()).unwrap();
    connection.flush().unwrap();
    let (runs, handler) = failing();
    let worker = builder(&jobs).slots(4).ack_wait(Duration::from_secs(1)).build().unwrap();
    thread::scope(|scope| {
        let _drained = DrainAtEnd(&worker);
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        letters.recv_timeout(LONG).unwrap();
        delete_consumer(&connection);
        wait_until("it came again", || worker.metrics().jobs_delivered >= 2);
        drop(silent);
        drop(queue(&connection));
        wait_until("it has its letter", || jobs.is_empty().unwrap());
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!((runs.load(Ordering::SeqCst), jobs.dead_letters_len().unwrap()), (1, 1), "{:?}", worker.metrics());
    drop(events);
}

/// Fault 263.
#[test]
fn a_job_whose_letter_could_not_be_stored_is_not_run_by_a_new_consumer() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(&server, &pool);
    let jobs = queue(&connection);
    jobs.enqueue("jobs.a", "job", "1").unwrap();
    connection.request("$JS.API.STREAM.DELETE.JOBS_DEAD", "").unwrap();
    let (runs, handler) = failing();
    let is_failing = |event: Event| matches!(event, Event::DeadLetterFailed { .. });
    let first = builder(&jobs).build().unwrap();
    work_until(&first, &pool, handler.clone(), || events.try_iter().any(is_failing));
    delete_consumer(&connection);
    drop(queue(&connection));
    let second = builder(&jobs).build().unwrap();
    work_until(&second, &pool, handler, || jobs.is_empty().unwrap());
    assert_eq!((runs.load(Ordering::SeqCst), jobs.dead_letters_len().unwrap()), (1, 1));
}

/// Fault 263.
#[test]
fn a_job_whose_letter_is_stored_is_not_run_again_though_the_server_did_not_hear_so() {
    let may = "publish: { deny: [\"$JS.ACK.>\"] }";
    let users = format!("users: [ {{ user: ann, password: secret, permissions: {{ {may} }} }} ]");
    let Some(server) = Server::with_config(&format!("authorization {{ {users} }}")) else { return };
    let pool = pool(1);
    let connection = server.builder().user_and_password("ann", "secret").connect(&pool).unwrap();
    let jobs = queue(&connection);
    jobs.enqueue("jobs.a", "job", "1").unwrap();
    let (runs, handler) = failing();
    let worker = builder(&jobs).ack_wait(SOON).max_deliveries(9).build().unwrap();
    work_until(&worker, &pool, handler, || worker.metrics().jobs_redelivered >= 2);
    assert_eq!((runs.load(Ordering::SeqCst), jobs.dead_letters_len().unwrap()), (1, 1), "{:?}", worker.metrics());
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Fault 264.
#[test]
fn outcomes_from_before_the_disk_went_back_touch_no_job_that_has_the_same_place() {
    for slots in [1, 4] {
        let Some(mut server) = Server::start() else { return };
        let pool = pool(4);
        let (connection, events) = observed(&server, &pool);
        let jobs = queue(&connection);
        jobs.enqueue("jobs.a", "first", "first").unwrap();
        let worker = || builder(&jobs).slots(slots).ack_wait(LONG).build().unwrap();
        work_until(&worker(), &pool, |_| Ok(()), || jobs.is_empty().unwrap());
        let (disk, copied) = (server.folder().join("jetstream"), server.folder().join("copied"));
        server.stop();
        copy(&disk, &copied);
        server.start_again();
        wait_until("it is stored", || jobs.enqueue("jobs.a", "old", "old").is_ok());
        let (held, worker) = (Held::new(), worker());
        thread::scope(|scope| {
            let _drained = DrainAtEnd(&worker);
            let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
            wait_until("it runs", || held.ran().len() == 1);
            // As after a power cut, or when a backup takes the place of a broken disk.
            server.kill();
            std::fs::remove_dir_all(&disk).unwrap();
            copy(&copied, &disk);
            server.start_again();
            wait_until("it is stored", || jobs.enqueue("jobs.a", "new", "new").is_ok_and(|new| new.sequence() == 2));
            if slots > 1 {
                wait_until("both run", || held.ran().len() == 2);
            }
            held.end(Ok(()));
            wait_until("the old outcome is given up", || worker.metrics().outcomes_lost == 1);
            assert_eq!(jobs.len().unwrap(), 1, "the new job is there");
            held.end(Ok(()));
            wait_until("the new one is done", || jobs.is_empty().unwrap());
            worker.drain();
            assert!(run.join().unwrap().drained);
        });
        assert_eq!(held.ran(), [("old".to_owned(), 1), ("new".to_owned(), 1)], "with {slots} slots");
        assert_eq!(consumer_figure(&connection, "worker", "num_ack_pending"), Some(0));
        let lost = |event: &Event| matches!(event, Event::AckLost { sequence: 2, .. });
        assert_eq!(events.try_iter().filter(lost).count(), 1);
    }
}

/// Fault 266.
#[test]
fn a_job_that_ends_the_client_ends_the_run_with_an_error_and_the_next_run_sets_it_aside() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let jobs = queue(&server.connect(&pool));
    let headers = "NATS/1.0\r\nName: a\rb\r\n\r\n";
    let bytes = headers.len();
    server.say(&format!("HPUB jobs.a {bytes} {}\r\n{headers}bad\r\n", bytes + 3));
    jobs.enqueue("jobs.a", "good", "good").unwrap();
    let (ran, mut closed) = (Arc::new(Mutex::new(Vec::new())), 0);
    // Each time as a process that is started again: it may be too late, and the server delivers the job first.
    while !jobs.is_empty().unwrap() {
        assert!(closed < 9, "it ends each client: {:?}", jobs.dead_letters_len());
        let seen = Arc::clone(&ran);
        let queue = queue(&server.connect(&pool));
        let worker = builder(&queue).ack_wait(Duration::from_secs(2)).build().unwrap();
        let (run, is_over) = thread::scope(|scope| {
            let _drained = DrainAtEnd(&worker);
            let note = move |job: &Job| {
                seen.lock().unwrap().push(job.sequence());
                Ok(())
            };
            let run = scope.spawn(|| worker.run(&pool, note));
            wait_until("the end", || run.is_finished() || jobs.is_empty().unwrap());
            worker.drain();
            (run.join().unwrap(), jobs.is_empty().unwrap())
        });
        match run {
            Err(WorkerError::ConnectionClosed) => closed += 1,
            other => assert!(is_over && other.unwrap().drained),
        }
    }
    assert!(closed > 0, "the client library takes such headers by now, and needs no care any more");
    assert!(ran.lock().unwrap().iter().all(|sequence| *sequence == 2), "{ran:?}");
    let letters = jobs.dead_letters(9).unwrap();
    let told: Vec<_> = letters.iter().map(|letter| (letter.bytes(), letter.reason())).collect();
    assert_eq!(told, [(&b"bad"[..], Some(DeadLetterReason::Unreadable))]);
}

/// Fault 266.
#[test]
fn a_connection_that_gave_up_for_good_ends_the_run_with_an_error() {
    let Some(mut server) = Server::start() else { return };
    let pool = pool(1);
    let mut settings = ReconnectSettings::default();
    (settings.max_attempts, settings.delay) = (Some(2), Duration::from_millis(1));
    let connection = server.builder().reconnect(settings).connect(&pool).unwrap();
    let jobs = queue(&connection);
    let worker = builder(&jobs).build().unwrap();
    thread::scope(|scope| {
        let _drained = DrainAtEnd(&worker);
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())));
        jobs.enqueue("jobs.a", "job", "1").unwrap();
        wait_until("it works", || worker.metrics().jobs_acked == 1);
        server.kill();
        wait_until("the end", || run.is_finished());
        assert!(matches!(run.join().unwrap(), Err(WorkerError::ConnectionClosed)));
    });
}
