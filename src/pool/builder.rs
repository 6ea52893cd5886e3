//! Building a pool: settings are stored as given, checked once in `build`, and final inside.

use std::env;
use std::fmt;

use super::inner::PoolInner;
use super::overflow::Overflow;
use super::shutdown::{self, OnDrop};
use super::worker::{self, WorkerSettings};
use super::worker_pool::{PoolSettings, WorkerPool, check_workers};
use crate::error::BuildError;
use crate::error::panic::TaskPanic;
use crate::observe::observer::Observer;
use crate::sync::{self, Arc, StaticOnceLock};
use crate::task::executor::Hooks;

/// The capacity of a queue unless told otherwise.
const DEFAULT_QUEUE_CAPACITY: usize = 1024;
/// The largest queue: its memory (64 bytes a place) is allocated at once.
const MAX_QUEUE_CAPACITY: usize = 1 << 24;
/// The largest stack of a worker, in bytes.
const MAX_STACK_SIZE: usize = isize::MAX as usize / 2;
/// Overrides the number of workers of the global pool.
const WORKERS_VARIABLE: &str = "WORKCREW_WORKERS";

/// Configures a pool. From [`WorkerPool::builder`].
///
/// Setters only store; [`build`](Self::build) checks. Of a setting made twice, hooks and observers included, the last
/// one counts.
///
/// # Examples
///
/// ```
/// use workcrew::{OnDrop, Overflow, WorkerPool};
///
/// let pool = WorkerPool::builder()
///     .workers(4)
///     .queue_capacity(256)
///     .thread_name("mailer")
///     .overflow(Overflow::CallerRuns)
///     .on_drop(OnDrop::Cancel)
///     .on_panic(|panic| eprintln!("{panic}"))
///     .build()?;
/// assert_eq!((pool.workers(), pool.queue_capacity()), (4, 256));
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct WorkerPoolBuilder {
    /// `None` means one for each CPU.
    workers: Option<usize>,
    queue_capacity: usize,
    worker_settings: WorkerSettings,
    overflow: Overflow,
    on_drop: OnDrop,
    hooks: Hooks,
    timing: bool,
}

impl WorkerPoolBuilder {
    fn new() -> Self {
        Self {
            workers: None,
            queue_capacity: DEFAULT_QUEUE_CAPACITY,
            worker_settings: WorkerSettings { thread_name: "workcrew".to_owned(), ..WorkerSettings::default() },
            overflow: Overflow::default(),
            on_drop: OnDrop::default(),
            hooks: Hooks::default(),
            timing: false,
        }
    }

    /// The number of workers, 1 to 65,536. Unless set, the number of CPUs this process may use (a container's limit
    /// included).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How many jobs the queue can hold, 1 to 16,777,216. Unless set, 1,024. A place takes 64 bytes, allocated by
    /// `build`.
    pub fn queue_capacity(mut self, jobs: usize) -> Self {
        self.queue_capacity = jobs;
        self
    }

