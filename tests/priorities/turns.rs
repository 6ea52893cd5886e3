//! Which class a worker takes next, and how long the others wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use workcrew::Priority::{Background, High, Normal};
use workcrew::WorkerPool;

use crate::common::{BlockedWorkers, with_watchdog};
use crate::{longest_wait, order_of, pool};

/// The stated numbers: of turns of other classes that the oldest job of a class waits for.
const BEFORE_HIGH: usize = 2;
const BEFORE_NORMAL: usize = 8;
const BEFORE_BACKGROUND: usize = 32;

/// Fault 510.
#[test]
fn each_class_waits_for_exactly_the_stated_number_of_others() {
    let all = order_of([5_000, 2_000, 400]);
    // While all of them wait.
    let all = &all[..4_000];
    assert_eq!(longest_wait(all, High), BEFORE_HIGH);
    assert_eq!(longest_wait(all, Normal), BEFORE_NORMAL);
    assert_eq!(longest_wait(all, Background), BEFORE_BACKGROUND);
    assert_eq!(all[..10], [[High; 8].as_slice(), &[Normal, High]].concat());
}

#[test]
fn a_class_without_a_rival_takes_every_turn() {
    assert_eq!(order_of([0, 0, 50]), [Background; 50]);
    assert_eq!(order_of([50, 0, 0]), [High; 50]);
    let two = order_of([0, 31, 3]);
    assert_eq!(two, [[Normal; 31].as_slice(), &[Background; 3]].concat());
    assert_eq!(order_of([3, 0, 3]), [High, High, High, Background, Background, Background]);
}

/// Fault 511.
#[test]
fn a_high_job_behind_a_long_batch_starts_after_at_most_two_others() {
    const JOBS: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    with_watchdog(|| {
        let builder = WorkerPool::builder().workers(1).queue_capacity(1).priority_capacity(Background, JOBS);
        let pool = builder.build().unwrap();
        let blocked = BlockedWorkers::new(&pool); // the unit tests of the queue have a million
        let started = Arc::new(AtomicUsize::new(0));
        let batch = pool.task().priority(Background);
        for _ in 0..JOBS {
            let started = Arc::clone(&started);
            let count = move |_: &workcrew::CancellationToken| {
                started.fetch_add(1, Ordering::Relaxed);
            };
            batch.execute(count).unwrap();
        }
        let seen = Arc::clone(&started);
        let urgent = pool.task().priority(High).spawn(move |_| seen.load(Ordering::Relaxed)).unwrap();
        blocked.open();
        assert!(urgent.join().unwrap() <= BEFORE_HIGH);
        assert!(pool.shutdown_now().tasks_cancelled > 0, "the batch was over before");
    });
}

#[test]
fn a_low_class_is_not_starved_by_jobs_that_submit_their_successors() {
    for workers in [1, 2, 8] {
        with_watchdog(|| {
            let pool = pool(workers, 64);
            let done = Arc::new(AtomicUsize::new(0));
            // Each job of the higher classes submits another one, until the background job has run.
            fn repeat(pool: &WorkerPool, priority: workcrew::Priority, done: &Arc<AtomicUsize>) {
                if done.load(Ordering::SeqCst) == 0 {
                    let (own, next) = (pool.clone(), Arc::clone(done));
                    pool.task().priority(priority).execute(move |_| repeat(&own, priority, &next)).unwrap();
                }
            }
            (0..4 * workers).for_each(|_| repeat(&pool, High, &done));
            (0..4 * workers).for_each(|_| repeat(&pool, Normal, &done));
            let seen = Arc::clone(&done);
            let low = pool.task().priority(Background).spawn(move |_| seen.fetch_add(1, Ordering::SeqCst)).unwrap();
            while !low.is_finished() {
                std::thread::yield_now();
            }
            pool.wait_idle();
        });
    }
}

#[test]
fn jobs_of_one_class_start_in_the_order_of_submission() {
    let pool = pool(1, 64);
    let blocked = BlockedWorkers::new(&pool);
    let (sender, order) = mpsc::channel();
    for number in 0..60 {
        let sender = sender.clone();
        let class = [High, Normal, Background][number % 3];
        pool.task().priority(class).execute(move |_| sender.send(number).unwrap()).unwrap();
    }
    blocked.open();
    drop(sender);
    let order: Vec<_> = order.iter().collect();
    for class in 0..3 {
        let own: Vec<_> = order.iter().copied().filter(|number| number % 3 == class).collect();
        assert!(own.is_sorted() && own.len() == 20, "{own:?}");
    }
}
