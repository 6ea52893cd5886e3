//! Submitting under a lock: what the `try_` forms never do, and what the others do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, ThreadId};
use std::time::Duration;

use common::{BlockedWorkers, Counter, Mutex, assert_counts_add_up, fill, pool, with_watchdog};
use workcrew::{Overflow, WorkerPool};

/// What every task does with a lock that its submitter may hold, and where it did it.
type Lock = Arc<Mutex<Vec<ThreadId>>>;

fn note(lock: &Lock) -> impl FnOnce() + Send + 'static + use<> {
    let lock = Arc::clone(lock);
    move || lock.lock().unwrap().push(thread::current().id())
}

/// Calls every form that never waits, while holding the lock that the tasks take. Returns how many were accepted.
fn submit_under_the_lock(pool: &WorkerPool, lock: &Lock) -> usize {
    let group = pool.group().capacity(2);
    let spawner = group.spawner();
    let guard = lock.lock().unwrap();
    let mut accepted = 0;
    for _ in 0..5 {
        accepted += usize::from(pool.try_execute(note(lock)).is_ok());
        accepted += usize::from(pool.try_spawn(note(lock)).is_ok());
        accepted += usize::from(group.try_spawn(note(lock)).is_ok());
        accepted += usize::from(spawner.try_spawn(note(lock)).is_ok());
        accepted += usize::from(pool.execute_after(Duration::ZERO, note(lock)).is_ok());
    }
    drop(guard);
    group.wait().unwrap();
    accepted
}

/// Fault 168.
#[test]
fn the_try_forms_neither_wait_nor_run_in_place() {
    with_watchdog(|| {
        use Overflow::{Block, CallerRuns, DiscardNewest, DiscardOldest};
        for policy in [Block, CallerRuns, DiscardOldest, DiscardNewest] {
            for (workers, capacity) in [(1, 1), (1, 64), (2, 1), (8, 2)] {
                let builder = WorkerPool::builder().workers(workers).queue_capacity(capacity).overflow(policy);
                let pool = builder.build().unwrap();
                let lock = Lock::default();
                // Outside, with every worker busy and the queue full.
                let wedge = BlockedWorkers::new(&pool);
                fill(&pool, &Counter::new());
                let (inner, outer) = (pool.clone(), Arc::clone(&lock));
                let submitter = thread::spawn(move || submit_under_the_lock(&inner, &outer));
                // It holds the lock, or has released it and waits for the group.
                while pool.metrics().timers_pending > 0 || pool.metrics().tasks_refused < 10 {
                    thread::yield_now();
                }
                wedge.open();
                let (id, accepted) = (submitter.thread().id(), submitter.join().unwrap());
                pool.wait_idle();
                assert_eq!(lock.lock().unwrap().len(), accepted);
                assert!(!lock.lock().unwrap().contains(&id), "a task ran on the thread that submitted it");
                assert_counts_add_up(&pool);
            }
        }
    });
}

/// Fault 168.
#[test]
fn the_try_forms_neither_wait_nor_run_in_place_on_a_worker() {
    with_watchdog(|| {
        for capacity in [1, 64] {
            let pool = pool(1, capacity);
            let lock = Lock::default();
            let (inner, under) = (pool.clone(), Arc::clone(&lock));
            let task = pool.spawn(move || {
                let guard = under.lock().unwrap();
                while inner.try_execute(note(&under)).is_ok() {}
                assert!(inner.try_execute(note(&under)).is_err_and(|error| error.is_full()));
                assert!(inner.try_spawn(note(&under)).is_err_and(|error| error.is_full()));
                assert!(inner.try_execute_for(Duration::MAX, note(&under)).is_err_and(|error| error.is_timeout()));
                assert_eq!(guard.len(), 0, "a task ran while the lock was held");
            });
            task.unwrap().join().unwrap();
            pool.wait_idle();
            assert_eq!(lock.lock().unwrap().len(), capacity);
        }
    });
}

/// Fault 168.
#[test]
fn the_plain_forms_may_run_a_job_in_place_as_their_docs_say() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let (seen, lock) = (Lock::default(), Lock::default());
        let (inner, notes, spare) = (pool.clone(), Arc::clone(&seen), Arc::clone(&lock));
        let task = pool.spawn(move || {
            inner.execute(note(&spare)).unwrap(); // fills the queue
            inner.execute(note(&notes)).unwrap();
            let in_place = notes.lock().unwrap().clone();
            assert_eq!(in_place, [thread::current().id()]);
        });
        task.unwrap().join().unwrap();
    });
}

/// Fault 169. That the work does not grow with their number is counted in instructions; see `benches/src/counted`.
#[test]
fn what_ends_among_many_ends_alone_and_leaves_nothing() {
    const MANY: usize = 10_000;
    with_watchdog(|| {
        let pool = pool(1, 1);
        let wedge = BlockedWorkers::new(&pool);
        let root = workcrew::CancellationToken::new();

        let called = Counter::new();
        let call = || {
            let called = called.clone();
            root.on_cancel(move || called.add())
        };
        let mut guards: Vec<_> = (0..MANY).map(|_| call()).collect();
        let mut children: Vec<_> = (0..MANY).map(|_| root.child_token()).collect();
        children.iter().step_by(2).for_each(workcrew::CancellationToken::cancel);
        assert_eq!(children.iter().filter(|child| child.is_cancelled()).count(), MANY / 2);
        let groups: Vec<_> = (0..MANY)
            .map(|_| {
                let group = pool.group().parent(&root);
                group.spawn(|| ());
                group
            })
            .collect();
        let before = pool.metrics().tasks_cancelled;
        groups.iter().rev().step_by(2).for_each(workcrew::TaskGroup::cancel);
        assert_eq!(pool.metrics().tasks_cancelled - before, MANY as u64 / 2);
        guards.drain(MANY / 4..3 * MANY / 4).for_each(drop);
        children.drain(MANY / 4..3 * MANY / 4).for_each(drop);
        root.cancel();
        assert_eq!(called.get(), MANY / 2, "one call for each guard that is left");
        assert!(children.iter().all(workcrew::CancellationToken::is_cancelled));
        assert_eq!(pool.metrics().tasks_cancelled - before, MANY as u64);
        drop(groups);

        let far = Duration::from_secs(86_400);
        let timers: Vec<_> = (0..MANY).map(|_| pool.execute_after(far, || ()).unwrap()).collect();
        assert!(timers.iter().rev().step_by(2).all(workcrew::TimerHandle::cancel));
        assert_eq!(pool.metrics().timers_pending, MANY / 2);
        assert!(timers.iter().step_by(2).all(workcrew::TimerHandle::cancel));
        assert_eq!(pool.metrics().timers_pending, 0);

        let mut waiting: Vec<_> = (0..MANY).map(|_| Box::pin(pool.spawn_async(|| ()))).collect();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        fill(&pool, &Counter::new());
        for future in &mut waiting {
            assert!(future.as_mut().poll(&mut context).is_pending());
        }
        waiting.drain(MANY / 4..3 * MANY / 4).for_each(drop);
        waiting.into_iter().rev().for_each(drop);
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);

        let (sender, receiver) = channel();
        pool.execute(move || sender.send(()).unwrap()).unwrap();
        receiver.recv().unwrap();
    });
}
