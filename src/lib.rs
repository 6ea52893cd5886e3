//! A bounded worker-pool task executor for synchronous Rust.
//!
//! Closures go through one bounded queue to the worker threads. A handle waits for one task. A
//! group, like Go's `errgroup`, waits for many tasks and cancels the rest at the first error. A
//! scope does the same for tasks that borrow. The sections below follow the order in which users
//! meet their topics.
//!
//! # Jobs
//!
//! Build a [`WorkerPool`] once, and submit closures to it. [`execute`](WorkerPool::execute) submits
//! a closure without a result:
//!
//! ```
//! use workcrew::WorkerPool;
//!
//! let pool = WorkerPool::builder().workers(4).queue_capacity(256).build()?;
//! pool.execute(|| println!("on a worker"))?;
//! pool.wait_idle();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`WorkerPool::new`] creates one worker for each CPU. [`WorkerPool::global`] is a pool for the
//! whole process.
//!
//! # Tasks with a handle
//!
//! [`spawn`](WorkerPool::spawn) returns a [`JoinHandle`]. Join it, wait for it with a timeout,
//! cancel it, `.await` it, or drop it to detach the task.
//!
//! ```
//! # let pool = workcrew::WorkerPool::builder().workers(2).build()?;
//! let handle = pool.spawn(|| (1..=20_u64).product::<u64>())?;
//! assert_eq!(handle.join()?, 2_432_902_008_176_640_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Groups, and the first error
//!
//! A [`TaskGroup`] holds many tasks. The first error or panic cancels the rest.
//! [`wait`](TaskGroup::wait) returns when every started task has ended. It returns the first error,
//! or the values in the order of spawning.
//!
//! ```
//! # let pool = workcrew::WorkerPool::builder().workers(2).build()?;
//! let group = pool.group().limit(8);
//! for host in ["alpha", "beta", "gamma"] {
//!     group.spawn(move || match host.is_ascii() {
//!         true => Ok(host.len()),
//!         false => Err(format!("bad host {host}")),
//!     });
//! }
//! assert_eq!(group.wait()?, [5, 4, 5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The error of the group holds the error of the task. [`GroupError`] says how to get it by value,
//! as a source, or through `anyhow`.
//!
//! A group has a [`limit`](TaskGroup::limit) of running tasks, a [`capacity`](TaskGroup::capacity)
//! for waiting tasks, a [`policy`](TaskGroup::policy) (first error, collect all, first success), a
//! [`deadline`](TaskGroup::deadline) and a [`parent`](TaskGroup::parent) token. The other waits
//! are:
//!
//! - [`wait_timeout`](TaskGroup::wait_timeout), which returns the group if it is not done in time;
//! - [`wait_with_task`](TaskGroup::wait_with_task), whose error says which task failed: "task 1 of
//!   group \`mail\`, spawned at src/main.rs:10:5: no such user";
//! - [`wait_partial`](TaskGroup::wait_partial), which returns the values so far, and the error;
//! - [`wait_all`](TaskGroup::wait_all), which returns the outcome of each task;
//! - [`wait_any`](TaskGroup::wait_any), which returns the first success; see its policy;
//! - [`completions`](TaskGroup::completions), which yields the outcomes as tasks end.
//!
//! Tasks add siblings through a [`Spawner`], which also shows the progress while a thread waits.
//!
//! For one function over many items there are [`map`](WorkerPool::map), a lazy iterator in the
//! order of the items, and [`try_map`](WorkerPool::try_map).
//!
//! # Choosing between maps and groups
//!
//! | | results | memory |
//! |---|---|---|
//! | [`map`](WorkerPool::map) | one for each item, in their order, on demand | bounded, from an endless source too |
//! | [`try_map`](WorkerPool::try_map), [`TaskGroup::wait`] | all values, or the first error | that of the values |
//! | [`TaskGroup::completions`] | in the order of completion | that of the results not yet taken |
//! | [`Scope::map`] | as `map`, over items that the tasks borrow | bounded |
//!
//! # Order of tasks
//!
//! - **Jobs** of `execute` and `spawn` start in the order in which the queue accepted them. So the
//!   jobs of one submitter start in the order of submission. With one worker they also end in that
//!   order.
//! - **Tasks of a group** start in the order of spawning. A group stores its tasks itself and sends
//!   tickets to the workers.
//! - **Tasks of a key** run one at a time, in the order of submission; see [`KeyedExecutor`].
//! - **Timers and retries** start in the order in which they are due.
//!
//! All of this holds within one class of tasks. [`Priority`] says how workers choose between the
//! classes, and how long each can wait. All tasks are `Normal` unless you say otherwise.
//!
//! A worker alternates between queued jobs and everything that does not wait in the queue: tickets
//! of groups and keyed executors, and due timers. While there are both, it starts one job, then one
//! due timer or at most 16 tasks for one ticket, then one job again. So neither starves. A due
//! timer waits for the timers that were due before it, for at most 16 tasks for each ticket before
//! it, and for one job before each of these and before itself.
//!
//! Some tasks start earlier: a task that a worker joins, and a job that its submitter runs inline
//! because the queue is full. A job that nested tasks submit into a full queue may be queued beyond
//! the capacity; it then starts like a due timer. If a task must start after another one has ended,
//! give both the same key, or join that one first.
//!
//! # Scopes: tasks that borrow
//!
//! The tasks of a [`scope`](WorkerPool::scope) may borrow from the caller's stack, because the
//! scope ends only after its tasks:
//!
//! ```
//! # let pool = workcrew::WorkerPool::builder().workers(2).build()?;
//! let numbers = vec![1, 2, 3, 4];
//! let (left, right) = numbers.split_at(2);
//! let mut sums = (0, 0);
//! pool.scope(|scope| {
//!     scope.spawn(|| sums.0 = left.iter().sum());
//!     scope.spawn(|| sums.1 = right.iter().sum());
//! })?;
//! assert_eq!(sums, (3, 7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Scope::spawn_value`] returns a handle for one value, and [`Scope::map`] yields one value for
//! each item, in order. [`scope_builder`](WorkerPool::scope_builder) sets limits and a label.
//!
//! # A full queue
//!
//! When the queue is full, the plain forms follow the pool's [`Overflow`] policy. The `try_` forms
//! never block. The `_for` forms block at most for the given time. Every refusal [returns the
//! closure](SubmitError), neither run nor dropped.
//!
//! | policy | the new job | the caller | right when |
//! |---|---|---|---|
//! | [`Block`](Overflow::Block) (default) | waits for room | blocks | producers can be slowed down |
//! | [`CallerRuns`](Overflow::CallerRuns) | runs now, on the caller's thread | does the work | producers can be slowed down and should help |
//! | [`DiscardOldest`](Overflow::DiscardOldest) | takes the place of the oldest queued job | continues | only the newest data matters |
//! | [`DiscardNewest`](Overflow::DiscardNewest) | is dropped | continues | losing work is better than waiting |
//!
//! A discarded task is cancelled: its handle returns an error, and the metrics count it.
//!
//! # Locks and submissions
//!
//! Do not hold a lock that tasks take while you submit in a form that may wait, or run the task
//! inline. The tasks that would make room may wait for that lock. A task that runs inline, on your
//! own thread, takes a lock that the thread already holds. Every bounded queue has this hazard.
//!
//! - The plain forms may wait for room, or run the task inline. These are `execute`, `spawn`,
//!   `spawn_all`, `map`, `publish` and the like, on the pool and on everything that is built on it.
//!   Under [`Overflow::CallerRuns`], and on a worker of the pool, they run it inline.
//! - The `_for` forms may wait for the given time. They never run a task inline.
//! - The `try_` forms never wait and never run a task inline. Neither do timers.
//!
//! Release the lock first, or use a `try_` form and submit later what it returns. The example
//! `lock_held` shows both.
//!
//! # Tasks that submit and wait
//!
//! Tasks may submit tasks and wait for them, up to 64 deep on one stack, even with a single worker.
//! A worker that waits runs only what it waits for, so it never picks up a job that needs a lock it
//! holds. A worker that finds its own queue full runs the job inline. A wait that can never end,
//! such as that of a task that joins itself, is an [error](JoinError::WouldDeadlock).
//!
//! A `WorkerPool` is a handle. A task that submits tasks owns a clone of it:
//!
//! ```
//! # let pool = workcrew::WorkerPool::builder().workers(1).build()?;
//! let own = pool.clone();
//! let sum = pool.spawn(move || {
//!     let half = own.spawn(|| (1..=50).sum::<u32>()).expect("the pool is open");
//!     (51..=100).sum::<u32>() + half.join().expect("the task does not panic")
//! })?;
//! assert_eq!(sum.join()?, 5_050);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The drop of the last handle [ends the pool](WorkerPool#when-it-ends), even in a task.
//!
//! # Cancellation
//!
//! Cancellation is cooperative: tasks check a [`CancellationToken`], such as that of their group.
//!
//! ```
//! # let pool = workcrew::WorkerPool::builder().workers(2).build()?;
//! let group = pool.group();
//! let token = group.token().clone();
//! group.spawn(move || {
//!     while !token.is_cancelled() {
//!         // one step of a long task
//!         std::thread::yield_now();
//!     }
//! });
//! group.cancel();
//! let _ = group.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Tasks that have not started are dropped without being run. A running task is never killed.
//!
//! # Time limits of tasks
//!
//! [`task`](WorkerPool::task) returns a [`TaskBuilder`], which sets the time limit of a task. When
//! the time is over, the token that the closure gets expires. The time counts from the start of the
//! task. [`expires_after`](TaskBuilder::expires_after) limits the wait for that start.
//! [`TaskBuilder`](TaskBuilder#time-limits) says how these limits differ from those of a submission
//! and of a wait.
//!
//! # State of workers
//!
//! A [`WorkerLocal`] is a separate value for each worker, such as a connection or a buffer. It is
//! made on its worker when a task first uses it, is dropped there, and need not be `Send`.
//! [`broadcast`](WorkerPool::broadcast) runs a closure once on each worker.
//! [`try_on_thread_start`](WorkerPoolBuilder::try_on_thread_start) sets a hook that each worker
//! calls before its first task. If the hook fails, so does the build of the pool.
//! [`current_worker`] returns the worker on which a task runs.
//!
//! # Timers and retries
//!
//! [`execute_after`](WorkerPool::execute_after) and [`execute_at`](WorkerPool::execute_at) run a
//! closure once, later. [`spawn_after`](WorkerPool::spawn_after) does the same for a task with a
//! handle. [`execute_every`](WorkerPool::execute_every) runs a closure repeatedly, until the timer
//! is cancelled or the closure ends it. [`spawn_with_retry`](WorkerPool::spawn_with_retry) retries
//! a task that fails, as a [`RetryPolicy`](retry::RetryPolicy) says. All attempts are one task with
//! one handle. Groups, scopes and keyed executors [retry their tasks](TaskGroup::spawn_with_retry),
//! and maps [their items](WorkerPool::map_with_retry). Delays occupy no worker.
//!
#![cfg_attr(feature = "retry", doc = "```")]
#![cfg_attr(not(feature = "retry"), doc = "```ignore")]
//! use std::time::Duration;
//! use workcrew::retry::RetryPolicy;
//!
//! # let pool = workcrew::WorkerPool::builder().workers(1).build()?;
//! let timer = pool.execute_every(Duration::from_secs(60), || println!("once a minute"))?;
//! let policy = RetryPolicy::exponential().base_delay(Duration::from_millis(1)).max_attempts(4);
//! let answer = pool.spawn_with_retry(policy, |attempt| match attempt.number() {
//!     1 | 2 => Err("busy"),
//!     _ => Ok(42),
//! })?;
//! assert_eq!(answer.join()?.unwrap(), 42);
//! timer.cancel();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Events
//!
//! Handlers subscribe to a type of events on an [`EventBus`](events::EventBus), and run on the
//! workers. Each subscription has its own mailbox and an optional retry policy. A failing handler
//! does not affect the others.
//!
#![cfg_attr(feature = "events", doc = "```")]
#![cfg_attr(not(feature = "events"), doc = "```ignore")]
//! use workcrew::events::EventBus;
//!
//! struct OrderPlaced(u32);
//!
//! # let pool = workcrew::WorkerPool::builder().workers(1).build()?;
//! let bus = EventBus::new(&pool);
//! let _mail = bus.subscribe(|order: &OrderPlaced| println!("mail for order {}", order.0));
//! bus.publish(OrderPlaced(7));
//! bus.wait_idle();
//! # Ok::<(), workcrew::BuildError>(())
//! ```
//!
//! # Async code
//!
//! The main waits have a form that blocks no thread and works with any runtime.
//!
//! | | on a thread | from async code |
//! |---|---|---|
//! | submit | [`spawn`](WorkerPool::spawn) | [`spawn_async`](WorkerPool::spawn_async), [also with settings](TaskBuilder::spawn_async), or [`try_spawn`](WorkerPool::try_spawn) |
//! | submit to a group | [`spawn`](TaskGroup::spawn) | [`spawn_async`](TaskGroup::spawn_async) |
//! | one result | [`join`](JoinHandle::join) | `.await` of the [`JoinHandle`] |
//! | many results | [`wait`](TaskGroup::wait) | `.await` of the [`TaskGroup`](WaitForGroup), or [`wait_all_async`](TaskGroup::wait_all_async) and others |
//! | results as they come | [`completions`](TaskGroup::completions) | [`next_async`](Completions::next_async), or a `Stream` with the feature `stream` |
//! | a cancellation | [`wait`](CancellationToken::wait) | [`cancelled`](CancellationToken::cancelled) |
//! | publish an event | [`publish`](events::EventBus::publish) | [`publish_async`](events::EventBus::publish_async), or [`try_publish`](events::EventBus::try_publish) |
//! | its outcomes | [`wait`](events::Receipt::wait) | `.await` of the [`Receipt`](events::WaitForReceipt) |
//! | an idle pool or bus | [`wait_idle`](WorkerPool::wait_idle) | [`wait_idle_async`](WorkerPool::wait_idle_async) |
//! | the end of the pool | [`shutdown`](WorkerPool::shutdown) | [`shutdown_async`](WorkerPool::shutdown_async) |
//!
//! ```
//! # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
//! # let pool = workcrew::WorkerPool::builder().workers(2).build()?;
//! let sum = block_on(async {
//!     let handle = pool.spawn_async(|| (1..=100).sum::<u32>()).await?;
//!     let group = pool.group();
//!     group.spawn_all(["1", "2"].map(|text| move || text.parse::<u32>()));
//!     let sum = handle.await? + group.await?.iter().sum::<u32>();
//!     pool.shutdown_async().await; // now the drop of the pool does not block
//!     Ok::<_, Box<dyn std::error::Error>>(sum)
//! })?;
//! assert_eq!(sum, 5_053);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **The drop of a pool may block.** The drop of the last handle drains the pool and waits for the
//! workers. On a thread of an async runtime, this stops every other future on that thread. The
//! crate cannot detect such a thread without depending on the runtime. So choose one of these:
//!
//! - await [`shutdown_async`](WorkerPool::shutdown_async) before the drop, which then never waits;
//! - build the pool with [`OnDrop::Detach`]: the drop returns, and the workers run what is queued;
//! - drop the pool where blocking is allowed, such as at the end of `main`.
//!
//! Dropping a join handle, a group, a subscription, a receipt or any of these futures never waits
//! for a task. Dropping a driver, or a gRPC or NATS client, may wait, unless the pool has ended.
//!
//! **Dropping a future** never loses a result that another owner can still get. A dropped handle
//! detaches its task. A dropped group cancels its tasks. A dropped submission is withdrawn; an
//! event is then refused only for the mailboxes that are still full. Other futures stop waiting. A
//! future that is never polled again holds up neither other waiters nor the drain of the pool, with
//! one exception: [room in the queue](WorkerPool::spawn_async).
//!
//! **Inside a task**, a future may be polled too, for example by a `block_on`. On a worker of the
//! pool, the poll runs what the future waits for, as the blocking form does. Like the blocking
//! form, it is refused if a task awaits itself, its own group, the event that it handles, or its
//! own pool to be idle. A longer circle is not refused: a future may wait for several things.
//!
//! In the other direction, the feature `driver` drives futures for synchronous code
//! (`driver::Driver`). The feature `grpc` makes calls to gRPC servers that occupy no worker
//! (`grpc::Caller`).
//!
//! # Many machines
//!
//! The feature `nats` puts handlers behind a queue on a NATS JetStream server. A `nats::JobQueue`
//! stores jobs that outlive the process. On each machine a `nats::Worker` runs jobs, by default as
//! many at once as its pool has workers. Delivery is at least once, with retries and dead letters.
//!
//! # Shutdown
//!
//! Drop the last handle, or call [`shutdown`](WorkerPool::shutdown). Either refuses new tasks, runs
//! what is queued and joins the workers. [`shutdown_timeout`](WorkerPool::shutdown_timeout) does so
//! within a time limit, and [reports](ShutdownReport) what was left.
//! [`shutdown_now`](WorkerPool::shutdown_now) cancels what is queued, and the
//! [tokens](WorkerPool#what-a-shutdown-cancels) of what runs. [`close`](WorkerPool::close)
//! refuses new tasks, and does not wait. Each of them cancels tasks that wait for a delay.
//!
//! A task that a report counts as still running is left behind for good. Neither the drop of the
//! pool nor another `shutdown` waits for it, so it cannot keep the process alive.
//!
//! # Panics
//!
//! A panic of a task ends no worker. The waiter gets the [`TaskPanic`], with its payload, as an
//! error. The panic is also counted, and passed to [`on_panic`](WorkerPoolBuilder::on_panic) at
//! once. This includes panics in destructors.
//!
//! The process ends only where the standard library aborts. That is at a panic while panicking, in
//! a panic hook or in a destructor of a thread local, and with `panic = "abort"`. Code that leaves
//! a task by other means (`longjmp`, `pthread_exit`) is not supported.
//!
//! # Metrics, running tasks and observers
//!
//! [`metrics`](WorkerPool::metrics) counts every task once, by its outcome or state, and
//! [`timing`](WorkerPoolBuilder::timing) adds histograms. [`running`](WorkerPool::running) returns
//! what each worker is running, and since when. [`snapshot`](WorkerPool::snapshot) says why a pool
//! does not go on. [`Observer`]s follow each task. The feature `prometheus` exports metrics.
//! [`propagate`](WorkerPoolBuilder::propagate) carries contexts to tasks.
//!
//! # Limits
//!
//! A pool has at most 65,536 workers, 16,777,216 places in each queue (64 bytes each, allocated at
//! once) and 1,048,576 pending timers. It takes one thread for each worker, one more from its first
//! timer on, and one more while futures are driven for it. An idle pool uses no CPU time. While a
//! future waits for a [token with a deadline](CancellationToken::cancelled), there is one more
//! thread.
//!
//! # Features
//!
//! The feature `events` (on by default) adds the [`EventBus`](events::EventBus) and enables the
//! feature `retry`, which adds [`RetryPolicy`](retry::RetryPolicy) and the dependency `backon`. The
//! two are an eighth of a clean build; `default-features = false` leaves them out. These features
//! are off by default: `driver` (which adds tokio), `grpc` (also tonic), `nats` (also async-nats),
//! `stream` (futures-core), `prometheus` (prometheus-client), `timeline` (`serde_json`) and
//! `tracing`.
//!
//! # When not to use it
//!
//! Use rayon for data-parallel iterators, and an async runtime for many connections at once. A pool
//! of threads cannot kill a task: run a task that must be killed in a process of its own. The queue
//! of a pool is lost when the process ends; a queue of the feature `nats` is not.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

