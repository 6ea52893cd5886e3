//! The metrics of a bus and of its subscriptions.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::common::{Gate, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog};
use crate::wait_until;
use workcrew::Overflow;
use workcrew::events::{DeliveryCounts, DeliveryOutcome, EventBus, Receipt, SubscriptionMetrics};
use workcrew::retry::RetryPolicy;

fn twice() -> RetryPolicy<workcrew::events::BoxError> {
    RetryPolicy::fixed(Duration::ZERO).max_attempts(2)
}

/// What the receipts report, by subscription: handled, failed, discarded, cancelled and refused.
fn reported(receipts: &[Receipt]) -> BTreeMap<String, [u64; 5]> {
    let mut reported: BTreeMap<String, [u64; 5]> = BTreeMap::new();
    for delivery in receipts.iter().flat_map(|receipt| receipt.wait().unwrap()) {
        let position = match delivery.outcome {
            DeliveryOutcome::Handled => 0,
            DeliveryOutcome::Failed(_) => 1,
            DeliveryOutcome::Cancelled(workcrew::CancelReason::Discarded) => 2,
            DeliveryOutcome::Cancelled(_) => 3,
            DeliveryOutcome::Refused => 4,
            other => unreachable!("{other:?}"),
        };
        reported.entry(delivery.subscription.to_string()).or_default()[position] += 1;
    }
    reported
}

fn ended(counts: &DeliveryCounts) -> [u64; 5] {
    [counts.handled, counts.failed, counts.discarded, counts.cancelled, counts.refused]
}

fn by_name(metrics: &[SubscriptionMetrics]) -> BTreeMap<String, [u64; 5]> {
    let with_name = |metrics: &SubscriptionMetrics| (metrics.name.to_string(), ended(&metrics.deliveries));
    metrics.iter().map(with_name).filter(|(_, ended)| ended.iter().sum::<u64>() > 0).collect()
}

/// Fault 580.
#[test]
fn the_counts_of_a_bus_are_those_of_its_receipts() {
    quiet_panics();
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let new = |name: &'static str| bus.subscription::<u32>().name(name).mailbox_capacity(200);
        let odd = |number: &u32| if number.is_multiple_of(2) { Ok(()) } else { Err("odd") };
        let guards = [
            new("ordered").handle(odd),
            new("keyed").ordered_by(|number| number % 3).retry(twice()).handle(odd),
            new("concurrent").concurrent(3).retry(twice()).handle(|number| assert!(*number < 50, "as planned")),
            new("synchronous").synchronous().handle(odd),
            new("once").once().handle(|_| ()),
            new("batches").retry(twice()).batch(4, Duration::ZERO).handle(|numbers| match *numbers[0] < 30 {
                true => Ok(()),
                false => Err("too many"),
            }),
            new("small").mailbox_capacity(1).overflow(Overflow::DiscardOldest).handle(|_| ()),
        ];
        let receipts: Vec<_> = (0..100_u32).map(|number| bus.publish(number)).collect();
        let expected = reported(&receipts);
        bus.wait_idle();
        let metrics = bus.metrics();
        let mut each = by_name(&bus.subscription_metrics());
        each.extend([("once".to_owned(), [1, 0, 0, 0, 0])]); // it has ended, so it may be gone
        assert_eq!(each, expected);
        let total = |position: usize| expected.values().map(|ended| ended[position]).sum::<u64>();
        assert_eq!(ended(&metrics.deliveries).to_vec(), (0..5).map(total).collect::<Vec<_>>());
        assert_eq!((metrics.events_published, metrics.events_pending, metrics.mailbox_len), (100, 0, 0));

        let counts = |name: &str| guards.iter().find(|guard| guard.name() == name).unwrap().metrics().deliveries;
        let attempts = |name: &str| (counts(name).attempts_failed, counts(name).retries);
        assert_eq!(attempts("ordered"), (50, 0));
        assert_eq!(attempts("keyed"), (100, 50));
        assert_eq!(attempts("concurrent"), (100, 50));
        let batches = counts("batches");
        assert_eq!(batches.attempts_failed, 2 * batches.failed, "each was tried twice");
        assert_eq!(batches.retries, batches.failed);
        drop(guards);
        wait_until(|| bus.metrics().subscriptions == 0);
        assert_eq!(bus.metrics().deliveries, metrics.deliveries, "what has ended stays counted");
        assert!(bus.subscription_metrics().is_empty());
        assert_counts_add_up(&pool);
    });
}

