//! The targets, and whether they are met.
//!
//! Targets are ratios of figures from one run. "The best" is the pool with the lowest median in it.
//! Target 10, that disabled features cost nothing, needs no peer: `counts` bounds the instructions.

use crate::candidate::Kind;
use crate::figures::Figures;
use crate::placement::Placement::{self, Free, One};
use crate::results::Results;

use Bound::{AtLeast, AtMost};

/// A target.
pub(crate) struct Target {
    /// Begins with the number of the target.
    pub(crate) text: &'static str,
    pub(crate) bound: Bound,
    /// Whether it may be missed.
    pub(crate) is_stretch: bool,
    /// Returns `None` if a figure that it needs was not measured.
    pub(crate) figure: fn(&Results) -> Option<f64>,
}

/// The bound of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub(crate) fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(bound) => figure <= bound,
            Self::AtLeast(bound) => figure >= bound,
        }
    }
}

const fn target(text: &'static str, bound: Bound, figure: fn(&Results) -> Option<f64>) -> Target {
    Target { text, bound, is_stretch: false, figure }
}

const fn stretch(text: &'static str, bound: Bound, figure: fn(&Results) -> Option<f64>) -> Target {
    Target { text, bound, is_stretch: true, figure }
}

const KIBIBYTES_80: f64 = 81_920.0;

pub(crate) const TARGETS: [Target; 42] = [
    target("1. W1 free: by the best Rust pool", AtMost(0.5), |all| to_best_peer(all, Free, "w1_submit")),
    target("1. W1 one: by the best Rust pool", AtMost(0.5), |all| to_best_peer(all, One, "w1_submit")),
    target("1. W2 free: by the best Rust pool", AtMost(0.5), |all| to_best_peer(all, Free, "w2_producers")),
    target("1. W2 one: by the best Rust pool", AtMost(0.5), |all| to_best_peer(all, One, "w2_producers")),
    stretch("1. W1 free: by the best of Go and Java", AtMost(1.0), |all| to_go_and_java(all, Free, "w1_submit")),
    stretch("1. W2 free: by the best of Go and Java", AtMost(1.0), |all| to_go_and_java(all, Free, "w2_producers")),
    stretch("1. W1 free, overflow CallerRuns: by the best of Go and Java", AtMost(1.0), |all| {
        let ours = all.candidate(Free, "w1_submit", "workcrew_caller_runs")?;
        Some(ours.ratio / all.best_of(Free, "w1_submit", is_go_or_java)?.ratio)
    }),
    target("2. W3 free: p50 by the best Rust pool", AtMost(0.9), |all| to_best_peer(all, Free, "w3_join")),
    target("2. W3 one: p50 by the best Rust pool", AtMost(0.9), |all| to_best_peer(all, One, "w3_join")),
    target("2. W3 free: p99 by the best Rust pool", AtMost(1.0), |all| p99_to_best_peer(all, Free, "w3_join")),
    target("2. W3 one: p99 by the best Rust pool", AtMost(1.0), |all| p99_to_best_peer(all, One, "w3_join")),
    stretch("2. W3 free: p50 by the best Rust pool", AtMost(0.5), |all| to_best_peer(all, Free, "w3_join")),
    target("2. W3 after 200 µs, free: by the best Rust pool", AtMost(0.6), |all| {
        to_best_peer(all, Free, "w3_join_idle")
    }),
    target("3. W4 free: by rayon's scope", AtMost(0.35), |all| to(all, Free, "w4_group", "rayon_scope")),
    target("3. W4 one: by rayon's scope", AtMost(0.6), |all| to(all, One, "w4_group", "rayon_scope")),
    stretch("3. W4 free: by oneTBB", AtMost(1.0), |all| to(all, Free, "w4_group", "tbb_task_group")),
    stretch("3. W4 free: by Go's channel", AtMost(1.0), |all| {
        to_best_of(all, Free, "w4_group", |figures| figures.candidate.starts_with("go_channel"))
    }),
    target("4. W5 free: by Go's errgroup", AtMost(1.0), |all| to(all, Free, "w5_first_error", "go_errgroup")),
    target("4. W5 free: tasks run, less one for each worker", AtMost(99.0), |all| ran(all, Free)),
    target("4. W5 one: tasks run, less one for each worker", AtMost(99.0), |all| ran(all, One)),
    target("5. W6t free: by the best Rust pool", AtMost(0.5), |all| to_best_peer(all, Free, "w6t_tree")),
    target("5. W6f free: groups by rayon's join", AtMost(20.0), |all| to(all, Free, "w6f_fork_join", "rayon_join")),
    target("5. W6f free: handles by rayon's join", AtMost(20.0), |all| {
        Some(
            all.candidate(Free, "w6f_fork_join", "workcrew_spawn")?.ratio
                * to(all, Free, "w6f_fork_join", "rayon_join")?,
        )
    }),
    target("6. W7 5 µs, free: of a static split", AtLeast(0.9), |all| of_split(all, Free, "w7_work_5us")),
    target("6. W7 50 µs, free: of a static split", AtLeast(0.97), |all| of_split(all, Free, "w7_work_50us")),
    target("6. W7 5 µs, one: of a static split", AtLeast(0.9), |all| of_split(all, One, "w7_work_5us")),
    target("6. W7 50 µs, one: of a static split", AtLeast(0.9), |all| of_split(all, One, "w7_work_50us")),
    target("6. W8 free: by the best Rust pool", AtMost(1.0), |all| to_best_peer(all, Free, "w8_files")),
    target("7. W9: CPU ticks of 64 idle workers", AtMost(0.0), |all| all.count("w9_idle_ticks")),
    target("7. W9 free: p50 by the best Rust pool", AtMost(1.1), |all| to_best_peer(all, Free, "w9_trickle")),
    target("7. W9 one: p50 by the best Rust pool", AtMost(1.1), |all| to_best_peer(all, One, "w9_trickle")),
    target("7. W9 free: CPU by the best of any Rust pool", AtMost(1.0), |all| cpu(all, Free, "w9_trickle")),
    target("7. W9 one: CPU by the best of any Rust pool", AtMost(1.0), |all| cpu(all, One, "w9_trickle")),
    target("8. W12: allocations of an execute of 3 words", AtMost(0.0), |all| all.count("execute_3_words")),
    target("8. W12: allocations of a spawn with a handle", AtMost(1.0), |all| all.count("spawn_and_join")),
    target("8. W12: allocations of a task in a group of 1,000", AtMost(0.1), |all| all.count("group_task")),
    target("8. W10: bytes of a place in the queue", AtMost(64.0), |all| all.count("bytes_of_a_slot")),
    target("8. W10: bytes of an idle pool of 1,024 places", AtMost(KIBIBYTES_80), |all| all.count("bytes_of_a_pool")),
    target("9. W11 free: deviation from 10⁴ to 10⁷ jobs", AtMost(0.15), |all| deviation(all, Free)),
    target("9. W11 one: deviation from 10⁴ to 10⁷ jobs", AtMost(0.15), |all| deviation(all, One)),
    target("9. W11 free: most of 2 to 64 workers by 2", AtMost(1.5), |all| of_workers(all, Free)),
    target("9. W11 one: most of 2 to 64 workers by 2", AtMost(1.5), |all| of_workers(all, One)),
];

