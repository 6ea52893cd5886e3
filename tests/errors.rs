//! Errors travel: auto traits, conversions, messages.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

#[cfg(feature = "events")]
use workcrew::events::*;
#[cfg(feature = "retry")]
use workcrew::retry::*;
use workcrew::*;

/// A closure's companion that is `Send` and not `Sync`.
type OnlySend = Cell<u8>;

fn travels<T: Error + Send + Sync + 'static>() {}
fn is_send<T: Send>() {}

fn is_send_sync<T: Send + Sync>() {}

#[test]
fn submit_errors_travel_for_closures_that_are_only_send() {
    travels::<SubmitError<OnlySend>>();
    travels::<TrySubmitError<OnlySend>>();
    travels::<SubmitTimeoutError<OnlySend>>();
    travels::<JoinError>();
    travels::<Cancelled>();
    travels::<BuildError>();
    travels::<WorkerLocalError>();
    travels::<GroupError<io::Error>>();
    travels::<TaskError<io::Error>>();
    travels::<GroupError<String>>();
    travels::<GroupError<anyhow::Error>>();
    travels::<GroupError<Box<dyn Error + Send + Sync>>>();
    travels::<GroupError<TaskFailure<anyhow::Error>>>();
    travels::<TaskFailure<io::Error>>();
    travels::<NoSuccess<io::Error>>();
    travels::<NoSuccess<anyhow::Error>>();
    travels::<TimedOut>();
}

