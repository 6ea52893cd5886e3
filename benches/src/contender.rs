//! What a workload is, who answers it, and what an answer is.

use std::time::Instant;

use crate::failure::Failure;

/// One question, put to several contenders.
pub(crate) struct Workload {
    pub(crate) question: &'static str,
    /// The first is the one the others are compared with.
    pub(crate) contenders: Vec<Contender>,
}

/// A way to answer it.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Takes one turn.
    pub(crate) play: Box<dyn FnMut() -> Result<Turn, Failure>>,
    /// The process that does the work, if it is not this one.
    pub(crate) process: Option<u32>,
}

/// What a contender is; it decides which targets it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Workcrew,
    /// Another pool of Rust.
    Peer,
    /// No pool, but what bounds one: a bare loop, a static split, a call on the same thread.
    Limit,
    /// A pool of another language, in a process of its own.
    Foreign,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Workcrew, Self::Peer, Self::Limit, Self::Foreign];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Workcrew => "workcrew",
            Self::Peer => "peer",
            Self::Limit => "limit",
            Self::Foreign => "foreign",
        }
    }
}

/// What a contender did in one turn.
pub(crate) struct Turn {
    /// The jobs of the whole turn.
    pub(crate) jobs: usize,
    /// What was measured, in nanoseconds per job: one value for each batch, or for each job.
    pub(crate) nanoseconds: Vec<f64>,
    /// How many tasks ran in each batch, where that is in question.
    pub(crate) ran: Vec<f64>,
}

impl Contender {
    pub(crate) fn new(name: &'static str, kind: Kind, mut play: impl FnMut() -> Turn + 'static) -> Self {
        Self { name: name.to_owned(), kind, play: Box::new(move || Ok(play())), process: None }
    }

    pub(crate) fn workcrew(name: &'static str, play: impl FnMut() -> Turn + 'static) -> Self {
        Self::new(name, Kind::Workcrew, play)
    }

    pub(crate) fn peer(name: &'static str, play: impl FnMut() -> Turn + 'static) -> Self {
        Self::new(name, Kind::Peer, play)
    }

    pub(crate) fn limit(name: &'static str, play: impl FnMut() -> Turn + 'static) -> Self {
        Self::new(name, Kind::Limit, play)
    }
}

/// Times batches of jobs.
pub(crate) fn timed(batches: usize, jobs_per_batch: usize, mut run_batch: impl FnMut()) -> Turn {
    let measure = |_| {
        let started = Instant::now();
        run_batch();
        started.elapsed().as_nanos() as f64 / jobs_per_batch as f64
    };
    Turn { jobs: batches * jobs_per_batch, nanoseconds: (0..batches).map(measure).collect(), ran: Vec::new() }
}

/// How long the turns are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Long beside the tick in which the system counts CPU time.
    Full,
    /// So short that all contenders of all workloads take a turn in seconds.
    Short,
}

impl Scale {
    /// So many of what a full turn has `count`.
    pub(crate) fn of(self, count: usize) -> usize {
        match self {
            Self::Full => count,
            Self::Short => (count / 20).max(1),
        }
    }
}
