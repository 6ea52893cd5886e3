//! Waits that end with any of several tasks: they are refused if each of these waits for the waiter, and never before.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{Counter, Gate, Mutex, pool, quiet_panics, with_watchdog};
use workcrew::{CancellationToken, GroupError, GroupPolicy, JoinHandle, TaskGroup, WorkerPool};

/// A handle that several tasks wait for. It is set after the task has started.
#[derive(Clone, Default)]
struct Target(Arc<Mutex<Option<Arc<JoinHandle<()>>>>>);

impl Target {
    fn set(&self, handle: JoinHandle<()>) {
        *self.0.lock().unwrap() = Some(Arc::new(handle));
    }

    /// Joins the task. Returns `false` if the wait was refused.
    fn join(&self) -> bool {
        let handle = self.0.lock().unwrap().clone().unwrap();
        handle.wait_timeout(Duration::MAX)
    }
}

type Group = TaskGroup<Result<(), ()>>;

/// A way to wait for any task of a group. Returns `true` if the wait was refused.
type AnyWait = fn(Group) -> bool;

fn first(group: Group) -> bool {
    matches!(group.wait_any(), Err(GroupError::WouldDeadlock(_)))
}

fn first_or_errors(group: Group) -> bool {
    group.wait_any_or_errors().is_err_and(|errors| errors.errors().is_empty())
}

fn next(mut group: Group) -> bool {
    catch_unwind(AssertUnwindSafe(|| group.completions().next())).is_err()
}

fn next_forever(mut group: Group) -> bool {
    group.completions().next_timeout(Duration::MAX).is_err()
}

const ANY_WAITS: [AnyWait; 4] = [first, first_or_errors, next, next_forever];

/// Has a task of `home` wait for any member of a group, and yields whether that was refused. The members run on
/// `abroad`. Those in `joins` join the waiting task, each at its gate; the others pass their gate and end.
struct Knot {
    gates: Vec<Gate>,
    own: Gate,
    refused: Counter,
    answer: std::sync::mpsc::Receiver<bool>,
}

impl Knot {
    fn new(home: &WorkerPool, abroad: &WorkerPool, joins: &[bool], wait: AnyWait) -> Self {
        let target = Target::default();
        let gates: Vec<_> = joins.iter().map(|_| Gate::new()).collect();
        let (own, refused, (tell, answer)) = (Gate::new(), Counter::new(), channel());
        let members: Vec<_> = joins
            .iter()
            .zip(&gates)
            .map(|(joins, gate)| {
                let (target, gate, refused, joins) = (target.clone(), gate.clone(), refused.clone(), *joins);
                move || {
                    gate.pass();
                    if joins && !target.join() {
                        refused.add();
                        return Err(());
                    }
                    Ok(())
                }
            })
            .collect();
        let (inside, abroad, started) = (own.clone(), abroad.clone(), gates.clone());
        let body = move || {
            let group = abroad.group().policy(GroupPolicy::CollectAll);
            members.into_iter().for_each(|member| group.spawn(member));
            started.iter().for_each(|gate| gate.wait_started(1));
            inside.pass();
            tell.send(wait(group)).unwrap();
        };
        target.set(home.spawn(body).unwrap());
        own.wait_started(1);
        Self { gates, own, refused, answer }
    }
}

/// Fault 500.
#[test]
fn a_wait_for_any_of_several_tasks_that_all_join_the_waiter_is_refused_or_one_of_their_joins() {
    quiet_panics();
    for workers in [1, 2, 8] {
        for wait in ANY_WAITS {
            for is_last in [false, true] {
                // The members need a worker each, and the waiter one.
                let (home, abroad) = (pool(workers, 64), pool(workers.max(3), 64));
                let knot = Knot::new(&home, &abroad, &[true; 3], wait);
                let open_all = || knot.gates.iter().for_each(Gate::open);
                if is_last {
                    open_all();
                    knot.own.open();
                } else {
                    knot.own.open();
                    open_all();
                }
                let is_refused = with_watchdog(|| knot.answer.recv().unwrap());
                with_watchdog(|| (home.wait_idle(), abroad.wait_idle()));
                assert!(is_refused || knot.refused.get() > 0);
            }
        }
    }
}

