//! The run of a worker: it ends in its time even if the client's channel is full, asks for the next job as it tells an
//! outcome, and changes while it works.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

mod nats_common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nats_common::{LONG, Server, consumer_figure, pool, queue, wait_until};
use workcrew::CancelReason;
use workcrew::nats::{Connection, Event, Job, JobQueue, QueueError, Worker};
use workcrew::retry::RetryPolicy;

/// The time for an answer.
const SHORT: Duration = Duration::from_secs(1);
/// Longer than a test may take.
const AGES: Duration = Duration::from_secs(600);

/// Publishes from several threads while `body` runs, so that the client's channel stays full once nothing leaves it.
fn flooded<R>(connection: &Connection, body: impl FnOnce() -> R) -> R {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let _ = connection.publish("flood", &[0_u8; 4_096]);
                }
            });
        }
        let result = body();
        is_over.store(true, Ordering::SeqCst);
        result
    })
}

fn enqueue(queue: &JobQueue, jobs: usize) {
    for number in 0..jobs {
        // A busy machine may answer late; the same id is stored once.
        let enqueued = || queue.enqueue("jobs.a", &number.to_string()[..], number.to_string()).is_ok();
        wait_until("it is stored", enqueued);
    }
}

/// Handlers that end when they are told to, and what they ran.
struct Held {
    ran: Arc<Mutex<Vec<(String, u32)>>>,
    open: Sender<()>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Held {
    fn new() -> Self {
        let (open, gate) = channel();
        Self { ran: Arc::default(), open, gate: Arc::new(Mutex::new(gate)) }
    }

    fn handler(&self) -> impl Fn(&Job) -> Result<(), String> + Send + Sync + 'static {
        let (ran, gate) = (Arc::clone(&self.ran), Arc::clone(&self.gate));
        move |job| {
            ran.lock().unwrap().push((job.text().unwrap().to_owned(), job.attempt().number()));
            let _ = gate.lock().unwrap().recv();
            Ok(())
        }
    }

    /// Has as many end.
    fn end(&self, jobs: usize) {
        (0..jobs).for_each(|_| self.open.send(()).unwrap());
    }

    fn begun(&self) -> usize {
        self.ran.lock().unwrap().len()
    }
}

/// Ends the run of a worker whose test has failed.
struct EndsRun<'a>(&'a Worker<String>, Option<&'a Held>);

impl Drop for EndsRun<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.drain();
            self.1.into_iter().for_each(|held| held.end(100));
        }
    }
}

/// Works off what is there, by a worker of the same name, and returns the numbers of the attempts.
fn attempts_of_the_rest(queue: &JobQueue, ack_wait: Duration) -> Vec<u32> {
    let (pool, seen) = (pool(1), Arc::new(Mutex::new(Vec::new())));
    let worker = Worker::<String>::builder(queue, "worker").ack_wait(ack_wait).build().unwrap();
    let note = {
        let seen = Arc::clone(&seen);
        move |job: &Job| {
            seen.lock().unwrap().push(job.attempt().number());
            Ok(())
        }
    };
    nats_common::work_until(&worker, &pool, note, || queue.is_empty().unwrap());
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// Fault 250.
#[test]
fn with_the_clients_channel_full_and_the_server_mute_a_drain_ends_when_its_outcomes_are_given_up() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let (events, heard) = channel();
    let events = Mutex::new(events);
    let connection = server
        .builder()
        .timeout(SHORT)
        .ping_interval(LONG)
        .observer(move |event: &Event| drop(events.lock().unwrap().send(format!("{event:?}"))))
        .connect(&pool)
        .unwrap();
    let keeper = nats_common::pool(1);
    enqueue(&nats_common::queue(&server.connect(&keeper)), 3_000);
    let queue = queue(&connection);
    let ack_wait = Duration::from_secs(1);
    let worker = Worker::<String>::builder(&queue, "worker").slots(64).ack_wait(ack_wait).drain_timeout(AGES);
    let worker = worker.build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        let ended = flooded(&connection, || {
            wait_until("jobs are done", || worker.metrics().jobs_acked > 100);
            server.freeze();
            wait_until("outcomes are given up", || worker.metrics().outcomes_lost > 0);
            worker.drain();
            let since = Instant::now();
            wait_until("the run has ended", || run.is_finished());
            since.elapsed()
        });
        assert!(ended < Duration::from_secs(10), "{ended:?}");
        assert!(run.join().unwrap().drained);
    });
    assert!(heard.try_iter().any(|event| event.contains("AckLost")));
    assert_eq!(worker.metrics().jobs_in_flight, 0);
    server.signal("CONT");
}

