//! Random lifecycles of pools. Two threads and the tasks themselves perform random operations until
//! a thread ends the pool. Then the test checks the counts:
//!
//! - every closure ran, was dropped or was returned, exactly once;
//! - every task has one outcome, the expected one;
//! - every handle resolved.
//!
//! A failure prints its seed. `WORKCREW_SEED=… cargo test --test stress` repeats that lifecycle many
//! times, because the seed determines the operations but not their timing. `WORKCREW_SECONDS` sets
//! how long the test runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(panic = "unwind")]

#[path = "common/rng.rs"]
mod rng;

use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{env, io, process, thread};

use rng::Rng;
use workcrew::{
    CancellationToken, GroupError, GroupPolicy, JoinError, JoinHandle, OnDrop, Overflow, TaskGroup, WeakWorkerPool,
    WorkerPool,
};

/// How long one lifecycle may take. Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the lifecycle of one seed is lived when it is asked for.
const REPLAYS: usize = 5_000;
/// How many snapshots were taken, by the two threads and by tasks.
static SNAPSHOTS: AtomicUsize = AtomicUsize::new(0);
/// How deep tasks make tasks.
const LEVELS: u32 = 3;

/// What became of the closures of one lifecycle.
#[derive(Default)]
struct Tally {
    made: AtomicUsize,
    gone: AtomicUsize,
    returned: AtomicUsize,
    succeeded: AtomicUsize,
    failed: AtomicUsize,
    panicked: AtomicUsize,
}

/// What every closure captures: it counts the making and the end, and may panic at its end.
struct Duty {
    tally: Arc<Tally>,
    is_bomb: bool,
}

impl Duty {
    fn new(tally: &Arc<Tally>, is_bomb: bool) -> Self {
        tally.made.fetch_add(1, SeqCst);
        Self { tally: Arc::clone(tally), is_bomb }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.tally.gone.fetch_add(1, SeqCst);
        if self.is_bomb && !thread::panicking() {
            panic::resume_unwind(Box::new("bomb"));
        }
    }
}

/// What the threads and the tasks of one lifecycle share.
#[derive(Clone)]
struct Life {
    pool: WeakWorkerPool,
    tally: Arc<Tally>,
}

/// What a task does before it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Nothing,
    Yields,
    Acts,
    Fails,
    Panics,
    GoesOffAsABomb,
}

impl Life {
    /// A task that knows what it will do. If it may not fail, it does not.
    fn task(&self, rng: &mut Rng, level: u32, may_fail: bool) -> impl FnOnce() -> Result<u32, ()> + Send + use<> {
        use Deed::*;
        let deed = match rng.pick(&[Nothing, Nothing, Yields, Acts, Acts, Fails, Panics, GoesOffAsABomb]) {
            Fails if !may_fail => Nothing,
            Acts if level == 0 => Yields,
            deed => deed,
        };
        let duty = Duty::new(&self.tally, deed == GoesOffAsABomb);
        let (life, mut rng) = (self.clone(), rng.fork());
        move || {
            let tally = Arc::clone(&duty.tally);
            match deed {
                Nothing => {}
                Yields => thread::yield_now(),
                Acts => life.act(&mut rng, level - 1, &mut Vec::new()),
                Fails => {
                    tally.failed.fetch_add(1, SeqCst);
                    return Err(());
                }
                Panics => {
                    tally.panicked.fetch_add(1, SeqCst);
                    panic::resume_unwind(Box::new("on purpose"));
                }
                GoesOffAsABomb => {
                    tally.panicked.fetch_add(1, SeqCst);
                    drop(duty);
                    unreachable!("a bomb goes off");
                }
            }
            tally.succeeded.fetch_add(1, SeqCst);
            Ok(level)
        }
    }

    /// The same for a plain job.
    fn job(&self, rng: &mut Rng, level: u32) -> impl FnOnce() + Send + use<> {
        let task = self.task(rng, level, false);
        move || {
            let _ = task();
        }
    }

