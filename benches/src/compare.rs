//! How do workcrew and its peers compare, when the noise of the machine meets them alike?
//!
//! `cargo bench --bench ratios`, or `taskset -c 0 cargo bench --bench ratios` for all threads on one CPU;
//! `BENCH_WORKERS=8` before it for another number of workers than 2. The contenders take turns in one process for many
//! rounds. A ratio is the median over the rounds of a contender's time by the time of the first contender in the same
//! round. CPU time and context switches are those of the whole process during a contender's turns, until its threads
//! have come to rest.
//!
//! CPU time beside the mean tells how many CPUs the threads really had. Small jobs are cheapest when producer and
//! workers share one, and the system may put them there for a while or for good, all the more when something else runs
//! on the machine. Only figures of one kind can be compared with each other.
//!
//! An argument that is no option selects the workloads whose names contain it. Without the option `--bench`, which
//! `cargo bench` adds, each is played for one round.

mod pools;
mod workloads;

use std::env;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::pools::{Pools, QUEUE_CAPACITY};
use crate::workloads::{Contender, Workload, workloads};

/// How long a workload is played; three of them make half a minute.
const TIME_FOR_A_WORKLOAD: Duration = Duration::from_secs(9);
/// Jobs in a turn, where the next limit allows: so many that the turn is long beside the tick in which CPU time is
/// counted.
const JOBS_IN_A_TURN: usize = 200_000;
/// Batches in a turn, at most, since a batch of one job takes much longer than a job in a batch.
const MOST_BATCHES_IN_A_TURN: usize = 10_000;
/// How long the threads of a contender are given to come to rest.
const REST: Duration = Duration::from_millis(2);

fn main() {
    let (options, selections): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|argument| argument.starts_with('-'));
    let time = if options.iter().any(|option| option == "--bench") { TIME_FOR_A_WORKLOAD } else { Duration::ZERO };
    let is_selected = |name: &str| selections.is_empty() || selections.iter().any(|part| name.contains(part));
    let pools = Pools::start();
    let cpus = thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cpus| cpus.to_string());
    println!("CPUs this process may use: {cpus}; workers: {}; queue: {QUEUE_CAPACITY}", pools.workers);
    for workload in workloads(&pools).into_iter().filter(|workload| is_selected(workload.name)) {
        report(&workload, &play(&workload, time));
    }
}

/// What is known of a contender after some rounds.
#[derive(Clone, Default)]
struct Record {
    /// Nanoseconds per job of each batch.
    batches: Vec<f64>,
    /// The median of the batches of each round.
    rounds: Vec<f64>,
    /// Jobs of all turns, measured or not.
    jobs: usize,
    /// What these jobs took.
    seconds: f64,
    /// What these jobs used up.
    usage: Usage,
}

/// Plays rounds until the time is over, at least one. Each begins with another contender, since who follows whom may
/// matter.
fn play(workload: &Workload<'_>, time: Duration) -> Vec<Record> {
    let count = workload.contenders.len();
    let batches = (JOBS_IN_A_TURN / workload.jobs_per_batch).min(MOST_BATCHES_IN_A_TURN);
    let mut records = vec![Record::default(); count];
    let started = Instant::now();
    for first in (0..count).cycle() {
        for index in (first..count).chain(0..first) {
            take_turn(&workload.contenders[index], batches, workload.jobs_per_batch, &mut records[index]);
        }
        if started.elapsed() >= time {
            break;
        }
    }
    records
}

/// Measures some batches, after a few that wake the threads and fill the caches.
fn take_turn(contender: &Contender<'_>, batches: usize, jobs_per_batch: usize, record: &mut Record) {
    let usage_before = Usage::now();
    let turn_started = Instant::now();
    let unmeasured = batches / 20 + 1;
    (0..unmeasured).for_each(|_| (contender.run_batch)());
    let measured = (0..batches).map(|_| {
        let started = Instant::now();
        (contender.run_batch)();
        started.elapsed().as_nanos() as f64 / jobs_per_batch as f64
    });
    let measured: Vec<f64> = measured.collect();
    record.jobs += (unmeasured + batches) * jobs_per_batch;
    record.seconds += turn_started.elapsed().as_secs_f64();
    thread::sleep(REST);
    record.usage.add_since(usage_before);
    record.rounds.push(quantile(&measured, 0.5));
    record.batches.extend(measured);
}

fn report(workload: &Workload<'_>, records: &[Record]) {
    let rounds = records[0].rounds.len();
    let batches = records[0].batches.len() / rounds;
    println!("\n{}: {}", workload.name, workload.question);
    let jobs = workload.jobs_per_batch;
    println!("{rounds} rounds of {batches} batches of {jobs} jobs; nanoseconds per job, switches per 1,000 jobs");
    println!("{:22}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}", "", "ratio", "median", "p99", "mean", "CPU", "switches");
    for (contender, record) in workload.contenders.iter().zip(records) {
        let jobs = record.jobs as f64;
        println!(
            "{:22}{:>9.2}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>10.2}",
            contender.name,
            ratio(record, &records[0]),
            quantile(&record.rounds, 0.5),
            quantile(&record.batches, 0.99),
            record.seconds * 1e9 / jobs,
            record.usage.cpu_seconds * 1e9 / jobs,
            record.usage.context_switches as f64 * 1e3 / jobs,
        );
    }
}

/// The median over the rounds.
fn ratio(record: &Record, reference: &Record) -> f64 {
    let ratios: Vec<f64> = record.rounds.iter().zip(&reference.rounds).map(|(time, other)| time / other).collect();
    quantile(&ratios, 0.5)
}

/// The value below which `share` of the values lie.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// What the process has used up, all threads together. Not a number and zero where the system has no `/proc` like
/// Linux.
#[derive(Clone, Copy, Default)]
struct Usage {
    cpu_seconds: f64,
    context_switches: u64,
}

impl Usage {
    fn now() -> Self {
        Self { cpu_seconds: cpu_seconds().unwrap_or(f64::NAN), context_switches: context_switches().unwrap_or(0) }
    }

    fn add_since(&mut self, earlier: Self) {
        let now = Self::now();
        self.cpu_seconds += now.cpu_seconds - earlier.cpu_seconds;
        self.context_switches += now.context_switches - earlier.context_switches;
    }
}

/// The fields `utime` and `stime` of proc(5), which Linux counts in hundredths of a second on all usual systems.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program comes before, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u32>().ok());
    Some(f64::from(ticks.sum::<Option<u32>>()?) / 100.0)
}

/// The voluntary and the enforced ones.
fn context_switches() -> io::Result<u64> {
    let mut switches = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        switches += counts.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(switches)
}
