//! The waits of a bus besides those for receipts: what a report has left behind ends them, and a worker that waits for
//! what needs this worker helps or is told.
#![cfg(feature = "events")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{
    Counter, Gate, LIMIT, Mutex, assert_counts_add_up, on_grid, pool, quiet_panics, spawn_parked, with_watchdog,
};
use workcrew::events::{Delivery, DeliveryOutcome, EventBus, Receipt, Subscription};
use workcrew::retry::RetryPolicy;
use workcrew::{CancelReason, JoinError, WorkerPool};

const SHORT: Duration = Duration::from_millis(10);
const SIZES: [usize; 3] = [1, 2, 8];
const CAPACITIES: [usize; 2] = [1, 64];

fn outcomes(receipt: &Receipt) -> Vec<DeliveryOutcome> {
    receipt.wait().unwrap().into_iter().map(|Delivery { outcome, .. }| outcome).collect()
}

/// A subscription whose handler waits at the gate, and the receipt of the event that it has begun.
fn stuck(bus: &EventBus, gate: &Gate) -> (Subscription, Receipt) {
    let inside = gate.clone();
    let subscription = bus.subscription::<u32>().mailbox_capacity(1).handle(move |_| inside.pass());
    let receipt = bus.publish(0_u32);
    gate.wait_started(1);
    (subscription, receipt)
}

/// Waits of a bus that have no limit; each says whether what it waited for has come.
fn waits(bus: &EventBus, subscription: Subscription, receipt: &Arc<Receipt>) -> Vec<Box<dyn FnOnce() -> bool + Send>> {
    let (idle, receipts) = (bus.clone(), [(); 2].map(|()| Arc::clone(receipt)));
    let [first, second] = receipts;
    vec![
        Box::new(move || subscription.unsubscribe()),
        Box::new(move || {
            idle.wait_idle();
            idle.wait_idle_timeout(Duration::ZERO)
        }),
        Box::new(move || !matches!(outcomes(&first)[..], [DeliveryOutcome::LeftBehind])),
        Box::new(move || second.wait_timeout(Duration::MAX)),
    ]
}

/// Fault 148.
#[test]
fn no_wait_of_a_bus_goes_on_after_a_timed_shutdown_has_left_its_handler_behind() {
    for is_late in [false, true] {
        for limit in [Duration::ZERO, SHORT] {
            on_grid(|pool| {
                let (bus, gate) = (EventBus::new(&pool), Gate::new());
                let (subscription, receipt) = stuck(&bus, &gate);
                let receipt = Arc::new(receipt);
                let mut waits = waits(&bus, subscription, &receipt);
                let mut waiting = Vec::new();
                if !is_late {
                    waiting.extend(waits.drain(..).map(spawn_parked));
                    assert!(waiting.iter().all(|wait| !wait.is_finished()), "nothing was reported yet");
                }
                assert_eq!(pool.shutdown_timeout(limit).tasks_running, 1);
                assert!(waits.into_iter().all(|wait| !wait()), "a wait says that the stuck handler has ended");
                assert!(waiting.into_iter().all(|wait| !wait.join().unwrap()));
                assert!(!receipt.is_finished() && !receipt.wait_timeout(SHORT) && !bus.wait_idle_timeout(SHORT));
                gate.open();
                // What asks for more time gets it.
                assert!(receipt.wait_timeout(LIMIT) && bus.wait_idle_timeout(LIMIT));
                assert!(matches!(outcomes(&receipt)[..], [DeliveryOutcome::Handled]));
            });
        }
    }
}

/// Fault 148.
#[test]
fn the_drops_of_a_bus_wait_for_nothing_that_was_left_behind() {
    on_grid(|pool| {
        let (bus, gate) = (EventBus::new(&pool), Gate::new());
        let (subscription, receipt) = stuck(&bus, &gate);
        let waits = bus.publish(1_u32);
        let held = [1, 2].map(|event| {
            let bus = bus.clone();
            spawn_parked(move || {
                let receipt = bus.publish(event + 1_u32);
                assert_eq!(receipt.handlers(), 1, "its subscription has ended with the pool");
                outcomes(&receipt)
            })
        });
        assert_eq!(pool.shutdown_timeout(SHORT).tasks_running, 1);
        let cancelled = DeliveryOutcome::Cancelled(CancelReason::ShutDown);
        let is_cancelled = |outcomes: &[DeliveryOutcome]| format!("{outcomes:?}") == format!("{:?}", [&cancelled]);
        assert!(is_cancelled(&outcomes(&waits)), "{waits:?}");
        for held in held {
            let outcomes = held.join().unwrap();
            assert!(is_cancelled(&outcomes), "a publisher that waited for room: {outcomes:?}");
        }
        drop((subscription, bus, receipt, pool));
        gate.open();
    });
}

