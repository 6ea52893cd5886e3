//! How models are run, and how much: the variable `WORKCREW_MODELS` says `slice` (the default) or `full`.

use std::env;
use std::fmt;
use std::io::{self, Write};

/// How much is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// What a change has to wait for.
    Slice,
    /// What a release has to wait for.
    Full,
}

impl Extent {
    fn of_this_run() -> Self {
        match env::var("WORKCREW_MODELS").as_deref() {
            Ok("full") => Self::Full,
            Ok("slice") | Err(_) => Self::Slice,
            Ok(other) => panic!("WORKCREW_MODELS is `slice` or `full`, not `{other}`"),
        }
    }
}

/// Says what was explored, past the capture of the test harness: who runs a model wants to know.
fn report(words: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "model {words}");
}

#[cfg(workcrew_loom)]
pub(super) use self::every_schedule::explore;
#[cfg(workcrew_shuttle)]
pub(super) use self::random_schedules::explore;

#[cfg(workcrew_loom)]
mod every_schedule {
    use super::{Extent, report};
    use crate::sync::checker::model::Builder;
    use crate::sync::{Serial, Time};
    use std::panic;
    use std::process;
    use std::time::{Duration, Instant};

    /// The most preemptions in one schedule.
    const BOUND: usize = 3;
    /// The longest that one model takes in a slice, and in a full run.
    const SLICE: Duration = Duration::from_secs(5);
    const FULL: Duration = Duration::from_secs(600);
    /// The most steps of one schedule; more are a livelock.
    const STEPS: usize = 20_000;
    /// After how many executions the clock is looked at.
    const STRIDE: usize = 500;

    /// Runs `model` in every schedule of at most [`BOUND`] preemptions, or as many of them as the time allows.
    #[track_caller]
    pub(in crate::models) fn explore(name: &str, time: Time, model: impl Fn() + Send + Sync + 'static) {
        static EXECUTIONS: Serial = Serial::new();
        // The product contains panics, also those by which the checker tells of a deadlock.
        panic::set_hook(Box::new(|panic| {
            report(format_args!("FAILED in execution {}: {panic}", EXECUTIONS.next() - 1));
            process::abort();
        }));
        let mut builder = Builder::new();
        let limit = if Extent::of_this_run() == Extent::Full { FULL } else { SLICE };
        builder.preemption_bound.get_or_insert(BOUND);
        builder.max_branches = STEPS;
        builder.checkpoint_interval = STRIDE;
        builder.max_duration = Some(limit);
        let bound = builder.preemption_bound;
        let started = Instant::now();
        builder.check(move || {
            EXECUTIONS.next();
            time.begin();
            model();
        });
        let (executions, elapsed) = (EXECUTIONS.next() - 1, started.elapsed());
        let extent = if elapsed < limit { "all" } else { "cut off" };
        let bound = bound.unwrap_or(usize::MAX);
        report(format_args!(
            "{name}: {executions} executions, bound {bound}, {extent}, {:.1} s",
            elapsed.as_secs_f64()
        ));
        let _ = panic::take_hook();
    }
}
