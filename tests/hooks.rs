//! Hooks, callbacks and destructors that bring themselves about again: bounded on the stack, and told of.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use common::{BlockedWorkers, Counter, Gate, Mutex, assert_counts_add_up, quiet_panics, run_child, with_watchdog};
use workcrew::{
    CancellationToken, JoinHandle, Observer, OnDrop, Overflow, TaskGroup, TaskInfo, TaskOutcome, WorkerPool,
    WorkerPoolBuilder,
};

/// How many hooks are nested before one is skipped.
const DEPTH: usize = 16;
/// The length of chains. With a frame of ten bytes for each link it would not fit on the stack.
const LINKS: usize = 100_000;
/// The stacks of the threads below.
const STACK: usize = 512 << 10;

/// Runs each test of this file that is named in a process of its own, since a stack that overflows ends the process.
fn in_processes(children: &[&str]) {
    for child in children {
        let output = run_child(child, &[]);
        assert!(output.status.success(), "{child}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{child} is no test");
    }
}

fn on_small_stack(f: impl FnOnce() + Send + 'static) {
    with_watchdog(|| thread::Builder::new().stack_size(STACK).spawn(f).unwrap().join().unwrap());
}

/// Runs a scenario on a small stack, with builders of pools of 1, 2 and 8 workers and queues of 1 and 64.
fn on_small_stacks(scenario: impl Fn(WorkerPoolBuilder) + Send + 'static) {
    on_small_stack(move || {
        for (workers, capacity) in [(1, 1), (1, 64), (2, 1), (8, 1), (8, 64)] {
            scenario(WorkerPool::builder().workers(workers).queue_capacity(capacity).stack_size(STACK));
        }
    });
}

/// One worker, which is held, and room for all links.
fn held_pool() -> (Arc<WorkerPool>, BlockedWorkers) {
    let pool = WorkerPool::builder().workers(1).queue_capacity(2 * LINKS).stack_size(STACK).build().unwrap();
    let wedge = BlockedWorkers::new(&pool);
    (Arc::new(pool), wedge)
}

/// Fault 171.
#[test]
fn observers_and_panic_hooks_that_submit_are_nested_sixteen_deep_and_then_skipped_and_counted() {
    in_processes(&[
        "child_submits_when_a_task_is_submitted",
        "child_submits_when_a_task_is_refused",
        "child_submits_when_a_task_ends",
        "child_panics_a_task_in_the_panic_hook",
        "child_panics_tasks_on_its_own_stack",
    ]);
}

/// Calls a function at each step that it names.
struct Calls {
    step: &'static str,
    call: Box<dyn Fn() + Send + Sync>,
}

impl Calls {
    fn at(&self, step: &str) {
        if self.step == step {
            (self.call)();
        }
    }
}

impl Observer for Calls {
    fn task_submitted(&self, _: &TaskInfo<'_>) {
        self.at("submitted");
    }

    fn task_refused(&self, _: &TaskInfo<'_>) {
        self.at("refused");
    }

    fn task_ended(&self, _: &TaskInfo<'_>, _: TaskOutcome) {
        self.at("ended");
    }
}

/// A pool that its own hooks can reach, and how often they were called.
type Reach = (Arc<OnceLock<Weak<WorkerPool>>>, Counter);

