//! A worker process whose wall clock is years off, or jumps: under libfaketime.
//!
//! The worker is this very program, called again with what to do in its environment.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod nats_common;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nats_common::{Server, pool, queue, wait_until};
use workcrew::nats::{Connection, Job, Worker};
use workcrew::retry::RetryPolicy;

const ACK_WAIT: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_secs(2);
const YEAR: u64 = 365 * 24 * 60 * 60;

/// The library that changes the clock; `None`, said loudly, if it is not on this machine. Under `CI` that is a failure.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path().join("faketime"));
    let mut files = folders.map(|folder| folder.join("libfaketimeMT.so.1"));
    let found = files.find(|file| file.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is not there; install Debian's package faketime");
        eprintln!("SKIPPED: libfaketime is not there; install Debian's package faketime");
    }
    found
}

/// Returns the year of this process.
fn this_year() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / YEAR
}

/// Not a test: what a worker process does, until it is told to end by SIGTERM. It writes a line for each call of its
/// handler: the job, the attempt, the age in milliseconds. The long job writes each year that it sees meanwhile.
#[test]
fn works_when_it_is_called_again() {
    let Ok(url) = std::env::var("WORKCREW_TEST_URL") else { return };
    let journal = std::env::var("WORKCREW_TEST_JOURNAL").unwrap();
    let journal = Mutex::new(OpenOptions::new().append(true).create(true).open(journal).unwrap());
    let pool = pool(4);
    let connection = Connection::builder(url).connect(&pool).unwrap();
    let policy = RetryPolicy::fixed(Duration::from_millis(100)).max_attempts(3).timeout(Duration::from_secs(60));
    let worker = Worker::builder(&queue(&connection), "worker").ack_wait(ACK_WAIT).retry(policy).build().unwrap();
    let drained = worker.clone();
    ctrlc::set_handler(move || drained.drain()).unwrap();
    let handler = move |job: &Job| {
        let (text, attempt) = (job.text().unwrap().to_owned(), job.attempt().number());
        let write = |line: String| journal.lock().unwrap().write_all(line.as_bytes()).unwrap();
        write(format!("{text} {attempt} {}\n", job.age().as_millis()));
        match (text.as_str(), attempt) {
            ("long", _) => {
                let (since, mut years) = (Instant::now(), BTreeSet::new());
                while since.elapsed() < 3 * ACK_WAIT {
                    if years.insert(this_year()) {
                        write(format!("year 0 {}\n", this_year()));
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }
            ("fails", 1) => return Err("at first"),
            _ => {}
        }
        Ok(())
    };
    assert!(worker.run(&pool, handler).unwrap().drained);
}

/// A worker process whose clock is what the file says, and which is killed at the end.
struct WorkerProcess(Child);

impl WorkerProcess {
    fn start(server: &Server, journal: &Path, clock: &Path, library: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "works_when_it_is_called_again", "--test-threads=1"])
            .env("WORKCREW_TEST_URL", server.url())
            .env("WORKCREW_TEST_JOURNAL", journal)
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", clock)
            .env("FAKETIME_NO_CACHE", "1")
            // The clock that cannot be set stays as it is.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sets the clock of the worker process, in one step.
fn set(clock: &Path, offset: &str) {
    let next = clock.with_extension("next");
    fs::write(&next, offset).unwrap();
    fs::rename(next, clock).unwrap();
}

/// Has a worker do jobs whose clock has these offsets in turn, and returns the years that it saw.
fn years_seen_with(offsets: &[&str]) -> Option<BTreeSet<u64>> {
    let library = library()?;
    let server = Server::start()?;
    let pool = pool(1);
    let jobs = queue(&server.connect(&pool));
    let (journal, clock) = (server.folder().join("journal"), server.folder().join("clock"));
    set(&clock, offsets[0]);
    let lines = || -> Vec<String> {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for offset in offsets.iter().cycle().take_while(|_| !is_over.load(Ordering::SeqCst)) {
                set(&clock, offset);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let mut process = WorkerProcess::start(&server, &journal, &clock, &library);
        let since = Instant::now();
        jobs.enqueue_after(DELAY, "jobs.a", "later", "later").unwrap();
        for text in ["long", "fails", "plain"] {
            jobs.enqueue("jobs.a", text, text).unwrap();
        }
        wait_until("the delayed job runs", || lines().iter().any(|line| line.starts_with("later ")));
        assert!(since.elapsed() >= DELAY, "too early: {:?}", since.elapsed());
        wait_until("all is done", || jobs.is_empty().unwrap());
        assert!(Command::new("kill").arg(process.0.id().to_string()).status().unwrap().success());
        assert!(process.0.wait().unwrap().success());
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(jobs.dead_letters_len().unwrap(), 0, "no deadline was over");
    let lines: Vec<Vec<_>> = lines().iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
    let (years, calls): (Vec<_>, Vec<_>) = lines.iter().partition(|words| words[0] == "year");
    let mut ran: Vec<_> = calls.iter().map(|words| format!("{} {}", words[0], words[1])).collect();
    ran.sort();
    assert_eq!(ran, ["fails 1", "fails 2", "later 1", "long 1", "plain 1"]);
    for words in calls {
        let (age, limit) = (words[2].parse::<u64>().unwrap(), nats_common::LONG.as_millis() as u64);
        assert!(age < limit && (words[0] != "later" || age >= DELAY.as_millis() as u64), "{words:?}");
    }
    Some(years.iter().map(|words| words[2].parse().unwrap()).collect())
}

/// Fault 265.
#[test]
fn a_worker_whose_clock_is_ten_years_off_keeps_delays_deadlines_and_heartbeats() {
    for (offset, is_ahead) in [("+3650d", true), ("-3650d", false)] {
        let Some(years) = years_seen_with(&[offset]) else { return };
        assert!(
            years.iter().all(|year| year.abs_diff(this_year()) >= 9 && (*year > this_year()) == is_ahead),
            "{years:?}"
        );
    }
}

/// Fault 265.
#[test]
fn a_worker_whose_clock_jumps_by_years_keeps_delays_deadlines_and_heartbeats() {
    let Some(years) = years_seen_with(&["+3650d", "-3650d", "+1d", "-1s", "+0"]) else { return };
    assert!(years.len() >= 3, "it jumped: {years:?}");
}
