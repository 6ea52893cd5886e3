//! Each class has a bound of its own, and a full class affects no other.

use std::time::Duration;

use workcrew::Priority::{Background, High, Normal};
use workcrew::{BuildError, CancelReason, JoinError, Overflow, Priority, WorkerPool};

use crate::common::{BlockedWorkers, Counter, spawn_parked, with_watchdog};
use crate::{CLASSES, pool};

/// Fills the queue of a class with counted jobs. All workers must be held.
fn fill(pool: &WorkerPool, priority: Priority, ran: &Counter) -> usize {
    let builder = pool.task().priority(priority);
    let submit = || {
        let ran = ran.clone();
        builder.try_execute(move |_| ran.add())
    };
    (0..).take_while(|_| submit().map_err(|error| assert!(error.is_full())).is_ok()).count()
}

/// Fault 512.
#[test]
fn a_full_class_refuses_and_delays_no_other() {
    for full in CLASSES {
        for workers in [1, 2, 8] {
            with_watchdog(|| {
                let pool = pool(workers, 3);
                let blocked = BlockedWorkers::new(&pool);
                let ran = Counter::new();
                assert_eq!(fill(&pool, full, &ran), 3);
                for other in CLASSES.into_iter().filter(|class| *class != full) {
                    let builder = pool.task().priority(other);
                    let add = || {
                        let ran = ran.clone();
                        move |_: &workcrew::CancellationToken| ran.add()
                    };
                    builder.execute(add()).unwrap();
                    builder.try_execute(add()).unwrap();
                    builder.try_execute_for(Duration::MAX, add()).unwrap();
                    assert!(builder.try_execute(add()).unwrap_err().is_full());
                }
                assert_eq!(CLASSES.map(|class| pool.queue_len_of(class)), [3, 3, 3]);
                let metrics = pool.metrics();
                let lens = [metrics.queue_len_high, metrics.queue_len, metrics.queue_len_background];
                assert_eq!(lens, [3, 3, 3]);
                blocked.open();
                pool.wait_idle();
                assert_eq!(ran.get(), 9);
            });
        }
    }
}

/// Fault 518.
#[test]
fn each_class_has_the_capacity_that_was_set() {
    let builder = WorkerPool::builder().workers(1).queue_capacity(5).priority_capacity(High, 2);
    let pool = builder.priority_capacity(Background, 7).build().unwrap();
    assert_eq!(CLASSES.map(|class| pool.queue_capacity_of(class)), [2, 5, 7]);
    let blocked = BlockedWorkers::new(&pool);
    assert_eq!(CLASSES.map(|class| fill(&pool, class, &Counter::new())), [2, 5, 7]);
    drop(blocked);
    let same = WorkerPool::builder().workers(1).priority_capacity(Normal, 9).build().unwrap();
    assert_eq!(CLASSES.map(|class| same.queue_capacity_of(class)), [9; 3]);
    for class in CLASSES {
        let none = WorkerPool::builder().priority_capacity(class, 0).build();
        assert!(matches!(none, Err(BuildError::ZeroQueueCapacity)));
        let many = WorkerPool::builder().priority_capacity(class, usize::MAX).build();
        assert!(matches!(many, Err(BuildError::QueueTooLarge { requested: usize::MAX, .. })));
    }
    let none = WorkerPool::builder().background_workers(0).build();
    assert!(matches!(none, Err(BuildError::ZeroBackgroundWorkers)));
    WorkerPool::builder().workers(1).background_workers(usize::MAX).build().unwrap();
}

#[test]
fn a_submitter_waits_for_room_in_its_own_class() {
    for class in CLASSES {
        with_watchdog(|| {
            let pool = pool(1, 1);
            let blocked = BlockedWorkers::new(&pool);
            let ran = Counter::new();
            fill(&pool, class, &ran);
            let (own, added) = (pool.clone(), ran.clone());
            let waits = spawn_parked(move || own.task().priority(class).execute(move |_| added.add()).unwrap());
            let added = ran.clone();
            let later = pool.task().priority(class).spawn_async(move |_| added.add());
            let later = spawn_parked(move || pollster::block_on(later).map(drop).unwrap());
            assert!(!waits.is_finished() && !later.is_finished());
            blocked.open();
            waits.join().unwrap();
            later.join().unwrap();
            pool.wait_idle();
            assert_eq!(ran.get(), 3);
        });
    }
}

#[test]
fn the_policy_for_a_full_queue_concerns_its_class() {
    let full = |overflow| {
        let builder = WorkerPool::builder().workers(1).queue_capacity(1).overflow(overflow);
        let pool = builder.build().unwrap();
        let blocked = BlockedWorkers::new(&pool);
        let queued = CLASSES.map(|class| pool.task().priority(class).spawn(move |_| class).unwrap());
        (pool, blocked, queued)
    };
    let discarded = |joined| matches!(joined, Err(JoinError::Cancelled(CancelReason::Discarded)));
    for (place, class) in CLASSES.into_iter().enumerate() {
        let (pool, blocked, queued) = full(Overflow::DiscardOldest);
        let newest = pool.task().priority(class).spawn(move |_| class).unwrap();
        drop(blocked);
        let joined = queued.map(|task| discarded(task.join()));
        assert_eq!(joined, [0, 1, 2].map(|other| other == place));
        assert_eq!(newest.join().unwrap(), class);

        let (pool, blocked, queued) = full(Overflow::DiscardNewest);
        assert!(discarded(pool.task().priority(class).spawn(move |_| class).unwrap().join()));
        drop(blocked);
        assert_eq!(queued.map(|task| task.join().unwrap()), CLASSES);

        let (pool, blocked, _queued) = full(Overflow::CallerRuns);
        let here = std::thread::current().id();
        let ran_on = pool.task().priority(class).spawn(|_| std::thread::current().id()).unwrap();
        assert_eq!(ran_on.join().unwrap(), here);
        drop(blocked);
    }
}
