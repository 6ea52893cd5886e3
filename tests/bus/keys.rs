//! Subscriptions that keep the order of each key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, in_threads, on_grid, pool,
    quiet_panics, spawn_parked, with_watchdog,
};
use crate::{LONG, bus_with_letters, outcomes, wait_until};
use workcrew::events::{EventBus, Subscription, SubscriptionBuilder};
use workcrew::retry::RetryPolicy;
use workcrew::{Overflow, WorkerPool};

/// The keys and numbers of the events that were handled.
type Seen = Arc<Mutex<Vec<(usize, usize)>>>;

/// An event of a key: its publisher and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    key: usize,
    by: usize,
    number: usize,
}

fn event(key: usize, number: usize) -> Event {
    Event { key, by: 0, number }
}

fn keyed(bus: &EventBus) -> SubscriptionBuilder<'_, Event> {
    bus.subscription::<Event>().name("keyed").ordered_by(|event| event.key)
}

/// Subscribes a handler that passes the gate of its event's key, and notes the event.
fn gated(builder: SubscriptionBuilder<'_, Event>, gates: &[Gate]) -> (Subscription, Seen) {
    let seen = Seen::default();
    let (noted, gates) = (Arc::clone(&seen), gates.to_vec());
    let guard = builder.handle(move |event| {
        gates[event.key].pass();
        noted.lock().unwrap().push((event.key, event.number));
    });
    (guard, seen)
}

/// Fault 530.
#[test]
fn events_of_one_key_are_handled_one_at_a_time_and_in_order_despite_retries_and_panics() {
    const KEYS: usize = 8;
    const EVENTS: usize = 30;
    quiet_panics();
    on_grid(|pool| {
        let bus = EventBus::builder(&pool).mailbox_capacity(16).build();
        let busy: Arc<[AtomicUsize; KEYS]> = Arc::default();
        let tried: Mutex<HashMap<(usize, usize, usize), u32>> = Mutex::default();
        let done: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (inside, kept) = (Arc::clone(&busy), Arc::clone(&done));
        let policy = RetryPolicy::fixed(Duration::from_micros(100)).max_attempts(2);
        let _guard = keyed(&bus).mailbox_capacity_per_key(8).retry(policy).handle(move |event| {
            assert_eq!(inside[event.key].fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            let attempt = {
                let mut tried = tried.lock().unwrap();
                let attempt = tried.entry((event.key, event.by, event.number)).or_insert(0);
                *attempt += 1;
                *attempt
            };
            let ends = event.number % 7 != 3 || attempt == 2;
            if ends {
                kept.lock().unwrap().push(*event);
            }
            assert_eq!(inside[event.key].fetch_sub(1, Ordering::SeqCst), 1, "one at a time");
            assert!(event.number % 7 != 4, "this one panics twice");
            if ends { Ok(()) } else { Err("once more") }
        });
        in_threads(|threads| {
            for by in 0..4 {
                let bus = bus.clone();
                threads.spawn(move || {
                    for number in 0..EVENTS {
                        (0..KEYS).for_each(|key| drop(bus.publish(Event { key, by, number })));
                    }
                });
            }
        });
        bus.wait_idle();
        let done = done.lock().unwrap().clone();
        for (key, by) in (0..KEYS).flat_map(|key| (0..4).map(move |by| (key, by))) {
            let mut numbers: Vec<_> =
                done.iter().filter(|event| (event.key, event.by) == (key, by)).map(|event| event.number).collect();
            numbers.dedup(); // an event that panicked was handled twice in a row
            assert!(numbers.iter().copied().eq(0..EVENTS), "key {key}, publisher {by}: {numbers:?}");
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 531.
#[test]
fn an_event_that_waits_for_another_attempt_holds_its_key_and_no_other() {
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let seen: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let policy = RetryPolicy::fixed(LONG).max_attempts(3);
        let guard = keyed(&bus).retry(policy).handle(move |event| {
            noted.lock().unwrap().push((event.key, event.number));
            if event.key == 0 { Err("not now") } else { Ok(()) }
        });
        let [first, second] = [0, 1].map(|number| bus.publish(event(0, number)));
        let others: Vec<_> = (0..20).map(|number| bus.publish(event(1 + number % 2, number))).collect();
        for other in &others {
            assert_eq!(outcomes(other), ["handled"]);
        }
        wait_until(|| seen.lock().unwrap().contains(&(0, 0)));
        assert!(!first.is_finished() && !second.is_finished());
        assert!(!seen.lock().unwrap().contains(&(0, 1)), "the key is held");
        assert!(guard.unsubscribe());
        assert_eq!(
            (outcomes(&first), outcomes(&second)),
            (vec!["failed after 1".to_owned()], vec!["cancelled on request".to_owned()])
        );
        assert_eq!(letters.lock().unwrap().len(), 1);
        assert_counts_add_up(&pool);
    });
}

/// Fault 531.
#[test]
fn the_next_event_of_a_key_follows_one_that_is_given_up() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let attempts: Arc<Mutex<Vec<usize>>> = Arc::default();
        let noted = Arc::clone(&attempts);
        let policy = RetryPolicy::fixed(Duration::from_micros(200)).max_attempts(2);
        let _guard = keyed(&bus).retry(policy).handle(move |event| {
            noted.lock().unwrap().push(event.number);
            assert!(event.number != 1, "a panic");
            if event.number == 0 { Err("an error") } else { Ok(()) }
        });
        let receipts = [0, 1, 2].map(|number| bus.publish(event(7, number)));
        let told: Vec<_> = receipts.iter().flat_map(outcomes).collect();
        assert_eq!(told, ["failed after 2", "failed after 2", "handled"]);
        assert_eq!(*attempts.lock().unwrap(), [0, 0, 1, 1, 2], "each was given up before the next began");
        assert_eq!(letters.lock().unwrap().len(), 2);
    });
}

