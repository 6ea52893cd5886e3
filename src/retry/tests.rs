//! Tests of delays without a clock, and of a task with a manual clock.

use std::panic::Location;
use std::time::{Duration, Instant};

use super::attempts::{RetryDecision, RetryState};
use super::task::RetryTask;
use super::{Attempt, ErrorClass, GiveUpReason, RetryBudget, RetryPolicy};
use crate::cancel::token::CancellationToken;
use crate::error::GroupError;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::{Arc, Mutex};
use crate::task::job::Task;
use crate::task::join::JoinTarget;
use crate::timer::tests::Bench;
use crate::timer::thread::MAX_TIMERS;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the delay after each of `failures` failures.
fn delays(policy: RetryPolicy<()>, failures: usize) -> Vec<Duration> {
    let (now, root) = (Instant::now(), CancellationToken::new());
    let mut attempts = RetryState::new(policy.max_attempts(u32::MAX), now);
    let delay = |_| {
        let _ = attempts.begin(&root, now);
        match attempts.failed(ErrorClass::Transient, now) {
            RetryDecision::After(delay) => delay,
            RetryDecision::GiveUp(reason) => panic!("given up: {reason}"),
        }
    };
    (0..failures).map(delay).collect()
}

/// Fault 134.
#[test]
fn delays_grow_to_the_cap_and_stay_there_at_any_number_of_attempts() {
    for base in [Duration::from_nanos(1), Duration::from_millis(100), SECOND, SECOND * 3_600, Duration::MAX] {
        for cap in [SECOND, SECOND * 60, SECOND * 4_000_000_000, Duration::MAX] {
            for jitter in [false, true] {
                let policy = RetryPolicy::exponential().base_delay(base).max_delay(cap).jitter(jitter);
                let delays = delays(policy, 2_000);
                let century = Duration::from_secs(3_155_760_000);
                let top = cap.min(century);
                assert!(jitter || delays[0] == base.min(top));
                for attempt in [0, 1, 31, 32, 56, 57, 63, 64, 999, 1_999] {
                    let delay = delays[attempt];
                    // A delay that jitter has carried past the cap is halved.
                    let lowest = if jitter { top / 2 } else { top };
                    let least = base.saturating_mul(1 << attempt.min(31)).min(lowest).mul_f64(0.99);
                    assert!(delay >= least && delay <= cap, "{base:?} {cap:?} {jitter}: {attempt} {delay:?}");
                }
                assert!(jitter || delays[1_999] >= top.mul_f64(0.99), "{base:?} {cap:?}: {:?}", delays[1_999]);
            }
        }
    }
}

/// Fault 607.
#[test]
fn a_policy_shows_its_delays_without_jitter_and_without_a_task() {
    let shown = |policy: RetryPolicy<()>| policy.delays().collect::<Vec<_>>();
    assert_eq!(shown(RetryPolicy::fixed(SECOND).max_attempts(3)), [SECOND, SECOND]);
    assert!(shown(RetryPolicy::fixed(SECOND).max_attempts(0)).is_empty());
    let policy = || RetryPolicy::exponential().base_delay(SECOND).max_delay(6 * SECOND);
    assert_eq!(shown(policy().max_attempts(5)), [SECOND, 2 * SECOND, 4 * SECOND, 6 * SECOND]);
    assert_eq!(shown(policy().jitter(false).max_attempts(9)), delays(policy().jitter(false), 8));
    // An iterator that is lazy, since a policy may allow any number of attempts.
    assert_eq!(RetryPolicy::<()>::fixed(SECOND).max_attempts(u32::MAX).delays().nth(1_000), Some(SECOND));
}

/// Fault 135.
#[test]
fn jitter_lengthens_by_less_than_the_delay_and_never_past_the_cap() {
    let policy = RetryPolicy::exponential().base_delay(SECOND).max_delay(10 * SECOND);
    let mut seen = Vec::new();
    for _ in 0..200 {
        let delays = delays(policy.clone(), 6);
        assert!(delays[0] >= SECOND && delays[0] < 2 * SECOND, "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= 10 * SECOND), "{delays:?}");
        seen.push(delays[0]);
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 100, "the jitter is not random: {seen:?}");
    assert_eq!(delays(RetryPolicy::fixed(SECOND), 50), [SECOND; 50]);
    // Not a number of single precision.
    let odd = Duration::new(86_399, 123_456_789);
    assert_eq!(delays(RetryPolicy::fixed(odd), 50), [odd; 50]);
    assert_eq!(delays(RetryPolicy::fixed(Duration::MAX), 2), [Duration::from_secs(3_155_760_000); 2]);
    assert_eq!(delays(RetryPolicy::fixed(Duration::ZERO), 2), [Duration::ZERO; 2]);
}

/// Fault 135.
#[test]
fn jitter_at_the_cap_lies_between_half_of_it_and_the_cap() {
    let policy = RetryPolicy::exponential().base_delay(SECOND).max_delay(10 * SECOND);
    let delays = delays(policy, 1_000);
    let capped = &delays[4..]; // 1, 2, 4, 8, 10, 10 …
    assert!(capped.iter().all(|delay| (5 * SECOND..=10 * SECOND).contains(delay)), "{capped:?}");
    // A thousand draws cover nearly the whole range.
    let (least, most) = (capped.iter().min().expect("some"), capped.iter().max().expect("some"));
    assert!(*least < 6 * SECOND && *most > 9 * SECOND, "{least:?} to {most:?}");
    let mut seen = capped.to_vec();
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 900, "the jitter is not random: {seen:?}");
}