/// Fault 89.
#[test]
fn every_public_type_is_send_and_sync_where_it_can_be() {
    is_send_sync::<(WorkerPool, WeakWorkerPool, CurrentWorker)>();
    is_send_sync::<WorkerLocal<std::rc::Rc<OnlySend>>>();
    is_send_sync::<JoinHandle<OnlySend>>();
    is_send_sync::<TaskGroup<Result<OnlySend, OnlySend>>>();
    is_send_sync::<Spawner<Result<OnlySend, OnlySend>>>();
    is_send_sync::<Scope<'_, '_, Result<(), OnlySend>>>();
    is_send_sync::<CancellationToken>();
    is_send_sync::<CancelGuard>();
    is_send_sync::<WorkerPoolBuilder>();
    is_send_sync::<Metrics>();
    is_send_sync::<Histogram>();
    is_send_sync::<ShutdownReport>();
    is_send_sync::<RunningTask>();
    is_send_sync::<TaskInfo<'_>>();
    is_send_sync::<(TaskPanic, FailedTask, TaskFailure<u8>)>();
    is_send_sync::<(Cycle, CycleWait, CycleTask, CycleTarget, CycleKind)>();
    is_send_sync::<Refused<OnlySend>>();
    is_send_sync::<(TaskId, TaskOutcome, CancelReason, Overflow, OnDrop, GroupPolicy, Progress)>();
    is_send_sync::<Completions<'_, Result<OnlySend, OnlySend>>>();
    // One thread at a time asks an iterator, and what it holds back need not be `Sync`.
    is_send::<(Overflow, Map<'_, std::ops::Range<u8>, fn(u8), OnlySend>)>();
}

#[test]
fn timers_retries_and_events_travel_too() {
    is_send_sync::<(WaitForCancellation, SpawnAsync<fn(), ()>)>();
    is_send_sync::<(WaitForIdle, WaitForShutdown)>();
    is_send_sync::<WaitForGroup<Result<OnlySend, OnlySend>>>();
    #[cfg(feature = "driver")]
    {
        use workcrew::driver::{Driver, DriverError};
        travels::<DriverError>();
        is_send_sync::<Driver>();
    }
    #[cfg(feature = "grpc")]
    {
        use workcrew::grpc::{CallError, Caller, CallerBuilder, CallerError, MessageStream, MethodConfig, Target};
        travels::<CallError>();
        travels::<CallerError>();
        is_send_sync::<(Caller, CallerBuilder, MethodConfig, Target)>();
        is_send_sync::<MessageStream<OnlySend>>();
    }
    #[cfg(feature = "nats")]
    {
        use workcrew::nats;
        travels::<nats::ConnectError>();
        travels::<nats::PublishError>();
        travels::<nats::EnqueueError>();
        travels::<nats::QueueError>();
        travels::<nats::WorkerError>();
        is_send_sync::<(nats::Connection, nats::ConnectionBuilder, nats::Event, nats::Message)>();
        is_send_sync::<(nats::Subscription, nats::SubscriptionBuilder)>();
        is_send_sync::<(nats::JobQueue, nats::JobQueueBuilder, nats::Enqueued, nats::ConfigMismatch)>();
        is_send_sync::<(nats::DeadLetter, nats::DeadLetterReason, nats::Job, nats::RunReport, nats::WorkerMetrics)>();
        is_send_sync::<(nats::Worker<OnlySend>, nats::WorkerBuilder<OnlySend>)>();
    }
    travels::<TimerError<OnlySend>>();
    is_send_sync::<(TimerHandle, Period, Priority, TimerBuilder<'_>, TaskBuilder<'_>, ScopeBuilder<'_>)>();
    is_send_sync::<(KeyedExecutor<String>, KeyedExecutorBuilder<String>)>();
    is_send_sync::<ScopedHandle<'_, OnlySend>>();
    is_send::<(Overflow, ScopeMap<'_, '_, std::ops::Range<u8>, fn(u8), OnlySend>)>();
    #[cfg(feature = "retry")]
    {
        travels::<RetryError<io::Error>>();
        travels::<RetryError<anyhow::Error>>();
        travels::<AttemptError<String>>();
        is_send_sync::<JoinHandle<Result<OnlySend, RetryError<OnlySend>>>>();
        is_send_sync::<(RetryPolicy<OnlySend>, RetryBudget, Attempt, ErrorClass, GiveUpReason)>();
    }
    #[cfg(feature = "events")]
    {
        travels::<WouldDeadlock>();
        travels::<TryPublishError<u8>>();
        is_send_sync::<(PublishAsync<u8>, WaitForReceipt, WaitForBusIdle)>();
        is_send_sync::<(EventBus, EventBusBuilder, Subscription, SubscriptionBuilder<'_, u8>)>();
        is_send_sync::<(Receipt, Delivery, DeliveryOutcome, DeadLetter, UnhandledEvent<'_>)>();
        is_send_sync::<BoxError>();
    }
}

#[test]
fn public_types_are_unwind_safe() {
    fn crosses<T: UnwindSafe + RefUnwindSafe>() {}
    crosses::<(WorkerPool, WeakWorkerPool)>();
    crosses::<JoinHandle<u8>>();
    crosses::<TaskGroup<()>>();
    crosses::<KeyedExecutor<u8>>();
    crosses::<Spawner<()>>();
    crosses::<ScopedHandle<'_, u8>>();
    crosses::<CancellationToken>();
    crosses::<JoinError>();
    crosses::<TimerHandle>();
    #[cfg(feature = "events")]
    crosses::<(EventBus, Subscription)>();
}

#[test]
fn the_error_of_a_task_keeps_its_causes_and_can_be_had_back() {
    use anyhow::Context;
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let error = Err::<(), _>(io::Error::other("disk")).context("load").unwrap_err();
    let failed = fails(&pool, error).unwrap_err();
    assert_eq!(failed.to_string(), "load: disk");
    assert!(failed.into_failed().unwrap().downcast_ref::<io::Error>().is_some());
    assert!(GroupError::<u8>::WouldDeadlock(Cycle::default()).into_failed().is_err());
    assert_eq!(TaskError::Failed(3).into_failed().unwrap(), 3);
    let joined = (|| -> Result<(), GroupError<u8>> { Ok(Err(JoinError::Cancelled(CancelReason::Expired))?) })();
    assert!(matches!(joined, Err(GroupError::Cancelled(CancelReason::Expired))));
}

#[test]
fn contract_panics_point_at_the_caller() {
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let (told, tell) = std::sync::mpsc::channel();
    let (here, before) = (std::thread::current().id(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        // Tasks of other tests panic in this file, too.
        if std::thread::current().id() == here {
            let location = panic.location().unwrap();
            let _ = told.send((location.file().to_owned(), location.line()));
        }
    }));
    let mut line = 0;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let group = pool.group::<()>();
        let _ = group.token();
        line = line!() + 1;
        drop(group.limit(1));
    }));
    std::panic::set_hook(before);
    assert!(caught.is_err());
    assert_eq!(tell.try_recv().unwrap(), (file!().to_owned(), line));
}