/// Fault 531.
#[test]
fn a_shutdown_gives_up_the_delayed_event_of_a_key_and_delivers_the_others() {
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let policy = RetryPolicy::fixed(LONG).max_attempts(3);
        let _guard = keyed(&bus).retry(policy).handle(|event| if event.number == 0 { Err("not now") } else { Ok(()) });
        let receipts = [(0, 0), (0, 1), (1, 1), (0, 2)].map(|(key, number)| bus.publish(event(key, number)));
        assert_eq!(outcomes(&receipts[2]), ["handled"]);
        wait_until(|| pool.metrics().timers_pending == 1);
        with_watchdog(|| pool.shutdown());
        let told: Vec<_> = receipts.iter().flat_map(outcomes).collect();
        assert_eq!(told, ["failed after 1", "handled", "handled", "handled"]);
        assert_eq!(letters.lock().unwrap().len(), 1);
        assert_counts_add_up(&pool);
    });
}

/// Fault 532.
#[test]
fn a_key_with_many_events_delays_another_key_by_one_event() {
    let pool = pool(1, 64);
    let bus = EventBus::new(&pool);
    let (_guard, seen) = gated(keyed(&bus), &[open_gate(), open_gate(), open_gate()]);
    let blocked = BlockedWorkers::new(&pool);
    (0..200).for_each(|number| drop(bus.publish(event(0, number))));
    (0..2).for_each(|number| drop(bus.publish(event(1, number))));
    bus.publish(event(2, 0));
    blocked.open();
    bus.wait_idle();
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[..6], [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]);
    assert_eq!(seen.len(), 203);
}

/// Fault 532.
#[test]
fn keys_without_events_leave_nothing() {
    on_grid(|pool| {
        let (bus, dropped) = (EventBus::new(&pool), Counter::new());
        let counted = dropped.clone();
        let made = Counter::new();
        let count = made.clone();
        let _guard = bus
            .subscription::<usize>()
            .ordered_by(move |number| {
                count.add();
                CountedKey(*number % 50, Arc::new(DropCounter(counted.clone())))
            })
            .handle(|_| ());
        (0..500_usize).for_each(|number| drop(bus.publish(number)));
        bus.wait_idle();
        assert_eq!(made.get(), 500, "the function is called once for each event");
        wait_until(|| dropped.get() == 500);
    });
}

/// A key whose drops are counted.
#[derive(Clone)]
struct CountedKey(usize, #[allow(dead_code, reason = "counts its drop")] Arc<DropCounter>);

impl PartialEq for CountedKey {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for CountedKey {}

impl std::hash::Hash for CountedKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.0 % 5).hash(state); // keys collide
    }
}

fn open_gate() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

