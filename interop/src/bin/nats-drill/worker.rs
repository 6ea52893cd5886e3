//! A worker process.

use std::error::Error;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use workcrew::WorkerPool;
use workcrew::nats::{Connection, Event, Job, JobQueue, Worker, WorkerError};
use workcrew::retry::RetryPolicy;

use crate::jobs;
use crate::journal::Journal;

/// Works until SIGTERM.
pub(crate) fn run(urls: &str, journal: &str) -> ExitCode {
    let journal = match Journal::open(journal) {
        Ok(journal) => Arc::new(journal),
        Err(error) => {
            eprintln!("{journal}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match work(urls, &journal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal.note("error", &error);
            ExitCode::FAILURE
        }
    }
}

fn work(urls: &str, journal: &Arc<Journal>) -> Result<(), Box<dyn Error>> {
    // A hanging job keeps its thread. Others take its place when it is given up.
    let pool = WorkerPool::builder().workers(jobs::SLOTS + jobs::ATTEMPTS as usize).build()?;
    let mut addresses = urls.split(',');
    let first = addresses.next().unwrap_or_default();
    let heard = Arc::clone(journal);
    let mut builder = Connection::builder(first)
        .timeout(jobs::CALL_TIMEOUT)
        .retry_on_first_connect()
        .observer(move |event| heard.note(if is_set_aside(event) { "aside" } else { "event" }, event));
    for address in addresses {
        builder = builder.server(address);
    }
    let connection = builder.connect(&pool)?;
    let queue = open(&connection, first.len() < urls.len());
    let worker = worker(&queue)?;
    let drained = worker.clone();
    ctrlc::set_handler(move || drained.drain())?;
    let (running, noted) = (AtomicUsize::new(0), Arc::clone(journal));
    worker.run(&pool, move |job| handle(job, &noted, &running))?;
    // The thread of a hanging job does not end.
    let _ = pool.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// A worker with the settings of the drill.
pub(crate) fn worker(queue: &JobQueue) -> Result<Worker<String>, WorkerError> {
    let policy = RetryPolicy::fixed(Duration::from_millis(200))
        .max_attempts(jobs::ATTEMPTS)
        .retry_if(|error: &String| !error.starts_with("for good"));
    Worker::builder(queue, jobs::CONSUMER)
        .slots(jobs::SLOTS)
        .ack_wait(jobs::ACK_WAIT)
        .stuck_after(jobs::STUCK_AFTER)
        .drain_timeout(Duration::from_secs(10))
        .retry(policy)
        .build()
}

/// Opens the queue, as soon as there is a server that lets it be opened.
pub(crate) fn open(connection: &Connection, is_cluster: bool) -> JobQueue {
    loop {
        let builder = JobQueue::builder(connection, jobs::QUEUE).subject("drill.>");
        match builder.replicas(if is_cluster { 3 } else { 1 }).open() {
            Ok(queue) => return queue,
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn handle(job: &Job, journal: &Journal, running: &AtomicUsize) -> Result<(), String> {
    let id = job.id().unwrap_or(jobs::UNPARSABLE).to_owned();
    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
    if now > jobs::SLOTS {
        journal.note("most", &now);
    }
    let result = match id.as_str() {
        jobs::HANGING => {
            journal.note("begun", &id);
            // It is given up after a while, and then another job runs beside it.
            running.fetch_sub(1, Ordering::SeqCst);
            loop {
                thread::park();
            }
        }
        jobs::ABORTING => {
            journal.note("begun", &id);
            thread::sleep(Duration::from_millis(100));
            process::abort();
        }
        jobs::OVERSIZED => {
            journal.note("begun", &id);
            Err(format!("for good: {}", "x".repeat(500)))
        }
        _ => {
            thread::sleep(jobs::WORK);
            journal.note("done", &id);
            Ok(())
        }
    };
    running.fetch_sub(1, Ordering::SeqCst);
    result
}

fn is_set_aside(event: &Event) -> bool {
    matches!(event, Event::JobSetAside { .. })
}