/// Fault 500.
#[test]
fn a_wait_for_any_of_several_tasks_on_one_pool_that_all_join_the_waiter_ends() {
    quiet_panics();
    for workers in [4, 8] {
        for wait in ANY_WAITS {
            let pool = pool(workers, 64);
            let knot = Knot::new(&pool, &pool, &[true; 3], wait);
            knot.gates.iter().for_each(Gate::open);
            knot.own.open();
            let is_refused = with_watchdog(|| knot.answer.recv().unwrap());
            with_watchdog(|| pool.wait_idle());
            assert!(is_refused || knot.refused.get() > 0);
        }
    }
}

/// Fault 501.
#[test]
fn a_wait_for_any_of_several_tasks_is_not_refused_while_one_of_them_may_end() {
    quiet_panics();
    for wait in ANY_WAITS {
        let (home, abroad) = (pool(1, 64), pool(3, 64));
        let knot = Knot::new(&home, &abroad, &[true, false, true], wait);
        knot.own.open();
        knot.gates[0].open();
        knot.gates[2].open();
        assert!(knot.answer.recv_timeout(Duration::from_millis(20)).is_err(), "the second task may end");
        knot.gates[1].open();
        assert!(!with_watchdog(|| knot.answer.recv().unwrap()));
        with_watchdog(|| (home.wait_idle(), abroad.wait_idle()));
        assert_eq!(knot.refused.get(), 0);
    }
}

/// Fault 500.
#[test]
fn tasks_that_wait_for_any_of_groups_whose_members_wait_for_each_other_are_refused() {
    quiet_panics();
    let pairs: [[AnyWait; 2]; 4] = [[first, first], [next, first], [next, next], [first_or_errors, next_forever]];
    for [one, two] in pairs {
        let homes = [pool(1, 64), pool(1, 64)];
        let abroad = [pool(2, 64), pool(2, 64)];
        let targets = [Target::default(), Target::default()];
        let (gate, refused) = (Gate::new(), Counter::new());
        for (own, wait) in [one, two].into_iter().enumerate() {
            let (inside, away, other, refused) =
                (gate.clone(), abroad[own].clone(), targets[1 - own].clone(), refused.clone());
            let body = move || {
                inside.pass();
                let group = away.group().policy(GroupPolicy::CollectAll);
                for _ in 0..2 {
                    let (other, refused) = (other.clone(), refused.clone());
                    group.spawn(move || {
                        let joined = other.join();
                        if !joined {
                            refused.add();
                        }
                        if joined { Ok(()) } else { Err(()) }
                    });
                }
                if wait(group) {
                    refused.add();
                }
            };
            targets[own].set(homes[own].spawn(body).unwrap());
        }
        gate.wait_started(2);
        gate.open();
        with_watchdog(|| homes.iter().chain(&abroad).for_each(WorkerPool::wait_idle));
        assert!(refused.get() > 0);
    }
}

/// What else may end the wait of a task for any member of a group, whose only running member joins the task.
struct Source {
    group: Group,
    /// A task that is spawned after that member.
    behind: Option<Body>,
    /// Lets the source act.
    acts: Box<dyn FnOnce()>,
}

type Body = Box<dyn FnOnce() -> Result<(), ()> + Send>;

impl Source {
    fn new(group: Group, acts: impl FnOnce() + 'static) -> Self {
        Self { group, behind: None, acts: Box::new(acts) }
    }
}

/// Has a task wait for any task of the group of a source. Its first member joins the task. Checks that the wait goes on
/// until the source acts, and returns whether a wait was refused: that of the task,
/// or the join, whichever came last.
fn is_refused_after(wait: AnyWait, make: impl FnOnce(&WorkerPool) -> Source) -> bool {
    let (home, abroad) = (pool(1, 64), pool(2, 64));
    let (gate, target, (tell, answer)) = (Gate::new(), Target::default(), channel());
    let Source { group, behind, acts } = make(&abroad);
    let (inside, joined, joins, refused) = (gate.clone(), target.clone(), Gate::new(), Counter::new());
    let (begun, counted) = (joins.clone(), refused.clone());
    group.spawn(move || {
        begun.pass();
        let joined = joined.join();
        if !joined {
            counted.add();
        }
        if joined { Ok(()) } else { Err(()) }
    });
    joins.wait_started(1);
    if let Some(behind) = behind {
        group.spawn(behind);
    }
    let body = move || {
        inside.pass();
        tell.send(wait(group)).unwrap();
    };
    target.set(home.spawn(body).unwrap());
    joins.open();
    gate.open();
    assert!(answer.recv_timeout(Duration::from_millis(20)).is_err(), "the source may end the wait");
    acts();
    let is_refused = with_watchdog(|| answer.recv().unwrap());
    with_watchdog(|| (home.wait_idle(), abroad.wait_idle()));
    is_refused || refused.get() > 0
}

