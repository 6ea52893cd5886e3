//! What a worker of a NATS queue begins when: rates, order by key, batches, and classes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../nats_common/mod.rs"]
mod nats_common;

mod batches;
mod classes;
#[cfg(unix)]
mod kills;
mod order;
mod rates;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nats_common::wait_until;
use workcrew::nats::{Connection, Job, JobQueue, NewJob, RunReport, Worker, WorkerBuilder};

/// Longer than a test may take.
const AGES: Duration = Duration::from_secs(600);
/// Long enough for heartbeats on a busy machine.
const ACK_WAIT: Duration = Duration::from_secs(20);
/// The pools of the grid.
const WORKERS: [usize; 3] = [1, 2, 8];

/// Stores jobs of these subjects, in this order. The payload is the position.
fn enqueue<'a>(queue: &JobQueue, subjects: impl IntoIterator<Item = &'a str>) {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let jobs = subjects.into_iter().enumerate().map(|(position, subject)| {
        NewJob::new(subject, &position.to_string()[..], format!("{call}-{position}")).unwrap()
    });
    assert!(queue.enqueue_all(jobs).iter().all(Result::is_ok));
}

/// What handlers have noted, in order.
struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Log<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn push(&self, entry: T) {
        self.lock().push(entry);
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn entries(&self) -> Vec<T> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap()
    }
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Lets handlers pass one by one. Dropped, it lets all pass.
struct Gate {
    open: Option<Sender<()>>,
    pass: Arc<Mutex<Receiver<()>>>,
}

impl Gate {
    fn new() -> Self {
        let (open, pass) = channel();
        Self { open: Some(open), pass: Arc::new(Mutex::new(pass)) }
    }

    /// Lets this many handlers pass.
    fn open(&self, handlers: usize) {
        (0..handlers).for_each(|_| self.open.as_ref().unwrap().send(()).unwrap());
    }

    /// Lets all handlers pass from now on.
    fn open_for_good(&mut self) {
        self.open = None;
    }

    /// Waits for the gate on the thread of a handler.
    fn waiter(&self) -> impl Fn() + Send + Sync + 'static {
        let pass = Arc::clone(&self.pass);
        move || {
            let _ = pass.lock().unwrap().recv();
        }
    }
}

/// The number of the job among those that were enqueued.
fn position(job: &Job) -> usize {
    job.text().unwrap().parse().unwrap()
}

/// A worker of the name `worker`.
fn builder<E>(queue: &JobQueue) -> WorkerBuilder<E> {
    Worker::builder(queue, "worker").ack_wait(ACK_WAIT)
}

/// Drains a worker and returns the report of its run.
fn drained<E>(worker: &Worker<E>, run: std::thread::ScopedJoinHandle<'_, RunReport>) -> RunReport {
    worker.drain();
    run.join().unwrap()
}

/// Works off what is left, by another worker of the same name, and returns the position and the attempt of each job,
/// in the order of their ends.
fn rest_of(queue: &JobQueue) -> Vec<(usize, u32)> {
    let (pool, log) = (nats_common::pool(1), Log::new());
    let worker = builder::<String>(queue).ordered_by(|job| job.subject().to_owned()).build().unwrap();
    let noted = log.clone();
    let handler = move |job: &Job| {
        noted.push((position(job), job.attempt().number()));
        Ok(())
    };
    nats_common::work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    log.entries()
}

/// A number that the server tells of the consumer `worker`.
fn figure(connection: &Connection, name: &str) -> u64 {
    nats_common::consumer_figure(connection, "worker", name).unwrap()
}

/// Waits until jobs that are delivered and not acknowledged are this many.
fn wait_for_in_hand(connection: &Connection, jobs: u64) {
    wait_until("they are in hand", || {
        nats_common::consumer_figure(connection, "worker", "num_ack_pending") == Some(jobs)
    });
}
