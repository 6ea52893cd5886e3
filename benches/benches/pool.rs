//! How many nanoseconds does a job, a result or a task of a group cost, in workcrew and in its peers?
//!
//! `cargo bench --bench pool`, and `BENCH_WORKERS=8` before it for another number of workers than 2. Criterion measures
//! one contender after the other, so on a noisy machine the bench `ratios`, which alternates them, is the better judge.

mod pools;
mod workloads;

use std::time::Duration;

use criterion::{Criterion, Throughput};

use crate::pools::Pools;
use crate::workloads::{Workload, workloads};

fn main() {
    let pools = Pools::start();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    for workload in workloads(&pools) {
        bench(&mut criterion, &workload);
    }
    criterion.final_summary();
}

/// Measures each contender of a workload; an iteration is a batch.
fn bench(criterion: &mut Criterion, workload: &Workload<'_>) {
    println!("{}", workload.question);
    let mut group = criterion.benchmark_group(workload.name);
    group.throughput(Throughput::Elements(workload.jobs_per_batch as u64));
    for contender in &workload.contenders {
        group.bench_function(contender.name, |bencher| bencher.iter(|| (contender.run_batch)()));
    }
    group.finish();
}
