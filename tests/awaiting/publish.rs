//! Publishing without waiting, and from async code.

use std::mem;
use std::sync::{Arc, mpsc};
use std::task::Poll;

use pollster::block_on;
use workcrew::events::{DeliveryOutcome, EventBus, Receipt, Subscription};
use workcrew::{CancelReason, Overflow};

use crate::alarm::{Alarm, poll, poll_ready};
use crate::common::{Counter, Gate, LIMIT, assert_counts_add_up, in_threads, on_grid, pool, with_watchdog};

fn event(number: u32) -> Arc<u32> {
    Arc::new(number)
}

/// A subscription whose handler is at a gate and whose mailbox is full.
struct Full {
    gate: Gate,
    handled: Counter,
    guard: Subscription,
    capacity: usize,
}

fn full(bus: &EventBus, name: &'static str, capacity: usize) -> Full {
    let (gate, handled) = (Gate::new(), Counter::new());
    let (inside, counted) = (gate.clone(), handled.clone());
    let subscription = bus.subscription::<Arc<u32>>().name(name).topic("full").mailbox_capacity(capacity);
    let guard = subscription.handle(move |_| {
        inside.pass();
        counted.add();
    });
    bus.publish_to("full", event(0));
    gate.wait_started(1);
    (0..capacity).for_each(|_| drop(bus.publish_to("full", event(0))));
    Full { gate, handled, guard, capacity }
}

fn outcomes(receipt: &Receipt) -> Vec<DeliveryOutcome> {
    receipt.wait().unwrap().into_iter().map(|delivery| delivery.outcome).collect()
}

/// Fault 331.
#[test]
fn try_publish_reaches_all_subscriptions_or_none_and_gives_the_event_back() {
    on_grid(|pool| {
        let (bus, first, last) = (EventBus::new(&pool), Counter::new(), Counter::new());
        let full = full(&bus, "stuck", 2);
        let (counted_first, counted_last) = (first.clone(), last.clone());
        let _synchronous = bus.subscription().synchronous().handle(move |_: &Arc<u32>| counted_first.add());
        let _other = bus.subscription().mailbox_capacity(1).handle(move |_: &Arc<u32>| counted_last.add());
        let event = event(7);
        let refused = bus.try_publish_to("full", Arc::clone(&event)).unwrap_err();
        assert_eq!((refused.subscription(), Arc::strong_count(&event)), ("stuck", 2));
        assert_eq!(refused.to_string(), "the mailbox of the subscription `stuck` is full");
        assert!(Arc::ptr_eq(&refused.into_inner(), &event));
        assert_eq!(Arc::strong_count(&event), 1, "nothing of the bus keeps the event");
        full.gate.open();
        bus.wait_idle();
        assert_eq!((first.get(), last.get(), full.handled.get()), (0, 0, 3));
        let receipt = bus.try_publish_to("full", event).unwrap();
        assert_eq!((receipt.handlers(), outcomes(&receipt).len()), (3, 3));
        assert_eq!((first.get(), last.get(), full.handled.get()), (1, 1, 4));
        assert!(bus.try_publish("no handler").unwrap().is_finished());
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 331.
#[test]
fn try_publish_finds_no_obstacle_in_a_mailbox_that_discards_or_is_closed() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let subscribe = |policy| {
            let inside = gate.clone();
            bus.subscription::<u32>().mailbox_capacity(1).overflow(policy).handle(move |_| inside.pass())
        };
        let _guards = [Overflow::DiscardNewest, Overflow::DiscardOldest].map(subscribe);
        let receipts: Vec<_> = (0..5_u32).map(|n| bus.try_publish(n).unwrap()).collect();
        gate.open();
        assert!(receipts.iter().all(|receipt| outcomes(receipt).len() == 2));
        pool.close();
        let late = bus.try_publish(9_u32).unwrap();
        let ends_with_pool =
            |outcome: &DeliveryOutcome| matches!(outcome, DeliveryOutcome::Cancelled(CancelReason::ShutDown));
        assert!(outcomes(&late).iter().all(ends_with_pool));
    });
}

/// Fault 331.
#[test]
fn try_publish_on_a_worker_makes_no_delivery() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, (tell, told)) = (bus.clone(), mpsc::channel());
        let full = full(&bus, "stuck", 1);
        pool.spawn({
            let gate = full.gate.clone();
            move || {
                let refused = inner.try_publish_to("full", event(1)).is_err();
                tell.send((refused, gate.started())).unwrap();
            }
        })
        .map(|handle| {
            if pool.workers() == 1 {
                full.gate.open(); // the only worker is in the handler
            }
            handle.join().unwrap();
        })
        .unwrap();
        let (refused, started) = told.recv().unwrap();
        assert!(pool.workers() == 1 || refused && started == 1);
        full.gate.open();
        bus.wait_idle();
    });
}

