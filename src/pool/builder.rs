//! The builder of pools. Setters store, `build` checks once, and the settings are final from then
//! on.

use std::env;
use std::error::Error;
use std::fmt;

use super::inner::PoolInner;
use super::overflow::Overflow;
use super::shutdown::{self, OnDrop};
use super::stuck::{self, StuckSettings};
use super::worker::{self, WorkerSettings};
use super::worker_pool::{PoolSettings, WorkerPool, check_workers};
use super::worker_start::{StartHook, StartReport};
use crate::error::BuildError;
use crate::error::panic::TaskPanic;
use crate::observe::observer::Observer;
use crate::priority::Priority;
use crate::queue::QueueSettings;
use crate::sync::{self, Arc, StaticOnceLock};
use crate::task::executor::Hooks;

/// The default capacity of a queue.
const DEFAULT_QUEUE_CAPACITY: usize = 1024;
/// The largest capacity of a queue. Its memory, 64 bytes for each place, is allocated at once.
const MAX_QUEUE_CAPACITY: usize = 1 << 24;
/// The largest stack of a worker, in bytes.
const MAX_STACK_SIZE: usize = isize::MAX as usize / 2;
/// The environment variable that overrides the number of workers of the global pool.
const WORKERS_VARIABLE: &str = "WORKCREW_WORKERS";

/// A builder of pools. Returned by [`WorkerPool::builder`].
///
/// Setters only store, and [`build`](Self::build) checks the settings. If a setter is called twice,
/// the last call counts; this includes hooks. Each call of [`observer`](Self::observer) adds one.
///
/// | setting | default |
/// |---|---|
/// | [`workers`](Self::workers) | the number of CPUs that this process may use |
/// | [`queue_capacity`](Self::queue_capacity) | 1,024 jobs |
/// | [`priority_capacity`](Self::priority_capacity) | the `queue_capacity` |
/// | [`background_workers`](Self::background_workers) | all workers |
/// | [`overflow`](Self::overflow) | [`Overflow::Block`] |
/// | [`on_drop`](Self::on_drop) | [`OnDrop::Drain`] |
/// | [`thread_name`](Self::thread_name) | `workcrew` |
/// | [`stack_size`](Self::stack_size) | that of the standard library: 2 MiB, or `RUST_MIN_STACK` |
/// | [`timing`](Self::timing) | `false` |
/// | [`on_thread_start`](Self::on_thread_start), or [`try_on_thread_start`](Self::try_on_thread_start) | no hook |
/// | [`on_thread_stop`](Self::on_thread_stop) | no hook |
/// | [`on_panic`](Self::on_panic), [`observer`](Self::observer), [`propagate`](Self::propagate), [`on_stuck`](Self::on_stuck) | none |
/// | `inject`, `extract`, `tracing`, with the features `grpc`, `nats`, `tracing` | none, none, `false` |
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
    /// `None` means one worker for each CPU.
    workers: Option<usize>,
    queue_capacity: usize,
    /// The capacities of `High` and `Background`; `None` means `queue_capacity`.
    high_capacity: Option<usize>,
    background_capacity: Option<usize>,
    /// How many workers run tasks of `Background`; `None` means all.
    background_workers: Option<usize>,
    worker_settings: WorkerSettings,
    overflow: Overflow,
    on_drop: OnDrop,
    pub(super) hooks: Hooks,
    timing: bool,
    pub(super) stuck: StuckSettings,
}

impl WorkerPoolBuilder {
    fn new() -> Self {
        Self {
            workers: None,
            queue_capacity: DEFAULT_QUEUE_CAPACITY,
            high_capacity: None,
            background_capacity: None,
            background_workers: None,
            worker_settings: WorkerSettings { thread_name: "workcrew".to_owned(), ..WorkerSettings::default() },
            overflow: Overflow::default(),
            on_drop: OnDrop::default(),
            hooks: Hooks::default(),
            timing: false,
            stuck: StuckSettings::default(),
        }
    }

