//! How models are run and how thoroughly: the variable `WORKCREW_MODELS` is `slice` (the default)
//! or `full`.
//!
//! loom remembers only the last access to each object. So it does not try to move a thread that
//! reads and then writes before an earlier reader. A race is therefore explored twice, once with
//! each operation on the main thread; see [`race`].

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use crate::sync::Ordering::Relaxed;
use crate::sync::{real, thread};

/// Whether the second operation of a race runs on the main thread, instead of the first.
static SWAPPED: real::AtomicBool = real::AtomicBool::new(false);

/// Runs two operations concurrently; returns the results of both.
pub(super) fn race<A, B>(one: impl FnOnce() -> A + Send + 'static, other: impl FnOnce() -> B + Send + 'static) -> (A, B)
where
    A: Send + 'static,
    B: Send + 'static,
{
    if SWAPPED.load(Relaxed) {
        let thread = thread::spawn(one);
        let second = other();
        (join(thread), second)
    } else {
        let thread = thread::spawn(other);
        (one(), join(thread))
    }
}

/// Joins a thread of the model.
pub(super) fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|_| panic!("a thread of the model has panicked"))
}

/// How thoroughly models are explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// A quick run, for each change.
    Slice,
    /// A full run, for each release.
    Full,
}

impl Extent {
    fn of_this_run() -> Self {
        match env::var("WORKCREW_MODELS").as_deref() {
            Ok("full") => Self::Full,
            Ok("slice") | Err(_) => Self::Slice,
            Ok(other) => panic!("WORKCREW_MODELS must be `slice` or `full`, not `{other}`"),
        }
    }
}

/// Reports what was explored. Writes to stderr directly, which the test harness does not capture.
fn report(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "model {message}");
}

/// Returns the seconds, rounded to a tenth.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(workcrew_loom)]
pub(super) use super::explore::every_schedule::{explore, explore_deeper};
#[cfg(workcrew_shuttle)]
pub(super) use super::explore::random_schedules::{explore, explore as explore_deeper, explore_scenario};

#[cfg(workcrew_loom)]
mod every_schedule {
    use super::{Extent, Relaxed, SWAPPED, report, seconds};
    use crate::sync::model::checker::model::Builder;
    use crate::sync::{Arc, IdGenerator, Time, real};
    use std::panic;
    use std::process;
    use std::time::{Duration, Instant};

    /// The limit of preemptions in one schedule.
    const BOUND: usize = 3;
    /// The same limit, for races whose bugs take one more preemption.
    const DEEPER_BOUND: usize = 4;
    /// How long a race is explored in a slice, with each operation on the main thread.
    const SLICE: Duration = Duration::from_secs(1);
    /// The same in a full run.
    const FULL: Duration = Duration::from_secs(60);
    /// The limit of steps in one schedule; more are a livelock.
    const MAX_STEPS: usize = 20_000;
    /// The number of executions between two readings of the clock.
    const STRIDE: usize = 200;

    /// Counts executions.
    static EXECUTIONS: IdGenerator = IdGenerator::new();
    static HOOK: real::Once = real::Once::new();

    /// Runs `model` in every schedule of one preemption, then of two, up to [`BOUND`], while the
    /// time lasts.
    pub(in crate::models) fn explore(name: &str, time: Time, model: impl Fn() + Send + Sync + 'static) {
        explore_up_to(BOUND, name, time, model);
    }

    /// Like [`explore`], but up to [`DEEPER_BOUND`].
    pub(in crate::models) fn explore_deeper(name: &str, time: Time, model: impl Fn() + Send + Sync + 'static) {
        explore_up_to(DEEPER_BOUND, name, time, model);
    }

