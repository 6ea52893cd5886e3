//! Mailboxes: room, full mailboxes, and publishing inside handlers.

use std::sync::Arc;
use std::thread;

use crate::common::{Counter, Gate, LIMIT, Mutex, assert_counts_add_up, on_grid, pool, with_watchdog};
use crate::{LONG, outcomes, wait_until};
use workcrew::Overflow;
use workcrew::events::{DeliveryOutcome, EventBus, Subscription};
use workcrew::retry::RetryPolicy;

/// Fault 136a.
#[test]
fn publishing_subscribing_and_unsubscribing_inside_a_handler_never_hang() {
    on_grid(|pool| {
        for synchronous in [false, true] {
            let bus = EventBus::new(&pool);
            let (inner, followed) = (bus.clone(), Counter::new());
            let counted = followed.clone();
            let others: Arc<Mutex<Vec<Subscription>>> = Arc::default();
            let kept = Arc::clone(&others);
            let handler = move |number: &u32| {
                let counted = counted.clone();
                let subscription = inner.subscription::<String>().name(format!("for {number}"));
                let subscription = subscription.handle(move |_| counted.add());
                let before = kept.lock().unwrap().pop();
                kept.lock().unwrap().push(subscription);
                drop(before);
                inner.publish(number.to_string());
                if *number > 0 {
                    inner.publish(number - 1);
                }
            };
            let builder = bus.subscription::<u32>();
            let _guard = if synchronous { builder.synchronous() } else { builder }.handle(handler);
            bus.publish(10_u32);
            bus.wait_idle();
            assert!(followed.get() >= 1, "at least the last subscription is there to stay");
            others.lock().unwrap().clear();
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 136b.
#[test]
fn a_worker_that_publishes_into_a_full_mailbox_makes_room_or_is_refused_and_never_waits() {
    on_grid(|pool| {
        let bus = EventBus::builder(&pool).mailbox_capacity(1).build();
        let (inner, handled) = (bus.clone(), Counter::new());
        let counted = handled.clone();
        let _sink = bus.subscribe(move |_: &u64| counted.add());
        let (refused, published) = (Counter::new(), Counter::new());
        let (no, yes) = (refused.clone(), published.clone());
        let _source = bus.subscribe(move |many: &u32| {
            for number in 0..u64::from(*many) {
                let receipt = inner.publish(number);
                yes.add();
                if receipt.is_finished() && matches!(receipt.wait().unwrap()[0].outcome, DeliveryOutcome::Refused) {
                    no.add();
                }
            }
        });
        bus.publish(200_u32);
        with_watchdog(|| bus.wait_idle());
        assert_eq!((published.get(), handled.get() + refused.get()), (200, 200));
        if pool.workers() == 1 {
            assert_eq!(refused.get(), 0, "the only worker makes all the room itself");
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 136b.
#[test]
fn a_handler_that_publishes_into_its_own_full_mailbox_is_refused() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, seen) = (bus.clone(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&seen);
        let builder = bus.subscription::<u32>().mailbox_capacity(2);
        let _guard = builder.handle(move |number| {
            if *number == 0 {
                let receipts: Vec<_> = (1..=4_u32).map(|number| inner.publish(number)).collect();
                noted.lock().unwrap().extend(receipts.iter().map(workcrew::events::Receipt::is_finished));
            }
        });
        bus.publish(0_u32);
        bus.wait_idle();
        assert_eq!(*seen.lock().unwrap(), [false, false, true, true]);
        assert_eq!(pool.metrics().tasks_refused, 2);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_full_mailbox_follows_its_overflow_policy() {
    for (policy, expected) in [
        (Overflow::DiscardOldest, ["handled", "discarded because the queue was full", "handled"]),
        (Overflow::DiscardNewest, ["handled", "handled", "discarded because the queue was full"]),
    ] {
        let pool = pool(1, 1);
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let inside = gate.clone();
        let _guard = bus.subscription::<u32>().mailbox_capacity(1).overflow(policy).handle(move |_| inside.pass());
        let first = bus.publish(0_u32);
        gate.wait_started(1);
        let others = [bus.publish(1_u32), bus.publish(2_u32)];
        gate.open();
        let all: Vec<_> = [outcomes(&first), outcomes(&others[0]), outcomes(&others[1])].concat();
        assert_eq!(all, expected, "{policy:?}");
        assert_counts_add_up(&pool);
    }
}

#[test]
fn the_end_of_a_subscription_releases_a_publisher_that_waits_for_room() {
    for by_shutdown in [false, true] {
        let pool = pool(1, 1);
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let inside = gate.clone();
        let guard = bus.subscription::<u32>().mailbox_capacity(1).handle(move |_| inside.pass());
        bus.publish(0_u32);
        gate.wait_started(1);
        bus.publish(1_u32);
        with_watchdog(|| {
            thread::scope(|threads| {
                let publisher = threads.spawn(|| bus.publish(2_u32));
                while pool.metrics().tasks_submitted < 3 {
                    thread::yield_now(); // it has come as far as the mailbox
                }
                assert!(!publisher.is_finished());
                if by_shutdown {
                    pool.shutdown_now();
                } else {
                    drop(guard);
                }
                // The delivery is cancelled with the pool; an ended subscription has none.
                assert_eq!(publisher.join().unwrap().handlers(), usize::from(by_shutdown));
            });
            gate.open();
            bus.wait_idle();
        });
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        assert_counts_add_up(&pool);
    }
}

#[test]
fn publishing_nested_too_deep_in_synchronous_handlers_is_refused_and_goes_on_elsewhere() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, refused, handled) = (bus.clone(), Counter::new(), Counter::new());
        let (counted, counts) = (refused.clone(), handled.clone());
        let _guard = bus.subscription::<u32>().synchronous().handle(move |number| {
            counts.add();
            if *number > 0 && outcomes(&inner.publish(number - 1)) == ["refused"] {
                counted.add();
            }
        });
        assert_eq!(outcomes(&bus.publish(40_u32)), ["handled"]);
        assert_eq!((refused.get(), handled.get()), (0, 41));
        assert_eq!(outcomes(&bus.publish(200_u32)), ["handled"]);
        assert_eq!((refused.get(), handled.get()), (1, 41 + 64));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_mailbox_full_of_events_that_wait_for_another_attempt_gives_up_the_new_one() {
    let pool = pool(1, 1);
    let bus = EventBus::new(&pool);
    let builder = bus.subscription::<u32>().concurrent(2).mailbox_capacity(1).overflow(Overflow::DiscardOldest);
    let guard = builder.retry(RetryPolicy::fixed(LONG)).handle(|_| Err::<(), _>("not now"));
    let first = bus.publish(0_u32);
    wait_until(|| pool.metrics().timers_pending == 1);
    assert_eq!(outcomes(&bus.publish(1_u32)), ["discarded because the queue was full"]);
    assert!(!first.is_finished());
    drop(guard);
    assert_eq!(outcomes(&first), ["failed after 1"]);
    assert_counts_add_up(&pool);
}
