//! Keyed executors: tasks that submit to full keys, joins of keys, and the end of the pool.

use std::time::Duration;

use super::{Count, assert_balanced, pool};
use crate::keyed::KeyedExecutor;
use crate::models::explore::{explore_scenario, join};
use crate::retry::RetryPolicy;
use crate::sync::{Arc, AtomicUsize, Ordering, Time, thread};

/// Submits two numbered tasks to one key, and returns how many were accepted.
fn submit(executor: &KeyedExecutor<usize>, key: usize, last: &Arc<[AtomicUsize; 2]>, ran: &Count) -> usize {
    let accepted = (1..=2).filter(|number| {
        let (number, last, ran) = (*number, Arc::clone(last), ran.clone());
        let task = move || {
            assert!(last[key].swap(number, Ordering::Relaxed) < number, "tasks of a key keep their order");
            ran.add();
        };
        executor.execute(key, task).is_ok()
    });
    accepted.count()
}

#[test]
fn keyed_submitters_and_joins() {
    explore_scenario("keyed_submitters_and_joins", Time::Frozen, || {
        let pool = pool(2, 2);
        let executor = KeyedExecutor::builder(&pool).capacity(2).capacity_per_key(1).build();
        let (last, ran) = (Arc::new([0, 0].map(AtomicUsize::new)), Count::default());
        let outside = thread::spawn({
            let (executor, last, ran) = (executor.clone(), Arc::clone(&last), ran.clone());
            move || submit(&executor, 0, &last, &ran)
        });
        let (own, inside, count) = (executor.clone(), Arc::clone(&last), ran.clone());
        // Submits to a full key and joins a key from a task of the executor.
        let parent = executor.spawn(9, move || {
            let accepted = submit(&own, 1, &inside, &count);
            let joined = own.spawn(1, || 7).map_or(0, |handle| handle.join().unwrap_or(0));
            (accepted, joined)
        });
        let parent = parent.unwrap_or_else(|_| panic!("the pool is open"));
        assert_eq!(parent.join().ok(), Some((2, 7)), "a join of another key ends");
        assert_eq!(join(outside), 2);
        executor.wait_idle();
        assert_eq!((ran.get(), executor.keys_active(), executor.len()), (4, 0, 0));
        pool.shutdown();
        assert_balanced(&pool);
    });
}

#[test]
fn keyed_joins_on_two_workers() {
    explore_scenario("keyed_joins_on_two_workers", Time::Frozen, || {
        let pool = pool(2, 2);
        let executor = pool.keyed::<usize>();
        // Each parent joins the last task of a key to which the other adds as well.
        let parents = [0, 1].map(|own| {
            let executor = executor.clone();
            let parent = move || {
                let first = executor.spawn(5, move || own);
                let second = executor.spawn(5, move || 10 + own);
                let second = second.map_or(0, |handle| handle.join().unwrap_or(0));
                second + first.map_or(0, |handle| handle.join().unwrap_or(0))
            };
            pool.spawn(parent).unwrap_or_else(|_| panic!("the pool is open"))
        });
        let sums = parents.map(|parent| parent.join().ok());
        assert_eq!(sums, [Some(10), Some(12)], "a join on a worker ends");
        pool.shutdown();
        assert_eq!(executor.keys_active(), 0);
        assert_balanced(&pool);
    });
}

#[test]
fn keyed_and_shutdown_now() {
    explore_scenario("keyed_and_shutdown_now", Time::Frozen, || {
        let pool = pool(2, 2);
        let executor = KeyedExecutor::builder(&pool).capacity(1).build();
        let (last, ran) = (Arc::new([0, 0].map(AtomicUsize::new)), Count::default());
        let submitters = [0, 1].map(|key| {
            let (executor, last, ran) = (executor.clone(), Arc::clone(&last), ran.clone());
            thread::spawn(move || submit(&executor, key, &last, &ran))
        });
        let handle = executor.spawn(0, || ());
        let cancelled = handle.is_ok_and(|handle| handle.cancel());
        let _report = pool.shutdown_now();
        let accepted: usize = submitters.into_iter().map(join).sum();
        pool.shutdown();
        executor.wait_idle();
        assert!(ran.get() <= accepted, "a refused task does not run");
        assert_eq!(executor.len(), 0, "cancelled: {cancelled}");
        // A worker that a report has left behind may still end the turn of a cancelled task.
        while executor.keys_active() > 0 {
            thread::yield_now();
        }
        assert_balanced(&pool);
    });
}

#[test]
fn keyed_retry_and_join_and_shutdown() {
    explore_scenario("keyed_retry_and_join_and_shutdown", Time::Skips, || {
        let (pool, ran) = (pool(1, 2), Count::default());
        let executor = pool.keyed::<u8>();
        let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
        let retried = executor.spawn_with_retry(5, policy, |attempt| {
            if attempt.number() < 3 { Err("no answer") } else { Ok(attempt.number()) }
        });
        let retried = retried.unwrap_or_else(|_| panic!("the pool is open"));
        let (own, next) = (executor.clone(), ran.clone());
        // The only worker may have to make the attempts while it waits.
        let joins = pool.spawn(move || {
            let behind = own.spawn(5, move || next.add());
            behind.is_ok_and(|behind| behind.join().is_ok())
        });
        let ender = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.shutdown_now()
        });
        let ended_well = matches!(retried.join(), Ok(Ok(3)));
        let joined = joins.is_ok_and(|joins| joins.join().unwrap_or(false));
        let _ = join(ender);
        executor.wait_idle();
        pool.wait_idle();
        assert_eq!(ran.get(), usize::from(joined), "a task that was joined has run, after {ended_well}");
        assert_eq!((executor.keys_active(), executor.len()), (0, 0), "no key is left");
        pool.shutdown();
        assert_balanced(&pool);
    });
}
