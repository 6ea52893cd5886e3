//! Tasks that are added to a full group from async code.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use workcrew::{CancelReason, GroupError, TaskGroup, WorkerPool};

use crate::alarm::{Alarm, poll, poll_ready};
use crate::common::{Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, on_grid, pool, with_watchdog};

/// A group of which one task runs and another fills the queue. The gates are those of the two.
fn full(pool: &WorkerPool) -> (TaskGroup<Result<u32, ()>>, Gate, Gate) {
    let group = pool.group().limit(1).capacity(1);
    let gates = [Gate::new(), Gate::new()];
    for (n, gate) in gates.clone().into_iter().enumerate() {
        group.spawn(move || {
            gate.pass();
            Ok(n as u32)
        });
        gates[0].wait_started(1);
    }
    assert!(group.try_spawn(|| Ok(9)).unwrap_err().is_full());
    let [running, queued] = gates;
    (group, running, queued)
}

/// Fault 443.
#[test]
fn an_async_spawn_waits_for_room_and_is_woken_when_a_task_starts() {
    on_grid(|pool| {
        let (group, running, queued) = full(&pool);
        let mut futures = [2, 3].map(|n| group.spawn_async(move || Ok(n)));
        let bells = [Alarm::with_bell(), Alarm::with_bell()];
        for (future, bell) in futures.iter_mut().zip(&bells) {
            assert!(poll(future, &bell.0).is_pending());
        }
        running.open();
        queued.wait_started(1); // and it does not end yet
        bells.iter().for_each(|bell| bell.1.recv_timeout(LIMIT).unwrap());
        let ready = futures.iter_mut().zip(&bells).map(|(future, bell)| poll(future, &bell.0).is_ready());
        assert_eq!(ready.collect::<Vec<_>>(), [true, false], "there is room for one");
        queued.open();
        poll_ready(&mut futures[1]);
        assert!(poll(&mut futures[1], &bells[1].0).is_pending(), "ready once, then pending forever");
        assert_eq!(group.wait().unwrap(), [0, 1, 2, 3]);
        assert_counts_add_up(&pool);
    });
}

/// Fault 443.
#[test]
fn an_async_spawn_that_is_dropped_adds_nothing_and_a_forgotten_one_keeps_no_room() {
    on_grid(|pool| {
        let (group, running, queued) = full(&pool);
        let (drops, ran) = (Counter::new(), Counter::new());
        let spawn = || {
            let (probe, ran) = (DropCounter(drops.clone()), ran.clone());
            group.spawn_async(move || {
                let _probe = probe;
                ran.add();
                Ok(7)
            })
        };
        let (mut dropped, mut forgotten, never_polled) = (spawn(), spawn(), spawn());
        assert!(poll(&mut dropped, &Alarm::new()).is_pending());
        assert!(poll(&mut forgotten, &Alarm::new()).is_pending());
        drop((dropped, never_polled));
        assert_eq!((drops.get(), group.progress().total), (2, 2));
        running.open();
        queued.open();
        let mut other = group.spawn_async(|| Ok(2));
        poll_ready(&mut other);
        group.spawn(|| Ok(3)); // a thread
        assert_eq!(group.wait().unwrap(), [0, 1, 2, 3]);
        pool.wait_idle(); // not for the forgotten one
        drop(forgotten);
        assert_eq!((drops.get(), ran.get()), (3, 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 443.
#[test]
fn a_group_that_is_cancelled_while_a_future_waits_for_room_drops_the_task() {
    type End = fn(&WorkerPool, &TaskGroup<Result<u32, ()>>);
    let ends: [(End, CancelReason); 2] = [
        (|_, group| group.cancel(), CancelReason::Requested),
        (
            |pool, _| {
                pool.shutdown_now();
            },
            CancelReason::ShutDown,
        ),
    ];
    for (end, reason) in ends {
        on_grid(|pool| {
            let (group, running, queued) = full(&pool);
            let mut future = group.spawn_async(|| Ok(2));
            let bell = Alarm::with_bell();
            assert!(poll(&mut future, &bell.0).is_pending());
            end(&pool, &group);
            bell.1.recv_timeout(LIMIT).unwrap();
            assert!(poll(&mut future, &bell.0).is_ready());
            running.open();
            queued.open();
            let outcomes = group.wait_all();
            assert_eq!(outcomes.len(), 3);
            assert!(matches!(outcomes[2], Err(workcrew::TaskError::Cancelled(told)) if told == reason));
            assert_counts_add_up(&pool);
        });
    }
}

/// Fault 443.
#[test]
fn the_deadline_of_a_group_ends_the_wait_for_room() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let gate = Gate::new();
        let group = pool.group().limit(1).capacity(1).deadline(Instant::now() + Duration::from_millis(30));
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        // The last of these waits for room until the deadline, if none has come before.
        for _ in 0..3 {
            block_on(group.spawn_async(|| ()));
        }
        gate.open();
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
    });
}

/// Fault 443.
#[test]
fn a_worker_makes_room_itself_and_a_member_runs_its_task_inline() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let inner = pool.clone();
        let sum = pool.spawn(move || {
            let group = inner.group().limit(1).capacity(1);
            block_on(async {
                for n in 0..50_u32 {
                    group.spawn_async(move || Ok::<_, ()>(n)).await;
                }
                group.await.unwrap().len()
            })
        });
        assert_eq!(sum.unwrap().join().unwrap(), 50);
        let group = pool.group().limit(1).capacity(1);
        let spawner = group.spawner();
        group.spawn(move || {
            for n in 0..10 {
                block_on(spawner.spawn_async(move || Ok::<_, ()>(n)));
            }
            Ok(10)
        });
        let mut values = group.wait().unwrap();
        values.sort_unstable();
        assert_eq!(values, (0..=10).collect::<Vec<_>>());
    });
}

