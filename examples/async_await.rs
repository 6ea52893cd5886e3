//! Blocking and heavy work from async code: handles, groups and the end of a pool can be awaited. Any runtime will do;
//! the smallest is enough here. Async code submits with `spawn_async` or a `try_` form, because the plain ones may block.

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

/// The longest way below `limit`. Four tasks share the search.
async fn longest_way(pool: &WorkerPool, limit: u64) -> Result<usize, Box<dyn Error>> {
    let group = pool.group(); // if this future is dropped, the searches that have not started are cancelled
    group.spawn_all(
        (1..=4).map(|first| move || (first..limit).step_by(4).map(steps_to_one).max().ok_or("a limit below five")),
    );
    Ok(group.await?.into_iter().max().unwrap_or(0))
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
        let outcome = pool.spawn_async(move || *empty.iter().max().expect("a maximum of something")).await?.await;
        let Err(JoinError::Panicked(panic)) = outcome else { return Err("the task must panic".into()) };
        println!("{panic}");
        assert_eq!(panic.message(), Some("a maximum of something"));

        pool.shutdown_async().await; // after this, the drop of the pool does not block the runtime
        Ok(())
    })
}
