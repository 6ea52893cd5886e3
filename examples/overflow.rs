//! What a submitter experiences at a full queue. The `try_` and `_for` forms return the closure. The
//! plain forms follow one of four policies: block, run on the caller, discard the oldest, or discard
//! the newest.

use std::error::Error;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use workcrew::{CancelReason, JoinError, JoinHandle, Overflow, WorkerPool};

/// A pool whose only worker is busy until the gate is dropped, and whose only place is taken by a task, the old one.
type Saturated = (WorkerPool, Sender<()>, JoinHandle<&'static str>);

fn saturated(policy: Overflow) -> Result<Saturated, Box<dyn Error>> {
    let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(policy).build()?;
    let (started, start) = channel();
    let (gate, closed_gate) = channel::<()>();
    pool.execute(move || {
        started.send(()).expect("the receiver is waiting");
        closed_gate.recv().expect_err("a gate is dropped, never used");
    })?;
    start.recv()?;
    let old = pool.spawn(|| "old")?;
    Ok((pool, gate, old))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (pool, gate, old) = saturated(Overflow::Block)?;
    let refused = pool.try_execute(|| println!("the closure came back whole")).expect_err("the queue is full");
    assert!(refused.is_full());
    refused.into_inner()();
    let late = pool.try_execute_for(Duration::from_millis(10), || ()).expect_err("the queue stays full");
    println!("try_execute_for: {late}");
    assert!(late.is_timeout());
    drop(gate);
    let new = pool.spawn(|| "new")?; // Waits until the worker has taken the old task.
    assert_eq!((old.join()?, new.join()?), ("old", "new"));

    let (pool, _gate, _old) = saturated(Overflow::CallerRuns)?;
    let ran_on = pool.spawn(|| thread::current().id())?.join()?;
    println!("CallerRuns: {ran_on:?} submitted it and ran it");
    assert_eq!(ran_on, thread::current().id());

    for policy in [Overflow::DiscardOldest, Overflow::DiscardNewest] {
        let (pool, gate, old) = saturated(policy)?;
        let new = pool.spawn(|| "new")?;
        drop(gate);
        let (old, new) = (old.join(), new.join());
        println!("{policy:?}: {old:?}, {new:?}");
        let (kept, lost) = if policy == Overflow::DiscardOldest { (new, old) } else { (old, new) };
        assert!(kept.is_ok() && matches!(lost, Err(JoinError::Cancelled(CancelReason::Discarded))));
    }
    Ok(())
}
