//! The counts and their bounds.
//!
//! A bound is a target of the project if there is one. The bounds of instructions follow the
//! counts, so that a loss is noticed: lower one when the count falls, raise none without a reason.
//! They leave some room, since inlining changes the counts: 178 and 213 instructions for the same
//! `execute`.

mod heap;
mod instructions;
mod memory;
mod services;
#[cfg(feature = "tracing")]
mod spans;
mod strangers;
mod switches;
mod wedge;

use std::hint::black_box;

use crate::count::Count;
use crate::error::Error;
use crate::probe::Probe;

/// A count, or the reason why there is none.
pub(crate) enum Counted {
    Count(Count),
    Absent { name: &'static str, error: Error },
}

/// The counts that need a process of their own.
const OWN_PROBES: [Probe; 9] = [
    ("idle_ticks", switches::idle_ticks),
    ("idle_switches", switches::idle_switches),
    ("drain_switches", switches::drain_switches),
    ("blocked_switches", switches::blocked_switches),
    ("join_switches", switches::join_switches),
    ("execute", instructions::execute),
    ("spawn", instructions::spawn),
    ("group", instructions::group),
    ("propagate", instructions::propagate),
];

/// Returns all of them.
pub(crate) fn probes() -> Vec<Probe> {
    let probes = OWN_PROBES.into_iter().chain(services::PROBES).chain(strangers::PROBES);
    #[cfg(feature = "tracing")]
    let probes = probes.chain(spans::PROBES);
    probes.collect()
}

/// Counts everything. The peers come last: some end their threads late, and free memory meanwhile.
pub(crate) fn all() -> impl Iterator<Item = Counted> {
    let ours = heap::ours_all().into_iter().chain(memory::ours_all()).chain(switches::counts());
    let ours = ours.chain(instructions::counts()).chain(services::counts()).chain(strangers::counts());
    #[cfg(feature = "tracing")]
    let ours = ours.chain(spans::counts());
    ours.chain(memory::theirs_all()).chain(heap::theirs_all())
}

/// Returns a job that captures `WORDS` words.
fn job<const WORDS: usize>(number: usize) -> impl FnOnce() + Send + 'static {
    let words = [number; WORDS];
    move || {
        black_box(words);
    }
}

/// Returns a count of workcrew, which has a bound.
fn ours(name: &str, value: f64, bound: f64, unit: &str) -> Counted {
    Counted::Count(Count { name: name.to_owned(), value, bound: Some(bound), unit: unit.to_owned() })
}

/// Returns a count of a peer.
fn theirs(name: &str, value: f64, unit: &str) -> Counted {
    Counted::Count(Count { name: name.to_owned(), value, bound: None, unit: unit.to_owned() })
}
