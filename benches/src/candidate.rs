//! Workloads, the candidates that are compared in each, and their samples.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// One question, and the candidates that are compared.
pub(crate) struct Workload {
    pub(crate) question: &'static str,
    /// The first is workcrew. The others are compared with it.
    pub(crate) candidates: Vec<Candidate>,
}

/// A pool, or another way to run the jobs of a workload.
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Takes one sample.
    pub(crate) run: Box<dyn FnMut() -> Result<Sample, Error>>,
    /// The process that runs the jobs, if it is not this one.
    pub(crate) process: Option<u32>,
}

/// The kind of a candidate. It decides which targets the candidate counts for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Kind {
    Workcrew,
    /// Another pool in Rust.
    Peer,
    /// A limit for every pool: a bare loop, a static split, a call on the same thread.
    Limit,
    /// A pool in another language, in a process of its own.
    External,
}

/// One measurement of a candidate.
pub(crate) struct Sample {
    /// The number of jobs.
    pub(crate) jobs: usize,
    /// Nanoseconds per job: one value for each batch or each job.
    pub(crate) nanoseconds: Vec<f64>,
    /// How many tasks ran in each batch, if the workload asks.
    pub(crate) ran: Vec<f64>,
}

impl Candidate {
    pub(crate) fn new(name: &'static str, kind: Kind, mut run: impl FnMut() -> Sample + 'static) -> Self {
        Self { name: name.to_owned(), kind, run: Box::new(move || Ok(run())), process: None }
    }

    pub(crate) fn workcrew(name: &'static str, run: impl FnMut() -> Sample + 'static) -> Self {
        Self::new(name, Kind::Workcrew, run)
    }

    pub(crate) fn peer(name: &'static str, run: impl FnMut() -> Sample + 'static) -> Self {
        Self::new(name, Kind::Peer, run)
    }

    pub(crate) fn limit(name: &'static str, run: impl FnMut() -> Sample + 'static) -> Self {
        Self::new(name, Kind::Limit, run)
    }
}

/// Runs batches of jobs and times each.
pub(crate) fn timed(batches: usize, jobs_per_batch: usize, mut run_batch: impl FnMut()) -> Sample {
    let measure = |_| {
        let started = Instant::now();
        run_batch();
        started.elapsed().as_nanos() as f64 / jobs_per_batch as f64
    };
    Sample { jobs: batches * jobs_per_batch, nanoseconds: (0..batches).map(measure).collect(), ran: Vec::new() }
}

/// Candidates whose names do not follow from the pool and the way of using it.
const SPOKEN_NAMES: [(&str, &str); 11] = [
    ("crossbeam_loop", "channel and loop"),
    ("static_split", "threads by hand"),
    ("thread_scope_split", "threads by hand"),
    ("go_channel_1024", "Go, channel of 1,024"),
    ("go_channel_100", "Go, channel of 100"),
    ("java_caller_runs", "Java, CallerRuns"),
    ("java_blocking_put", "Java, blocking put"),
    ("tbb_task_group", "C++, oneTBB"),
    ("tokio_join_set", "tokio, JoinSet"),
    ("go_errgroup", "Go, errgroup"),
    ("rusty_pool", "rusty_pool"),
];

/// Returns the name of a candidate for readers that do not know the bench.
pub(crate) fn spoken_name(candidate: &str) -> String {
    let known = SPOKEN_NAMES.iter().find(|(name, _)| *name == candidate);
    let composed = || match candidate.split_once('_') {
        Some((pool, way)) => format!("{pool}, {way}"),
        None => candidate.to_owned(),
    };
    known.map_or_else(composed, |(_, name)| (*name).to_owned())
}

/// The size of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Much longer than the tick in which the system counts CPU time.
    Full,
    /// Small: one sample of every candidate of every workload takes seconds.
    Short,
}

impl Scale {
    /// Returns `count` for a full sample, and a twentieth of it for a short one.
    pub(crate) fn of(self, count: usize) -> usize {
        match self {
            Self::Full => count,
            Self::Short => (count / 20).max(1),
        }
    }
}
