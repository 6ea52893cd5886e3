//! Destructors and wakers that cancel, drop or submit the next task.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use crate::common::{self, BlockedWorkers, Counter, Gate, Mutex, assert_counts_add_up};
use crate::{DEPTH, LINKS, STACK, in_processes, on_small_stack};
use workcrew::{JoinHandle, OnDrop, Overflow, TaskGroup, WeakWorkerPool, WorkerPool};

/// One worker, which is held, and room for all links.
fn held_pool() -> (WorkerPool, BlockedWorkers) {
    let pool = WorkerPool::builder().workers(1).queue_capacity(2 * LINKS).stack_size(STACK).build().unwrap();
    let wedge = BlockedWorkers::new(&pool);
    (pool, wedge)
}

/// Faults 173, 464.
#[test]
fn destructors_that_cancel_drop_or_submit_the_next_one_take_the_stack_of_a_few() {
    in_processes(&[
        "destructors::child_cancels_a_chain_of_tasks_by_their_closures",
        "destructors::child_drops_a_chain_of_results",
        "destructors::child_drops_a_chain_of_groups",
        "destructors::child_drops_a_chain_of_values_and_errors_of_groups",
        "destructors::child_drops_pools_that_closures_own",
        "destructors::child_submits_in_the_destructor_of_a_discarded_closure",
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

/// A value or an error of a group that keeps the next group.
struct KeepsGroup(#[allow(dead_code, reason = "it is there to be dropped")] Option<Kept>);

type Kept = TaskGroup<Result<KeepsGroup, KeepsGroup>>;

#[test]
#[ignore = "run in a process of its own"]
fn child_drops_a_chain_of_values_and_errors_of_groups() {
    on_small_stack(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(64).stack_size(STACK).build().unwrap();
        let mut first: Option<Kept> = None;
        for link in 0..LINKS / 10 {
            let next = KeepsGroup(first);
            let group = pool.group();
            group.spawn(move || if link % 2 == 0 { Ok(next) } else { Err(next) });
            first = Some(group);
        }
        pool.wait_idle();
        drop(first);
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
    pool: WeakWorkerPool,
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
            let pool = builder.build().unwrap();
            let wedge = BlockedWorkers::new(&pool);
            let (goes_on, dropped) = (Arc::new(AtomicBool::new(true)), Arc::default());
            let submit = || {
                let next =
                    Resubmits { pool: pool.downgrade(), goes_on: goes_on.clone(), dropped: Arc::clone(&dropped) };
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
    in_processes(&["destructors::child_wakes_a_chain_of_handles"]);
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
