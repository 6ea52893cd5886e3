//! Rounds in which each candidate of a workload takes a sample, so that noise affects all alike.

use std::thread;
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, Workload};
use crate::error::Error;
use crate::figures::Figures;
use crate::statistics::{median, quantile, ratio};
use crate::usage::Usage;

/// How long the threads of a candidate have to become idle.
const REST: Duration = Duration::from_millis(2);
/// How long the first round, which does not count, is followed by a rest: some runtimes then
/// compile what has just run, in threads of their own.
const REST_AT_FIRST: Duration = Duration::from_millis(300);

/// The samples of a candidate so far.
#[derive(Default)]
struct Record {
    /// Nanoseconds per job of each batch.
    batches: Vec<f64>,
    /// The median of the batches of each round.
    rounds: Vec<f64>,
    /// The number of jobs in all samples.
    jobs: usize,
    /// What these jobs used.
    cpu_seconds: f64,
    switches: f64,
    /// How many tasks ran in each batch, if the workload asks.
    ran: Vec<f64>,
}

/// Runs rounds until `time` is over, at least one. Each begins with another candidate, since the
/// order may matter. The first round wakes the threads, fills the caches and does not count. A time
/// of zero leaves it out.
///
/// # Errors
///
/// Returns an error if the process of a candidate has ended.
pub(crate) fn run(name: &str, workload: &mut Workload, time: Duration) -> Result<Vec<Figures>, Error> {
    let count = workload.candidates.len();
    let mut records: Vec<Record> = (0..count).map(|_| Record::default()).collect();
    if !time.is_zero() {
        workload.candidates.iter_mut().try_for_each(|candidate| (candidate.run)().map(drop))?;
        thread::sleep(REST_AT_FIRST);
    }
    let started = Instant::now();
    for first in (0..count).cycle() {
        for index in (first..count).chain(0..first) {
            take_sample(&mut workload.candidates[index], &mut records[index])?;
        }
        if started.elapsed() >= time {
            break;
        }
    }
    let figures = |(candidate, record)| figures(name, candidate, record, &records[0]);
    Ok(workload.candidates.iter().zip(&records).map(figures).collect())
}

fn take_sample(candidate: &mut Candidate, record: &mut Record) -> Result<(), Error> {
    let before = Usage::now(candidate.process);
    let sample = (candidate.run)()?;
    thread::sleep(REST);
    let used = Usage::now(candidate.process) - before;
    record.cpu_seconds += used.cpu_seconds;
    record.switches += used.switches;
    record.jobs += sample.jobs;
    record.ran.extend(sample.ran);
    record.rounds.push(median(&sample.nanoseconds));
    record.batches.extend(sample.nanoseconds);
    Ok(())
}

fn figures(workload: &str, candidate: &Candidate, record: &Record, reference: &Record) -> Figures {
    let jobs = record.jobs as f64;
    Figures {
        workload: workload.to_owned(),
        candidate: candidate.name.clone(),
        kind: candidate.kind,
        ratio: ratio(&record.rounds, &reference.rounds),
        median: median(&record.rounds),
        p99: quantile(&record.batches, 0.99),
        cpu: record.cpu_seconds * 1e9 / jobs,
        switches: record.switches * 1e3 / jobs,
        ran: median(&record.ran),
        ran_most: quantile(&record.ran, 1.0),
        rounds: record.rounds.len(),
    }
}
