//! Waits of workers for what needs these very workers: they help along the chain of waits, or are refused; they never
//! hang. And a wait that can end is never refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{Counter, Gate, Mutex, pool, with_watchdog};
use workcrew::{JoinError, JoinHandle, WorkerLocal, WorkerPool};

const SIZES: [usize; 3] = [1, 2, 8];

/// Starts a task on each worker, all at once: none goes on before each has started. Returns what they make.
fn on_each_worker<T: Send + 'static>(
    pool: &WorkerPool,
    task: impl Fn(WorkerPool) -> T + Clone + Send + 'static,
) -> Vec<Result<T, JoinError>> {
    let gate = Gate::new();
    let handles: Vec<_> = (0..pool.workers())
        .map(|_| {
            let (inside, task, weak) = (gate.clone(), task.clone(), pool.downgrade());
            let body = move || {
                inside.pass();
                task(weak.upgrade().unwrap())
            };
            pool.spawn(body).unwrap()
        })
        .collect();
    gate.wait_started(pool.workers());
    gate.open();
    with_watchdog(|| handles.into_iter().map(JoinHandle::join).collect())
}

fn all_are<T: PartialEq + std::fmt::Debug>(results: Vec<Result<T, JoinError>>, expected: &T) {
    for result in results {
        assert_eq!(&result.unwrap(), expected);
    }
}

/// Fault 153.
#[test]
fn a_task_joins_one_of_another_pool_that_joins_a_queued_one_of_the_first() {
    for workers in SIZES {
        let (home, abroad) = (pool(workers, 64), pool(workers, 64));
        let far = abroad.clone();
        let answers = on_each_worker(&home, move |home| {
            let far_task = move || home.spawn(|| 1).unwrap().join().unwrap() + 1;
            far.spawn(far_task).unwrap().join().unwrap() + 1
        });
        all_are(answers, &3);
    }
}

/// Fault 153.
#[test]
fn a_ring_of_three_pools_ends() {
    for workers in SIZES {
        let [one, two, three] = [1, 2, 3].map(|_| pool(workers, 64));
        let answers = on_each_worker(&one, move |one| {
            let three = three.clone();
            let on_two = move || three.spawn(move || one.spawn(|| 1).unwrap().join().unwrap()).unwrap().join().unwrap();
            two.spawn(on_two).unwrap().join().unwrap()
        });
        all_are(answers, &1);
    }
}

/// Fault 153.
#[test]
fn pools_whose_workers_all_wait_for_queued_tasks_of_each_other_end() {
    for workers in SIZES {
        let (one, two) = (pool(workers, 64), pool(workers, 64));
        let gate = Gate::new();
        let mut handles = Vec::new();
        for (own, other) in [(&one, &two), (&two, &one)] {
            for _ in 0..workers {
                let (inside, other) = (gate.clone(), other.clone());
                let task = move || {
                    inside.pass();
                    other.spawn(|| 1).unwrap().join().unwrap()
                };
                handles.push(own.spawn(task).unwrap());
            }
        }
        gate.wait_started(2 * workers);
        gate.open();
        all_are(with_watchdog(|| handles.into_iter().map(JoinHandle::join).collect()), &1);
    }
}

/// Fault 154.
#[test]
fn groups_scopes_maps_and_completions_wait_through_another_pool() {
    for workers in SIZES {
        let (home, abroad) = (pool(workers, 64), pool(workers, 64));
        let far = abroad.clone();
        let answers = on_each_worker(&home, move |home| {
            // A group here whose member waits there for a group here.
            let through = |kind: usize| {
                let (home, far) = (home.clone(), far.clone());
                let back = home.clone();
                let work = move || match kind {
                    0 => {
                        let group = back.group();
                        (0..3).for_each(|n| group.spawn(move || Ok::<_, String>(n)));
                        group.wait().unwrap().len()
                    }
                    1 => {
                        let ran = Counter::new();
                        back.scope(|scope| (0..3).for_each(|_| scope.spawn(|| ran.add()))).unwrap();
                        ran.get()
                    }
                    2 => back.map(0..3, |n| n).filter(Result::is_ok).count(),
                    _ => {
                        let mut group = back.group();
                        (0..3).for_each(|n| group.spawn(move || Ok::<_, String>(n)));
                        group.completions().count()
                    }
                };
                let outer = home.group();
                outer.spawn(move || Ok::<_, String>(far.spawn(work).unwrap().join().unwrap()));
                outer.wait().unwrap()[0]
            };
            (0..4).map(through).collect::<Vec<_>>()
        });
        all_are(answers, &vec![3; 4]);
    }
}