    /// Takes back a closure that was refused.
    fn take_back(&self, closure: impl FnOnce()) {
        self.tally.returned.fetch_add(1, SeqCst);
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(closure)));
    }

    /// Performs one random operation.
    fn act(&self, rng: &mut Rng, level: u32, handles: &mut Vec<JoinHandle<Result<u32, ()>>>) {
        let Some(pool) = self.pool.upgrade() else { return };
        match rng.below(16) {
            0..=2 => {
                let _ = pool.execute(self.job(rng, level)).map_err(|error| self.take_back(error.into_inner()));
            }
            3 => {
                let _ = pool.try_execute(self.job(rng, level)).map_err(|error| self.take_back(error.into_inner()));
            }
            4 => {
                let timeout = rng.pick(&[Duration::ZERO, Duration::from_nanos(1), Duration::MAX]);
                let timed = pool.try_execute_for(timeout, self.job(rng, level));
                let _ = timed.map_err(|error| self.take_back(error.into_inner()));
            }
            5..=7 => match pool.spawn(self.task(rng, level, false)) {
                Ok(handle) => handles.push(handle),
                Err(error) => self.take_back(|| drop(error.into_inner())),
            },
            8 => match pool.try_spawn(self.task(rng, level, false)) {
                Ok(handle) => handles.push(handle),
                Err(error) => self.take_back(|| drop(error.into_inner())),
            },
            9..=10 => self.use_handle(rng, handles),
            11..=12 => self.use_group(rng, level, &pool),
            13 => self.use_scope(rng, level, &pool),
            14 => {
                let metrics = pool.metrics();
                assert!(metrics.tasks_queued <= metrics.tasks_submitted, "{metrics}");
                assert!(pool.queue_len() <= pool.queue_capacity());
                assert!(pool.running().len() <= 4);
                let snapshot = pool.snapshot();
                assert!(snapshot.workers.len() <= 4 && !snapshot.to_string().is_empty(), "{snapshot}");
                SNAPSHOTS.fetch_add(1, SeqCst);
                let _ = pool.wait_idle_timeout(Duration::ZERO);
            }
            _ => match rng.below(12) {
                0 => pool.close(),
                1 => drop(pool.shutdown_now()),
                2 => drop(pool.shutdown_timeout(rng.pick(&[Duration::ZERO, Duration::from_micros(50)]))),
                3 => pool.shutdown(),
                4 | 5 => drop(pool.resize(1 + rng.below(3))),
                _ => thread::yield_now(),
            },
        }
    }

    /// Does something with a handle; it may be gone afterwards.
    fn use_handle(&self, rng: &mut Rng, handles: &mut Vec<JoinHandle<Result<u32, ()>>>) {
        if handles.is_empty() {
            return;
        }
        let place = rng.below(handles.len());
        match rng.below(6) {
            0 => {
                let never_runs = handles[place].cancel();
                assert!(!never_runs || handles[place].is_finished());
            }
            1 => {
                if handles[place].wait_timeout(Duration::ZERO) {
                    settle(handles.swap_remove(place));
                }
            }
            2 => drop(handles.swap_remove(place)),
            _ => settle(handles.swap_remove(place)),
        }
    }

    /// Makes a group, fills it, and waits for it in one of the ways.
    fn use_group(&self, rng: &mut Rng, level: u32, pool: &WorkerPool) {
        let parent = CancellationToken::new();
        let mut group: TaskGroup<Result<u32, ()>> = pool.group();
        if rng.one_in(2) {
            group = group.limit(rng.pick(&[1, 2, 3])).capacity(rng.pick(&[1, 2, 8]));
        }
        group = group
            .policy(rng.pick(&[GroupPolicy::FailFast, GroupPolicy::CollectAll, GroupPolicy::FirstSuccess]))
            .parent(&parent);
        if rng.one_in(8) {
            group = group.deadline(Instant::now() + Duration::from_micros(rng.number() % 100));
        }
        let tasks = rng.below(6);
        for _ in 0..tasks {
            if rng.one_in(3) {
                let tried = group.try_spawn(self.task(rng, level, true));
                let _ = tried.map_err(|error| self.take_back(|| drop(error.into_inner())));
            } else {
                group.spawn(self.task(rng, level, true));
            }
        }
        match rng.below(12) {
            0 => group.cancel(),
            1 => parent.cancel(),
            _ => {}
        }
        let total = group.progress().total;
        match rng.below(7) {
            0 => drop(group),
            1 => assert_eq!(group.wait_all().len(), total),
            2 => drop(group.wait_any()),
            3 => {
                assert_eq!(group.completions().count(), total);
            }
            4 => drop(group.wait_timeout(Duration::ZERO).map_err(TaskGroup::wait)),
            _ => match group.wait() {
                Ok(values) => assert!(values.len() <= total),
                Err(GroupError::WouldDeadlock(_)) => panic!("no task waits for its own group here"),
                Err(_) => assert!(total > 0),
            },
        }
    }

    /// Opens a scope whose tasks borrow.
    fn use_scope(&self, rng: &mut Rng, level: u32, pool: &WorkerPool) {
        let (touched, tasks) = (AtomicUsize::new(0), rng.below(4));
        let outcome = pool.scope(|scope| {
            for _ in 0..tasks {
                let (task, touched) = (self.task(rng, level, true), &touched);
                scope.spawn(move || {
                    touched.fetch_add(1, SeqCst);
                    task().map(drop)
                });
            }
        });
        let touched = touched.into_inner();
        assert!(if outcome.is_ok() { touched == tasks } else { touched <= tasks });
    }
}