/// Fault 251.
#[test]
fn with_the_clients_channel_full_clearing_finished_jobs_fails_in_its_time() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.builder().timeout(SHORT).ping_interval(LONG).connect(&pool).unwrap();
    let queue = queue(&connection);
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    server.freeze();
    let (cleared, took) = flooded(&connection, || {
        wait_until("the channel is full", || connection.publish("flood", &[0_u8; 4_096]).is_err());
        let since = Instant::now();
        let (done, answer) = channel();
        thread::spawn(move || drop(done.send(worker.clear_finished())));
        (answer.recv_timeout(LONG), since.elapsed())
    });
    assert!(matches!(cleared, Ok(Err(QueueError::Unavailable(_)))), "{cleared:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    server.signal("CONT");
}

/// A proxy between a client and its server.
struct Proxy {
    port: u16,
    faults: Arc<Faults>,
}

/// What a proxy does to the messages of the server.
#[derive(Default)]
struct Faults {
    /// Loses the answers to acknowledgements: the only messages without a byte.
    loses_answers: AtomicBool,
    /// Loses everything.
    is_mute: AtomicBool,
    /// Is slow.
    is_slow: AtomicBool,
}

impl Proxy {
    fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), server.port);
        let proxy = Self { port, faults: Arc::default() };
        let faults = Arc::clone(&proxy.faults);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut up, &mut down));
                let faults = Arc::clone(&faults);
                thread::spawn(move || Self::pass(server, client, &faults));
            }
        });
        proxy
    }

    fn pass(server: TcpStream, mut client: TcpStream, faults: &Faults) -> Option<()> {
        let mut server = BufReader::new(server);
        loop {
            let mut frame = Vec::new();
            server.read_until(b'\n', &mut frame).ok().filter(|read| *read > 0)?;
            let line = String::from_utf8_lossy(&frame).trim_end().to_owned();
            let mut is_answer = false;
            if line.starts_with("MSG ") || line.starts_with("HMSG ") {
                let length: usize = line.rsplit(' ').next()?.parse().ok()?;
                let mut rest = vec![0; length + 2];
                server.read_exact(&mut rest).ok()?;
                frame.extend(rest);
                is_answer = line.starts_with("MSG ") && length == 0;
            }
            if faults.is_slow.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(100));
            }
            let is_lost = is_answer && faults.loses_answers.load(Ordering::SeqCst);
            if !is_lost && !faults.is_mute.load(Ordering::SeqCst) {
                client.write_all(&frame).ok()?;
            }
        }
    }

    fn lose_answers(&self, loses: bool) {
        self.faults.loses_answers.store(loses, Ordering::SeqCst);
    }
}