#[derive(Debug)]
enum Own {
    Broken,
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl Error for Own {}

fn fails<E: Send + 'static>(pool: &WorkerPool, error: E) -> Result<(), GroupError<E>> {
    let group = pool.group();
    group.spawn(move || Err::<(), _>(error));
    group.wait().map(drop)
}

#[test]
fn the_question_mark_takes_every_error_into_anyhow_and_boxes() {
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    pool.close();
    type Boxed = Box<dyn Error + Send + Sync>;
    let only_send = || Cell::new(1);
    let into_anyhow = |pool: &WorkerPool| -> anyhow::Result<()> {
        let value = only_send();
        Ok(pool.execute(move || value.set(2))?)
    };
    assert_eq!(into_anyhow(&pool).unwrap_err().to_string(), "the pool is shut down");
    let into_box = |pool: &WorkerPool| -> Result<(), Boxed> {
        let (one, two) = (only_send(), only_send());
        pool.try_execute(move || one.set(2)).or_else(|_| pool.try_execute_for(Duration::ZERO, move || two.set(2)))?;
        Ok(())
    };
    assert_eq!(into_box(&pool).unwrap_err().to_string(), "the pool is shut down");

    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let anyhow_of_own = (|| -> anyhow::Result<()> { Ok(fails(&pool, Own::Broken)?) })().unwrap_err();
    assert!(matches!(anyhow_of_own.downcast(), Ok(GroupError::Failed(Own::Broken))));
    let messages: [Result<(), Boxed>; 4] = [
        (|| Ok(fails(&pool, io::Error::other("disk"))?))(),
        (|| Ok(fails(&pool, String::from("text"))?))(),
        (|| Ok(fails(&pool, anyhow::anyhow!("any"))?))(),
        (|| Ok(fails(&pool, Boxed::from("boxed"))?))(),
    ];
    let messages = messages.map(|result| result.unwrap_err().to_string());
    assert_eq!(messages, ["disk", "text", "any", "boxed"]);
    let joined = (|| -> anyhow::Result<u8> { Ok(pool.spawn(|| 4)?.join()?) })();
    assert_eq!(joined.unwrap(), 4);
}

#[test]
fn messages_are_lower_case_and_name_what_failed() {
    let messages = [
        BuildError::ZeroWorkers.to_string(),
        BuildError::ZeroQueueCapacity.to_string(),
        BuildError::InvalidThreadName.to_string(),
        BuildError::ShutDown.to_string(),
        JoinError::WouldDeadlock(Cycle::default()).to_string(),
        JoinError::Cancelled(CancelReason::ShutDown).to_string(),
        GroupError::<String>::WouldDeadlock(Cycle::default()).to_string(),
        GroupError::<String>::Cancelled(CancelReason::Expired).to_string(),
        TaskError::<String>::Cancelled(CancelReason::Discarded).to_string(),
        WorkerLocalError::NotOnWorker.to_string(),
        WorkerLocalError::InUse.to_string(),
        CancelReason::Requested.to_string(),
        CancelReason::GroupEnded.to_string(),
        WorkerPool::builder().queue_capacity(usize::MAX).build().unwrap_err().to_string(),
        WorkerPool::builder().workers(usize::MAX).build().unwrap_err().to_string(),
    ];
    for message in messages {
        assert!(message.starts_with(char::is_lowercase) && !message.ends_with('.'), "{message}");
    }
}