/// Fault 154.
#[test]
fn a_task_that_waits_for_room_in_a_group_of_a_pool_is_helped_by_a_worker_that_waits_for_the_task() {
    let (home, abroad) = (pool(1, 64), pool(1, 64));
    let answers = on_each_worker(&home, move |home| {
        let fills = move || {
            let group = home.group().capacity(1);
            (0..8).for_each(|n| group.spawn(move || Ok::<_, String>(n)));
            group.wait().unwrap().len()
        };
        abroad.spawn(fills).unwrap().join().unwrap()
    });
    all_are(answers, &8);
}

/// Fault 154.
#[test]
fn a_task_that_waits_for_room_in_a_queue_is_helped_by_a_worker_that_waits_for_the_task() {
    for capacity in [1, 4] {
        let (home, abroad) = (pool(1, capacity), pool(1, 64));
        let ran = Counter::new();
        let counted = ran.clone();
        let answers = on_each_worker(&home, move |home| {
            let counted = counted.clone();
            let fills = move || {
                let handles: Vec<_> = (0..16).map(|_| home.spawn(|| 1).unwrap()).collect();
                handles.into_iter().map(|handle| handle.join().unwrap()).sum::<u32>()
            };
            let sum = abroad.spawn(fills).unwrap().join().unwrap();
            counted.add();
            sum
        });
        all_are(answers, &16);
        assert_eq!(ran.get(), 1);
    }
}

/// Fault 155.
#[test]
fn waiting_for_another_pool_to_be_idle_or_to_end_helps_its_tasks() {
    for workers in SIZES {
        for ends in [false, true] {
            let home = pool(workers, 64);
            let answers = on_each_worker(&home, move |home| {
                let abroad = pool(1, 64);
                let far = abroad.spawn(move || home.spawn(|| 1).unwrap().join().unwrap()).unwrap();
                if ends {
                    abroad.shutdown();
                } else {
                    abroad.wait_idle();
                }
                assert!(far.is_finished());
                far.join().unwrap()
            });
            all_are(answers, &1);
        }
    }
}

/// Each way to wait for the end of a pool.
const ENDS: [fn(WorkerPool); 3] = [
    |pool| pool.shutdown(),
    |pool| pollster::block_on(pool.shutdown_async()),
    drop, // of the last handle, or without effect
];

/// A worker of the pool drops this when it leaves.
struct OnLeave(Option<Box<dyn FnOnce()>>, Option<WorkerLocal<OnLeave>>);

impl Drop for OnLeave {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|f| f());
    }
}

/// Makes a pool of one worker, which calls `f` when it leaves: in its stop hook, or in the destructor of a worker local.
fn leaving(in_hook: bool, f: impl Fn() + Send + Sync + 'static) -> WorkerPool {
    let builder = WorkerPool::builder().workers(1);
    if in_hook {
        return builder.on_thread_stop(move |_| f()).build().unwrap();
    }
    let (pool, f) = (builder.build().unwrap(), Arc::new(f));
    let local = WorkerLocal::new(&pool, move || {
        let f = Arc::clone(&f);
        OnLeave(Some(Box::new(move || f())), None)
    });
    // The value keeps its worker local until the worker leaves.
    pool.spawn(move || local.with(|value| value.1 = Some(local.clone())).unwrap()).unwrap().join().unwrap();
    pool
}

/// Fault 652.
#[test]
fn a_task_that_waits_for_the_end_of_a_pool_runs_what_its_leaving_worker_waits_for() {
    for (in_hook, end) in [true, false].into_iter().flat_map(|in_hook| ENDS.map(|end| (in_hook, end))) {
        let (home, ran) = (pool(1, 64), Counter::new());
        let count = ran.clone();
        let answers = on_each_worker(&home, move |home| {
            let count = count.clone();
            let abroad = leaving(in_hook, move || {
                let count = count.clone();
                home.spawn(move || count.add()).unwrap().join().unwrap();
            });
            end(abroad);
        });
        all_are(answers, &());
        home.wait_idle();
        assert_eq!(ran.get(), 1);
    }
}

