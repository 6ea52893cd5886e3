//! The end of the pool, the bus or a subscription, with events in flight.

use std::thread;
use std::time::Duration;

use crate::common::{
    BlockedWorkers, Counter, DropCounter, LIMIT, Mutex, assert_counts_add_up, in_threads, on_grid, pool, with_watchdog,
};
use crate::{LONG, bus_with_letters, outcomes, wait_until};
use workcrew::Overflow;
use workcrew::events::EventBus;
use workcrew::retry::RetryPolicy;

#[test]
fn a_shutdown_drains_published_events_and_refuses_later_ones() {
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let handled = Counter::new();
        let counted = handled.clone();
        let _guards = (
            bus.subscribe(move |_: &u32| counted.add()),
            bus.subscription::<u32>().retry(RetryPolicy::fixed(LONG)).handle(|_| Err::<(), _>("busy")),
        );
        let wedge = BlockedWorkers::new(&pool);
        let receipts: Vec<_> = (0..10_u32).map(|number| bus.publish(number)).collect();
        pool.close();
        let late = bus.publish(99_u32);
        assert_eq!(outcomes(&late), ["cancelled because the pool was shut down"; 2]);
        wedge.open();
        pool.shutdown();
        // What has failed once is not tried again: it is a dead letter, and what it held up is tried.
        for receipt in &receipts {
            assert_eq!(outcomes(receipt), ["handled", "failed after 1"]);
        }
        assert_eq!((handled.get(), letters.lock().unwrap().len()), (10, 10));
        assert!(bus.wait_idle_timeout(Duration::ZERO));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_shutdown_wakes_a_worker_that_waits_behind_a_delay() {
    with_watchdog(|| {
        for round in 0..50_u32 {
            let pool = pool(1, 4);
            let bus = EventBus::new(&pool);
            let fails_once = |number: &u32| if *number == 1 { Err("busy") } else { Ok(()) };
            let _guards = (
                bus.subscription().name("ordered").retry(RetryPolicy::fixed(LONG)).handle(fails_once),
                // What it does not get to keeps the first event from ending, which would wake the worker, too.
                bus.subscription::<u32>().name("other").topic("both").handle(|_| ()),
            );
            let inner = bus.clone();
            let waits = pool.spawn(move || {
                inner.publish_to("both", 1_u32);
                let behind = inner.publish(2_u32);
                outcomes(&behind) // the first fails, and the second cannot be taken up before its delay is over
            });
            wait_until(|| pool.metrics().timers_pending == 1);
            (0..round).for_each(|_| thread::yield_now());
            pool.shutdown();
            assert_eq!(waits.unwrap().join().unwrap(), ["handled"]);
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn a_shutdown_that_cancels_completes_receipts_and_leaves_nothing_pending() {
    on_grid(|pool| {
        let (bus, _letters) = bus_with_letters(&pool);
        let _guard = bus.subscribe(|_: &u32| ());
        let wedge = BlockedWorkers::new(&pool);
        let receipts: Vec<_> = (0..10_u32).map(|number| bus.publish(number)).collect();
        let report = pool.shutdown_now();
        assert_eq!(report.tasks_cancelled, 10);
        let expected = ["cancelled because the pool was shut down"];
        assert!(receipts.iter().all(|receipt| outcomes(receipt) == expected));
        assert_eq!(outcomes(&bus.publish(11_u32)), expected);
        wedge.open();
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        bus.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn published_events_are_delivered_after_the_bus_and_its_guards_are_dropped() {
    let pool = pool(1, 1);
    let wedge = BlockedWorkers::new(&pool);
    let (handled, dropped) = (Counter::new(), Counter::new());
    {
        let bus = EventBus::new(&pool);
        let (counted, held) = (handled.clone(), DropCounter(dropped.clone()));
        bus.subscribe(move |_: &DropCounter| {
            let _ = &held;
            counted.add();
        })
        .detach();
        bus.publish(DropCounter(dropped.clone()));
        bus.publish(DropCounter(dropped.clone()));
    }
    assert_eq!((handled.get(), dropped.get()), (0, 0));
    wedge.open();
    pool.shutdown();
    assert_eq!((handled.get(), dropped.get()), (2, 3)); // two events and the handler
}

#[test]
fn concurrent_publishing_unsubscribing_and_shutdown_lose_no_event() {
    // Every delivery of a receipt has one outcome, and the metrics agree with the receipts.
    with_watchdog(|| {
        for round in 0..60_u32 {
            let pool = pool(2, 2);
            let (bus, letters) = bus_with_letters(&pool);
            let starts = Counter::new();
            let policy = RetryPolicy::fixed(Duration::from_micros(u64::from(round % 7) * 20)).max_attempts(3);
            let subscribe = |mode: usize| {
                let starts = starts.clone();
                let builder = bus.subscription::<u32>().mailbox_capacity(4).retry(policy.clone());
                let builder = match mode {
                    0 => builder,
                    1 => builder.concurrent(2),
                    2 => builder.overflow(Overflow::DiscardOldest),
                    _ => builder.synchronous(),
                };
                builder.handle(move |number| {
                    starts.add();
                    if number % 3 == 0 { Err("divisible") } else { Ok(()) }
                })
            };
            let mut guards: Vec<_> = (0..8).map(|mode| subscribe(mode % 4)).collect();
            let receipts = Mutex::new(Vec::new());
            in_threads(|threads| {
                for publisher in 0..3_u32 {
                    let (bus, receipts) = (&bus, &receipts);
                    threads.spawn(move || {
                        for number in 0..30 {
                            let receipt = bus.publish(publisher * 100 + number);
                            receipts.lock().unwrap().push(receipt);
                        }
                    });
                }
                threads.spawn(move || {
                    while let Some(guard) = guards.pop() {
                        (0..round).for_each(|_| thread::yield_now());
                        drop(guard);
                    }
                });
                if round % 3 == 0 {
                    threads.spawn(|| {
                        (0..round * 10).for_each(|_| thread::yield_now());
                        pool.shutdown_now();
                    });
                }
            });
            bus.wait_idle();
            assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
            let all = receipts.into_inner().unwrap();
            let told: Vec<String> = all.iter().flat_map(outcomes).collect();
            assert_eq!(told.len(), all.iter().map(workcrew::events::Receipt::handlers).sum::<usize>());
            let count = |word: &str| told.iter().filter(|outcome| outcome.starts_with(word)).count();
            let metrics = pool.metrics();
            assert_eq!(count("handled"), metrics.tasks_succeeded as usize);
            assert_eq!(count("failed"), letters.lock().unwrap().len());
            assert_eq!((metrics.tasks_queued, metrics.tasks_running, metrics.timers_pending), (0, 0, 0));
            assert_counts_add_up(&pool);
        }
    });
}