/// Fault 533.
#[test]
fn a_full_key_refuses_or_discards_its_own_events_only() {
    for overflow in [Overflow::Block, Overflow::DiscardNewest, Overflow::DiscardOldest] {
        let pool = pool(2, 64);
        let bus = EventBus::new(&pool);
        let gates = [Gate::new(), open_gate()];
        let builder = keyed(&bus).mailbox_capacity_per_key(2).overflow(overflow);
        let (_guard, seen) = gated(builder, &gates);
        let first = bus.publish(event(0, 0));
        gates[0].wait_started(1);
        let waiting = [1, 2].map(|number| bus.publish(event(0, number)));
        let third = bus.try_publish(event(0, 3));
        let other = bus.try_publish(event(1, 0)).unwrap();
        assert_eq!(outcomes(&other), ["handled"], "another key has room");
        gates[0].open();
        let told = |receipt| outcomes(receipt).concat();
        let waited = [told(&first), told(&waiting[0]), told(&waiting[1])];
        match overflow {
            Overflow::Block => {
                assert_eq!(third.unwrap_err().into_inner(), event(0, 3));
                assert_eq!(waited, ["handled", "handled", "handled"]);
            }
            Overflow::DiscardNewest => {
                assert_eq!(told(&third.unwrap()), "discarded because the queue was full");
                assert_eq!(waited, ["handled", "handled", "handled"]);
            }
            _ => {
                assert_eq!(told(&third.unwrap()), "handled");
                assert_eq!(waited, ["handled", "discarded because the queue was full", "handled"]);
            }
        }
        assert_eq!(seen.lock().unwrap().len(), 4, "three of the full key, and one of another");
    }
}

/// Fault 533.
#[test]
fn a_full_mailbox_discards_the_oldest_event_of_all_keys() {
    let pool = pool(2, 64);
    let bus = EventBus::new(&pool);
    let gates = [Gate::new(), Gate::new()];
    let builder = keyed(&bus).mailbox_capacity(3).overflow(Overflow::DiscardOldest);
    let (_guard, seen) = gated(builder, &gates);
    (0..2).for_each(|key| drop(bus.publish(event(key, 0))));
    gates.iter().for_each(|gate| gate.wait_started(1));
    let receipts = [(1, 1), (0, 1), (0, 2), (0, 3)].map(|(key, number)| bus.publish(event(key, number)));
    assert!(receipts[0].is_finished(), "the oldest was discarded at once");
    gates.iter().for_each(Gate::open);
    bus.wait_idle();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]);
}

/// Fault 533.
#[test]
fn a_publisher_waits_for_room_of_its_key_and_another_takes_no_notification_from_it() {
    const KEYS: usize = 5;
    for asynchronous in [false, true] {
        let pool = pool(KEYS, 64);
        let bus = EventBus::new(&pool);
        let gates = [(); KEYS].map(|()| Gate::new());
        let (_guard, seen) = gated(keyed(&bus).mailbox_capacity(KEYS).mailbox_capacity_per_key(1), &gates);
        (0..KEYS).for_each(|key| drop(bus.publish(event(key, 0))));
        gates.iter().for_each(|gate| gate.wait_started(1));
        (0..KEYS).for_each(|key| drop(bus.publish(event(key, 1))));
        let publish = |key| {
            let bus = bus.clone();
            let publish = move || match asynchronous {
                false => bus.publish(event(key, 2)),
                true => pollster::block_on(bus.publish_async(event(key, 2))),
            };
            spawn_parked(publish)
        };
        let (blocked, goes_on) = (publish(0), publish(1));
        // Beyond the wait for the low-water mark. On a slow machine the test sees less.
        thread::sleep(Duration::from_millis(10));
        gates[1].open();
        assert_eq!(outcomes(&with_watchdog(|| goes_on.join().unwrap())), ["handled"]);
        assert!(!blocked.is_finished(), "its own key has no room");
        gates.iter().for_each(Gate::open);
        assert_eq!(outcomes(&blocked.join().unwrap()), ["handled"]);
        bus.wait_idle();
        assert_eq!(seen.lock().unwrap().len(), 2 * KEYS + 2);
    }
}

