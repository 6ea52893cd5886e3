//! The context of a caller travels with jobs and messages, and the handler runs in what came with them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::sync::mpsc::channel;

use nats_common::{DrainAtEnd, LONG, Server, queue, wait_until, work_until};
use workcrew::nats::{Headers, Job, JobOutcome, NewJob, Worker};
use workcrew::{WorkerPool, WorkerPoolBuilder};

thread_local! {
    /// What the tests carry.
    static TRACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn trace() -> String {
    TRACE.with_borrow(|trace| trace.clone().unwrap_or_else(|| "none".to_owned()))
}

fn within<T>(trace: Option<&str>, f: impl FnOnce() -> T) -> T {
    let before = TRACE.replace(trace.map(str::to_owned));
    let value = f();
    TRACE.set(before);
    value
}

/// A pool that carries `TRACE` to its tasks and, as a header, to others.
fn builder() -> WorkerPoolBuilder {
    let wrapper = |trace: Option<String>| move |run: &mut dyn FnMut()| within(trace.as_deref(), run);
    WorkerPool::builder()
        .workers(2)
        .propagate(move || wrapper(TRACE.with_borrow(Clone::clone)))
        .inject(|set| TRACE.with_borrow(|trace| trace.iter().for_each(|trace| set("traceparent", trace))))
        .extract(move |headers| {
            let sent = headers.iter().find(|(name, _)| *name == "traceparent").map(|(_, value)| (*value).to_owned());
            assert_ne!(sent.as_deref(), Some("bad"), "expected by the test");
            wrapper(sent)
        })
}

/// Fault 528.
#[test]
fn a_job_runs_in_the_context_in_which_it_was_enqueued_also_when_it_is_delivered_again() {
    let Some(server) = Server::start() else { return };
    let pool = builder().build().unwrap();
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    within(Some("t1"), || {
        queue.enqueue("jobs.a", "t1", "1").unwrap();
        queue.enqueue_job(NewJob::new("jobs.a", "t1", "2").unwrap()).unwrap();
        let own = Headers::new().append("traceparent", "own").append("Tag", "a");
        queue.enqueue_with_headers("jobs.a", &own, "own", "3").unwrap();
        let both = ["4", "5"].map(|id| NewJob::new("jobs.a", "t1", id).unwrap());
        assert!(queue.enqueue_all(both).into_iter().all(|result| result.is_ok()));
    });
    let inside = queue.clone();
    let task = within(Some("t2"), || pool.spawn(move || inside.enqueue("jobs.a", "t2", "6").is_ok()));
    assert!(task.unwrap().join().unwrap());
    queue.enqueue("jobs.a", "none", "7").unwrap();
    within(Some("bad"), || queue.enqueue("jobs.a", "none", "8").unwrap()); // the hook that reads it panics
    within(Some("not\r\nallowed: 1"), || queue.enqueue("jobs.a", "none", "9").unwrap());
    let (sender, seen) = channel();
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    let handler = move |job: &Job| {
        sender.send((job.text().unwrap().to_owned(), trace())).unwrap();
        if job.attempt().number() == 1 && job.id() == Some("1") { Err("again".to_owned()) } else { Ok(()) }
    };
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    let seen: Vec<_> = seen.try_iter().collect();
    assert_eq!(seen.len(), 10); // nine jobs, one of them twice
    for (wanted, trace) in seen {
        assert_eq!(trace, wanted);
    }
    assert_eq!(pool.metrics().hooks_panicked, 1);
}

/// Fault 618.
#[test]
fn a_batch_has_no_context_and_its_handler_enters_that_of_each_job() {
    let Some(server) = Server::start() else { return };
    let [traced, plain] = [builder(), WorkerPool::builder()].map(|builder| builder.build().unwrap());
    let queue = queue(&server.connect(&traced));
    let (sender, seen) = channel();
    let handler = move |jobs: &[Job]| {
        let texts: Vec<_> = jobs.iter().map(|job| job.text().unwrap().to_owned()).collect();
        let panics = catch_unwind(|| jobs[0].in_context(|| panic!("expected by the test")));
        let contexts: Vec<_> = jobs.iter().map(|job| job.in_context(trace)).collect();
        sender.send((texts, contexts, panics.is_err(), trace())).unwrap();
        jobs.iter().map(|_| JobOutcome::Done).collect()
    };
    for (round, pool) in [&traced, &plain].into_iter().enumerate() {
        let enqueue = |trace, text, id| {
            within(trace, || queue.enqueue("jobs.a", text, format!("{round}-{id}"))).unwrap();
        };
        enqueue(Some("t1"), "t1", 1);
        enqueue(Some("t2"), "t2", 2);
        enqueue(None, "none", 3);
        enqueue(Some("bad"), "none", 4); // the hook that reads it panics
        let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| worker.run_batch(pool, 4, LONG, handler.clone()).unwrap());
            let _drained = DrainAtEnd(&worker);
            wait_until("all are done", || queue.is_empty().unwrap());
        });
        let (texts, contexts, has_panicked, outside) = seen.recv_timeout(LONG).unwrap();
        assert_eq!((texts.len(), has_panicked, outside), (4, true, "none".to_owned()));
        let wanted = if round == 0 { texts } else { vec!["none".to_owned(); 4] };
        assert_eq!(contexts, wanted);
    }
    assert_eq!((traced.metrics().hooks_panicked, plain.metrics().hooks_panicked), (1, 0));
}

