//! The event bus on real pools.
#![cfg(feature = "events")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bus_conformance;
mod common;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use bus_conformance::{Backend, Handle, How, Numbered};
use common::{
    BlockedWorkers, Bomb, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, in_threads, on_grid, pool,
    quiet_panics, with_watchdog,
};
use workcrew::events::{
    DeadLetter, DeliveryOutcome, EventBus, Receipt, Subscription, SubscriptionBuilder, WouldDeadlock,
};
use workcrew::retry::{AttemptError, GiveUpReason, RetryPolicy};
use workcrew::{CancelReason, Observer, Overflow, TaskInfo, WorkerPool};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);

/// The bus of this crate as the conformance suite sees it.
struct Local {
    bus: EventBus,
    letters: Arc<Mutex<Vec<Numbered>>>,
    _pool: WorkerPool,
}

impl Local {
    fn new(workers: usize, mailbox: usize) -> Self {
        let pool = WorkerPool::builder().workers(workers).queue_capacity(1).build().unwrap();
        let letters: Arc<Mutex<Vec<Numbered>>> = Arc::default();
        let kept = Arc::clone(&letters);
        let bus = EventBus::builder(&pool)
            .mailbox_capacity(mailbox)
            .on_dead_letter(move |letter| kept.lock().unwrap().push(*letter.event::<Numbered>().unwrap()))
            .build();
        Self { bus, letters, _pool: pool }
    }
}

impl Backend for Local {
    const EXACTLY_ONCE: bool = true;
    type Guard = Subscription;

    fn subscribe(&self, how: How, handle: Handle) -> Subscription {
        let mut builder = self.bus.subscription::<Numbered>();
        if let Some(topic) = how.topic {
            builder = builder.topic(topic);
        }
        if how.once {
            builder = builder.once();
        }
        if how.concurrent > 1 {
            builder = builder.concurrent(how.concurrent);
        }
        builder.retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(how.attempts)).handle(move |event| handle(event))
    }

    fn publish(&self, topic: Option<&str>, event: Numbered) {
        match topic {
            Some(topic) => self.bus.publish_to(topic, event),
            None => self.bus.publish(event),
        };
    }

    fn wait_idle(&self) {
        self.bus.wait_idle();
    }

    fn dead_letters(&self) -> Vec<Numbered> {
        self.letters.lock().unwrap().clone()
    }
}

mod conformance {
    use super::Local;

    // The last one holds ten events that wait, so its mailboxes are no smaller than that.
    crate::bus_conformance! { [Local::new(1, 16), Local::new(2, 16), Local::new(8, 16), Local::new(2, 1024)] }
}

/// A bus on a pool, and what it was told of.
fn bus_with_letters(pool: &WorkerPool) -> (EventBus, Arc<Mutex<Vec<DeadLetter>>>) {
    let letters: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
    let kept = Arc::clone(&letters);
    let bus = EventBus::builder(pool).on_dead_letter(move |letter| kept.lock().unwrap().push(letter)).build();
    (bus, letters)
}

fn wait_until(done: impl Fn() -> bool) {
    with_watchdog(|| {
        while !done() {
            thread::yield_now();
        }
    });
}

fn outcomes(receipt: &workcrew::events::Receipt) -> Vec<String> {
    let of = |outcome: DeliveryOutcome| match outcome {
        DeliveryOutcome::Handled => "handled".to_owned(),
        DeliveryOutcome::Failed(error) => format!("failed after {}", error.attempts()),
        DeliveryOutcome::Cancelled(reason) => reason.to_string(),
        DeliveryOutcome::Refused => "refused".to_owned(),
        other => unreachable!("{other:?}"),
    };
    receipt.wait().unwrap().into_iter().map(|delivery| of(delivery.outcome)).collect()
}

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

