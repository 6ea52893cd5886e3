//! What users read: every error, every outcome and every `Debug` says what it is, and every question has an answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::{BlockedWorkers, Counter, Gate, LIMIT, Mutex, fill, pool, spawn_parked, with_watchdog};
use workcrew::{
    BuildError, CancelReason, CancellationToken, Cycle, GroupError, GroupPolicy, JoinError, Observer, TaskError,
    TaskInfo, TaskOutcome, TaskPanic, WorkerPool, WorkerPoolBuilder,
};

fn panic_of(payload: impl FnOnce() + Send + 'static) -> TaskPanic {
    common::quiet_panics();
    match pool(1, 1).spawn(payload).unwrap().join() {
        Err(JoinError::Panicked(panic)) => panic,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_reason_of_a_cancellation_reads_differently() {
    use CancelReason::*;
    let mut texts: Vec<_> = [Requested, GroupEnded, ShutDown, Discarded, Expired].map(|r| r.to_string()).into();
    let ends = [TaskOutcome::Succeeded, TaskOutcome::Failed, TaskOutcome::Panicked, TaskOutcome::Cancelled(Requested)];
    texts.extend(ends[..3].iter().map(ToString::to_string));
    assert!(texts.iter().all(|text| text.starts_with(char::is_lowercase) && text.len() > 5), "{texts:?}");
    assert_eq!(ends[3].to_string(), Requested.to_string());
    let count = texts.len();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), count, "{texts:?}");
}

#[test]
fn every_error_of_a_task_and_a_group_describes_the_failure() {
    let silent = || panic_of(|| std::panic::panic_any(7));
    let loud = || panic_of(|| panic!("out of paper"));
    assert!(loud().to_string().ends_with("panicked: out of paper") && silent().to_string().ends_with("panicked"));
    assert!(format!("{:?}", silent()).starts_with("TaskPanic(task submitted at tests"));
    assert_eq!(TaskError::Failed("no toner").to_string(), "no toner");
    assert!(TaskError::<&str>::Panicked(loud()).to_string().contains("out of paper"));
    assert!(TaskError::<&str>::Cancelled(CancelReason::Expired).to_string().contains("deadline"));
    assert_eq!(GroupError::Failed("no toner").to_string(), "no toner");
    assert!(GroupError::<&str>::Panicked(loud()).to_string().contains("out of paper"));
    assert!(GroupError::<&str>::Cancelled(CancelReason::ShutDown).to_string().contains("shut down"));
    assert!(GroupError::<&str>::WouldDeadlock(Cycle::default()).to_string().contains("forever"));
    assert!(JoinError::Panicked(loud()).to_string().contains("out of paper"));
    assert!(JoinError::Cancelled(CancelReason::Requested).to_string().contains("on request"));
    assert!(JoinError::WouldDeadlock(Cycle::default()).to_string().contains("forever"));
}

#[test]
fn errors_convert_to_group_errors_and_return_the_cause() {
    let panicked: GroupError<u8> = JoinError::Panicked(panic_of(|| panic!())).into();
    assert!(matches!(panicked, GroupError::Panicked(_)));
    assert!(matches!(GroupError::<u8>::from(JoinError::WouldDeadlock(Cycle::default())), GroupError::WouldDeadlock(_)));
    let cancelled = JoinError::Cancelled(CancelReason::Expired);
    assert!(matches!(GroupError::<u8>::from(cancelled), GroupError::Cancelled(CancelReason::Expired)));
    assert!(matches!(GroupError::from(TaskError::Failed(3)), GroupError::Failed(3)));
    assert!(TaskError::<u8>::Cancelled(CancelReason::Expired).into_failed().is_err());
    assert_eq!(GroupError::Failed(3).into_failed().unwrap(), 3);
}

#[test]
fn every_refusal_has_a_reason_and_answers_each_question() {
    let pool = pool(1, 1);
    let wedge = BlockedWorkers::new(&pool);
    fill(&pool, &Counter::new());
    let full = pool.try_execute(|| ()).unwrap_err();
    assert_eq!((full.is_full(), full.is_shut_down()), (true, false));
    let late = pool.try_execute_for(Duration::ZERO, || ()).unwrap_err();
    assert_eq!((late.is_timeout(), late.is_shut_down()), (true, false));
    pool.close();
    assert!(pool.execute(|| ()).unwrap_err().is_shut_down());
    let closed = pool.try_execute(|| ()).unwrap_err();
    assert_eq!((closed.is_full(), closed.is_shut_down()), (false, true));
    let closed = pool.try_execute_for(Duration::MAX, || ()).unwrap_err();
    assert_eq!((closed.is_timeout(), closed.is_shut_down()), (false, true));
    let workcrew::TrySubmitError::ShutDown(refused) = pool.try_execute(|| ()).unwrap_err() else { panic!("closed") };
    assert_eq!(format!("{refused:?}"), "Refused(..)");
    refused.into_inner()();
    wedge.open();
}

