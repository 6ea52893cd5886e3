//! The bus: a slow subscription holds up no other, and events come in the order that is promised.
#![cfg(feature = "events")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Counter, Gate, Mutex, assert_counts_add_up, in_threads, on_grid, pool, with_watchdog};
use workcrew::events::{DeliveryOutcome, EventBus, Receipt, Subscription};
use workcrew::retry::RetryPolicy;
use workcrew::{Overflow, WorkerPool};

/// How many deliveries a subscription makes before it gives way to jobs that wait.
const TURN: usize = 16;

type Log = Arc<Mutex<Vec<u32>>>;

/// A subscription with a mailbox of one place whose handler waits at the gate.
fn stuck(bus: &EventBus, gate: &Gate) -> Subscription {
    let inside = gate.clone();
    bus.subscription::<u32>().mailbox_capacity(1).handle(move |_| inside.pass())
}

/// A subscription that keeps its events, and those.
fn keeps(bus: &EventBus) -> (Subscription, Log) {
    let log = Log::default();
    let kept = Arc::clone(&log);
    (bus.subscribe(move |number: &u32| kept.lock().unwrap().push(*number)), log)
}

fn wait_until(done: impl Fn() -> bool) {
    with_watchdog(|| {
        while !done() {
            thread::yield_now();
        }
    });
}

fn handled(receipt: &Receipt) -> usize {
    let deliveries = receipt.wait().unwrap();
    deliveries.iter().filter(|delivery| matches!(delivery.outcome, DeliveryOutcome::Handled)).count()
}

/// Publishes until the publisher is held up by the stuck subscriptions: one event is with each handler, one lies in
/// each mailbox, and the third is held.
fn publish_until_held(pool: &WorkerPool, bus: &EventBus, gate: &Gate, stuck: usize) -> thread::JoinHandle<Receipt> {
    bus.publish(0_u32);
    gate.wait_started(stuck.min(pool.workers()));
    bus.publish(1_u32);
    let before = pool.metrics().tasks_submitted;
    let publisher = bus.clone();
    let publisher = thread::spawn(move || publisher.publish(2_u32));
    wait_until(|| pool.metrics().tasks_submitted > before);
    publisher
}

/// Fault 176.
#[test]
fn a_full_mailbox_keeps_an_event_from_no_other_subscription_whatever_the_order_of_subscribing() {
    for capacity in [1, 64] {
        let pool = pool(2, capacity);
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let (first, before) = keeps(&bus);
        let slow = stuck(&bus, &gate);
        let (last, after) = keeps(&bus);
        let called = Log::default();
        let kept = Arc::clone(&called);
        let here = bus.subscription::<u32>().synchronous().handle(move |number| kept.lock().unwrap().push(*number));
        let publisher = publish_until_held(&pool, &bus, &gate, 1);
        for log in [&before, &after, &called] {
            wait_until(|| log.lock().unwrap().len() == 3);
        }
        assert!(!publisher.is_finished(), "the policy of the slow one is to hold the publisher up");
        gate.open();
        let receipt = with_watchdog(|| publisher.join().unwrap());
        assert_eq!((receipt.handlers(), handled(&receipt)), (4, 4));
        bus.wait_idle();
        assert_eq!(gate.started(), 3, "none was lost and none came twice");
        for log in [before, after, called] {
            assert_eq!(*log.lock().unwrap(), [0, 1, 2]);
        }
        drop((first, slow, last, here));
        assert_counts_add_up(&pool);
    }
}

/// Fault 176.
#[test]
fn a_publisher_gives_each_of_several_full_mailboxes_the_event_as_soon_as_it_has_room() {
    for first_opened in 0..3 {
        let pool = pool(3, 1);
        let bus = EventBus::new(&pool);
        let gates = [Gate::new(), Gate::new(), Gate::new()];
        let logs: [Log; 3] = Default::default();
        let guards: Vec<_> = gates
            .iter()
            .zip(&logs)
            .map(|(gate, log)| {
                let (inside, kept) = (gate.clone(), Arc::clone(log));
                bus.subscription::<u32>().mailbox_capacity(1).handle(move |number| {
                    inside.pass();
                    kept.lock().unwrap().push(*number);
                })
            })
            .collect();
        bus.publish(0_u32);
        gates.iter().for_each(|gate| gate.wait_started(1));
        bus.publish(1_u32);
        let publisher = bus.clone();
        let publisher = thread::spawn(move || publisher.publish(2_u32));
        wait_until(|| pool.metrics().tasks_submitted == 9);
        for opened in (0..3).map(|place| (first_opened + place) % 3) {
            assert!(!publisher.is_finished());
            gates[opened].open();
            wait_until(|| logs[opened].lock().unwrap().len() == 3);
        }
        let receipt = with_watchdog(|| publisher.join().unwrap());
        assert_eq!(handled(&receipt), 3);
        bus.wait_idle();
        assert!(logs.iter().all(|log| *log.lock().unwrap() == [0, 1, 2]));
        drop(guards);
        assert_counts_add_up(&pool);
    }
}