/// One slot and two jobs: the first is done and its acknowledgement never answered, the second has come.
fn with_a_job_in_the_line(ack_wait: Duration, body: impl FnOnce(&Proxy, &Worker<String>, &Held, &JobQueue)) {
    let Some(server) = Server::start() else { return };
    let (proxy, keeper, pool) = (Proxy::of(&server), pool(1), pool(1));
    let direct = queue(&server.connect(&keeper));
    let connection =
        Connection::builder(format!("127.0.0.1:{}", proxy.port)).timeout(3 * SHORT).connect(&pool).unwrap();
    let worker = Worker::<String>::builder(&queue(&connection), "worker").ack_wait(ack_wait).build().unwrap();
    enqueue(&direct, 2);
    let held = Held::new();
    proxy.lose_answers(true);
    thread::scope(|scope| {
        let _ends = EndsRun(&worker, Some(&held));
        let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
        wait_until("the first runs", || held.begun() == 1);
        // So the second comes some time after the outcome of the first is known.
        proxy.faults.is_slow.store(true, Ordering::SeqCst);
        held.end(1);
        wait_until("the second has come", || worker.metrics().jobs_delivered == 2);
        wait_until("the server has taken the first", || direct.len().unwrap() == 1);
        assert_eq!((held.begun(), worker.metrics().jobs_in_flight), (1, 1), "the second waits");
        body(&proxy, &worker, &held, &direct);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
}

/// Fault 252.
#[test]
fn the_next_job_is_asked_for_with_the_acknowledgement_and_a_drain_gives_it_back_unrun() {
    with_a_job_in_the_line(AGES, |proxy, worker, held, queue| {
        worker.drain();
        let direct = || queue.len().unwrap() == 1;
        wait_until("it is still stored", direct);
        proxy.lose_answers(false);
        wait_until("it is given back", || worker.metrics().jobs_returned == 1);
        assert_eq!(held.begun(), 1);
        assert_eq!(attempts_of_the_rest(queue, AGES), [1]);
    });
}

/// Fault 253.
#[test]
fn an_acknowledgement_without_an_answer_is_sent_again_and_then_the_job_behind_it_runs_once() {
    with_a_job_in_the_line(AGES, |proxy, worker, held, queue| {
        proxy.lose_answers(false);
        wait_until("the second runs", || held.begun() == 2);
        held.end(1);
        wait_until("both are done", || worker.metrics().jobs_acked == 2 && queue.is_empty().unwrap());
        let metrics = worker.metrics();
        assert_eq!((held.begun(), metrics.jobs_in_flight_max, metrics.outcomes_lost), (2, 1, 0));
    });
}

/// Fault 558.
#[test]
fn a_job_that_has_waited_until_the_server_is_about_to_give_it_to_another_worker_does_not_begin() {
    let ack_wait = 3 * SHORT;
    with_a_job_in_the_line(ack_wait, |proxy, worker, held, queue| {
        proxy.faults.is_mute.store(true, Ordering::SeqCst);
        wait_until("the outcome of the first is given up, so there is a slot", || worker.metrics().outcomes_lost == 1);
        wait_until("the second is given up, too", || worker.metrics().jobs_in_flight == 0);
        assert_eq!(attempts_of_the_rest(queue, ack_wait).len(), 1);
        assert_eq!(held.begun(), 1);
    });
}

/// A worker whose handlers are held, while it runs.
fn with_a_worker(workers: usize, slots: usize, jobs: usize, body: impl FnOnce(&Connection, &Worker<String>, &Held)) {
    let Some(server) = Server::start() else { return };
    let pool = pool(workers);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, jobs);
    let worker = Worker::<String>::builder(&queue, "worker").slots(slots).ack_wait(AGES).build().unwrap();
    let held = Held::new();
    thread::scope(|scope| {
        let _ends = EndsRun(&worker, Some(&held));
        let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
        wait_until("the worker runs", || worker.metrics().slots == slots);
        body(&connection, &worker, &held);
        held.end(jobs);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(worker.metrics().slots, 0);
}

/// Fault 254.
#[test]
fn slots_that_are_added_are_filled_at_once_and_those_that_are_taken_away_stay_empty() {
    with_a_worker(4, 1, 9, |_, worker, held| {
        wait_until("one runs", || held.begun() == 1);
        worker.set_slots(3).unwrap();
        wait_until("three run", || held.begun() == 3);
        worker.set_slots(1).unwrap();
        wait_until("it is so", || worker.metrics().slots == 1);
        for ended in 1..=8 {
            held.end(1);
            wait_until("one more is done", || worker.metrics().jobs_acked == ended);
            let begun = if ended < 3 { 3 } else { ended + 1 };
            wait_until("one runs", || held.begun() as u64 == begun);
            assert_eq!(worker.metrics().jobs_in_flight as u64, begun - ended);
        }
        assert_eq!(worker.metrics().jobs_in_flight_max, 3);
    });
}

/// Fault 255.
#[test]
fn fewer_slots_give_back_at_once_what_has_not_begun_and_count_no_attempt() {
    with_a_worker(1, 4, 4, |_, worker, held| {
        wait_until("all slots are taken", || worker.metrics().jobs_in_flight == 4 && held.begun() == 1);
        worker.set_slots(1).unwrap();
        wait_until("three are given back", || worker.metrics().jobs_returned == 3);
        assert_eq!((worker.metrics().jobs_in_flight, held.begun()), (1, 1));
        held.end(4);
        wait_until("all are done", || worker.metrics().jobs_acked == 4);
        assert!(held.ran.lock().unwrap().iter().all(|(_, attempt)| *attempt == 1), "{:?}", held.ran);
    });
}

/// Fault 256.
#[test]
fn a_number_of_slots_that_cannot_be_is_refused_by_name_and_changes_nothing() {
    with_a_worker(1, 2, 0, |_, worker, _| {
        for slots in [0, (1 << 20) + 1, usize::MAX] {
            assert_eq!(worker.set_slots(slots).unwrap_err().field(), "slots");
        }
        assert_eq!(worker.metrics().slots, 2);
        worker.set_slots(1 << 20).unwrap();
        wait_until("the most there can be", || worker.metrics().slots == 1 << 20);
    });
}

/// Fault 257.
#[test]
fn a_pause_gives_back_what_has_not_begun_lets_run_what_has_and_asks_for_nothing_until_it_ends() {
    with_a_worker(1, 3, 5, |connection, worker, held| {
        wait_until("all slots are taken", || worker.metrics().jobs_in_flight == 3 && held.begun() == 1);
        worker.pause();
        wait_until("two are given back", || worker.metrics().jobs_returned == 2);
        held.end(1);
        wait_until("the running one is done", || worker.metrics().jobs_acked == 1);
        wait_until("nothing is asked for", || consumer_figure(connection, "worker", "num_waiting") == Some(0));
        let metrics = worker.metrics();
        assert_eq!((metrics.is_paused, metrics.jobs_in_flight, held.begun()), (true, 0, 1));
        let queue = queue(connection);
        queue.enqueue("jobs.a", "late", "late").unwrap();
        assert_eq!((queue.len().unwrap(), worker.metrics().jobs_delivered), (5, metrics.jobs_delivered));
        held.end(5);
        worker.resume();
        wait_until("all are done", || queue.is_empty().unwrap());
        assert!(held.ran.lock().unwrap().iter().all(|(_, attempt)| *attempt == 1), "{:?}", held.ran);
        assert!(!worker.metrics().is_paused);
    });
}

/// Fault 258.
#[test]
fn a_worker_that_is_paused_before_its_run_asks_for_nothing_and_a_drain_ends_a_paused_run() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let is_ready = Arc::new(AtomicUsize::new(0));
    let ready = Arc::clone(&is_ready);
    let note = move |event: &Event| {
        ready.fetch_add(usize::from(matches!(event, Event::ConsumerReady { .. })), Ordering::SeqCst);
    };
    let connection = server.builder().observer(note).connect(&pool).unwrap();
    let queue = queue(&connection);
    enqueue(&queue, 2);
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    let held = Held::new();
    held.end(2);
    worker.pause();
    for resumes in [false, true] {
        let worker = if resumes { Worker::builder(&queue, "worker").build().unwrap() } else { worker.clone() };
        worker.pause();
        thread::scope(|scope| {
            let _ends = EndsRun(&worker, Some(&held));
            let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
            wait_until("the consumer is there", || is_ready.swap(0, Ordering::SeqCst) > 0);
            assert_eq!(consumer_figure(&connection, "worker", "num_waiting"), Some(0));
            assert_eq!(held.begun(), 0);
            if resumes {
                worker.resume();
                wait_until("all are done", || queue.is_empty().unwrap());
            }
            worker.drain();
            assert!(run.join().unwrap().drained);
        });
    }
    assert_eq!(held.begun(), 2);
}

/// Fault 260.
#[test]
fn a_job_that_is_delivered_again_while_it_runs_is_not_started_again_and_ends_once() {
    let Some(server) = Server::start() else { return };
    let pool = pool(4);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, 2);
    let held = Held::new();
    let worker = Worker::<String>::builder(&queue, "worker").slots(4).ack_wait(LONG).build().unwrap();
    thread::scope(|scope| {
        let _ends = EndsRun(&worker, Some(&held));
        let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
        wait_until("both run", || held.begun() == 2);
        // A new consumer delivers each job of the queue, those that run included.
        let deleted = connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
        assert!(deleted.text().unwrap().contains("\"success\":true"), "{deleted:?}");
        wait_until("both came again", || worker.metrics().jobs_duplicated == 2);
        held.end(2);
        wait_until("the queue is empty", || queue.is_empty().unwrap());
        worker.drain();
        run.join().unwrap();
    });
    assert_eq!(held.begun(), 2, "no job was started again: {:?}", held.ran.lock().unwrap());
    let metrics = worker.metrics();
    assert_eq!((metrics.jobs_acked, metrics.outcomes_lost), (2, 0), "{metrics}");
    assert_eq!(consumer_figure(&connection, "worker", "num_ack_pending"), Some(0));
}

/// Fault 260.
#[test]
fn a_job_that_is_delivered_again_while_it_runs_and_then_fails_is_tried_again() {
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, 1);
    let held = Held::new();
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
    let worker = Worker::<String>::builder(&queue, "worker").slots(2).ack_wait(AGES).retry(policy).build().unwrap();
    let fails_first = {
        let handler = held.handler();
        let failed = AtomicBool::new(false);
        move |job: &Job| {
            handler(job)?;
            if failed.swap(true, Ordering::SeqCst) { Ok(()) } else { Err("for now".to_owned()) }
        }
    };
    thread::scope(|scope| {
        let _ends = EndsRun(&worker, Some(&held));
        let run = scope.spawn(|| worker.run(&pool, fails_first).unwrap());
        wait_until("it runs", || held.begun() == 1);
        connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
        wait_until("it came again", || worker.metrics().jobs_duplicated == 1);
        held.end(2);
        wait_until("the queue is empty", || queue.is_empty().unwrap());
        worker.drain();
        run.join().unwrap();
    });
    assert_eq!(held.begun(), 2, "one failed attempt, and one that was done");
    assert_eq!((worker.metrics().jobs_retried, worker.metrics().jobs_acked), (1, 1));
}