fn collecting(pool: &WorkerPool) -> Group {
    pool.group().policy(GroupPolicy::CollectAll)
}

/// Fault 501.
#[test]
fn a_wait_for_any_task_is_not_refused_while_a_spawner_may_add_one() {
    quiet_panics();
    for wait in ANY_WAITS {
        let added = is_refused_after(wait, |pool| {
            let group = collecting(pool);
            let spawner = group.spawner();
            Source::new(group, move || spawner.spawn(|| Ok(())))
        });
        assert!(!added);
        let dropped = is_refused_after(wait, |pool| {
            let group = collecting(pool);
            let (one, two) = (group.spawner(), group.spawner().clone());
            Source::new(group, move || drop((one, two)))
        });
        assert!(dropped, "the last spawner is gone");
    }
}

/// Fault 501.
#[test]
fn a_wait_for_any_task_is_not_refused_while_a_future_may_add_one() {
    quiet_panics();
    for wait in ANY_WAITS {
        let dropped = is_refused_after(wait, |pool| {
            let group = collecting(pool);
            let future = group.spawn_async(|| Ok(()));
            Source::new(group, move || drop(future))
        });
        assert!(dropped, "the future is gone");
    }
}

/// Fault 501.
#[test]
fn a_wait_for_the_next_outcome_is_not_refused_while_a_token_may_cancel_a_task_at_the_limit() {
    quiet_panics();
    for wait in [next as AnyWait, next_forever] {
        let cancelled = is_refused_after(wait, |pool| {
            let token = CancellationToken::new();
            let group = collecting(pool).limit(1).parent(&token);
            Source { behind: Some(Box::new(|| Ok(()))), ..Source::new(group, move || token.cancel()) }
        });
        assert!(!cancelled, "the cancelled task is an outcome");
    }
}

/// Fault 501.
#[test]
fn a_wait_for_any_task_is_not_refused_while_a_worker_may_start_one() {
    quiet_panics();
    for wait in ANY_WAITS {
        // The only worker of the members waits in the circle, and helps with the second one.
        let (home, abroad) = (pool(1, 64), pool(1, 64));
        let (gate, target, refused, (tell, answer)) = (Gate::new(), Target::default(), Counter::new(), channel());
        let (inside, joined, counted, away) = (gate.clone(), target.clone(), refused.clone(), abroad.clone());
        let body = move || {
            inside.pass();
            let group = collecting(&away);
            group.spawn(move || {
                let joined = joined.join();
                if !joined {
                    counted.add();
                }
                if joined { Ok(()) } else { Err(()) }
            });
            group.spawn(|| Ok(()));
            tell.send(wait(group)).unwrap();
        };
        target.set(home.spawn(body).unwrap());
        gate.open();
        assert!(!with_watchdog(|| answer.recv().unwrap()));
        with_watchdog(|| home.wait_idle());
        assert_eq!(refused.get(), 0);
    }
}

