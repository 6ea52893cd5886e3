//! Durations of every size, in every method that takes one. None may panic, end a wait early, or
//! delay a result that is there.

use std::time::{Duration, Instant};

use workcrew::{CancelReason, CancellationToken, WorkerPool};

/// The longest wait that this runs to its end.
const MAX_WAIT: Duration = Duration::from_micros(200);

/// Tries one duration in every place. The pool is idle, has one worker, and is idle again
/// afterwards.
///
/// # Errors
///
/// Returns the first deviation from the expected result.
pub fn run(pool: &WorkerPool, duration: Duration) -> Result<(), String> {
    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}, with {duration:?}")) };
    let short = duration <= MAX_WAIT;

    let live = CancellationToken::new();
    let since = Instant::now();
    check(!short || !live.wait_timeout(duration), "a live token is cancelled")?;
    check(!short || since.elapsed() >= duration, "a wait is early")?;

    let cancelled = CancellationToken::new();
    cancelled.cancel();
    check(cancelled.wait_timeout(duration), "a cancelled token is waited for")?;

    // A deadline that the clock cannot hold never passes; one in the past has passed at once.
    if let Some(deadline) = Instant::now().checked_add(duration) {
        let token = live.child_with_deadline(deadline);
        let expired = Instant::now() >= deadline;
        check(!expired || token.reason() == Some(CancelReason::Expired), "a deadline that has passed is not seen")?;
        check(!short || token.wait_timeout(Duration::MAX), "a deadline is not waited for")?;
        check(Instant::now() >= deadline || !token.is_cancelled(), "a deadline is early")?;
    }

    check(pool.wait_idle_timeout(duration), "an idle pool is waited for")?;
    let handle = pool.spawn(|| 7).map_err(|error| error.to_string())?;
    let in_time = handle.wait_timeout(duration);
    check(in_time || duration < Duration::from_secs(10), "a task does not end")?;
    check(handle.join().map_err(|error| error.to_string())? == 7, "a task loses its value")?;

    let mut group = pool.group();
    group.spawn(|| ());
    loop {
        match group.wait_timeout(duration) {
            Ok(values) => break check(values.is_ok_and(|values| values.len() == 1), "a group loses its value")?,
            Err(not_yet) => group = not_yet,
        }
    }
    pool.wait_idle();
    let accepted = pool.try_execute_for(duration, || ());
    check(accepted.is_ok(), "a queue with room refuses")?;
    pool.wait_idle();
    Ok(())
}

/// Makes a duration from twelve bytes. Every magnitude is equally likely.
#[must_use]
pub fn from_bytes(bytes: [u8; 12]) -> Duration {
    let [a, b, c, d, e, f, g, h, shift, kind, ..] = bytes;
    let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> (shift % 64);
    match kind % 8 {
        0 => Duration::MAX,
        1 => Duration::from_secs(word),
        2 => Duration::new(word, 999_999_999),
        3 => Duration::from_secs(i64::MAX as u64 - word % 1_000),
        4 => Duration::from_micros(word % 150),
        _ => Duration::from_nanos(word),
    }
}