/// Fault 284.
#[test]
fn a_drain_without_a_limit_does_not_wait_for_what_a_report_of_the_pool_has_left_behind() {
    for drains in [false, true] {
        let Some(server) = Server::start() else { return };
        let (keeper, pool) = (pool(1), pool(2));
        let direct = queue(&server.connect(&keeper));
        enqueue(&direct, 3);
        let queue = queue(&server.connect(&pool));
        let worker = Worker::<String>::builder(&queue, "worker").slots(2).ack_wait(AGES).drain_timeout(Duration::MAX);
        let worker = worker.build().unwrap();
        let held = Held::new();
        thread::scope(|scope| {
            let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
            wait_until("two run", || held.begun() == 2);
            held.end(1);
            wait_until("the first is done, and the third runs", || held.begun() == 3);
            if drains {
                worker.drain();
            }
            assert_eq!(pool.shutdown_timeout(Duration::from_millis(10)).tasks_running, 2);
            let report = run.join().unwrap();
            assert_eq!((report.drained, report.jobs_left), (false, 2));
            held.end(2);
        });
        wait_until("the first job is done", || direct.len().unwrap() == 2);
    }
}

/// Fault 284.
#[test]
fn a_drain_without_a_limit_waits_for_handlers_that_no_report_has_left_behind() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, 2);
    let worker = Worker::<String>::builder(&queue, "worker").slots(2).ack_wait(AGES).drain_timeout(Duration::MAX);
    let worker = worker.build().unwrap();
    let held = Held::new();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
        wait_until("one runs, and one waits", || held.begun() == 1 && worker.metrics().jobs_delivered == 2);
        let _ = pool.shutdown_now(); // it has no limit that could have passed
        wait_until("the run drains", || worker.metrics().jobs_returned == 1);
        assert!(!run.is_finished());
        held.end(1);
        let report = run.join().unwrap();
        assert_eq!((report.drained, report.jobs_left), (true, 0));
    });
}

