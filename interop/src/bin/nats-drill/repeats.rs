//! The causes of repeated runs.
//!
//! Each further run of a job has one cause, the first of this list that holds and that is not used
//! up. A cause that is a moment has a number of repeats that it may have.
//!
//! | cause | what must hold | how many |
//! |---|---|---|
//! | the stream was made anew | the job was enqueued again, as it was not done when its stream was deleted | slots of all processes, and calls under way |
//! | it was enqueued twice | its sequence is another, and a server ended between a failed call and its repetition | calls under way, for each end of a server |
//! | a worker died | the process of the earlier run died after it, before the outcome was confirmed or given up | slots, for each death |
//! | a server was killed | the earlier run was before the kill, and the job was stored after it | slots of all processes, for each kill |
//! | a server was killed or stopped | both runs were soon after it: a worker held the job meanwhile, and ran it when it was connected again | the same number |
//! | a server was stopped | as for a kill | slots of all processes, for each stop |
//! | the consumer was deleted | the same | slots of all processes, for each deletion |
//! | the server forgot | the same for a killed server or a deleted consumer, beyond that number | the jobs that the server itself shows |
//! | the server stepped back | it is older than 2.10.14, and the later run was a first attempt | slots, for each death of a worker |
//! | the outcome was lost | a worker has told so by an event that names the job | one for each such event |
//!
//! A server that forgets an outcome keeps the job. When a consumer is deleted, so is the knowledge
//! which of the kept jobs were done. A server before 2.10.14 delivers its newest jobs again, as if for
//! the first time, when the jobs of one dead worker meet the request of another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::crew::{Ending, PROCESSES};
use crate::feed;
use crate::jobs;
use crate::record::{Beginning, Record, Run};

/// All jobs that can be in the slots of all processes.
pub(crate) const IN_SLOTS: usize = jobs::SLOTS * PROCESSES;
/// For how many milliseconds the outcome of a job may be on its way: a worker sends it until
/// `ack_wait` is over, and then still waits for the answer.
const UNCONFIRMED: u64 = (jobs::ACK_WAIT.as_millis() + jobs::CALL_TIMEOUT.as_millis()) as u64;

/// For how many milliseconds before its death a server may forget what it has confirmed. A server
/// of 2.9 writes the state of a consumer ten times a second. In the drill it forgets half a second.
const FORGETS: u64 = 2_000;

/// The kinds of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A server, by SIGKILL.
    Killed,
    /// A server, by SIGTERM.
    Stopped,
    /// The consumer was deleted.
    Deleted,
}

/// The end of a server or a consumer.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) end: End,
    /// When it was told to end.
    pub(crate) from: u64,
    /// When it was gone.
    pub(crate) at: u64,
    /// When workers could reach a server again that has the stream.
    pub(crate) until: u64,
    /// The good jobs that were stored afterwards and before any worker could ask.
    pub(crate) stored: BTreeSet<usize>,
}

/// The stream was made anew.
#[derive(Clone, Debug)]
pub(crate) struct Remake {
    pub(crate) at: u64,
    /// The jobs that were enqueued again, and those whose call was under way.
    pub(crate) again: BTreeSet<usize>,
}

/// All moments that may cause a repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Causes {
    pub(crate) deaths: Vec<Ending>,
    pub(crate) broken: Vec<Broken>,
    pub(crate) remakes: Vec<Remake>,
    /// Whether the server is older than 2.10.14.
    pub(crate) steps_back: bool,
    /// See [`feed::Feed::unsure`].
    pub(crate) unsure: BTreeMap<usize, (u64, u64)>,
}

impl Causes {
    /// Returns what has ended in this way.
    pub(crate) fn ended(&self, end: End) -> impl Iterator<Item = &Broken> {
        self.broken.iter().filter(move |broken| broken.end == end)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    StreamRemade,
    EnqueuedTwice,
    WorkerDied,
    ServerKilled,
    ServerForgot,
    ServerStopped,
    ConsumerDeleted,
    ServerSteppedBack,
    OutcomeLost,
    Unknown,
}

impl Cause {
    pub(crate) const ALL: [Self; 10] = [
        Self::WorkerDied,
        Self::ServerKilled,
        Self::ServerForgot,
        Self::ServerStopped,
        Self::ConsumerDeleted,
        Self::StreamRemade,
        Self::EnqueuedTwice,
        Self::ServerSteppedBack,
        Self::OutcomeLost,
        Self::Unknown,
    ];
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, earlier, later, cause, .. } = self;
        write!(f, "good job {number} ran again, {cause}: {earlier:?}, {later:?}")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StreamRemade => "in slots while the stream was made anew",
            Self::EnqueuedTwice => "enqueued again, and the server had forgotten the id",
            Self::WorkerDied => "in slots of a process that died",
            Self::ServerKilled => "in slots while a server was killed",
            Self::ServerForgot => "confirmed, and forgotten by a killed server",
            Self::ServerStopped => "in slots while a server was stopped",
            Self::ConsumerDeleted => "in slots while the consumer was deleted",
            Self::ServerSteppedBack => "delivered by an old server as if for the first time",
            Self::OutcomeLost => "with an outcome that a worker reported as lost",
            Self::Unknown => "without a cause",
        })
    }
}

