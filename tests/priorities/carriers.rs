//! What carries a class: groups, scopes, timers, retries, keyed executors, subscriptions and futures.

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
        assert_eq!(order.iter().take(CLASSES.len()).collect::<Vec<_>>(), CLASSES);
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

/// Fault 640.
#[test]
fn the_length_of_a_class_is_that_of_its_places_and_a_snapshot_has_the_other_entries() {
    with_watchdog(|| {
        let (pool, mut groups) = (pool(1, 4), Vec::new());
        let blocked = BlockedWorkers::new(&pool);
        for class in CLASSES {
            let group = pool.group().priority(class);
            let keyed = KeyedExecutor::builder(&pool).priority(class).build();
            for key in 0..3 {
                pool.task().priority(class).execute(|_| ()).unwrap();
                pool.timer().priority(class).execute_after(Duration::ZERO, || ()).unwrap();
                group.spawn(|| ());
                keyed.execute(key, || ()).unwrap();
            }
            groups.push(group);
        }
        wait_until_fired(&pool);
        let metrics = pool.metrics();
        let lens = [metrics.queue_len_high, metrics.queue_len, metrics.queue_len_background];
        assert_eq!((CLASSES.map(|class| pool.queue_len_of(class)), lens), ([3; 3], [3; 3]));
        assert_eq!(metrics.tasks_queued, 3 * 4 * 3);
        for queue in pool.snapshot().queues {
            // Three timers, and a ticket each of the group and the executor.
            assert_eq!((queue.len, queue.tickets), (3, 5), "{:?}", queue.priority);
        }
        drop(blocked);
        groups.into_iter().for_each(|group| drop(group.wait().unwrap()));
        pool.wait_idle();
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
    use workcrew::retry::RetryPolicy;

    /// Fails when it is called first, and succeeds then.
    pub(super) type Retried = Box<dyn FnMut() -> Result<(), ()> + Send>;

    /// Two attempts, without a delay between them.
    pub(super) fn twice<E>() -> RetryPolicy<E> {
        RetryPolicy::fixed(Duration::ZERO).max_attempts(2)
    }

    /// Has `spawn` add a background task whose second attempt is due while three jobs of the class
    /// `Normal` wait. Checks that the attempt starts after them.
    pub(super) fn the_second_attempt_waits_in_its_class(spawn: impl FnOnce(&WorkerPool, Retried)) {
        with_watchdog(|| {
            let pool = pool(1, 8);
            let (gate, (sender, order)) = (Gate::new(), channel());
            let (mut first, attempted) = (Some(gate.clone()), sender.clone());
            let attempt = move || {
                if let Some(gate) = first.take() {
                    gate.pass();
                    return Err(());
                }
                attempted.send("attempt").unwrap();
                Ok(())
            };
            spawn(&pool, Box::new(attempt));
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

    /// Fault 615.
    #[test]
    fn a_retried_task_waits_in_its_class_for_each_attempt() {
        starts_in_order_of_class(|pool, class, sender| {
            let send = move |_| sender.send(class).map_err(drop);
            drop(pool.task().priority(class).spawn_with_retry(twice(), send).unwrap());
        });
        the_second_attempt_waits_in_its_class(|pool, mut attempt| {
            let task = pool.task().priority(Background);
            drop(task.spawn_with_retry(twice(), move |_| attempt()).unwrap());
        });
        let mut group = None;
        the_second_attempt_waits_in_its_class(|pool, mut attempt| {
            let group = group.insert(pool.group().priority(Background));
            group.spawn_with_retry(twice(), move |_| attempt()).unwrap();
        });
        the_second_attempt_waits_in_its_class(|pool, mut attempt| {
            let keyed = KeyedExecutor::builder(pool).priority(Background).build();
            drop(keyed.spawn_with_retry("key", twice(), move |_| attempt()).unwrap()); // detaches the task
        });
        group.unwrap().wait().unwrap();
    }
}

#[cfg(feature = "events")]
mod events {
    use super::retries::{Retried, the_second_attempt_waits_in_its_class, twice};
    use super::*;
    use crate::common::Mutex;
    use workcrew::events::{EventBus, Subscription, SubscriptionBuilder};

    /// How deliveries get to a worker.
    type Kind = fn(SubscriptionBuilder<'_, ()>) -> SubscriptionBuilder<'_, ()>;
    const KINDS: [Kind; 3] = [|built| built, |built| built.concurrent(2), |built| built.ordered_by(|()| ())];

    /// Checks that the handlers of three buses, whose subscriptions differ in their class, are
    /// called in the order of the classes. Each event is published when that before waits.
    fn delivers_in_order_of_class(subscribe: impl Fn(&EventBus, Priority, Sender<Priority>) -> Subscription) {
        let kept = RefCell::new(Vec::new());
        starts_in_order_of_class(|pool, class, sender| {
            let bus = EventBus::new(pool);
            kept.borrow_mut().push(subscribe(&bus, class, sender));
            bus.publish(());
            wait_until_fired(pool); // what has a timer
        });
    }

    /// Fault 615.
    #[test]
    fn the_deliveries_of_a_subscription_have_its_class() {
        for kind in KINDS {
            delivers_in_order_of_class(|bus, class, sender| {
                kind(bus.subscription()).priority(class).handle(move |()| sender.send(class).unwrap())
            });
        }
        // Batches that do not linger, and whose timer has fired.
        for linger in [Duration::ZERO, Duration::from_nanos(1)] {
            delivers_in_order_of_class(|bus, class, sender| {
                let batches = bus.subscription().priority(class).batch(9, linger);
                batches.handle(move |_: &[&()]| sender.send(class).unwrap())
            });
        }
    }

    /// Fault 615.
    #[test]
    fn a_further_attempt_of_a_delivery_waits_in_the_class_of_its_subscription() {
        // The first attempt of a synchronous subscription is made by the publisher.
        delivers_in_order_of_class(|bus, class, sender| {
            let subscription = bus.subscription().priority(class).synchronous().retry(twice());
            subscription.handle_with_attempt(move |(), attempt| {
                let is_first = attempt.number() == 1;
                if is_first { Err("again") } else { sender.send(class).map_err(|_| "no test") }
            })
        });
        let mut kept = Vec::new();
        let mut check = |subscribe: &dyn Fn(&EventBus, Mutex<Retried>) -> Subscription| {
            the_second_attempt_waits_in_its_class(|pool, attempt| {
                let bus = EventBus::new(pool);
                kept.push(subscribe(&bus, Mutex::new(attempt)));
                bus.publish(());
            });
        };
        for kind in KINDS {
            check(&|bus, attempt| {
                let subscription = kind(bus.subscription()).priority(Background).retry(twice());
                subscription.handle(move |()| (attempt.lock().unwrap())().map_err(|()| "again"))
            });
        }
        check(&|bus, attempt| {
            let subscription = bus.subscription().priority(Background).retry(twice()).batch(9, Duration::ZERO);
            subscription.handle(move |_: &[&()]| (attempt.lock().unwrap())().map_err(|()| "again"))
        });
    }
}

#[cfg(feature = "driver")]
mod futures {
    use super::*;
    use workcrew::driver::Driver;

    /// Fault 615.
    #[test]
    fn an_output_waits_for_a_worker_in_the_class_of_its_driver() {
        starts_in_order_of_class(|pool, class, sender| {
            let driver = Driver::new(pool, 2).unwrap().priority(class);
            drop(driver.spawn_then(async {}, move |()| sender.send(class).unwrap()).unwrap());
            // The I/O thread drives this one after it has passed the output on.
            driver.spawn(async {}).unwrap().join().unwrap();
        });
    }
}