#[test]
fn every_reason_not_to_build_a_pool_reads_differently() {
    let small = || WorkerPoolBuilder::default().workers(1);
    let shut = pool(1, 1);
    shut.shutdown();
    let errors: [BuildError; 9] = [
        small().workers(0).build().unwrap_err(),
        small().workers(usize::MAX).build().unwrap_err(),
        small().queue_capacity(0).build().unwrap_err(),
        small().queue_capacity(usize::MAX).build().unwrap_err(),
        small().thread_name("a\0b").build().unwrap_err(),
        small().stack_size(usize::MAX).build().unwrap_err(),
        small().try_on_thread_start(|_| Err("no")).build().unwrap_err(),
        small().try_on_thread_start(|_| -> Result<(), String> { panic!("no") }).build().unwrap_err(),
        shut.resize(2).unwrap_err(),
    ];
    let mut texts = errors.map(|error| error.to_string()).to_vec();
    assert!(texts.iter().all(|text| text.starts_with(char::is_lowercase) && !text.ends_with('.')), "{texts:?}");
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 9, "{texts:?}");
}

#[test]
fn debug_of_public_types_shows_their_state_and_does_not_wait() {
    let shows = |thing: &dyn Debug, word: &str| {
        let text = format!("{thing:?}");
        assert!(text.contains(word), "{text}");
    };
    let pool = pool(1, 4);
    let wedge = BlockedWorkers::new(&pool);
    let mut group = pool.group().label("reports");
    group.spawn(|| ());
    shows(&group, "reports");
    shows(&group.spawner(), "total: 1");
    assert_eq!(group.progress().to_string(), "0 of 1 done");
    shows(&group.spawner().token(), "CancellationToken");
    shows(&group.completions(), "total: 1");
    let token = CancellationToken::new();
    shows(&token.on_cancel(|| ()), "CancelGuard");
    shows(&pool.spawn(|| ()).unwrap(), "finished: false");
    shows(&WorkerPoolBuilder::default(), "queue_capacity: 1024");
    shows(&pool.metrics(), "tasks_running: 1");
    let report = pool.shutdown_timeout(Duration::ZERO);
    assert_eq!(report.to_string(), "not drained (tasks cancelled: 2, still running: 1)");
    wedge.open();
    assert!(group.wait().is_err() && pool.wait_idle_timeout(LIMIT));
    assert_eq!(pool.shutdown_timeout(LIMIT).to_string(), "drained (tasks cancelled: 0, still running: 0)");
}

#[test]
fn every_refusal_of_a_timer_has_a_reason_and_answers_each_question() {
    let pool = pool(1, 1);
    let zero = pool.execute_every(Duration::ZERO, || ()).unwrap_err();
    assert_eq!((zero.is_full(), zero.is_shut_down(), zero.is_zero_period()), (false, false, true));
    assert_eq!(
        (zero.to_string(), format!("{zero:?}")),
        ("the period of a timer is zero".into(), "TimerError(ZeroPeriod)".into())
    );
    assert!(zero.source().is_none());
    pool.close();
    let closed = pool.execute_after(Duration::ZERO, || ()).unwrap_err();
    assert_eq!((closed.is_full(), closed.is_shut_down(), closed.is_zero_period()), (false, true, false));
    assert_eq!(closed.to_string(), "the pool is shut down");
    closed.into_inner()();
}