/// Fault 136c.
#[test]
fn a_panicking_handler_does_not_affect_other_handlers() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let handled = Counter::new();
        let (before, after) = (handled.clone(), handled.clone());
        let _guards = (
            bus.subscribe(move |_: &u32| before.add()),
            bus.subscribe(|number: &u32| -> () { panic!("at {number}") }),
            bus.subscription::<u32>().synchronous().handle(|_| -> () { panic!("on the publisher's thread") }),
            bus.subscribe(move |_: &u32| after.add()),
        );
        for number in 0..20_u32 {
            let receipt = bus.publish(number);
            assert_eq!(outcomes(&receipt), ["handled", "failed after 1", "failed after 1", "handled"]);
        }
        bus.wait_idle();
        assert_eq!((handled.get(), letters.lock().unwrap().len(), pool.metrics().tasks_panicked), (40, 40, 40));
        let letter = letters.lock().unwrap().iter().find(|letter| letter.event() == Some(&7_u32)).cloned().unwrap();
        assert!(matches!(letter.error().last(), AttemptError::Panicked(_)));
        assert_counts_add_up(&pool);
    });
}

/// Fault 136d.
#[test]
fn unsubscribing_waits_for_a_running_handler_only_when_asked_to() {
    on_grid(|pool| {
        for asked in [false, true] {
            let bus = EventBus::new(&pool);
            let (gate, done) = (Gate::new(), Counter::new());
            let (inside, counted) = (gate.clone(), done.clone());
            let subscription = bus.subscribe(move |_: &u32| {
                inside.pass();
                counted.add();
            });
            let receipts = [bus.publish(1_u32), bus.publish(2_u32)];
            gate.wait_started(1);
            if asked {
                thread::scope(|threads| {
                    let ended = threads.spawn(|| subscription.unsubscribe());
                    // What waited is cancelled before the handler's end is waited for.
                    assert_eq!(outcomes(&receipts[1]), ["cancelled on request"]);
                    assert!(!ended.is_finished());
                    gate.open();
                    assert!(ended.join().unwrap());
                });
                assert_eq!(done.get(), 1);
            } else {
                drop(subscription);
                assert_eq!(done.get(), 0);
                gate.open();
            }
            assert_eq!(bus.publish(3_u32).handlers(), 0);
            bus.wait_idle();
            assert_eq!((outcomes(&receipts[0]), done.get()), (vec!["handled".to_owned()], 1));
        }
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_handler_can_end_its_own_subscription() {
    on_grid(|pool| {
        let (bus, dropped) = (EventBus::new(&pool), Counter::new());
        let slot: Arc<Mutex<Option<Subscription>>> = Arc::default();
        let (own, held, ready) = (Arc::clone(&slot), DropCounter(dropped.clone()), Gate::new());
        let set = ready.clone();
        let subscription = bus.subscribe(move |_: &u32| {
            let _ = &held;
            set.pass();
            let own = own.lock().unwrap().take();
            assert!(!own.unwrap().unsubscribe(), "it is still running");
        });
        *slot.lock().unwrap() = Some(subscription);
        let receipts: Vec<_> = (0..3_u32).map(|number| bus.publish(number)).collect();
        ready.open();
        bus.wait_idle();
        assert_eq!(receipts.iter().flat_map(outcomes).filter(|outcome| outcome == "handled").count(), 1);
        wait_until(|| dropped.get() == 1);
    });
}

/// Fault 136e.
#[test]
fn once_handlers_run_once_under_eight_publishers() {
    with_watchdog(|| {
        for synchronous in [false, true] {
            let pool = pool(2, 8);
            let bus = EventBus::new(&pool);
            let counters: Vec<Counter> = (0..200).map(|_| Counter::new()).collect();
            let guards: Vec<_> = counters
                .iter()
                .map(|counter| {
                    let counter = counter.clone();
                    let builder = bus.subscription::<usize>().once();
                    if synchronous { builder.synchronous() } else { builder }.handle(move |_| counter.add())
                })
                .collect();
            in_threads(|threads| {
                for publisher in 0..8_usize {
                    let bus = &bus;
                    threads.spawn(move || (0..50).for_each(|number| drop(bus.publish(publisher * 50 + number))));
                }
            });
            bus.wait_idle();
            assert!(counters.iter().all(|counter| counter.get() == 1));
            assert!(!bus.has_subscribers::<usize>());
            drop(guards);
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn a_once_handler_that_fails_gets_its_event_again_and_no_other() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
        let _guard = bus.subscription::<u32>().once().retry(policy).handle(move |number| {
            noted.lock().unwrap().push(*number);
            if noted.lock().unwrap().len() < 3 { Err("not yet") } else { Ok(()) }
        });
        let first = bus.publish(1_u32);
        assert_eq!(bus.publish(2_u32).handlers(), 0);
        assert_eq!((outcomes(&first), seen.lock().unwrap().clone()), (vec!["handled".to_owned()], vec![1, 1, 1]));
    });
}

/// Fault 136f.
#[test]
fn a_subscription_made_during_a_publish_gets_the_next_event() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, late) = (bus.clone(), Counter::new());
        let counted = late.clone();
        let kept: Mutex<Vec<Subscription>> = Mutex::default();
        let _guard = bus.subscription::<u32>().synchronous().handle(move |_| {
            let counted = counted.clone();
            kept.lock().unwrap().push(inner.subscribe(move |_: &u32| counted.add()));
        });
        for (handlers, handled) in [(1, 0), (2, 1), (3, 3)] {
            let receipt = bus.publish(0_u32);
            receipt.wait().unwrap();
            assert_eq!((receipt.handlers(), late.get()), (handlers, handled));
        }
        bus.wait_idle();
    });
}

