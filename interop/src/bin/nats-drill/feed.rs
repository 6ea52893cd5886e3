//! Enqueues the good jobs from several threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use workcrew::nats::JobQueue;

use crate::calls::{self, Calls};
use crate::jobs;
use crate::record;

/// How many jobs may be stored and not yet done, so that jobs are enqueued all day.
const AHEAD: usize = 2_000;
/// How many threads enqueue.
pub(crate) const THREADS: usize = 4;

/// The good jobs that are to be enqueued, and those that were.
#[derive(Debug)]
pub(crate) struct Feed {
    todo: Mutex<VecDeque<usize>>,
    accepted: Mutex<BTreeSet<usize>>,
    /// Held for reading by each call, for writing while the stream is made anew.
    gate: RwLock<()>,
    /// The jobs with a call that failed: the job may be stored. From the first such call, until a
    /// call was answered; `u64::MAX` while none was.
    unsure: Mutex<BTreeMap<usize, (u64, u64)>>,
    /// How many jobs were done, as far as the drill has seen.
    pub(crate) done: AtomicUsize,
    /// How many jobs may be stored or done until the plan has gone on.
    pub(crate) limit: AtomicUsize,
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
            unsure: Mutex::default(),
            done: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Enqueues until the day is over.
    pub(crate) fn run(&self, queue: &JobQueue, calls: &Calls) {
        while !self.is_over.load(Ordering::SeqCst) {
            let stored = lock(&self.accepted).len();
            let limit = self.limit.load(Ordering::SeqCst).min(self.done.load(Ordering::SeqCst) + AHEAD);
            let next = if stored < limit { lock(&self.todo).pop_front() } else { None };
            match next {
                Some(number) => self.enqueue(queue, number, calls),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn enqueue(&self, queue: &JobQueue, number: usize, calls: &Calls) {
        while !self.is_over.load(Ordering::SeqCst) {
            let held = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let since = record::now();
            let id = jobs::good(number);
            let enqueued = calls.time("enqueue", calls::allowed(1), || queue.enqueue(jobs::SUBJECT, "x", id));
            if enqueued.is_ok() {
                if let Some((_, until)) = lock(&self.unsure).get_mut(&number) {
                    *until = record::now();
                }
                lock(&self.accepted).insert(number);
                return;
            }
            lock(&self.unsure).entry(number).or_insert((since, u64::MAX)).1 = u64::MAX;
            drop(held);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the jobs that the store has confirmed so far.
    pub(crate) fn accepted(&self) -> BTreeSet<usize> {
        lock(&self.accepted).clone()
    }

    /// Returns the jobs with a failed call, see [`Feed::unsure`].
    pub(crate) fn unsure(&self) -> BTreeMap<usize, (u64, u64)> {
        lock(&self.unsure).clone()
    }

    /// Runs `f` while no job is being enqueued.
    pub(crate) fn held_back<T>(&self, f: impl FnOnce() -> T) -> T {
        let _held = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        f()
    }

    /// Has these jobs enqueued again.
    pub(crate) fn enqueue_again(&self, numbers: &BTreeSet<usize>) {
        lock(&self.accepted).retain(|number| !numbers.contains(number));
        lock(&self.todo).extend(numbers);
    }
}