mod pool;
mod group;
mod keyed;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "events")]
pub mod events;
#[cfg(feature = "driver")]
pub mod driver;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "prometheus")]
pub mod prometheus;
#[cfg(feature = "timeline")]
pub mod timeline;
#[cfg(feature = "driver")]
mod io;
mod timer;
mod task;
mod queue;
mod cancel;
mod observe;
pub mod snapshot;
mod error;
mod time;
mod priority;
mod failpoint;
mod nesting;
mod unwind;
mod sync;
#[cfg(all(test, any(workcrew_loom, workcrew_shuttle)))]
mod models;
#[cfg(doctest)]
mod compile_fail;
#[cfg(doctest)]
mod doctests;

pub use cancel::future::WaitForCancellation;
pub use cancel::token::{CancelGuard, CancellationToken};
pub use error::panic::TaskPanic;
pub use error::{
    BuildError, CancelReason, Cancelled, Cycle, CycleKind, CycleTarget, CycleTask, CycleWait, FailedTask, GroupError,
    JoinError, NoSuccess, Refused, SubmitError, SubmitTimeoutError, TaskError, TaskFailure, TaskId, TimedOut,
    TimerError, TrySubmitError, WorkerLocalError,
};
#[cfg(workcrew_faults)]
#[doc(hidden)]
pub use failpoint::{FailGuard, Failpoint, configure};
pub use group::{
    Completions, GroupPolicy, Map, Progress, Scope, ScopeBuilder, ScopeMap, ScopeResult, ScopedHandle, Spawner,
    TaskGroup, TaskResult, WaitForGroup,
};
pub use keyed::{KeyedExecutor, KeyedExecutorBuilder};
pub use observe::{Histogram, Metrics, Observer, RunningTask, TaskInfo, TaskOutcome};
pub use pool::{
    CurrentWorker, OnDrop, Overflow, ShutdownReport, SpawnAsync, TaskBuilder, TimerBuilder, WaitForIdle,
    WaitForShutdown, WeakWorkerPool, WorkerLocal, WorkerPool, WorkerPoolBuilder, current_worker,
};
pub use priority::Priority;
pub use task::handle::JoinHandle;
pub use timer::{Period, TickResult, TimerHandle};
