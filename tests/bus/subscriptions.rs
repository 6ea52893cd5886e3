//! Subscriptions and their handlers: once, ordered, concurrent, and their end.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::{
    Bomb, Counter, DropCounter, Gate, Mutex, assert_counts_add_up, in_threads, on_grid, pool, quiet_panics,
    with_watchdog,
};
use crate::{LONG, bus_with_letters, outcomes, wait_until};
use workcrew::events::{DeliveryOutcome, EventBus, Subscription};
use workcrew::retry::{AttemptError, RetryPolicy};
use workcrew::{Observer, TaskInfo, WorkerPool};

/// Fault 136c.
#[test]
fn a_panicking_handler_does_not_affect_other_handlers() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let handled = Counter::new();
        let (before, after) = (handled.clone(), handled.clone());
        let _guards = (
            bus.subscribe(move |_: &u32| before.add()),
            bus.subscribe(|number: &u32| -> () { panic!("at {number}") }),
            bus.subscription::<u32>().synchronous().handle(|_| -> () { panic!("on the publisher's thread") }),
            bus.subscribe(move |_: &u32| after.add()),
        );
        for number in 0..20_u32 {
            let receipt = bus.publish(number);
            assert_eq!(outcomes(&receipt), ["handled", "failed after 1", "failed after 1", "handled"]);
        }
        bus.wait_idle();
        assert_eq!((handled.get(), letters.lock().unwrap().len(), pool.metrics().tasks_panicked), (40, 40, 40));
        let letter = letters.lock().unwrap().iter().find(|letter| letter.event() == Some(&7_u32)).cloned().unwrap();
        assert!(matches!(letter.error().last(), AttemptError::Panicked(_)));
        assert_counts_add_up(&pool);
    });
}

/// Fault 136d.
#[test]
fn unsubscribing_waits_for_a_running_handler_only_when_asked_to() {
    on_grid(|pool| {
        for asked in [false, true] {
            let bus = EventBus::new(&pool);
            let (gate, done) = (Gate::new(), Counter::new());
            let (inside, counted) = (gate.clone(), done.clone());
            let subscription = bus.subscribe(move |_: &u32| {
                inside.pass();
                counted.add();
            });
            let receipts = [bus.publish(1_u32), bus.publish(2_u32)];
            gate.wait_started(1);
            if asked {
                thread::scope(|threads| {
                    let ended = threads.spawn(|| subscription.unsubscribe());
                    // What waited is cancelled before the handler's end is waited for.
                    assert_eq!(outcomes(&receipts[1]), ["cancelled on request"]);
                    assert!(!ended.is_finished());
                    gate.open();
                    assert!(ended.join().unwrap());
                });
                assert_eq!(done.get(), 1);
            } else {
                drop(subscription);
                assert_eq!(done.get(), 0);
                gate.open();
            }
            assert_eq!(bus.publish(3_u32).handlers(), 0);
            bus.wait_idle();
            assert_eq!((outcomes(&receipts[0]), done.get()), (vec!["handled".to_owned()], 1));
        }
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_handler_can_end_its_own_subscription() {
    on_grid(|pool| {
        let (bus, dropped) = (EventBus::new(&pool), Counter::new());
        let slot: Arc<Mutex<Option<Subscription>>> = Arc::default();
        let (own, held, ready) = (Arc::clone(&slot), DropCounter(dropped.clone()), Gate::new());
        let set = ready.clone();
        let subscription = bus.subscribe(move |_: &u32| {
            let _ = &held;
            set.pass();
            let own = own.lock().unwrap().take();
            assert!(!own.unwrap().unsubscribe(), "it is still running");
        });
        *slot.lock().unwrap() = Some(subscription);
        let receipts: Vec<_> = (0..3_u32).map(|number| bus.publish(number)).collect();
        ready.open();
        bus.wait_idle();
        assert_eq!(receipts.iter().flat_map(outcomes).filter(|outcome| outcome == "handled").count(), 1);
        wait_until(|| dropped.get() == 1);
    });
}

/// Fault 136e.
#[test]
fn once_handlers_run_once_under_eight_publishers() {
    with_watchdog(|| {
        for synchronous in [false, true] {
            let pool = pool(2, 8);
            let bus = EventBus::new(&pool);
            let counters: Vec<Counter> = (0..200).map(|_| Counter::new()).collect();
            let guards: Vec<_> = counters
                .iter()
                .map(|counter| {
                    let counter = counter.clone();
                    let builder = bus.subscription::<usize>().once();
                    if synchronous { builder.synchronous() } else { builder }.handle(move |_| counter.add())
                })
                .collect();
            in_threads(|threads| {
                for publisher in 0..8_usize {
                    let bus = &bus;
                    threads.spawn(move || (0..50).for_each(|number| drop(bus.publish(publisher * 50 + number))));
                }
            });
            bus.wait_idle();
            assert!(counters.iter().all(|counter| counter.get() == 1));
            assert!(!bus.has_subscribers::<usize>());
            drop(guards);
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn a_once_handler_that_fails_gets_its_event_again_and_no_other() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
        let _guard = bus.subscription::<u32>().once().retry(policy).handle(move |number| {
            noted.lock().unwrap().push(*number);
            if noted.lock().unwrap().len() < 3 { Err("not yet") } else { Ok(()) }
        });
        let first = bus.publish(1_u32);
        assert_eq!(bus.publish(2_u32).handlers(), 0);
        assert_eq!((outcomes(&first), seen.lock().unwrap().clone()), (vec!["handled".to_owned()], vec![1, 1, 1]));
    });
}

/// Fault 136f.
#[test]
fn a_subscription_made_during_a_publish_gets_the_next_event() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, late) = (bus.clone(), Counter::new());
        let counted = late.clone();
        let kept: Mutex<Vec<Subscription>> = Mutex::default();
        let _guard = bus.subscription::<u32>().synchronous().handle(move |_| {
            let counted = counted.clone();
            kept.lock().unwrap().push(inner.subscribe(move |_: &u32| counted.add()));
        });
        for (handlers, handled) in [(1, 0), (2, 1), (3, 3)] {
            let receipt = bus.publish(0_u32);
            receipt.wait().unwrap();
            assert_eq!((receipt.handlers(), late.get()), (handlers, handled));
        }
        bus.wait_idle();
    });
}