/// Joins a task from wherever this is and checks what came of it.
fn settle(handle: JoinHandle<Result<u32, ()>>) {
    match handle.join() {
        Ok(result) => assert!(result.unwrap() <= LEVELS),
        Err(JoinError::Panicked(panic)) => {
            let payload = panic.into_payload();
            assert!(payload.is::<&str>(), "the payload is what was thrown");
        }
        Err(JoinError::Cancelled(_)) => {}
        Err(other) => panic!("{other}"),
    }
}

/// A thread that acts beside the main one, and tells when it is through.
struct Rival {
    give: mpsc::Sender<(Life, Rng, usize)>,
    through: mpsc::Receiver<Result<(), Box<dyn std::any::Any + Send>>>,
}

impl Rival {
    fn new() -> Self {
        let (give, take) = mpsc::channel::<(Life, Rng, usize)>();
        let (tell, through) = mpsc::channel();
        thread::spawn(move || {
            for (life, mut rng, acts) in take {
                let lived = panic::catch_unwind(AssertUnwindSafe(|| {
                    let mut handles = Vec::new();
                    (0..acts).for_each(|_| life.act(&mut rng, LEVELS, &mut handles));
                    handles.into_iter().for_each(settle);
                }));
                drop(life);
                tell.send(lived).unwrap();
            }
        });
        Self { give, through }
    }
}

/// One lifecycle; returns how many closures it made.
fn live(seed: u64, rival: &Rival) -> usize {
    let mut rng = Rng::new(seed);
    let builder = WorkerPool::builder().workers(1 + rng.below(2)).queue_capacity(rng.pick(&[1, 2, 3, 8]));
    let policies =
        [Overflow::Block, Overflow::Block, Overflow::CallerRuns, Overflow::DiscardOldest, Overflow::DiscardNewest];
    let builder = builder.overflow(rng.pick(&policies)).timing(rng.one_in(8));
    let on_drop = rng.pick(&[OnDrop::Drain, OnDrop::Cancel, OnDrop::Detach]);
    let pool = builder.on_drop(on_drop).build().unwrap();
    let life = Life { pool: pool.downgrade(), tally: Arc::default() };
    let has_rival = rng.one_in(2);
    if has_rival {
        let acts = 1 + rng.below(8);
        rival.give.send((life.clone(), rng.fork(), acts)).unwrap();
    }
    let mut handles = Vec::new();
    for _ in 0..rng.below(12) {
        life.act(&mut rng, LEVELS, &mut handles);
    }
    let ends_by_drop = rng.one_in(4);
    if ends_by_drop {
        drop(pool);
        end(rival, has_rival, handles);
        while life.tally.gone.load(SeqCst) < life.tally.made.load(SeqCst) || life.pool.strong_count() > 0 {
            thread::yield_now(); // the last reference may be a task's
        }
    } else {
        match rng.below(4) {
            0 => drop(pool.shutdown_now()),
            1 => drop(pool.shutdown_timeout(Duration::ZERO)),
            _ => pool.close(),
        }
        end(rival, has_rival, handles);
        assert!(pool.wait_idle_timeout(LIMIT));
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        check_metrics(&pool, &life.tally);
    }
    let made = life.tally.made.load(SeqCst);
    assert_eq!(life.tally.gone.load(SeqCst), made, "every closure is gone, and once");
    made
}