    /// Sets the number of workers, from 1 to 65,536.
    ///
    /// *Default: the number of CPUs that this process may use, limits of a container included.*
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the capacity of the queue, from 1 to 16,777,216 jobs. `build` allocates 64 bytes for
    /// each.
    ///
    /// *Default: 1,024.*
    pub fn queue_capacity(mut self, jobs: usize) -> Self {
        self.queue_capacity = jobs;
        self
    }

    /// Sets the capacity of the queue of one [class](Priority), from 1 to 16,777,216 jobs. For
    /// `Normal` it is the same setting as [`queue_capacity`](Self::queue_capacity).
    ///
    /// *Default: the `queue_capacity`.* The queues of `High` and `Background` are allocated when
    /// the first task of the class is submitted.
    ///
    /// A full class delays and refuses no task of another class.
    pub fn priority_capacity(mut self, priority: Priority, jobs: usize) -> Self {
        match priority {
            Priority::High => self.high_capacity = Some(jobs),
            Priority::Normal => self.queue_capacity = jobs,
            Priority::Background => self.background_capacity = Some(jobs),
        }
        self
    }

    /// Sets how many workers run tasks of the class [`Priority::Background`] at the same time. The
    /// other workers stay free for the other classes. *Default: all workers.*
    ///
    /// A number that is not smaller than that of the workers keeps no worker free.
    /// [`build`](Self::build) returns an error for zero: such tasks would never start.
    ///
    /// The limit is for tasks that workers take from the queue. It does not concern a task that
    /// runs inline, because the queue of its class is full or because a worker waits for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{BuildError, Priority, WorkerPool};
    ///
    /// let builder = WorkerPool::builder().workers(8).background_workers(2);
    /// let pool = builder.priority_capacity(Priority::Background, 10_000).build()?;
    /// assert_eq!(pool.queue_capacity_of(Priority::Background), 10_000);
    /// let none = WorkerPool::builder().background_workers(0).build();
    /// assert!(matches!(none, Err(BuildError::ZeroBackgroundWorkers)));
    /// # Ok::<(), BuildError>(())
    /// ```
    pub fn background_workers(mut self, workers: usize) -> Self {
        self.background_workers = Some(workers);
        self
    }