#[test]
fn ten_thousand_handlers_are_all_called() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        let bus = EventBus::new(&pool);
        let called = Counter::new();
        let guards: Vec<_> = (0..10_000)
            .map(|_| {
                let called = called.clone();
                bus.subscribe(move |_: &u32| called.add())
            })
            .collect();
        let receipt = bus.publish(1_u32);
        assert_eq!(receipt.handlers(), 10_000);
        let deliveries = receipt.wait().unwrap();
        assert!(deliveries.iter().all(|delivery| matches!(delivery.outcome, DeliveryOutcome::Handled)));
        assert_eq!((deliveries.len(), called.get()), (10_000, 10_000));
        drop(guards);
        bus.wait_idle();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 10_000);
    });
}

#[test]
fn a_slow_handler_holds_up_no_other() {
    on_grid(|pool| {
        if pool.workers() == 1 {
            return;
        }
        let bus = EventBus::new(&pool);
        let (gate, quick) = (Gate::new(), Counter::new());
        let (inside, counted) = (gate.clone(), quick.clone());
        let _guards = (bus.subscribe(move |_: &u32| inside.pass()), bus.subscribe(move |_: &u32| counted.add()));
        (0..100_u32).for_each(|number| drop(bus.publish(number)));
        wait_until(|| quick.get() == 100);
        gate.wait_started(1);
        assert_eq!(gate.started(), 1);
        gate.open();
        bus.wait_idle();
        assert_eq!(gate.started(), 100);
    });
}

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
                assert_eq!(publisher.join().unwrap().handlers(), 0);
            });
            gate.open();
            bus.wait_idle();
        });
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        assert_counts_add_up(&pool);
    }
}

#[test]
fn a_handler_may_publish_and_wait_on_a_pool_of_one_worker() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let inner = bus.clone();
        let policy = RetryPolicy::fixed(Duration::from_micros(300)).max_attempts(3);
        let tries = Counter::new();
        let counted = tries.clone();
        let _sink = bus.subscription::<u64>().retry(policy).handle(move |_| {
            counted.add();
            if counted.get().is_multiple_of(3) { Ok(()) } else { Err("once more") }
        });
        let _source = bus.subscribe(move |number: &u32| {
            let receipt = inner.publish(u64::from(*number));
            assert_eq!(outcomes(&receipt), ["handled"]);
        });
        let receipts: Vec<_> = (0..5_u32).map(|number| bus.publish(number)).collect();
        with_watchdog(|| assert!(receipts.iter().flat_map(outcomes).all(|outcome| outcome == "handled")));
        assert_eq!(tries.get(), 15);
    });
}

#[test]
fn a_handler_that_waits_for_a_delivery_to_itself_gets_would_deadlock() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, told) = (bus.clone(), Counter::new());
        let counted = told.clone();
        let _guard = bus.subscribe(move |number: &u32| {
            if *number > 0 && inner.publish(number - 1).wait().is_err() {
                counted.add();
            }
        });
        bus.publish(3_u32);
        with_watchdog(|| bus.wait_idle());
        assert_eq!(told.get(), 3);
    });
}