    /// Names the threads of the pool. Default: `workcrew`.
    ///
    /// | thread | its name |
    /// |---|---|
    /// | worker | `workcrew-0` and so on, by its index |
    /// | thread of the timers | `workcrew-timer` |
    /// | I/O thread, and its blocking helpers | `workcrew-io`, `workcr-blocking` |
    ///
    /// Linux keeps the first 15 bytes of a thread's name. There a longer name loses the end of its first part, never
    /// the index: worker 11 of `image-processing` is `image-proces-11`. [`std::thread::Thread::name`] says the same as
    /// the system. Pools stay apart by what the cut leaves: at least 9 bytes for workers, 9 for the thread of the
    /// timers. Elsewhere the name is cut where the system would cut it, which on Windows is nowhere.
    ///
    /// A name with a NUL is refused by [`build`](Self::build).
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.worker_settings.thread_name = name.into();
        self
    }

    /// The stack of each worker, in bytes. The operating system may round it up. Unless set, the standard library's
    /// default (2 MiB, or `RUST_MIN_STACK`).
    ///
    /// A worker runs tasks nested in tasks up to 64 deep, and a small stack must have room for that many frames of
    /// *your* tasks. For 64 joins of tasks that do nothing else, a debug build takes less than 192 KiB (x86-64,
    /// rustc 1.95).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.worker_settings.stack_size = Some(bytes);
        self
    }

    /// What `execute` and `spawn` do when the queue is full. Unless set, they block.
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.overflow = policy;
        self
    }

    /// Sets what dropping the pool does. Default: drain and join, which blocks. In async code choose
    /// [`OnDrop::Detach`].
    pub fn on_drop(mut self, policy: OnDrop) -> Self {
        self.on_drop = policy;
        self
    }

    /// Called first on each worker's thread, with the index of the worker. A panic is contained and counted.
    pub fn on_thread_start(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.worker_settings.on_start = Some(Arc::new(f));
        self
    }

    /// Called last on each worker's thread, with the index of the worker. A panic is contained and counted.
    pub fn on_thread_stop(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.worker_settings.on_stop = Some(Arc::new(f));
        self
    }

    /// Called with each panic of a task, at once, on the thread that ran it, before anybody who waits for the task
    /// learns of it. A panic of `f` itself is contained and counted. `f` may submit tasks; hooks are nested at most 16 deep,
    /// see [`Observer`].
    pub fn on_panic(mut self, f: impl Fn(&TaskPanic) + Send + Sync + 'static) -> Self {
        self.hooks.on_panic = Some(Box::new(f));
        self
    }

    /// Sets an observer, which is told of each step of each task.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.hooks.observer = Some(Box::new(observer));
        self
    }

    /// Whether [`Metrics`](crate::Metrics) carry histograms of queue wait and run time. Costs three readings of the
    /// clock more for each task (one is always made, for [`WorkerPool::running`]). Unless set, no.
    pub fn timing(mut self, timing: bool) -> Self {
        self.timing = timing;
        self
    }

    /// Checks the settings and starts the workers.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if a setting is out of range or a thread could not be started; those that had been started are
    /// joined then.
    pub fn build(self) -> Result<WorkerPool, BuildError> {
        let cpus = num_cpus::get();
        sync::set_cpu_count(cpus);
        let workers = self.workers.unwrap_or(cpus);
        check_workers(workers)?;
        self.check()?;
        let inner = Arc::new(PoolInner::new(self.queue_capacity, self.overflow, self.hooks, self.timing));
        let change = inner.workers.set_target(workers);
        if let Err(error) = worker::start(&inner, &self.worker_settings, change.missing) {
            shutdown::shutdown(&inner);
            return Err(error);
        }
        let settings = PoolSettings { workers: self.worker_settings, on_drop: self.on_drop };
        Ok(WorkerPool::assemble(inner, settings))
    }

    /// Checks all settings but the number of workers.
    fn check(&self) -> Result<(), BuildError> {
        let stack_size = self.worker_settings.stack_size.unwrap_or(0);
        if self.queue_capacity == 0 {
            Err(BuildError::ZeroQueueCapacity)
        } else if self.queue_capacity > MAX_QUEUE_CAPACITY {
            Err(BuildError::QueueTooLarge { requested: self.queue_capacity, limit: MAX_QUEUE_CAPACITY })
        } else if self.worker_settings.thread_name.contains('\0') {
            Err(BuildError::InvalidThreadName)
        } else if stack_size > MAX_STACK_SIZE {
            Err(BuildError::StackTooLarge { requested: stack_size, limit: MAX_STACK_SIZE })
        } else {
            Ok(())
        }
    }
}

impl Default for WorkerPoolBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WorkerPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPoolBuilder")
            .field("workers", &self.workers)
            .field("queue_capacity", &self.queue_capacity)
            .field("thread_name", &self.worker_settings.thread_name)
            .field("stack_size", &self.worker_settings.stack_size)
            .field("overflow", &self.overflow)
            .field("on_drop", &self.on_drop)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// # Making pools
impl WorkerPool {
    /// A pool with one worker for each CPU and a queue of 1,024.
    ///
    /// # Errors
    ///
    /// [`BuildError::Spawn`], if a thread could not be started.
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// The settings of a pool, to be changed before it is built.
    pub fn builder() -> WorkerPoolBuilder {
        WorkerPoolBuilder::new()
    }

    /// The pool of the process, built when it is first asked for and never dropped: what is queued when `main` returns
    /// is lost, unless `main` calls [`wait_idle`](Self::wait_idle) or [`shutdown`](Self::shutdown) on it.
    ///
    /// It is built like [`new`](Self::new)'s, but the environment variable `WORKCREW_WORKERS` overrides the number of
    /// workers. Libraries should take a pool from their caller instead.
    ///
    /// # Panics
    ///
    /// If it cannot be built: no thread could be started, or the variable holds no number of workers. The next call
    /// tries again.
    ///
    /// # Examples
    ///
    /// ```
    /// let sum = workcrew::WorkerPool::global().spawn(|| 1 + 2)?.join()?;
    /// assert_eq!(sum, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn global() -> &'static Self {
        static GLOBAL: StaticOnceLock<WorkerPool> = StaticOnceLock::new();
        GLOBAL.get_or_init(|| {
            let built = builder_from_environment().and_then(WorkerPoolBuilder::build);
            built.unwrap_or_else(|error| panic!("the global pool cannot be built: {error}"))
        })
    }
}

fn builder_from_environment() -> Result<WorkerPoolBuilder, BuildError> {
    let builder = WorkerPoolBuilder::new().thread_name("workcrew-global");
    match env::var_os(WORKERS_VARIABLE) {
        None => Ok(builder),
        Some(value) => match value.to_str().and_then(|text| text.trim().parse().ok()) {
            Some(workers) => Ok(builder.workers(workers)),
            None => Err(BuildError::InvalidEnvironment { value: value.to_string_lossy().into_owned() }),
        },
    }
}