/// Fault 331.
#[test]
fn publishers_of_every_kind_share_small_mailboxes_and_lose_nothing() {
    const EVENTS: usize = 60;
    on_grid(|pool| {
        let bus = EventBus::builder(&pool).mailbox_capacity(2).build();
        let counters = [Counter::new(), Counter::new()];
        let _guards = counters.clone().map(|counter| bus.subscribe(move |_: &usize| counter.add()));
        let (accepted, refused) = (Counter::new(), Counter::new());
        in_threads(|threads| {
            for publisher in 0..4 {
                let (bus, accepted, refused) = (&bus, &accepted, &refused);
                threads.spawn(move || {
                    for event in 0..EVENTS {
                        let receipt = match (publisher + event) % 3 {
                            0 => Some(bus.publish(event)),
                            1 => Some(block_on(bus.publish_async(event))),
                            _ => bus.try_publish(event).ok(),
                        };
                        match receipt {
                            Some(receipt) => {
                                assert_eq!(receipt.handlers(), 2);
                                accepted.add();
                            }
                            None => refused.add(),
                        }
                    }
                });
            }
        });
        block_on(bus.wait_idle_async());
        assert_eq!(accepted.get() + refused.get(), 4 * EVENTS);
        assert_eq!((counters[0].get(), counters[1].get()), (accepted.get(), accepted.get()));
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 332.
#[test]
fn an_async_publish_waits_for_room_and_delays_no_other_subscription() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let full = full(&bus, "stuck", 2);
        let (quick, (handled, quickly)) = (Counter::new(), mpsc::channel());
        let counted = quick.clone();
        let _quick = bus.subscription().synchronous().handle(move |_: &Arc<u32>| {
            counted.add();
            handled.send(()).unwrap();
        });
        let (alarm, rings) = Alarm::with_bell();
        let mut publish = bus.publish_to_async("full", event(1));
        assert_eq!(quick.get(), 0, "nothing happens before the first poll");
        assert!(poll(&mut publish, &alarm).is_pending());
        quickly.recv_timeout(LIMIT).unwrap();
        assert!(poll(&mut publish, &alarm).is_pending());
        assert_eq!((quick.get(), alarm.rung.get()), (1, 0), "the second poll delivers nothing twice");
        full.gate.open();
        rings.recv_timeout(LIMIT).unwrap();
        let receipt = poll_ready(&mut publish);
        assert_eq!((receipt.handlers(), outcomes(&receipt).len()), (2, 2));
        assert!(poll(&mut publish, &alarm).is_pending(), "ready once, then pending forever");
        bus.wait_idle();
        assert_eq!(full.handled.get(), full.capacity + 2);
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 333.
#[test]
fn forgotten_futures_keep_no_room_from_futures_and_threads() {
    with_watchdog(|| {
        for (workers, capacity) in [(1, 1), (1, 3), (2, 8), (8, 5)] {
            let pool = pool(workers, 64);
            let bus = EventBus::new(&pool);
            let full = full(&bus, "stuck", capacity);
            for _ in 0..2 * capacity {
                let mut forgotten = bus.publish_to_async("full", event(1));
                assert!(poll(&mut forgotten, &Alarm::new()).is_pending());
                mem::forget(forgotten);
            }
            let (alarm, rings) = Alarm::with_bell();
            let mut last = bus.publish_to_async("full", event(2));
            assert!(poll(&mut last, &alarm).is_pending());
            in_threads(|threads| {
                threads.spawn(|| drop(bus.publish_to("full", event(3))));
                full.gate.open();
            });
            let receipt = loop {
                rings.recv_timeout(LIMIT).unwrap();
                if let Poll::Ready(receipt) = poll(&mut last, &alarm) {
                    break receipt;
                }
            };
            assert_eq!(receipt.handlers(), 1);
            while full.handled.get() < capacity + 3 {
                std::thread::yield_now();
            }
            pool.shutdown(); // drains, with futures that are forgotten
            bus.wait_idle();
            assert_counts_add_up(&pool);
        }
    });
}

/// Fault 463.
#[test]
fn a_publish_that_is_not_polled_again_does_not_hold_up_the_pool() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let full = full(&bus, "stuck", 2);
        let [mut kept, mut dropped, mut forgotten] =
            [1, 2, 3].map(|number| bus.publish_to_async("full", event(number)));
        for future in [&mut kept, &mut dropped, &mut forgotten] {
            assert!(poll(future, &Alarm::new()).is_pending());
        }
        full.gate.open();
        pool.wait_idle(); // the futures are not polled meanwhile
        assert_eq!((full.handled.get(), pool.metrics().tasks_refused), (3, 0));
        drop(dropped);
        assert!(matches!(outcomes(&poll_ready(&mut kept))[..], [DeliveryOutcome::Handled]));
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_refused, 1);
        pool.shutdown();
        drop(forgotten);
        assert_eq!(pool.metrics().tasks_refused, 2, "each is refused once");
        assert_counts_add_up(&pool);
    });
}