/// Fault 283.
#[test]
fn a_publisher_that_waits_for_room_when_the_pool_ends_gets_cancelled_deliveries() {
    on_grid(|pool| {
        for (mailboxes, ends) in [(1, false), (1, true), (3, false), (3, true)] {
            let pool = WorkerPool::builder().workers(pool.workers()).build().unwrap();
            let (gate, unhandled) = (Gate::new(), Counter::new());
            let noted = unhandled.clone();
            let bus = EventBus::builder(&pool).on_unhandled(move |_| noted.add()).build();
            let mut subscriptions: Vec<_> = (0..mailboxes)
                .map(|_| {
                    let inside = gate.clone();
                    bus.subscription::<u32>().mailbox_capacity(1).handle(move |_| inside.pass())
                })
                .collect();
            bus.publish(0_u32);
            gate.wait_started(mailboxes.min(pool.workers()));
            // Its handler runs, or its mailbox is full.
            let fill = if pool.workers() < mailboxes { 0 } else { 1 };
            (0..fill).for_each(|_| drop(bus.publish(1_u32)));
            let publisher = bus.clone();
            let held = spawn_parked(move || publisher.publish(2_u32));
            assert!(!held.is_finished());
            // A subscription that ends before the pool has no delivery, as if it had ended before the publishing.
            let ended = usize::from(ends);
            subscriptions.truncate(mailboxes - ended);
            let _ = pool.shutdown_now();
            let receipt = held.join().unwrap();
            assert_eq!(receipt.handlers(), mailboxes - ended);
            let outcomes = outcomes(&receipt);
            assert_eq!(outcomes.len(), mailboxes - ended);
            let cancelled = |outcome: &DeliveryOutcome| {
                matches!(outcome, DeliveryOutcome::Cancelled(CancelReason::ShutDown | CancelReason::Requested))
            };
            assert!(outcomes.iter().all(cancelled), "{outcomes:?}");
            assert_eq!(unhandled.get(), usize::from(mailboxes == ended), "it was wanted, unless its handlers are gone");
            gate.open();
        }
    });
}

/// Fault 148.
#[test]
fn a_synchronous_handler_that_was_left_behind_is_not_waited_for() {
    on_grid(|pool| {
        let (bus, gate) = (EventBus::new(&pool), Gate::new());
        let inside = gate.clone();
        let subscription = bus.subscription::<u32>().synchronous().handle(move |_| inside.pass());
        let publisher = bus.clone();
        let publisher = thread::spawn(move || publisher.publish(0_u32).handlers());
        gate.wait_started(1);
        let ending = spawn_parked(move || subscription.unsubscribe());
        assert!(!ending.is_finished());
        assert_eq!(pool.shutdown_timeout(SHORT).tasks_running, 1);
        assert!(!ending.join().unwrap());
        bus.wait_idle();
        assert!(!publisher.is_finished());
        gate.open();
        assert_eq!(publisher.join().unwrap(), 1);
    });
}

/// Fault 148.
#[test]
fn a_task_of_another_pool_waits_no_longer_than_the_report_either() {
    for is_late in [false, true] {
        on_grid(|home| {
            let abroad = pool(4, 64);
            let (bus, gate) = (EventBus::new(&home), Gate::new());
            let (subscription, receipt) = stuck(&bus, &gate);
            let (receipt, begun) = (Arc::new(receipt), Counter::new());
            let spawn = |wait: Box<dyn FnOnce() -> bool + Send>| {
                let begun = begun.clone();
                let task = move || {
                    begun.add();
                    wait()
                };
                abroad.spawn(task).unwrap()
            };
            let mut waits = waits(&bus, subscription, &receipt);
            let mut tasks: Vec<_> = if is_late { Vec::new() } else { waits.drain(..).map(spawn).collect() };
            while begun.get() < tasks.len() {
                thread::yield_now();
            }
            assert_eq!(home.shutdown_timeout(SHORT).tasks_running, 1);
            tasks.extend(waits.into_iter().map(spawn));
            assert!(tasks.into_iter().all(|task| !task.join().unwrap()));
            gate.open();
        });
    }
}

