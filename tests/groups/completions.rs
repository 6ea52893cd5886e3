//! Outcomes one by one, as tasks end.

use std::sync::mpsc;
use std::thread;

use crate::common::{self, BlockedWorkers, Gate, LIMIT, on_grid, pool};
use workcrew::{GroupPolicy, TaskError, TaskGroup};

#[test]
fn completions_come_as_tasks_end() {
    on_grid(|pool| {
        let mut group = pool.group().capacity(4).limit(2);
        let gate = Gate::new();
        let slow = pool.workers() > 1;
        let inside = gate.clone();
        group.spawn(move || {
            if slow {
                inside.pass();
            }
            Ok::<_, ()>(0)
        });
        for n in 1..4 {
            group.spawn(move || Ok(n));
        }
        let mut completions = group.completions();
        if slow {
            let fast: Vec<_> = completions.by_ref().take(3).map(|(index, outcome)| (index, outcome.unwrap())).collect();
            assert_eq!(fast, [(1, 1), (2, 2), (3, 3)]);
            gate.open();
            assert_eq!(completions.next().unwrap().0, 0);
        } else {
            assert_eq!(completions.by_ref().count(), 4);
        }
        assert!(completions.next().is_none());
        // More tasks, more completions; the wait returns what was not yielded.
        group.spawn(|| Ok(9));
        assert_eq!(group.completions().next().unwrap().0, 4);
        group.spawn(|| Ok(10));
        assert_eq!(group.wait().unwrap(), [10]);
    });
}

#[test]
fn completions_include_cancelled_tasks_that_return_units() {
    on_grid(|pool| {
        let mut group = pool.group().limit(1).capacity(10);
        let gate = Gate::new();
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            Ok(())
        });
        group.spawn(|| Err("stop"));
        group.spawn_all((0..8).map(|_| || Ok(())));
        gate.open();
        let mut seen: Vec<_> = group.completions().map(|(index, outcome)| (index, outcome.is_ok())).collect();
        seen.sort_unstable();
        assert!(seen.iter().map(|(index, _)| *index).eq(0..10), "{seen:?}");
        assert_eq!(seen.iter().filter(|(_, ok)| *ok).count(), 1);
    });
}

#[test]
fn outcomes_that_were_handed_out_do_not_come_back() {
    on_grid(|pool| {
        let mut group = pool.group().policy(GroupPolicy::CollectAll).limit(1).capacity(8);
        group.spawn_all([Ok(1), Err("one"), Ok(2), Err("two")].map(|result| move || result));
        let handed_out: Vec<_> = group.completions().take(2).collect();
        assert!(matches!(handed_out[..], [(0, Ok(1)), (1, Err(TaskError::Failed("one")))]));
        assert_eq!(group.wait_any().unwrap(), 2);

        let mut units = pool.group().policy(GroupPolicy::CollectAll).limit(1).capacity(8);
        units.spawn_all([Err("one"), Ok(()), Ok(())].map(|result| move || result));
        assert!(units.completions().next().unwrap().1.is_err());
        assert_eq!(units.wait().unwrap().len(), 2);
    });
}

#[test]
fn outcomes_streamed_one_by_one_take_no_memory() {
    let pool = pool(1, 4);
    let mut group = pool.group();
    let spawner = group.spawner();
    spawner.spawn(|| Ok::<_, ()>([1_u8; 1_000]));
    let mut seen = 0;
    for (index, outcome) in group.completions() {
        assert!(index == seen && outcome.is_ok());
        seen += 1;
        if seen < 10_000 {
            spawner.spawn(|| Ok([1; 1_000]));
        }
    }
    assert_eq!(seen, 10_000);
}

#[test]
fn completions_that_would_deadlock_panic() {
    common::quiet_panics();
    on_grid(|pool| {
        let (give, take) = mpsc::channel::<TaskGroup<Result<(), ()>>>();
        let group = pool.group();
        let (told, tell) = mpsc::channel();
        group.spawn(move || {
            let mut group = take.recv().unwrap();
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| group.completions().count()));
            told.send(panicked.is_err()).unwrap();
            Ok(())
        });
        give.send(group).unwrap();
        assert!(tell.recv_timeout(LIMIT).unwrap());
    });
}

#[test]
fn completions_in_the_destructor_of_a_member_panic_and_do_not_hang() {
    struct Looks(mpsc::Receiver<TaskGroup<()>>, mpsc::Sender<bool>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let mut group = self.0.recv().unwrap();
            let look = std::panic::AssertUnwindSafe(|| group.completions().next().is_some());
            self.1.send(std::panic::catch_unwind(look).is_err()).unwrap();
        }
    }
    let quiet = thread::Builder::new().name("workcrew-test".into());
    common::quiet_panics();
    let run = || {
        on_grid(|pool| {
            let wedge = BlockedWorkers::new(&pool);
            let (give, take) = mpsc::channel();
            let (told, tell) = mpsc::channel();
            let group = pool.group();
            let looks = Looks(take, told);
            group.spawn(move || drop(looks));
            let token = group.token().clone();
            give.send(group).unwrap();
            token.cancel();
            assert!(tell.recv_timeout(LIMIT).unwrap());
            wedge.open();
        });
    };
    quiet.spawn(run).unwrap().join().unwrap();
}

#[test]
fn completions_that_have_come_to_an_end_stay_there() {
    let pool = pool(1, 4);
    let mut group = pool.group();
    let spawner = group.spawner();
    group.spawn(|| ());
    let mut completions = group.completions();
    assert!(completions.next().is_some() && completions.next().is_none());
    spawner.spawn(|| ());
    assert!(completions.next().is_none());
    assert_eq!(group.completions().count(), 1);
}