/// A run that is one too many, and the run before it.
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
    let pairs = record.done.iter().flat_map(|(number, runs)| runs.windows(2).map(|pair| (*number, pair[0], pair[1])));
    let mut pairs: Vec<_> = pairs.collect();
    // The jobs in slots at a moment are those that ran last before it.
    pairs.sort_unstable_by_key(|(_, earlier, _)| Reverse(*earlier));
    let explained = pairs.into_iter().map(|(number, earlier, later)| {
        let (cause, age) = explainer.cause(number, earlier, later);
        Repeat { number, earlier, later, cause, age }
    });
    explained.collect()
}

/// How many repeats each cause may have in all.
pub(crate) fn bound(cause: Cause, causes: &Causes, record: &Record) -> usize {
    match cause {
        Cause::StreamRemade => (IN_SLOTS + feed::THREADS) * causes.remakes.len(),
        Cause::EnqueuedTwice => feed::THREADS * (causes.broken.len() - causes.ended(End::Deleted).count()),
        Cause::WorkerDied => jobs::SLOTS * causes.deaths.len(),
        Cause::ServerKilled => IN_SLOTS * causes.ended(End::Killed).count(),
        Cause::ServerForgot => {
            let is_shown = |broken: &Broken, number: &usize| was_done_before(record, *number, broken.until);
            let shown = |broken: &Broken| broken.stored.iter().filter(|number| is_shown(broken, number)).count();
            causes.broken.iter().map(shown).sum()
        }
        Cause::ServerStopped => IN_SLOTS * causes.ended(End::Stopped).count(),
        Cause::ConsumerDeleted => IN_SLOTS * causes.ended(End::Deleted).count(),
        Cause::ServerSteppedBack if causes.steps_back => jobs::SLOTS * causes.deaths.len(),
        Cause::ServerSteppedBack => 0,
        Cause::OutcomeLost => record.outcome_lost.len(),
        Cause::Unknown => 0,
    }
}

/// Returns how many of the beginnings of a bad job the server has forgotten: it was killed soon
/// after the delivery and counted the next one no higher, or an old server stepped back. Such a
/// beginning is none of the attempts that a worker can count.
pub(crate) fn forgotten_beginnings(beginnings: &[Beginning], causes: &Causes) -> usize {
    let is_forgotten = |earlier: &Beginning, later: &Beginning| {
        let forgets =
            |broken: &Broken| earlier.at <= broken.at && broken.at - earlier.at <= FORGETS && broken.at < later.at;
        let steps_back = causes.steps_back && later.attempt == 1;
        later.attempt <= earlier.attempt && (steps_back || causes.ended(End::Killed).any(forgets))
    };
    beginnings.windows(2).filter(|pair| is_forgotten(&pair[0], &pair[1])).count()
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
        for (index, broken) in causes.broken.iter().enumerate() {
            let is_shown = broken.stored.contains(&number);
            // A leader that is stopped hands over at once, and a job may have run before the look.
            let is_stored = is_shown || later.at <= broken.until;
            // A worker had the job at that moment, and ran it only when it was connected again.
            let was_held = broken.end != End::Deleted
                && broken.at < later.at
                && later.at.saturating_sub(broken.until) <= UNCONFIRMED;
            let is_it = was_held || is_stored && earlier.at <= broken.until && broken.from < later.at;
            let age = broken.at.saturating_sub(earlier.at);
            let cause = match broken.end {
                End::Killed => Cause::ServerKilled,
                End::Stopped => Cause::ServerStopped,
                End::Deleted => Cause::ConsumerDeleted,
            };
            if is_it && age <= UNCONFIRMED && self.has_room(cause, index, IN_SLOTS) {
                return (cause, age);
            }
            let may_forget = match broken.end {
                End::Killed => age <= FORGETS,
                End::Stopped => false,
                // The jobs that a server kept which was killed before that.
                End::Deleted => true,
            };
            if is_it && is_shown && may_forget && earlier.at <= broken.at {
                return (Cause::ServerForgot, age);
            }
        }
        if causes.steps_back && later.attempt == 1 {
            return (Cause::ServerSteppedBack, 0);
        }
        let told = self.record.outcome_lost.iter().filter(|sequence| **sequence == earlier.sequence).count();
        if self.has_room(Cause::OutcomeLost, earlier.sequence as usize, told) {
            return (Cause::OutcomeLost, 0);
        }
        (Cause::Unknown, 0)
    }

    fn enqueued_twice(&mut self, number: usize) -> (Cause, u64) {
        if let Some((from, until)) = self.causes.unsure.get(&number) {
            for (index, end) in self.causes.broken.iter().enumerate() {
                let is_between = end.end != End::Deleted && (*from..=*until).contains(&end.at);
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