/// What a handler is told that waits for the very event it is handling, in its attempt of that number.
fn would_deadlock_on_own_event(
    pool: &WorkerPool,
    subscribe: impl FnOnce(SubscriptionBuilder<'_, u32>) -> SubscriptionBuilder<'_, u32>,
    attempt: usize,
) -> (bool, Result<(), WouldDeadlock>) {
    let bus = EventBus::new(pool);
    let ((give, own), (tell, told)) = (channel::<Receipt>(), channel());
    let (own, tries) = (Mutex::new(own), Counter::new());
    let builder = bus.subscription().retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(attempt as u32));
    let _guard = subscribe(builder).handle(move |_: &u32| {
        tries.add();
        if tries.get() < attempt {
            return Err("not yet");
        }
        let own = own.lock().unwrap().recv().unwrap();
        tell.send((own.wait_timeout(Duration::MAX), own.wait().map(drop))).unwrap();
        Ok(())
    });
    let receipt = bus.publish(0_u32);
    give.send(receipt).unwrap();
    let told = told.recv().unwrap();
    bus.wait_idle();
    told
}

#[test]
fn a_handler_that_waits_for_the_event_it_is_handling_gets_would_deadlock() {
    on_grid(|pool| {
        let ordered = would_deadlock_on_own_event(&pool, |builder| builder, 1);
        let concurrent = would_deadlock_on_own_event(&pool, |builder| builder.concurrent(4), 1);
        let again = would_deadlock_on_own_event(&pool, |builder| builder.concurrent(4), 2);
        // A synchronous handler has the publisher's thread first, and its receipt is there only after that.
        let synchronous = would_deadlock_on_own_event(&pool, |builder| builder.name("synchronous").synchronous(), 2);
        for (is_finished, waited) in [ordered, concurrent, again, synchronous] {
            assert!(!is_finished && waited.is_err());
        }
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_concurrent_handler_may_wait_for_another_event_of_its_own_subscription() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, handled) = (bus.clone(), Counter::new());
        let counted = handled.clone();
        let _guard = bus.subscription::<u32>().concurrent(16).handle(move |number| {
            if *number > 0 {
                inner.publish(number - 1).wait().expect("a runner is free, this thread for one");
            }
            counted.add();
        });
        bus.publish(3_u32).wait().unwrap();
        assert_eq!(handled.get(), 4);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_concurrent_handler_may_wait_for_an_event_that_the_last_free_runner_is_handling() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        for round in 0..20_u32 {
            let bus = EventBus::new(&pool);
            let (inner, gate) = (bus.clone(), Gate::new());
            let inside = gate.clone();
            let _guard = bus.subscription::<u32>().concurrent(2).handle(move |number| {
                if *number == 0 {
                    return inside.pass();
                }
                let receipt = inner.publish(0_u32);
                inside.wait_started(1);
                receipt.wait().expect("it is being handled");
            });
            let receipt = bus.publish(1_u32);
            gate.wait_started(1);
            (0..round * 20).for_each(|_| thread::yield_now());
            gate.open();
            assert_eq!(outcomes(&receipt), ["handled"]);
        }
    });
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
fn waiting_for_events_nested_too_deep_is_an_error_and_never_hangs() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let (inner, told, handled) = (bus.clone(), Counter::new(), Counter::new());
        let (counted, counts) = (told.clone(), handled.clone());
        let _guard = bus.subscription::<u32>().concurrent(1_000).mailbox_capacity(1_000).handle(move |number| {
            counts.add();
            if *number > 0 && inner.publish(number - 1).wait().is_err() {
                counted.add();
            }
        });
        bus.publish(30_u32).wait().unwrap();
        assert_eq!((told.get(), handled.get()), (0, 31));
        bus.publish(pool.workers() as u32 * 200).wait().unwrap();
        bus.wait_idle();
        assert!(told.get() > 0, "it is deeper than all workers together may be");
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_concurrent_subscription_makes_use_of_workers_that_come_later() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let inside = gate.clone();
        let _guard = bus.subscription::<u32>().concurrent(4).handle(move |_| inside.pass());
        (0..8_u32).for_each(|number| drop(bus.publish(number)));
        gate.wait_started(1);
        pool.resize(4).unwrap();
        gate.wait_started(4);
        gate.open();
        bus.wait_idle();
        assert_eq!(gate.started(), 8);
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