/// Fault 148.
#[test]
fn a_shutdown_now_cuts_no_wait_of_a_bus_short() {
    on_grid(|pool| {
        let (bus, gate) = (EventBus::new(&pool), Gate::new());
        let (subscription, receipt) = stuck(&bus, &gate);
        let waits = waits(&bus, subscription, &Arc::new(receipt));
        let _ = pool.shutdown_now(); // it has no limit that could have passed
        let waiting: Vec<_> = waits.into_iter().map(spawn_parked).collect();
        assert!(waiting.iter().all(|wait| !wait.is_finished()));
        gate.open();
        assert!(waiting.into_iter().all(|wait| wait.join().unwrap()));
    });
}

/// Starts a task on each worker, all at once, that joins a task of another pool. Returns what those make.
fn through_another_pool<T: Send + 'static>(home: &WorkerPool, task: impl Fn() -> T + Clone + Send + 'static) -> Vec<T> {
    let (abroad, gate) = (pool(home.workers(), 64), Gate::new());
    let waiting: Vec<_> = (0..home.workers())
        .map(|_| {
            let (abroad, gate, task) = (abroad.clone(), gate.clone(), task.clone());
            let wait = move || {
                gate.pass();
                abroad.spawn(task).unwrap().join().unwrap()
            };
            home.spawn(wait).unwrap()
        })
        .collect();
    gate.wait_started(home.workers());
    gate.open();
    waiting.into_iter().map(|task| task.join().unwrap()).collect()
}

/// A bus with subscriptions of each kind, mailboxes of that capacity, and what they have handled.
fn counting(pool: &WorkerPool, capacity: usize) -> (EventBus, Vec<Subscription>, Counter) {
    let (bus, handled) = (EventBus::new(pool), Counter::new());
    let subscriptions = [Some(1), Some(3), None].map(|concurrent| {
        let counted = handled.clone();
        let builder = bus.subscription::<usize>().mailbox_capacity(capacity);
        let builder = if let Some(limit) = concurrent { builder.concurrent(limit) } else { builder.ordered() };
        builder.handle(move |_| counted.add())
    });
    (bus, subscriptions.into(), handled)
}

/// Fault 270.
#[test]
fn a_publisher_on_another_pool_that_waits_for_room_is_helped_by_a_worker_that_waits_for_it() {
    for workers in SIZES {
        for capacity in CAPACITIES {
            with_watchdog(|| {
                let home = pool(workers, 64);
                let (bus, mut subscriptions, handled) = counting(&home, capacity);
                let events = 2 * capacity + 3;
                for rest in [3, 1] {
                    subscriptions.truncate(rest);
                    let before = handled.get();
                    let publisher = bus.clone();
                    let receipts = through_another_pool(&home, move || {
                        (0..events).map(|event| publisher.publish(event)).collect::<Vec<_>>()
                    });
                    for receipt in receipts.iter().flatten() {
                        let outcomes = outcomes(receipt);
                        assert_eq!(outcomes.len(), rest);
                        assert!(outcomes.iter().all(|outcome| matches!(outcome, DeliveryOutcome::Handled)));
                    }
                    assert_eq!(handled.get() - before, workers * events * rest);
                }
                home.wait_idle();
                assert_eq!(home.metrics().tasks_refused, 0);
                assert_counts_add_up(&home);
            });
        }
    }
}