/// Fault 311.
#[test]
fn a_refusal_says_what_was_full_and_debug_shows_the_variant() {
    fn reads<E: Error>(refused: Result<impl Sized, E>, display: &str, debug: &str) {
        let Err(error) = refused else { panic!("accepted, instead of: {display}") };
        assert_eq!((error.to_string(), format!("{error:?}")), (display.to_owned(), debug.to_owned()));
    }
    let pool = WorkerPool::builder().workers(1).queue_capacity(1).build().unwrap();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (started, start) = std::sync::mpsc::channel();
    let blocked = move || {
        started.send(()).unwrap();
        let _ = gate.recv();
    };
    pool.execute(blocked).unwrap();
    start.recv().unwrap();
    pool.execute(|| ()).unwrap();
    let group = pool.group().capacity(1);
    group.spawn(|| ());
    reads(pool.try_execute(|| ()), "the queue is full", "Full(..)");
    reads(pool.try_spawn(|| ()), "the queue is full", "Full(..)");
    reads(pool.try_execute_for(Duration::ZERO, || ()), "the queue was full until the timeout", "Timeout(..)");
    reads(pool.try_spawn_for(Duration::ZERO, || ()), "the queue was full until the timeout", "Timeout(..)");
    reads(group.try_spawn(|| ()), "the group is full", "Full(..)");
    reads(group.spawner().try_spawn(|| ()), "the group is full", "Full(..)");
    #[cfg(feature = "driver")]
    {
        let driver = workcrew::driver::Driver::new(&pool, 1).unwrap();
        let waiting = driver.spawn(std::future::pending::<()>()).unwrap();
        reads(driver.try_spawn(async {}), "too many futures are in flight", "Full(..)");
        let late = driver.try_spawn_for(Duration::ZERO, async {});
        reads(late, "too many futures were in flight until the timeout", "Timeout(..)");
        waiting.cancel();
    }
    group.cancel();
    reads(group.try_spawn(|| ()), "the group is cancelled, or its pool is shut down", "ShutDown(..)");
    drop(open);
    pool.shutdown();
    reads(pool.execute(|| ()), "the pool is shut down", "SubmitError(ShutDown)");
    reads(pool.spawn(|| ()), "the pool is shut down", "SubmitError(ShutDown)");
    reads(pollster::block_on(pool.spawn_async(|| ())), "the pool is shut down", "SubmitError(ShutDown)");
    reads(pool.try_execute(|| ()), "the pool is shut down", "ShutDown(..)");
    reads(pool.try_execute_for(Duration::MAX, || ()), "the pool is shut down", "ShutDown(..)");
    reads(pool.execute_after(Duration::ZERO, || ()), "the pool is shut down", "TimerError(ShutDown)");
    let zero = pool.execute_every(Duration::ZERO, || ());
    reads(zero, "the period of a timer is zero", "TimerError(ZeroPeriod)");
    reads(pool.resize(2), "the pool is shut down", "ShutDown");
}

