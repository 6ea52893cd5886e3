//! A job now and then, as in a service with little load: how soon does it start, and what does the
//! waiting cost?
//!
//! Jobs are submitted at fixed times; the producer sleeps between them. The latency is the time
//! from the submission until the job starts. A sample ends when all jobs have started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, Sample, Scale, Workload};
use crate::pools::Pools;
use crate::waiting::Countdown;

/// Jobs in a sample.
const JOBS: usize = 2_000;
/// Between two jobs.
const PERIOD: Duration = Duration::from_micros(100);

/// The countdown of the sample; there is only one at a time.
static COUNTDOWN: Countdown = Countdown::new();
static LATENCIES: [AtomicU64; JOBS] = [const { AtomicU64::new(0) }; JOBS];

/// A job with a number, submitted at a moment.
#[derive(Clone, Copy)]
struct Start {
    submitted: Instant,
    number: usize,
}

impl Start {
    fn run(self) {
        LATENCIES[self.number].store(self.submitted.elapsed().as_nanos() as u64, Ordering::Relaxed);
        COUNTDOWN.arrive();
    }
}

pub(super) fn ten_thousand_a_second(pools: &'static Pools, scale: Scale) -> Workload {
    let jobs = scale.of(JOBS);
    Workload {
        question: "How soon does a job start, if 10,000 are submitted in a second?",
        candidates: vec![
            Candidate::workcrew("workcrew", move || {
                trickle(jobs, |start| pools.workcrew.execute(move || start.run()).expect("the pool is open"))
            }),
            Candidate::peer("rayon_spawn", move || trickle(jobs, |start| pools.rayon.spawn(move || start.run()))),
            Candidate::peer("threadpool", move || trickle(jobs, |start| pools.threadpool.execute(move || start.run()))),
            Candidate::peer("rusty_pool", move || trickle(jobs, |start| pools.rusty_pool.execute(move || start.run()))),
            Candidate::peer("tokio_spawn_blocking", move || {
                trickle(jobs, |start| drop(pools.tokio.spawn_blocking(move || start.run())))
            }),
            Candidate::peer("futures_spawn_ok", move || {
                trickle(jobs, |start| pools.futures.spawn_ok(async move { start.run() }))
            }),
            Candidate::peer("affinitypool", move || {
                let mut futures = Vec::with_capacity(jobs);
                trickle(jobs, |start| futures.push(pools.affinitypool.spawn(move || start.run())))
            }),
            Candidate::limit("crossbeam_loop", move || {
                trickle(jobs, |start| pools.channel_loop.execute(move || start.run()))
            }),
        ],
    }
}

fn trickle(jobs: usize, mut submit: impl FnMut(Start)) -> Sample {
    COUNTDOWN.expect_arrivals(jobs);
    let mut due = Instant::now();
    for number in 0..jobs {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        submit(Start { submitted: Instant::now(), number });
        due += PERIOD;
    }
    COUNTDOWN.wait();
    let latencies = LATENCIES[..jobs].iter().map(|latency| latency.load(Ordering::Relaxed) as f64);
    Sample { jobs, nanoseconds: latencies.collect(), ran: Vec::new() }
}
