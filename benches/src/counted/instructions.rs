//! Instructions of a submission into a queue that has room, while all workers are busy; and of all
//! threads together, from the submission until the end of the job.
//!
//! callgrind counts within one function of the probe, or in the whole process. The probe runs with
//! two numbers of operations: the difference is the cost of the operations alone.

use std::hint::black_box;

use workcrew::{WorkerPool, WorkerPoolBuilder};

use super::wedge::BlockedWorkers;
use super::{Counted, job, ours};
use crate::error::Error;
use crate::probe;

const VALGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
/// Collects only within the functions whose names contain this.
pub(super) const WITHIN: [&str; 2] = ["--collect-atstart=no", "--toggle-collect=*collected_by_callgrind*"];
/// Stands before the number of instructions in the output of valgrind.
const COLLECTED: &str = "Collected :";
const FEW: usize = 1_000;
const MANY: usize = 3_000;
const CAPACITY: usize = 4_096;
const UNIT: &str = "instructions";

pub(super) fn counts() -> impl Iterator<Item = Counted> {
    [
        count("instructions_execute", "execute", &WITHIN, 220.0),
        count("instructions_spawn", "spawn", &WITHIN, 615.0),
        count("instructions_group_spawn", "group", &WITHIN, 235.0),
        count("instructions_execute_and_run", "execute", &[], 780.0),
        count("instructions_spawn_and_run", "spawn", &[], 1_540.0),
        count("instructions_group_spawn_and_run", "group", &[], 800.0),
        count("instructions_propagate_and_run", "propagate", &[], 1_950.0),
    ]
    .into_iter()
}

/// The instructions of one operation of a probe.
pub(super) fn count(name: &'static str, probe: &str, within: &[&str], bound: f64) -> Counted {
    match per_operation(probe, within) {
        Ok(instructions) => ours(name, instructions, bound, UNIT),
        Err(error) => Counted::Absent { name, error },
    }
}

fn per_operation(probe: &str, within: &[&str]) -> Result<f64, Error> {
    let [few, many] = [FEW, MANY].map(|operations| collected(probe, within, operations));
    Ok((many? - few?) / (MANY - FEW) as f64)
}

fn collected(probe: &str, within: &[&str], operations: usize) -> Result<f64, Error> {
    let output = probe::ask(&[&VALGRIND, within].concat(), probe, operations)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let number = text.lines().find_map(|line| line.split_once(COLLECTED)?.1.trim().parse().ok());
    number.ok_or(Error::Line(text))
}

/// Runs the operations while callgrind counts.
#[inline(never)]
pub(super) fn collected_by_callgrind(operations: usize, mut operate: impl FnMut(usize)) {
    (0..operations).for_each(&mut operate);
}

pub(super) fn on_busy_pool(operations: usize, operate: impl FnMut(&WorkerPool, usize)) -> u64 {
    on_busy_pool_of(WorkerPool::builder(), operations, operate)
}

pub(super) fn on_busy_pool_of(
    builder: WorkerPoolBuilder,
    operations: usize,
    mut operate: impl FnMut(&WorkerPool, usize),
) -> u64 {
    let pool = builder.workers(1).queue_capacity(CAPACITY).build().expect("its thread starts");
    let wedge = BlockedWorkers::of(&pool);
    collected_by_callgrind(operations, |number| operate(&pool, number));
    drop(wedge);
    operations as u64
}

/// The closure captures three words, the most that need no allocation.
pub(super) fn execute(operations: usize) -> u64 {
    on_busy_pool(operations, |pool, number| {
        pool.execute(job::<3>(number)).expect("the pool is open");
    })
}

/// The same as [`execute`], with a context of one word that is carried to the job.
pub(super) fn propagate(operations: usize) -> u64 {
    let capture = || {
        let context = black_box(7_usize);
        move |run: &mut dyn FnMut()| {
            black_box(context);
            run();
        }
    };
    on_busy_pool_of(WorkerPool::builder().propagate(capture), operations, |pool, number| {
        pool.execute(job::<3>(number)).expect("the pool is open");
    })
}

/// Includes the drop of the handle.
pub(super) fn spawn(operations: usize) -> u64 {
    on_busy_pool(operations, |pool, number| drop(pool.spawn(move || black_box(number)).expect("the pool is open")))
}

pub(super) fn group(operations: usize) -> u64 {
    let pool = WorkerPool::builder().workers(1).queue_capacity(CAPACITY).build().expect("its thread starts");
    let wedge = BlockedWorkers::of(&pool);
    let group = pool.group();
    collected_by_callgrind(operations, |number| group.spawn(job::<3>(number)));
    drop(wedge);
    group.wait().expect("no task fails").len() as u64
}
