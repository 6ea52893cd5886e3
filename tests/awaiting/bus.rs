//! Receipts and idle buses that are awaited.

use std::mem;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use pollster::block_on;
use std::future::IntoFuture;
use workcrew::events::{DeliveryOutcome, EventBus, Receipt};
use workcrew::retry::RetryPolicy;

use crate::alarm::{Alarm, poll};
use crate::common::{Counter, Gate, LIMIT, Mutex, on_grid, quiet_panics, with_watchdog};

/// Fault 330.
#[test]
fn a_receipt_that_is_awaited_returns_what_wait_returns() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let _even = bus.subscribe(|n: &u32| if n.is_multiple_of(2) { Ok(()) } else { Err("odd") });
        let _any = bus.subscribe(|_: &u32| ());
        let receipt = bus.publish(7_u32);
        for _ in 0..2 {
            let outcomes = block_on((&receipt).into_future()).unwrap();
            assert!(matches!(outcomes[0].outcome, DeliveryOutcome::Failed(_)));
            assert!(matches!(outcomes[1].outcome, DeliveryOutcome::Handled));
        }
        assert_eq!(block_on(receipt.into_future()).unwrap().len(), 2);
        assert!(block_on(bus.publish("no handler").into_future()).unwrap().is_empty());
    });
}

/// Fault 321.
#[test]
fn a_forgotten_future_keeps_no_delivery_from_other_futures_and_threads() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, gate) = (EventBus::new(&pool), Gate::new());
        let inside = gate.clone();
        let _slow = bus.subscribe(move |_: &u32| inside.pass());
        let receipt = bus.publish(1_u32);
        let [mut leaked, mut panicking, mut dropped] = [(); 3].map(|()| (&receipt).into_future());
        let gone = Alarm::new();
        assert!(poll(&mut leaked, &Alarm::new()).is_pending());
        assert!(poll(&mut panicking, &Alarm::that(|| panic!("a waker"))).is_pending());
        assert!(poll(&mut dropped, &gone).is_pending());
        mem::forget(leaked);
        drop(dropped);
        assert_eq!(Arc::strong_count(&gone), 1);
        let mut idle = bus.wait_idle_async();
        let (bell, rings) = Alarm::with_bell();
        assert!(poll(&mut idle, &bell).is_pending());
        thread::scope(|scope| {
            let awaits = scope.spawn(|| block_on((&receipt).into_future()).unwrap().len());
            let waits = scope.spawn(|| receipt.wait().unwrap().len());
            gate.open();
            assert_eq!((awaits.join().unwrap(), waits.join().unwrap()), (1, 1));
        });
        rings.recv_timeout(LIMIT).unwrap();
        block_on(idle);
        assert_eq!(gone.rung.get(), 0);
    });
}

/// Fault 330.
#[test]
fn a_handler_may_publish_and_await_on_a_pool_of_one_worker() {
    on_grid(|pool| {
        let (bus, tries) = (EventBus::new(&pool), Counter::new());
        let (inner, counted) = (bus.clone(), tries.clone());
        // The delay ends while the only worker is in the handler that awaits.
        let policy = RetryPolicy::fixed(Duration::from_micros(300)).max_attempts(3);
        let _sink = bus.subscription::<u64>().retry(policy).handle(move |_| {
            counted.add();
            if counted.get().is_multiple_of(3) { Ok(()) } else { Err("once more") }
        });
        let _source = bus.subscribe(move |number: &u32| {
            let deliveries = block_on(inner.publish(u64::from(*number)).into_future()).unwrap();
            assert!(matches!(deliveries[0].outcome, DeliveryOutcome::Handled));
        });
        let receipts: Vec<_> = (0..5_u32).map(|number| bus.publish(number)).collect();
        for receipt in receipts {
            assert!(matches!(block_on(receipt.into_future()).unwrap()[0].outcome, DeliveryOutcome::Handled));
        }
        assert_eq!(tries.get(), 15);
    });
}

