//! The event bus: unsubscribing and publishing, handlers that are called once, the order of a
//! mailbox.

use super::{Count, assert_balanced, pool};
use crate::events::EventBus;
use crate::models::explore::{explore_scenario, join};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, Time, thread};

/// Starts a thread that publishes `events` events.
fn publisher(bus: &Arc<EventBus>, events: usize) -> thread::JoinHandle<()> {
    let bus = Arc::clone(bus);
    thread::spawn(move || {
        for event in 0..events {
            bus.publish(event);
        }
    })
}

#[test]
fn unsubscribe_and_publish() {
    explore_scenario("unsubscribe_and_publish", Time::Frozen, || {
        let pool = pool(2, 2);
        let bus = Arc::new(EventBus::new(&pool));
        let (ended, late) = (Count::default(), Count::default());
        let (look, count) = (ended.clone(), late.clone());
        let subscription = bus.subscribe(move |_: &usize| {
            if look.get() > 0 {
                count.add();
            }
        });
        let publishers = [publisher(&bus, 2), publisher(&bus, 1)];
        assert!(subscription.unsubscribe(), "outside of the pool `unsubscribe` waits for the handler");
        ended.add();
        publishers.into_iter().for_each(join);
        bus.wait_idle();
        assert!(!bus.has_subscribers::<usize>());
        pool.shutdown();
        assert_eq!(late.get(), 0, "a handler does not run after its subscription has ended");
        assert_balanced(&pool);
    });
}

#[test]
fn drop_of_a_subscription_and_publish() {
    explore_scenario("drop_of_a_subscription_and_publish", Time::Frozen, || {
        let pool = pool(1, 2);
        let bus = Arc::new(EventBus::new(&pool));
        let held = Count::default();
        let kept = held.clone();
        let subscription = bus.subscription::<usize>().concurrent(2).handle(move |_| kept.add());
        let publisher = publisher(&bus, 2);
        drop(subscription);
        join(publisher);
        bus.wait_idle();
        pool.shutdown();
        assert_eq!(Arc::strong_count(&held.0), 1, "the handler is freed");
        assert_balanced(&pool);
    });
}

#[test]
fn once_and_concurrent_publishers() {
    explore_scenario("once_and_concurrent_publishers", Time::Frozen, || {
        let pool = pool(2, 2);
        let bus = Arc::new(EventBus::new(&pool));
        let calls = Count::default();
        let subscriptions = [false, true].map(|ordered| {
            let (count, subscription) = (calls.clone(), bus.subscription::<usize>().once());
            let subscription = if ordered { subscription.ordered() } else { subscription.concurrent(2) };
            subscription.handle(move |_| count.add())
        });
        let publishers = [publisher(&bus, 1), publisher(&bus, 2)];
        publishers.into_iter().for_each(join);
        bus.wait_idle();
        assert_eq!(calls.get(), 2, "each handler is called once by concurrent publishers");
        assert!(!bus.has_subscribers::<usize>(), "each subscription ends by itself");
        drop(subscriptions);
        pool.shutdown();
        assert_balanced(&pool);
    });
}

#[test]
fn ordered_mailbox() {
    explore_scenario("ordered_mailbox", Time::Frozen, || {
        let pool = pool(2, 2);
        let bus = Arc::new(EventBus::new(&pool));
        let (seen, inside) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let list = Arc::clone(&seen);
        let subscription = bus.subscription().ordered().mailbox_capacity(1).handle(move |event: &usize| {
            let others = inside.fetch_add(1, Ordering::SeqCst);
            list.lock().push((*event, others));
            inside.fetch_sub(1, Ordering::SeqCst);
        });
        let publishers = [publisher(&bus, 3), publisher(&bus, 0)];
        publishers.into_iter().for_each(join);
        bus.wait_idle();
        assert_eq!(
            *seen.lock(),
            [(0, 0), (1, 0), (2, 0)],
            "events are delivered one at a time, in the order of publishing"
        );
        drop(subscription);
        pool.shutdown();
        assert_balanced(&pool);
    });
}

#[test]
fn receipt_and_handlers() {
    explore_scenario("receipt_and_handlers", Time::Frozen, || {
        let pool = pool(2, 2);
        let bus = Arc::new(EventBus::new(&pool));
        let calls = Count::default();
        let subscriptions = [(); 2].map(|()| {
            let count = calls.clone();
            bus.subscribe(move |_: &usize| count.add())
        });
        let other = publisher(&bus, 1);
        let receipt = bus.publish(7_usize);
        let _ = receipt.wait();
        assert!(calls.get() >= 2, "all handlers have run when the wait for the receipt ends");
        join(other);
        bus.wait_idle();
        assert_eq!(calls.get(), 4);
        drop(subscriptions);
        pool.shutdown();
        assert_balanced(&pool);
    });
}
