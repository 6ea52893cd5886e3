//! Deadlines of tokens that futures wait for.

use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use workcrew::{CancelReason, CancellationToken};

use crate::alarm::{Alarm, poll, poll_ready};
use crate::common::{Counter, LIMIT, with_watchdog};

const SOON: Duration = Duration::from_millis(5);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Fault 320.
#[test]
fn a_passed_deadline_wakes_the_future_without_any_pool() {
    with_watchdog(|| {
        let token = CancellationToken::with_timeout(SOON);
        assert_eq!(block_on(token.cancelled()), CancelReason::Expired);
        let parent = CancellationToken::with_timeout(SOON);
        assert_eq!(poll_ready(&mut parent.child_token().cancelled()), CancelReason::Expired, "an inherited one");
        let past = CancellationToken::with_deadline(Instant::now());
        assert_eq!(block_on(past.cancelled()), CancelReason::Expired);
        let never = CancellationToken::with_timeout(Duration::MAX);
        let mut waits = never.cancelled();
        assert!(poll(&mut waits, &Alarm::new()).is_pending());
        never.cancel();
        assert_eq!(block_on(waits), CancelReason::Requested);
    });
}

/// Fault 320.
#[test]
fn deadlines_wake_in_their_own_order_and_not_in_that_of_the_polls() {
    with_watchdog(|| {
        let (year, soon) = (CancellationToken::with_timeout(YEAR), CancellationToken::with_timeout(SOON));
        let (mut last, mut first) = (year.cancelled(), soon.cancelled());
        let alarm = Alarm::new();
        assert!(poll(&mut last, &alarm).is_pending());
        assert_eq!(poll_ready(&mut first), CancelReason::Expired);
        assert_eq!(alarm.rung.get(), 0);
        year.cancel();
        assert_eq!((alarm.rung.get(), block_on(last)), (1, CancelReason::Requested), "a cancellation comes first");
    });
}

/// Fault 321.
#[test]
fn a_forgotten_future_and_a_panicking_waker_keep_no_deadline_from_the_others() {
    with_watchdog(|| {
        let token = CancellationToken::with_timeout(SOON);
        let panics = Alarm::that(panic::resume);
        let (mut forgotten, mut panicking, mut leaked) = (token.cancelled(), token.cancelled(), token.cancelled());
        let _ = poll(&mut forgotten, &Alarm::new());
        let _ = poll(&mut panicking, &panics);
        let _ = poll(&mut leaked, &Alarm::new());
        std::mem::forget(leaked);
        for _ in 0..3 {
            assert_eq!(poll_ready(&mut CancellationToken::with_timeout(SOON).cancelled()), CancelReason::Expired);
        }
        assert_eq!(poll_ready(&mut token.cancelled()), CancelReason::Expired);
    });
}

mod panic {
    /// Panics without a report.
    pub(super) fn resume() {
        std::panic::resume_unwind(Box::new("a waker"));
    }
}

/// Fault 321.
#[test]
fn a_dropped_future_leaves_no_waker_with_the_deadline() {
    let token = CancellationToken::with_timeout(YEAR);
    let alarm = Alarm::new();
    let mut future = token.cancelled();
    for _ in 0..3 {
        assert!(poll(&mut future, &alarm).is_pending());
    }
    drop(future);
    assert_eq!((Arc::strong_count(&alarm), alarm.rung.get()), (1, 0));
}

/// Fault 321.
#[test]
fn the_last_waker_is_woken_when_the_future_moves_to_another_thread() {
    with_watchdog(|| {
        let token = CancellationToken::with_timeout(Duration::from_millis(30));
        let (first, (last, rings)) = (Alarm::new(), Alarm::with_bell());
        let mut future = token.cancelled();
        if poll(&mut future, &first).is_pending() {
            let mut future = thread::spawn({
                let last = Arc::clone(&last);
                move || {
                    let ended = poll(&mut future, &last).is_ready();
                    (future, ended)
                }
            })
            .join()
            .unwrap();
            if !future.1 {
                rings.recv_timeout(LIMIT).unwrap();
                assert_eq!(poll(&mut future.0, &last), Poll::Ready(CancelReason::Expired));
            }
        }
    });
}

/// Fault 322.
#[test]
fn a_callback_is_called_by_the_poll_that_finds_the_deadline_passed() {
    with_watchdog(|| {
        let token = CancellationToken::with_timeout(SOON);
        let (called, calls) = mpsc::channel();
        let _guard = token.on_cancel(move || called.send(thread::current().id()).unwrap());
        let (alarm, rings) = Alarm::with_bell();
        let mut future = token.cancelled();
        if poll(&mut future, &alarm).is_pending() {
            rings.recv_timeout(LIMIT).unwrap();
            assert!(calls.try_recv().is_err(), "the wake-up alone cancels nothing");
            assert_eq!(poll(&mut future, &alarm), Poll::Ready(CancelReason::Expired));
        }
        assert_eq!(calls.try_recv(), Ok(thread::current().id()));
    });
}

/// Fault 320.
#[test]
fn a_thousand_deadlines_wake_a_thousand_futures() {
    with_watchdog(|| {
        let woken = Counter::new();
        let mut futures: Vec<_> = (0..1_000)
            .map(|n| CancellationToken::with_timeout(Duration::from_micros(n % 50 * 200)).cancelled())
            .collect();
        for future in &mut futures {
            let counted = woken.clone();
            let _ = poll(future, &Alarm::that(move || counted.add()));
        }
        futures.iter_mut().for_each(|future| assert_eq!(poll_ready(future), CancelReason::Expired));
        assert!(woken.get() <= 1_000, "none is woken twice for one poll");
    });
}
