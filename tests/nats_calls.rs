//! Every call ends in its time, for every fault of the server and the network, and what was published before a drop is sent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

mod nats_common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nats_common::{LONG, Server, pool, queue, wait_until};
use workcrew::nats::{
    ConnectError, Connection, Event, JobQueue, NewJob, PublishError, QueueError, ReconnectSettings, Worker,
};

/// The time for an answer.
const SHORT: Duration = Duration::from_millis(300);
/// How much later a call may come back on a busy machine.
const GRACE: Duration = Duration::from_secs(1);

/// Publishes until the client takes no more.
fn fill(connection: &Connection) {
    let full = (0..1_000_000).find_map(|_| connection.publish("a", &[0_u8; 4_096]).err());
    assert!(matches!(full, Some(PublishError::Timeout)), "{full:?}");
}

/// Makes each call, and returns those that succeeded, or took longer than they may.
fn calls_that_do_not_fail_in_time(connection: &Connection, queue: &JobQueue) -> Vec<(&'static str, Duration, bool)> {
    type Call<'a> = (&'static str, u32, Box<dyn Fn() -> bool + 'a>);
    let worker = Worker::<String>::builder(queue, "worker").build().unwrap();
    let jobs = || (0..2_000).map(|n| NewJob::new("jobs.a", "", n.to_string()).unwrap());
    let calls: Vec<Call<'_>> = vec![
        ("request", 1, Box::new(|| connection.request("a", "").is_ok())),
        ("flush", 1, Box::new(|| connection.flush().is_ok())),
        ("subscribe", 1, Box::new(|| connection.subscribe("a").start(|_| ()).is_ok())),
        ("reconnect", 1, Box::new(|| connection.reconnect().is_ok())),
        ("open", 1, Box::new(|| JobQueue::builder(connection, "MORE").open().is_ok())),
        ("plan", 1, Box::new(|| JobQueue::builder(connection, "MORE").plan().is_ok())),
        ("enqueue", 1, Box::new(|| queue.enqueue("jobs.a", "", "1").is_ok())),
        ("enqueue_all", 1, Box::new(|| queue.enqueue_all(jobs()).iter().any(Result::is_ok))),
        ("len", 1, Box::new(|| queue.len().is_ok())),
        ("status", 1, Box::new(|| queue.status().is_ok())),
        ("enqueue_after", 1, Box::new(|| queue.enqueue_after(SHORT, "jobs.a", "", "1").is_ok())),
        ("worker status", 1, Box::new(|| worker.status().is_ok())),
        ("clear_finished", 1, Box::new(|| worker.clear_finished().is_ok())),
        ("is_empty", 1, Box::new(|| queue.is_empty().is_ok())),
        ("dead_letters_len", 1, Box::new(|| queue.dead_letters_len().is_ok())),
        ("dead_letters", 1, Box::new(|| queue.dead_letters(usize::MAX).is_ok())),
    ];
    let timed = calls.into_iter().map(|(name, answers, call)| {
        let since = Instant::now();
        let has_succeeded = call();
        (name, since.elapsed(), has_succeeded || since.elapsed() > answers * SHORT + GRACE)
    });
    timed.filter(|(_, _, is_wrong)| *is_wrong).collect()
}

/// Fault 210.
#[test]
fn with_the_clients_channel_full_and_the_server_down_or_mute_each_call_fails_in_its_time() {
    for is_down in [true, false] {
        let Some(mut server) = Server::start() else { return };
        let pool = pool(1);
        let connection = server.builder().timeout(SHORT).ping_interval(LONG).connect(&pool).unwrap();
        let queue = queue(&connection);
        if is_down {
            server.kill();
            wait_until("the client knows", || !connection.is_connected());
        } else {
            server.freeze();
        }
        fill(&connection);
        let wrong = calls_that_do_not_fail_in_time(&connection, &queue);
        assert!(wrong.is_empty(), "down: {is_down}: {wrong:?}");
        if is_down {
            server.start_again();
        } else {
            server.signal("CONT");
        }
        wait_until("all works again", || queue.len().is_ok());
    }
}

