//! Hooks of a bus that publish, and hooks that call each other through a bus.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::common::{Counter, assert_counts_add_up};
use crate::{DEPTH, LINKS, STACK, in_processes, on_small_stack, on_small_stacks};
use workcrew::events::{EventBus, EventBusBuilder, Receipt};
use workcrew::retry::RetryPolicy;
use workcrew::{WorkerPool, WorkerPoolBuilder};

/// An event without subscribers.
struct Lost;
/// An event whose handler fails.
struct Fails;

/// A bus that its own hooks can reach.
fn bus(builder: EventBusBuilder, slot: &Arc<OnceLock<EventBus>>) -> EventBus {
    let bus = builder.build();
    assert!(slot.set(bus.clone()).is_ok());
    bus
}

/// Fault 170.
#[test]
fn hooks_of_a_bus_that_publish_are_called_for_sixteen_generations_and_then_skipped_and_counted() {
    in_processes(&[
        "bus::child_publishes_unhandled_events",
        "bus::child_publishes_dead_letters",
        "bus::child_goes_from_hook_to_hook",
        "bus::child_publishes_in_the_destructor_of_an_event",
        "bus::child_submits_and_subscribes_in_retry_if_and_destructors",
    ]);
}

#[test]
#[ignore = "run in a process of its own"]
fn child_publishes_unhandled_events() {
    on_small_stacks(|builder| {
        let pool = builder.build().unwrap();
        let (slot, called): (Arc<OnceLock<EventBus>>, _) = (Arc::default(), Counter::new());
        let (again, counted) = (Arc::clone(&slot), called.clone());
        let builder = EventBus::builder(&pool).on_unhandled(move |_| {
            counted.add();
            let receipt: Receipt = again.get().unwrap().publish(Lost);
            assert_eq!(receipt.handlers(), 0);
        });
        let bus = bus(builder, &slot);
        bus.publish(Lost);
        assert_eq!((called.get(), pool.metrics().hooks_skipped), (DEPTH, 1));
        bus.publish(Lost);
        assert_eq!((called.get(), pool.metrics().hooks_skipped), (2 * DEPTH, 2), "each event has its own count");
        let inner = bus.clone();
        let handler = bus.subscribe(move |_: &u32| drop(inner.publish(Lost)));
        bus.publish(1_u32);
        bus.wait_idle();
        assert_eq!((called.get(), pool.metrics().hooks_skipped), (3 * DEPTH, 3), "in a handler as well");
        drop(handler);
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_publishes_dead_letters() {
    on_small_stacks(|builder| {
        for synchronous in [false, true] {
            let pool = builder_like(&builder);
            let (slot, letters): (Arc<OnceLock<EventBus>>, _) = (Arc::default(), Counter::new());
            let (again, counted) = (Arc::clone(&slot), letters.clone());
            let builder = EventBus::builder(&pool).on_dead_letter(move |_| {
                counted.add();
                again.get().unwrap().publish(Fails);
            });
            let bus = bus(builder, &slot);
            let (tries, tried) = (Counter::new(), Counter::new());
            let (first, all) = (tries.clone(), tried.clone());
            let fails = move |_: &Fails| {
                all.add();
                first.add();
                Err("no")
            };
            let builder = bus.subscription::<Fails>();
            let builder = if synchronous { builder.synchronous() } else { builder };
            let _guard = builder.retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(2)).handle(fails);
            bus.publish(Fails);
            bus.wait_idle();
            assert_eq!((letters.get(), pool.metrics().hooks_skipped), (DEPTH, 1), "synchronous: {synchronous}");
            assert_eq!(tries.get(), 2 * (DEPTH + 1), "each generation has its attempts");
            assert_counts_add_up(&pool);
        }
    });
}

/// A pool like the one that a builder describes, which can be built once only.
fn builder_like(builder: &WorkerPoolBuilder) -> WorkerPool {
    let wide = format!("{builder:?}").contains("workers: Some(8)");
    WorkerPool::builder().workers(if wide { 8 } else { 1 }).queue_capacity(1).stack_size(STACK).build().unwrap()
}

#[test]
#[ignore = "run in a process of its own"]
fn child_goes_from_hook_to_hook() {
    on_small_stacks(|builder| {
        let pool = builder.build().unwrap();
        let (slot, hooks): (Arc<OnceLock<EventBus>>, _) = (Arc::default(), Counter::new());
        let (again, counted) = (Arc::clone(&slot), hooks.clone());
        let (other, counts) = (Arc::clone(&slot), hooks.clone());
        let builder = EventBus::builder(&pool)
            .on_unhandled(move |_| {
                counted.add();
                again.get().unwrap().publish(Fails);
            })
            .on_dead_letter(move |_| {
                counts.add();
                other.get().unwrap().publish(Lost);
            });
        let bus = bus(builder, &slot);
        let _guard = bus.subscribe(|_: &Fails| Err::<(), _>("no"));
        bus.publish(Lost);
        bus.wait_idle();
        assert_eq!((hooks.get(), pool.metrics().hooks_skipped), (DEPTH, 1));
    });
}

/// Publishes the rest of the chain when dropped.
struct Chain(OnceLock<(EventBus, usize)>);

impl Drop for Chain {
    fn drop(&mut self) {
        if let Some((bus, left)) = self.0.take()
            && left > 0
        {
            bus.publish(Self(OnceLock::from((bus.clone(), left - 1))));
        }
    }
}

#[test]
#[ignore = "run in a process of its own"]
fn child_publishes_in_the_destructor_of_an_event() {
    on_small_stack(|| {
        let pool = WorkerPool::builder().workers(1).stack_size(STACK).build().unwrap();
        let bus = EventBus::new(&pool);
        bus.publish(Chain(OnceLock::from((bus.clone(), LINKS)))); // unhandled
        let handled = Counter::new();
        for synchronous in [true, false] {
            let counted = handled.clone();
            let builder = bus.subscription::<Chain>();
            let builder = if synchronous { builder.synchronous() } else { builder };
            let guard = builder.handle(move |_| counted.add());
            bus.publish(Chain(OnceLock::from((bus.clone(), LINKS / 10))));
            bus.wait_idle();
            pool.wait_idle();
            drop(guard);
        }
        assert_eq!(handled.get(), 2 * (LINKS / 10 + 1));
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_and_subscribes_in_retry_if_and_destructors() {
    /// Subscribes and ends a subscription when dropped.
    struct Subscribes(EventBus);
    impl Drop for Subscribes {
        fn drop(&mut self) {
            drop(self.0.subscribe(|_: &u32| ()));
            self.0.publish(1_u32);
        }
    }
    on_small_stacks(|builder| {
        let pool = builder.build().unwrap();
        let bus = EventBus::new(&pool);
        let (inner, ran) = (pool.downgrade(), Counter::new());
        let counted = ran.clone();
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3).retry_if(move |_| {
            let counted = counted.clone();
            inner.upgrade().unwrap().execute(move || counted.add()).unwrap();
            true
        });
        let guard = bus.subscription::<Subscribes>().retry(policy).handle(|_| Err::<(), _>("no"));
        (0..10).for_each(|_| drop(bus.publish(Subscribes(bus.clone()))));
        bus.wait_idle();
        pool.wait_idle();
        assert!(ran.get() >= 20, "{}", ran.get());
        drop(guard);
        assert_counts_add_up(&pool);
    });
}
