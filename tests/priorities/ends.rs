//! Shutdown with each class full, and joins of queued tasks.

use std::time::Duration;

use workcrew::{CancelReason, JoinError, OnDrop, WorkerPool};

use crate::common::{BlockedWorkers, Counter, DropCounter, assert_counts_add_up, with_watchdog};
use crate::{CLASSES, pool};

/// Queues two tasks of each class that count their drops.
fn queue_two_of_each(pool: &WorkerPool, ran: &Counter, dropped: &Counter) {
    for class in CLASSES {
        for _ in 0..2 {
            let (ran, kept) = (ran.clone(), DropCounter(dropped.clone()));
            let run = move |_: &workcrew::CancellationToken| {
                ran.add();
                drop(kept);
            };
            pool.task().priority(class).try_execute(run).unwrap();
        }
        assert_eq!(pool.queue_len_of(class), 2);
    }
}

/// Fault 516.
#[test]
fn every_end_of_a_pool_drains_or_cancels_each_class() {
    for workers in [1, 2, 8] {
        for limit in [1, 8] {
            with_watchdog(|| {
                let pool = || {
                    let builder = WorkerPool::builder().workers(workers).queue_capacity(2).background_workers(limit);
                    builder.on_drop(OnDrop::Drain).build().unwrap()
                };
                let (ran, dropped) = (Counter::new(), Counter::new());
                let drained = pool();
                let blocked = BlockedWorkers::new(&drained);
                queue_two_of_each(&drained, &ran, &dropped);
                drop(blocked);
                drained.shutdown();
                assert_eq!((ran.get(), dropped.get()), (6, 6));

                let ended = pool();
                let blocked = BlockedWorkers::new(&ended);
                queue_two_of_each(&ended, &ran, &dropped);
                let report = ended.shutdown_now();
                assert_eq!((report.tasks_cancelled, report.tasks_running), (6, workers));
                assert_eq!((ran.get(), dropped.get()), (6, 12));
                drop(blocked);
                ended.wait_idle();
                assert_counts_add_up(&ended);

                let timed = pool();
                let blocked = BlockedWorkers::new(&timed);
                queue_two_of_each(&timed, &ran, &dropped);
                let report = timed.shutdown_timeout(Duration::ZERO);
                assert_eq!((report.tasks_cancelled, dropped.get()), (6, 18));
                drop(blocked);

                let idle = pool();
                queue_after_close(&idle);
            });
        }
    }
}

/// A closed pool refuses tasks of all classes.
fn queue_after_close(pool: &WorkerPool) {
    pool.close();
    for class in CLASSES {
        let builder = pool.task().priority(class);
        assert!(builder.execute(|_| ()).is_err());
        assert!(builder.try_execute(|_| ()).unwrap_err().is_shut_down());
    }
}

#[test]
fn a_shutdown_refuses_submitters_that_wait_for_room_in_any_class() {
    for class in CLASSES {
        with_watchdog(|| {
            let pool = pool(1, 1);
            let blocked = BlockedWorkers::new(&pool);
            pool.task().priority(class).execute(|_| ()).unwrap();
            let own = pool.clone();
            let waits = crate::common::spawn_parked(move || own.task().priority(class).execute(|_| ()).is_err());
            pool.close();
            assert!(waits.join().unwrap());
            drop(blocked);
        });
    }
}

#[test]
fn a_worker_runs_the_queued_task_of_any_class_that_it_joins() {
    for class in CLASSES {
        with_watchdog(|| {
            let pool = pool(1, 4);
            let own = pool.clone();
            let outer = pool.spawn(move || own.task().priority(class).spawn(|_| 3).unwrap().join().unwrap());
            assert_eq!(outer.unwrap().join().unwrap(), 3);
            // The entry that is left in the queue does nothing.
            pool.wait_idle();
            assert_eq!(pool.metrics().tasks_succeeded, 2);
        });
    }
}

#[test]
fn a_queued_task_of_any_class_can_be_cancelled() {
    for class in CLASSES {
        let pool = pool(1, 1);
        let blocked = BlockedWorkers::new(&pool);
        let dropped = Counter::new();
        let kept = DropCounter(dropped.clone());
        let task = pool.task().priority(class).spawn(move |_| drop(kept)).unwrap();
        assert!(task.cancel());
        assert_eq!(dropped.get(), 1);
        assert!(matches!(task.join(), Err(JoinError::Cancelled(CancelReason::Requested))));
        drop(blocked);
    }
}