/// Fault 652.
#[test]
fn workers_that_leave_and_wait_for_the_ends_of_each_others_pools_leave() {
    for (in_hook, other_in_hook) in [(true, true), (true, false), (false, false)] {
        let (own, others) = (Arc::new(Mutex::new(None::<WorkerPool>)), Counter::new());
        let (slot, count) = (Arc::clone(&own), others.clone());
        let end = move || {
            let pool = slot.lock().unwrap().clone();
            pool.into_iter().for_each(|pool| pool.shutdown());
            count.add();
        };
        let first = leaving(in_hook, end.clone());
        let second = leaving(other_in_hook, {
            let (first, count) = (first.clone(), others.clone());
            move || {
                first.shutdown();
                count.add();
            }
        });
        *own.lock().unwrap() = Some(second.clone());
        with_watchdog(|| {
            first.shutdown();
            second.shutdown();
        });
        assert_eq!(others.get(), 2);
        drop(own.lock().unwrap().take());
    }
}

/// Fault 652.
#[test]
fn a_leaving_worker_waits_for_a_pool_whose_task_waits_for_the_pool_that_it_leaves() {
    let (started, other) = (Gate::new(), Arc::new(Mutex::new(None::<WorkerPool>)));
    let (inside, slot) = (started.clone(), Arc::clone(&other));
    let first = leaving(true, move || {
        inside.pass();
        let pool = slot.lock().unwrap().take();
        pool.into_iter().for_each(|pool| pool.shutdown());
    });
    let (second, ended) = (pool(1, 64), first.clone());
    *other.lock().unwrap() = Some(second.clone());
    first.close();
    started.wait_started(1);
    let task = second.spawn(move || {
        started.open();
        ended.shutdown();
    });
    with_watchdog(|| task.unwrap().join().unwrap());
    with_watchdog(|| [first, second].into_iter().for_each(|pool| pool.shutdown()));
}

/// Fault 157.
#[test]
fn tasks_of_two_pools_that_join_each_other_get_would_deadlock() {
    for first in [0, 1] {
        let pools = [pool(1, 64), pool(1, 64)];
        let gates = [Gate::new(), Gate::new()];
        let (tell, told) = channel();
        let (senders, handles): (Vec<_>, Vec<_>) = [0, 1]
            .map(|index| {
                let (send, receive) = channel::<JoinHandle<()>>();
                let (gate, tell) = (gates[index].clone(), tell.clone());
                let task = move || {
                    gate.pass();
                    let answer = receive.recv().unwrap().join();
                    tell.send(matches!(answer, Err(JoinError::WouldDeadlock(_)))).unwrap();
                };
                (send, pools[index].spawn(task).unwrap())
            })
            .into_iter()
            .unzip();
        for (sender, handle) in senders.into_iter().zip(handles.into_iter().rev()) {
            sender.send(handle).unwrap();
        }
        // Each may be the one that closes the cycle.
        gates[first].open();
        gates[1 - first].open();
        let answers = with_watchdog(|| [told.recv().unwrap(), told.recv().unwrap()]);
        assert_eq!(answers.iter().filter(|refused| **refused).count(), 1, "one is refused, then the other ends");
    }
}

/// Fault 157.
#[test]
fn a_task_that_joins_the_task_whose_scope_waits_for_it_gets_would_deadlock() {
    let pool = pool(2, 64);
    let (send, receive) = channel::<JoinHandle<bool>>();
    let receive = common::Mutex::new(receive);
    let weak = pool.downgrade();
    let outer = pool
        .spawn(move || {
            let mut refused = false;
            let scope = weak.upgrade().unwrap().scope(|scope| {
                scope.spawn(|| {
                    let outer = receive.lock().unwrap().recv().unwrap();
                    refused = matches!(outer.join(), Err(JoinError::WouldDeadlock(_)));
                });
            });
            scope.unwrap();
            refused
        })
        .unwrap();
    // The task keeps its own handle: that it ends says that the join was refused.
    send.send(outer).unwrap();
    with_watchdog(|| pool.shutdown());
}

/// Fault 157.
#[test]
fn a_wait_for_a_pool_that_waits_for_the_waiting_task_returns_would_deadlock() {
    let (home, abroad) = (pool(1, 64), pool(1, 64));
    let (send, receive) = channel::<JoinHandle<()>>();
    let (answer, answered) = channel();
    let far = {
        let answer = answer.clone();
        move || {
            let joined = receive.recv().unwrap().join();
            answer.send(matches!(joined, Err(JoinError::WouldDeadlock(_)))).unwrap();
        }
    };
    abroad.execute(far).unwrap();
    let other = abroad.clone();
    common::quiet_panics();
    let task = move || {
        let idle = std::panic::catch_unwind(|| other.wait_idle());
        answer.send(idle.is_err()).unwrap();
    };
    send.send(home.spawn(task).unwrap()).unwrap();
    let answers = with_watchdog(|| [answered.recv().unwrap(), answered.recv().unwrap()]);
    assert_eq!(answers.iter().filter(|refused| **refused).count(), 1, "one of the two waits is refused");
}