#[test]
fn the_limit_counts_all_attempts_and_zero_counts_as_one() {
    let (now, root) = (Instant::now(), CancellationToken::new());
    for (max, made) in [(0, 1), (1, 1), (2, 2), (7, 7)] {
        let mut attempts = RetryState::<()>::new(RetryPolicy::fixed(SECOND).max_attempts(max), now);
        let mut last = attempts.begin(&root, now);
        while let RetryDecision::After(_) = attempts.failed(ErrorClass::Transient, now) {
            assert!(!last.is_last());
            last = attempts.begin(&root, now);
        }
        assert_eq!((attempts.made(), last.number(), last.is_last()), (made, made, true));
    }
}

/// Fault 135.
#[test]
fn a_requested_delay_is_kept_and_a_delay_past_the_deadline_is_not_begun() {
    let now = Instant::now();
    let root = CancellationToken::new();
    let policy = RetryPolicy::<()>::fixed(5 * SECOND).max_delay(5 * SECOND).timeout(60 * SECOND);
    let mut attempts = RetryState::new(policy, now);
    let _ = attempts.begin(&root, now);
    assert_eq!(attempts.failed(ErrorClass::RetryAfter(50 * SECOND), now), RetryDecision::After(50 * SECOND));
    assert_eq!(
        attempts.failed(ErrorClass::RetryAfter(60 * SECOND), now),
        RetryDecision::GiveUp(GiveUpReason::Deadline)
    );
    assert_eq!(
        attempts.failed(ErrorClass::RetryAfter(Duration::MAX), now),
        RetryDecision::GiveUp(GiveUpReason::Deadline)
    );
    assert_eq!(attempts.failed(ErrorClass::Permanent, now), RetryDecision::GiveUp(GiveUpReason::Permanent));
    let later = now + 54 * SECOND;
    assert_eq!(attempts.failed(ErrorClass::Transient, later), RetryDecision::After(5 * SECOND));
    assert_eq!(attempts.failed(ErrorClass::Transient, later + SECOND), RetryDecision::GiveUp(GiveUpReason::Deadline));
    // A deadline that the clock cannot represent is no deadline.
    let mut endless = RetryState::<()>::new(RetryPolicy::fixed(SECOND).timeout(Duration::MAX), now);
    let _ = endless.begin(&root, now);
    assert_eq!(endless.failed(ErrorClass::Transient, now), RetryDecision::After(SECOND));
}

#[test]
fn clones_share_a_budget_that_retries_withdraw_from_and_successes_deposit_in() {
    let (now, root) = (Instant::now(), CancellationToken::new());
    let policy = RetryPolicy::<()>::fixed(SECOND).budget(RetryBudget::new(2).deposit_ratio(0.5)).max_attempts(u32::MAX);
    let mut one = RetryState::new(policy.clone(), now);
    let mut other = RetryState::new(policy, now);
    let _ = (one.begin(&root, now), other.begin(&root, now));
    assert_eq!(one.failed(ErrorClass::Transient, now), RetryDecision::After(SECOND));
    assert_eq!(other.failed(ErrorClass::Transient, now), RetryDecision::After(SECOND));
    assert_eq!(one.failed(ErrorClass::Transient, now), RetryDecision::GiveUp(GiveUpReason::Budget));
    other.succeeded();
    assert_eq!(one.failed(ErrorClass::Transient, now), RetryDecision::GiveUp(GiveUpReason::Budget));
    other.succeeded();
    assert_eq!(one.failed(ErrorClass::Transient, now), RetryDecision::After(SECOND));
    // The budget never holds more than at the start, and a ratio out of range counts as the nearest
    // end.
    for (ratio, left) in [(f64::NAN, 0), (-1.0, 0), (f64::INFINITY, 1), (2.0, 1), (0.000_1, 0)] {
        let budget = RetryBudget::new(1).deposit_ratio(ratio);
        assert!(budget.withdraw() && !budget.withdraw(), "{ratio}");
        budget.deposit();
        budget.deposit();
        assert_eq!(budget.retries_left(), left, "{ratio}");
    }
}

