//! Blocking and heavy work from async code: a handle is a future, so what the pool computes can be awaited. Any runtime
//! will do; the smallest is enough here. Async code submits with the `try_` forms, because the plain ones may block.

use std::error::Error;

use workcrew::{JoinError, WorkerPool};

/// Heavy work that would hold up the runtime: the number of steps a number takes to one, halved if even, else tripled
/// plus one.
fn steps_to_one(start: u64) -> usize {
    let next = |&number: &u64| match number {
        1 => None,
        even if even % 2 == 0 => Some(even / 2),
        odd => Some(3 * odd + 1),
    };
    std::iter::successors(Some(start), next).count() - 1
}

/// The longest way below `limit`. Four tasks share the search; all run while the first is awaited.
async fn longest_way(pool: &WorkerPool, limit: u64) -> Result<usize, Box<dyn Error>> {
    let mut handles = Vec::new();
    for first in 1..=4 {
        let search = move || (first..limit).step_by(4).map(steps_to_one).max();
        handles.push(pool.try_spawn(search)?); // A full queue is an error here; a server would answer "busy".
    }
    let mut longest = 0;
    for handle in handles {
        longest = longest.max(handle.await?.unwrap_or(0));
    }
    Ok(longest)
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = WorkerPool::builder().workers(4).build()?;
    pollster::block_on(async {
        let longest = longest_way(&pool, 10_000).await?;
        println!("the longest way below 10,000 has {longest} steps");
        assert_eq!(longest, 261);

        // A panic does not reach the runtime: the awaiting task gets an error. (The standard library
        // prints the panic.)
        let empty: [usize; 0] = [];
        let outcome = pool.try_spawn(move || *empty.iter().max().expect("a maximum of something"))?.await;
        let Err(JoinError::Panicked(panic)) = outcome else { return Err("the task must panic".into()) };
        println!("{panic}");
        assert_eq!(panic.message(), Some("a maximum of something"));
        Ok(())
    })
}
