//! The rules that must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;

use workcrew::nats::{DeadLetter, DeadLetterReason};

use crate::crew::{self, Ending, How, PROCESSES};
use crate::drill::{Drill, Failure};
use crate::jobs;
use crate::record::Record;
use crate::repeats::{self, Cause, End, Repeat};
use crate::report::Report;
use crate::storms;
use crate::visitor;

const SIGABRT: i32 = 6;
/// The header of a letter that names the place of its job.
const SEQUENCE: &str = "Workcrew-Sequence";
/// The header of a letter that says what it lacks.
const OMITTED: &str = "Workcrew-Omitted";

/// Checks everything that the workers wrote, that the servers have and that the drill counted.
pub(crate) fn all(drill: &mut Drill, report: &mut Report) -> Result<(), Failure> {
    let record = Record::read(&drill.folder)?;
    evils_happened(drill, &record, report);
    workers(drill, &record, report);
    bad_jobs(drill, &record, report)?;
    repeats_have_causes(drill, &record, report);
    calls_ended_in_time(drill, &record, report);
    Ok(())
}

fn evils_happened(drill: &Drill, record: &Record, report: &mut Report) {
    let (rest, outcome) = (drill.plan.rest(), &drill.results);
    report.must(rest.is_empty(), &format_args!("deeds of the plan that did not happen: {rest:?}"));
    report.some(outcome.streams_replaced, &"streams were made anew");
    report.some(outcome.consumers_replaced, &"consumers were made anew");
    let lost = &outcome.lost;
    report.must(
        lost.is_empty(),
        &format_args!("{} looks at the store; jobs neither stored nor done: {lost:?}", outcome.looks),
    );
    report.some(drill.causes.ended(End::Killed).count(), &"servers were killed");
    report.some(drill.causes.ended(End::Stopped).count(), &"servers were stopped");
    let killed = drill.causes.deaths.iter().filter(|ending| ending.how == How::Killed).count();
    report.some(killed, &"workers were killed");
    let (well, badly): (Vec<_>, Vec<_>) = outcome.drained.iter().partition(|ending| ending.how == How::Drained);
    report.some(well.len(), &"workers were drained");
    report.must(badly.is_empty(), &format_args!("workers that did not end well after a drain: {badly:?}"));
    for id in [jobs::HANGING, jobs::ABORTING, jobs::OVERSIZED] {
        report.some(record.beginnings(id).len(), &format_args!("times the {id} job was begun"));
    }
    let used = storms::used(&drill.proxies);
    report.some(used.delayed, &"pieces were delayed by a proxy");
    report.some(used.swallowed, &"pieces were swallowed");
    report.some(used.unread, &"times a proxy did not read what was there");
    report.some(used.cut, &"connections were cut");
    let (through, around) = drill.storms.guests();
    report.some(through, &"workers were seen behind a proxy");
    report.must(around.is_empty(), &format_args!("workers that were seen without a proxy: {around:?}"));
}

fn workers(drill: &Drill, record: &Record, report: &mut Report) {
    report.must(record.errors.is_empty(), &format_args!("errors of workers: {:?}", record.errors));
    let most = record.most_at_once;
    report.must(most == 0, &format_args!("{most} jobs at once in one process, beyond {} slots", jobs::SLOTS));
    let aborting: BTreeSet<usize> = record.beginnings(jobs::ABORTING).iter().map(|begun| begun.process).collect();
    let has_aborted = |ending: &Ending| ending.status.signal() == Some(SIGABRT) && aborting.contains(&ending.process);
    let ended = drill.causes.deaths.iter().filter(|ending| ending.how == How::ByItself);
    let (aborted, unexplained): (Vec<_>, Vec<_>) = ended.partition(|ending| has_aborted(ending));
    println!("          {} workers were ended by the aborting job", aborted.len());
    for ending in &unexplained {
        let words = fs::read_to_string(crew::words_of(&drill.folder, ending.process)).unwrap_or_default();
        println!("worker {} ended with {}, and wrote:\n{words}", ending.process, ending.status);
    }
    report.at_most(unexplained.len(), 0, &"workers ended and neither the drill nor the aborting job did it");
}