#[test]
fn debug_of_a_timer_and_of_a_submission_shows_how_far_they_are() {
    let pool = pool(1, 1);
    let once = pool.execute_after(Duration::MAX, || ()).unwrap();
    let often = pool.execute_every(Duration::MAX, || ()).unwrap();
    assert_eq!(format!("{once:?}"), "TimerHandle { periodic: false, finished: false }");
    assert!(often.cancel());
    assert_eq!(format!("{often:?}"), "TimerHandle { periodic: true, finished: true }");
    assert!(once.cancel());

    let wedge = BlockedWorkers::new(&pool);
    fill(&pool, &Counter::new());
    let mut submission = std::pin::pin!(pool.spawn_async(|| ()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(format!("{submission:?}").contains(r#"state: "new""#), "{submission:?}");
    assert!(submission.as_mut().poll(&mut context).is_pending());
    assert!(format!("{submission:?}").contains(r#"state: "waiting""#), "{submission:?}");
    wedge.open();
    while submission.as_mut().poll(&mut context).is_pending() {
        std::thread::yield_now();
    }
    assert!(format!("{submission:?}").contains(r#"state: "done""#), "{submission:?}");
}

#[cfg(feature = "retry")]
#[test]
fn every_reason_to_give_up_has_its_own_text_and_retry_types_have_debug() {
    use workcrew::retry::{GiveUpReason, RetryBudget, RetryPolicy};
    let reasons = [
        GiveUpReason::Permanent,
        GiveUpReason::Attempts,
        GiveUpReason::Deadline,
        GiveUpReason::Budget,
        GiveUpReason::NoTimer,
        GiveUpReason::Cancelled(CancelReason::ShutDown),
    ];
    let mut texts = reasons.map(|reason| reason.to_string());
    texts.sort();
    assert!(texts.windows(2).all(|two| two[0] != two[1]), "{texts:?}");
    let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2).budget(RetryBudget::new(7));
    let text = format!("{policy:?}");
    assert!(text.contains("max_attempts: 2") && text.contains("RetryBudget { retries_left: 7, .. }"), "{text}");
    let pool = pool(1, 1);
    let handle = pool.spawn_with_retry(policy, |attempt| Err::<(), _>(attempt.number())).unwrap();
    let error = handle.join().unwrap().unwrap_err();
    assert_eq!(format!("{error:?}"), "RetryError { reason: Attempts, attempts: 2, first: Failed(1), last: Failed(2) }");
}

#[cfg(feature = "events")]
#[test]
fn debug_of_a_bus_and_its_types_shows_everything_but_the_events() {
    use workcrew::events::EventBus;
    struct Secret;
    let pool = pool(1, 1);
    let texts = Arc::new(Mutex::new(Vec::new()));
    let (dead, unheard) = (Arc::clone(&texts), Arc::clone(&texts));
    let builder = EventBus::builder(&pool)
        .mailbox_capacity(3)
        .on_dead_letter(move |letter| dead.lock().unwrap().push((letter.event_type(), format!("{letter:?}"))))
        .on_unhandled(move |event| unheard.lock().unwrap().push((event.event_type(), format!("{event:?}"))));
    assert_eq!(format!("{builder:?}"), "EventBusBuilder { mailbox_capacity: 3, .. }");
    let bus = builder.build();
    assert_eq!(format!("{bus:?}"), "EventBus { mailbox_capacity: 3, .. }");
    bus.publish_to("vault", Secret);
    let subscribing = bus.subscription::<Secret>().name("guard").topic("vault").concurrent(2).ordered();
    let text = format!("{subscribing:?}");
    let words = [r#"name: "guard""#, r#"topic: Some("vault")"#, "mode: Ordered", "mailbox_capacity: 3"];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    let subscription = subscribing.handle(|_| Err::<(), _>("caught"));
    assert_eq!(
        (subscription.name(), &*format!("{subscription:?}")),
        ("guard", r#"Subscription { name: "guard", .. }"#)
    );
    assert!(bus.has_subscribers_to::<Secret>("vault") && !bus.has_subscribers_to::<Secret>("cellar"));
    let receipt = bus.publish_to("vault", Secret);
    assert_eq!(receipt.wait().unwrap().len(), 1);
    assert_eq!(format!("{receipt:?}"), "Receipt { handlers: 1, finished: true }");
    let texts = texts.lock().unwrap();
    let [(unheard_type, unheard), (dead_type, dead)] = &texts[..] else { panic!("{texts:?}") };
    assert!(unheard_type.ends_with("Secret") && dead_type == unheard_type, "{texts:?}");
    assert!(unheard.starts_with("UnhandledEvent") && unheard.contains("vault"), "{unheard}");
    assert!(dead.starts_with("DeadLetter") && dead.contains("guard") && dead.contains("caught"), "{dead}");
}

#[test]
fn metrics_read_well_with_and_without_times() {
    let pool = WorkerPool::builder().workers(1).timing(true).build().unwrap();
    pool.spawn(|| ()).unwrap().join().unwrap();
    let metrics = pool.metrics();
    let text = metrics.to_string();
    assert!(text.contains("queue wait") && text.contains("half within"), "{text}");
    let histogram = metrics.run_time.unwrap();
    assert!(histogram.to_string().contains("99 % within") && format!("{histogram:?}").contains("Histogram"));
    assert!(!common::pool(1, 1).metrics().to_string().contains("half within"));
}

#[test]
fn an_observer_gets_only_the_calls_it_implements_with_worker_and_place() {
    struct Deaf;
    impl Observer for Deaf {}
    #[derive(Default)]
    struct Listens(Mutex<Vec<String>>);
    impl Observer for Listens {
        fn task_refused(&self, task: &TaskInfo<'_>) {
            self.0.lock().unwrap().push(format!("refused {}", task.id()));
        }
        fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
            let Some(label) = task.label() else { return };
            self.0.lock().unwrap().push(format!("{label} {outcome} {}", task.location().file()));
        }
    }
    let listens = Arc::new(Listens::default());
    for observed in [WorkerPool::builder().observer(Deaf), WorkerPool::builder().observer(Arc::clone(&listens))] {
        let pool = Arc::new(observed.workers(1).queue_capacity(1).build().unwrap());
        let wedge = BlockedWorkers::new(&pool);
        pool.execute(|| ()).unwrap();
        assert!(pool.try_execute(|| ()).is_err());
        wedge.open();
        let group = pool.group().label("labelled");
        group.spawn(|| ());
        group.wait().unwrap();
        pool.shutdown();
    }
    let heard = listens.0.lock().unwrap();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].starts_with("refused ") && heard[1] == format!("labelled succeeded {}", file!()), "{heard:?}");
}

#[test]
fn a_running_task_is_shown_with_its_worker_and_its_beginning() {
    let before = Instant::now();
    let pool = pool(1, 4);
    let gate = Gate::new();
    let inside = gate.clone();
    let handle = pool.spawn(move || inside.pass()).unwrap();
    gate.wait_started(1);
    let running = pool.running();
    let [task] = &running[..] else { panic!("{running:?}") };
    assert_eq!((task.worker(), task.id(), task.label()), (0, handle.id(), None));
    assert!(task.since() >= before && task.since() <= Instant::now());
    assert!(task.to_string().starts_with(&format!("worker 0: task {} from tests", handle.id())), "{task}");
    gate.open();
    handle.join().unwrap();
}

#[test]
fn a_token_is_waited_for_and_its_callback_may_outlive_its_guard() {
    with_watchdog(|| {
        let token = CancellationToken::new();
        let called = Counter::new();
        let counted = called.clone();
        token.on_cancel(move || counted.add()).detach();
        let waiter = spawn_parked({
            let token = token.clone();
            move || token.wait()
        });
        assert!(!waiter.is_finished() && called.get() == 0);
        token.cancel();
        waiter.join().unwrap();
        assert_eq!((called.get(), token.reason()), (1, Some(CancelReason::Requested)));
    });
}

/// Groups nested in groups, each waited for in another of the ways; returns whether the deepest was told that it is too
/// deep.
fn dive(pool: &WorkerPool, levels: u32, way: u32) -> bool {
    if levels == 0 {
        return false;
    }
    let group = pool.group().policy(GroupPolicy::CollectAll);
    let inner = pool.clone();
    group.spawn(move || Ok::<_, ()>(dive(&inner, levels - 1, way)));
    match way {
        0 => match group.wait() {
            Ok(values) => values[0],
            Err(error) => matches!(error, GroupError::WouldDeadlock(_)),
        },
        1 => match group.wait_any() {
            Ok(value) => value,
            Err(error) => matches!(error, GroupError::WouldDeadlock(_)),
        },
        _ => match group.wait_timeout(Duration::MAX).unwrap() {
            Ok(values) => values[0],
            Err(error) => matches!(error, GroupError::WouldDeadlock(_)),
        },
    }
}

/// Fault 46.
#[test]
fn groups_nested_past_the_depth_are_an_error_in_every_way_to_wait() {
    with_watchdog(|| {
        for way in 0..3 {
            let pool = pool(1, 4);
            assert!(!dive(&pool, 40, way), "not too deep");
            assert!(dive(&pool, 200, way), "too deep");
            pool.shutdown();
            assert_eq!(pool.metrics().tasks_panicked, 0);
            common::assert_counts_add_up(&pool);
        }
    });
}

/// Groups nested in groups, each of whose tasks waits for all outcomes of the next; returns how many levels were reached.
fn dive_for_all(pool: &WorkerPool, levels: u32) -> u32 {
    if levels == 0 {
        return 0;
    }
    let group = pool.group().policy(GroupPolicy::CollectAll);
    let inner = pool.clone();
    group.spawn(move || Ok::<_, ()>(dive_for_all(&inner, levels - 1)));
    1 + group.wait_all().remove(0).unwrap_or(0)
}

/// Fault 46.
#[test]
fn a_wait_for_all_outcomes_has_no_error_and_panics_past_the_depth() {
    common::quiet_panics();
    with_watchdog(|| {
        let pool = pool(1, 4);
        assert_eq!(dive_for_all(&pool, 40), 40);
        let reached = dive_for_all(&pool, 200);
        assert!((40..200).contains(&reached), "{reached}");
        pool.shutdown();
        assert_eq!(pool.metrics().tasks_panicked, 1);
        common::assert_counts_add_up(&pool);
    });
}
