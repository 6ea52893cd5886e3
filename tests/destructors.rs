//! Destructors of what is cancelled may wait: the wait ends, or it is refused. It never blocks the operation that runs
//! the destructor forever.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{BlockedWorkers, Counter, Gate, Mutex, pool, quiet_panics, with_watchdog};
use workcrew::{CancellationToken, GroupPolicy, JoinHandle, KeyedExecutor, TaskGroup, WorkerPool};

/// A handle that is set later, for which anything may wait.
#[derive(Clone, Default)]
struct Target(Arc<Mutex<Option<Arc<JoinHandle<()>>>>>);

impl Target {
    fn set(&self, handle: JoinHandle<()>) {
        *self.0.lock().unwrap() = Some(Arc::new(handle));
    }

    /// Waits for the task. Returns `false` if the wait was refused.
    fn join(&self) -> bool {
        let handle = self.0.lock().unwrap().clone().unwrap();
        handle.wait_timeout(Duration::MAX)
    }
}

/// A value whose destructor says that it has started, and then waits for the target.
struct JoinsOnDrop {
    target: Target,
    started: Gate,
    refused: Counter,
}

impl Drop for JoinsOnDrop {
    fn drop(&mut self) {
        self.started.open();
        if !self.target.join() {
            self.refused.add();
        }
    }
}

/// What the tests of this file share: a target, and values whose destructors wait for it.
#[derive(Clone, Default)]
struct Circle {
    target: Target,
    started: Gate,
    refused: Counter,
}

impl Circle {
    fn value(&self) -> JoinsOnDrop {
        let Self { target, started, refused } = self.clone();
        JoinsOnDrop { target, started, refused }
    }
}

type Group = TaskGroup<Result<(), ()>>;