/// A pool whose observer calls `call` at each such step.
fn observed(
    builder: WorkerPoolBuilder,
    step: &'static str,
    call: fn(&WorkerPool, usize),
) -> (Arc<WorkerPool>, Counter) {
    let (slot, calls): Reach = (Arc::default(), Counter::new());
    let (reach, counted) = (Arc::clone(&slot), calls.clone());
    let call = move || {
        counted.add();
        if let Some(pool) = reach.get().and_then(Weak::upgrade) {
            call(&pool, counted.get());
        }
    };
    let pool = Arc::new(builder.observer(Calls { step, call: Box::new(call) }).build().unwrap());
    slot.set(Arc::downgrade(&pool)).unwrap();
    (pool, calls)
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_when_a_task_is_submitted() {
    on_small_stacks(|builder| {
        let (pool, calls) = observed(builder, "submitted", |pool, _| pool.execute(|| ()).unwrap());
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((calls.get(), metrics.hooks_skipped), (DEPTH, 1));
        assert_eq!(metrics.tasks_succeeded as usize, DEPTH + 1, "the hook was skipped, not the task");
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_when_a_task_is_refused() {
    on_small_stacks(|builder| {
        let (pool, calls) = observed(builder, "refused", |pool, _| assert!(pool.try_execute(|| ()).is_err()));
        let wedge = BlockedWorkers::new(&pool);
        while pool.queue_len() < pool.queue_capacity() {
            pool.execute(|| ()).unwrap();
        }
        assert!(pool.try_execute(|| ()).is_err());
        assert_eq!((calls.get(), pool.metrics().hooks_skipped), (DEPTH, 2), "the last one is told neither way");
        drop(wedge);
        pool.wait_idle();
        pool.close();
        assert!(pool.execute(|| ()).is_err(), "an ended pool has nothing to tell");
        assert_eq!(calls.get(), DEPTH);
        assert_counts_add_up(&pool);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_when_a_task_ends() {
    on_small_stacks(|builder| {
        let (pool, calls) = observed(builder, "ended", |pool, calls| {
            if calls < 3_000 {
                let _ = (pool.execute(|| ()), pool.execute(|| ()));
            }
        });
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        assert!(calls.get() > DEPTH, "what goes through the queue is a task like any other");
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_panics_a_task_in_the_panic_hook() {
    quiet_panics();
    on_small_stacks(|builder| {
        let (slot, calls): Reach = (Arc::default(), Counter::new());
        let (reach, counted): Reach = (Arc::clone(&slot), calls.clone());
        let builder = builder.on_panic(move |_| {
            counted.add();
            if counted.get() < 1_000 {
                let pool = reach.get().and_then(Weak::upgrade).unwrap();
                pool.execute(|| panic!("again")).unwrap();
            }
            panic!("the hook itself");
        });
        let pool = Arc::new(builder.build().unwrap());
        slot.set(Arc::downgrade(&pool)).unwrap();
        pool.execute(|| panic!("once")).unwrap();
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((calls.get(), metrics.tasks_panicked, metrics.hooks_panicked), (1_000, 1_000, 1_000));
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_panics_tasks_on_its_own_stack() {
    std::panic::set_hook(Box::new(|_| ()));
    on_small_stack(|| {
        let (slot, calls): Reach = (Arc::default(), Counter::new());
        let (reach, counted): Reach = (Arc::clone(&slot), calls.clone());
        let builder = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::CallerRuns);
        let builder = builder.on_panic(move |_| {
            counted.add();
            let pool = reach.get().and_then(Weak::upgrade).unwrap();
            if counted.get() < 5 * DEPTH {
                pool.execute(|| panic!("again")).unwrap();
            }
        });
        let pool = Arc::new(builder.build().unwrap());
        slot.set(Arc::downgrade(&pool)).unwrap();
        let wedge = BlockedWorkers::new(&pool);
        pool.execute(|| ()).unwrap();
        thread::scope(|threads| {
            let caller = threads.spawn(|| pool.execute(|| panic!("once")).unwrap());
            while calls.get() < DEPTH / 2 {
                thread::yield_now();
            }
            wedge.open(); // past the bound the caller waits for room
            caller.join().unwrap();
        });
        pool.wait_idle();
        assert_eq!(calls.get(), 5 * DEPTH);
    });
}

/// Fault 172.
#[test]
fn chains_of_tokens_and_callbacks_of_any_length_take_the_stack_of_a_few() {
    in_processes(&[
        "child_cancels_a_chain_of_tokens_by_callbacks",
        "child_registers_in_callbacks",
        "child_drops_tokens_that_callbacks_own",
        "child_cancels_and_drops_a_deep_tree",
        "child_wakes_a_chain_of_futures_that_await_tokens",
    ]);
}

#[test]
#[ignore = "run in a process of its own"]
fn child_cancels_a_chain_of_tokens_by_callbacks() {
    on_small_stack(|| {
        let tokens: Vec<_> = (0..LINKS).map(|_| CancellationToken::new()).collect();
        let (called, order) = (Counter::new(), Arc::new(AtomicBool::new(true)));
        for (index, pair) in tokens.windows(2).enumerate() {
            let (own, next, called, order) = (pair[0].clone(), pair[1].clone(), called.clone(), Arc::clone(&order));
            let guard = pair[0].on_cancel(move || {
                order.fetch_and(called.get() == index, Ordering::Relaxed);
                called.add();
                own.cancel();
                next.cancel();
                assert!(next.is_cancelled(), "marked before `cancel` returns, however deep");
            });
            guard.detach();
        }
        tokens[0].cancel();
        assert!(tokens.iter().all(CancellationToken::is_cancelled));
        assert_eq!((called.get(), order.load(Ordering::Relaxed)), (LINKS - 1, true));
    });
}

fn register(token: &CancellationToken, left: usize, called: &Counter) {
    let (own, called) = (token.clone(), called.clone());
    let guard = token.on_cancel(move || {
        called.add();
        if left > 1 {
            register(&own, left - 1, &called);
        }
    });
    guard.detach();
}

#[test]
#[ignore = "run in a process of its own"]
fn child_registers_in_callbacks() {
    on_small_stack(|| {
        let (token, called) = (CancellationToken::new(), Counter::new());
        token.cancel();
        register(&token, LINKS, &called);
        assert_eq!(called.get(), LINKS, "all have been called when the outermost returns");
        let token = CancellationToken::new();
        register(&token, LINKS, &called);
        token.cancel();
        assert_eq!(called.get(), 2 * LINKS);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_drops_tokens_that_callbacks_own() {
    on_small_stack(|| {
        let last = CancellationToken::new();
        let mut first = last.clone();
        for _ in 0..LINKS {
            let next = first;
            first = CancellationToken::new();
            first.on_cancel(move || next.cancel()).detach();
        }
        drop(first);
        assert!(!last.is_cancelled(), "dropped, not called");
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_cancels_and_drops_a_deep_tree() {
    on_small_stack(|| {
        for cancelled in [true, false] {
            let root = CancellationToken::new();
            let mut last = root.clone();
            let called = Counter::new();
            for _ in 0..LINKS {
                last = last.child_token();
                let called = called.clone();
                last.on_cancel(move || called.add()).detach();
            }
            if cancelled {
                root.cancel();
            }
            assert_eq!((last.is_cancelled(), called.get()), (cancelled, if cancelled { LINKS } else { 0 }));
        }
    });
}

/// A waker that cancels a token.
struct Cancels(CancellationToken);

impl Wake for Cancels {
    fn wake(self: Arc<Self>) {
        self.0.cancel();
    }
}

#[test]
#[ignore = "run in a process of its own"]
fn child_wakes_a_chain_of_futures_that_await_tokens() {
    on_small_stack(|| {
        let tokens: Vec<_> = (0..LINKS).map(|_| CancellationToken::new()).collect();
        let mut futures = Vec::new();
        for pair in tokens.windows(2) {
            let waker = Waker::from(Arc::new(Cancels(pair[1].clone())));
            let mut future = pair[0].cancelled();
            assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
            futures.push(future);
        }
        tokens[0].cancel();
        assert!(tokens.last().unwrap().is_cancelled());
    });
}

/// Fault 173.
#[test]
fn destructors_that_cancel_drop_or_submit_the_next_one_take_the_stack_of_a_few() {
    in_processes(&[
        "child_cancels_a_chain_of_tasks_by_their_closures",
        "child_drops_a_chain_of_results",
        "child_drops_a_chain_of_groups",
        "child_drops_pools_that_closures_own",
        "child_submits_in_the_destructor_of_a_discarded_closure",
    ]);
}

/// Cancels a task when dropped.
struct CancelsTask(Option<JoinHandle<()>>);

impl Drop for CancelsTask {
    fn drop(&mut self) {
        if let Some(next) = &self.0 {
            assert!(next.cancel());
        }
    }
}

#[test]
#[ignore = "run in a process of its own"]
fn child_cancels_a_chain_of_tasks_by_their_closures() {
    on_small_stack(|| {
        let (pool, wedge) = held_pool();
        let mut first = None;
        for _ in 0..LINKS {
            let next = CancelsTask(first);
            first = Some(pool.spawn(move || drop(next)).unwrap());
        }
        assert!(first.unwrap().cancel());
        assert_eq!(pool.metrics().tasks_cancelled as usize, LINKS, "all, when the outermost returns");
        drop(wedge);
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

/// A result that keeps the handle of the next.
struct Link(#[allow(dead_code, reason = "it is there to be dropped")] Option<JoinHandle<Link>>);

#[test]
#[ignore = "run in a process of its own"]
fn child_drops_a_chain_of_results() {
    on_small_stack(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(64).stack_size(STACK).build().unwrap();
        let mut first = None;
        for _ in 0..LINKS {
            let next = first;
            first = Some(pool.spawn(move || Link(next)).unwrap());
        }
        pool.wait_idle();
        drop(first);
        assert_eq!(pool.metrics().tasks_succeeded as usize, LINKS);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_drops_a_chain_of_groups() {
    on_small_stack(|| {
        let (pool, wedge) = held_pool();
        let groups = LINKS / 10;
        let mut first: Option<TaskGroup<()>> = None;
        for _ in 0..groups {
            let next = first;
            let group = pool.group::<()>();
            group.spawn(move || drop(next));
            first = Some(group);
        }
        drop(first);
        assert_eq!(pool.metrics().tasks_cancelled as usize, groups);
        drop(wedge);
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_drops_pools_that_closures_own() {
    on_small_stack(|| {
        let cancelled = Counter::new();
        let gate = Gate::new();
        let mut first: Option<WorkerPool> = None;
        for started in 1..=40 {
            let next = first;
            let pool = WorkerPool::builder().workers(1).stack_size(STACK).on_drop(OnDrop::Cancel).build().unwrap();
            let inside = gate.clone();
            pool.execute(move || inside.pass()).unwrap();
            gate.wait_started(started);
            let counted = common::DropCounter(cancelled.clone());
            pool.execute(move || drop((counted, next))).unwrap();
            first = Some(pool);
        }
        // The workers are held until every closure was dropped, from one destructor within the other.
        let dropping = thread::Builder::new().stack_size(STACK).spawn(move || drop(first)).unwrap();
        while cancelled.get() == 0 {
            thread::yield_now();
        }
        gate.open();
        dropping.join().unwrap();
        assert_eq!(cancelled.get(), 40);
    });
}

/// Submits a closure that owns another one of these when dropped.
struct Resubmits {
    pool: Weak<WorkerPool>,
    goes_on: Arc<AtomicBool>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Resubmits {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if !self.goes_on.load(Ordering::Relaxed) {
            return;
        }
        let next = Self { pool: self.pool.clone(), goes_on: self.goes_on.clone(), dropped: self.dropped.clone() };
        let _ = self.pool.upgrade().map(|pool| pool.execute(move || drop(next)));
    }
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_in_the_destructor_of_a_discarded_closure() {
    on_small_stack(|| {
        for policy in [Overflow::DiscardOldest, Overflow::DiscardNewest] {
            let builder = WorkerPool::builder().workers(1).queue_capacity(1).stack_size(STACK).overflow(policy);
            let pool = Arc::new(builder.build().unwrap());
            let wedge = BlockedWorkers::new(&pool);
            let (goes_on, dropped) = (Arc::new(AtomicBool::new(true)), Arc::default());
            let submit = || {
                let next =
                    Resubmits { pool: Arc::downgrade(&pool), goes_on: goes_on.clone(), dropped: Arc::clone(&dropped) };
                pool.execute(move || drop(next)).unwrap();
            };
            submit(); // fills the queue
            submit(); // discards, and that submits, and that discards
            let discarded = dropped.load(Ordering::Relaxed);
            assert!((2..=2 * DEPTH).contains(&discarded), "{policy:?}: {discarded}");
            goes_on.store(false, Ordering::Relaxed);
            drop(wedge);
            pool.shutdown();
            assert_counts_add_up(&pool);
        }
    });
}

/// Fault 174.
#[test]
fn wakers_that_cancel_the_next_task_take_the_stack_of_a_few() {
    in_processes(&["child_wakes_a_chain_of_handles"]);
}

/// A waker that cancels a task, whose waker cancels the next.
struct CancelsNext(Mutex<Option<JoinHandle<()>>>);

impl Wake for CancelsNext {
    fn wake(self: Arc<Self>) {
        let next = self.0.lock().unwrap().take();
        if let Some(next) = next {
            next.cancel();
        }
    }
}

#[test]
#[ignore = "run in a process of its own"]
fn child_wakes_a_chain_of_handles() {
    on_small_stack(|| {
        let (pool, wedge) = held_pool();
        let mut first = None;
        for _ in 0..LINKS {
            let waker = Waker::from(Arc::new(CancelsNext(Mutex::new(first))));
            let mut handle = pool.spawn(|| ()).unwrap();
            assert!(matches!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)), Poll::Pending));
            first = Some(handle);
        }
        assert!(first.as_ref().unwrap().cancel());
        assert_eq!(pool.metrics().tasks_cancelled as usize, LINKS);
        drop(wedge);
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

/// Fault 175.
#[test]
fn hooks_of_workers_and_closures_of_timers_may_submit_resize_and_rearm() {
    in_processes(&["child_submits_and_resizes_in_worker_hooks", "child_rearms_a_timer_without_delay"]);
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_and_resizes_in_worker_hooks() {
    on_small_stacks(|builder| {
        let (slot, calls): Reach = (Arc::default(), Counter::new());
        let (reach, counted): Reach = (Arc::clone(&slot), calls.clone());
        let stop_reach: Arc<OnceLock<Weak<WorkerPool>>> = Arc::clone(&slot);
        let ran = Counter::new();
        let run = ran.clone();
        let submitted = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&submitted);
        let builder = builder
            .on_thread_start(move |_| {
                counted.add();
                // The workers of the beginning start before the pool can be reached.
                if let Some(pool) = reach.get().and_then(Weak::upgrade) {
                    pool.resize(4).unwrap();
                    let run = run.clone();
                    accepted.fetch_add(usize::from(pool.execute(move || run.add()).is_ok()), Ordering::SeqCst);
                }
            })
            .on_thread_stop(move |_| {
                if let Some(pool) = stop_reach.get().and_then(Weak::upgrade) {
                    let _ = pool.execute(|| ());
                    pool.close();
                }
            });
        let pool = Arc::new(builder.build().unwrap());
        let first = pool.workers();
        while calls.get() < first {
            thread::yield_now();
        }
        slot.set(Arc::downgrade(&pool)).unwrap();
        pool.resize(first + 3).unwrap();
        while calls.get() < first + 3 {
            thread::yield_now();
        }
        pool.wait_idle();
        pool.shutdown();
        assert_eq!(ran.get(), submitted.load(Ordering::SeqCst), "what was accepted has run");
        assert_counts_add_up(&pool);
    });
}

fn rearm(pool: &Arc<WorkerPool>, left: usize, ran: &Counter) {
    let (inner, again) = (Arc::downgrade(pool), ran.clone());
    let next = move || {
        again.add();
        if left > 1 {
            rearm(&inner.upgrade().unwrap(), left - 1, &again);
        }
    };
    pool.execute_after(Duration::ZERO, next).unwrap();
}

#[test]
#[ignore = "run in a process of its own"]
fn child_rearms_a_timer_without_delay() {
    on_small_stacks(|builder| {
        let (pool, ran) = (Arc::new(builder.build().unwrap()), Counter::new());
        rearm(&pool, 2_000, &ran);
        while ran.get() < 2_000 {
            thread::yield_now();
        }
        pool.wait_idle();
    });
}

#[cfg(feature = "events")]
mod bus {
    use super::*;
    use workcrew::events::{EventBus, EventBusBuilder, Receipt};
    use workcrew::retry::RetryPolicy;

    /// An event without subscribers.
    struct Lost;
    /// An event whose handler fails.
    struct Fails;

    /// A bus that its own hooks can reach.
    fn bus(builder: EventBusBuilder, slot: &Arc<OnceLock<EventBus>>) -> EventBus {
        let bus = builder.build();
        assert!(slot.set(bus.clone()).is_ok());
        bus
    }

    /// Fault 170.
    #[test]
    fn hooks_of_a_bus_that_publish_are_called_for_sixteen_generations_and_then_skipped_and_counted() {
        in_processes(&[
            "bus::child_publishes_unhandled_events",
            "bus::child_publishes_dead_letters",
            "bus::child_goes_from_hook_to_hook",
            "bus::child_publishes_in_the_destructor_of_an_event",
            "bus::child_submits_and_subscribes_in_retry_if_and_destructors",
        ]);
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn child_publishes_unhandled_events() {
        on_small_stacks(|builder| {
            let pool = builder.build().unwrap();
            let (slot, called): (Arc<OnceLock<EventBus>>, _) = (Arc::default(), Counter::new());
            let (again, counted) = (Arc::clone(&slot), called.clone());
            let builder = EventBus::builder(&pool).on_unhandled(move |_| {
                counted.add();
                let receipt: Receipt = again.get().unwrap().publish(Lost);
                assert_eq!(receipt.handlers(), 0);
            });
            let bus = bus(builder, &slot);
            bus.publish(Lost);
            assert_eq!((called.get(), pool.metrics().hooks_skipped), (DEPTH, 1));
            bus.publish(Lost);
            assert_eq!((called.get(), pool.metrics().hooks_skipped), (2 * DEPTH, 2), "each event has its own count");
            let inner = bus.clone();
            let handler = bus.subscribe(move |_: &u32| drop(inner.publish(Lost)));
            bus.publish(1_u32);
            bus.wait_idle();
            assert_eq!((called.get(), pool.metrics().hooks_skipped), (3 * DEPTH, 3), "in a handler as well");
            drop(handler);
        });
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn child_publishes_dead_letters() {
        on_small_stacks(|builder| {
            for synchronous in [false, true] {
                let pool = builder_like(&builder);
                let (slot, letters): (Arc<OnceLock<EventBus>>, _) = (Arc::default(), Counter::new());
                let (again, counted) = (Arc::clone(&slot), letters.clone());
                let builder = EventBus::builder(&pool).on_dead_letter(move |_| {
                    counted.add();
                    again.get().unwrap().publish(Fails);
                });
                let bus = bus(builder, &slot);
                let (tries, tried) = (Counter::new(), Counter::new());
                let (first, all) = (tries.clone(), tried.clone());
                let fails = move |_: &Fails| {
                    all.add();
                    first.add();
                    Err("no")
                };
                let builder = bus.subscription::<Fails>();
                let builder = if synchronous { builder.synchronous() } else { builder };
                let _guard = builder.retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(2)).handle(fails);
                bus.publish(Fails);
                bus.wait_idle();
                assert_eq!((letters.get(), pool.metrics().hooks_skipped), (DEPTH, 1), "synchronous: {synchronous}");
                assert_eq!(tries.get(), 2 * (DEPTH + 1), "each generation has its attempts");
                assert_counts_add_up(&pool);
            }
        });
    }

    /// A pool like the one that a builder describes, which can be built once only.
    fn builder_like(builder: &WorkerPoolBuilder) -> WorkerPool {
        let wide = format!("{builder:?}").contains("workers: Some(8)");
        WorkerPool::builder().workers(if wide { 8 } else { 1 }).queue_capacity(1).stack_size(STACK).build().unwrap()
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn child_goes_from_hook_to_hook() {
        on_small_stacks(|builder| {
            let pool = builder.build().unwrap();
            let (slot, hooks): (Arc<OnceLock<EventBus>>, _) = (Arc::default(), Counter::new());
            let (again, counted) = (Arc::clone(&slot), hooks.clone());
            let (other, counts) = (Arc::clone(&slot), hooks.clone());
            let builder = EventBus::builder(&pool)
                .on_unhandled(move |_| {
                    counted.add();
                    again.get().unwrap().publish(Fails);
                })
                .on_dead_letter(move |_| {
                    counts.add();
                    other.get().unwrap().publish(Lost);
                });
            let bus = bus(builder, &slot);
            let _guard = bus.subscribe(|_: &Fails| Err::<(), _>("no"));
            bus.publish(Lost);
            bus.wait_idle();
            assert_eq!((hooks.get(), pool.metrics().hooks_skipped), (DEPTH, 1));
        });
    }

    /// Publishes the rest of the chain when dropped.
    struct Chain(OnceLock<(EventBus, usize)>);

    impl Drop for Chain {
        fn drop(&mut self) {
            if let Some((bus, left)) = self.0.take()
                && left > 0
            {
                bus.publish(Self(OnceLock::from((bus.clone(), left - 1))));
            }
        }
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn child_publishes_in_the_destructor_of_an_event() {
        on_small_stack(|| {
            let pool = WorkerPool::builder().workers(1).stack_size(STACK).build().unwrap();
            let bus = EventBus::new(&pool);
            bus.publish(Chain(OnceLock::from((bus.clone(), LINKS)))); // unhandled
            let handled = Counter::new();
            for synchronous in [true, false] {
                let counted = handled.clone();
                let builder = bus.subscription::<Chain>();
                let builder = if synchronous { builder.synchronous() } else { builder };
                let guard = builder.handle(move |_| counted.add());
                bus.publish(Chain(OnceLock::from((bus.clone(), LINKS / 10))));
                bus.wait_idle();
                pool.wait_idle();
                drop(guard);
            }
            assert_eq!(handled.get(), 2 * (LINKS / 10 + 1));
        });
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn child_submits_and_subscribes_in_retry_if_and_destructors() {
        /// Subscribes and ends a subscription when dropped.
        struct Subscribes(EventBus);
        impl Drop for Subscribes {
            fn drop(&mut self) {
                drop(self.0.subscribe(|_: &u32| ()));
                self.0.publish(1_u32);
            }
        }
        on_small_stacks(|builder| {
            let pool = Arc::new(builder.build().unwrap());
            let bus = EventBus::new(&pool);
            let (inner, ran) = (Arc::downgrade(&pool), Counter::new());
            let counted = ran.clone();
            let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3).retry_if(move |_| {
                let counted = counted.clone();
                inner.upgrade().unwrap().execute(move || counted.add()).unwrap();
                true
            });
            let guard = bus.subscription::<Subscribes>().retry(policy).handle(|_| Err::<(), _>("no"));
            (0..10).for_each(|_| drop(bus.publish(Subscribes(bus.clone()))));
            bus.wait_idle();
            pool.wait_idle();
            assert!(ran.get() >= 20, "{}", ran.get());
            drop(guard);
            assert_counts_add_up(&pool);
        });
    }
}
