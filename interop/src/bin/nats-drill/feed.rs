//! Enqueues the good jobs from several threads, and times each call.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use workcrew::nats::JobQueue;

use crate::jobs;

/// How many jobs may be stored and not yet done, so that jobs are enqueued all day.
const AHEAD: usize = 2_000;
/// How many threads enqueue.
pub(crate) const THREADS: usize = 4;

/// What is to be enqueued, and what was.
#[derive(Debug)]
pub(crate) struct Feed {
    todo: Mutex<VecDeque<usize>>,
    accepted: Mutex<BTreeSet<usize>>,
    /// Held for reading by each call, for writing while the stream is made anew.
    gate: RwLock<()>,
    longest: Mutex<Duration>,
    pub(crate) failures: AtomicUsize,
    /// How many jobs were done, as far as the drill has seen.
    pub(crate) done: AtomicUsize,
    pub(crate) is_over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    pub(crate) fn new(jobs: usize) -> Self {
        Self {
            todo: Mutex::new((0..jobs).collect()),
            accepted: Mutex::default(),
            gate: RwLock::default(),
            longest: Mutex::default(),
            failures: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Enqueues until the drill is over.
    pub(crate) fn run(&self, queue: &JobQueue) {
        while !self.is_over.load(Ordering::SeqCst) {
            let stored = lock(&self.accepted).len();
            let next =
                if stored < self.done.load(Ordering::SeqCst) + AHEAD { lock(&self.todo).pop_front() } else { None };
            match next {
                Some(number) => self.enqueue(queue, number),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn enqueue(&self, queue: &JobQueue, number: usize) {
        while !self.is_over.load(Ordering::SeqCst) {
            let _held = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let since = Instant::now();
            let enqueued = queue.enqueue(jobs::SUBJECT, "x", jobs::good(number));
            self.timed(since);
            if enqueued.is_ok() {
                lock(&self.accepted).insert(number);
                return;
            }
            self.failures.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Notes how long a call took that began then.
    pub(crate) fn timed(&self, since: Instant) {
        let mut longest = lock(&self.longest);
        *longest = since.elapsed().max(*longest);
    }

    pub(crate) fn longest(&self) -> Duration {
        *lock(&self.longest)
    }

    /// Runs `f` while no job is being enqueued, then has every job enqueued again that was accepted and not done.
    /// Returns how many those are.
    pub(crate) fn start_over(&self, f: impl FnOnce() -> BTreeSet<usize>) -> usize {
        let _held = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let done = f();
        let mut accepted = lock(&self.accepted);
        let lost: Vec<usize> = accepted.difference(&done).copied().collect();
        accepted.retain(|number| done.contains(number));
        lock(&self.todo).extend(&lost);
        lost.len()
    }
}