/// Waits for tasks of a group until none is left. Returns `false` if the wait was refused.
fn iterate(mut group: Group) -> bool {
    let mut completions = group.completions();
    loop {
        match completions.next_timeout(Duration::MAX) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Fault 592.
#[test]
fn the_destructor_of_a_cancelled_task_waits_for_the_task_that_iterates_over_its_group() {
    quiet_panics();
    for by_failure in [false, true] {
        for workers in [1, 2, 8] {
            // The members need a pool of their own: the only worker iterates.
            let (home, abroad) = (pool(workers, 64), pool(1, 64));
            let (circle, fails, iterates) = (Circle::default(), Gate::new(), Counter::new());
            let (inside, failing, counted, token) =
                (circle.clone(), fails.clone(), iterates.clone(), CancellationToken::new());
            let (far, parent) = (abroad.clone(), token.clone());
            let handle = home.spawn(move || {
                let group: Group = far.group().policy(GroupPolicy::FailFast).parent(&parent);
                let gate = failing.clone();
                group.spawn(move || {
                    gate.pass();
                    if by_failure { Err(()) } else { Ok(()) }
                });
                for _ in 0..3 {
                    let value = inside.value();
                    group.spawn(move || {
                        drop(value);
                        Ok(())
                    });
                }
                failing.wait_started(1);
                failing.pass();
                if !iterate(group) {
                    counted.add();
                }
            });
            circle.target.set(handle.unwrap());
            fails.wait_started(2);
            with_watchdog(|| {
                if by_failure {
                    fails.open();
                } else {
                    // The destructors run on this thread, while the member and the iterating task go on.
                    let open = fails.clone();
                    let started = circle.started.clone();
                    std::thread::scope(|scope| {
                        scope.spawn(move || {
                            started.pass(); // the first destructor has opened it
                            open.open();
                        });
                        token.cancel();
                    });
                }
                (home.wait_idle(), abroad.wait_idle())
            });
            assert!(circle.refused.get() + iterates.get() > 0);
        }
    }
}

/// Submits a task that holds a value and does not start.
type Submit = fn(&WorkerPool, JoinsOnDrop) -> JoinHandle<()>;

const HOUR: Duration = Duration::from_secs(3_600);

const SUBMITS: &[Submit] = &[
    |pool, value| pool.spawn(move || drop(value)).unwrap(),
    |pool, value| pool.task().spawn(move |_| drop(value)).unwrap(),
    |pool, value| pool.spawn_after(HOUR, move || drop(value)).unwrap(),
    |pool, value| KeyedExecutor::builder(pool).build().spawn(1, move || drop(value)).unwrap(),
];

/// Fault 593.
#[test]
fn the_destructor_of_a_cancelled_task_waits_for_a_task_that_joins_it() {
    quiet_panics();
    for submit in SUBMITS {
        let (home, abroad) = (pool(1, 64), pool(1, 64));
        let (circle, joins) = (Circle::default(), Counter::new());
        let busy = BlockedWorkers::new(&abroad);
        let cancelled = Arc::new(submit(&abroad, circle.value()));
        let (joined, counted, gate) = (Arc::clone(&cancelled), joins.clone(), Gate::new());
        let inside = gate.clone();
        let handle = home.spawn(move || {
            inside.pass();
            if !joined.wait_timeout(Duration::MAX) {
                counted.add();
            }
        });
        circle.target.set(handle.unwrap());
        gate.wait_started(1);
        gate.open();
        with_watchdog(|| assert!(cancelled.cancel()));
        with_watchdog(|| home.wait_idle());
        assert!(circle.refused.get() + joins.get() > 0);
        drop(busy);
    }
}

/// Fault 594.
#[test]
fn a_shutdown_cancels_tasks_whose_destructors_wait_for_others_that_it_cancels() {
    quiet_panics();
    for first in SUBMITS {
        for second in SUBMITS {
            // No worker is free, so only this thread ends the tasks.
            let pool = pool(1, 64);
            let busy = BlockedWorkers::new(&pool);
            let [one, two] = [(); 2].map(|()| Circle::default());
            let handles = [first(&pool, one.value()), second(&pool, two.value())];
            let [of_one, of_two] = handles;
            one.target.set(of_two);
            two.target.set(of_one);
            let report = with_watchdog(|| pool.shutdown_now());
            assert_eq!(report.tasks_cancelled, 2);
            drop(busy);
        }
    }
}

/// Fault 594.
#[test]
fn a_pool_that_is_closed_cancels_timers_whose_destructors_wait_for_other_timers() {
    quiet_panics();
    let pool = pool(1, 64);
    let [one, two] = [(); 2].map(|()| Circle::default());
    let [of_one, of_two] = [&one, &two].map(|circle| {
        let value = circle.value();
        pool.spawn_after(HOUR, move || drop(value)).unwrap()
    });
    one.target.set(of_two);
    two.target.set(of_one);
    with_watchdog(|| pool.close());
    assert_eq!(pool.metrics().tasks_cancelled, 2);
}

/// Fault 594.
#[test]
fn a_shutdown_cancels_groups_and_executors_whose_destructors_wait_for_others_of_them() {
    quiet_panics();
    let pool = pool(1, 64);
    let busy = BlockedWorkers::new(&pool);
    let waits: Arc<Mutex<Vec<Wait>>> = Arc::default();
    let value = || {
        let waits = Arc::clone(&waits);
        OnDrop(Some(move || {
            let next = waits.lock().unwrap().pop();
            next.into_iter().for_each(|wait| wait());
        }))
    };
    let ended = Counter::new();
    for _ in 0..2 {
        let (group, value) = (pool.group::<Result<(), ()>>(), value());
        group.spawn(move || {
            drop(value);
            Ok(())
        });
        let counted = ended.clone();
        waits.lock().unwrap().push(Box::new(move || {
            let _ = group.wait();
            counted.add();
        }));
    }
    for key in 0..2 {
        let (executor, value, counted) = (pool.keyed(), value(), ended.clone());
        executor.execute(key, move || drop(value)).unwrap();
        waits.lock().unwrap().push(Box::new(move || {
            let _ = executor.wait_idle_timeout(Duration::MAX);
            counted.add();
        }));
    }
    with_watchdog(|| pool.shutdown_now());
    assert_eq!(ended.get(), 4);
    drop(busy);
}

/// A wait that a destructor makes.
type Wait = Box<dyn FnOnce() + Send>;

struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

#[cfg(feature = "events")]
mod events {
    use super::*;
    use workcrew::events::{EventBus, Receipt};

    /// An event whose destructor waits for a receipt.
    struct Event(Arc<Mutex<Vec<Receipt>>>, Counter);

    impl Drop for Event {
        fn drop(&mut self) {
            let receipt = self.0.lock().unwrap().pop();
            if receipt.is_some_and(|receipt| receipt.wait().is_err()) {
                self.1.add();
            }
        }
    }

    /// Fault 595.
    #[test]
    fn the_destructor_of_an_event_of_a_subscription_that_ends_waits_for_another_one() {
        for keys in [false, true] {
            let pool = pool(1, 64);
            let (bus, refused) = (EventBus::new(&pool), Counter::new());
            let busy = BlockedWorkers::new(&pool);
            let subscription = bus.subscription::<Event>();
            let subscription = if keys { subscription.ordered_by(|_| 1) } else { subscription };
            let subscription = subscription.handle(|_: &Event| ());
            let receipts: Arc<Mutex<Vec<Receipt>>> = Arc::default();
            let sent: Vec<_> = (0..4).map(|_| bus.publish(Event(Arc::clone(&receipts), refused.clone()))).collect();
            // Nothing but the mailbox holds the first event.
            receipts.lock().unwrap().extend(sent.into_iter().skip(1));
            with_watchdog(|| subscription.unsubscribe());
            assert!(refused.get() > 0);
            drop(busy);
        }
    }

    /// Fault 595.
    #[test]
    fn the_destructor_of_a_handler_waits_for_the_events_that_its_end_cancels() {
        let pool = pool(1, 64);
        let (bus, ended) = (EventBus::new(&pool), Counter::new());
        let busy = BlockedWorkers::new(&pool);
        let receipts: Arc<Mutex<Vec<Receipt>>> = Arc::default();
        let (waits, counted) = (Arc::clone(&receipts), ended.clone());
        let value = OnDrop(Some(move || {
            for receipt in waits.lock().unwrap().drain(..) {
                receipt.wait().unwrap();
                counted.add();
            }
        }));
        let subscription = bus.subscribe(move |_: &u32| _ = &value);
        let sent: Vec<_> = (0..4_u32).map(|event| bus.publish(event)).collect();
        receipts.lock().unwrap().extend(sent);
        with_watchdog(|| subscription.unsubscribe());
        assert_eq!(ended.get(), 4);
        drop(busy);
    }
}
