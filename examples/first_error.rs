//! A group in the manner of Go's errgroup: the first error cancels the rest. The task that runs sees it in its token
//! and stops, tasks that are queued never start, and `wait` returns that first error once all that ran have ended.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::Duration;

use workcrew::{Cancelled, GroupError, WorkerPool};

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("shard {0} is damaged")]
    Damaged(u32),
    #[error("not read: {0}")]
    Stopped(#[from] Cancelled),
}

/// Reads 100 shards. `started` counts those that were begun.
fn read_shards(pool: &WorkerPool, started: &Arc<AtomicUsize>) -> Result<(), Box<dyn Error>> {
    let group = pool.group();
    let (open, gate) = channel();

    let (counter, ready, token) = (Arc::clone(started), open.clone(), group.token().clone());
    group.spawn(move || {
        counter.fetch_add(1, Relaxed);
        ready.send(()).expect("the next task waits for this");
        assert!(token.wait_timeout(Duration::MAX)); // Stands for long work that looks at the token now and then.
        token.check()?; // It was cancelled because of the other, so this error is not the first.
        Ok(())
    });
    let counter = Arc::clone(started);
    group.spawn(move || {
        counter.fetch_add(1, Relaxed);
        gate.iter().take(2).for_each(drop); // The task above runs, and all tasks below are queued.
        Err(ReadError::Damaged(1))
    });
    for _ in 2..100 {
        let counter = Arc::clone(started);
        group.spawn(move || {
            counter.fetch_add(1, Relaxed);
            Ok(())
        });
    }
    open.send(())?;
    group.wait()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = WorkerPool::builder().workers(2).build()?;
    let started = Arc::new(AtomicUsize::new(0));
    let error = read_shards(&pool, &started).expect_err("one shard is damaged");
    println!("{error}; {} of 100 tasks had started", started.load(Relaxed));
    assert!(matches!(error.downcast_ref(), Some(GroupError::Failed(ReadError::Damaged(1)))));
    assert_eq!(started.load(Relaxed), 2);
    assert_eq!(pool.metrics().tasks_cancelled, 98);
    Ok(())
}
