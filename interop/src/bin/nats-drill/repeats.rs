//! Why a good job ran again.
//!
//! Each further run of a job has one cause, the first of this list that holds and that is not used up.
//! A cause that is a moment has a number of repeats that it may have.
//!
//! | cause | what must hold | how many |
//! |---|---|---|
//! | the stream was made anew | the job was enqueued again, as it was not done when its stream was deleted | slots of all processes, and calls under way |
//! | it was enqueued twice | its sequence is another, and a server ended between a failed call and its repetition | calls under way, for each end of a server |
//! | a worker died | the process of the earlier run died within `ack_wait` after it | slots, for each death |
//! | the server was killed | the earlier run was before the kill, and the job was stored after it | slots of all processes, for each kill |
//! | the server forgot | the same, beyond that number | the jobs that the server itself shows |
//! | the consumer was deleted | the earlier run was at most `ack_wait` before that or after it | slots of all processes, for each deletion |
//! | the outcome was lost | a worker has told so by an event that names the job | one for each such event |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::crew::{Ending, PROCESSES};
use crate::feed;
use crate::jobs;
use crate::record::{Record, Run};

/// All jobs that can be in the slots of all processes.
pub(crate) const IN_SLOTS: usize = jobs::SLOTS * PROCESSES;
/// For how many milliseconds the outcome of a job may be on its way to the server.
const UNCONFIRMED: u64 = jobs::ACK_WAIT.as_millis() as u64;

/// The end of a server.
#[derive(Clone, Debug)]
pub(crate) struct ServerEnd {
    /// When its process was gone.
    pub(crate) at: u64,
    /// When workers could reach a server again that has the stream.
    pub(crate) until: u64,
    pub(crate) was_killed: bool,
    /// The good jobs that it, or the next leader, had stored afterwards and before any worker could ask.
    pub(crate) stored: BTreeSet<usize>,
}

/// The stream was made anew.
#[derive(Clone, Debug)]
pub(crate) struct Remake {
    pub(crate) at: u64,
    /// The jobs that were enqueued again, and those whose call was under way.
    pub(crate) again: BTreeSet<usize>,
}

/// What the drill did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Causes {
    pub(crate) deaths: Vec<Ending>,
    pub(crate) server_ends: Vec<ServerEnd>,
    pub(crate) deletions: Vec<u64>,
    pub(crate) remakes: Vec<Remake>,
    /// See [`feed::Feed::unsure`].
    pub(crate) unsure: BTreeMap<usize, (u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    StreamRemade,
    EnqueuedTwice,
    WorkerDied,
    ServerKilled,
    ServerForgot,
    ConsumerDeleted,
    OutcomeLost,
    Unknown,
}

impl Cause {
    pub(crate) const ALL: [Self; 8] = [
        Self::WorkerDied,
        Self::ServerKilled,
        Self::ServerForgot,
        Self::ConsumerDeleted,
        Self::StreamRemade,
        Self::EnqueuedTwice,
        Self::OutcomeLost,
        Self::Unknown,
    ];
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StreamRemade => "in slots while the stream was made anew",
            Self::EnqueuedTwice => "enqueued again, and the server had forgotten the id",
            Self::WorkerDied => "in slots of a process that died",
            Self::ServerKilled => "in slots while a server was killed",
            Self::ServerForgot => "confirmed, and forgotten by a killed server",
            Self::ConsumerDeleted => "in slots while the consumer was deleted",
            Self::OutcomeLost => "with an outcome that a worker reported as lost",
            Self::Unknown => "without a cause",
        })
    }
}

/// One run too many, and the run before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeat {
    pub(crate) number: usize,
    pub(crate) earlier: Run,
    pub(crate) later: Run,
    pub(crate) cause: Cause,
    /// The milliseconds from the earlier run to the cause.
    pub(crate) age: u64,
}

/// Finds the cause of every run that was one too many.
pub(crate) fn explain(record: &Record, causes: &Causes) -> Vec<Repeat> {
    let mut explainer = Explainer { causes, record, used: BTreeMap::new() };
    let mut repeats = Vec::new();
    for (number, runs) in &record.done {
        for pair in runs.windows(2) {
            let (cause, age) = explainer.cause(*number, pair[0], pair[1]);
            repeats.push(Repeat { number: *number, earlier: pair[0], later: pair[1], cause, age });
        }
    }
    repeats
}

