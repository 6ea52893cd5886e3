//! What carries a class: groups, scopes, timers, retries and keyed executors.

use std::cell::RefCell;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use workcrew::Priority::{Background, High, Normal};
use workcrew::{KeyedExecutor, Priority, WorkerPool};

use crate::CLASSES;
use crate::common::{BlockedWorkers, Counter, Gate, with_watchdog};
use crate::pool;

/// Has `queue` add what sends its class, for each class, the last first, while the only worker is
/// busy. Checks that the worker then starts the classes in their order.
fn starts_in_order_of_class(queue: impl Fn(&WorkerPool, Priority, Sender<Priority>)) {
    with_watchdog(|| {
        let pool = pool(1, 8);
        let blocked = BlockedWorkers::new(&pool);
        let (sender, order) = channel();
        for class in CLASSES.into_iter().rev() {
            queue(&pool, class, sender.clone());
        }
        blocked.open();
        drop(sender);
        assert_eq!(order.iter().collect::<Vec<_>>(), CLASSES);
        pool.wait_idle();
    });
}

#[test]
fn the_tasks_of_a_group_have_its_class() {
    let groups = RefCell::new(Vec::new());
    starts_in_order_of_class(|pool, class, sender| {
        let group = pool.group().priority(class);
        group.spawn(move || sender.send(class).unwrap());
        groups.borrow_mut().push(group);
    });
    groups.into_inner().into_iter().for_each(|group| drop(group.wait().unwrap()));
}

#[test]
fn the_tasks_of_a_map_have_its_class() {
    with_watchdog(|| {
        let pool = pool(1, 8);
        let blocked = BlockedWorkers::new(&pool);
        let (sender, order) = channel();
        let mapped = sender.clone();
        let mut map = pool.map(0..4, move |_| mapped.send(Background).unwrap()).priority(Background).window(4);
        std::thread::scope(|scope| {
            let results = scope.spawn(|| map.by_ref().map(Result::unwrap).count());
            while pool.queue_len_of(Background) < 4 {
                std::thread::yield_now();
            }
            for class in [Normal, High] {
                let sender = sender.clone();
                pool.task().priority(class).execute(move |_| sender.send(class).unwrap()).unwrap();
            }
            blocked.open();
            assert_eq!(results.join().unwrap(), 4);
        });
        assert_eq!(order.iter().take(3).collect::<Vec<_>>(), [High, Normal, Background]);
    });
}

/// Has `add` add 40 background tasks, the first of which waits at the gate. Checks that jobs of the
/// other classes wait for one quantum of them, and the rest of them for those jobs.
fn yields_to_other_classes(add: impl FnOnce(&WorkerPool, Vec<Box<dyn FnOnce() + Send>>)) {
    with_watchdog(|| {
        let pool = pool(1, 16);
        let (gate, started) = (Gate::new(), Counter::new());
        let task = |number| {
            let (inside, started) = (gate.clone(), started.clone());
            Box::new(move || if number == 0 { inside.pass() } else { started.add() }) as Box<dyn FnOnce() + Send>
        };
        add(&pool, (0..40).map(task).collect());
        gate.wait_started(1);
        let jobs: Vec<_> = (0..16)
            .map(|number| {
                let seen = started.clone();
                pool.task().priority([High, Normal][number % 2]).spawn(move |_| seen.get()).unwrap()
            })
            .collect();
        gate.open();
        let seen: Vec<_> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
        assert_eq!(seen, [15; 16]);
        pool.wait_idle();
        assert_eq!(started.get(), 39);
    });
}

#[test]
fn a_group_and_a_keyed_executor_yield_to_other_classes_after_a_quantum() {
    let mut group = None;
    yields_to_other_classes(|pool, tasks| {
        group.insert(pool.group().priority(Background).capacity(100)).spawn_all(tasks);
    });
    group.unwrap().wait().unwrap();
    yields_to_other_classes(|pool, tasks| {
        let keyed = KeyedExecutor::builder(pool).priority(Background).capacity(100).build();
        tasks.into_iter().enumerate().for_each(|(key, task)| keyed.execute(key, task).unwrap());
    });
}

#[test]
fn the_tasks_of_a_scope_have_its_class() {
    with_watchdog(|| {
        let builder = WorkerPool::builder().workers(2).background_workers(1);
        let pool = builder.build().unwrap();
        let gate = Gate::new();
        crate::hold(&pool, Background, &gate);
        gate.wait_started(1);
        let ran = Counter::new();
        pool.scope_builder()
            .priority(Background)
            .run(|scope| {
                scope.spawn(|| ran.add());
                // The other worker is free, and must not take it.
                pool.task().priority(Normal).spawn(|_| ()).unwrap().join().unwrap();
                assert_eq!(ran.get(), 0);
                gate.open();
            })
            .unwrap();
        assert_eq!(ran.get(), 1);
    });
}