/// Fault 176.
#[test]
fn the_end_of_the_subscriptions_or_the_pool_releases_a_publisher_that_waits_for_several_mailboxes() {
    for by_shutdown in [false, true] {
        let pool = pool(2, 1);
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let guards = [stuck(&bus, &gate), stuck(&bus, &gate)];
        let publisher = publish_until_held(&pool, &bus, &gate, 2);
        wait_until(|| pool.metrics().tasks_submitted == 6);
        assert!(!publisher.is_finished());
        let [first, second] = guards;
        if by_shutdown {
            with_watchdog(|| pool.shutdown_now());
        } else {
            drop(first);
            assert!(!publisher.is_finished(), "the other one is full still");
            drop(second);
        }
        let receipt = with_watchdog(|| publisher.join().unwrap());
        // The deliveries are cancelled with the pool; an ended subscription has none.
        let cancelled = if by_shutdown { 2 } else { 0 };
        assert_eq!((receipt.handlers(), receipt.wait().unwrap().len()), (cancelled, cancelled));
        gate.open();
        bus.wait_idle();
        pool.shutdown();
        assert_counts_add_up(&pool);
    }
}

/// Fault 176.
#[test]
fn many_publishers_and_full_mailboxes_lose_nothing_and_keep_the_order_of_each_publisher() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        type Log = Arc<Mutex<Vec<(usize, usize)>>>;
        let logs: [Log; 3] = Default::default();
        let guards: Vec<_> = logs
            .iter()
            .map(|log| {
                let kept = Arc::clone(log);
                let builder = bus.subscription::<(usize, usize)>().mailbox_capacity(1);
                builder.handle(move |event| kept.lock().unwrap().push(*event))
            })
            .collect();
        in_threads(|threads| {
            for publisher in 0..4_usize {
                let bus = &bus;
                threads.spawn(move || (0..100_usize).for_each(|number| drop(bus.publish((publisher, number)))));
            }
        });
        bus.wait_idle();
        for log in &logs {
            let log = log.lock().unwrap();
            for publisher in 0..4 {
                let numbers = log.iter().filter(|(from, _)| *from == publisher).map(|(_, number)| *number);
                assert!(numbers.eq(0..100), "each event once, in the order of publishing");
            }
        }
        drop(guards);
        assert_counts_add_up(&pool);
    });
}

/// Fault 176.
#[test]
fn a_blocked_publisher_delays_no_other_thread_for_subscriptions_with_room() {
    let pool = pool(2, 1);
    let bus = EventBus::new(&pool);
    let gate = Gate::new();
    let slow = stuck(&bus, &gate);
    let (quick, log) = keeps(&bus);
    let others: Vec<_> = [3_u32, 4, 5]
        .map(|number| {
            if number == 3 {
                let held = publish_until_held(&pool, &bus, &gate, 1);
                wait_until(|| log.lock().unwrap().len() == 3);
                return held;
            }
            let bus = bus.clone();
            thread::spawn(move || bus.publish(number))
        })
        .into();
    wait_until(|| log.lock().unwrap().len() == 5);
    assert!(others.iter().all(|publisher| !publisher.is_finished()));
    // Another type of events has nothing to do with it.
    let text = Counter::new();
    let counted = text.clone();
    let texts = bus.subscribe(move |_: &String| counted.add());
    assert_eq!(with_watchdog(|| handled(&bus.publish("text".to_owned()))), 1);
    gate.open();
    with_watchdog(|| others.into_iter().for_each(|publisher| assert_eq!(handled(&publisher.join().unwrap()), 2)));
    drop((slow, quick, texts));
    assert_counts_add_up(&pool);
}