#[test]
fn a_worker_that_waits_with_the_longest_timeout_helps() {
    on_grid(|pool| {
        let bus = EventBus::new(&pool);
        let _guard = bus.subscribe(|_: &u32| ());
        let waits: Vec<_> = (0..pool.workers())
            .map(|_| {
                let inner = bus.clone();
                pool.spawn(move || inner.publish(0_u32).wait_timeout(Duration::MAX)).unwrap()
            })
            .collect();
        assert!(waits.into_iter().all(|wait| wait.join().unwrap()));
    });
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

#[test]
fn no_handler_is_called_after_the_drop_of_the_guard() {
    struct Holds(Gate);
    impl Observer for Holds {
        fn task_started(&self, _: &TaskInfo<'_>) {
            self.0.pass();
        }
    }
    with_watchdog(|| {
        for retrying in [false, true] {
            let (gate, called) = (Gate::new(), Counter::new());
            let pool = WorkerPool::builder().workers(1).observer(Holds(gate.clone())).build().unwrap();
            let (bus, letters) = bus_with_letters(&pool);
            let counted = called.clone();
            let builder = bus.subscription::<u32>();
            let builder = if retrying { builder.retry(RetryPolicy::fixed(LONG)) } else { builder };
            let guard = builder.handle(move |_| counted.add());
            let receipt = bus.publish(0_u32);
            gate.wait_started(1); // between the taking and the handler
            drop(guard);
            gate.open();
            assert_eq!(outcomes(&receipt), ["cancelled on request"]);
            bus.wait_idle();
            assert_eq!((called.get(), letters.lock().unwrap().len(), pool.metrics().tasks_cancelled), (0, 0, 1));
            pool.shutdown();
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn waiting_for_idle_inside_a_handler_panics_and_with_a_timeout_returns_false() {
    quiet_panics();
    let pool = pool(1, 1);
    let (bus, letters) = bus_with_letters(&pool);
    let inner = bus.clone();
    let _guard = bus.subscribe(move |_: &u32| {
        assert!(!inner.wait_idle_timeout(LONG));
        inner.wait_idle();
    });
    bus.publish(1_u32);
    bus.wait_idle();
    let letters = letters.lock().unwrap();
    assert!(letters[0].error().to_string().contains("cannot wait for its own bus"), "{}", letters[0]);
}

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

#[test]
fn events_and_handlers_with_panicking_destructors_do_no_harm() {
    quiet_panics();
    on_grid(|pool| {
        let (bus, letters) = bus_with_letters(&pool);
        let (dropped, handled) = (Counter::new(), Counter::new());
        let (held, counted) = (Bomb(dropped.clone()), handled.clone());
        let guard = bus.subscribe(move |_: &Bomb| {
            let _ = &held;
            counted.add();
        });
        let held = bus.publish(Bomb(dropped.clone())); // this thread drops the event last
        for _ in 0..4 {
            bus.publish(Bomb(dropped.clone()));
        }
        wait_until(|| handled.get() == 5);
        drop(guard);
        wait_until(|| dropped.get() == 5);
        held.wait().unwrap();
        drop(held);
        assert_eq!(dropped.get(), 6);
        bus.wait_idle();
        pool.wait_idle();
        assert!(letters.lock().unwrap().is_empty());
        assert_counts_add_up(&pool);
    });
}

#[test]
fn each_delivery_is_a_task_with_the_name_of_its_subscription() {
    let pool = pool(1, 1);
    let bus = EventBus::new(&pool);
    let gate = Gate::new();
    let inside = gate.clone();
    let _guard = bus.subscription::<u32>().name("accounting").handle(move |_| inside.pass());
    bus.publish(1_u32);
    gate.wait_started(1);
    let running = pool.running();
    assert_eq!(running.iter().map(|task| task.label()).collect::<Vec<_>>(), [Some("accounting")]);
    assert!(running[0].location().file().ends_with("bus.rs"));
    gate.open();
    bus.wait_idle();
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

#[test]
fn a_thread_that_waits_for_a_receipt_and_one_that_waits_for_idle_are_both_woken() {
    let pool = pool(1, 1);
    let bus = EventBus::new(&pool);
    let _guard = bus.subscribe(|_: &u32| ());
    with_watchdog(|| {
        for number in 0..2_000_u32 {
            let receipt = bus.publish(number);
            if number % 2 == 0 {
                bus.wait_idle();
                assert!(receipt.is_finished());
            } else {
                receipt.wait().unwrap();
            }
        }
    });
    let (sender, receiver) = channel();
    drop(bus.subscription::<u8>().handle(move |number| sender.send(*number)));
    assert!(receiver.recv().is_err(), "the handler is freed with its guard");
}
