//! A scope: tasks that borrow from the caller's stack, without `Arc` and without copies. Each task gets a slot of its
//! own for its result, by a mutable borrow, and the scope returns when all of them have ended.

use std::error::Error;

use workcrew::WorkerPool;

/// Adds up the numbers, one task for each slice of them.
fn sum(pool: &WorkerPool, numbers: &[u64]) -> Result<u64, Box<dyn Error>> {
    let slice_length = numbers.len().div_ceil(pool.workers()).max(1);
    let slices = numbers.chunks(slice_length);
    let mut sums = vec![0; slices.len()];
    pool.scope(|scope| {
        for (sum, slice) in sums.iter_mut().zip(slices) {
            scope.spawn(move || *sum = slice.iter().sum());
        }
    })?;
    Ok(sums.iter().sum())
}

/// Parses the words, borrowed from a text. The first that is no number cancels the rest.
fn parse(pool: &WorkerPool, text: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut numbers = vec![0; words.len()];
    pool.scope(|scope| {
        for (number, word) in numbers.iter_mut().zip(&words) {
            scope.spawn(move || {
                *number = word.parse().map_err(|error| format!("{word:?}: {error}"))?;
                Ok::<_, String>(())
            });
        }
    })?;
    Ok(numbers)
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = WorkerPool::builder().workers(4).build()?;

    let numbers: Vec<u64> = (1..=1_000_000).collect();
    let total = sum(&pool, &numbers)?;
    println!("the sum of {} numbers is {total}", numbers.len());
    assert_eq!(total, 500_000_500_000);

    let numbers = parse(&pool, "3 1 4 1 5 9 2 6")?;
    println!("{numbers:?}");
    assert_eq!(numbers, [3, 1, 4, 1, 5, 9, 2, 6]);

    let error = parse(&pool, "3 1 four 1 5").expect_err("one of the words is no number");
    println!("{error}");
    assert_eq!(error.to_string(), "\"four\": invalid digit found in string");
    Ok(())
}