/// Fault 580.
#[test]
fn refused_unhandled_and_cancelled_events_are_counted_where_they_belong() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let bus = EventBus::builder(&pool).mailbox_capacity(1).build();
        let gate = Gate::new();
        let inside = gate.clone();
        let slow = bus.subscription().name("slow").handle(move |_: &u32| inside.pass());
        let wide = bus.subscription().name("wide").mailbox_capacity(10).handle(|_: &u32| ());
        bus.publish("no subscription");
        bus.publish(1_u32);
        gate.wait_started(1);
        bus.publish(2_u32);
        assert_eq!(bus.try_publish(3_u32).unwrap_err().subscription(), "slow");
        let full = bus.metrics();
        assert_eq!((full.events_published, full.events_unhandled, full.events_refused), (3, 1, 1));
        assert_eq!((slow.metrics().deliveries.refused, wide.metrics().deliveries.refused), (1, 0));
        let mut waiting = Box::pin(bus.publish_async(4_u32));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(Future::poll(waiting.as_mut(), &mut context).is_pending());
        assert_eq!((bus.metrics().events_published, bus.metrics().events_pending), (4, 3));
        drop(waiting); // the full mailbox refuses the event
        assert_eq!((slow.metrics().deliveries.refused, wide.metrics().deliveries.refused), (2, 0));
        gate.open();
        bus.wait_idle();
        pool.shutdown();
        assert_eq!(bus.publish(5_u32).handlers(), 2);
        for (subscription, handled) in [(slow, 2), (wide, 3)] {
            let counts = subscription.metrics().deliveries;
            assert_eq!((counts.handled, counts.cancelled), (handled, 1), "{counts}");
        }
    });
}

/// Fault 581.
#[test]
fn the_metrics_of_a_stuck_bus_name_the_full_mailbox() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let bus = EventBus::builder(&pool).mailbox_capacity(2).build();
        let gate = Gate::new();
        let inside = gate.clone();
        let slow = bus.subscription().name("slow").topic("mail").handle(move |_: &u32| inside.pass());
        let fast = bus.subscription().name("fast").handle(|_: &u32| ());
        bus.publish_to("mail", 0_u32);
        gate.wait_started(1);
        bus.publish_to("mail", 1_u32);
        bus.publish_to("mail", 2_u32);
        let (metrics, of_slow) = thread::scope(|threads| {
            threads.spawn(|| bus.publish_to("mail", 3_u32)); // waits for room
            wait_until(|| bus.metrics().events_pending == 4 && fast.metrics().deliveries.handled == 4);
            let read = (bus.metrics(), slow.metrics());
            gate.open();
            read
        });
        let deepest = metrics.deepest_mailbox.clone().unwrap();
        assert_eq!(deepest, of_slow);
        assert_eq!((&*deepest.name, deepest.topic.as_deref()), ("slow", Some("mail")));
        assert_eq!((deepest.mailbox_len, deepest.mailbox_capacity, deepest.handlers_running), (2, 2, 1));
        assert_eq!((metrics.events_published, metrics.events_pending, metrics.mailbox_len), (4, 4, 2));
        let text = metrics.to_string();
        assert!(text.contains("4 published") && text.ends_with("deepest mailbox: slow"), "{text}");
        bus.wait_idle();
        assert_eq!(bus.metrics().deepest_mailbox, None);
    });
}

/// Fault 580.
#[test]
fn delayed_deliveries_are_counted_in_their_mailbox() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let bus = EventBus::new(&pool);
        let policy = RetryPolicy::fixed(crate::LONG).max_attempts(2);
        let delayed = bus.subscription::<u32>().concurrent(1).retry(policy).handle(|_| Err::<(), _>("not yet"));
        let receipts = [bus.publish(1_u32), bus.publish(2_u32)];
        wait_until(|| delayed.metrics().deliveries_delayed == 2);
        let metrics = bus.metrics();
        assert_eq!((metrics.mailbox_len, metrics.deliveries_delayed, metrics.deliveries.attempts_failed), (2, 2, 2));
        assert_eq!((metrics.deliveries.failed, metrics.deliveries.retries), (0, 0));
        drop(delayed);
        assert_eq!(reported(&receipts).into_values().collect::<Vec<_>>(), [[0, 2, 0, 0, 0]]);
        assert_eq!(ended(&bus.metrics().deliveries), [0, 2, 0, 0, 0], "each is a dead letter");
    });
}
