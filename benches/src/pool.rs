//! How many nanoseconds does a job, a result or a task of a group cost?
//!
//! `BENCH_WORKERS=8 cargo bench --bench pool` measures with 8 workers instead of 2. Criterion
//! measures one candidate after the other. On a noisy machine `compare` is more reliable: it
//! alternates them.

#[allow(dead_code, reason = "`compare` uses the rest")]
mod candidate;
#[allow(dead_code, reason = "`compare` uses the rest")]
mod error;
mod pools;
mod waiting;
mod workloads;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use crate::candidate::{Candidate, Scale, Workload};
use crate::error::Error;
use crate::pools::Pools;
use crate::workloads::{Entry, WORKLOADS};

/// Workloads of a fixed duration, or of workcrew alone, are left to `compare`.
const LEFT_OUT: [&str; 5] = ["w3_join_idle", "w9_trickle", "w11_jobs", "w11_workers", "w14_settings"];

fn main() -> Result<(), Error> {
    let pools = Pools::start(pools::workers()?);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .configure_from_args();
    for entry in WORKLOADS.iter().filter(|entry| !LEFT_OUT.contains(&entry.name)) {
        bench(&mut criterion, entry, (entry.make)(pools, Scale::Short));
    }
    criterion.final_summary();
    Ok(())
}

/// Measures each candidate of a workload; an iteration is a sample.
fn bench(criterion: &mut Criterion, Entry { name, title, .. }: &Entry, workload: Workload) {
    println!("{title}: {}", workload.question);
    let mut group = criterion.benchmark_group(*name);
    group.sampling_mode(SamplingMode::Flat);
    for mut candidate in workload.candidates {
        let (jobs, _) = take_sample(&mut candidate);
        group.throughput(Throughput::Elements(jobs as u64));
        group.bench_function(candidate.name.clone(), |bencher| {
            bencher.iter_custom(|samples| (0..samples).map(|_| take_sample(&mut candidate).1).sum());
        });
    }
    group.finish();
}

/// Takes a sample. Returns the number of its jobs and the measured time.
fn take_sample(candidate: &mut Candidate) -> (usize, Duration) {
    let sample = (candidate.run)().expect("no other process takes part");
    let jobs_in_a_batch = sample.jobs as f64 / sample.nanoseconds.len() as f64;
    let nanoseconds: f64 = sample.nanoseconds.iter().sum();
    (sample.jobs, Duration::from_nanos((nanoseconds * jobs_in_a_batch) as u64))
}