/// Fault 176.
#[test]
fn a_worker_that_publishes_serves_those_with_room_before_it_makes_room_elsewhere() {
    let pool = pool(2, 1);
    let bus = EventBus::new(&pool);
    let gate = Gate::new();
    let slow = stuck(&bus, &gate);
    let (quick, log) = keeps(&bus);
    bus.publish(0_u32);
    gate.wait_started(1);
    bus.publish(1_u32);
    let inner = bus.clone();
    let receipt = with_watchdog(|| pool.spawn(move || inner.publish(2_u32)).unwrap().join().unwrap());
    wait_until(|| log.lock().unwrap().len() == 3);
    gate.open();
    let outcomes: Vec<_> = receipt.wait().unwrap().into_iter().map(|delivery| delivery.outcome).collect();
    assert!(matches!(outcomes[..], [DeliveryOutcome::Refused, DeliveryOutcome::Handled]), "{outcomes:?}");
    drop((slow, quick));
    bus.wait_idle();
    assert_counts_add_up(&pool);
}

/// Fault 178.
#[test]
fn an_ordered_subscription_handles_the_events_of_each_thread_in_order_retries_included() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (log, tries) = (Arc::new(Mutex::new(Vec::new())), Counter::new());
        let (kept, counted) = (Arc::clone(&log), tries.clone());
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(5);
        let guard = bus.subscription::<(usize, usize)>().retry(policy).handle(move |event| {
            counted.add();
            if counted.get().is_multiple_of(3) {
                return Err("once more");
            }
            kept.lock().unwrap().push(*event);
            Ok(())
        });
        in_threads(|threads| {
            for publisher in 0..3_usize {
                let bus = &bus;
                threads.spawn(move || (0..30_usize).for_each(|number| drop(bus.publish((publisher, number)))));
            }
        });
        bus.wait_idle();
        let log = log.lock().unwrap();
        assert_eq!(log.len(), 90);
        for publisher in 0..3 {
            let numbers = log.iter().filter(|(from, _)| *from == publisher).map(|(_, number)| *number);
            assert!(numbers.eq(0..30), "an event that is tried again holds its place");
        }
        drop(guard);
    });
}

/// Fault 178.
#[test]
fn a_concurrent_subscription_keeps_no_order_and_a_delay_holds_up_none() {
    let pool = pool(1, 1);
    let bus = EventBus::new(&pool);
    let (log, failed) = (Log::default(), Counter::new());
    let (kept, counted) = (Arc::clone(&log), failed.clone());
    let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(2);
    let guard = bus.subscription::<u32>().concurrent(1).retry(policy).handle(move |number| {
        if *number == 0 && counted.get() == 0 {
            counted.add();
            return Err("later");
        }
        kept.lock().unwrap().push(*number);
        Ok(())
    });
    let gate = Gate::new();
    let inside = gate.clone();
    pool.execute(move || inside.pass()).unwrap();
    gate.wait_started(1);
    (0..3_u32).for_each(|number| drop(bus.publish(number)));
    gate.open();
    bus.wait_idle();
    assert_eq!(*log.lock().unwrap(), [1, 2, 0]);
    drop(guard);
}

/// Fault 178.
#[test]
fn a_once_subscription_gets_the_first_event_and_the_others_get_all_in_order() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let first = Log::default();
        let kept = Arc::clone(&first);
        let once = bus.subscription::<u32>().once().handle(move |number| kept.lock().unwrap().push(*number));
        let (all, log) = keeps(&bus);
        (0..10_u32).for_each(|number| drop(bus.publish(number)));
        bus.wait_idle();
        assert_eq!(*first.lock().unwrap(), [0]);
        assert!(log.lock().unwrap().iter().copied().eq(0..10));
        drop((once, all));
    });
}

/// Fault 179.
#[test]
fn a_flood_for_one_subscription_gives_way_to_others_and_to_jobs_after_a_turn() {
    let pool = pool(1, 64);
    let bus = EventBus::new(&pool);
    let (flooded, at_text, at_job) = (Counter::new(), Counter::new(), Counter::new());
    let counted = flooded.clone();
    let flood = bus.subscribe(move |_: &u32| counted.add());
    let (seen, noted) = (flooded.clone(), at_text.clone());
    let text = bus.subscribe(move |_: &String| (0..seen.get()).for_each(|_| noted.add()));
    let gate = Gate::new();
    let inside = gate.clone();
    pool.execute(move || inside.pass()).unwrap();
    gate.wait_started(1);
    (0..1_000_u32).for_each(|number| drop(bus.publish(number)));
    bus.publish("text".to_owned());
    let (seen, noted) = (flooded.clone(), at_job.clone());
    pool.execute(move || (0..seen.get()).for_each(|_| noted.add())).unwrap();
    gate.open();
    bus.wait_idle();
    pool.wait_idle();
    assert_eq!(flooded.get(), 1_000);
    assert!(at_text.get() <= 2 * TURN, "{} of the flood came first", at_text.get());
    assert!(at_job.get() <= 2 * TURN, "{} of the flood came first", at_job.get());
    drop((flood, text));
}

