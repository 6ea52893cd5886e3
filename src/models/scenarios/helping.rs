//! Tasks that wait for tasks: on one pool, on two, in groups in groups, in scopes with panics.

use std::convert::Infallible;

use super::{Count, assert_balanced, pool};
use crate::error::{GroupError, JoinError};
use crate::models::explore::{explore_scenario, join};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Time, thread};
use crate::task::handle::JoinHandle;
use crate::unwind;

#[test]
fn helping() {
    explore_scenario("helping", Time::Frozen, || {
        let (pool, count) = (pool(2, 1), Count::default());
        let outside = thread::spawn({
            let (pool, count) = (Arc::clone(&pool), count.clone());
            move || (0..2).filter(|_| pool.execute(count.adder()).is_ok()).count()
        });
        let handles = [1, 2].map(|value| {
            let weak = Arc::downgrade(&pool);
            let parent = move || {
                let pool = weak.upgrade().expect("the model keeps the pool");
                let child = pool.spawn(move || value).expect("the pool is open");
                let grandchild = pool.spawn(move || 10 * value).expect("the pool is open");
                child.join().unwrap_or(0) + grandchild.join().unwrap_or(0)
            };
            pool.spawn(parent).unwrap_or_else(|_| panic!("the pool is open"))
        });
        let sums = handles.map(|handle| handle.join().ok());
        assert_eq!(sums, [Some(11), Some(22)], "a wait on a worker ends");
        assert_eq!(join(outside), 2);
        pool.shutdown();
        assert_eq!(count.get(), 2);
        assert_balanced(&pool);
    });
}

#[test]
fn nested_helping_on_two_pools() {
    explore_scenario("nested_helping_on_two_pools", Time::Frozen, || {
        let (one, two) = (pool(1, 1), pool(1, 1));
        let tasks = [(Arc::clone(&one), Arc::clone(&two)), (Arc::clone(&one), Arc::clone(&two))];
        let handles = tasks.map(|(one, two)| {
            let home = Arc::downgrade(&one);
            let abroad = Arc::downgrade(&two);
            let task = move || {
                let (home, abroad) = (
                    home.upgrade().expect("the model keeps the pool"),
                    abroad.upgrade().expect("the model keeps the pool"),
                );
                let weak = Arc::downgrade(&abroad);
                // The only worker of the other pool waits for a group.
                let far = abroad.spawn(move || {
                    let group = weak.upgrade().expect("the model keeps the pool").group();
                    for value in 0..2 {
                        group.spawn(move || Ok::<_, Infallible>(value));
                    }
                    group.wait().map_or(0, |values| values.len())
                });
                let near = home.spawn(|| 1).map_or(0, |near| near.join().unwrap_or(0));
                near + far.map_or(0, |far| far.join().unwrap_or(0))
            };
            one.spawn(task).unwrap_or_else(|_| panic!("the pool is open"))
        });
        for handle in handles {
            assert_eq!(handle.join().ok(), Some(3));
        }
        for pool in [one, two] {
            pool.shutdown();
            assert_balanced(&pool);
        }
    });
}

/// The tasks of each pool wait on a worker of the other pool for a task that is queued in their
/// own.
#[test]
fn helping_along_a_chain_through_two_pools() {
    explore_scenario("helping_along_a_chain_through_two_pools", Time::Frozen, || {
        let pools = [pool(1, 2), pool(1, 2)];
        let handles = [0, 1].map(|own| {
            let (home, abroad) = (Arc::downgrade(&pools[own]), Arc::downgrade(&pools[1 - own]));
            let task = move || {
                let far = abroad.upgrade().expect("the model keeps the pool").spawn(move || {
                    let near = home.upgrade().expect("the model keeps the pool").spawn(|| 1);
                    near.map_or(0, |near| near.join().unwrap_or(0))
                });
                far.map_or(0, |far| far.join().unwrap_or(0))
            };
            pools[own].spawn(task).unwrap_or_else(|_| panic!("the pool is open"))
        });
        for handle in handles {
            assert_eq!(handle.join().ok(), Some(1), "a wait on a worker ends");
        }
        for pool in pools {
            pool.shutdown();
            assert_balanced(&pool);
        }
    });
}

/// Two tasks join each other. The join that closes the circle is refused, and the other one ends.
#[test]
fn joins_in_a_circle() {
    explore_scenario("joins_in_a_circle", Time::Frozen, || {
        let pool = pool(2, 2);
        let places: [Arc<Mutex<Option<JoinHandle<bool>>>>; 2] = Default::default();
        let (refused, ready) = (Count::default(), Arc::new(AtomicBool::new(false)));
        for own in [0, 1] {
            let (other, refused, ready) = (Arc::clone(&places[1 - own]), refused.clone(), Arc::clone(&ready));
            let task = move || {
                while !ready.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                let other = other.lock().take();
                let is_refused = other.is_some_and(|other| matches!(other.join(), Err(JoinError::WouldDeadlock(_))));
                if is_refused {
                    refused.add();
                }
                is_refused
            };
            let handle = pool.spawn(task).unwrap_or_else(|_| panic!("the pool is open"));
            *places[own].lock() = Some(handle);
        }
        ready.store(true, Ordering::SeqCst);
        pool.shutdown();
        assert_eq!(refused.get(), 1);
        assert_balanced(&pool);
    });
}

