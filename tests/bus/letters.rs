//! Retries, dead letters and unhandled events.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Counter, DropCounter, Mutex, assert_counts_add_up, on_grid, pool};
use crate::{LONG, bus_with_letters, outcomes, wait_until};
use workcrew::CancelReason;
use workcrew::events::{DeadLetter, DeliveryOutcome, EventBus};
use workcrew::retry::{GiveUpReason, RetryPolicy};

#[test]
fn a_delay_holds_no_worker_holds_up_an_ordered_subscription_and_no_concurrent_one() {
    for (concurrent, handled) in [(None, 0), (Some(1), 3)] {
        let pool = pool(1, 1);
        let (bus, letters) = bus_with_letters(&pool);
        let done = Counter::new();
        let counted = done.clone();
        let builder = bus.subscription::<u32>().retry(RetryPolicy::fixed(LONG));
        let builder = if let Some(handlers) = concurrent { builder.concurrent(handlers) } else { builder };
        let guard = builder.handle(move |number| {
            if *number == 0 {
                return Err("busy");
            }
            counted.add();
            Ok(())
        });
        let receipts: Vec<_> = (0..4_u32).map(|number| bus.publish(number)).collect();
        wait_until(|| pool.metrics().timers_pending == 1 && done.get() == handled);
        pool.spawn(|| ()).unwrap().join().unwrap(); // the only worker is free
        assert_eq!(
            (done.get(), receipts[0].is_finished(), bus.wait_idle_timeout(Duration::ZERO)),
            (handled, false, false)
        );
        assert_eq!(pool.metrics().tasks_queued as usize, 4 - handled);
        drop(guard);
        // What has been tried is a dead letter, what has not is cancelled.
        assert_eq!(outcomes(&receipts[0]), ["failed after 1"]);
        let expected = if handled == 0 { "cancelled on request" } else { "handled" };
        assert_eq!(outcomes(&receipts[3]), [expected]);
        let letter = letters.lock().unwrap().pop().unwrap();
        assert_eq!(letter.error().reason(), GiveUpReason::Cancelled(CancelReason::Requested));
        assert_eq!((letter.event(), pool.metrics().timers_pending), (Some(&0_u32), 0));
        bus.wait_idle();
        assert_counts_add_up(&pool);
    }
}

#[test]
fn a_dead_letter_has_the_event_the_subscription_the_attempts_and_two_errors() {
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let tries = Counter::new();
        let counted = tries.clone();
        let policy = RetryPolicy::fixed(Duration::from_micros(100)).max_attempts(3);
        let _guard = bus.subscription::<String>().name("stock").topic("orders").retry(policy).handle(move |_| {
            counted.add();
            Err::<(), _>(format!("try {}", counted.get()))
        });
        let receipt = bus.publish_to("orders", "forty-two".to_owned());
        let deliveries = receipt.wait().unwrap();
        let letter = letters.lock().unwrap().pop().expect("it comes before the receipt knows");
        assert_eq!(letter.event::<String>().unwrap(), "forty-two");
        assert_eq!((letter.event::<u32>(), letter.topic(), letter.subscription()), (None, Some("orders"), "stock"));
        let error = letter.error();
        assert_eq!((error.attempts(), error.reason()), (3, GiveUpReason::Attempts));
        assert_eq!((error.first().to_string(), error.last().to_string()), ("try 1".to_owned(), "try 3".to_owned()));
        assert!(matches!(&deliveries[0].outcome, DeliveryOutcome::Failed(error) if error.attempts() == 3));
        assert_eq!((&*deliveries[0].subscription, letters.lock().unwrap().len()), ("stock", 0));
    });
}

#[test]
fn a_policy_can_distinguish_errors_of_any_type() {
    #[derive(Debug, thiserror::Error)]
    #[error("worth another try: {0}")]
    struct Busy(bool);
    let pool = pool(1, 1);
    let (bus, letters) = bus_with_letters(&pool);
    let policy = RetryPolicy::fixed(Duration::ZERO)
        .max_attempts(5)
        .retry_if(|error: &workcrew::events::BoxError| error.downcast_ref::<Busy>().is_some_and(|busy| busy.0));
    let _guard = bus.subscription::<bool>().retry(policy).handle(|busy| Err::<(), _>(Busy(*busy)));
    let _other = bus.subscribe(|_: &bool| -> Result<(), anyhow::Error> { Err(anyhow::anyhow!("any")) });
    for (busy, attempts, reason) in [(true, 5, GiveUpReason::Attempts), (false, 1, GiveUpReason::Permanent)] {
        bus.publish(busy);
        bus.wait_idle();
        let mut letters = letters.lock().unwrap();
        assert!(
            letters.iter().any(|letter| letter.error().attempts() == attempts && letter.error().reason() == reason)
        );
        letters.clear();
    }
}