/// Fault 158.
#[test]
fn a_wait_that_can_end_is_never_refused() {
    for workers in SIZES {
        let (home, abroad) = (pool(workers, 64), pool(workers, 64));
        let (busy, gate) = (Gate::new(), Gate::new());
        // A task there that runs, and waits for nothing that the crate knows of.
        let inside = busy.clone();
        let far = abroad.spawn(move || inside.pass()).unwrap();
        busy.wait_started(1);
        let passed = gate.clone();
        let waiter = home
            .spawn(move || {
                passed.pass();
                far.join()
            })
            .unwrap();
        gate.wait_started(1);
        gate.open();
        assert!(!waiter.wait_timeout(Duration::from_millis(20)));
        busy.open();
        assert!(with_watchdog(|| waiter.join()).unwrap().is_ok());
    }
}

/// Fault 158.
#[test]
fn a_wait_runs_only_the_tasks_that_it_needs() {
    let (home, abroad) = (pool(1, 64), pool(1, 64));
    let unrelated = Counter::new();
    let counted = unrelated.clone();
    let task = move |home: WorkerPool| {
        for _ in 0..8 {
            let ran = counted.clone();
            home.execute(move || ran.add()).unwrap();
        }
        let far = abroad.spawn(move || home.spawn(|| ()).unwrap().join().unwrap());
        far.unwrap().join().unwrap();
        counted.get()
    };
    all_are(on_each_worker(&home, task), &0);
    with_watchdog(|| home.wait_idle());
    assert_eq!(unrelated.get(), 8);
}

/// Fault 159.
#[test]
fn chains_of_waits_end_past_the_depth_to_which_a_worker_helps() {
    // Each level nests one more task of each pool on the two stacks.
    fn descend(home: &WorkerPool, abroad: &WorkerPool, levels: usize) -> Result<usize, JoinError> {
        if levels == 0 {
            return Ok(0);
        }
        let (next_home, next_abroad) = (abroad.clone(), home.clone());
        let next = abroad.spawn(move || descend(&next_home, &next_abroad, levels - 1)).unwrap();
        next.join()?.map(|depth| depth + 1)
    }
    for (levels, ends_well) in [(100, true), (1_000, false)] {
        let (home, abroad) = (pool(1, 64), pool(1, 64));
        let (one, two) = (home.clone(), abroad.clone());
        let outcome = with_watchdog(|| home.spawn(move || descend(&one, &two, levels)).unwrap().join().unwrap());
        match outcome {
            Ok(depth) => assert!(ends_well && depth == levels),
            Err(error) => assert!(!ends_well && matches!(error, JoinError::WouldDeadlock(_)), "{error}"),
        }
    }
}

#[cfg(feature = "driver")]
mod futures {
    use super::*;
    use workcrew::driver::Driver;

    /// Fault 150.
    #[test]
    fn joining_a_future_that_awaits_a_task_of_the_pool_helps_that_task() {
        for workers in SIZES {
            let pool = pool(workers, 64);
            let driver = Arc::new(Driver::new(&pool, 64).unwrap());
            for then in [false, true] {
                let driver = Arc::clone(&driver);
                let answers = on_each_worker(&pool, move |pool| {
                    let future = async move { pool.try_spawn(|| 1).unwrap().await.unwrap() };
                    let handle = if then {
                        driver.spawn_then(future, |one| one).unwrap()
                    } else {
                        driver.spawn(future).unwrap()
                    };
                    handle.join().unwrap()
                });
                all_are(answers, &1);
            }
        }
    }

    /// Fault 150.
    #[test]
    fn joining_a_future_that_awaits_a_future_that_awaits_several_tasks_helps_all_of_them() {
        for workers in SIZES {
            let pool = pool(workers, 64);
            let driver = Arc::new(Driver::new(&pool, 64).unwrap());
            let inner = Arc::clone(&driver);
            let answers = on_each_worker(&pool, move |pool| {
                let far = Arc::clone(&inner);
                let future = async move {
                    let handle = far.try_spawn(async move {
                        let handles: Vec<_> = (0..4).map(|n| pool.try_spawn(move || n).unwrap()).collect();
                        let mut sum = 0;
                        for handle in handles {
                            sum += handle.await.unwrap();
                        }
                        sum
                    });
                    handle.unwrap().await.unwrap()
                };
                inner.spawn(future).unwrap().join().unwrap()
            });
            all_are(answers, &6);
        }
    }

