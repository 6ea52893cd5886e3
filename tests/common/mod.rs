//! What the tests share: gates instead of sleeps, values that misbehave, and a limit that turns a hang into a failure.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests fail by panicking, and share by `pub`")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::Path;
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, MutexGuard}; // unlike the standard ones, a sanitizer sees through them
use workcrew::{JoinHandle, WorkerPool, WorkerPoolBuilder};

/// Longer than anything here takes on a busy machine. Only a hang reaches it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A task that says it has started, then waits until it may go on.
#[derive(Clone, Default)]
pub struct Gate {
    state: Arc<(parking_lot::Mutex<GateState>, Condvar)>,
}

#[derive(Default)]
struct GateState {
    started: usize,
    open: bool,
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// What the task does: count itself as started, wait for the opening.
    pub fn pass(&self) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        state.started += 1;
        changed.notify_all();
        while !state.open {
            changed.wait(&mut state);
        }
    }

    pub fn open(&self) {
        let (state, changed) = &*self.state;
        state.lock().open = true;
        changed.notify_all();
    }

    pub fn wait_started(&self, tasks: usize) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        while state.started < tasks {
            let timeout = changed.wait_for(&mut state, LIMIT);
            assert!(!timeout.timed_out(), "only {} of {tasks} tasks started", state.started);
        }
    }

    pub fn started(&self) -> usize {
        self.state.0.lock().started
    }
}

/// All workers of a pool held at a gate.
pub struct BlockedWorkers {
    pub gate: Gate,
}

impl BlockedWorkers {
    pub fn new(pool: &WorkerPool) -> Self {
        let gate = Gate::new();
        for worker in 0..pool.workers() {
            let inside = gate.clone();
            pool.execute(move || inside.pass()).unwrap();
            gate.wait_started(worker + 1);
        }
        Self { gate }
    }

    pub fn open(&self) {
        self.gate.open();
    }
}

impl Drop for BlockedWorkers {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Fills the queue with counted jobs; all workers must be held.
pub fn fill(pool: &WorkerPool, ran: &Counter) -> usize {
    let mut jobs = 0;
    loop {
        let ran = ran.clone();
        match pool.try_execute(move || ran.add()) {
            Ok(()) => jobs += 1,
            Err(error) => {
                assert!(error.is_full());
                return jobs;
            }
        }
    }
}

/// A lock with the face of the standard one. It does not poison, and a sanitizer sees through it.
#[derive(Debug, Default)]
pub struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    pub fn lock(&self) -> Result<MutexGuard<'_, T>, Infallible> {
        Ok(self.0.lock())
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }

    pub fn into_inner(self) -> Result<T, Infallible> {
        Ok(self.0.into_inner())
    }
}

/// Counts across threads.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts its drops.
pub struct DropCounter(pub Counter);

impl Drop for DropCounter {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// Panics when dropped, after counting the drop.
pub struct Bomb(pub Counter);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.add();
        panic!("bomb");
    }
}

/// Starts a thread and returns when it sleeps, as it does once it waits for something. Elsewhere than on Linux it may return
/// earlier, and the test sees less.
pub fn spawn_parked<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(fs::read_link("/proc/thread-self")).unwrap();
        f()
    });
    if let Ok(place) = told.recv().unwrap() {
        let stat = Path::new("/proc").join(place).join("stat");
        let sleeps = || fs::read_to_string(&stat).is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('S'));
        while !thread.is_finished() && !sleeps() {
            thread::yield_now();
        }
    }
    thread
}

/// Fails the test process, loudly, if `f` takes longer than the limit.
pub fn with_watchdog<T>(f: impl FnOnce() -> T) -> T {
    let (done, watched) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("?").to_owned();
    thread::spawn(move || {
        if watched.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Past the test harness, which would swallow it.
            let _ = writeln!(io::stderr(), "{name}: not done within {LIMIT:?}");
            process::abort();
        }
    });
    let result = f();
    drop(done);
    result
}

/// Joins threads of a standard scope by hand: a sanitizer does not see the joining that the scope does by itself.
pub fn join_all<'scope>(threads: impl IntoIterator<Item = thread::ScopedJoinHandle<'scope, ()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// The threads of `in_threads`.
pub struct Threads<'scope, 'env: 'scope> {
    scope: &'scope thread::Scope<'scope, 'env>,
    running: RefCell<Vec<thread::ScopedJoinHandle<'scope, ()>>>,
}

impl<'scope> Threads<'scope, '_> {
    pub fn spawn(&self, f: impl FnOnce() + Send + 'scope) {
        self.running.borrow_mut().push(self.scope.spawn(f));
    }
}

/// A standard scope whose threads are all joined by hand.
pub fn in_threads<'env>(body: impl for<'scope> FnOnce(&Threads<'scope, 'env>)) {
    thread::scope(|scope| {
        let threads = Threads { scope, running: RefCell::default() };
        body(&threads);
        join_all(threads.running.into_inner());
    });
}

/// Runs a scenario on pools of 1, 2 and 8 workers with queues of 1 and 64.
pub fn on_grid(scenario: impl Fn(WorkerPool)) {
    grid(|builder| scenario(builder.build().unwrap()));
}

/// Runs a scenario with builders of 1, 2 and 8 workers and queues of 1 and 64.
pub fn grid(scenario: impl Fn(WorkerPoolBuilder)) {
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            for capacity in [1, 64] {
                scenario(WorkerPool::builder().workers(workers).queue_capacity(capacity));
            }
        }
    });
}

/// Creates a pool with `workers` workers and a queue of `capacity`.
pub fn pool(workers: usize, capacity: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).queue_capacity(capacity).build().unwrap()
}

/// Keeps the panics of workers out of the test output; those of tests stay.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            if !thread.name().is_some_and(|name| name.starts_with("workcrew-")) {
                report(panic);
            }
        }));
    });
}

/// Nests joins: each task spawns the next and joins it. Returns the depth reached.
pub fn nest(pool: &WorkerPool, levels: u32) -> Result<u32, workcrew::JoinError> {
    if levels == 0 {
        return Ok(0);
    }
    // In an `Arc`, because the frames of a debug build grow with the size of each closure.
    let inner = Arc::new(pool.clone());
    let handle: JoinHandle<Result<u32, workcrew::JoinError>> = pool.spawn(move || nest(&inner, levels - 1)).unwrap();
    Ok(handle.join()?? + 1)
}

/// Checks the conservation law on a pool that is quiet.
pub fn assert_counts_add_up(pool: &WorkerPool) {
    let m = pool.metrics();
    let sum =
        m.tasks_succeeded + m.tasks_failed + m.tasks_panicked + m.tasks_cancelled + m.tasks_queued + m.tasks_running;
    assert_eq!(m.tasks_submitted, sum, "{m}");
}

/// Runs one `#[ignore]`d test of this binary in a process of its own. A name that no test bears is a failure: the child
/// would run nothing, and succeed.
pub fn run_child(test: &str, environment: &[(&str, &str)]) -> Output {
    let binary = std::env::current_exe().unwrap();
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    assert_ran_one_test(&output);
    output
}

/// Checks that a child process has found the test that it was to run.
pub fn assert_ran_one_test(child: &Output) {
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains("running 1 test"), "the child has run no test: {child:?}");
}