#[test]
fn attempts_are_made_when_their_delays_are_over_and_not_before() {
    let bench = Bench::new();
    let (executor, timers) = (&bench.executor, &bench.timers);
    let id = executor.admit(Location::caller(), None).expect("it is open");
    let start = bench.clock.now();
    let made = Arc::new(Mutex::new(Vec::new()));
    let (noted, watch) = (Arc::clone(&made), bench.clock.clone());
    let policy = RetryPolicy::exponential().base_delay(SECOND).jitter(false).max_attempts(4);
    let attempts = RetryState::new(policy, start);
    let f = move |_| {
        noted.lock().push((watch.now() - start).as_secs());
        Err::<(), _>("not yet")
    };
    let reservation = timers.reserve().expect("there is room");
    let limits = (super::no_limits(), Priority::Normal);
    let task =
        RetryTask::new(f, attempts, Some(reservation), Arc::clone(timers), limits, (id, Location::caller(), None));
    task.run(executor);
    for delay in [1, 2, 4] {
        bench.advance(SECOND * delay - Duration::from_nanos(1));
        assert_eq!((bench.run_due(), timers.len(), task.is_done()), (0, 1, false));
        bench.advance(Duration::from_nanos(1));
        assert_eq!(bench.run_due(), 1);
    }
    assert_eq!(*made.lock(), [0, 1, 3, 7]);
    let error = task.take().expect("it is done").expect("it was tried").expect_err("it failed");
    assert_eq!((error.attempts(), error.reason()), (4, GiveUpReason::Attempts));
    assert!(executor.tracker.is_idle());
    assert_eq!(timers.len(), 0);
}

#[test]
#[cfg(feature = "nats")]
fn attempts_made_elsewhere_count_and_their_delays_are_skipped() {
    let start = Instant::now();
    let policy = || RetryPolicy::<()>::exponential().base_delay(Duration::from_secs(1)).jitter(false).max_attempts(9);
    let whole = delays(policy(), 8);
    for made in 0..8 {
        let mut attempts = RetryState::resume(policy(), start, made);
        attempts.count();
        let expected = RetryDecision::After(whole[made as usize]);
        assert_eq!((attempts.made(), attempts.failed(ErrorClass::Transient, start)), (made + 1, expected));
    }
    for made in [8, u32::MAX] {
        let mut attempts = RetryState::resume(policy(), start, made);
        attempts.count();
        assert_eq!(attempts.failed(ErrorClass::Transient, start), RetryDecision::GiveUp(GiveUpReason::Attempts));
    }
}

#[test]
fn at_the_limit_of_pending_timers_the_closure_is_returned() {
    let pool = WorkerPool::builder().workers(1).build().expect("it can be built");
    let timers = pool.timers().expect("a thread can be started");
    let reserved: Vec<_> = (0..MAX_TIMERS).map(|_| timers.reserve().ok()).collect();
    let refused =
        pool.spawn_with_retry(RetryPolicy::exponential(), |_| Ok::<_, ()>(())).expect_err("all timers are taken");
    assert!(refused.is_full() && !refused.is_shut_down());
    assert_eq!(pool.metrics().tasks_submitted, 0);
    drop(reserved);
    let handle = pool.spawn_with_retry(RetryPolicy::exponential(), refused.into_inner()).expect("there is room");
    assert!(handle.join().expect("it is not cancelled").is_ok());
}

/// Fault 623.
#[test]
#[cfg_attr(workcrew_model, allow(clippy::result_large_err, reason = "a model's types are larger"))]
fn at_the_limit_of_pending_timers_an_item_of_a_map_has_one_attempt() {
    let pool = WorkerPool::builder().workers(1).build().expect("it can be built");
    let timers = pool.timers().expect("a thread can be started");
    let reserved: Vec<_> = (0..MAX_TIMERS).map(|_| timers.reserve().ok()).collect();
    let policy = || RetryPolicy::fixed(Duration::ZERO);
    let fails_once =
        |fails: &bool, attempt: Attempt| if *fails && attempt.number() == 1 { Err("busy") } else { Ok(()) };
    let results = pool.map_with_retry([false, true], policy(), fails_once);
    let mut results = results.map(|result| result.expect("it is not cancelled"));
    assert!(results.next().is_some_and(|result| result.is_ok()));
    let error = results.next().expect("there is a second item").expect_err("it has failed");
    assert_eq!((error.attempts(), error.reason()), (1, GiveUpReason::NoTimer));
    match pool.try_map_with_retry([false, true], policy(), fails_once) {
        Err(GroupError::Failed(error)) => assert_eq!((error.attempts(), error.reason()), (1, GiveUpReason::NoTimer)),
        other => panic!("{other:?}"),
    }
    drop(reserved);
    assert!(pool.try_map_with_retry([false, true], policy(), fails_once).is_ok());
}