/// Fault 533.
#[test]
fn a_handler_makes_room_in_a_full_key_or_is_refused_there() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, told) = (bus.clone(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&told);
        let _guard = keyed(&bus).mailbox_capacity_per_key(2).handle(move |happened| {
            if happened.number == 0 {
                // Two wait in the own key, which cannot make room. Another key can.
                let own: Vec<_> = (1..=3).map(|number| inner.publish(event(0, number))).collect();
                let other: Vec<_> = (1..=6).map(|number| inner.publish(event(1, number))).collect();
                noted.lock().unwrap().push((own, other));
            }
        });
        bus.publish(event(0, 0));
        with_watchdog(|| bus.wait_idle());
        let (own, other) = told.lock().unwrap().pop().unwrap();
        assert_eq!(own.iter().flat_map(outcomes).collect::<Vec<_>>(), ["handled", "handled", "refused"]);
        if pool.workers() == 1 {
            assert!(other.iter().flat_map(outcomes).all(|outcome| outcome == "handled"));
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 533.
#[test]
fn a_task_of_another_pool_that_waits_for_room_of_a_key_is_helped() {
    let (home, abroad) = (pool(1, 64), pool(1, 64));
    let bus = EventBus::new(&home);
    let (_guard, seen) = gated(keyed(&bus).mailbox_capacity_per_key(1), &[open_gate()]);
    let own = bus.clone();
    let joins = home.spawn(move || {
        let publishes = move || (0..5).for_each(|number| drop(own.publish(event(0, number))));
        abroad.spawn(publishes).unwrap().join().unwrap();
    });
    with_watchdog(|| joins.unwrap().join().unwrap());
    bus.wait_idle();
    assert_eq!(*seen.lock().unwrap(), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]);
}

/// A key that panics when it is made, hashed or compared.
#[derive(Clone)]
struct BadKey(&'static str);

impl PartialEq for BadKey {
    fn eq(&self, _: &Self) -> bool {
        assert!(self.0 != "compared", "a bad key");
        true
    }
}

impl Eq for BadKey {}

impl std::hash::Hash for BadKey {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {
        assert!(self.0 != "hashed", "a bad key");
    }
}

/// Fault 534.
#[test]
fn an_event_whose_key_panics_fails_once_and_becomes_a_dead_letter() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let gate = Gate::new();
        let (passed, seen) = (gate.clone(), Counter::new());
        let counted = seen.clone();
        let _guard = bus
            .subscription::<&'static str>()
            .ordered_by(|text| {
                assert!(*text != "made", "a bad key");
                BadKey(text)
            })
            .retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(5))
            .handle(move |_| {
                counted.add();
                passed.pass();
            });
        let good = bus.publish("good");
        let bad = ["made", "hashed", "compared"].map(|text| bus.publish(text));
        let next = bus.publish("good");
        gate.open();
        assert_eq!((outcomes(&good), outcomes(&next)), (vec!["handled".to_owned()], vec!["handled".to_owned()]));
        assert!(bad.iter().flat_map(outcomes).all(|outcome| outcome == "failed after 1"));
        let letters = letters.lock().unwrap();
        assert!(letters.iter().all(|letter| letter.to_string().contains("a bad key")), "{letters:?}");
        assert_eq!((letters.len(), seen.get()), (3, 2));
        assert_counts_add_up(&pool);
    });
}

/// Fault 534.
#[test]
fn an_event_whose_key_panics_and_that_is_not_accepted_comes_back() {
    quiet_panics();
    let pool = pool(1, 64);
    let (bus, letters) = bus_with_letters(&pool);
    let _bad = bus.subscription::<u32>().ordered_by(|_| -> u32 { panic!("a bad key") }).handle(|_| ());
    let _full = bus.subscription::<u32>().name("full").mailbox_capacity(1).handle(|_| ());
    let blocked = BlockedWorkers::new(&pool);
    let accepted = bus.try_publish(1_u32).unwrap();
    assert_eq!(bus.try_publish(2_u32).unwrap_err().into_inner(), 2);
    assert!(letters.lock().unwrap().is_empty());
    blocked.open();
    assert_eq!(outcomes(&accepted), ["failed after 1", "handled"]);
    assert_eq!(letters.lock().unwrap().len(), 1);
}

/// Fault 653.
#[test]
fn functions_of_keys_that_publish_several_events_are_nested_sixteen_deep_and_bounded_in_number() {
    quiet_panics();
    let pool = pool(1, 64);
    let (bus, letters) = bus_with_letters(&pool);
    let (own, calls, handled) = (bus.clone(), Counter::new(), Counter::new());
    let (called, counted) = (calls.clone(), handled.clone());
    let _guard = bus
        .subscription::<u32>()
        .mailbox_capacity(10_000)
        .ordered_by(move |number| {
            called.add();
            (0..3).for_each(|_| drop(own.publish(*number)));
            *number
        })
        .handle(move |_| counted.add());
    bus.publish(1_u32);
    bus.wait_idle();
    // One call, the three below it, and 256 below those, comparisons included.
    assert!((17..=1 + 3 + 256).contains(&calls.get()), "{} calls", calls.get());
    assert_eq!(handled.get() + letters.lock().unwrap().len(), 1 + 3 * calls.get(), "each event has one end");
}

