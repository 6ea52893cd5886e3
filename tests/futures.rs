//! The pool from async code: waiting for room, for a result, for a cancellation, as futures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/alarm.rs"]
mod alarm;

use std::future::Future;
use std::mem;
use std::panic;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use alarm::{Alarm, poll};
use common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, fill, in_threads, on_grid, pool,
    spawn_parked, with_watchdog,
};
use pollster::block_on;
use workcrew::{CancelReason, CancellationToken, JoinError, JoinHandle, Overflow, SpawnAsync, WorkerPool};

/// A pool whose workers are held and whose queue is full.
fn full(pool: &WorkerPool) -> (BlockedWorkers, Counter) {
    let (wedge, ran) = (BlockedWorkers::new(pool), Counter::new());
    fill(pool, &ran);
    (wedge, ran)
}

#[test]
fn nothing_is_submitted_before_the_first_poll_and_where_there_is_room_the_first_is_enough() {
    on_grid(|pool| {
        let dropped = Counter::new();
        let held = DropCounter(dropped.clone());
        drop(pool.spawn_async(move || drop(held)));
        assert_eq!((dropped.get(), pool.metrics().tasks_submitted), (1, 0));
        let mut submission = pool.spawn_async(|| 3);
        let alarm = Alarm::new();
        let Poll::Ready(Ok(handle)) = poll(&mut submission, &alarm) else { panic!("there is room") };
        assert!(poll(&mut submission, &alarm).is_pending(), "ready once, then pending forever");
        assert_eq!((handle.join().unwrap(), alarm.rung.get()), (3, 0));
    });
}

