//! The promises that every backend of a bus must keep. A backend defines how it subscribes and
//! publishes; `bus_conformance!` creates a test for each promise.
//!
//! A backend that may deliver an event more than once sets `EXACTLY_ONCE` to false. The tests then
//! compare the set of events instead of their number.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests fail by panicking, and share by `pub`")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use super::common::{Counter, Gate, Mutex, in_threads, quiet_panics, with_watchdog};

/// An event: the number of its publisher, and its number among that publisher's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbered {
    pub publisher: usize,
    pub number: usize,
}

/// How to subscribe.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// `None`: every topic.
    pub topic: Option<&'static str>,
    pub once: bool,
    /// The maximum number of concurrent deliveries; 1 means in order.
    pub concurrent: usize,
    /// In all, without delay.
    pub attempts: u32,
}

impl How {
    pub const PLAIN: Self = Self { topic: None, once: false, concurrent: 1, attempts: 1 };
}

pub type Handle = Box<dyn Fn(&Numbered) -> Result<(), String> + Send + Sync>;

/// A bus to be tested.
pub trait Backend: Sync {
    /// Whether an event that was handled never comes again.
    const EXACTLY_ONCE: bool;

    /// Ends the subscription when dropped: nothing is taken up afterwards.
    type Guard: Send;

    fn subscribe(&self, how: How, handle: Handle) -> Self::Guard;
    fn publish(&self, topic: Option<&str>, event: Numbered);
    /// Blocks until everything published is handled or given up.
    fn wait_idle(&self);
    /// Events given up so far.
    fn dead_letters(&self) -> Vec<Numbered>;
}

type Log = Arc<Mutex<Vec<Numbered>>>;

fn logging(log: &Log) -> Handle {
    let log = Arc::clone(log);
    Box::new(move |event| {
        log.lock().unwrap().push(*event);
        Ok(())
    })
}

fn publish_all<B: Backend>(bus: &B, publishers: usize, each: usize) {
    in_threads(|threads| {
        for publisher in 0..publishers {
            threads.spawn(move || (0..each).for_each(|number| bus.publish(None, Numbered { publisher, number })));
        }
    });
    bus.wait_idle();
}

fn assert_complete<B: Backend>(log: &Log, publishers: usize, each: usize) {
    let mut events = log.lock().unwrap().clone();
    events.sort();
    if !B::EXACTLY_ONCE {
        events.dedup();
    }
    let all = (0..publishers).flat_map(|publisher| (0..each).map(move |number| Numbered { publisher, number }));
    assert!(events.iter().copied().eq(all), "{} events", events.len());
}

/// Every subscription gets every event of every publisher.
pub fn every_subscription_gets_every_event<B: Backend>(bus: &B) {
    let logs: Vec<Log> = (0..5).map(|_| Log::default()).collect();
    let _guards: Vec<_> = logs.iter().map(|log| bus.subscribe(How::PLAIN, logging(log))).collect();
    publish_all(bus, 4, 500);
    logs.iter().for_each(|log| assert_complete::<B>(log, 4, 500));
}

/// An ordered subscription sees each publisher's events in their order, also when some are tried again.
pub fn order_is_kept<B: Backend>(bus: &B) {
    let (log, failures) = (Log::default(), Counter::new());
    let (noted, failed) = (Arc::clone(&log), failures.clone());
    let tried: Mutex<BTreeMap<Numbered, u32>> = Mutex::default();
    let handle: Handle = Box::new(move |event| {
        let mut tried = tried.lock().unwrap();
        let tries = tried.entry(*event).or_insert(0);
        *tries += 1;
        if event.number.is_multiple_of(7) && *tries < 3 {
            failed.add();
            return Err("not yet".to_owned());
        }
        noted.lock().unwrap().push(*event);
        Ok(())
    });
    let _guard = bus.subscribe(How { attempts: 3, ..How::PLAIN }, handle);
    publish_all(bus, 3, 200);
    assert_complete::<B>(&log, 3, 200);
    assert!(failures.get() >= 2 * 3 * 200_usize.div_ceil(7));
    let mut last = [None; 3];
    for event in log.lock().unwrap().iter() {
        assert!(last[event.publisher] < Some(event.number), "{event:?}");
        last[event.publisher] = Some(event.number);
    }
}

/// A concurrent subscription handles up to `concurrent` events at once, and never more.
pub fn concurrency_is_bounded<B: Backend>(bus: &B) {
    let (most, ran) = (Arc::new(Mutex::new(0)), Counter::new());
    let now: Arc<Mutex<usize>> = Arc::default();
    let (noted, counted, running) = (Arc::clone(&most), ran.clone(), Arc::clone(&now));
    let handle: Handle = Box::new(move |_| {
        {
            let mut running = running.lock().unwrap();
            *running += 1;
            let mut most = noted.lock().unwrap();
            *most = (*most).max(*running);
        }
        (0..20).for_each(|_| thread::yield_now());
        *running.lock().unwrap() -= 1;
        counted.add();
        Ok(())
    });
    let _guard = bus.subscribe(How { concurrent: 3, ..How::PLAIN }, handle);
    publish_all(bus, 4, 100);
    assert!(ran.get() >= 400 && *most.lock().unwrap() <= 3, "{}", most.lock().unwrap());
}