/// Fault 311.
#[test]
fn an_error_of_a_setting_names_the_setting() {
    fn reads(error: &impl Error, display: &str, debug: &str) {
        assert_eq!((error.to_string(), format!("{error:?}")), (display.to_owned(), debug.to_owned()));
    }
    let build = |builder: WorkerPoolBuilder| builder.build().unwrap_err();
    let builder = || WorkerPool::builder().workers(1);
    reads(&build(builder().workers(0)), "a pool needs at least one worker", "ZeroWorkers");
    let many = "a pool may have at most 65536 workers, 70000 were requested";
    reads(&build(builder().workers(70_000)), many, "TooManyWorkers { requested: 70000, limit: 65536 }");
    let none = "a queue needs a capacity of at least one";
    reads(&build(builder().queue_capacity(0)), none, "ZeroQueueCapacity");
    reads(&build(builder().thread_name("\0")), "the thread name contains a NUL byte", "InvalidThreadName");
    let reasons = [
        (CancelReason::Requested, "cancelled on request", "Requested"),
        (CancelReason::GroupEnded, "cancelled because its group had already ended", "GroupEnded"),
        (CancelReason::ShutDown, "cancelled because the pool was shut down", "ShutDown"),
        (CancelReason::Discarded, "discarded because the queue was full", "Discarded"),
        (CancelReason::Expired, "cancelled because its deadline passed", "Expired"),
    ];
    for (reason, display, debug) in reasons {
        assert_eq!((reason.to_string(), format!("{reason:?}")), (display.to_owned(), debug.to_owned()));
    }
    let token = CancellationToken::with_timeout(Duration::ZERO);
    let cancelled = token.check().unwrap_err();
    reads(&cancelled, "cancelled because its deadline passed", "Cancelled { reason: Expired }");
    #[cfg(feature = "driver")]
    {
        use workcrew::driver::Driver;
        let pool = builder().build().unwrap();
        let zero = Driver::new(&pool, 0).unwrap_err();
        reads(&zero, "a driver needs room for at least one future in flight", "ZeroInFlight");
    }
    #[cfg(feature = "retry")]
    {
        let pool = builder().build().unwrap();
        let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
        let retried = pool.spawn_with_retry(policy, |_| Err::<(), _>("busy")).unwrap();
        let error = retried.join().unwrap().map_err(RetryError::into_last).unwrap_err();
        assert_eq!((error.to_string(), format!("{error:?}")), ("busy".to_owned(), r#"Failed("busy")"#.to_owned()));
    }
}

#[test]
fn debug_is_never_empty_and_shows_no_payload() {
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let group: TaskGroup<()> = pool.group();
    for text in [format!("{pool:?}"), format!("{group:?}"), format!("{:?}", WorkerPool::builder())] {
        assert!(text.len() > 5, "{text}");
    }
    let failed = GroupError::Failed("payload");
    assert_eq!((format!("{failed:?}"), failed.to_string()), (r#"Failed("payload")"#.into(), "payload".into()));
    pool.close();
    let refused = pool.try_execute(|| ()).unwrap_err();
    assert_eq!(format!("{refused:?}"), "ShutDown(..)");
    let TrySubmitError::ShutDown(refused) = refused else { panic!("{refused}") };
    assert_eq!(format!("{refused:?}"), "Refused(..)");
}

#[test]
fn a_failure_becomes_an_error_of_yours_by_its_own_conversion() {
    #[derive(Debug, thiserror::Error)]
    enum Mine {
        #[error("bad number")]
        Parse(#[from] std::num::ParseIntError),
        #[error("the pool")]
        Group(#[from] GroupError<std::convert::Infallible>),
        #[error("a task")]
        Task(#[from] TaskError<std::convert::Infallible>),
    }
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let failing = || {
        let group = pool.group();
        group.spawn(|| "x".parse::<u8>());
        group
    };
    let mine = failing().wait().map_err(GroupError::into_error);
    assert!(matches!(mine, Err(Mine::Parse(_))), "{mine:?}");
    let boxed: Box<dyn Error + Send + Sync> = failing().wait().unwrap_err().into_error();
    assert!(boxed.is::<std::num::ParseIntError>());
    let task = failing().wait_all().remove(0).map_err(TaskError::into_error::<Mine>);
    assert!(matches!(task, Err(Mine::Parse(_))), "{task:?}");

    let cancelled = || GroupError::<std::num::ParseIntError>::Cancelled(CancelReason::Expired).into_error::<Mine>();
    assert!(matches!(cancelled(), Mine::Group(GroupError::Cancelled(CancelReason::Expired))));
    let stuck = GroupError::<std::num::ParseIntError>::WouldDeadlock(Cycle::default()).into_error();
    assert!(matches!(stuck, Mine::Group(GroupError::WouldDeadlock(_))));
    let unstarted = TaskError::<std::num::ParseIntError>::Cancelled(CancelReason::ShutDown).into_error();
    assert!(matches!(unstarted, Mine::Task(TaskError::Cancelled(CancelReason::ShutDown))));
    let panicking = || {
        let group = pool.group();
        group.spawn(|| -> Result<(), std::num::ParseIntError> { panic!("on purpose") });
        group
    };
    assert!(matches!(panicking().wait().unwrap_err().into_error(), Mine::Group(GroupError::Panicked(_))));
    assert!(matches!(panicking().wait_all().remove(0).unwrap_err().into_error(), Mine::Task(TaskError::Panicked(_))));
}