    fn explore_up_to(max_bound: usize, name: &str, time: Time, model: impl Fn() + Send + Sync + 'static) {
        HOOK.call_once(stop_at_panics);
        let before = EXECUTIONS.next();
        let limit = if Extent::of_this_run() == Extent::Full { FULL } else { SLICE };
        let model = Arc::new(model);
        let (started, mut bound) = (Instant::now(), max_bound);
        for swapped in [false, true] {
            SWAPPED.store(swapped, Relaxed);
            let end = Instant::now() + limit;
            bound = bound.min((1..=max_bound).take_while(|bound| is_explored(*bound, end, time, &model)).count());
        }
        let executions = EXECUTIONS.next() - before - 1;
        let extent = if bound == max_bound { "all" } else { "and a part of the next" };
        let time = seconds(started.elapsed());
        report(format_args!("{name}: {executions} executions, bound {bound} {extent}, {time} s"));
    }

    /// Runs `model` in every schedule of at most `bound` preemptions; returns whether it finished
    /// by `end`.
    fn is_explored(bound: usize, end: Instant, time: Time, model: &Arc<impl Fn() + Send + Sync + 'static>) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        let mut builder = Builder::new();
        builder.preemption_bound = Some(bound);
        builder.max_branches = MAX_STEPS;
        builder.checkpoint_interval = STRIDE;
        builder.max_duration = Some(left);
        let model = Arc::clone(model);
        builder.check(move || {
            EXECUTIONS.next();
            time.begin();
            model();
        });
        Instant::now() < end
    }

    /// Ends the process at the first panic. The crate would contain it, even if the checker reports
    /// a deadlock by it.
    fn stop_at_panics() {
        panic::set_hook(Box::new(|panic| {
            report(format_args!("FAILED in execution {}: {panic}", EXECUTIONS.next()));
            process::abort();
        }));
    }
}

#[cfg(workcrew_shuttle)]
mod random_schedules {
    use super::{Extent, Relaxed, SWAPPED, report, seconds};
    use crate::sync::model::checker::scheduler::{PctScheduler, RandomScheduler};
    use crate::sync::model::checker::{Config, FailurePersistence, Runner};
    use crate::sync::{Arc, Time};
    use std::time::Instant;

    /// The number of schedules of each kind for a race, with each operation on the main thread: in
    /// a slice and in a full run.
    const RACE: [usize; 2] = [500, 20_000];
    /// The number of schedules of each kind for a scenario.
    const SCENARIO: [usize; 2] = [2_000, 200_000];
    /// The number of priority changes in a PCT schedule.
    const CHANGES: usize = 3;

    /// Runs a race in random schedules, with each operation on the main thread.
    pub(in crate::models) fn explore(name: &str, time: Time, model: impl Fn() + Send + Sync + 'static) {
        run(name, time, &[false, true], RACE, model);
    }

    /// Runs a scenario in random schedules.
    pub(in crate::models) fn explore_scenario(name: &str, time: Time, model: impl Fn() + Send + Sync + 'static) {
        run(name, time, &[false], SCENARIO, model);
    }

    fn run(
        name: &str,
        time: Time,
        orders: &[bool],
        [slice, full]: [usize; 2],
        model: impl Fn() + Send + Sync + 'static,
    ) {
        let schedules = if Extent::of_this_run() == Extent::Full { full } else { slice };
        let model = Arc::new(model);
        let started = Instant::now();
        for swapped in orders {
            SWAPPED.store(*swapped, Relaxed);
            let body = || {
                let model = Arc::clone(&model);
                move || {
                    time.begin();
                    model();
                }
            };
            Runner::new(RandomScheduler::new(schedules), config()).run(body());
            Runner::new(PctScheduler::new(CHANGES, schedules), config()).run(body());
        }
        let (each, time) = (schedules * orders.len(), seconds(started.elapsed()));
        report(format_args!("{name}: {each} random and {each} PCT schedules, {time} s"));
    }

    fn config() -> Config {
        let mut config = Config::new();
        config.stack_size = 1 << 18;
        config.failure_persistence = FailurePersistence::Print;
        config
    }
}