/// A task waits for any task of a group, whose only member joins the task. The last spawner of the
/// group is dropped meanwhile, so nothing can end the wait: it is refused, or the join is.
#[test]
fn any_wait_in_a_circle() {
    explore_scenario("any_wait_in_a_circle", Time::Frozen, || {
        let (home, abroad) = (pool(1, 2), pool(1, 2));
        let place: Arc<Mutex<Option<JoinHandle<bool>>>> = Arc::default();
        let (refused, ready) = (Count::default(), Arc::new(AtomicBool::new(false)));
        let group = abroad.group();
        let spawner = group.spawner();
        let (joined, counted, is_ready) = (Arc::clone(&place), refused.clone(), Arc::clone(&ready));
        group.spawn(move || {
            while !is_ready.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let joined = joined.lock().take().map(JoinHandle::join);
            if matches!(joined, Some(Err(JoinError::WouldDeadlock(_)))) {
                counted.add();
            }
            Ok::<_, Infallible>(())
        });
        let counted = refused.clone();
        let task = move || {
            let is_refused = matches!(group.wait_any(), Err(GroupError::WouldDeadlock(_)));
            if is_refused {
                counted.add();
            }
            is_refused
        };
        *place.lock() = Some(home.spawn(task).unwrap_or_else(|_| panic!("the pool is open")));
        ready.store(true, Ordering::SeqCst);
        drop(spawner);
        home.shutdown();
        abroad.shutdown();
        assert_eq!(refused.get(), 1);
        for pool in [home, abroad] {
            assert_balanced(&pool);
        }
    });
}

#[test]
fn group_in_group() {
    explore_scenario("group_in_group", Time::Frozen, || {
        let pool = pool(2, 2);
        let outer = pool.group();
        for value in 0..2 {
            let weak = Arc::downgrade(&pool);
            outer.spawn(move || {
                let inner = weak.upgrade().expect("the model keeps the pool").group().limit(1);
                for part in 0..2 {
                    inner.spawn(move || if part > 1 { Err("never") } else { Ok(part + value) });
                }
                inner.wait().map(|values| values.into_iter().sum::<usize>())
            });
        }
        let sums = outer.wait().ok();
        assert_eq!(sums, Some(vec![1, 3]), "a task of one group can wait for another group");
        pool.shutdown();
        assert_balanced(&pool);
    });
}

#[test]
fn failing_group_with_spawners() {
    explore_scenario("failing_group_with_spawners", Time::Frozen, || {
        let (pool, started) = (pool(2, 2), Count::default());
        let group = pool.group();
        for task in 0..3 {
            let (spawner, started) = (group.spawner(), started.clone());
            group.spawn(move || {
                started.add();
                let sibling = started.clone();
                spawner.spawn(move || {
                    sibling.add();
                    Ok(())
                });
                if task == 1 { Err("the cause") } else { Ok(()) }
            });
        }
        let outcome = group.wait();
        assert!(matches!(outcome, Err(GroupError::Failed("the cause"))), "first error wins");
        let started_when_over = started.get();
        pool.shutdown();
        assert_eq!(started.get(), started_when_over, "no task starts after the wait");
        assert_balanced(&pool);
    });
}

#[test]
fn scope_with_panics() {
    explore_scenario("scope_with_panics", Time::Frozen, || {
        let (pool, ended) = (pool(2, 1), Count::default());
        let borrowed = vec![ended.clone(); 3];
        let outcome = unwind::catch(|| {
            pool.scope(|scope| {
                for (task, count) in borrowed.iter().enumerate() {
                    scope.spawn(move || {
                        let _counted = OnDrop(count);
                        if task == 1 {
                            unwind::resume(Box::new("a task panics"));
                        }
                    });
                }
                if ended.get() > 1 {
                    unwind::resume(Box::new("the body panics too"));
                }
            })
        });
        match outcome {
            Ok(ended) => assert!(matches!(ended, Err(GroupError::Panicked(_)))),
            Err(payload) => assert!(payload.is::<&str>()),
        }
        drop(borrowed);
        assert_eq!(Arc::strong_count(&ended.0), 1, "no borrow outlives the scope");
        pool.shutdown();
        assert_balanced(&pool);
    });
}

/// A value that counts its drop.
struct OnDrop<'a>(&'a Count);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.add();
    }
}

#[test]
fn cancel_and_join_and_help() {
    explore_scenario("cancel_and_join_and_help", Time::Frozen, || {
        let (pool, runs) = (pool(1, 2), Count::default());
        let task = Arc::new(pool.spawn(runs.adder()).unwrap_or_else(|_| panic!("the pool is open")));
        let canceller = thread::spawn({
            let task = Arc::clone(&task);
            move || task.cancel()
        });
        let weak = Arc::downgrade(&task);
        let waiter = pool.spawn(move || weak.upgrade().is_none_or(|task| task.wait_timeout(std::time::Duration::MAX)));
        let waited = waiter.unwrap_or_else(|_| panic!("the pool is open")).join();
        assert!(matches!(waited, Ok(true)));
        let cancelled = join(canceller);
        let task = Arc::into_inner(task).expect("the other threads were joined");
        match task.join() {
            Ok(()) => assert!(!cancelled && runs.get() == 1),
            Err(error) => assert!(cancelled && runs.get() == 0 && matches!(error, JoinError::Cancelled(_))),
        }
        pool.shutdown();
        assert_balanced(&pool);
    });
}

/// A result that is not taken, and panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        unwind::resume(Box::new("a result panics"));
    }
}

#[test]
fn results_that_panic() {
    explore_scenario("results_that_panic", Time::Frozen, || {
        let (pool, runs) = (pool(1, 2), Count::default());
        drop(pool.spawn(|| Bomb).unwrap_or_else(|_| panic!("the pool is open")));
        assert!(pool.execute(runs.adder()).is_ok());
        pool.wait_idle();
        pool.shutdown();
        assert_eq!(runs.get(), 1, "the worker lives on");
        assert_balanced(&pool);
    });
}
