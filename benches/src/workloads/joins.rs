//! One task and its result: how long from the submission until the caller has it?
//!
//! workcrew, rayon's `install`, `rusty_pool`, tokio, futures and affinitypool are waited for by
//! their own means. The futures of the last three run on the calling thread. `install` keeps the
//! task on the caller's stack, and returns only with the result. The others send the result through
//! a new channel with one slot, whose receiver spins for a moment before it sleeps.

use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use futures::executor::block_on;
use futures::task::SpawnExt;

use super::result;
use crate::candidate::{Candidate, Sample, Scale, Workload, timed};
use crate::pools::Pools;

/// Tasks in a sample, one after the other. Few, so that there are many samples: in each, the system
/// decides again whether caller and worker share a CPU, and the time depends on that.
const TASKS: usize = 1_000;
/// Fewer, since each waits first.
const TASKS_AFTER_IDLENESS: usize = 500;
/// Long enough that the workers of every pool have gone to sleep.
const IDLENESS: Duration = Duration::from_micros(200);

/// Runs one task and returns its result.
type RoundTrip = fn(&Pools) -> usize;

pub(super) fn back_to_back(pools: &'static Pools, scale: Scale) -> Workload {
    let tasks = scale.of(TASKS);
    Workload {
        question: "How long does one task take from its submission to its result, back to back?",
        candidates: candidates(move |round_trip| {
            timed(tasks, 1, || {
                black_box(round_trip(pools));
            })
        }),
    }
}

/// The caller spins while the workers are idle, as a caller with other work would.
pub(super) fn after_idleness(pools: &'static Pools, scale: Scale) -> Workload {
    let tasks = scale.of(TASKS_AFTER_IDLENESS);
    Workload {
        question: "How long does it take when the pool has been idle for 200 µs?",
        candidates: candidates(move |round_trip| {
            let measure = |_| {
                let idle = Instant::now();
                while idle.elapsed() < IDLENESS {
                    spin_loop();
                }
                let started = Instant::now();
                black_box(round_trip(pools));
                started.elapsed().as_nanos() as f64
            };
            Sample { jobs: tasks, nanoseconds: (0..tasks).map(measure).collect(), ran: Vec::new() }
        }),
    }
}

fn candidates(measure: impl Fn(RoundTrip) -> Sample + Copy + 'static) -> Vec<Candidate> {
    let workcrew = |name, round_trip: RoundTrip| Candidate::workcrew(name, move || measure(round_trip));
    let peer = |name, round_trip: RoundTrip| Candidate::peer(name, move || measure(round_trip));
    let limit = |name, round_trip: RoundTrip| Candidate::limit(name, move || measure(round_trip));
    vec![
        workcrew("workcrew", |pools| {
            let handle = pools.workcrew.spawn(result(1)).expect("the pool is open");
            handle.join().expect("the task does not panic")
        }),
        peer("rayon_install", |pools| pools.rayon.install(result(1))),
        peer("rayon_spawn", |pools| {
            let (task, receiver) = sending_task(1);
            pools.rayon.spawn(task);
            receive(&receiver)
        }),
        peer("threadpool", |pools| {
            let (task, receiver) = sending_task(1);
            pools.threadpool.execute(task);
            receive(&receiver)
        }),
        peer("rusty_pool", |pools| pools.rusty_pool.evaluate(result(1)).await_complete()),
        peer("tokio_spawn_blocking", |pools| {
            let handle = pools.tokio.spawn_blocking(result(1));
            pools.tokio.block_on(handle).expect("the task does not panic")
        }),
        peer("futures", |pools| {
            let task = result(1);
            let handle = pools.futures.spawn_with_handle(async move { task() });
            block_on(handle.expect("the pool is open"))
        }),
        peer("affinitypool", |pools| block_on(pools.affinitypool.spawn(result(1)))),
        limit("crossbeam_loop", |pools| {
            let (task, receiver) = sending_task(1);
            pools.channel_loop.execute(task);
            receive(&receiver)
        }),
    ]
}

/// Returns a task that sends its result, and the receiver.
fn sending_task(number: usize) -> (impl FnOnce() + Send + 'static, Receiver<usize>) {
    let (sender, receiver) = bounded(1);
    let task = result(number);
    (move || sender.send(task()).expect("the caller receives"), receiver)
}

fn receive(receiver: &Receiver<usize>) -> usize {
    receiver.recv().expect("the task sends")
}