/// Fault 535.
#[test]
fn a_handler_waits_for_another_key_and_not_for_its_own() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, (tell, told)) = (bus.clone(), channel());
        let _guard = keyed(&bus).handle(move |happened| {
            if happened.number == 0 {
                let (own, other) = (inner.publish(event(0, 1)), inner.publish(event(1, 1)));
                tell.send((own.wait().map(drop), outcomes(&other), pollster::block_on(&own).map(drop))).unwrap();
            }
        });
        let first = bus.publish(event(0, 0));
        let (own, other, own_async) = told.recv_timeout(LIMIT).unwrap();
        assert!(own.is_err() && own_async.is_err(), "{own:?}, {own_async:?}");
        assert_eq!(other, ["handled"]);
        assert_eq!(outcomes(&first), ["handled"]);
        with_watchdog(|| bus.wait_idle());
    });
}

/// Fault 535.
#[test]
fn handlers_of_two_keys_that_wait_for_each_other_get_would_deadlock() {
    for workers in [2, 8] {
        let pool = pool(workers, 64);
        let bus = EventBus::new(&pool);
        let (inner, started) = (bus.clone(), Gate::new());
        let (both, errors) = (started.clone(), Counter::new());
        let counted = errors.clone();
        let _guard = keyed(&bus).handle(move |happened| {
            if happened.number == 0 {
                both.pass();
                if inner.publish(event(1 - happened.key, 1)).wait().is_err() {
                    counted.add();
                }
            }
        });
        (0..2).for_each(|key| drop(bus.publish(event(key, 0))));
        started.wait_started(2);
        started.open();
        with_watchdog(|| bus.wait_idle());
        assert!(errors.get() >= 1);
    }
}

/// Fault 536.
#[test]
fn unsubscribing_cancels_the_waiting_events_of_all_keys() {
    on_grid(|pool| {
        let (bus, dropped) = (EventBus::new(&pool), Counter::new());
        let (gate, counted) = (Gate::new(), DropCounter(dropped.clone()));
        let passed = gate.clone();
        let guard = bus
            .subscription::<Event>()
            .ordered_by(move |event| {
                let _ = &counted;
                event.key
            })
            .handle(move |_| passed.pass());
        let receipts: Vec<_> = (0..30).map(|number| bus.publish(event(number % 3, number))).collect();
        gate.wait_started(1);
        drop(guard);
        assert_eq!(dropped.get(), 1, "the function is dropped");
        // At most one event of each key is still running.
        wait_until(|| receipts.iter().filter(|receipt| receipt.is_finished()).count() >= 27);
        assert_eq!(bus.publish(event(0, 0)).handlers(), 0);
        gate.open();
        with_watchdog(|| bus.wait_idle());
        assert!(receipts.iter().flat_map(outcomes).all(|told| told == "handled" || told == "cancelled on request"));
        assert_counts_add_up(&pool);
    });
}

/// Fault 536.
#[test]
fn a_shutdown_drains_or_cancels_the_events_of_all_keys() {
    for now in [false, true] {
        on_grid(|pool| {
            let bus = EventBus::new(&pool);
            let gate = Gate::new();
            let passed = gate.clone();
            let _guard = keyed(&bus).handle(move |_| passed.pass());
            let receipts: Vec<_> = (0..30).map(|number| bus.publish(event(number % 3, number))).collect();
            gate.wait_started(1);
            let own = pool.clone();
            let ends = thread::spawn(move || match now {
                true => _ = own.shutdown_now(),
                false => own.shutdown(),
            });
            wait_until(|| pool.is_shut_down());
            if now {
                wait_until(|| receipts[29].is_finished());
            }
            gate.open();
            with_watchdog(|| ends.join().unwrap());
            let told: Vec<_> = receipts.iter().flat_map(outcomes).collect();
            assert_eq!(told.iter().all(|told| told == "handled"), !now, "{told:?}");
            assert!(bus.publish(event(0, 0)).is_finished());
            assert_counts_add_up(&pool);
        });
    }
}

/// Fault 536.
#[test]
fn a_subscription_for_one_event_and_a_later_mode_work_with_keys() {
    on_grid(|pool: WorkerPool| {
        let bus = EventBus::new(&pool);
        let (_once, seen) = gated(keyed(&bus).once(), &[open_gate(), open_gate()]);
        let (_plain, all) = gated(keyed(&bus).ordered(), &[open_gate(), open_gate()]);
        (0..4).for_each(|number| drop(bus.publish(event(number % 2, number))));
        bus.wait_idle();
        assert_eq!(*seen.lock().unwrap(), [(0, 0)]);
        assert_eq!(*all.lock().unwrap(), [(0, 0), (1, 1), (0, 2), (1, 3)], "the last mode counts");
    });
}
