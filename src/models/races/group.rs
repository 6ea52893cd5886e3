//! Groups and scopes: the last task and the waiter, two failures, cancelling and starting, spawning
//! and closing.

use std::convert::Infallible;

use super::{Dropped, counter, one_worker, workers};
use crate::error::{CancelReason, GroupError};
use crate::group::Progress;
use crate::models::explore::{explore, race};
use crate::sync::{Arc, AtomicUsize, Ordering, Time};

/// Returns the result of a task that cannot fail.
fn certain<T>(value: T) -> Result<T, Infallible> {
    Ok(value)
}

#[test]
fn last_task_and_waiter() {
    explore("last_task_and_waiter", Time::Frozen, || {
        let pool = one_worker(1);
        let group = pool.group();
        group.spawn(|| certain(7));
        assert_eq!(group.wait().ok(), Some(vec![7]), "the last task wakes the waiter");
        drop(pool);
    });
}

#[test]
fn last_tickets_and_waiter() {
    explore("last_tickets_and_waiter", Time::Frozen, || {
        let pool = workers(2, 1);
        let group = pool.group();
        for value in 0..2 {
            group.spawn(move || certain(value));
        }
        assert_eq!(group.wait().ok(), Some(vec![0, 1]), "no task is left without a ticket");
        drop(pool);
    });
}

#[test]
fn failure_and_failure() {
    explore("failure_and_failure", Time::Frozen, || {
        let pool = workers(2, 1);
        let (order, dropped) = (counter(), counter());
        let group = pool.group();
        for task in 1..=2 {
            let (order, unstarted) = (Arc::clone(&order), Dropped(Arc::clone(&dropped)));
            group.spawn(move || {
                let _unstarted = unstarted;
                order.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(task)
            });
        }
        let token = group.token().clone();
        let failed = group.wait();
        assert!(matches!(failed, Err(GroupError::Failed(1 | 2))), "the first failure, and no cancellation");
        assert_eq!(dropped.load(Ordering::Relaxed), 2, "all tasks are dropped when the wait ends");
        assert_eq!(token.reason(), Some(CancelReason::GroupEnded));
        drop(pool);
        if order.load(Ordering::Relaxed) == 1 {
            assert!(
                matches!(failed, Err(GroupError::Failed(1))),
                "a task that was cancelled before it ran has not failed"
            );
        }
    });
}

#[test]
fn first_failure_is_kept() {
    explore("first_failure_is_kept", Time::Frozen, || {
        // The failure of one task cancels the other, which returns an error. That is a failure, but
        // not the first.
        let pool = workers(2, 1);
        let group = pool.group();
        let token = group.token().clone();
        group.spawn(|| Err("the cause"));
        group.spawn(move || {
            token.wait();
            Err("cancelled")
        });
        let outcome: Result<Vec<()>, _> = group.wait();
        assert!(matches!(outcome, Err(GroupError::Failed("the cause"))), "first error wins");
        drop(pool);
    });
}

#[test]
fn group_cancel_and_start() {
    explore("group_cancel_and_start", Time::Frozen, || {
        let pool = one_worker(1);
        let (runs, dropped) = (counter(), counter());
        let group = pool.group();
        for _ in 0..2 {
            let (runs, closure) = (Arc::clone(&runs), Dropped(Arc::clone(&dropped)));
            group.spawn(move || {
                let _closure = closure;
                runs.fetch_add(1, Ordering::Relaxed);
            });
        }
        group.cancel();
        let outcome = group.wait();
        assert_eq!(dropped.load(Ordering::Relaxed), 2, "a task is dropped whether or not it ran");
        let run = runs.load(Ordering::Relaxed);
        assert_eq!(outcome.is_ok(), run == 2, "the group is cancelled unless all tasks had started");
        drop(pool);
    });
}

#[test]
fn group_full_and_room() {
    for time in [Time::Frozen, Time::Skips] {
        explore("group_full_and_room", time, || {
            let pool = one_worker(1);
            let group = pool.group().capacity(1);
            for value in 0..3 {
                group.spawn(move || certain(value));
                let Progress { done, total } = group.progress();
                assert!(total - done <= 2, "at most one task waits and one runs");
            }
            assert_eq!(group.wait().ok(), Some(vec![0, 1, 2]), "a submitter that waits for room is notified of it");
            drop(pool);
        });
    }
}