/// Fault 481. Heartbeats are asked for only when the server may have no job.
#[test]
fn a_job_that_disappears_before_it_is_delivered_costs_a_moment_and_no_event() {
    let Some(server) = Server::start() else { return };
    let (pool, failures) = (pool(2), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&failures);
    let count = move |event: &Event| {
        counted.fetch_add(usize::from(matches!(event, Event::ConsumerFailed { .. })), Ordering::SeqCst);
    };
    let connection = server.builder().observer(count).connect(&pool).unwrap();
    let queue = queue(&connection);
    let (sender, requests) = channel();
    let sender = Mutex::new(sender);
    let spy = connection.subscribe("$JS.API.CONSUMER.MSG.NEXT.JOBS.worker");
    let _spy = spy.start(move |request| sender.lock().unwrap().send(request.text().unwrap().to_owned()).unwrap());
    let next_request = || requests.recv_timeout(LONG).unwrap();
    enqueue(&queue, 3);
    let held = Held::new();
    let worker = Worker::<String>::builder(&queue, "worker").slots(2).build().unwrap();
    thread::scope(|scope| {
        let _ends = EndsRun(&worker, Some(&held));
        let run = scope.spawn(|| worker.run(&pool, held.handler()).unwrap());
        assert!(next_request().contains("idle_heartbeat"), "nothing is known of the jobs");
        wait_until("both slots are taken", || held.begun() == 2);
        connection.request("$JS.API.STREAM.MSG.DELETE.JOBS", r#"{"seq":3}"#).unwrap();
        held.end(1);
        assert!(!next_request().contains("idle_heartbeat"), "a third job was waiting");
        assert!(next_request().contains("idle_heartbeat"), "the server had none");
        held.end(2);
        enqueue(&queue, 4); // the last is a new one
        wait_until("it has run", || held.begun() == 3);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(failures.load(Ordering::SeqCst), 0);
}

/// Fault 440.
#[test]
fn a_timed_shutdown_of_the_pool_tells_running_jobs_by_their_tokens() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    enqueue(&queue, 1);
    let worker = Worker::<String>::builder(&queue, "worker").ack_wait(AGES).build().unwrap();
    let (sender, reports) = channel();
    let sender = Mutex::new(sender);
    let handler = move |job: &Job| {
        sender.lock().unwrap().send(None).unwrap();
        let _ = job.token().wait_timeout(LONG);
        sender.lock().unwrap().send(job.token().reason()).unwrap();
        Err("told to stop".to_owned())
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        assert_eq!(reports.recv_timeout(LONG), Ok(None));
        let _ = pool.shutdown_timeout(Duration::from_millis(1));
        assert_eq!(reports.recv_timeout(LONG), Ok(Some(CancelReason::ShutDown)));
        run.join().unwrap();
    });
}