    /// Fault 150.
    #[test]
    fn a_group_whose_member_joins_such_a_future_ends() {
        for workers in SIZES {
            let pool = pool(workers, 64);
            let driver = Arc::new(Driver::new(&pool, 64).unwrap());
            let answers = on_each_worker(&pool, move |pool| {
                let (inside, driver) = (pool.clone(), Arc::clone(&driver));
                let group = pool.group();
                group.spawn(move || {
                    let future = async move { inside.try_spawn(|| 1).unwrap().await.unwrap() };
                    Ok::<_, String>(driver.spawn(future).unwrap().join().unwrap())
                });
                group.wait().unwrap()
            });
            all_are(answers, &vec![1]);
        }
    }

    /// Fault 152.
    #[test]
    fn blocking_on_a_handle_inside_a_task_runs_the_awaited_task() {
        for workers in SIZES {
            let pool = pool(workers, 64);
            let driver = Arc::new(Driver::new(&pool, 64).unwrap());
            for (with_tokio, then) in [(false, false), (false, true), (true, false), (true, true)] {
                let driver = Arc::clone(&driver);
                let answers = on_each_worker(&pool, move |pool| {
                    let future = async move { pool.try_spawn(|| 1).unwrap().await.unwrap() };
                    let handle = if then {
                        driver.spawn_then(future, |one| one).unwrap()
                    } else {
                        driver.spawn(future).unwrap()
                    };
                    if with_tokio {
                        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(handle).unwrap()
                    } else {
                        pollster::block_on(handle).unwrap()
                    }
                });
                all_are(answers, &1);
            }
        }
    }

    /// Fault 153.
    #[test]
    fn a_future_and_another_pool_in_one_chain_end() {
        for workers in SIZES {
            let (home, abroad) = (pool(workers, 64), pool(workers, 64));
            let driver = Arc::new(Driver::new(&home, 64).unwrap());
            let answers = on_each_worker(&home, move |home| {
                let (abroad, driver) = (abroad.clone(), Arc::clone(&driver));
                let future = async move {
                    let far = abroad.try_spawn(move || home.spawn(|| 1).unwrap().join().unwrap()).unwrap();
                    far.await.unwrap()
                };
                driver.spawn(future).unwrap().join().unwrap()
            });
            all_are(answers, &1);
        }
    }

    /// Fault 154.
    #[test]
    fn a_future_that_waits_for_room_in_the_queue_is_helped_by_the_worker_that_joins_it() {
        for workers in SIZES {
            let pool = pool(workers, 1);
            let driver = Arc::new(Driver::new(&pool, 64).unwrap());
            let answers = on_each_worker(&pool, move |pool| {
                let future = async move {
                    let mut sum = 0;
                    let mut handles = Vec::new();
                    for _ in 0..8 {
                        handles.push(pool.spawn_async(|| 1).await.unwrap());
                    }
                    for handle in handles {
                        sum += handle.await.unwrap();
                    }
                    sum
                };
                driver.spawn(future).unwrap().join().unwrap()
            });
            all_are(answers, &8);
        }
    }

    /// Fault 154.
    #[test]
    fn an_output_that_needs_a_worker_is_run_by_the_one_that_waits_through_another_pool() {
        for workers in SIZES {
            let (home, abroad) = (pool(workers, 64), pool(workers, 64));
            let driver = Arc::new(Driver::new(&home, 64).unwrap());
            let answers = on_each_worker(&home, move |_| {
                let driver = Arc::clone(&driver);
                let far = move || {
                    let yields = async { tokio::task::yield_now().await };
                    driver.spawn_then(yields, |()| 1).unwrap().join().unwrap()
                };
                abroad.spawn(far).unwrap().join().unwrap()
            });
            all_are(answers, &1);
        }
    }

    /// Fault 158.
    #[test]
    fn a_future_that_waits_for_a_timer_or_for_the_outside_is_waited_for() {
        for workers in SIZES {
            let pool = pool(workers, 64);
            let driver = Arc::new(Driver::new(&pool, 64).unwrap());
            let answers = on_each_worker(&pool, move |pool| {
                let (bell, ring) = tokio::sync::oneshot::channel();
                let ringer = std::thread::spawn(move || bell.send(1).unwrap());
                let future = async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let handle = pool.try_spawn(|| 1).unwrap();
                    ring.await.unwrap() + handle.await.unwrap()
                };
                let sum = driver.spawn(future).unwrap().join().unwrap();
                ringer.join().unwrap();
                sum
            });
            all_are(answers, &2);
        }
    }
}