    /// Sets the first part of the names of the pool's threads, which also names the pool in a
    /// [snapshot](crate::WorkerPool::snapshot).
    ///
    /// *Default: `workcrew`.* The threads then have these names:
    ///
    /// | thread | name |
    /// |---|---|
    /// | worker | `workcrew-0` and so on, by its index |
    /// | timer thread | `workcrew-timer` |
    /// | I/O thread and its blocking helpers | `workcrew-io`, `workcr-blocking` |
    ///
    /// Linux keeps the first 15 bytes of a thread's name. A longer name is shortened at the end of
    /// its first part, never at its index: worker 11 of `image-processing` is `image-proces-11`.
    /// [`std::thread::Thread::name`] returns the shortened name, too. At least 9 bytes of the first
    /// part remain for workers and for the timer thread, so choose names that differ in these.
    /// Other systems have limits of their own; Windows has none.
    ///
    /// [`build`](Self::build) returns an error for a name that contains a NUL.
    #[doc(alias = "name")]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.worker_settings.thread_name = name.into();
        self
    }

    /// Sets the stack size of each worker, in bytes. The operating system rounds small sizes up,
    /// zero included.
    ///
    /// *Default: that of the standard library (2 MiB, or `RUST_MIN_STACK`).*
    ///
    /// A worker may run tasks nested up to 64 deep, so a small stack must have room for the frames
    /// of that many of *your* tasks. In a debug build, 64 nested joins of tasks that do nothing
    /// else take less than 192 KiB (x86-64, rustc 1.95).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.worker_settings.stack_size = Some(bytes);
        self
    }

    /// Sets what `execute` and `spawn` do when the queue is full.
    ///
    /// *Default: [`Overflow::Block`].*
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.overflow = policy;
        self
    }

    /// Sets what the drop of the last handle does.
    ///
    /// *Default: [`OnDrop::Drain`]*, which blocks. In async code choose [`OnDrop::Detach`].
    pub fn on_drop(mut self, policy: OnDrop) -> Self {
        self.on_drop = policy;
        self
    }

    /// Sets a hook that each worker calls when its thread starts, with its index.
    ///
    /// A panic of the hook is contained and counted. For a hook that may fail, call
    /// [`try_on_thread_start`](Self::try_on_thread_start). A pool has one start hook: the last call
    /// of the two methods counts.
    pub fn on_thread_start(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.worker_settings.on_start = Some(StartHook::Infallible(Arc::new(f)));
        self
    }

    /// Sets a hook that each worker calls when its thread starts, with its index, and that may
    /// fail. Use it to set up what each worker needs, such as the priority of its thread.
    ///
    /// [`build`](Self::build) starts all workers and blocks until the hook has returned on each of
    /// them. If it fails on any worker, `build` joins all threads. It returns the error of the
    /// failed worker with the lowest index: [`BuildError::StartHookFailed`], or
    /// [`BuildError::StartHookPanicked`] for a panic. No worker runs a task before its hook has
    /// succeeded. The timer thread and the I/O thread do not call it.
    ///
    /// If the hook fails in a [`resize`](WorkerPool::resize), the resize returns the same error and
    /// is undone. The pool keeps the workers that it had. Failed workers leave at once, and do not
    /// call the hook of [`on_thread_stop`](Self::on_thread_stop).
    ///
    /// The hook may wait for tasks. A wait for the thread that waits for the hook gets
    /// [`WouldDeadlock`](crate::JoinError::WouldDeadlock).
    ///
    /// A hook may submit tasks and resize the pool. If it blocks forever, so does the call that
    /// starts its worker. A panic also counts as a panic of a hook in
    /// [`Metrics`](crate::Metrics::hooks_panicked).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use workcrew::{BuildError, WorkerPool};
    ///
    /// let builder = WorkerPool::builder().workers(4).try_on_thread_start(|worker| {
    ///     File::open(format!("/no such directory/{worker}")).map(drop)
    /// });
    /// match builder.build() {
    ///     Err(BuildError::StartHookFailed { worker, source, .. }) => {
    ///         assert_eq!(worker, 0);
    ///         assert!(source.is::<std::io::Error>());
    ///     }
    ///     other => unreachable!("{other:?}"),
    /// }
    /// ```
    pub fn try_on_thread_start<E>(mut self, f: impl Fn(usize) -> Result<(), E> + Send + Sync + 'static) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let hook = move |worker| f(worker).map_err(Into::into);
        self.worker_settings.on_start = Some(StartHook::Fallible(Arc::new(hook)));
        self
    }

    /// Sets a hook that each worker calls when its thread ends, with its index.
    ///
    /// A panic of the hook is contained and counted.
    pub fn on_thread_stop(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.worker_settings.on_stop = Some(Arc::new(f));
        self
    }

    /// Sets a hook that is called with each panic of a task.
    ///
    /// The hook is called at once, on the thread that ran the task, before any waiter of the task
    /// is notified. A panic of the hook itself is contained and counted. The hook may submit tasks.
    /// Hooks nest at most 16 deep; see [`Observer`].
    pub fn on_panic(mut self, f: impl Fn(&TaskPanic) + Send + Sync + 'static) -> Self {
        self.hooks.on_panic = Some(Box::new(f));
        self
    }

    /// Adds an observer, which is called at each step of each task.
    ///
    /// A pool may have several. Each step calls them one after the other, in the order in which
    /// they were added. The panic of one does not keep the others from being called.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.hooks.of_tasks.get_or_insert_default().observers.push(Box::new(observer));
        self
    }

    /// Sets whether [`Metrics`](crate::Metrics) include histograms of queue wait and run time.
    ///
    /// *Default: `false`.* The histograms cost three readings of the clock for each task, instead
    /// of at most one for [`WorkerPool::running`].
    pub fn timing(mut self, timing: bool) -> Self {
        self.timing = timing;
        self
    }

    /// Checks the settings and starts the workers.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if a setting is out of range, a thread could not be started, or the hook of
    /// [`try_on_thread_start`](Self::try_on_thread_start) has failed. Threads that had been started
    /// are joined.
    pub fn build(self) -> Result<WorkerPool, BuildError> {
        let cpus = num_cpus::get();
        sync::set_cpu_count(cpus);
        let workers = self.workers.unwrap_or(cpus);
        check_workers(workers)?;
        self.check()?;
        let queue = self.queue_settings();
        let inner = Arc::new(PoolInner::new(queue, self.overflow, self.hooks, self.timing));
        let resize = inner.workers.set_target(workers);
        let report = StartReport::new(inner.id());
        let started = worker::start(&inner, &self.worker_settings, resize.missing, &report);
        let started = started.map_err(|failed| failed.remove(&inner)).and(report.wait());
        if let Err(error) = started {
            shutdown::shutdown(&inner);
            return Err(error);
        }
        let stuck = stuck::start(&inner, self.stuck, &self.worker_settings.thread_name).map_err(|source| {
            shutdown::shutdown(&inner);
            BuildError::StuckThread { source }
        })?;
        let settings = PoolSettings { workers: self.worker_settings, on_drop: self.on_drop, _stuck: stuck };
        Ok(WorkerPool::assemble(inner, settings))
    }

    fn queue_settings(&self) -> QueueSettings {
        QueueSettings {
            high: self.high_capacity.unwrap_or(self.queue_capacity),
            normal: self.queue_capacity,
            background: self.background_capacity.unwrap_or(self.queue_capacity),
            background_workers: self.background_workers.unwrap_or(usize::MAX),
        }
    }

    /// Checks all settings except the number of workers.
    fn check(&self) -> Result<(), BuildError> {
        let stack_size = self.worker_settings.stack_size.unwrap_or(0);
        let QueueSettings { high, normal, background, background_workers } = self.queue_settings();
        let (smallest, largest) = (normal.min(high).min(background), normal.max(high).max(background));
        if smallest == 0 {
            Err(BuildError::ZeroQueueCapacity)
        } else if largest > MAX_QUEUE_CAPACITY {
            Err(BuildError::QueueTooLarge { requested: largest, limit: MAX_QUEUE_CAPACITY })
        } else if background_workers == 0 {
            Err(BuildError::ZeroBackgroundWorkers)
        } else if self.stuck.has_zero() {
            Err(BuildError::ZeroStuckTime)
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
            .field("background_workers", &self.background_workers)
            .field("thread_name", &self.worker_settings.thread_name)
            .field("stack_size", &self.worker_settings.stack_size)
            .field("overflow", &self.overflow)
            .field("on_drop", &self.on_drop)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// # Creating pools
impl WorkerPool {
    /// Creates a pool with one worker for each CPU and a queue of 1,024 jobs.
    ///
    /// # Errors
    ///
    /// [`BuildError::Spawn`], if a thread could not be started.
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// Returns a builder with default settings.
    pub fn builder() -> WorkerPoolBuilder {
        WorkerPoolBuilder::new()
    }

    /// Returns the global pool of the process, which is built at the first call.
    ///
    /// The global pool is never dropped, so what is queued when `main` returns is lost. To prevent
    /// that, call [`wait_idle`](Self::wait_idle) or [`shutdown`](Self::shutdown) on it at the end
    /// of `main`.
    ///
    /// It is built as by [`new`](Self::new), but its threads have names that begin with
    /// `workcrew-global`, and the environment variable `WORKCREW_WORKERS` overrides the number of
    /// workers. Libraries should take a pool from their caller instead.
    ///
    /// # Panics
    ///
    /// If the pool cannot be built, because a thread could not be started or the variable is not a
    /// valid number of workers. The next call tries again.
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
