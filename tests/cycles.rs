//! The error of a wait that can never end names the waits that need each other: tasks, groups, keys and pools, with
//! labels and submit sites.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};

use common::{Gate, Mutex, quiet_panics, with_watchdog};
use workcrew::{Cycle, CycleKind, GroupError, GroupPolicy, JoinError, JoinHandle, WorkerPool};

fn named(name: &str, workers: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).thread_name(name).build().unwrap()
}

/// Replaces numbers after "task " by letters in order of appearance, and places by their file.
fn normalized(text: &str) -> String {
    let mut ids: Vec<String> = Vec::new();
    let mut parts = text.split("task ");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        if digits.is_empty() {
            out.push_str("task ");
            out.push_str(part);
            continue;
        }
        let place = ids.iter().position(|id| *id == digits).unwrap_or_else(|| {
            ids.push(digits.clone());
            ids.len() - 1
        });
        out.push_str("task ");
        out.push(char::from(b'A' + u8::try_from(place).unwrap()));
        let rest = &part[digits.len()..];
        match rest.find(".rs:") {
            Some(at) => {
                out.push_str(&rest[..at + 3]);
                let after = &rest[at + 4..];
                out.push_str(after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'));
            }
            None => out.push_str(rest),
        }
    }
    out
}

fn cycle_of<T>(joined: Result<T, JoinError>) -> Option<Cycle> {
    match joined {
        Err(JoinError::WouldDeadlock(cycle)) => Some(cycle),
        _ => None,
    }
}

/// Returns the only cycle that was told.
fn only(told: &Receiver<Option<Cycle>>, answers: usize) -> Cycle {
    let cycles: Vec<_> = with_watchdog(|| (0..answers).filter_map(|_| told.recv().unwrap()).collect());
    let [cycle] = &*cycles else { panic!("one wait is refused: {cycles:?}") };
    assert!(!cycle.is_empty());
    cycle.clone()
}

/// Fault 507.
#[test]
fn tasks_of_two_pools_that_join_each_other_are_named_with_labels_sites_and_pools() {
    let pools = [named("mail", 1), named("disk", 1)];
    let (gate, (tell, told)) = (Gate::new(), channel());
    let mut senders = Vec::new();
    let mut handles = Vec::new();
    for (pool, label) in pools.iter().zip(["send", "store"]) {
        let (send, receive) = channel::<JoinHandle<()>>();
        let (inside, tell) = (gate.clone(), tell.clone());
        let task = move |_: &workcrew::CancellationToken| {
            inside.pass();
            tell.send(cycle_of(receive.recv().unwrap().join())).unwrap();
        };
        handles.push(pool.task().label(label).spawn(task).unwrap());
        senders.push(send);
    }
    let ids: Vec<_> = handles.iter().map(JoinHandle::id).collect();
    for (send, handle) in senders.iter().zip(handles.into_iter().rev()) {
        send.send(handle).unwrap();
    }
    gate.wait_started(2);
    gate.open();
    let cycle = only(&told, 2);
    let [one, two] = cycle.waits() else { panic!("{cycle:?}") };
    let of = |task: &workcrew::CycleTask| (task.id, task.label.clone().unwrap(), task.pool.clone());
    let first = of(one.task.as_ref().unwrap());
    let second = of(two.task.as_ref().unwrap());
    assert_eq!(of(one.target.task.as_ref().unwrap()), second);
    assert_eq!(of(two.target.task.as_ref().unwrap()), first);
    let all = [(ids[0], "send".into(), "mail".into()), (ids[1], "store".into(), "disk".into())];
    assert!(all.contains(&first) && all.contains(&second) && first.2 != second.2);
    for wait in cycle.waits() {
        let task = wait.task.as_ref().unwrap();
        assert!(task.location.file().ends_with("cycles.rs") && wait.target.kind == CycleKind::Task);
    }
    let (a, b) = ((&first.1, &first.2), (&second.1, &second.2));
    let expected = format!(
        "task {} (`{}`, {}) of pool `{}` waits for task {} (`{}`, {}) of pool `{}`, which waits for task {} of \
         pool `{}`",
        first.0,
        a.0,
        one.task.as_ref().unwrap().location,
        a.1,
        second.0,
        b.0,
        two.task.as_ref().unwrap().location,
        b.1,
        first.0,
        a.1
    );
    assert_eq!(cycle.to_string(), expected);
    let error = JoinError::WouldDeadlock(cycle).to_string();
    assert_eq!(error, format!("joining here would wait forever: {expected}"));
}