#[test]
fn ten_thousand_handlers_are_all_called() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        let bus = EventBus::new(&pool);
        let called = Counter::new();
        let guards: Vec<_> = (0..10_000)
            .map(|_| {
                let called = called.clone();
                bus.subscribe(move |_: &u32| called.add())
            })
            .collect();
        let receipt = bus.publish(1_u32);
        assert_eq!(receipt.handlers(), 10_000);
        let deliveries = receipt.wait().unwrap();
        assert!(deliveries.iter().all(|delivery| matches!(delivery.outcome, DeliveryOutcome::Handled)));
        assert_eq!((deliveries.len(), called.get()), (10_000, 10_000));
        drop(guards);
        bus.wait_idle();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 10_000);
    });
}

#[test]
fn a_slow_handler_holds_up_no_other() {
    on_grid(|pool| {
        if pool.workers() == 1 {
            return;
        }
        let bus = EventBus::new(&pool);
        let (gate, quick) = (Gate::new(), Counter::new());
        let (inside, counted) = (gate.clone(), quick.clone());
        let _guards = (bus.subscribe(move |_: &u32| inside.pass()), bus.subscribe(move |_: &u32| counted.add()));
        (0..100_u32).for_each(|number| drop(bus.publish(number)));
        wait_until(|| quick.get() == 100);
        gate.wait_started(1);
        assert_eq!(gate.started(), 1);
        gate.open();
        bus.wait_idle();
        assert_eq!(gate.started(), 100);
    });
}

