//! Two worker processes, of which one is killed, and a server that is restarted meanwhile.
//!
//! The workers are this very program, called again with what to do in its environment.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

mod nats_common;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nats_common::{Server, consumer_figure, pool, queue, wait_until};
use workcrew::nats::{Connection, Job, Worker};

const SLOTS: usize = 4;
/// Longer than any test: what waits for this hangs.
const AGES: Duration = Duration::from_secs(600);

/// A worker process; what it has begun and done it writes into a file, a line each.
struct WorkerProcess {
    process: Child,
}

impl WorkerProcess {
    fn start(server: &Server, journal: &Path, ack_wait: Duration) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "works_when_it_is_called_again", "--nocapture", "--test-threads=1"])
            .env("WORKCREW_TEST_URL", server.url())
            .env("WORKCREW_TEST_JOURNAL", journal)
            .env("WORKCREW_TEST_ACK_WAIT", ack_wait.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self { process: command.spawn().unwrap() }
    }

    /// Tells it to end, by SIGTERM.
    fn terminate(&self) {
        self.signal("TERM");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Ends it where it stands.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        assert!(!self.process.wait().unwrap().success());
    }

    /// Waits for its end; returns whether it ended well.
    fn ended_well(mut self) -> bool {
        self.process.wait().unwrap().success()
    }
}

impl Drop for WorkerProcess {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test: what a worker process does, until it is told to end by SIGTERM.
#[test]
fn works_when_it_is_called_again() {
    let Ok(url) = std::env::var("WORKCREW_TEST_URL") else { return };
    let journal = std::env::var("WORKCREW_TEST_JOURNAL").unwrap();
    let ack_wait = Duration::from_millis(std::env::var("WORKCREW_TEST_ACK_WAIT").unwrap().parse().unwrap());
    let journal = Mutex::new(OpenOptions::new().append(true).create(true).open(journal).unwrap());
    let pool = pool(SLOTS);
    let connection = Connection::builder(url).connect(&pool).unwrap();
    let worker = Worker::<String>::builder(&queue(&connection), "worker").ack_wait(ack_wait).build().unwrap();
    let drained = worker.clone();
    ctrlc::set_handler(move || drained.drain()).unwrap();
    let running = AtomicUsize::new(0);
    let handler = move |job: &Job| {
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        // One call writes one line, however the process ends.
        let line = format!("{} {now}\n", job.id().unwrap());
        thread::sleep(Duration::from_millis(1));
        journal.lock().unwrap().write_all(line.as_bytes()).unwrap();
        running.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    };
    let begun = Instant::now();
    let report = worker.run(&pool, handler).unwrap();
    assert!(report.drained && worker.metrics().jobs_in_flight_max <= SLOTS, "{}", worker.metrics());
    eprintln!("{} returned={} after {:?}", worker.metrics(), worker.metrics().jobs_returned, begun.elapsed());
}

/// How often each job was run, by the journals; and the most that ran at once in one process.
fn read(journals: &[&Path]) -> (BTreeMap<String, u32>, usize) {
    let (mut runs, mut most) = (BTreeMap::new(), 0);
    for journal in journals {
        let Ok(file) = File::open(journal) else { continue };
        for line in BufReader::new(file).lines() {
            let line = line.unwrap();
            let (id, running) = line.split_once(' ').unwrap();
            *runs.entry(id.to_owned()).or_default() += 1;
            most = most.max(running.parse().unwrap());
        }
    }
    (runs, most)
}

fn enqueue_all(connection: &Connection, jobs: usize) {
    let queue = queue(connection);
    thread::scope(|scope| {
        for part in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                for number in (part..jobs).step_by(4) {
                    queue.enqueue("jobs.a", "", number.to_string()).unwrap();
                }
            });
        }
    });
}