/// Fault 334.
#[test]
fn an_async_publish_that_is_dropped_halfway_is_refused_where_there_was_no_room() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let full = full(&bus, "stuck", 1);
        let others = Counter::new();
        let counted = others.clone();
        let _other = bus.subscription().synchronous().handle(move |_: &Arc<u32>| counted.add());
        let (event, alarm) = (event(1), Alarm::new());
        let mut publish = bus.publish_to_async("full", Arc::clone(&event));
        assert!(poll(&mut publish, &alarm).is_pending());
        let refused = pool.metrics().tasks_refused;
        drop(publish);
        assert_eq!(pool.metrics().tasks_refused, refused + 1);
        assert_eq!((Arc::strong_count(&alarm), Arc::strong_count(&event)), (1, 1));
        full.gate.open();
        bus.wait_idle();
        assert_eq!((others.get(), full.handled.get(), alarm.rung.get()), (1, 2, 0));
        drop(bus.publish_to_async("full", event));
        assert_eq!(others.get(), 1, "dropped before its first poll");
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 334.
#[test]
fn the_end_of_the_subscription_or_of_the_pool_ends_an_async_publish() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let one = full(&bus, "one", 1);
        let (alarm, rings) = Alarm::with_bell();
        let mut publish = bus.publish_to_async("full", event(1));
        assert!(poll(&mut publish, &alarm).is_pending());
        let guard = one.guard;
        drop(guard);
        rings.recv_timeout(LIMIT).unwrap();
        assert_eq!(poll_ready(&mut publish).handlers(), 0);
        one.gate.open();
        bus.wait_idle();
        let stuck = full(&bus, "two", 1);
        let mut publish = bus.publish_to_async("full", event(1));
        assert!(poll(&mut publish, &alarm).is_pending());
        pool.close();
        rings.recv_timeout(LIMIT).unwrap();
        let receipt = poll_ready(&mut publish);
        assert_eq!(receipt.handlers(), 1);
        assert!(matches!(outcomes(&receipt)[..], [DeliveryOutcome::Cancelled(CancelReason::ShutDown)]));
        stuck.gate.open();
    });
}

/// Fault 332.
#[test]
fn an_async_publish_on_a_worker_of_the_pool_never_waits() {
    on_grid(|pool| {
        let bus = EventBus::builder(&pool).mailbox_capacity(1).build();
        let handled = Counter::new();
        let counted = handled.clone();
        let _handler = bus.subscribe(move |_: &u32| counted.add());
        let inner = bus.clone();
        let receipts = pool.spawn(move || (0..20_u32).map(|n| block_on(inner.publish_async(n))).collect::<Vec<_>>());
        let receipts = receipts.unwrap().join().unwrap();
        let handled_events =
            receipts.iter().flat_map(outcomes).filter(|outcome| matches!(outcome, DeliveryOutcome::Handled)).count();
        assert_eq!(handled_events, handled.get());
        assert!(pool.workers() > 1 || handled_events == 20, "the only worker makes room by itself");
    });
}

/// Fault 332.
#[test]
fn a_task_of_another_pool_that_awaits_room_is_helped_by_the_worker_that_joins_it() {
    with_watchdog(|| {
        let (pool, other) = (pool(1, 8), crate::common::pool(1, 8));
        let bus = EventBus::builder(&pool).mailbox_capacity(1).build();
        let handled = Counter::new();
        let counted = handled.clone();
        let _handler = bus.subscribe(move |_: &u32| counted.add());
        let inner = bus.clone();
        let task = pool.spawn(move || {
            let publishes = other.spawn(move || (0..5_u32).for_each(|n| drop(block_on(inner.publish_async(n)))));
            publishes.unwrap().join().unwrap();
        });
        task.unwrap().join().unwrap();
        bus.wait_idle();
        assert_eq!(handled.get(), 5);
    });
}