/// Fault 501.
#[test]
#[cfg(feature = "retry")]
fn a_wait_for_any_task_is_not_refused_while_one_is_delayed() {
    use workcrew::retry::{RetryError, RetryPolicy};
    type Retried = TaskGroup<Result<(), RetryError<()>>>;
    let waits: [fn(Retried) -> bool; 2] = [
        |group| group.wait_any().is_ok(),
        |mut group| group.completions().next().is_some_and(|(_, ended)| ended.is_ok()),
    ];
    for wait in waits {
        let (home, abroad) = (pool(1, 64), pool(2, 64));
        let (gate, failed, target, (tell, answer)) = (Gate::new(), Gate::new(), Target::default(), channel());
        let group: Retried = abroad.group().policy(GroupPolicy::CollectAll);
        let fails = failed.clone();
        let policy = RetryPolicy::fixed(Duration::from_millis(20)).max_attempts(2);
        let attempts = move |attempt: workcrew::retry::Attempt| {
            if attempt.number() > 1 {
                return Ok(());
            }
            fails.open();
            Err(())
        };
        group.spawn_with_retry(policy, attempts).unwrap();
        failed.pass();
        let (joined, joins) = (target.clone(), gate.clone());
        group.spawn(move || {
            joins.pass();
            joined.join();
            Ok(())
        });
        let inside = gate.clone();
        let body = move || {
            inside.pass();
            tell.send(wait(group)).unwrap();
        };
        target.set(home.spawn(body).unwrap());
        gate.open();
        assert!(with_watchdog(|| answer.recv().unwrap()));
        with_watchdog(|| (home.wait_idle(), abroad.wait_idle()));
    }
}

/// Fault 500.
#[test]
fn a_wait_for_any_task_is_refused_if_the_unstarted_tasks_wait_for_a_limit_that_the_circle_fills() {
    quiet_panics();
    for wait in ANY_WAITS {
        for limit in [1, 2] {
            let (home, abroad) = (pool(1, 64), pool(4, 64));
            let (gate, target, (tell, answer)) = (Gate::new(), Target::default(), channel());
            let (inside, joined, abroad) = (gate.clone(), target.clone(), abroad.clone());
            let body = move || {
                inside.pass();
                let group = abroad.group().policy(GroupPolicy::CollectAll).limit(limit);
                for _ in 0..limit {
                    let joined = joined.clone();
                    group.spawn(move || if joined.join() { Ok(()) } else { Err(()) });
                }
                group.spawn(|| Ok(()));
                tell.send(wait(group)).unwrap();
            };
            target.set(home.spawn(body).unwrap());
            gate.open();
            // If a join is refused, the last task starts.
            with_watchdog(|| answer.recv().unwrap());
            with_watchdog(|| home.wait_idle());
        }
    }
}

/// Has a task of another pool join a task of a scope that waits for the limit. One task of the scope waits for that
/// pool; the other does so if `all` is `true`, and otherwise ends. Returns whether the join and both waits went well.
fn joins_at_the_limit(all: bool) -> [bool; 3] {
    let (home, abroad) = (pool(2, 64), pool(1, 64));
    let (gate, joins) = (Gate::new(), Gate::new());
    let waits = |is_stuck: bool| {
        gate.pass();
        joins.wait_started(1);
        !is_stuck || catch_unwind(AssertUnwindSafe(|| abroad.wait_idle())).is_ok()
    };
    let went_well = with_watchdog(|| {
        home.scope_builder().limit(2).run(|scope| {
            let one = scope.spawn_value(|| waits(true));
            let two = scope.spawn_value(|| {
                let waited = waits(all);
                // The other one waits by now, or soon does.
                std::thread::sleep(Duration::from_millis(if all { 0 } else { 20 }));
                waited
            });
            gate.wait_started(2);
            let last = scope.spawn_value(|| ());
            let joined = abroad.scope(|other| {
                let joined = other.spawn_value(|| {
                    joins.open();
                    joins.pass();
                    last.join().is_ok()
                });
                gate.open();
                joined.join().unwrap()
            });
            [joined.unwrap(), one.join().unwrap(), two.join().unwrap()]
        })
    });
    went_well.unwrap()
}

/// Fault 503.
#[test]
fn a_join_of_a_task_at_the_limit_is_refused_only_if_no_task_can_free_the_limit() {
    quiet_panics();
    assert_eq!(joins_at_the_limit(false), [true; 3]);
    assert!(joins_at_the_limit(true).contains(&false));
}