#[test]
fn group_full_and_cancel() {
    for time in [Time::Frozen, Time::Skips] {
        explore("group_full_and_cancel", time, || {
            let pool = one_worker(1);
            let group = pool.group().capacity(1);
            let token = group.token().clone();
            group.spawn(|| certain(0));
            let (outcome, ()) = race(
                move || {
                    group.spawn(|| certain(1));
                    group.spawn(|| certain(2));
                    group.wait()
                },
                move || token.cancel(),
            );
            match outcome {
                Ok(values) => assert_eq!(values, [0, 1, 2]),
                Err(other) => assert!(matches!(other, GroupError::Cancelled(CancelReason::Requested))),
            }
            drop(pool);
        });
    }
}

#[test]
fn group_and_shutdown() {
    explore("group_and_shutdown", Time::Frozen, || {
        let pool = Arc::new(one_worker(1));
        let (ending, runs) = (Arc::clone(&pool), counter());
        let counted = Arc::clone(&runs);
        let group = pool.group();
        let (outcome, ()) = race(
            move || {
                group.spawn(move || {
                    counted.fetch_add(1, Ordering::Relaxed);
                });
                group.wait().is_ok()
            },
            move || ending.shutdown(),
        );
        assert_eq!(
            runs.load(Ordering::Relaxed),
            usize::from(outcome),
            "an accepted task is drained, and a refused task does not run"
        );
    });
}

#[test]
fn helping_waiter_and_worker() {
    explore("helping_waiter_and_worker", Time::Frozen, || {
        // A task waits for a group of its own pool. The other worker may or may not run the task of
        // the group.
        let pool = Arc::new(workers(2, 1));
        let inner = Arc::downgrade(&pool);
        let handle = pool.spawn(move || {
            let pool = inner.upgrade().expect("the model waits for the task");
            let group = pool.group();
            group.spawn(|| certain(7));
            group.wait().ok()
        });
        let outcome = handle.unwrap_or_else(|_| panic!("there is room")).join();
        assert_eq!(outcome.ok(), Some(Some(vec![7])), "a wait on a worker ends");
        pool.shutdown();
    });
}

#[test]
fn scope_end_and_last_borrow() {
    explore("scope_end_and_last_borrow", Time::Frozen, || {
        let pool = one_worker(1);
        let borrowed = AtomicUsize::new(0);
        let ended = pool.scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    borrowed.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert!(ended.is_ok());
        assert_eq!(borrowed.load(Ordering::Relaxed), 2, "the scope ends after its tasks");
        drop(pool);
    });
}

#[test]
fn scope_end_and_failure() {
    explore("scope_end_and_failure", Time::Frozen, || {
        let pool = workers(2, 1);
        let borrows = counter();
        {
            let borrowed = &borrows;
            let ended = pool.scope(|scope| {
                for task in 0..2 {
                    let borrow = Dropped(Arc::clone(borrowed));
                    scope.spawn(move || {
                        let _borrow = &borrow;
                        if task == 0 { Err(()) } else { Ok(()) }
                    });
                }
            });
            assert!(matches!(ended, Err(GroupError::Failed(()))));
            assert_eq!(borrows.load(Ordering::Relaxed), 2, "no borrow outlives the scope, whether or not its task ran");
        }
        drop(pool);
    });
}

#[test]
fn group_after_group_on_a_worker() {
    explore("group_after_group_on_a_worker", Time::Frozen, || {
        // The other worker takes the tickets, or they are taken back.
        let pool = Arc::new(workers(2, 1));
        let inner = Arc::downgrade(&pool);
        let sums = pool.spawn(move || {
            let pool = inner.upgrade().expect("the model waits for the task");
            [7, 8].map(|value| {
                let group = pool.group();
                group.spawn(move || certain(value));
                group.wait().ok()
            })
        });
        let sums = sums.unwrap_or_else(|_| panic!("there is room")).join();
        assert_eq!(sums.ok(), Some([Some(vec![7]), Some(vec![8])]));
        pool.shutdown();
    });
}

#[test]
fn resize_and_group() {
    explore("resize_and_group", Time::Frozen, || {
        let pool = Arc::new(one_worker(1));
        let (other, groups) = (Arc::clone(&pool), Arc::clone(&pool));
        let two_tasks = move || {
            let group = groups.group();
            (0..2).for_each(|value| group.spawn(move || certain(value)));
            group.wait().ok()
        };
        let (values, ()) = race(two_tasks, move || other.resize(2).expect("a thread starts"));
        assert_eq!(values, Some(vec![0, 1]));
        pool.shutdown();
    });
}