/// Fault 270.
#[test]
fn a_wait_on_another_pool_for_an_idle_bus_is_helped_by_a_worker_that_waits_for_it() {
    for workers in SIZES {
        for capacity in CAPACITIES {
            with_watchdog(|| {
                let home = pool(workers, 64);
                let (bus, subscriptions, handled) = counting(&home, capacity);
                // One of its deliveries is tried again after a delay: the worker waits for that moment, too.
                let policy = RetryPolicy::fixed(Duration::from_millis(2)).max_attempts(3);
                let (attempts, counted) = (Counter::new(), Counter::new());
                let tried = attempts.clone();
                let _retried = bus.subscription::<usize>().retry(policy).handle(move |_| {
                    tried.add();
                    if tried.get() % 3 == 0 { Ok(()) } else { Err("not yet") }
                });
                let (publisher, idle) = (bus.clone(), counted.clone());
                through_another_pool(&home, move || {
                    publisher.publish(1_usize);
                    publisher.wait_idle();
                    idle.add();
                });
                assert_eq!((counted.get(), handled.get()), (workers, workers * subscriptions.len()));
                assert_eq!(attempts.get(), 3 * workers);
            });
        }
    }
}

/// Fault 270.
#[test]
fn a_wait_on_another_pool_for_the_end_of_a_subscription_ends_with_its_handler() {
    for workers in SIZES {
        with_watchdog(|| {
            let (home, abroad) = (pool(workers, 64), pool(1, 64));
            let (bus, gate) = (EventBus::new(&home), Gate::new());
            let (far, inside) = (abroad.clone(), gate.clone());
            // The only worker of the other pool waits for the handler, which needs that worker.
            let subscription = bus.subscribe(move |_: &u32| {
                inside.pass();
                far.spawn(|| ()).unwrap().join().unwrap();
            });
            bus.publish(0_u32);
            gate.wait_started(1);
            let ending = abroad.spawn(move || subscription.unsubscribe()).unwrap();
            while abroad.metrics().tasks_running == 0 {
                thread::yield_now();
            }
            gate.open();
            assert!(ending.join().unwrap(), "the handler has ended");
        });
    }
}

/// Fault 270.
#[test]
fn the_runner_of_a_subscription_is_helped_by_a_worker_that_waits_for_another_event_of_it() {
    for workers in SIZES {
        for wait in 0..2 {
            for _ in 0..20 {
                with_watchdog(|| {
                    let (home, abroad) = (pool(workers, 64), pool(1, 64));
                    let (bus, gate) = (EventBus::new(&home), Gate::new());
                    let (far, inside) = (abroad.clone(), gate.clone());
                    let _subscription = bus.subscription::<u32>().mailbox_capacity(1).handle(move |event| {
                        if *event == 0 {
                            inside.pass();
                            far.spawn(|| ()).unwrap().join().unwrap();
                        }
                    });
                    bus.publish(0_u32);
                    gate.wait_started(1);
                    let behind = bus.publish(1_u32);
                    let begun = Gate::new();
                    let (publisher, begins) = (bus.clone(), begun.clone());
                    begun.open();
                    let waiting = abroad.spawn(move || {
                        begins.pass();
                        match wait {
                            0 => outcomes(&behind),
                            _ => outcomes(&publisher.publish(2_u32)), // waits for room
                        }
                    });
                    begun.wait_started(1);
                    for _ in 0..100 {
                        thread::yield_now(); // in most rounds the wait sleeps by then
                    }
                    gate.open();
                    assert!(matches!(waiting.unwrap().join().unwrap()[..], [DeliveryOutcome::Handled]));
                });
            }
        }
    }
}

/// Fault 271.
#[test]
fn a_handler_that_joins_a_publisher_to_its_own_full_mailbox_gets_would_deadlock() {
    for workers in SIZES {
        for capacity in CAPACITIES {
            for mailboxes in [1, 2] {
                with_watchdog(|| publish_through_another_pool_to_its_own(workers, capacity, mailboxes));
            }
        }
    }
}