/// A handler that fails or panics does not affect other subscriptions, and gets the next event.
pub fn a_failing_handler_affects_no_other_subscription<B: Backend>(bus: &B) {
    quiet_panics();
    let (good, called) = (Log::default(), Counter::new());
    let (panics, fails) = (called.clone(), called.clone());
    let _guards = (
        bus.subscribe(
            How::PLAIN,
            Box::new(move |_| {
                panics.add();
                panic!("as the test wants it")
            }),
        ),
        bus.subscribe(How::PLAIN, logging(&good)),
        bus.subscribe(
            How::PLAIN,
            Box::new(move |_| {
                fails.add();
                Err("as the test wants it".to_owned())
            }),
        ),
    );
    publish_all(bus, 2, 50);
    assert_complete::<B>(&good, 2, 50);
    assert!(called.get() >= 200);
}

/// An event that fails in every attempt is given up once; its attempts are counted in all.
pub fn attempts_end_in_one_dead_letter<B: Backend>(bus: &B) {
    let tries = Counter::new();
    let counted = tries.clone();
    let handle: Handle = Box::new(move |_| {
        counted.add();
        Err("never".to_owned())
    });
    let _guard = bus.subscribe(How { attempts: 4, ..How::PLAIN }, handle);
    let event = Numbered { publisher: 0, number: 9 };
    bus.publish(None, event);
    bus.wait_idle();
    assert_eq!(bus.dead_letters(), [event]);
    assert!(tries.get() == 4 || !B::EXACTLY_ONCE && tries.get() > 4);
}

/// One that listens once gets one event, however many publish at the same time.
pub fn once_is_once<B: Backend>(bus: &B) {
    let logs: Vec<Log> = (0..20).map(|_| Log::default()).collect();
    let how = How { once: true, ..How::PLAIN };
    let _guards: Vec<_> = logs.iter().map(|log| bus.subscribe(how, logging(log))).collect();
    publish_all(bus, 8, 50);
    for log in &logs {
        let mut events = log.lock().unwrap().clone();
        if !B::EXACTLY_ONCE {
            events.dedup();
        }
        assert_eq!(events.len(), 1);
    }
}

/// Topics divide; no topic takes all.
pub fn topics_are_kept_apart<B: Backend>(bus: &B) {
    let logs = [Log::default(), Log::default(), Log::default()];
    let topics = [Some("red"), Some("blue"), None];
    let _guards: Vec<_> =
        logs.iter().zip(topics).map(|(log, topic)| bus.subscribe(How { topic, ..How::PLAIN }, logging(log))).collect();
    for (number, topic) in [Some("red"), Some("blue"), Some("red"), Some("green"), None].into_iter().enumerate() {
        bus.publish(topic, Numbered { publisher: 0, number });
    }
    bus.wait_idle();
    let numbers = logs.map(|log| log.lock().unwrap().iter().map(|event| event.number).collect::<Vec<_>>());
    assert_eq!(numbers, [vec![0, 2], vec![1], vec![0, 1, 2, 3, 4]]);
}

/// After the guard is gone nothing is taken up, though events wait and more are published.
pub fn no_delivery_starts_after_the_guard_is_dropped<B: Backend>(bus: &B) {
    let (gate, starts) = (Gate::new(), Counter::new());
    let (inside, counted) = (gate.clone(), starts.clone());
    let guard = bus.subscribe(
        How::PLAIN,
        Box::new(move |_| {
            counted.add();
            inside.pass();
            Ok(())
        }),
    );
    for number in 0..10 {
        bus.publish(None, Numbered { publisher: 0, number });
    }
    gate.wait_started(1);
    drop(guard);
    bus.publish(None, Numbered { publisher: 0, number: 10 });
    gate.open();
    with_watchdog(|| bus.wait_idle());
    assert_eq!(starts.get(), 1);
}

/// Makes a test of each promise, for the backends that `$make` makes.
#[macro_export]
macro_rules! bus_conformance {
    ($make:expr; $($promise:ident)*) => { $(
        #[test]
        fn $promise() {
            $crate::common::with_watchdog(|| {
                for bus in $make {
                    $crate::bus_conformance::$promise(&bus);
                }
            });
        }
    )* };
    ($make:expr) => {
        $crate::bus_conformance! { $make;
            every_subscription_gets_every_event
            order_is_kept
            concurrency_is_bounded
            a_failing_handler_affects_no_other_subscription
            attempts_end_in_one_dead_letter
            once_is_once
            topics_are_kept_apart
            no_delivery_starts_after_the_guard_is_dropped
        }
    };
}
