//! Subscriptions whose handler gets batches.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::{
    BlockedWorkers, Counter, Gate, LIMIT, Mutex, assert_counts_add_up, in_threads, on_grid, pool, quiet_panics,
    with_watchdog,
};
use crate::{LONG, bus_with_letters, outcomes, wait_until};
use workcrew::Overflow;
use workcrew::events::{BatchError, EventBus, Subscription, SubscriptionBuilder};
use workcrew::retry::{AttemptError, RetryPolicy};

type Batches = Arc<Mutex<Vec<Vec<u32>>>>;

/// Subscribes a handler that notes the batches and returns what `result` returns.
fn noted<R: workcrew::events::BatchResult>(
    builder: SubscriptionBuilder<'_, u32>,
    (max, linger): (usize, Duration),
    result: impl Fn(&[&u32]) -> R + Send + Sync + 'static,
) -> (Subscription, Batches) {
    let batches = Batches::default();
    let kept = Arc::clone(&batches);
    let guard = builder.batch(max, linger).handle(move |events| {
        kept.lock().unwrap().push(events.iter().map(|event| **event).collect());
        result(events)
    });
    (guard, batches)
}

fn numbers(numbers: impl IntoIterator<Item = u32>, bus: &EventBus) -> Vec<workcrew::events::Receipt> {
    numbers.into_iter().map(|number| bus.publish(number)).collect()
}

/// Fault 537.
#[test]
fn a_batch_that_is_not_full_waits_without_a_worker_until_the_shutdown_delivers_it() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (_guard, batches) = noted(bus.subscription(), (4, LONG), |_| ());
        let receipts = numbers(0..10, &bus);
        assert!(receipts[..8].iter().flat_map(outcomes).all(|told| told == "handled"));
        for _ in 0..pool.workers() {
            pool.spawn(|| ()).unwrap().join().unwrap();
        }
        assert!(pool.running().is_empty() && !receipts[8].is_finished() && !receipts[9].is_finished());
        with_watchdog(|| pool.shutdown());
        assert!(receipts[8..].iter().flat_map(outcomes).all(|told| told == "handled"));
        assert_eq!(*batches.lock().unwrap(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        assert_counts_add_up(&pool);
    });
}

/// Fault 537.
#[test]
fn a_batch_without_a_linger_has_what_is_there() {
    let pool = pool(1, 64);
    let bus = EventBus::new(&pool);
    let (_guard, batches) = noted(bus.subscription(), (3, Duration::ZERO), |_| ());
    let (_one, single) = noted(bus.subscription(), (0, Duration::ZERO), |_| ());
    let blocked = BlockedWorkers::new(&pool);
    let receipts = numbers(0..5, &bus);
    blocked.open();
    assert!(receipts.iter().flat_map(outcomes).all(|told| told == "handled"));
    assert_eq!(*batches.lock().unwrap(), [vec![0, 1, 2], vec![3, 4]]);
    assert_eq!(*single.lock().unwrap(), [vec![0], vec![1], vec![2], vec![3], vec![4]], "zero counts as one");
}

/// Fault 537.
#[test]
fn a_batch_is_delivered_when_it_has_lingered_and_no_event_is_lost_or_reordered() {
    on_grid(|pool| {
        let bus = EventBus::builder(&pool).mailbox_capacity(16).build();
        let linger = Duration::from_micros(500);
        let (_guard, batches) = noted(bus.subscription(), (5, linger), |_| ());
        in_threads(|threads| {
            for publisher in 0..3 {
                let bus = bus.clone();
                threads.spawn(move || drop(numbers((0..50).map(|number| 100 * publisher + number), &bus)));
            }
        });
        let last = bus.publish(1_000_u32);
        assert_eq!(outcomes(&last), ["handled"], "nothing follows it");
        let batches = batches.lock().unwrap().clone();
        assert!(batches.iter().all(|batch| (1..=5).contains(&batch.len())));
        let all: Vec<u32> = batches.concat();
        for publisher in 0..3 {
            let own = all.iter().copied().filter(|number| number / 100 == publisher);
            assert!(own.eq((0..50).map(|number| 100 * publisher + number)), "{all:?}");
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 537.
#[test]
fn a_batch_that_fails_is_retried_together_and_without_newer_events() {
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let policy = RetryPolicy::fixed(Duration::from_micros(300)).max_attempts(3);
        let calls = Counter::new();
        let counted = calls.clone();
        let builder = bus.subscription().retry(policy);
        let (_guard, batches) = noted(builder, (3, LONG), move |_| {
            counted.add();
            if counted.get() <= 2 { Err("busy") } else { Ok(()) }
        });
        let receipts = numbers(0..6, &bus);
        assert!(receipts.iter().flat_map(outcomes).all(|told| told == "handled"));
        assert_eq!(*batches.lock().unwrap(), [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 4, 5]]);
        assert!(letters.lock().unwrap().is_empty());
        assert_counts_add_up(&pool);
    });
}

/// Fault 537.
#[test]
fn each_event_of_a_batch_may_have_its_own_result_attempts_and_dead_letter() {
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let policy = RetryPolicy::fixed(Duration::from_micros(300)).max_attempts(2);
        let builder = bus.subscription().retry(policy);
        let (_guard, batches) = noted(builder, (4, LONG), |events| {
            let result = |event: &&u32| if **event % 2 == 1 { Err(format!("{event} is odd")) } else { Ok(()) };
            events.iter().map(result).collect::<Vec<_>>()
        });
        let receipts = numbers(0..8, &bus);
        let told: Vec<_> = receipts.iter().flat_map(outcomes).collect();
        assert_eq!(told, ["handled", "failed after 2"].repeat(4));
        let tried = [vec![0, 1, 2, 3], vec![1, 3], vec![4, 5, 6, 7], vec![5, 7]];
        assert_eq!(*batches.lock().unwrap(), tried);
        let letters = letters.lock().unwrap();
        let texts: Vec<_> = letters.iter().map(|letter| letter.error().last().to_string()).collect();
        assert_eq!(texts, ["1 is odd", "3 is odd", "5 is odd", "7 is odd"]);
        assert_counts_add_up(&pool);
    });
}