#[test]
fn a_timer_that_is_due_waits_in_its_class() {
    starts_in_order_of_class(|pool, class, sender| {
        let due = pool.timer().priority(class);
        due.execute_after(Duration::ZERO, move || sender.send(class).unwrap()).unwrap();
        wait_until_fired(pool);
    });
    starts_in_order_of_class(|pool, class, sender| {
        let due = pool.timer().priority(class);
        let _detached = due.spawn_at(Instant::now(), move || sender.send(class).unwrap()).unwrap();
        wait_until_fired(pool);
    });
    starts_in_order_of_class(|pool, class, sender| {
        let period = workcrew::Period::new(Duration::from_secs(3_600)).at_once();
        let mut sender = Some(sender);
        let send = move || match sender.take() {
            Some(sender) => {
                sender.send(class).unwrap();
                std::ops::ControlFlow::Break(())
            }
            None => unreachable!("the timer has ended"),
        };
        pool.timer().priority(class).execute_every(period, send).unwrap();
        wait_until_fired(pool);
    });
}

/// Waits until the timer thread has moved every timer to the queue.
fn wait_until_fired(pool: &WorkerPool) {
    while pool.metrics().timers_pending > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_full_class_delays_no_timer_and_a_timer_takes_no_room() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let blocked = BlockedWorkers::new(&pool);
        for class in CLASSES {
            pool.task().priority(class).execute(|_| ()).unwrap();
            pool.timer().priority(class).execute_after(Duration::ZERO, || ()).unwrap();
        }
        wait_until_fired(&pool);
        assert_eq!(CLASSES.map(|class| pool.queue_len_of(class)), [1, 1, 1]);
        drop(blocked);
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 7);
    });
}

#[test]
fn the_tasks_of_a_keyed_executor_have_its_class_and_stay_in_order() {
    starts_in_order_of_class(|pool, class, sender| {
        let keyed = KeyedExecutor::builder(pool).priority(class).build();
        keyed.execute("key", move || sender.send(class).unwrap()).unwrap();
    });
    for workers in [1, 2, 8] {
        with_watchdog(|| {
            let builder = WorkerPool::builder().workers(workers).background_workers(1);
            let pool = builder.build().unwrap();
            let keyed = KeyedExecutor::builder(&pool).priority(Background).build();
            let (sender, order) = channel();
            for number in 0..500 {
                let sender = sender.clone();
                keyed.execute(number % 3, move || sender.send(number).unwrap()).unwrap();
            }
            drop(sender);
            let order: Vec<_> = order.iter().collect();
            for key in 0..3 {
                assert!(order.iter().filter(|number| *number % 3 == key).is_sorted());
            }
            assert_eq!(order.len(), 500);
        });
    }
}

#[cfg(feature = "retry")]
mod retries {
    use super::*;
    use workcrew::retry::{Attempt, RetryPolicy};

    type Retried = Box<dyn FnMut(Attempt) -> Result<(), ()> + Send>;

    /// Has `spawn` add a background task whose second attempt is due while three jobs of the class
    /// `Normal` wait. Checks that the attempt starts after them.
    fn the_second_attempt_waits_in_its_class(spawn: impl FnOnce(&WorkerPool, RetryPolicy<()>, Retried)) {
        with_watchdog(|| {
            let pool = pool(1, 8);
            let (gate, (sender, order)) = (Gate::new(), channel());
            let (inside, attempted) = (gate.clone(), sender.clone());
            let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
            let attempt = move |attempt: Attempt| {
                if attempt.number() == 1 {
                    inside.pass();
                    return Err(());
                }
                attempted.send("attempt").unwrap();
                Ok(())
            };
            spawn(&pool, policy, Box::new(attempt));
            gate.wait_started(1);
            let own = pool.clone();
            pool.task().priority(High).execute(move |_| wait_until_fired(&own)).unwrap();
            for _ in 0..3 {
                let sender = sender.clone();
                pool.execute(move || sender.send("job").unwrap()).unwrap();
            }
            gate.open();
            assert_eq!(order.iter().take(4).collect::<Vec<_>>(), ["job", "job", "job", "attempt"]);
            pool.wait_idle();
        });
    }

    #[test]
    fn a_retried_task_of_a_group_or_a_key_keeps_its_class() {
        let mut group = None;
        the_second_attempt_waits_in_its_class(|pool, policy, attempt| {
            let group = group.insert(pool.group().priority(Background));
            group.spawn_with_retry(policy, attempt).unwrap();
        });
        the_second_attempt_waits_in_its_class(|pool, policy, attempt| {
            let keyed = KeyedExecutor::builder(pool).priority(Background).build();
            drop(keyed.spawn_with_retry("key", policy, attempt).unwrap()); // detaches the task
        });
        group.unwrap().wait().unwrap();
    }
}