/// How many repeats each cause may have in all.
pub(crate) fn bound(cause: Cause, causes: &Causes, record: &Record) -> usize {
    let kills = causes.server_ends.iter().filter(|end| end.was_killed);
    match cause {
        Cause::StreamRemade => (IN_SLOTS + feed::THREADS) * causes.remakes.len(),
        Cause::EnqueuedTwice => feed::THREADS * causes.server_ends.len(),
        Cause::WorkerDied => jobs::SLOTS * causes.deaths.len(),
        Cause::ServerKilled => IN_SLOTS * kills.count(),
        Cause::ServerForgot => {
            let shown = |end: &ServerEnd| end.stored.iter().filter(|number| was_done_before(record, **number, end.until)).count();
            kills.map(shown).sum()
        }
        Cause::ConsumerDeleted => IN_SLOTS * causes.deletions.len(),
        Cause::OutcomeLost => record.outcome_lost.len(),
        Cause::Unknown => 0,
    }
}

/// Returns whether a job was done before a moment.
pub(crate) fn was_done_before(record: &Record, number: usize, at: u64) -> bool {
    record.done.get(&number).is_some_and(|runs| runs.iter().any(|run| run.at <= at))
}

struct Explainer<'a> {
    causes: &'a Causes,
    record: &'a Record,
    /// How many repeats each moment has had.
    used: BTreeMap<(Cause, usize), usize>,
}

impl Explainer<'_> {
    fn cause(&mut self, number: usize, earlier: Run, later: Run) -> (Cause, u64) {
        let causes = self.causes;
        let between = |at: u64| earlier.at <= at && at < later.at;
        for (index, remake) in causes.remakes.iter().enumerate() {
            if remake.again.contains(&number) && later.at > remake.at && earlier.sequence != later.sequence {
                self.used.insert((Cause::StreamRemade, index), 1);
                return (Cause::StreamRemade, remake.at.abs_diff(earlier.at));
            }
        }
        if earlier.sequence != later.sequence {
            return self.enqueued_twice(number);
        }
        for (index, death) in causes.deaths.iter().enumerate() {
            let is_it = death.process == earlier.process && between(death.at);
            if is_it && death.at - earlier.at <= UNCONFIRMED && self.has_room(Cause::WorkerDied, index, jobs::SLOTS) {
                return (Cause::WorkerDied, death.at - earlier.at);
            }
        }
        for (index, end) in causes.server_ends.iter().enumerate() {
            let is_it = earlier.at <= end.until && end.at < later.at && end.stored.contains(&number);
            if !end.was_killed || !is_it {
                continue;
            }
            let age = end.at.saturating_sub(earlier.at);
            if age <= UNCONFIRMED && self.has_room(Cause::ServerKilled, index, IN_SLOTS) {
                return (Cause::ServerKilled, age);
            }
            if earlier.at <= end.at {
                return (Cause::ServerForgot, age);
            }
        }
        for (index, at) in causes.deletions.iter().enumerate() {
            let age = at.abs_diff(earlier.at);
            if later.at > *at && age <= UNCONFIRMED && self.has_room(Cause::ConsumerDeleted, index, IN_SLOTS) {
                return (Cause::ConsumerDeleted, age);
            }
        }
        let told = self.record.outcome_lost.iter().filter(|sequence| **sequence == earlier.sequence).count();
        if self.has_room(Cause::OutcomeLost, earlier.sequence as usize, told) {
            return (Cause::OutcomeLost, 0);
        }
        (Cause::Unknown, 0)
    }

    fn enqueued_twice(&mut self, number: usize) -> (Cause, u64) {
        if let Some((from, until)) = self.causes.unsure.get(&number) {
            for (index, end) in self.causes.server_ends.iter().enumerate() {
                let is_between = (*from..=*until).contains(&end.at);
                if is_between && self.has_room(Cause::EnqueuedTwice, index, feed::THREADS) {
                    return (Cause::EnqueuedTwice, end.at - from);
                }
            }
        }
        (Cause::Unknown, 0)
    }

    /// Counts one more repeat of a moment, if it may have one.
    fn has_room(&mut self, cause: Cause, moment: usize, room: usize) -> bool {
        let used = self.used.entry((cause, moment)).or_default();
        *used += 1;
        *used <= room
    }
}
