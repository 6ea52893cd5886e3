//! A worker process.

use std::error::Error;
use std::io::{self, Read};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use workcrew::WorkerPool;
use workcrew::nats::{Connection, Event, Job, JobQueue, QueueError, Worker, WorkerError};
use workcrew::retry::RetryPolicy;

use crate::calls::allowed;
use crate::jobs;
use crate::record::Journal;
use crate::storms::THROUGH;

/// How long the pool may take to end.
const POOL_END: Duration = Duration::from_secs(1);

/// Works until SIGTERM.
pub(crate) fn run(urls: &str, journal: &str) -> ExitCode {
    let journal = match Journal::open(journal) {
        Ok(journal) => Arc::new(journal),
        Err(error) => {
            eprintln!("{journal}: {error}");
            return ExitCode::FAILURE;
        }
    };
    end_with_the_drill();
    match work(urls, &journal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal.note("error", &error);
            ExitCode::FAILURE
        }
    }
}

/// Ends this process when the drill has ended, which holds the other end of the input.
fn end_with_the_drill() {
    thread::spawn(|| {
        while io::stdin().read(&mut [0]).is_ok_and(|read| read > 0) {}
        process::exit(1);
    });
}

fn work(urls: &str, journal: &Arc<Journal>) -> Result<(), Box<dyn Error>> {
    // A hanging job keeps its thread. Others take its place when it is given up.
    let pool = WorkerPool::builder().workers(jobs::SLOTS + jobs::ATTEMPTS as usize).build()?;
    let addresses: Vec<&str> = urls.split(',').collect();
    let heard = Arc::clone(journal);
    let mut builder = Connection::builder(addresses[0])
        .name(format!("{THROUGH} {}", process::id()))
        .timeout(jobs::CALL_TIMEOUT)
        .retry_on_first_connect()
        .observer(move |event| note(event, &heard));
    for address in &addresses[1..] {
        builder = builder.server(*address);
    }
    let servers = u32::try_from(addresses.len())?;
    let connection = journal.time("connect", allowed(servers), || builder.connect(&pool))?;
    let queue = loop {
        match journal.time("open", allowed(2), || open(&connection, servers > 1)) {
            Ok(queue) => break queue,
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    };
    let worker = worker(&queue)?;
    let drained_at = Arc::new(OnceLock::new());
    let (draining, drained, noted) = (worker.clone(), Arc::clone(&drained_at), Arc::clone(journal));
    ctrlc::set_handler(move || {
        let _ = drained.set(Instant::now());
        noted.time("drain", Duration::from_millis(500), || draining.drain());
    })?;
    let (running, noted) = (AtomicUsize::new(0), Arc::clone(journal));
    worker.run(&pool, move |job| handle(job, &noted, &running))?;
    if let Some(at) = drained_at.get() {
        let (took, limit) = (at.elapsed().as_millis(), (jobs::DRAIN_TIMEOUT + allowed(0)).as_millis());
        journal.note("call", &format!("run-after-drain {took} {limit}"));
    }
    // The thread of a hanging job does not end.
    let _ = journal.time("shutdown_timeout", POOL_END + allowed(0), || pool.shutdown_timeout(POOL_END));
    Ok(())
}

/// Makes a worker with the settings of the drill.
pub(crate) fn worker(queue: &JobQueue) -> Result<Worker<String>, WorkerError> {
    let policy = RetryPolicy::fixed(Duration::from_millis(200))
        .max_attempts(jobs::ATTEMPTS)
        .retry_if(|error: &String| !error.starts_with("for good"));
    Worker::builder(queue, jobs::CONSUMER)
        .slots(jobs::SLOTS)
        .ack_wait(jobs::ACK_WAIT)
        .stuck_after(jobs::STUCK_AFTER)
        .drain_timeout(jobs::DRAIN_TIMEOUT)
        .retry(policy)
        .build()
}

/// Opens the queue.
pub(crate) fn open(connection: &Connection, is_cluster: bool) -> Result<JobQueue, QueueError> {
    let builder = JobQueue::builder(connection, jobs::QUEUE).subject("drill.>");
    builder.replicas(if is_cluster { 3 } else { 1 }).open()
}

fn handle(job: &Job, journal: &Journal, running: &AtomicUsize) -> Result<(), String> {
    let id = job.id().unwrap_or(jobs::UNPARSABLE);
    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
    if now > jobs::SLOTS {
        journal.note("most", &now);
    }
    if jobs::BAD.contains(&id) {
        journal.note("begun", &format!("{id} {}", job.attempt().number()));
    }
    let result = match id {
        jobs::HANGING => {
            // It is given up after a while, and then another job runs beside it.
            running.fetch_sub(1, Ordering::SeqCst);
            loop {
                thread::park();
            }
        }
        jobs::ABORTING => {
            thread::sleep(Duration::from_millis(100));
            process::abort();
        }
        jobs::OVERSIZED => Err(format!("for good: {}", "x".repeat(500))),
        _ => {
            thread::sleep(jobs::WORK);
            journal.note("done", &format!("{id} {} {}", job.sequence(), job.attempt().number()));
            Ok(())
        }
    };
    running.fetch_sub(1, Ordering::SeqCst);
    result
}

fn note(event: &Event, journal: &Journal) {
    match event {
        Event::JobSetAside { sequence, .. } => journal.note("aside", sequence),
        Event::AckLost { sequence, .. } => journal.note("lost", sequence),
        Event::JobsLeftBehind { jobs, .. } => journal.note("left", jobs),
        _ => journal.note("event", event),
    }
}