/// Fault 443.
#[test]
fn a_waker_that_polls_an_async_spawn_at_once_is_not_taken_for_a_task_of_the_group() {
    on_grid(|pool| {
        let (group, running, queued) = full(&pool);
        type Driven = Pin<Box<dyn Future<Output = Vec<u32>> + Send>>;
        let spawner = group.spawner();
        let driven: Driven = Box::pin(async move {
            spawner.spawn_async(|| Ok(2)).await;
            spawner.spawn_async(|| Ok(3)).await;
            drop(spawner);
            group.await.unwrap() // a member would be refused
        });
        let slot = Arc::new(Mutex::new(Some(driven)));
        let (sender, values) = std::sync::mpsc::channel();
        let polled = Arc::clone(&slot);
        let own: Arc<Mutex<Option<Arc<Alarm>>>> = Arc::default();
        let again = Arc::clone(&own);
        let alarm = Alarm::that(move || {
            // Another thread may be polling just now. Then that one looks again.
            let alarm = again.lock().unwrap().clone().unwrap();
            while let Ok(mut slot) = polled.try_lock() {
                let Some(mut driven) = slot.take() else { return };
                let rung = alarm.rung.get();
                match poll(&mut driven, &alarm) {
                    Poll::Ready(told) => sender.send(told).unwrap(),
                    Poll::Pending => *slot = Some(driven),
                }
                drop(slot);
                if alarm.rung.get() == rung {
                    return;
                }
            }
        });
        *own.lock().unwrap() = Some(Arc::clone(&alarm));
        std::task::Wake::wake(alarm);
        running.open();
        queued.open();
        assert_eq!(values.recv_timeout(LIMIT).unwrap(), [0, 1, 2, 3]);
        *own.lock().unwrap() = None;
    });
}

/// Fault 443.
#[test]
fn futures_and_threads_that_fill_a_small_group_lose_nothing() {
    on_grid(|pool| {
        let group = pool.group::<()>().limit(2).capacity(2);
        let ran = Counter::new();
        thread::scope(|scope| {
            for producer in 0..4 {
                let (spawner, ran) = (group.spawner(), ran.clone());
                scope.spawn(move || {
                    for _ in 0..100 {
                        let ran = ran.clone();
                        let task = move || ran.add();
                        if producer % 2 == 0 { spawner.spawn(task) } else { block_on(spawner.spawn_async(task)) }
                    }
                });
            }
        });
        group.wait().unwrap();
        assert_eq!(ran.get(), 400);
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}