fn publish_through_another_pool_to_its_own(workers: usize, capacity: usize, mailboxes: usize) {
    let (home, abroad) = (pool(workers, 64), pool(1, 64));
    let bus = EventBus::new(&home);
    let (handled, told) = (Counter::new(), Counter::new());
    let receipts: Arc<Mutex<Vec<Receipt>>> = Arc::default();
    let _subscriptions: Vec<_> = (0..mailboxes)
        .map(|mailbox| {
            let (bus, far, receipts) = (bus.clone(), abroad.clone(), Arc::clone(&receipts));
            let (counted, told) = (handled.clone(), told.clone());
            bus.clone().subscription::<usize>().mailbox_capacity(capacity).handle(move |event| {
                counted.add();
                if *event == 0 && mailbox == 0 {
                    let (bus, receipts) = (bus.clone(), Arc::clone(&receipts));
                    let publish = move || {
                        for event in 1..capacity + 3 {
                            let receipt = bus.publish(event);
                            receipts.lock().unwrap().push(receipt);
                        }
                    };
                    match far.spawn(publish).unwrap().join() {
                        Ok(()) => {}
                        Err(JoinError::WouldDeadlock(_)) => told.add(),
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    let first = bus.publish(0_usize);
    assert_eq!(outcomes(&first).len(), mailboxes);
    abroad.wait_idle();
    let outcomes: Vec<_> = receipts.lock().unwrap().iter().flat_map(outcomes).collect();
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, DeliveryOutcome::Refused)).count();
    home.wait_idle();
    assert_eq!(outcomes.len(), mailboxes * (capacity + 2));
    assert!(refused + told.get() > 0, "the publisher waited for the handler that waited for it");
    assert_eq!(handled.get() + refused, mailboxes * (capacity + 3), "each delivery was made or refused");
    assert_eq!(home.metrics().tasks_refused, refused as u64);
    assert_counts_add_up(&home);
}

/// Fault 271.
#[test]
fn a_handler_that_joins_a_wait_for_its_own_end_gets_would_deadlock() {
    quiet_panics();
    for workers in SIZES {
        for concurrent in [1, 3] {
            for way in 0..2 {
                with_watchdog(|| {
                    let (home, abroad) = (pool(workers, 64), pool(1, 64));
                    let bus = EventBus::new(&home);
                    let own: Arc<Mutex<Option<Subscription>>> = Arc::default();
                    let told = Arc::new(Mutex::new(None));
                    let (inner, taken, noted) = (bus.clone(), Arc::clone(&own), Arc::clone(&told));
                    let gate = Gate::new();
                    let inside = gate.clone();
                    let subscription = bus.subscription::<u32>().concurrent(concurrent).handle(move |_| {
                        inside.pass();
                        let subscription = taken.lock().unwrap().take();
                        let bus = inner.clone();
                        let wait = move || match way {
                            0 => subscription.unwrap().unsubscribe(),
                            _ => {
                                bus.wait_idle();
                                true
                            }
                        };
                        *noted.lock().unwrap() = Some(abroad.spawn(wait).unwrap().join());
                    });
                    *own.lock().unwrap() = Some(subscription);
                    let receipt = bus.publish(0_u32);
                    gate.wait_started(1);
                    gate.open();
                    assert!(matches!(outcomes(&receipt)[..], [DeliveryOutcome::Handled]));
                    let told = told.lock().unwrap().take().unwrap();
                    let is_told = match told {
                        Ok(has_ended) => !has_ended && way == 0,
                        Err(JoinError::Panicked(_)) => way == 1,
                        Err(error) => matches!(error, JoinError::WouldDeadlock(_)),
                    };
                    assert!(is_told);
                });
            }
        }
    }
}

/// Fault 271.
#[test]
fn ordered_subscriptions_that_wait_for_each_other_get_would_deadlock_on_any_pool() {
    on_grid(|pool| {
        for capacity in CAPACITIES {
            let bus = EventBus::new(&pool);
            let (told, ended) = (Counter::new(), Counter::new());
            let [one, two] = [1, 2].map(|_| (bus.clone(), told.clone(), ended.clone()));
            let _one = bus.subscription::<u32>().mailbox_capacity(capacity).handle(move |left| {
                match one.0.publish(u64::from(*left)).wait() {
                    Err(_) => one.1.add(),
                    Ok(_) => one.2.add(),
                }
            });
            let _two = bus.subscription::<u64>().mailbox_capacity(capacity).handle(move |left| {
                if *left > 0 {
                    match two.0.publish(*left as u32 - 1).wait() {
                        Err(_) => two.1.add(),
                        Ok(_) => two.2.add(),
                    }
                }
            });
            let receipt = bus.publish(3_u32);
            assert!(matches!(outcomes(&receipt)[..], [DeliveryOutcome::Handled]));
            bus.wait_idle();
            assert!(told.get() > 0, "{} waits ended, and none was refused", ended.get());
        }
    });
}

/// Fault 272.
#[test]
fn events_published_to_the_handlers_own_full_mailbox_are_handled_or_refused_and_counted() {
    on_grid(|pool| {
        for capacity in CAPACITIES {
            let bus = EventBus::new(&pool);
            let before = pool.metrics();
            let (handled, receipts) = (Counter::new(), Arc::new(Mutex::new(Vec::new())));
            let (inner, counted, kept) = (bus.clone(), handled.clone(), Arc::clone(&receipts));
            let _subscription = bus.subscription::<u32>().mailbox_capacity(capacity).handle(move |left| {
                counted.add();
                for child in 0..2 * u32::from(*left > 0) {
                    let receipt = inner.publish(left - 1);
                    assert_eq!(receipt.handlers(), 1, "child {child}");
                    kept.lock().unwrap().push(receipt);
                }
            });
            let published = 4;
            let firsts: Vec<_> = (0..published).map(|_| bus.publish(6_u32)).collect();
            bus.wait_idle();
            let receipts: Vec<Receipt> = firsts.into_iter().chain(receipts.lock().unwrap().drain(..)).collect();
            let outcomes: Vec<_> = receipts.iter().flat_map(outcomes).collect();
            let count = |test: fn(&DeliveryOutcome) -> bool| outcomes.iter().filter(|outcome| test(outcome)).count();
            let refused = count(|outcome| matches!(outcome, DeliveryOutcome::Refused));
            assert_eq!(count(|outcome| matches!(outcome, DeliveryOutcome::Handled)), handled.get());
            assert_eq!((handled.get() + refused, outcomes.len()), (receipts.len(), receipts.len()));
            pool.wait_idle();
            let metrics = pool.metrics();
            assert_eq!(metrics.tasks_refused - before.tasks_refused, refused as u64);
            assert_eq!(metrics.tasks_succeeded - before.tasks_succeeded, handled.get() as u64);
            assert!(capacity > 1 || refused > 0, "a mailbox of one place has held them all");
            assert_counts_add_up(&pool);
        }
    });
}

#[cfg(feature = "driver")]
mod futures {
    use super::*;
    use workcrew::driver::Driver;

    /// Fault 149.
    #[test]
    fn the_drop_of_a_driver_that_waits_for_a_stuck_future_ends_with_the_report() {
        for workers in SIZES {
            for ends_now in [false, true] {
                with_watchdog(|| {
                    let pool = pool(workers, 64);
                    let (driver, gate) = (Driver::new(&pool, 4).unwrap(), Gate::new());
                    let inside = gate.clone();
                    // A future of the runtime's own: a flight would keep the driver's thread itself.
                    let outer = async move { drop(tokio::spawn(async move { inside.pass() })) };
                    driver.spawn(outer).unwrap().join().unwrap();
                    gate.wait_started(1);
                    let dropping = spawn_parked(move || drop(driver));
                    assert!(!dropping.is_finished());
                    let _ = if ends_now { pool.shutdown_now() } else { pool.shutdown_timeout(SHORT) };
                    dropping.join().unwrap();
                    gate.open();
                });
            }
        }
    }

    /// Fault 270.
    #[test]
    fn a_future_that_publishes_and_waits_for_room_is_helped_by_the_worker_that_joins_it() {
        for workers in SIZES {
            for capacity in CAPACITIES {
                with_watchdog(|| {
                    let home = pool(workers, 64);
                    let driver = Arc::new(Driver::new(&home, 8).unwrap());
                    let (bus, subscriptions, handled) = counting(&home, capacity);
                    let (events, gate) = (2 * capacity + 3, Gate::new());
                    let tasks: Vec<_> = (0..workers)
                        .map(|_| {
                            let (driver, bus, gate) = (Arc::clone(&driver), bus.clone(), gate.clone());
                            let task = move || {
                                gate.pass();
                                let publish = async move { (0..events).for_each(|event| drop(bus.publish(event))) };
                                driver.spawn(publish).unwrap().join().unwrap();
                            };
                            home.spawn(task).unwrap()
                        })
                        .collect();
                    gate.wait_started(workers);
                    gate.open();
                    tasks.into_iter().for_each(|task| task.join().unwrap());
                    bus.wait_idle();
                    assert_eq!(handled.get(), workers * events * subscriptions.len());
                });
            }
        }
    }
}
