//! Order for each key: what does an empty task cost that waits for the earlier ones of its key?
//!
//! One producer submits tasks of 64 keys in turn. workcrew takes them by a keyed executor.
//! `threadpool_key_locks` has a lock for each key around the jobs of a threadpool: it runs one task
//! of a key at a time, but in no order, and blocks a thread that waits for a key. The crate exec-rs
//! does that with a map of locks; its dependencies have a licence that `deny.toml` does not allow.
//! `threadpool_for_each_key` is a map of threadpools with one thread each. Both are waited for by
//! the means of threadpool. `workcrew_without_keys` runs the same tasks in no order. The peer in Go
//! has a goroutine for each key, which receives that key's tasks from a bounded channel.

use std::array;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use threadpool::ThreadPool;

use super::empty;
use crate::candidate::{Candidate, Scale, Workload, timed};
use crate::pools::Pools;

/// Tasks in a sample.
const TASKS: usize = 100_000;
const KEYS: usize = 64;

pub(super) fn keys(pools: &'static Pools, scale: Scale) -> Workload {
    let tasks = scale.of(TASKS);
    let executor = pools.workcrew.keyed();
    let locks: Arc<[Mutex<()>; KEYS]> = Arc::new(array::from_fn(|_| Mutex::new(())));
    let of_keys: HashMap<_, _> = (0..KEYS).map(|key| (key, ThreadPool::new(1))).collect();
    let candidates = vec![
        Candidate::workcrew("workcrew", move || {
            timed(1, tasks, || {
                (0..tasks).for_each(|number| executor.execute(number % KEYS, empty(number)).expect("the pool is open"));
                executor.wait_idle();
            })
        }),
        Candidate::workcrew("workcrew_without_keys", move || {
            timed(1, tasks, || {
                (0..tasks).for_each(|number| pools.workcrew.execute(empty(number)).expect("the pool is open"));
                pools.workcrew.wait_idle();
            })
        }),
        Candidate::peer("threadpool_key_locks", move || {
            timed(1, tasks, || {
                for number in 0..tasks {
                    let locks = Arc::clone(&locks);
                    pools.threadpool.execute(move || {
                        let _guard = locks[number % KEYS].lock();
                        empty(number)();
                    });
                }
                pools.threadpool.join();
            })
        }),
        Candidate::peer("threadpool_for_each_key", move || {
            timed(1, tasks, || {
                (0..tasks).for_each(|number| of_keys[&(number % KEYS)].execute(empty(number)));
                of_keys.values().for_each(ThreadPool::join);
            })
        }),
    ];
    Workload {
        question: "What does an empty task of one of 64 keys cost, when it runs after those before it?",
        candidates,
    }
}