/// Fault 507.
#[test]
fn groups_that_wait_for_each_other_are_named_with_their_labels() {
    let pool = named("workcrew", 4);
    let (gate, (tell, told)) = (Gate::new(), channel());
    let groups = ["left", "right"].map(|label| pool.group::<()>().label(label));
    let (send, receive): (Vec<_>, Vec<_>) = (0..2).map(|_| channel::<workcrew::TaskGroup<()>>()).unzip();
    for (group, receive) in groups.iter().zip(receive) {
        let (inside, tell) = (gate.clone(), tell.clone());
        group.spawn(move || {
            inside.pass();
            let waited = receive.recv().unwrap().wait();
            let cycle = waited.err().and_then(|error| match error {
                GroupError::WouldDeadlock(cycle) => Some(cycle),
                _ => None,
            });
            tell.send(cycle).unwrap();
        });
    }
    gate.wait_started(2);
    for (send, group) in send.iter().zip(groups.into_iter().rev()) {
        send.send(group).unwrap();
    }
    gate.open();
    let cycle = only(&told, 2);
    assert!(cycle.waits().iter().all(|wait| wait.target.kind == CycleKind::Group));
    let text = normalized(&cycle.to_string());
    let of = |one: &str, two: &str| {
        format!(
            "task A (`{one}`, tests/cycles.rs) waits for group `{two}`, which needs task B (`{two}`, \
             tests/cycles.rs), which waits for group `{one}`, which needs task A"
        )
    };
    assert!([of("left", "right"), of("right", "left")].contains(&text), "{text}");
}

/// Fault 507.
#[test]
fn a_limit_that_its_own_members_fill_is_named() {
    let (home, abroad) = (named("home", 2), named("abroad", 1));
    let (gate, (tell, told)) = (Gate::new(), channel());
    quiet_panics();
    let told_idle = tell.clone();
    home.scope_builder()
        .limit(1)
        .label("narrow")
        .run(|scope| {
            let idle = abroad.clone();
            let inside = gate.clone();
            scope.spawn(move || {
                inside.pass();
                let refused = catch_unwind(AssertUnwindSafe(|| idle.wait_idle())).is_err();
                told_idle.send((refused, None)).unwrap();
            });
            gate.wait_started(1);
            let last = scope.spawn_value(|| ());
            with_watchdog(|| {
                abroad
                    .scope(|other| {
                        other.spawn(|| {
                            gate.open();
                            let cycle = cycle_of(last.join());
                            tell.send((cycle.is_some(), cycle)).unwrap();
                        });
                    })
                    .unwrap();
            });
        })
        .unwrap();
    let answers = [told.recv().unwrap(), told.recv().unwrap()];
    assert_eq!(answers.iter().filter(|(refused, _)| *refused).count(), 1);
    for cycle in answers.into_iter().filter_map(|(_, cycle)| cycle) {
        let text = normalized(&cycle.to_string());
        assert_eq!(
            text,
            "task A (tests/cycles.rs) of pool `abroad` waits for a task `narrow` of pool `home`, which needs task A \
             (`narrow`, tests/cycles.rs) of pool `home`, which waits for pool `abroad`, which needs task A of pool \
             `abroad`"
        );
    }
}

/// Fault 507.
#[test]
fn keys_that_join_each_other_are_named_with_the_label_of_their_executor() {
    let pool = named("workcrew", 2);
    let executor = workcrew::KeyedExecutor::<u8>::builder(&pool).label("orders").build();
    let (gate, (tell, told)) = (Gate::new(), channel());
    let mut senders = Vec::new();
    let mut handles = Vec::new();
    for key in [1, 2] {
        let (send, receive) = channel::<JoinHandle<()>>();
        let (inside, tell) = (gate.clone(), tell.clone());
        let task = move || {
            inside.pass();
            tell.send(cycle_of(receive.recv().unwrap().join())).unwrap();
        };
        handles.push(executor.spawn(key, task).unwrap());
        senders.push(send);
    }
    for (send, handle) in senders.iter().zip(handles.into_iter().rev()) {
        send.send(handle).unwrap();
    }
    gate.wait_started(2);
    gate.open();
    let text = normalized(&only(&told, 2).to_string());
    assert_eq!(
        text,
        "task A (`orders`, tests/cycles.rs) waits for task B (`orders`, tests/cycles.rs), which waits for task A"
    );
}