/// Fault 537.
#[test]
fn a_panic_or_a_wrong_number_of_results_fails_every_event_of_the_batch() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let (_guard, _) = noted(bus.subscription(), (3, LONG), |events| {
            assert!(*events[0] != 0, "a panic");
            vec![Ok::<(), String>(())]
        });
        let receipts = numbers(0..6, &bus);
        assert!(receipts.iter().flat_map(outcomes).all(|told| told == "failed after 1"));
        let letters = letters.lock().unwrap();
        let panicked =
            |letter: &workcrew::events::DeadLetter| matches!(letter.error().last(), AttemptError::Panicked(_));
        assert_eq!(letters.iter().filter(|letter| panicked(letter)).count(), 1, "one event has the panic");
        assert!(letters[..3].iter().all(|letter| letter.to_string().contains("a panic")), "{letters:?}");
        let AttemptError::Failed(error) = letters[5].error().last() else { panic!("{letters:?}") };
        let error = error.downcast_ref::<BatchError>().unwrap();
        assert_eq!(
            (error.events(), error.source().unwrap().to_string().as_str()),
            (3, "the handler returned 1 results")
        );
        assert_eq!(pool.metrics().tasks_panicked, 1);
        assert_counts_add_up(&pool);
    });
}

/// Fault 537.
#[test]
fn a_full_mailbox_or_a_single_event_makes_the_batch_due() {
    for overflow in [Overflow::Block, Overflow::DiscardOldest] {
        on_grid(|pool| {
            let bus = EventBus::new(&pool);
            let builder = bus.subscription().mailbox_capacity(2).overflow(overflow);
            let (_guard, batches) = noted(builder, (10, LONG), |_| ());
            let (_once, single) = noted(bus.subscription().once(), (10, LONG), |_| ());
            with_watchdog(|| drop(numbers(0..6, &bus)));
            wait_until(|| !single.lock().unwrap().is_empty());
            assert_eq!(*single.lock().unwrap(), [vec![0]]);
            with_watchdog(|| pool.shutdown());
            let all = batches.lock().unwrap().concat();
            assert!(all.is_sorted() && all.last() == Some(&5), "{all:?}");
            assert!(overflow == Overflow::DiscardOldest || all.len() == 6);
        });
    }
}

/// Fault 537.
#[test]
fn a_worker_that_waits_for_a_batch_keeps_time_and_one_in_the_batch_gets_would_deadlock() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, (tell, told)) = (bus.clone(), channel());
        let (own, kept) = (bus.clone(), Mutex::new(Vec::new()));
        let _batch = bus.subscription::<u32>().batch(2, Duration::from_millis(2)).handle(move |events| {
            if *events[0] == 0 {
                let next = own.publish(7_u32);
                tell.send(next.wait().is_err()).unwrap();
                kept.lock().unwrap().push(next);
            }
        });
        let _source = bus.subscribe(move |_: &String| {
            let receipts = numbers(0..1, &inner);
            assert_eq!(outcomes(&receipts[0]), ["handled"]);
        });
        let receipt = bus.publish(String::new());
        assert!(told.recv_timeout(LIMIT).unwrap(), "it waits for its own subscription");
        assert_eq!(outcomes(&receipt), ["handled"]);
        with_watchdog(|| bus.wait_idle());
    });
}

/// Fault 537.
#[test]
fn the_end_of_a_subscription_or_pool_cancels_what_waits_for_a_batch() {
    for ends_pool in [false, true] {
        on_grid(|pool| {
            let (bus, letters) = bus_with_letters(&pool);
            let builder = bus.subscription().retry(RetryPolicy::fixed(LONG).max_attempts(2));
            let (guard, batches) = noted(builder, (3, LONG), |_| Err("not now"));
            let receipts = numbers(0..5, &bus);
            wait_until(|| pool.metrics().timers_pending == 2); // the retry, and the linger of the rest
            if ends_pool {
                let _ = pool.shutdown_now();
            } else {
                drop(guard);
                assert_eq!(pool.metrics().timers_pending, 0);
            }
            let told: Vec<_> = receipts.iter().flat_map(outcomes).collect();
            assert!(told[..3].iter().all(|told| told == "failed after 1"), "{told:?}");
            assert!(told[3..].iter().all(|told| told.starts_with("cancelled")), "{told:?}");
            assert_eq!((letters.lock().unwrap().len(), batches.lock().unwrap().len()), (3, 1));
            assert_counts_add_up(&pool);
        });
    }
}

/// Fault 537.
#[test]
fn a_batch_that_was_taken_is_cancelled_if_the_subscription_ends_first() {
    let pool = pool(2, 64);
    let bus = EventBus::new(&pool);
    let gate = Gate::new();
    let passed = gate.clone();
    let (guard, batches) = noted(bus.subscription(), (2, Duration::ZERO), move |_| passed.pass());
    let first = bus.publish(0_u32);
    gate.wait_started(1);
    let waiting = numbers(1..4, &bus);
    let ends = thread::spawn(move || guard.unsubscribe());
    assert!(waiting.iter().flat_map(outcomes).all(|told| told == "cancelled on request"));
    gate.open();
    assert!(ends.join().unwrap());
    assert_eq!((outcomes(&first), batches.lock().unwrap().len()), (vec!["handled".to_owned()], 1));
    assert_counts_add_up(&pool);
}
