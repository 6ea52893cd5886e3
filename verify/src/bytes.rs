//! Programs made of bytes, as a fuzzer brings them.

use workcrew::WorkerPool;

use crate::{deadlines, group, pool};

/// The longest program.
const STEPS: usize = 60;

/// A program for a pool: two bytes of settings, then three for each step.
///
/// # Errors
///
/// The first thing in which pool and model differ.
pub fn run_pool(bytes: &[u8]) -> Result<(), String> {
    let Some(([workers, capacity], steps)) = bytes.split_first_chunk() else { return Ok(()) };
    let (steps, _) = steps.as_chunks();
    let steps: Vec<_> = steps.iter().take(STEPS).map(|step| pool::Step::from_bytes(*step)).collect();
    pool::run(1 + usize::from(workers % 3), 1 + usize::from(capacity % 5), &steps)
}

/// A program for a group: five bytes of settings, then two for each step.
///
/// # Errors
///
/// The first thing in which group and model differ.
pub fn run_group(bytes: &[u8]) -> Result<(), String> {
    let Some(([waits, settings @ ..], steps)) = bytes.split_first_chunk::<5>() else { return Ok(()) };
    let (steps, _) = steps.as_chunks();
    let steps: Vec<_> = steps.iter().take(STEPS).map(|step| group::Step::from_bytes(*step)).collect();
    group::run(group::Settings::from_bytes(*settings), &steps, *waits)
}

/// A few durations of twelve bytes each, tried on an idle pool.
///
/// # Errors
///
/// What was not as it should be.
pub fn run_deadlines(bytes: &[u8]) -> Result<(), String> {
    let pool = WorkerPool::builder().workers(1).queue_capacity(4).build().map_err(|error| error.to_string())?;
    let (durations, _) = bytes.as_chunks();
    durations.iter().take(8).try_for_each(|bytes| deadlines::run(&pool, deadlines::from_bytes(*bytes)))
}