/// Fault 528.
#[test]
fn messages_requests_and_answers_carry_the_context_of_the_thread_that_sends_them() {
    let Some(server) = Server::start() else { return };
    let pool = builder().build().unwrap();
    let connection = server.connect(&pool);
    let (sender, heard) = channel();
    let listening = connection.subscribe("news").start(move |message| {
        sender.send((trace(), message.header("Tag").map(str::to_owned))).unwrap();
        let answered = within(Some("t9"), || message.respond("thanks"));
        answered.unwrap();
    });
    let _subscription = listening.unwrap();
    let tagged = Headers::new().append("Tag", "a");
    within(Some("t1"), || {
        connection.publish("news", "one").unwrap();
        connection.publisher().publish_with_headers("news", &tagged, "two").unwrap();
    });
    connection.publish("news", "three").unwrap();
    let mut all: Vec<_> = heard.iter().take(3).collect();
    all.sort();
    let tag = || Some("a".to_owned());
    assert_eq!(all, [("none".to_owned(), None), ("t1".to_owned(), None), ("t1".to_owned(), tag())]);
    let answer = within(Some("t2"), || connection.request("news", "four")).unwrap();
    assert_eq!((answer.text(), answer.header("traceparent")), (Some("thanks"), Some("t9")));
    assert_eq!(heard.recv_timeout(LONG).unwrap(), ("t2".to_owned(), None));
    let answer = connection.request_with_headers("news", &tagged, "five").unwrap();
    assert_eq!(answer.text(), Some("thanks"));
    assert_eq!(heard.recv_timeout(LONG).unwrap(), ("none".to_owned(), tag()));
}

/// Fault 528.
#[test]
fn headers_are_written_and_read_only_where_the_hooks_are_set() {
    let Some(server) = Server::start() else { return };
    let pools = [WorkerPool::builder(), builder()].map(|builder| builder.workers(1).build().unwrap());
    let connections = [&pools[0], &pools[1]].map(|pool| server.connect(pool));
    let (sender, heard) = channel();
    let listening = connections[0].subscribe("news").start(move |message| {
        sender.send((trace(), message.headers().count())).unwrap();
    });
    let _subscription = listening.unwrap();
    within(Some("t1"), || connections[0].publish("news", "plain")).unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), ("none".to_owned(), 0));
    within(Some("t1"), || connections[1].publish("news", "traced")).unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), ("none".to_owned(), 1));
}
