//! Outcomes of a group from async code.

use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use pollster::block_on;
use workcrew::{Completions, GroupPolicy};

use crate::alarm::{Alarm, poll};
use crate::common::{BlockedWorkers, Counter, Gate, LIMIT, Mutex, on_grid, quiet_panics};

/// Fault 326.
#[test]
fn outcomes_are_yielded_as_tasks_end_and_each_once() {
    quiet_panics();
    on_grid(|pool| {
        let mut group = pool.group().policy(GroupPolicy::CollectAll);
        group.spawn_all((0..50).map(|n| move || if n % 7 == 3 { Err(n) } else { Ok(n) }));
        let mut seen = vec![0; 50];
        block_on(async {
            let mut completions = group.completions();
            while let Some((index, outcome)) = completions.next_async().await {
                seen[index] += 1;
                assert_eq!(outcome.is_err(), index % 7 == 3);
            }
            assert!(completions.next_async().await.is_none());
        });
        assert!(seen.iter().all(|count| *count == 1), "{seen:?}");
        assert!(group.wait().unwrap().is_empty());
    });
}

/// Fault 326.
#[test]
fn outcomes_that_wait_to_be_yielded_keep_the_order_in_which_their_tasks_have_ended() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let mut group = pool.group().limit(1).capacity(64);
        (0..20).for_each(|_| group.spawn(|| ()));
        let mut completions = group.completions();
        let alarm = Waker::from(Alarm::new());
        assert!(completions.poll_next(&mut Context::from_waker(&alarm)).is_pending());
        blocked.open();
        pool.wait_idle(); // one after the other
        assert!(completions.map(|(index, _)| index).eq(0..20));
    });
}

/// Fault 326.
#[test]
fn each_task_that_ends_wakes_the_stream_and_a_dropped_future_loses_no_outcome() {
    on_grid(|pool| {
        let mut group = pool.group().limit(1).capacity(64);
        let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
        for gate in gates.clone() {
            group.spawn(move || gate.pass());
        }
        let mut completions = group.completions();
        for (index, gate) in gates.iter().enumerate() {
            gate.wait_started(1);
            let (alarm, rings) = Alarm::with_bell();
            let mut next = Box::pin(completions.next_async());
            assert!(poll(&mut next, &alarm).is_pending());
            gate.open();
            rings.recv_timeout(LIMIT).unwrap();
            drop(next); // the outcome is there, and stays
            assert_eq!(block_on(completions.next_async()).map(|(index, _)| index), Some(index));
        }
        assert!(completions.poll_next(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

/// Fault 326.
#[test]
fn a_worker_that_awaits_completions_runs_the_tasks() {
    on_grid(|pool| {
        let inner = pool.clone();
        let count = pool.spawn(move || {
            let mut group = inner.group().capacity(64);
            (0..10).for_each(|_| group.spawn(|| ()));
            block_on(async {
                let (mut completions, mut count) = (group.completions(), 0);
                while completions.next_async().await.is_some() {
                    count += 1;
                }
                count
            })
        });
        assert_eq!(count.unwrap().join().unwrap(), 10);
    });
}

/// Fault 321.
#[test]
fn dropped_completions_leave_no_waker_behind() {
    on_grid(|pool| {
        let (mut group, gate) = (pool.group(), Gate::new());
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        let alarm = Alarm::new();
        let mut completions = group.completions();
        let waker = Waker::from(Arc::clone(&alarm));
        assert!(completions.poll_next(&mut Context::from_waker(&waker)).is_pending());
        drop((completions, waker));
        assert_eq!(Arc::strong_count(&alarm), 1);
        gate.open();
        group.wait().unwrap();
        assert_eq!(alarm.rung.get(), 0);
    });
}

/// Polls a stream inside its own waker, as an executor without a queue does.
struct Inline {
    completions: Mutex<Completions<'static, ()>>,
    seen: Counter,
    ended: mpsc::Sender<()>,
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut completions = self.completions.lock().unwrap();
        loop {
            match completions.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(_)) => self.seen.add(),
                Poll::Ready(None) => return self.ended.send(()).unwrap_or(()),
                Poll::Pending => return,
            }
        }
    }
}

/// Fault 326.
#[test]
fn a_waker_that_polls_the_stream_at_once_is_not_taken_for_a_task_of_the_group() {
    on_grid(|pool| {
        let group = Box::leak(Box::new(pool.group().capacity(64)));
        let gates: Vec<_> = (0..4).map(|_| Gate::new()).collect();
        for gate in gates.clone() {
            group.spawn(move || gate.pass());
        }
        let (ended, end) = mpsc::channel();
        let inline = Inline { completions: Mutex::new(group.completions()), seen: Counter::new(), ended };
        let (seen, inline) = (inline.seen.clone(), Arc::new(inline));
        inline.wake();
        for (index, gate) in gates.iter().enumerate() {
            gate.wait_started(1);
            gate.open();
            while seen.get() <= index {
                std::thread::yield_now();
            }
        }
        end.recv_timeout(LIMIT).unwrap();
    });
}

/// Fault 326.
#[cfg(feature = "stream")]
#[test]
fn completions_are_a_stream() {
    use futures_core::Stream;
    use std::future::poll_fn;
    use std::pin::Pin;

    on_grid(|pool| {
        let mut group = pool.group();
        group.spawn_all((0..10_u32).map(|n| move || Ok::<_, String>(n)));
        let mut sum = 0;
        block_on(async {
            let mut stream = group.completions();
            while let Some((_, outcome)) = poll_fn(|context| Stream::poll_next(Pin::new(&mut stream), context)).await {
                sum += outcome.unwrap();
            }
        });
        assert_eq!(sum, 45);
    });
}
