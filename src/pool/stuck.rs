//! The thread that calls the hook of `on_stuck`.
//!
//! | the thread | meaning | next |
//! |---|---|---|
//! | *sleeps* | until the next look | *looks*; *ends*, when the last handle of the pool is gone |
//! | *looks* | has upgraded its weak reference to the pool, and takes a snapshot | *calls*, if there are verdicts and the last call was a minute ago; *sleeps*; *ends*, if the pool has ended |
//! | *calls* | the hook runs, inside the pool like every hook | *sleeps* |
//!
//! It exists only if a hook is set. It has a weak reference to the pool, and is not joined: the
//! hook is user code, and may take long.

use std::io;
use std::time::{Duration, Instant};

use super::inner::PoolInner;
use crate::snapshot::{Limits, Snapshot};
use crate::sync::thread_name::thread_name;
use crate::sync::{self, Arc, Condvar, Mutex, Weak, thread};
use crate::time::deadline::Deadline;

/// The shortest time between two calls of the hook.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest and the longest time between two looks.
const MIN_SLEEP: Duration = Duration::from_millis(10);
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// A hook for pools that seem stuck.
pub(super) type StuckHook = Box<dyn Fn(&Snapshot) + Send + Sync>;

/// The settings of the hook.
#[derive(Default)]
pub(super) struct StuckSettings {
    /// The hook, and how long is too long.
    pub(super) hook: Option<(Duration, StuckHook)>,
    /// How long is too long for tasks with these labels.
    pub(super) labels: Vec<(Arc<str>, Duration)>,
}

impl StuckSettings {
    /// Returns `true` if a time is zero.
    pub(super) fn has_zero(&self) -> bool {
        let times = self.hook.iter().map(|(time, _)| time).chain(self.labels.iter().map(|(_, time)| time));
        times.into_iter().any(Duration::is_zero)
    }
}

/// Ends the thread when it is dropped. Does not wait for it.
pub(crate) struct StuckGuard(Arc<Stop>);

/// Tells the thread to end.
#[derive(Default)]
struct Stop {
    is_stopped: Mutex<bool>,
    changed: Condvar,
}

/// Starts the thread if there is a hook.
pub(super) fn start(pool: &Arc<PoolInner>, settings: StuckSettings, name: &str) -> io::Result<Option<StuckGuard>> {
    let StuckSettings { hook, labels } = settings;
    let Some((default, hook)) = hook else { return Ok(None) };
    let stop: Arc<Stop> = Arc::default();
    let watch = Watch {
        pool: Arc::downgrade(pool),
        name: name.into(),
        stop: Arc::clone(&stop),
        default,
        labels,
        hook,
        last_call: None,
    };
    thread::Builder::new().name(thread_name(name, "stuck")).spawn(move || watch.run())?;
    Ok(Some(StuckGuard(stop)))
}

impl Drop for StuckGuard {
    fn drop(&mut self) {
        *self.0.is_stopped.lock() = true;
        self.0.changed.notify_all();
    }
}

impl Stop {
    /// Sleeps for some time. Returns `true` at once when the thread must end.
    fn sleep(&self, time: Duration) -> bool {
        *self.changed.wait_while(self.is_stopped.lock(), Deadline::after(time), |is_stopped| !is_stopped)
    }
}

/// What the thread owns.
struct Watch {
    pool: Weak<PoolInner>,
    name: Arc<str>,
    stop: Arc<Stop>,
    default: Duration,
    labels: Vec<(Arc<str>, Duration)>,
    hook: StuckHook,
    /// When the hook was called last.
    last_call: Option<Instant>,
}

impl Watch {
    fn run(mut self) {
        let shortest = self.labels.iter().map(|(_, time)| *time).chain([self.default]).min().unwrap_or(self.default);
        let sleep = (shortest / 4).clamp(MIN_SLEEP, MAX_SLEEP);
        while !self.stop.sleep(sleep) {
            let Some(pool) = self.pool.upgrade() else { return };
            if pool.executor.tracker.is_drained() {
                return;
            }
            self.look(&pool);
        }
    }

    fn look(&mut self, pool: &PoolInner) {
        if !is_due(self.last_call, sync::now()) {
            return;
        }
        let limits = Limits { default: self.default, labels: &self.labels };
        let snapshot = pool.snapshot(Arc::clone(&self.name), &limits);
        if !snapshot.verdicts.is_empty() {
            self.last_call = Some(sync::now());
            pool.executor.call_hook(|| (self.hook)(&snapshot));
        }
    }
}

/// Returns `true` if the hook may be called again.
fn is_due(last_call: Option<Instant>, now: Instant) -> bool {
    last_call.is_none_or(|last| now.saturating_duration_since(last) >= MIN_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 570.
    #[test]
    fn the_hook_is_called_at_most_once_a_minute() {
        let now = Instant::now();
        assert!(is_due(None, now));
        assert!(!is_due(Some(now), now) && !is_due(Some(now), now + MIN_INTERVAL - Duration::from_nanos(1)));
        assert!(is_due(Some(now), now + MIN_INTERVAL));
        assert!(!is_due(Some(now + MIN_INTERVAL), now), "the clock of a caller may be older");
    }
}
