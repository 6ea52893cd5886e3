//! What becomes of the contexts of tasks that end, that never run, or that never end.

use std::time::Duration;

use crate::common::{BlockedWorkers, Counter, fill, with_watchdog};
use crate::{Held, Live, carrying, carrying_pool};
use workcrew::{Overflow, WorkerPool};

const LONG: Duration = Duration::from_secs(86_400);

/// Fault 524.
#[test]
fn the_context_is_gone_before_a_waiter_learns_of_the_end() {
    with_watchdog(|| {
        for workers in [1, 4] {
            let (pool, live) = carrying_pool(workers);
            for _ in 0..200 {
                pool.spawn(|| ()).unwrap().join().unwrap();
                assert_eq!(live.get(), 0);
                let group = pool.group();
                group.spawn_all((0..4).map(|_| || ()));
                group.wait().unwrap();
                assert_eq!(live.get(), 0);
            }
        }
    });
}

/// Fault 524.
#[test]
fn a_task_that_never_runs_drops_its_context_without_entering_it() {
    with_watchdog(|| {
        let (builder, live) = carrying(WorkerPool::builder().workers(1).queue_capacity(4));
        let pool = builder.build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        let held = live.get();
        // Refused, and withdrawn.
        let queued = fill(&pool, &Counter::new());
        assert_eq!(live.get(), held + queued);
        assert!(pool.try_spawn(|| ()).is_err());
        let mut waiting = Box::pin(pool.spawn_async(|| ()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(live.get(), held + queued + 1);
        drop(waiting);
        assert_eq!(live.get(), held + queued);
        // Cancelled one by one, and in a group.
        let delayed = [(), ()].map(|()| pool.spawn_after(LONG, || ()).unwrap());
        let timer = pool.execute_every(LONG, || ()).unwrap();
        let group = pool.group();
        group.spawn_all([(), ()].map(|()| || ()));
        assert_eq!(live.get(), held + queued + 5);
        assert!(delayed.into_iter().all(|task| task.cancel()) && timer.cancel());
        group.cancel();
        assert!(group.wait().is_err());
        assert_eq!(live.get(), held + queued);
        // Cancelled by the end of the pool.
        drop(wedge);
        let report = pool.shutdown_timeout(crate::common::LIMIT);
        assert!(report.drained);
        assert!(pool.spawn(|| ()).is_err());
        assert_eq!(live.get(), 0);
    });
}

/// Fault 524.
#[test]
fn a_shutdown_that_cancels_and_a_queue_that_discards_leave_no_context() {
    with_watchdog(|| {
        for overflow in [Overflow::DiscardOldest, Overflow::DiscardNewest] {
            let (builder, live) = carrying(WorkerPool::builder().workers(1).queue_capacity(2).overflow(overflow));
            let pool = builder.build().unwrap();
            let wedge = BlockedWorkers::new(&pool);
            for _ in 0..20 {
                pool.execute(|| ()).unwrap();
            }
            assert_eq!(live.get(), 3); // one runs, two are queued
            let keyed = pool.keyed();
            keyed.execute("a", || ()).unwrap();
            pool.execute_after(LONG, || ()).unwrap();
            assert_eq!(pool.shutdown_now().tasks_cancelled, 4);
            assert_eq!(live.get(), 1); // that of the running task
            drop(wedge);
            while live.get() > 0 {
                std::thread::yield_now();
            }
        }
    });
}

/// Fault 524.
#[test]
fn a_context_whose_destructor_submits_is_dropped_outside_of_all_locks() {
    /// Submits when dropped.
    struct Submits(WorkerPool, Counter, #[allow(dead_code, reason = "counts")] Held);

    impl Drop for Submits {
        fn drop(&mut self) {
            self.1.add();
            if self.1.get() < 100 {
                let _ = self.0.execute(|| ());
            }
        }
    }

    with_watchdog(|| {
        let (live, dropped) = (Live::default(), Counter::new());
        let slot = std::sync::Arc::new(std::sync::OnceLock::<WorkerPool>::new());
        let (own, held, counted) = (std::sync::Arc::clone(&slot), live.clone(), dropped.clone());
        let builder = WorkerPool::builder().workers(2).propagate(move || {
            let submits = own.get().map(|pool| Submits(pool.clone(), counted.clone(), held.hold()));
            move |run| {
                let _held = &submits;
                run();
            }
        });
        let pool = builder.build().unwrap();
        slot.set(pool.clone()).unwrap();
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        assert_eq!((dropped.get(), live.get()), (100, 0));
        pool.shutdown();
    });
}

/// Fault 525.
#[cfg(feature = "driver")]
#[test]
fn a_future_that_is_cancelled_while_it_is_polled_drops_its_context_after_the_poll() {
    use crate::as_request;
    use crate::common::Gate;
    use workcrew::JoinError;
    use workcrew::driver::Driver;

    with_watchdog(|| {
        let (pool, live) = carrying_pool(1);
        let driver = Driver::new(&pool, 1).unwrap();
        let gate = Gate::new();
        let inside = gate.clone();
        let future = as_request(7, || driver.spawn(async move { inside.pass() })).unwrap();
        gate.wait_started(1);
        assert!(future.cancel());
        assert_eq!(live.get(), 1, "the context is in use");
        gate.open();
        assert!(matches!(future.join(), Err(JoinError::Cancelled(_))));
        while live.get() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(driver.spawn(async { crate::REQUEST.get() }).unwrap().join().unwrap(), 0);
    });
}