/// Fault 179.
#[test]
fn a_slow_group_gives_way_to_other_groups_and_to_subscriptions() {
    let pool = pool(1, 64);
    let bus = EventBus::new(&pool);
    let gate = Gate::new();
    let inside = gate.clone();
    pool.execute(move || inside.pass()).unwrap();
    gate.wait_started(1);
    let (ran, at_other, at_event) = (Counter::new(), Counter::new(), Counter::new());
    let (large, small) = (pool.group().capacity(1_000), pool.group());
    for _ in 0..1_000 {
        let ran = ran.clone();
        large.spawn(move || ran.add());
    }
    let (seen, noted) = (ran.clone(), at_other.clone());
    small.spawn(move || (0..seen.get()).for_each(|_| noted.add()));
    let (seen, noted) = (ran.clone(), at_event.clone());
    let guard = bus.subscribe(move |_: &u32| (0..seen.get()).for_each(|_| noted.add()));
    bus.publish(1_u32);
    gate.open();
    large.wait().unwrap();
    small.wait().unwrap();
    bus.wait_idle();
    assert_eq!(ran.get(), 1_000);
    for came_first in [at_other.get(), at_event.get()] {
        assert!(came_first <= 256, "{came_first} of the large group came first");
    }
    drop(guard);
}

/// Fault 179.
#[test]
fn a_stuck_handler_keeps_no_other_from_being_unsubscribed_and_a_stuck_hook_only_its_own_subscription() {
    let pool = pool(3, 1);
    let gate = Gate::new();
    let (in_letter, in_unhandled) = (gate.clone(), gate.clone());
    let bus = EventBus::builder(&pool)
        .on_dead_letter(move |_| in_letter.pass())
        .on_unhandled(move |_| in_unhandled.pass())
        .build();
    let stuck_handler = stuck(&bus, &gate);
    let fails = bus.subscribe(|_: &i64| Err::<(), _>("no"));
    let (other, log) = keeps(&bus);
    let ends = bus.subscribe(|_: &u32| ());
    bus.publish(1_u32);
    bus.publish(1_i64); // its dead letter is stuck
    let publisher = bus.clone();
    let publisher = thread::spawn(move || publisher.publish("to no subscription")); // and so is this publisher
    gate.wait_started(3);
    with_watchdog(|| assert!(ends.unsubscribe(), "the stuck one is another"));
    bus.publish(2_u32);
    bus.publish(2_i64); // waits behind the stuck letter
    wait_until(|| *log.lock().unwrap() == [1, 2]);
    assert!(!bus.wait_idle_timeout(Duration::ZERO), "idle means that all have ended");
    gate.open();
    with_watchdog(|| publisher.join().unwrap());
    bus.wait_idle();
    drop((stuck_handler, fails, other));
    assert_counts_add_up(&pool);
}

/// Fault 179.
#[test]
fn a_topic_whose_handler_is_stuck_or_backs_off_holds_up_no_other_topic() {
    let pool = pool(2, 1);
    let bus = EventBus::new(&pool);
    let (gate, quick) = (Gate::new(), Counter::new());
    let (inside, counted) = (gate.clone(), quick.clone());
    let policy = RetryPolicy::fixed(Duration::from_secs(86_400)).max_attempts(2);
    let guards = [
        bus.subscription::<u32>().topic("slow").mailbox_capacity(1).handle(move |_| inside.pass()),
        bus.subscription::<u32>().topic("backs off").retry(policy).handle(|_| Err::<(), _>("no")),
        bus.subscription::<u32>().topic("quick").overflow(Overflow::Block).handle(move |_| counted.add()),
    ];
    bus.publish_to("slow", 1_u32);
    gate.wait_started(1);
    bus.publish_to("backs off", 1_u32);
    (0..100_u32).for_each(|number| drop(bus.publish_to("quick", number)));
    wait_until(|| quick.get() == 100);
    gate.open();
    drop(guards);
    bus.wait_idle();
    assert_counts_add_up(&pool);
}