#[test]
fn nothing_is_lost_when_a_worker_is_killed_and_the_server_restarted() {
    const JOBS: usize = 10_000;
    let Some(mut server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue_all(&connection, JOBS);
    let paths = ["one", "two"].map(|name| server.folder().join(name));
    let journals = [paths[0].as_path(), paths[1].as_path()];
    let [mut one, two] = journals.map(|journal| WorkerProcess::start(&server, journal, Duration::from_secs(2)));
    let done = || read(&journals).0.len();
    wait_until("both work", || journals.iter().all(|journal| read(&[journal]).0.len() > JOBS / 20));

    one.kill();
    let before_restart = done();
    assert!(before_restart < JOBS, "it was killed in the middle");
    wait_until("the other goes on", || done() > before_restart + JOBS / 20);
    server.stop();
    let at_restart = done();
    assert!(at_restart < JOBS, "the server was stopped in the middle");
    server.start_again();
    wait_until("every job has run", || done() == JOBS);
    wait_until("the queue is empty", || connection.is_connected() && queue.is_empty().is_ok_and(|is_empty| is_empty));
    two.terminate();
    assert!(two.ended_well());

    let (runs, most) = read(&journals);
    assert_eq!(runs.len(), JOBS);
    assert!(most <= SLOTS, "{most} ran at once");
    let again = runs.values().map(|times| *times as usize - 1).sum::<usize>();
    eprintln!("{again} of {JOBS} jobs ran twice; the most at once was {most}");
    // One process was killed with its slots full, and one lost its server with its slots full.
    assert!(again <= 2 * SLOTS, "{again} ran again");
    assert_eq!(queue.dead_letters_len().unwrap(), 0);
}

#[test]
fn a_worker_that_is_told_to_end_under_load_leaves_nothing_unacknowledged() {
    const JOBS: usize = 3_000;
    let Some(server) = Server::start() else { return };
    let pool = pool(2);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue_all(&connection, JOBS);
    let journal = server.folder().join("one");
    let process = WorkerProcess::start(&server, &journal, AGES);
    wait_until("it works", || read(&[&journal]).0.len() > JOBS / 10);
    process.terminate();
    assert!(process.ended_well(), "it drains, and finds that nothing is left");
    let done = read(&[&journal]).0.len();
    assert!(done < JOBS, "it was told in the middle");
    assert_eq!(queue.len().unwrap() as usize, JOBS - done, "what ran is acknowledged, what did not is not");

    // Nothing waits for `ack_wait`: the next worker gets all that is left, each job once.
    let next = Worker::<String>::builder(&queue, "worker").ack_wait(AGES).build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| next.run(&pool, |_| Ok(())).unwrap());
        wait_until("the rest is done", || queue.is_empty().unwrap());
        next.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(next.metrics().jobs_acked as usize, JOBS - done);
    assert_eq!(consumer_figure(&connection, "worker", "num_ack_pending"), Some(0));
}

/// Fault 268.
#[test]
fn a_worker_that_is_suspended_for_longer_than_ack_wait_has_no_more_jobs_run_twice_than_it_has_slots() {
    const JOBS: usize = 4_000;
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue_all(&connection, JOBS);
    let paths = ["one", "two"].map(|name| server.folder().join(name));
    let journals = [paths[0].as_path(), paths[1].as_path()];
    let one = WorkerProcess::start(&server, journals[0], Duration::from_secs(2));
    wait_until("it works", || read(&[journals[0]]).0.len() > JOBS / 20);
    one.signal("STOP");
    assert!(!queue.is_empty().unwrap(), "it was suspended in the middle");
    let two = WorkerProcess::start(&server, journals[1], Duration::from_secs(2));
    wait_until("another one has done all", || queue.is_empty().unwrap());
    one.signal("CONT");
    enqueue_all(&connection, JOBS + JOBS / 4); // the ids that are there are stored once
    wait_until("both have done the rest", || queue.is_empty().unwrap());
    for process in [one, two] {
        process.terminate();
        assert!(process.ended_well());
    }
    let (runs, most) = read(&journals);
    assert_eq!(runs.len(), JOBS + JOBS / 4);
    assert!(most <= SLOTS, "{most} ran at once");
    let again = runs.values().map(|times| *times as usize - 1).sum::<usize>();
    assert!(again <= SLOTS, "{again} ran again");
    assert_eq!(consumer_figure(&connection, "worker", "num_ack_pending"), Some(0));
}
