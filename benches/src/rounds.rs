//! Rounds in which all contenders of a workload take turns, so that the noise of the machine meets them alike.

use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Workload};
use crate::failure::Failure;
use crate::figures::Figures;
use crate::statistics::{median, quantile, ratio};
use crate::usage::Usage;

/// How long the threads of a contender are given to come to rest.
const REST: Duration = Duration::from_millis(2);
/// After the round that does not count: some runtimes then compile what has just run, for a while and in threads of their own.
const REST_AT_FIRST: Duration = Duration::from_millis(300);

/// What a contender has done so far.
#[derive(Default)]
struct Record {
    /// Nanoseconds per job of each batch.
    batches: Vec<f64>,
    /// The median of the batches of each round.
    rounds: Vec<f64>,
    /// Jobs of all turns.
    jobs: usize,
    /// What these jobs used up.
    cpu_seconds: f64,
    switches: f64,
    /// How many tasks ran in each batch, where that is in question.
    ran: Vec<f64>,
}

/// Plays rounds until the time is over, at least one. Each begins with another contender, since who follows whom may
/// matter. Before the first that counts there is one that does not, which wakes the threads and fills the caches; but
/// not if there is no time at all.
///
/// # Errors
///
/// If a process that takes part does not do so any more.
pub(crate) fn play(name: &str, workload: &mut Workload, time: Duration) -> Result<Vec<Figures>, Failure> {
    let count = workload.contenders.len();
    let mut records: Vec<Record> = (0..count).map(|_| Record::default()).collect();
    if !time.is_zero() {
        workload.contenders.iter_mut().try_for_each(|contender| (contender.play)().map(drop))?;
        thread::sleep(REST_AT_FIRST);
    }
    let started = Instant::now();
    for first in (0..count).cycle() {
        for index in (first..count).chain(0..first) {
            take_turn(&mut workload.contenders[index], &mut records[index])?;
        }
        if started.elapsed() >= time {
            break;
        }
    }
    let figures = |(contender, record)| figures(name, contender, record, &records[0]);
    Ok(workload.contenders.iter().zip(&records).map(figures).collect())
}

fn take_turn(contender: &mut Contender, record: &mut Record) -> Result<(), Failure> {
    let before = Usage::now(contender.process);
    let turn = (contender.play)()?;
    thread::sleep(REST);
    let used = Usage::now(contender.process) - before;
    record.cpu_seconds += used.cpu_seconds;
    record.switches += used.switches;
    record.jobs += turn.jobs;
    record.ran.extend(turn.ran);
    record.rounds.push(median(&turn.nanoseconds));
    record.batches.extend(turn.nanoseconds);
    Ok(())
}

fn figures(workload: &str, contender: &Contender, record: &Record, reference: &Record) -> Figures {
    let jobs = record.jobs as f64;
    Figures {
        workload: workload.to_owned(),
        contender: contender.name.clone(),
        kind: contender.kind,
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