/// Fault 508.
#[test]
fn a_wait_for_any_of_several_tasks_names_one_cycle_through_it() {
    let (home, abroad) = (named("home", 1), named("abroad", 3));
    let target: common::Mutex<Option<std::sync::Arc<JoinHandle<()>>>> = Mutex::new(None);
    let target = std::sync::Arc::new(target);
    let (gate, members, (tell, told)) = (Gate::new(), Gate::new(), channel());
    let (inside, away, joined, started) = (gate.clone(), abroad.clone(), target.clone(), members.clone());
    let body = move || {
        inside.pass();
        let group = away.group().label("mirrors").policy(GroupPolicy::CollectAll);
        for _ in 0..2 {
            let (joined, members, tell) = (joined.clone(), started.clone(), tell.clone());
            group.spawn(move || {
                members.pass();
                let handle = joined.lock().unwrap().clone().unwrap();
                let went_well = handle.wait_timeout(std::time::Duration::MAX);
                tell.send((!went_well, None)).unwrap();
                if went_well { Ok(()) } else { Err(()) }
            });
        }
        started.wait_started(2);
        started.open();
        let refused = match group.wait_any() {
            Err(GroupError::WouldDeadlock(cycle)) => Some(cycle),
            _ => None,
        };
        tell.send((refused.is_some(), refused)).unwrap();
    };
    let handle = home.spawn(body).unwrap();
    *target.lock().unwrap() = Some(std::sync::Arc::new(handle));
    gate.open();
    let answers: Vec<_> = with_watchdog(|| (0..3).map(|_| told.recv().unwrap()).collect());
    assert!(answers.iter().any(|(refused, _)| *refused));
    for cycle in answers.into_iter().filter_map(|(_, cycle)| cycle) {
        assert_eq!(cycle.waits()[0].target.kind, CycleKind::AnyTask);
        let text = normalized(&cycle.to_string()).replace("task A", "task").replace("task B", "task");
        assert_eq!(
            text,
            "task (tests/cycles.rs) of pool `home` waits for any task of group `mirrors` of pool `abroad`, which \
             needs task (`mirrors`, tests/cycles.rs) of pool `abroad`, which waits for task of pool `home`"
        );
    }
}

/// Fault 508.
#[test]
fn a_task_that_waits_for_itself_or_its_own_group_is_named_and_another_reason_names_no_cycle() {
    let pool = named("workcrew", 1);
    let (send, receive) = channel::<JoinHandle<()>>();
    let (tell, told) = channel();
    let also = tell.clone();
    let own = pool.spawn(move || tell.send(cycle_of(receive.recv().unwrap().join())).unwrap()).unwrap();
    send.send(own).unwrap();
    let text = normalized(&told.recv().unwrap().unwrap().to_string());
    assert_eq!(text, "task A (tests/cycles.rs) waits for task A");

    let (send, receive) = channel::<workcrew::TaskGroup<()>>();
    let group = pool.group().label("own");
    group.spawn(move || {
        let Err(GroupError::WouldDeadlock(cycle)) = receive.recv().unwrap().wait() else { panic!("it is a member") };
        also.send(Some(cycle)).unwrap();
    });
    send.send(group).unwrap();
    let text = normalized(&told.recv().unwrap().unwrap().to_string());
    assert_eq!(text, "task A (`own`, tests/cycles.rs) waits for group `own`, which needs task A");

    let Err(GroupError::WouldDeadlock(cycle)) = pool.group::<Result<(), ()>>().wait_any() else { panic!("no task") };
    assert!(cycle.is_empty() && cycle.waits().is_empty());
    assert_eq!(GroupError::<String>::WouldDeadlock(cycle).to_string(), "waiting for the group here would wait forever");
    let deep = with_watchdog(|| common::nest(&pool, 1_000));
    assert!(cycle_of(deep).unwrap().is_empty());
}

/// Fault 507.
#[test]
#[cfg(feature = "events")]
fn handlers_that_wait_for_receipts_of_each_other_are_named_with_their_subscriptions() {
    use workcrew::events::EventBus;
    let pool = named("workcrew", 2);
    let bus = EventBus::new(&pool);
    let (gate, (tell, told)) = (Gate::new(), channel());
    let (one, two) = ((bus.clone(), gate.clone(), tell.clone()), (bus.clone(), gate.clone(), tell));
    let _one = bus.subscription::<u32>().name("one").handle(move |event: &u32| {
        if *event == 0 {
            one.1.pass();
            one.2.send(one.0.publish(1_u64).wait().err().map(|error| error.cycle)).unwrap();
        }
    });
    let _two = bus.subscription::<u64>().name("two").handle(move |event: &u64| {
        if *event == 0 {
            two.1.pass();
            two.2.send(two.0.publish(1_u32).wait().err().map(|error| error.cycle)).unwrap();
        }
    });
    let receipts = (bus.publish(0_u32), bus.publish(0_u64));
    gate.wait_started(2);
    gate.open();
    let text = normalized(&only(&told, 2).to_string());
    with_watchdog(|| (receipts.0.wait().unwrap(), receipts.1.wait().unwrap()));
    let of = |one: &str, two: &str| {
        format!(
            "task A (`{one}`, tests/cycles.rs) waits for the deliveries of an event, which needs task B (`{two}`, \
             tests/cycles.rs), which waits for the deliveries of an event, which needs task A"
        )
    };
    assert!([of("one", "two"), of("two", "one")].contains(&text), "{text}");
}