/// Fault 330.
#[test]
fn a_handler_that_awaits_its_own_event_is_told_so() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let ((give, own), (tell, told)) = (mpsc::channel::<Receipt>(), mpsc::channel());
        let own = Mutex::new(own);
        let _guard = bus.subscribe(move |_: &u32| {
            let receipt = own.lock().unwrap().recv().unwrap();
            tell.send(block_on(receipt.into_future()).is_err()).unwrap();
        });
        give.send(bus.publish(1_u32)).unwrap();
        assert!(told.recv_timeout(LIMIT).unwrap());
    });
}

/// Fault 330.
#[test]
fn a_synchronous_handler_that_awaits_the_event_around_it_is_told_so() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let ((give, own), (tell, told)) = (mpsc::channel::<Receipt>(), mpsc::channel());
        let (own, inner) = (Mutex::new(own), bus.clone());
        let _nested = bus.subscription::<u8>().synchronous().handle(move |_| {
            let receipt = own.lock().unwrap().recv().unwrap();
            tell.send(block_on(receipt.into_future()).is_err()).unwrap();
        });
        let _outer = bus.subscribe(move |_: &u32| drop(inner.publish(1_u8)));
        give.send(bus.publish(1_u32)).unwrap();
        assert!(told.recv_timeout(LIMIT).unwrap());
    });
}

/// Fault 330.
#[test]
fn a_delivery_that_was_left_behind_is_not_awaited() {
    on_grid(|pool| {
        let (bus, gate) = (EventBus::new(&pool), Gate::new());
        let inside = gate.clone();
        let _stuck = bus.subscribe(move |_: &u32| inside.pass());
        let receipt = bus.publish(1_u32);
        gate.wait_started(1);
        let (alarm, rings) = Alarm::with_bell();
        let (mut awaited, mut idle) = ((&receipt).into_future(), bus.wait_idle_async());
        assert!(poll(&mut awaited, &alarm).is_pending() && poll(&mut idle, &alarm).is_pending());
        assert!(!pool.shutdown_timeout(Duration::from_millis(1)).drained);
        rings.recv_timeout(LIMIT).unwrap();
        rings.recv_timeout(LIMIT).unwrap();
        assert!(matches!(block_on(awaited).unwrap()[0].outcome, DeliveryOutcome::LeftBehind));
        block_on(idle);
        gate.open();
    });
}

/// Fault 330.
#[test]
fn an_idle_bus_can_be_awaited_but_not_by_a_handler() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, handled) = (EventBus::new(&pool), Counter::new());
        block_on(bus.wait_idle_async());
        let (inner, counted) = (bus.clone(), handled.clone());
        let _handler = bus.subscribe(move |awaits: &bool| {
            if *awaits {
                block_on(inner.wait_idle_async());
            }
            counted.add();
        });
        (0..20).for_each(|_| drop(bus.publish(false)));
        block_on(bus.wait_idle_async());
        assert_eq!(handled.get(), 20);
        let refused = bus.publish(true).wait().unwrap();
        assert!(matches!(refused[0].outcome, DeliveryOutcome::Failed(_)));
    });
}

/// Fault 330.
#[test]
fn a_task_of_another_pool_that_awaits_a_receipt_is_helped_by_the_worker_that_joins_it() {
    with_watchdog(|| {
        let (pool, other) = (crate::common::pool(1, 8), crate::common::pool(1, 8));
        let bus = EventBus::new(&pool);
        let handled = Counter::new();
        let counted = handled.clone();
        let _handler = bus.subscribe(move |_: &u32| counted.add());
        let task = pool.spawn(move || {
            let awaits = other.spawn(move || block_on(bus.publish(1_u32).into_future()).unwrap().len());
            awaits.unwrap().join().unwrap()
        });
        assert_eq!(task.unwrap().join().unwrap(), 1);
        assert_eq!(handled.get(), 1);
    });
}
