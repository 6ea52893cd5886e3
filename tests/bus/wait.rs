//! Waiting for receipts and for an idle bus, also inside handlers.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::{Counter, Gate, Mutex, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog};
use crate::{LONG, bus_with_letters, outcomes};
use workcrew::WorkerPool;
use workcrew::events::{EventBus, Receipt, SubscriptionBuilder, WouldDeadlock};
use workcrew::retry::RetryPolicy;

#[test]
fn a_handler_may_publish_and_wait_on_a_pool_of_one_worker() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let inner = bus.clone();
        let policy = RetryPolicy::fixed(Duration::from_micros(300)).max_attempts(3);
        let tries = Counter::new();
        let counted = tries.clone();
        let _sink = bus.subscription::<u64>().retry(policy).handle(move |_| {
            counted.add();
            if counted.get().is_multiple_of(3) { Ok(()) } else { Err("once more") }
        });
        let _source = bus.subscribe(move |number: &u32| {
            let receipt = inner.publish(u64::from(*number));
            assert_eq!(outcomes(&receipt), ["handled"]);
        });
        let receipts: Vec<_> = (0..5_u32).map(|number| bus.publish(number)).collect();
        with_watchdog(|| assert!(receipts.iter().flat_map(outcomes).all(|outcome| outcome == "handled")));
        assert_eq!(tries.get(), 15);
    });
}

#[test]
fn a_handler_that_waits_for_a_delivery_to_itself_gets_would_deadlock() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, told) = (bus.clone(), Counter::new());
        let counted = told.clone();
        let _guard = bus.subscribe(move |number: &u32| {
            if *number > 0 && inner.publish(number - 1).wait().is_err() {
                counted.add();
            }
        });
        bus.publish(3_u32);
        with_watchdog(|| bus.wait_idle());
        assert_eq!(told.get(), 3);
    });
}

/// What a handler is told that waits for the very event it is handling, in its attempt of that number.
fn would_deadlock_on_own_event(
    pool: &WorkerPool,
    subscribe: impl FnOnce(SubscriptionBuilder<'_, u32>) -> SubscriptionBuilder<'_, u32>,
    attempt: usize,
) -> (bool, Result<(), WouldDeadlock>) {
    let bus = EventBus::new(pool);
    let ((give, own), (tell, told)) = (channel::<Receipt>(), channel());
    let (own, tries) = (Mutex::new(own), Counter::new());
    let builder = bus.subscription().retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(attempt as u32));
    let _guard = subscribe(builder).handle(move |_: &u32| {
        tries.add();
        if tries.get() < attempt {
            return Err("not yet");
        }
        let own = own.lock().unwrap().recv().unwrap();
        tell.send((own.wait_timeout(Duration::MAX), own.wait().map(drop))).unwrap();
        Ok(())
    });
    let receipt = bus.publish(0_u32);
    give.send(receipt).unwrap();
    let told = told.recv().unwrap();
    bus.wait_idle();
    told
}

#[test]
fn a_handler_that_waits_for_the_event_it_is_handling_gets_would_deadlock() {
    on_grid(|pool| {
        let ordered = would_deadlock_on_own_event(&pool, |builder| builder, 1);
        let concurrent = would_deadlock_on_own_event(&pool, |builder| builder.concurrent(4), 1);
        let again = would_deadlock_on_own_event(&pool, |builder| builder.concurrent(4), 2);
        // A synchronous handler has the publisher's thread first, and its receipt is there only after that.
        let synchronous = would_deadlock_on_own_event(&pool, |builder| builder.name("synchronous").synchronous(), 2);
        for (is_finished, waited) in [ordered, concurrent, again, synchronous] {
            assert!(!is_finished && waited.is_err());
        }
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_concurrent_handler_may_wait_for_another_event_of_its_own_subscription() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, handled) = (bus.clone(), Counter::new());
        let counted = handled.clone();
        let _guard = bus.subscription::<u32>().concurrent(16).handle(move |number| {
            if *number > 0 {
                inner.publish(number - 1).wait().expect("a runner is free, this thread for one");
            }
            counted.add();
        });
        bus.publish(3_u32).wait().unwrap();
        assert_eq!(handled.get(), 4);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_concurrent_handler_may_wait_for_an_event_that_the_last_free_runner_is_handling() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        for round in 0..20_u32 {
            let bus = EventBus::new(&pool);
            let (inner, gate) = (bus.clone(), Gate::new());
            let inside = gate.clone();
            let _guard = bus.subscription::<u32>().concurrent(2).handle(move |number| {
                if *number == 0 {
                    return inside.pass();
                }
                let receipt = inner.publish(0_u32);
                inside.wait_started(1);
                receipt.wait().expect("it is being handled");
            });
            let receipt = bus.publish(1_u32);
            gate.wait_started(1);
            (0..round * 20).for_each(|_| thread::yield_now());
            gate.open();
            assert_eq!(outcomes(&receipt), ["handled"]);
        }
    });
}

#[test]
fn waiting_for_events_nested_too_deep_is_an_error_and_never_hangs() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, told, handled) = (bus.clone(), Counter::new(), Counter::new());
        let (counted, counts) = (told.clone(), handled.clone());
        let _guard = bus.subscription::<u32>().concurrent(1_000).mailbox_capacity(1_000).handle(move |number| {
            counts.add();
            if *number > 0 && inner.publish(number - 1).wait().is_err() {
                counted.add();
            }
        });
        bus.publish(30_u32).wait().unwrap();
        assert_eq!((told.get(), handled.get()), (0, 31));
        bus.publish(pool.workers() as u32 * 200).wait().unwrap();
        bus.wait_idle();
        assert!(told.get() > 0, "it is deeper than all workers together may be");
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_worker_that_waits_with_the_longest_timeout_helps() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let _guard = bus.subscribe(|_: &u32| ());
        let waits: Vec<_> = (0..pool.workers())
            .map(|_| {
                let inner = bus.clone();
                pool.spawn(move || inner.publish(0_u32).wait_timeout(Duration::MAX)).unwrap()
            })
            .collect();
        assert!(waits.into_iter().all(|wait| wait.join().unwrap()));
    });
}

#[test]
fn waiting_for_idle_inside_a_handler_panics_and_with_a_timeout_returns_false() {
    quiet_panics();
    let pool = pool(1, 1);
    let (bus, letters) = bus_with_letters(&pool);
    let inner = bus.clone();
    let _guard = bus.subscribe(move |_: &u32| {
        assert!(!inner.wait_idle_timeout(LONG));
        inner.wait_idle();
    });
    bus.publish(1_u32);
    bus.wait_idle();
    let letters = letters.lock().unwrap();
    assert!(letters[0].error().to_string().contains("cannot wait for its own bus"), "{}", letters[0]);
}

#[test]
fn a_thread_that_waits_for_a_receipt_and_one_that_waits_for_idle_are_both_woken() {
    let pool = pool(1, 1);
    let bus = EventBus::new(&pool);
    let _guard = bus.subscribe(|_: &u32| ());
    with_watchdog(|| {
        for number in 0..2_000_u32 {
            let receipt = bus.publish(number);
            if number % 2 == 0 {
                bus.wait_idle();
                assert!(receipt.is_finished());
            } else {
                receipt.wait().unwrap();
            }
        }
    });
    let (sender, receiver) = channel();
    drop(bus.subscription::<u8>().handle(move |number| sender.send(*number)));
    assert!(receiver.recv().is_err(), "the handler is freed with its guard");
}
