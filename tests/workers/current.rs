//! `current_worker`: on workers, in hooks, in helped tasks and on other threads.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};

use crate::common::{BlockedWorkers, Gate, Mutex, grid, on_grid};
use workcrew::{Overflow, RunningTask, WorkerPool, current_worker};

/// Fault 420.
#[test]
fn a_task_sees_the_worker_on_which_it_runs() {
    on_grid(|pool| {
        assert!(current_worker().is_none());
        let (gate, seen) = (Gate::new(), Arc::new(Mutex::new(BTreeSet::new())));
        for started in 1..=pool.workers() {
            let (inside, seen, own) = (gate.clone(), Arc::clone(&seen), pool.clone());
            pool.execute(move || {
                let worker = current_worker().unwrap();
                assert!(worker.is_of(&own) && worker.pool().upgrade().is_some());
                seen.lock().unwrap().insert(worker.index());
                inside.pass();
            })
            .unwrap();
            gate.wait_started(started);
        }
        let running: BTreeSet<usize> = pool.running().iter().map(RunningTask::worker).collect();
        assert_eq!(*seen.lock().unwrap(), running);
        gate.open();
    });
}

/// Fault 420.
#[test]
fn hooks_see_their_worker_and_destructors_of_thread_locals_see_none() {
    struct Looks(mpsc::Sender<bool>);
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.send(current_worker().is_none()).unwrap();
        }
    }
    thread_local!(static LOOKS: RefCell<Option<Looks>> = const { RefCell::new(None) });
    grid(|builder| {
        let (tell, told) = mpsc::channel();
        let pool = builder
            .try_on_thread_start(move |index| {
                let worker = current_worker().unwrap();
                // There is no handle to the pool yet.
                assert!(worker.index() == index && worker.pool().upgrade().is_none());
                LOOKS.with_borrow_mut(|looks| *looks = Some(Looks(tell.clone())));
                Ok::<_, String>(())
            })
            .on_thread_stop(|index| assert_eq!(current_worker().unwrap().index(), index))
            .build()
            .unwrap();
        let (workers, weak) = (pool.workers(), pool.clone());
        pool.shutdown();
        assert_eq!(weak.metrics().hooks_panicked, 0);
        drop((pool, weak));
        assert_eq!(told.iter().filter(|saw_none| *saw_none).count(), workers);
    });
}

/// Fault 420.
#[test]
fn a_task_that_its_submitter_runs_sees_the_submitter() {
    let full = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::CallerRuns).build().unwrap();
    let other = WorkerPool::builder().workers(1).build().unwrap();
    let wedge = BlockedWorkers::new(&full);
    full.execute(|| ()).unwrap();
    let look = || current_worker();
    assert!(full.spawn(look).unwrap().join().unwrap().is_none());
    let submitter = full.clone();
    let seen = other.spawn(move || submitter.spawn(look).unwrap().join().unwrap().unwrap()).unwrap().join().unwrap();
    assert!(seen.is_of(&other) && !seen.is_of(&full));
    wedge.open();
}

/// Fault 420.
#[test]
fn a_worker_that_helps_is_the_worker_of_the_helped_task() {
    on_grid(|pool| {
        let own = pool.clone();
        let indices = pool.spawn(move || {
            let index = || current_worker().unwrap().index();
            let inner = own.clone();
            let nested = own.spawn(move || (current_worker().unwrap().is_of(&inner), index())).unwrap();
            (index(), nested.join().unwrap())
        });
        let (outer, (is_of, nested)) = indices.unwrap().join().unwrap();
        assert!(is_of);
        if pool.workers() == 1 {
            assert_eq!(outer, nested);
        }
    });
}
