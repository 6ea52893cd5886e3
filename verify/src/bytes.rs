//! Programs made of bytes, as a fuzzer supplies them.

use workcrew::WorkerPool;

use crate::{deadlines, group, pool};

/// The longest program.
const STEPS: usize = 60;

/// Runs a program on a pool: two bytes of settings, then three for each step.
///
/// # Errors
///
/// Returns the first difference between pool and model.
pub fn run_pool(bytes: &[u8]) -> Result<(), String> {
    let Some(([workers, capacity], steps)) = bytes.split_first_chunk() else { return Ok(()) };
    let (steps, _) = steps.as_chunks();
    let steps: Vec<_> = steps.iter().take(STEPS).map(|step| pool::Step::from_bytes(*step)).collect();
    pool::run(1 + usize::from(workers % 3), 1 + usize::from(capacity % 5), &steps)
}

/// Runs a program on a group: five bytes of settings, then two for each step.
///
/// # Errors
///
/// Returns the first difference between group and model.
pub fn run_group(bytes: &[u8]) -> Result<(), String> {
    let Some(([waits, settings @ ..], steps)) = bytes.split_first_chunk::<5>() else { return Ok(()) };
    let (steps, _) = steps.as_chunks();
    let steps: Vec<_> = steps.iter().take(STEPS).map(|step| group::Step::from_bytes(*step)).collect();
    group::run(group::Settings::from_bytes(*settings), &steps, *waits)
}

/// Tries a few durations, of twelve bytes each, on an idle pool.
///
/// # Errors
///
/// Returns the first deviation from the expected result.
pub fn run_deadlines(bytes: &[u8]) -> Result<(), String> {
    let pool = WorkerPool::builder().workers(1).queue_capacity(4).build().map_err(|error| error.to_string())?;
    let (durations, _) = bytes.as_chunks();
    durations.iter().take(8).try_for_each(|bytes| deadlines::run(&pool, deadlines::from_bytes(*bytes)))
}