/// Fault 211.
#[test]
fn every_time_for_an_answer_from_zero_to_the_longest_ends_or_works_and_never_panics() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    for timeout in [Duration::from_nanos(1), Duration::from_micros(50)] {
        let refused = server.builder().timeout(timeout).connect(&pool);
        assert!(refused.is_ok() || matches!(refused, Err(ConnectError::Timeout)), "{refused:?}");
    }
    for timeout in [Duration::from_secs(1 << 40), Duration::MAX] {
        let builder = server.builder().timeout(timeout).ping_interval(timeout);
        let mut settings = ReconnectSettings::default();
        (settings.delay, settings.max_delay) = (timeout, timeout);
        let connection = builder.reconnect(settings).connect(&pool).unwrap();
        let queue = queue(&connection);
        queue.enqueue("jobs.a", "", format!("{timeout:?}")).unwrap();
        let worker = Worker::<String>::builder(&queue, "worker").drain_timeout(timeout).stuck_after(timeout);
        let worker = worker.build().unwrap();
        thread::scope(|scope| {
            let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
            wait_until("the job is done", || queue.is_empty().unwrap());
            worker.drain();
            assert!(run.join().unwrap().drained);
        });
        assert_eq!(queue.dead_letters(usize::MAX).unwrap().len(), 0);
        connection.flush().unwrap();
    }
}

/// Fault 212.
#[test]
fn a_mute_server_is_left_after_three_pings_and_calls_work_when_it_is_back() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| drop(sender.lock().unwrap().send(event.clone()));
    let builder = server.builder().timeout(SHORT).ping_interval(Duration::from_millis(50)).observer(told);
    let connection = builder.connect(&pool).unwrap();
    server.freeze();
    let since = Instant::now();
    while events.recv_timeout(LONG).unwrap() != Event::Disconnected {}
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    server.signal("CONT");
    wait_until("there is a connection", || connection.is_connected());
    let before = connection.statistics().connects;
    connection.reconnect().unwrap();
    wait_until("it is made again", || connection.statistics().connects > before && connection.is_connected());
}

/// Fault 220.
#[test]
fn what_was_published_before_the_last_owner_went_is_sent_whichever_owner_that_is() {
    const MESSAGES: usize = 20;
    let Some(server) = Server::start() else { return };
    let watching = pool(2);
    let watch = server.connect(&watching);
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let _all = watch.subscribe("y").concurrent(1_000).start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let asked = watch.request("nobody", "");
    assert!(matches!(asked, Err(PublishError::NoResponders)), "{asked:?}");
    for round in 1..=100 {
        let mine = pool(1);
        let connection = server.connect(&mine);
        let subscription = connection.subscribe("z").start(|_| ()).unwrap();
        for _ in 0..MESSAGES {
            connection.publish("y", "hello").unwrap();
        }
        drop(connection);
        drop(subscription);
        drop(mine);
        wait_until("all messages came", || seen.load(Ordering::SeqCst) == round * MESSAGES);
    }
}

/// Fault 221.
#[test]
fn a_connection_that_gave_up_for_good_says_so_in_each_call() {
    let Some(mut server) = Server::start() else { return };
    let pool = pool(1);
    let mut settings = ReconnectSettings::default();
    (settings.max_attempts, settings.delay) = (Some(2), Duration::from_millis(1));
    let connection = server.builder().timeout(SHORT).reconnect(settings).connect(&pool).unwrap();
    let queue = queue(&connection);
    server.kill();
    wait_until("it has given up", || matches!(connection.publish("a", ""), Err(PublishError::Failed(_))));
    assert!(matches!(connection.request("a", ""), Err(PublishError::Failed(_))));
    assert!(matches!(queue.len(), Err(QueueError::Unavailable(_))), "{:?}", queue.len());
    assert!(queue.enqueue("jobs.a", "", "1").is_err());
    assert!(connection.subscribe("a").start(|_| ()).is_err());
}