fn bad_jobs(drill: &Drill, record: &Record, report: &mut Report) -> Result<(), Failure> {
    for (id, limit) in
        [(jobs::HANGING, jobs::MAX_BEGUN), (jobs::ABORTING, jobs::MAX_BEGUN), (jobs::OVERSIZED, jobs::ATTEMPTS)]
    {
        let beginnings = record.beginnings(id);
        let forgotten = repeats::forgotten_beginnings(beginnings, &drill.causes);
        let counted = format!("times the {id} job was begun, and {forgotten} times that the server forgot");
        report.at_most(beginnings.len() - forgotten, limit as usize, &counted);
    }
    let letters = visitor::dead_letters(&drill.queue, &drill.calls)?;
    for id in [jobs::HANGING, jobs::ABORTING, jobs::OVERSIZED] {
        let number = letters.iter().filter(|letter| letter.id() == Some(id)).count();
        report.must(number == 1, &format_args!("{number} letters of the {id} job, 1 wanted"));
    }
    let large = letters.iter().find(|letter| letter.id() == Some(jobs::OVERSIZED));
    let is_shortened = large.is_some_and(|letter| letter.header(OMITTED).is_some());
    report.must(is_shortened, &"the letter of the oversized job is shortened and says so");
    let is_aside = drill.is_set_aside(&letters, record);
    let place = drill.results.unparsable;
    report.must(is_aside, &format_args!("a letter or an event names the unparsable job, which has place {place:?}"));
    let others: Vec<_> = letters.iter().filter(|letter| !is_of_bad_job(letter)).collect();
    report.must(others.is_empty(), &format_args!("letters of other jobs: {others:?}"));
    Ok(())
}

fn is_of_bad_job(letter: &DeadLetter) -> bool {
    letter.id().is_some_and(|id| jobs::BAD.contains(&id))
}

impl Drill {
    /// Returns whether each bad job has its letter, or an event that names it.
    pub(crate) fn bad_jobs_have_ended(&self) -> Result<bool, Failure> {
        let Ok(letters) = visitor::dead_letters(&self.queue, &self.calls) else { return Ok(false) };
        let has_letter = |id: &str| letters.iter().any(|letter| letter.id() == Some(id));
        let record = Record::read(&self.folder)?;
        let with_letters = [jobs::HANGING, jobs::ABORTING, jobs::OVERSIZED];
        Ok(with_letters.into_iter().all(has_letter) && self.is_set_aside(&letters, &record))
    }

    /// Returns whether a letter or an event names the place of the job that cannot be parsed.
    fn is_set_aside(&self, letters: &[DeadLetter], record: &Record) -> bool {
        let Some(place) = self.results.unparsable else { return false };
        let is_it = |letter: &DeadLetter| {
            letter.reason() == Some(DeadLetterReason::Unreadable)
                && letter.header(SEQUENCE).and_then(|place| place.parse().ok()) == Some(place)
        };
        record.set_aside.contains(&place) || letters.iter().any(is_it)
    }
}

fn repeats_have_causes(drill: &Drill, record: &Record, report: &mut Report) {
    let causes = &drill.causes;
    let repeats = repeats::explain(record, causes);
    // For a look by eye, if a repeat has no cause.
    let list: String = repeats.iter().map(|repeat| format!("{repeat}\n")).collect();
    let _ = fs::write(drill.folder.join("repeats"), format!("{list}{causes:#?}"));
    let mut by_cause: BTreeMap<Cause, Vec<&Repeat>> = BTreeMap::new();
    for repeat in &repeats {
        by_cause.entry(repeat.cause).or_default().push(repeat);
    }
    let of = |cause| by_cause.get(&cause).map_or(&[][..], Vec::as_slice);
    for cause in Cause::ALL {
        let oldest = of(cause).iter().map(|repeat| repeat.age).max().unwrap_or(0);
        let bound = repeats::bound(cause, causes, record);
        report.at_most(of(cause).len(), bound, &format_args!("runs too many, {cause} (up to {oldest} ms before)"));
    }
    of(Cause::Unknown).iter().for_each(|repeat| println!("          {repeat}"));
    let forgotten = of(Cause::ServerForgot).len();
    if drill.options.sync_always {
        report.at_most(forgotten, 0, &"jobs forgotten by servers that write everything before they confirm it");
    }
    let of_all = causes.ended(End::Killed).chain(causes.ended(End::Deleted)).count() + causes.remakes.len();
    let slots = jobs::SLOTS * (causes.deaths.len() + PROCESSES * of_all);
    let what = format!(
        "runs too many without the forgotten ones: {} slots x ({} dead workers + {PROCESSES} workers x {of_all} server kills and deletions)",
        jobs::SLOTS,
        causes.deaths.len()
    );
    report.at_most(repeats.len() - forgotten, slots, &what);
}

fn calls_ended_in_time(drill: &Drill, record: &Record, report: &mut Report) {
    for call in &record.calls {
        drill.calls.add(&format!("{} (in workers)", call.name), call.took, call.allowed, false);
    }
    for (name, tally) in drill.calls.tallies() {
        let words = format!(
            "{} calls of {name}, {} failed; the longest took {:.1?}, {:.1?} allowed",
            tally.calls, tally.failed, tally.longest, tally.allowed
        );
        report.must(tally.late == 0, &words);
    }
}
