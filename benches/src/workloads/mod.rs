//! The workloads, and the candidates of each.
//!
//! Jobs are empty where their own cost is not the question. Each captures a word, as real closures
//! do: a box of nothing would not be allocated. A candidate is waited for by its own means if it
//! has any; the head of each workload says how.

mod batches;
mod files;
mod forks;
mod groups;
mod joins;
mod keys;
mod settings;
mod sizes;
pub(crate) mod spinning;
mod submits;
mod trickle;

use std::hint::black_box;

use crate::candidate::{Scale, Workload};
use crate::pools::Pools;

/// A workload that can run.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// A name for people. Begins with the number that the targets use.
    pub(crate) title: &'static str,
    /// Called only before the workload runs: some start threads or write files.
    pub(crate) make: fn(&'static Pools, Scale) -> Workload,
}

const fn entry(name: &'static str, title: &'static str, make: fn(&'static Pools, Scale) -> Workload) -> Entry {
    Entry { name, title, make }
}

/// All workloads, in the order of the targets.
pub(crate) const WORKLOADS: [Entry; 16] = [
    entry("w1_submit", "W1: one producer, empty jobs", submits::one_producer),
    entry("w2_producers", "W2: four producers, empty jobs", submits::four_producers),
    entry("w3_join", "W3: one task, from submission to result", joins::back_to_back),
    entry("w3_join_idle", "W3: the same, pool idle for 200 µs", joins::after_idleness),
    entry("w4_group", "W4: group of 1,000 tasks, per task", groups::group_of_1000),
    entry("w5_first_error", "W5: group whose 100th task fails, per group", groups::first_error),
    entry("w6t_tree", "W6t: jobs that submit jobs", forks::tree),
    entry("w6f_fork_join", "W6f: fib(24) by fork and join, per fork", forks::fork_join),
    entry("w7_work_5us", "W7: jobs of 5 µs", spinning::five_microseconds),
    entry("w7_work_50us", "W7: jobs of 50 µs", spinning::fifty_microseconds),
    entry("w8_files", "W8: SHA-256 of small files", files::checksums),
    entry("w9_trickle", "W9: 10,000 jobs a second, until each starts", trickle::ten_thousand_a_second),
    entry("w11_jobs", "W11: W1 with 10,000 to 10,000,000 jobs", sizes::jobs),
    entry("w11_workers", "W11: W1 with 1 to 64 workers", sizes::workers),
    entry("w13_keys", "W13: one producer, empty tasks of 64 keys", keys::keys),
    entry("w14_settings", "W14: W1 with contexts and with classes", settings::settings),
];

/// Returns a job that does nothing, but captures a word.
pub(crate) fn empty(number: usize) -> impl FnOnce() + Send + 'static {
    move || {
        black_box(number);
    }
}

/// Returns a task that returns the word that it captures.
pub(crate) fn result(number: usize) -> impl FnOnce() -> usize + Send + 'static {
    move || black_box(number)
}