#[test]
fn a_handler_without_a_policy_is_given_up_after_one_attempt_and_not_called_permanent() {
    let pool = pool(1, 1);
    let (bus, letters) = bus_with_letters(&pool);
    let _guard = bus.subscribe(|_: &u8| Err::<(), _>("busy"));
    bus.publish(1_u8);
    bus.wait_idle();
    let letters = letters.lock().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].error().attempts(), letters[0].error().reason()), (1, GiveUpReason::Attempts));
}

#[test]
fn a_dead_letter_shows_the_causes_of_the_last_error() {
    #[derive(Debug, thiserror::Error)]
    #[error("no order")]
    struct NoOrder(#[source] std::num::ParseIntError);
    let pool = pool(1, 1);
    let (bus, letters) = bus_with_letters(&pool);
    let _guard = bus.subscribe(|text: &&'static str| text.parse::<u8>().map(drop).map_err(NoOrder));
    bus.publish("x");
    bus.wait_idle();
    let letters = letters.lock().unwrap();
    assert!(letters[0].to_string().ends_with(": no order: invalid digit found in string"), "{}", letters[0]);
}

#[test]
fn an_event_without_subscribers_reaches_the_hook() {
    let pool = pool(1, 1);
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    let bus = EventBus::builder(&pool)
        .on_unhandled(move |event| {
            let topic = event.topic().map(str::to_owned);
            noted.lock().unwrap().push((*event.event::<u32>().unwrap(), topic));
        })
        .build();
    let receipt = bus.publish(1_u32);
    assert_eq!((receipt.handlers(), receipt.is_finished(), receipt.wait().unwrap().len()), (0, true, 0));
    let guard = bus.subscription::<u32>().topic("blue").handle(|_| ());
    bus.publish_to("red", 2_u32);
    bus.publish_to("blue", 3_u32);
    drop(guard);
    bus.publish_to("blue", 4_u32);
    let expected = [(1, None), (2, Some("red".to_owned())), (4, Some("blue".to_owned()))];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn dead_letters_and_receipts_keep_their_event_and_nothing_of_the_bus() {
    on_grid(|pool| {
        let (events, handlers) = (Counter::new(), Counter::new());
        let (bus, letters) = bus_with_letters(&pool); // a hook that keeps its letters
        let (failing, fine) = (DropCounter(handlers.clone()), DropCounter(handlers.clone()));
        bus.subscription::<DropCounter>()
            .name("failing")
            .handle(move |_| {
                let _ = &failing;
                Err::<(), _>("no")
            })
            .detach();
        bus.subscribe(move |_: &DropCounter| {
            let _ = &fine;
        })
        .detach();
        let receipt = bus.publish(DropCounter(events.clone()));
        bus.wait_idle();
        drop(bus);
        wait_until(|| handlers.get() == 2);
        // Only this test keeps the letter. The receipt has all outcomes.
        assert_eq!(outcomes(&receipt), ["failed after 1", "handled"]);
        assert_eq!(&*receipt.wait().unwrap()[0].subscription, "failing");
        wait_until(|| Arc::strong_count(&letters) == 1);
        assert_eq!(events.get(), 0);
        let letter = letters.lock().unwrap().pop().unwrap();
        assert!(letter.event::<DropCounter>().is_some());
        drop((receipt, letter));
        assert_eq!(events.get(), 1);
    });
}

/// The hook owns the collection of letters, and the bus owns the hook. A letter keeps its event and
/// the name of its subscription.
#[test]
fn letters_that_are_kept_by_their_hook_do_not_keep_the_bus_alive() {
    on_grid(|pool| {
        let hook_dropped = Counter::new();
        let held = DropCounter(hook_dropped.clone());
        let kept: Mutex<Vec<DeadLetter>> = Mutex::default();
        let keep = move |letter| {
            let _ = &held;
            kept.lock().unwrap().push(letter);
        };
        let bus = EventBus::builder(&pool).on_dead_letter(keep).build();
        let guard = bus.subscribe(|_: &u32| Err::<(), _>("no"));
        let receipts: Vec<_> = (0..10_u32).map(|number| bus.publish(number)).collect();
        bus.wait_idle();
        assert!(receipts.iter().all(|receipt| outcomes(receipt) == ["failed after 1"]));
        drop((bus, guard, receipts));
        pool.wait_idle();
        wait_until(|| hook_dropped.get() == 1);
    });
}