#[cfg(feature = "grpc")]
mod calls {
    use super::*;
    use tonic::Response;
    use tonic::transport::Endpoint;
    use workcrew::grpc::Caller;

    /// Fault 151.
    #[test]
    fn joining_a_call_that_awaits_a_task_of_the_pool_helps_that_task() {
        for workers in SIZES {
            let pool = pool(workers, 64);
            let caller = Caller::builder(Endpoint::from_static("http://127.0.0.1:1")).max_in_flight(64);
            let caller = Arc::new(caller.build(&pool).unwrap());
            for then in [false, true] {
                let caller = Arc::clone(&caller);
                let answers = on_each_worker(&pool, move |pool| {
                    let call = move |_| {
                        let pool = pool.clone();
                        async move { Ok(Response::new(pool.try_spawn(|| 1).unwrap().await.unwrap())) }
                    };
                    if then {
                        caller.call_then(call, |called| called.unwrap().into_inner()).unwrap().join().unwrap()
                    } else {
                        caller.call(call).unwrap().join().unwrap().unwrap().into_inner()
                    }
                });
                all_are(answers, &1);
            }
        }
    }
}

#[cfg(feature = "retry")]
mod retries {
    use super::*;
    use workcrew::retry::{Attempt, RetryPolicy};

    /// Fault 159.
    #[test]
    fn a_task_that_is_tried_again_is_helped_through_another_pool() {
        for workers in SIZES {
            let (home, abroad) = (pool(workers, 64), pool(workers, 64));
            let answers = on_each_worker(&home, move |home| {
                let far = move || {
                    let policy = RetryPolicy::fixed(Duration::from_millis(5)).max_attempts(3);
                    let work = |attempt: Attempt| if attempt.number() < 3 { Err("not yet") } else { Ok(1) };
                    home.spawn_with_retry(policy, work).unwrap().join().unwrap().unwrap()
                };
                abroad.spawn(far).unwrap().join().unwrap()
            });
            all_are(answers, &1);
        }
    }
}

#[cfg(feature = "events")]
mod receipts {
    use super::*;
    use workcrew::events::EventBus;

    /// Fault 156.
    #[test]
    fn a_receipt_waited_for_on_another_pool_is_helped_by_the_worker_that_waits_for_that() {
        for workers in SIZES {
            for ordered in [false, true] {
                let (home, abroad) = (pool(workers, 64), pool(workers, 64));
                let bus = EventBus::new(&home);
                let handled = Counter::new();
                let counted = handled.clone();
                let subscribing = bus.subscription::<u32>();
                let subscribing = if ordered { subscribing.ordered() } else { subscribing.concurrent(4) };
                let _subscription = subscribing.handle(move |_: &u32| counted.add());
                let answers = on_each_worker(&home, move |_| {
                    let bus = bus.clone();
                    abroad.spawn(move || bus.publish(7_u32).wait().unwrap().len()).unwrap().join().unwrap()
                });
                all_are(answers, &1);
                assert_eq!(handled.get(), workers);
            }
        }
    }

    /// Fault 156.
    #[test]
    fn ordered_subscriptions_that_wait_for_the_receipts_of_each_other_get_would_deadlock() {
        let pool = pool(2, 64);
        let bus = EventBus::new(&pool);
        let gate = Gate::new();
        let refused = Counter::new();
        let [one, two] = [1, 2].map(|_| (bus.clone(), gate.clone(), refused.clone()));
        let _one = bus.subscription::<u32>().ordered().handle(move |first: &u32| {
            if *first == 0 {
                one.1.pass();
                if one.0.publish(1_u64).wait().is_err() {
                    one.2.add();
                }
            }
        });
        let _two = bus.subscription::<u64>().ordered().handle(move |first: &u64| {
            if *first == 0 {
                two.1.pass();
                if two.0.publish(1_u32).wait().is_err() {
                    two.2.add();
                }
            }
        });
        let receipts = (bus.publish(0_u32), bus.publish(0_u64));
        gate.wait_started(2);
        gate.open();
        with_watchdog(|| (receipts.0.wait().unwrap(), receipts.1.wait().unwrap()));
        assert_eq!(refused.get(), 1, "one wait is refused, and then the other ends");
    }
}