/// Returns the time of workcrew divided by that of a candidate.
fn to(all: &Results, placement: Placement, workload: &str, candidate: &str) -> Option<f64> {
    all.candidate(placement, workload, candidate).map(|theirs| 1.0 / theirs.ratio)
}

/// Returns the time of workcrew divided by the best among those for which `takes_part` is true.
fn to_best_of(
    all: &Results,
    placement: Placement,
    workload: &str,
    takes_part: impl Fn(&Figures) -> bool,
) -> Option<f64> {
    all.best_of(placement, workload, takes_part).map(|theirs| 1.0 / theirs.ratio)
}

fn to_best_peer(all: &Results, placement: Placement, workload: &str) -> Option<f64> {
    to_best_of(all, placement, workload, |figures| figures.kind == Kind::Peer)
}

fn p99_to_best_peer(all: &Results, placement: Placement, workload: &str) -> Option<f64> {
    Some(all.ours(placement, workload)?.p99 / all.best(placement, workload, Kind::Peer)?.p99)
}

fn to_go_and_java(all: &Results, placement: Placement, workload: &str) -> Option<f64> {
    to_best_of(all, placement, workload, is_go_or_java)
}

fn is_go_or_java(figures: &Figures) -> bool {
    figures.candidate.starts_with("go_") || figures.candidate.starts_with("java_")
}

/// Returns the time of a static split divided by that of workcrew.
fn of_split(all: &Results, placement: Placement, workload: &str) -> Option<f64> {
    all.candidate(placement, workload, "static_split").map(|split| split.ratio)
}

/// Returns how many tasks of the group ran, less one for each worker. It is the median: while the
/// failing task has no CPU, other tasks run on.
fn ran(all: &Results, placement: Placement) -> Option<f64> {
    all.ours(placement, "w5_first_error").map(|ours| ours.ran - all.workers as f64)
}

fn cpu(all: &Results, placement: Placement, workload: &str) -> Option<f64> {
    let mut peers = all.candidates(placement, workload);
    peers.retain(|figures| figures.kind == Kind::Peer);
    let best = peers.iter().map(|figures| figures.cpu).min_by(f64::total_cmp)?;
    Some(all.ours(placement, workload)?.cpu / best)
}

/// Returns how far the extremes are from their middle.
fn deviation(all: &Results, placement: Placement) -> Option<f64> {
    let (least, most) = extremes(all, placement, "w11_jobs", |_| true)?;
    Some((most - least) / (most + least))
}

fn of_workers(all: &Results, placement: Placement) -> Option<f64> {
    let (_, most) = extremes(all, placement, "w11_workers", |figures| figures.candidate != "workers_1")?;
    Some(most)
}

/// Returns the lowest and the highest ratio.
fn extremes(
    all: &Results,
    placement: Placement,
    workload: &str,
    takes_part: impl Fn(&Figures) -> bool,
) -> Option<(f64, f64)> {
    let ratios = all
        .candidates(placement, workload)
        .into_iter()
        .filter(|figures| takes_part(figures))
        .map(|figures| figures.ratio);
    let ratios: Vec<f64> = ratios.collect();
    Some((ratios.iter().copied().min_by(f64::total_cmp)?, ratios.iter().copied().max_by(f64::total_cmp)?))
}