#[test]
fn a_submission_waits_for_room_and_wakes_the_last_waker() {
    on_grid(|pool| {
        let (wedge, ran) = full(&pool);
        let mut submission = pool.spawn_async(|| 3);
        let (first, (last, rings)) = (Alarm::new(), Alarm::with_bell());
        assert!(poll(&mut submission, &first).is_pending());
        assert!(poll(&mut submission, &last).is_pending());
        assert_eq!(pool.metrics().tasks_queued, pool.queue_capacity() as u64 + 1, "it counts as queued");
        wedge.open();
        let handle = loop {
            rings.recv_timeout(LIMIT).unwrap();
            if let Poll::Ready(handle) = poll(&mut submission, &last) {
                break handle.unwrap();
            }
        };
        assert_eq!((block_on(handle).unwrap(), first.rung.get()), (3, 0));
        pool.wait_idle();
        assert_eq!(ran.get(), pool.queue_capacity());
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_submission_that_is_dropped_while_it_waits_is_withdrawn() {
    on_grid(|pool| {
        let (wedge, _ran) = full(&pool);
        let before = pool.metrics().tasks_submitted;
        let (ran, dropped) = (Counter::new(), Counter::new());
        let (counted, held) = (ran.clone(), DropCounter(dropped.clone()));
        let mut submission = pool.spawn_async(move || {
            let _held = held;
            counted.add();
        });
        let alarm = Alarm::new();
        assert!(poll(&mut submission, &alarm).is_pending());
        drop(submission);
        assert_eq!((dropped.get(), pool.metrics().tasks_submitted), (1, before));
        wedge.open();
        pool.wait_idle();
        assert_eq!((ran.get(), alarm.rung.get(), Arc::strong_count(&alarm)), (0, 0, 1));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_notified_future_that_is_dropped_passes_the_notification_on() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        for _ in 0..200 {
            let (wedge, _ran) = full(&pool);
            let (one, two) = (Alarm::with_bell(), Alarm::with_bell());
            let mut first = pool.spawn_async(|| ());
            let mut second = pool.spawn_async(|| ());
            assert!(poll(&mut first, &one.0).is_pending() && poll(&mut second, &two.0).is_pending());
            wedge.open(); // one job is taken out, so one is told: the one that came first
            one.1.recv_timeout(LIMIT).unwrap();
            drop(first);
            two.1.recv_timeout(LIMIT).unwrap();
            while poll(&mut second, &two.0).is_pending() {}
            pool.wait_idle();
        }
    });
}

#[test]
fn closing_returns_the_closure_and_wakes_waiting_submitters() {
    on_grid(|pool| {
        let (wedge, _ran) = full(&pool);
        let mut submission = pool.spawn_async(|| 3);
        let (alarm, rings) = Alarm::with_bell();
        assert!(poll(&mut submission, &alarm).is_pending());
        pool.close();
        rings.recv_timeout(LIMIT).unwrap();
        let Poll::Ready(Err(error)) = poll(&mut submission, &alarm) else { panic!("it was refused") };
        assert!(error.is_shut_down());
        assert_eq!(error.into_inner()(), 3);
        let late = block_on(pool.spawn_async(|| 4)).unwrap_err();
        assert_eq!(late.into_inner()(), 4);
        wedge.open();
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

/// Fault 480.
#[test]
fn a_submission_that_is_not_polled_again_does_not_hold_up_wait_idle() {
    on_grid(|pool| {
        let (wedge, ran) = full(&pool);
        let mut kept = pool.spawn_async(|| 3);
        assert!(poll(&mut kept, &Alarm::new()).is_pending());
        wedge.open();
        pool.wait_idle(); // the future is not polled meanwhile
        assert_eq!((ran.get(), pool.metrics().tasks_queued), (pool.queue_capacity(), 1));
        assert_eq!(block_on(async { kept.await.unwrap().await }).unwrap(), 3);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn forgotten_submissions_do_not_hold_up_a_shutdown() {
    on_grid(|pool| {
        let (wedge, _ran) = full(&pool);
        let mut forgotten = Box::new(pool.spawn_async(|| ()));
        assert!(poll(&mut forgotten, &Alarm::new()).is_pending());
        let mut late = pool.spawn_async(|| 5);
        assert!(poll(&mut late, &Alarm::new()).is_pending());
        mem::forget(forgotten);
        wedge.open();
        pool.shutdown(); // no thread polls
        let refused = block_on(late).map(drop).unwrap_err();
        assert_eq!(refused.into_inner()(), 5);
    });
}

#[test]
fn on_the_only_worker_a_submission_never_waits() {
    with_watchdog(|| {
        for policy in [Overflow::Block, Overflow::CallerRuns, Overflow::DiscardOldest, Overflow::DiscardNewest] {
            let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(policy).build().unwrap();
            let inner = pool.clone();
            let submitted = pool.spawn(move || {
                let handles: Vec<_> = (0..50).map(|n| block_on(inner.spawn_async(move || n)).unwrap()).collect();
                handles.into_iter().map(block_on).filter(Result::is_ok).count()
            });
            let ended = submitted.unwrap().join().unwrap();
            let discards = matches!(policy, Overflow::DiscardOldest | Overflow::DiscardNewest);
            assert!(if discards { ended >= 1 } else { ended == 50 }, "{policy:?}: {ended}");
            pool.wait_idle();
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn a_full_queue_follows_the_policy_but_never_runs_the_job_in_place() {
    with_watchdog(|| {
        for policy in [Overflow::CallerRuns, Overflow::DiscardOldest, Overflow::DiscardNewest] {
            let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(policy).build().unwrap();
            let (wedge, ran) = full(&pool);
            let mut submission = pool.spawn_async(|| thread::current().id());
            let (alarm, rings) = Alarm::with_bell();
            let first = poll(&mut submission, &alarm);
            assert_eq!(first.is_pending(), policy == Overflow::CallerRuns);
            wedge.open();
            let handle = match first {
                Poll::Ready(handle) => handle.unwrap(),
                Poll::Pending => loop {
                    rings.recv_timeout(LIMIT).unwrap();
                    if let Poll::Ready(handle) = poll(&mut submission, &alarm) {
                        break handle.unwrap();
                    }
                },
            };
            match (policy, handle.join()) {
                (Overflow::DiscardNewest, Err(JoinError::Cancelled(CancelReason::Discarded))) => {}
                (Overflow::CallerRuns | Overflow::DiscardOldest, Ok(thread)) => {
                    assert_ne!(thread, thread::current().id());
                }
                (_, other) => panic!("{policy:?}: {other:?}"),
            }
            pool.wait_idle();
            assert_eq!(ran.get(), usize::from(policy != Overflow::DiscardOldest));
        }
    });
}

#[test]
fn wakers_that_panic_or_come_back_to_the_pool_do_no_harm() {
    common::quiet_panics();
    on_grid(|pool| {
        let (wedge, _ran) = full(&pool);
        let (inner, ran) = (pool.downgrade(), Counter::new());
        let counted = ran.clone();
        let comes_back = Alarm::that(move || {
            // Under a lock of the queue this would hang.
            if let Some(pool) = inner.upgrade() {
                let counted = counted.clone();
                let _ = pool.try_execute(move || counted.add());
                assert!(pool.queue_len() <= pool.queue_capacity());
            }
        });
        let panics = Alarm::that(|| panic!("waker"));
        let mut submissions: Vec<_> = (0..4).map(|_| pool.spawn_async(|| ())).collect();
        for (n, submission) in submissions.iter_mut().enumerate() {
            assert!(poll(submission, if n % 2 == 0 { &panics } else { &comes_back }).is_pending());
        }
        wedge.open();
        let handles: Vec<_> = submissions.into_iter().map(|submission| block_on(submission).unwrap()).collect();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn futures_and_threads_that_wait_for_room_all_get_it() {
    on_grid(|pool| {
        let (ran, accepted) = (Counter::new(), Counter::new());
        in_threads(|scope| {
            for thread in 0..4 {
                let (pool, ran, accepted) = (&pool, &ran, &accepted);
                scope.spawn(move || {
                    for n in 0..500 {
                        let counted = ran.clone();
                        let job = move || counted.add();
                        match thread {
                            0 => pool.execute(job).unwrap(),
                            _ if n % 7 == 3 => {
                                // Given up after one poll: a submission that was accepted runs all the same.
                                let mut given_up = pool.spawn_async(job);
                                if poll(&mut given_up, &Alarm::new()).is_pending() {
                                    continue;
                                }
                            }
                            _ => drop(block_on(pool.spawn_async(job)).unwrap()),
                        }
                        accepted.add();
                    }
                });
            }
        });
        pool.wait_idle();
        assert_eq!(ran.get(), accepted.get());
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_submission_racing_the_shutdown_is_run_or_comes_back() {
    with_watchdog(|| {
        for _ in 0..500 {
            let pool = pool(1, 1);
            let (ran, dropped) = (Counter::new(), Counter::new());
            let submitters: Vec<_> = (0..3)
                .map(|_| {
                    let (pool, ran, held) = (pool.clone(), ran.clone(), DropCounter(dropped.clone()));
                    thread::spawn(move || {
                        let job = move || {
                            let _held = &held;
                            ran.add();
                        };
                        match block_on(pool.spawn_async(job)) {
                            Ok(handle) => usize::from(block_on(handle).is_ok()),
                            Err(error) => {
                                mem::forget(error.into_inner()); // whole: it was not dropped
                                10
                            }
                        }
                    })
                })
                .collect();
            pool.shutdown();
            let outcomes: Vec<_> = submitters.into_iter().map(|submitter| submitter.join().unwrap()).collect();
            let run = outcomes.iter().filter(|outcome| **outcome == 1).count();
            let back = outcomes.iter().filter(|outcome| **outcome == 10).count();
            assert_eq!((run + back, run, run), (3, ran.get(), dropped.get()));
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn a_handle_is_notified_of_completion_during_a_shutdown() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let mut queued = pool.spawn(|| 3).unwrap();
        let (alarm, rings) = Alarm::with_bell();
        assert!(poll(&mut queued, &alarm).is_pending());
        pool.shutdown_now();
        rings.recv_timeout(LIMIT).unwrap();
        assert!(matches!(poll(&mut queued, &alarm), Poll::Ready(Err(JoinError::Cancelled(CancelReason::ShutDown)))));
        wedge.open();
    });
}

#[test]
fn handles_polled_and_dropped_while_they_end_yield_each_result_once() {
    on_grid(|pool| {
        let (made, dropped, taken) = (Counter::new(), Counter::new(), Counter::new());
        for n in 0..1_000 {
            let (counted, value) = (made.clone(), DropCounter(dropped.clone()));
            let mut handle = pool
                .spawn(move || {
                    counted.add();
                    value
                })
                .unwrap();
            if n % 3 > 0 && poll(&mut handle, &Alarm::new()).is_ready() {
                taken.add();
            } else if n % 3 > 1 {
                drop(block_on(handle).unwrap());
                taken.add();
            }
        }
        pool.wait_idle();
        assert_eq!((made.get(), dropped.get()), (1_000, 1_000));
        assert!(taken.get() >= 333);
    });
}

#[test]
fn a_cancellation_wakes_the_last_waker_once() {
    let token = CancellationToken::new();
    let child = token.child_token();
    let (first, last) = (Alarm::new(), Alarm::new());
    let mut cancelled = child.cancelled();
    assert!(poll(&mut cancelled, &first).is_pending());
    assert!(poll(&mut cancelled, &last).is_pending());
    token.cancel();
    assert_eq!((first.rung.get(), last.rung.get()), (0, 1));
    assert_eq!(poll(&mut cancelled, &last), Poll::Ready(CancelReason::Requested));
    assert_eq!(poll(&mut cancelled, &last), Poll::Ready(CancelReason::Requested), "stays ready");
    assert_eq!(block_on(token.cancelled()), CancelReason::Requested);
    assert!(format!("{cancelled:?}").contains("WaitForCancellation"));
}

#[test]
fn a_wait_for_a_cancellation_that_is_dropped_leaves_nothing_behind() {
    let token = CancellationToken::new();
    let alarm = Alarm::new();
    for _ in 0..1_000 {
        let mut cancelled = token.cancelled();
        assert!(poll(&mut cancelled, &alarm).is_pending());
    }
    assert_eq!(Arc::strong_count(&alarm), 1);
    token.cancel();
    assert_eq!(alarm.rung.get(), 0);
}

#[test]
fn a_cancellation_racing_the_poll_is_never_missed() {
    with_watchdog(|| {
        for _ in 0..2_000 {
            let token = CancellationToken::new();
            let waiter = thread::spawn({
                let token = token.clone();
                move || block_on(token.cancelled())
            });
            token.cancel();
            assert_eq!(waiter.join().unwrap(), CancelReason::Requested);
        }
    });
}

#[test]
fn a_waker_that_panics_or_drops_its_future_does_not_keep_others_asleep() {
    let thread = thread::Builder::new().name("workcrew-test".into());
    common::quiet_panics();
    let run = || {
        let token = CancellationToken::new();
        let last = Alarm::new();
        let slot = Arc::new(common::Mutex::new(None));
        let drops = Alarm::that({
            let slot = Arc::clone(&slot);
            move || drop(slot.lock().unwrap().take())
        });
        let panics = Alarm::that(|| panic!("waker"));
        let mut waits: Vec<_> = (0..3).map(|_| token.cancelled()).collect();
        for (wait, alarm) in waits.iter_mut().zip([&panics, &drops, &last]) {
            assert!(poll(wait, alarm).is_pending());
        }
        *slot.lock().unwrap() = Some(waits.remove(1));
        token.cancel();
        (last.rung.get(), slot.lock().unwrap().is_none())
    };
    assert_eq!(thread.spawn(run).unwrap().join().unwrap(), (1, true));
}

#[test]
fn a_task_that_awaits_itself_gets_would_deadlock() {
    on_grid(|pool| {
        let (give, given) = mpsc::channel::<JoinHandle<()>>();
        let (tell, told) = mpsc::channel();
        let awaits_itself = pool.spawn(move || {
            let mut own = given.recv().unwrap();
            tell.send(poll(&mut own, &Alarm::new())).unwrap();
        });
        give.send(awaits_itself.unwrap()).unwrap();
        assert!(matches!(told.recv().unwrap(), Poll::Ready(Err(JoinError::WouldDeadlock(_)))));
    });
}

#[cfg(feature = "driver")]
#[test]
fn a_continuation_that_joins_itself_gets_would_deadlock_and_has_its_own_id() {
    on_grid(|pool| {
        let driver = workcrew::driver::Driver::new(&pool, 2).unwrap();
        let (give, given) = mpsc::channel::<JoinHandle<()>>();
        let (tell, told) = mpsc::channel();
        let joins_itself = move |()| tell.send(given.recv().unwrap().join()).unwrap();
        let handle = driver.spawn_then(async {}, joins_itself).unwrap();
        assert_ne!(handle.id(), driver.spawn(async {}).unwrap().id());
        give.send(handle).unwrap();
        assert!(matches!(told.recv().unwrap(), Err(JoinError::WouldDeadlock(_))));
    });
}

#[test]
fn futures_may_be_sent_and_moved() {
    fn assert_send<T: Send + Unpin>(_: &T) {}
    let pool = pool(1, 1);
    let gate = Gate::new();
    assert_send(&pool.spawn_async(move || gate.open()));
    assert_send(&CancellationToken::new().cancelled());
}

#[test]
fn a_notified_future_that_is_not_polled_blocks_no_thread() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let (wedge, _) = full(&pool);
        let mut submission = pool.spawn_async(|| ());
        assert!(poll(&mut submission, &Alarm::new()).is_pending());
        let inner = pool.clone();
        let submitter = spawn_parked(move || inner.execute(|| ()));
        thread::sleep(Duration::from_millis(2)); // its patience is over: it wants the first room there is
        wedge.open();
        submitter.join().unwrap().unwrap();
        drop(submission);
    });
}

#[test]
fn a_notified_future_that_is_polled_on_a_worker_passes_the_notification_on() {
    with_watchdog(|| {
        let pool = pool(2, 1);
        let (first, second, inside) = (Gate::new(), Gate::new(), Gate::new());
        let (hand, polled_by) = mpsc::channel::<SpawnAsync<Box<dyn FnOnce() + Send>, ()>>();
        let held = first.clone();
        pool.execute(move || held.pass()).unwrap();
        first.wait_started(1);
        let held = second.clone();
        let polling = pool.spawn(move || {
            held.pass();
            let mut submission = polled_by.recv().unwrap();
            assert!(poll(&mut submission, &Alarm::new()).is_ready());
        });
        second.wait_started(1);
        pool.execute(|| ()).unwrap(); // the queue is full
        let runs = inside.clone();
        let mut submission = pool.spawn_async(Box::new(move || runs.pass()) as Box<dyn FnOnce() + Send>);
        let (alarm, rings) = Alarm::with_bell();
        assert!(poll(&mut submission, &alarm).is_pending());
        hand.send(submission).unwrap();
        second.open();
        inside.wait_started(1); // the worker found no room, and runs it at once
        let inner = pool.clone();
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                let pool = inner.clone();
                thread::spawn(move || pool.execute(|| ()))
            })
            .collect();
        first.open();
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap().unwrap());
        inside.open();
        polling.unwrap().join().unwrap();
        assert!(rings.try_recv().is_err(), "a thread that no longer waits is not notified");
    });
}

#[test]
#[allow(unsafe_code, reason = "a safe waker is cloned by the standard library alone")]
fn a_waker_that_cannot_be_cloned_leaves_no_task_behind() {
    use std::task::{RawWaker, RawWakerVTable};
    static VTABLE: RawWakerVTable = RawWakerVTable::new(|_| panic!("no second one"), |_| (), |_| (), |_| ());
    with_watchdog(|| {
        let pool = pool(1, 1);
        let (wedge, _) = full(&pool);
        // SAFETY: the functions of the table are sound for any pointer, which they do not look at.
        let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) };
        let mut submission = pool.spawn_async(|| ());
        let polled = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            pin!(&mut submission).poll(&mut Context::from_waker(&waker)).is_pending()
        }));
        assert!(polled.is_err());
        drop(submission);
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}