/// Fault 501.
#[test]
#[cfg(feature = "driver")]
fn a_wait_for_any_task_is_not_refused_while_one_joins_a_future_that_the_outside_may_wake() {
    use workcrew::driver::Driver;
    quiet_panics();
    for wait in ANY_WAITS {
        let woken = is_refused_after(wait, |pool| {
            let driver = Driver::new(pool, 4).unwrap();
            let (bell, ring) = tokio::sync::oneshot::channel();
            let future = driver.spawn(async move { ring.await.unwrap() }).unwrap();
            let group = collecting(pool);
            group.spawn(move || future.join().map_err(drop));
            Source::new(group, move || bell.send(()).unwrap())
        });
        assert!(!woken);
    }
}

#[cfg(feature = "events")]
mod receipts {
    use super::*;
    use workcrew::events::EventBus;

    /// Two subscriptions with two runners each. The handlers of the first `stuck` events of either wait for a receipt of
    /// the other; those of the others wait for the gate. Returns how many waits were refused.
    fn refused(stuck: usize, last: &Gate) -> usize {
        let pool = pool(4, 64);
        let (bus, gate, refused) = (EventBus::new(&pool), Gate::new(), Counter::new());
        let (bus_of_one, bus_of_two) = (bus.clone(), bus.clone());
        let shared = || (gate.clone(), refused.clone(), last.clone());
        let [one, two] = [(); 2].map(|()| shared());
        let act = move |event: usize, (gate, refused, last): &(Gate, Counter, Gate), waits: &dyn Fn() -> bool| {
            if event == 0 {
                return; // an event that a handler waits for
            }
            gate.pass();
            if event > stuck {
                last.pass();
            } else if !waits() {
                refused.add();
            }
        };
        let _one = bus.subscription::<u32>().concurrent(2).handle(move |event: &u32| {
            act(*event as usize, &one, &|| bus_of_one.publish(0_u64).wait().is_ok());
        });
        let _two = bus.subscription::<u64>().concurrent(2).handle(move |event: &u64| {
            act(*event as usize, &two, &|| bus_of_two.publish(0_u32).wait().is_ok());
        });
        let receipts: Vec<_> =
            [1, 2].into_iter().flat_map(|event| [bus.publish(event as u32), bus.publish(event as u64)]).collect();
        gate.wait_started(4);
        gate.open();
        let go_on = last.clone();
        if stuck < 2 {
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(refused.get(), 0, "a runner may become free");
        }
        go_on.open();
        with_watchdog(|| receipts.iter().for_each(|receipt| drop(receipt.wait())));
        refused.get()
    }

    /// Fault 504.
    #[test]
    fn concurrent_subscriptions_whose_runners_all_wait_for_receipts_of_each_other_get_would_deadlock() {
        assert!(refused(2, &Gate::new()) > 0);
    }

    /// Fault 596.
    #[test]
    fn publishers_that_need_room_which_any_of_several_keys_must_make_while_all_keys_wait_for_them_are_refused() {
        for keys in [1, 2, 3] {
            // Each key has a running event, and one more fills its part of the mailbox.
            let (home, abroad) = (pool(keys, 64), pool(keys, 64));
            let (bus, gate, far) = (EventBus::new(&home), Gate::new(), abroad.clone());
            let (inner, inside) = (bus.clone(), gate.clone());
            let handler = move |(key, number): &(usize, u32)| {
                if *number > 0 {
                    return;
                }
                inside.pass();
                let (bus, key) = (inner.clone(), *key);
                let publishes = far.spawn(move || drop(bus.publish((keys + key, 1_u32)))).unwrap();
                let _ = publishes.join();
            };
            let subscription = bus.subscription::<(usize, u32)>().ordered_by(|(key, _)| *key);
            let _subscription = subscription.mailbox_capacity(keys).handle(handler);
            for key in 0..keys {
                let _ = bus.publish((key, 0_u32));
                gate.wait_started(key + 1);
            }
            let waiting: Vec<_> = (0..keys).map(|key| bus.publish((key, 1_u32))).collect();
            gate.open();
            with_watchdog(|| waiting.iter().for_each(|receipt| drop(receipt.wait().unwrap())));
            with_watchdog(|| (home.wait_idle(), abroad.wait_idle()));
        }
    }

    /// Fault 504.
    #[test]
    fn a_receipt_is_waited_for_while_a_runner_of_its_subscription_may_become_free() {
        assert_eq!(refused(1, &Gate::new()), 0);
    }
}
