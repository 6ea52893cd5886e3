//! A lock that tasks take must not be held while a form is called that may wait for room, or run the task inline: the
//! task that would make room waits for the lock. Two right ways: submit after the lock was released, or, if that cannot
//! be, submit by a `try_` form, which does neither, and keep what it gives back.

use std::error::Error;
use std::sync::{Arc, Mutex};

use workcrew::WorkerPool;

/// Adds to the sum, as every task here does.
fn add(sum: &Mutex<u32>, number: u32) {
    *sum.lock().expect("no task panics") += number;
}

fn main() -> Result<(), Box<dyn Error>> {
    // The hard case: one worker, one place in the queue.
    let pool = WorkerPool::builder().workers(1).queue_capacity(1).build()?;
    let sum = Arc::new(Mutex::new(0));

    // Wrong: it hangs as soon as the worker waits for the lock and the queue is full.
    //     let guard = sum.lock()?;
    //     for number in 1..=10 { pool.execute(move || add(&sum, number))?; }

    // Right: what the lock guards is read, the lock released, and then the task is submitted.
    for number in 1..=10 {
        let before = *sum.lock().expect("no task panics");
        let shared = Arc::clone(&sum);
        pool.execute(move || add(&shared, number.max(before / 1_000)))?;
    }
    pool.wait_idle();
    assert_eq!(*sum.lock().expect("no task panics"), 55);

    // Right as well: under the lock only by a `try_` form. What found no room is run when the lock was released.
    let mut left_over = Vec::new();
    let guard = sum.lock().expect("no task panics");
    for number in 1..=10 {
        let shared = Arc::clone(&sum);
        if let Err(refused) = pool.try_execute(move || add(&shared, number)) {
            left_over.push(refused.into_inner());
        }
    }
    drop(guard);
    println!("{} of 10 tasks found no room while the lock was held", left_over.len());
    for task in left_over {
        pool.execute(task)?;
    }
    pool.wait_idle();
    assert_eq!(*sum.lock().expect("no task panics"), 110);
    Ok(())
}