#[test]
fn a_concurrent_subscription_makes_use_of_workers_that_come_later() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let inside = gate.clone();
        let _guard = bus.subscription::<u32>().concurrent(4).handle(move |_| inside.pass());
        (0..8_u32).for_each(|number| drop(bus.publish(number)));
        gate.wait_started(1);
        pool.resize(4).unwrap();
        gate.wait_started(4);
        gate.open();
        bus.wait_idle();
        assert_eq!(gate.started(), 8);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn no_handler_is_called_after_the_drop_of_the_guard() {
    struct Holds(Gate);
    impl Observer for Holds {
        fn task_started(&self, _: &TaskInfo<'_>) {
            self.0.pass();
        }
    }
    with_watchdog(|| {
        for retrying in [false, true] {
            let (gate, called) = (Gate::new(), Counter::new());
            let pool = WorkerPool::builder().workers(1).observer(Holds(gate.clone())).build().unwrap();
            let (bus, letters) = bus_with_letters(&pool);
            let counted = called.clone();
            let builder = bus.subscription::<u32>();
            let builder = if retrying { builder.retry(RetryPolicy::fixed(LONG)) } else { builder };
            let guard = builder.handle(move |_| counted.add());
            let receipt = bus.publish(0_u32);
            gate.wait_started(1); // between the taking and the handler
            drop(guard);
            gate.open();
            assert_eq!(outcomes(&receipt), ["cancelled on request"]);
            bus.wait_idle();
            assert_eq!((called.get(), letters.lock().unwrap().len(), pool.metrics().tasks_cancelled), (0, 0, 1));
            pool.shutdown();
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn events_and_handlers_with_panicking_destructors_do_no_harm() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let (dropped, handled) = (Counter::new(), Counter::new());
        let (held, counted) = (Bomb(dropped.clone()), handled.clone());
        let guard = bus.subscribe(move |_: &Bomb| {
            let _ = &held;
            counted.add();
        });
        let held = bus.publish(Bomb(dropped.clone())); // this thread drops the event last
        for _ in 0..4 {
            bus.publish(Bomb(dropped.clone()));
        }
        wait_until(|| handled.get() == 5);
        drop(guard);
        wait_until(|| dropped.get() == 5);
        held.wait().unwrap();
        drop(held);
        assert_eq!(dropped.get(), 6);
        bus.wait_idle();
        pool.wait_idle();
        assert!(letters.lock().unwrap().is_empty());
        assert_counts_add_up(&pool);
    });
}

#[test]
fn each_delivery_is_a_task_with_the_name_of_its_subscription() {
    let pool = pool(1, 1);
    let bus = EventBus::new(&pool);
    let gate = Gate::new();
    let inside = gate.clone();
    let _guard = bus.subscription::<u32>().name("accounting").handle(move |_| inside.pass());
    bus.publish(1_u32);
    gate.wait_started(1);
    let running = pool.running();
    assert_eq!(running.iter().map(|task| task.label()).collect::<Vec<_>>(), [Some("accounting")]);
    assert_eq!(running[0].location().file(), file!());
    gate.open();
    bus.wait_idle();
}

/// Fault 444.
#[test]
fn a_handler_learns_its_attempt_in_every_mode() {
    quiet_panics();
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let told = Arc::new(Mutex::new(Vec::new()));
        let handler = || {
            let told = Arc::clone(&told);
            move |event: &u32, attempt: &workcrew::retry::Attempt| {
                told.lock().unwrap().push((attempt.number(), attempt.is_last()));
                match (event, attempt.is_last()) {
                    (0, _) => Err("never"),
                    (1, false) => panic!("try again"),
                    _ => Ok(()),
                }
            }
        };
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
        type Mode =
            fn(workcrew::events::SubscriptionBuilder<'_, u32>) -> workcrew::events::SubscriptionBuilder<'_, u32>;
        let modes: [Mode; 3] = [|it| it.ordered(), |it| it.concurrent(2), |it| it.synchronous()];
        for mode in modes {
            let guard = mode(bus.subscription()).retry(policy.clone()).handle_with_attempt(handler());
            for event in 0..2_u32 {
                let receipt = bus.publish(event);
                let _ = receipt.wait();
                assert_eq!(*told.lock().unwrap(), [(1, false), (2, false), (3, true)]);
                told.lock().unwrap().clear();
            }
            drop(guard);
            let guard = mode(bus.subscription()).handle_with_attempt(handler()); // without a policy
            let _ = bus.publish(7_u32).wait();
            assert_eq!(*told.lock().unwrap(), [(1, true)]);
            told.lock().unwrap().clear();
            drop(guard);
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 444.
#[test]
fn the_token_of_a_handlers_attempt_expires_with_its_time_and_is_cancelled_by_a_shutdown() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let bus = EventBus::new(&pool);
        let (sender, told) = std::sync::mpsc::channel();
        let policies = [
            RetryPolicy::fixed(Duration::ZERO).max_attempts(1).attempt_timeout(Duration::ZERO),
            RetryPolicy::fixed(Duration::ZERO).max_attempts(1).timeout(Duration::ZERO),
            RetryPolicy::fixed(Duration::ZERO).max_attempts(1).timeout(Duration::MAX),
        ];
        for (n, policy) in policies.into_iter().enumerate() {
            let sender = sender.clone();
            let guard = bus.subscription::<u32>().retry(policy).handle_with_attempt(move |_, attempt| {
                sender.send(None).unwrap();
                let _ = attempt.token().wait_timeout(LONG);
                sender.send(attempt.token().reason()).unwrap();
            });
            let _receipt = bus.publish(1_u32);
            assert_eq!(told.recv_timeout(LONG), Ok(None));
            let expected = if n < 2 {
                workcrew::CancelReason::Expired
            } else {
                pool.shutdown_now();
                workcrew::CancelReason::ShutDown
            };
            assert_eq!(told.recv_timeout(LONG), Ok(Some(expected)));
            drop(guard);
        }
    });
}
