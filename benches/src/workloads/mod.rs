//! What the pools are made to do, and who takes part.
//!
//! Jobs are empty where their own cost is not the question, but each captures a word, as real closures do: a box around
//! nothing would not be allocated. Each contender is waited for by its own means where it has any; the head of each
//! workload says how.

mod batches;
mod files;
mod forks;
mod groups;
mod joins;
mod sizes;
pub(crate) mod spinning;
mod submits;
mod trickle;

use std::hint::black_box;

use crate::contender::{Scale, Workload};
use crate::pools::Pools;

/// Makes one workload.
pub(crate) type Make = fn(&'static Pools, Scale) -> Workload;

/// All of them, by name, in the order of the targets. Made only when they are played: some make threads or files.
pub(crate) const WORKLOADS: [(&str, Make); 14] = [
    ("w1_submit", submits::one_producer),
    ("w2_producers", submits::four_producers),
    ("w3_join", joins::back_to_back),
    ("w3_join_idle", joins::after_idleness),
    ("w4_group", groups::group_of_1000),
    ("w5_first_error", groups::first_error),
    ("w6t_tree", forks::tree),
    ("w6f_fork_join", forks::fork_join),
    ("w7_work_5us", spinning::five_microseconds),
    ("w7_work_50us", spinning::fifty_microseconds),
    ("w8_files", files::checksums),
    ("w9_trickle", trickle::ten_thousand_a_second),
    ("w11_jobs", sizes::jobs),
    ("w11_workers", sizes::workers),
];

/// A job that does nothing, but captures a word.
pub(crate) fn empty(number: usize) -> impl FnOnce() + Send + 'static {
    move || {
        black_box(number);
    }
}

/// A task whose result is the word it captures.
pub(crate) fn result(number: usize) -> impl FnOnce() -> usize + Send + 'static {
    move || black_box(number)
}