/// Waits for the rival and joins what is left.
fn end(rival: &Rival, has_rival: bool, handles: Vec<JoinHandle<Result<u32, ()>>>) {
    handles.into_iter().for_each(settle);
    if has_rival {
        rival.through.recv().unwrap().unwrap_or_else(|payload| panic::resume_unwind(payload));
    }
}

/// Checks that the metrics of a pool that has ended agree with the counts of its closures.
fn check_metrics(pool: &WorkerPool, tally: &Tally) {
    let m = pool.metrics();
    let of = |counter: &AtomicUsize| counter.load(SeqCst) as u64;
    assert_eq!((m.tasks_queued, m.tasks_running), (0, 0), "{m}");
    assert_eq!(m.tasks_submitted, m.tasks_succeeded + m.tasks_failed + m.tasks_panicked + m.tasks_cancelled, "{m}");
    let fates = (of(&tally.succeeded), of(&tally.failed), of(&tally.panicked));
    assert_eq!((m.tasks_succeeded, m.tasks_failed, m.tasks_panicked), fates, "{m}");
    assert_eq!(m.tasks_submitted + m.tasks_refused, of(&tally.made), "{m}");
    assert!(m.tasks_refused >= of(&tally.returned), "{m}");
    assert_eq!(m.hooks_panicked, 0);
}

/// What the watchman looks at.
#[derive(Default)]
struct Progress {
    seed: AtomicU64,
    lives: AtomicUsize,
}

/// Ends the process, with the seed, when a lifecycle hangs.
fn watch() -> Arc<Progress> {
    let progress = Arc::new(Progress::default());
    let watched = Arc::clone(&progress);
    thread::spawn(move || {
        let (mut lives, mut since) = (0, Instant::now());
        loop {
            thread::sleep(Duration::from_millis(500));
            let now = watched.lives.load(SeqCst);
            if now != lives {
                (lives, since) = (now, Instant::now());
            } else if since.elapsed() > LIMIT {
                let seed = watched.seed.load(SeqCst);
                let _ = writeln!(io::stderr(), "hangs; again: WORKCREW_SEED={seed} cargo test --test stress");
                process::abort();
            }
        }
    });
    progress
}

#[test]
fn random_lifecycles_keep_the_counts() {
    let seconds = env::var("WORKCREW_SECONDS").map_or(2.0, |text| text.parse().unwrap());
    let asked = rng::asked_seed();
    let mut seeds = Rng::new(rng::fresh_seed());
    let (rival, progress, since) = (Rival::new(), watch(), Instant::now());
    let (mut lives, mut closures) = (0, 0);
    while asked.map_or_else(|| since.elapsed().as_secs_f64() < seconds, |_| lives < REPLAYS) {
        let seed = asked.unwrap_or_else(|| seeds.number());
        progress.seed.store(seed, SeqCst);
        match panic::catch_unwind(AssertUnwindSafe(|| live(seed, &rival))) {
            Ok(made) => closures += made,
            Err(payload) => {
                eprintln!("failed; again: WORKCREW_SEED={seed} cargo test --test stress");
                panic::resume_unwind(payload);
            }
        }
        lives += 1;
        progress.lives.store(lives, SeqCst);
    }
    assert!(closures > 0, "{lives} lifecycles did nothing");
    let snapshots = SNAPSHOTS.load(SeqCst);
    println!(
        "{lives} lifecycles, {closures} closures, {snapshots} snapshots in {:.1} s",
        since.elapsed().as_secs_f64()
    );
}
