//! What the server does not permit is told by an error or an event that names the subject, and at once: the
//! time for an answer here is longer than any test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nats_common::{LONG, Server, pool, queue, wait_until, work_until};
use workcrew::WorkerPool;
use workcrew::nats::{
    Connection, EnqueueError, Event, JobQueue, NewJob, PublishError, QueueError, Worker, WorkerError,
};
use workcrew::retry::RetryPolicy;

/// The time for an answer. No call may wait for its end.
const ANSWER: Duration = Duration::from_secs(600);

/// A server with a user `admin`, and a user `ann` with these permissions.
fn start(permissions: &str) -> Option<Server> {
    let admin = "{ user: admin, password: secret }";
    let ann = format!("{{ user: ann, password: secret, permissions: {{ {permissions} }} }}");
    Server::with_config(&format!("authorization {{ users: [ {admin}, {ann} ] }}"))
}

fn connect(server: &Server, user: &str, pool: &WorkerPool) -> (Connection, Receiver<Event>) {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| drop(sender.lock().unwrap().send(event.clone()));
    let builder = server.builder().user_and_password(user, "secret").timeout(ANSWER).observer(told);
    (builder.connect(pool).unwrap(), events)
}

#[track_caller]
fn wait_for(events: &Receiver<Event>, is_it: impl Fn(&Event) -> bool) -> Event {
    let since = Instant::now();
    loop {
        let event = events.recv_timeout(LONG.saturating_sub(since.elapsed())).unwrap();
        if is_it(&event) {
            return event;
        }
    }
}

/// Checks that the words of the server name the subject.
#[track_caller]
fn names(subject: &str, text: &str) {
    assert!(text.to_lowercase().contains("permissions violation") && text.contains(subject), "{text}");
}

/// Fault 245.
#[test]
fn a_denied_request_publish_or_enqueue_is_an_error_at_once_and_stops_no_other() {
    let Some(server) = start("publish: { deny: [\"closed.>\", \"jobs.closed\"] }, subscribe: \">\"") else { return };
    let pool = pool(1);
    let (connection, events) = connect(&server, "ann", &pool);
    let queue = queue(&connection);
    let _answering = connection.subscribe("open.a").start(|message| message.respond("").unwrap()).unwrap();
    connection.flush().unwrap();
    let since = Instant::now();
    thread::scope(|scope| {
        // Others go on meanwhile.
        scope.spawn(|| (0..200).for_each(|_| drop(connection.request("open.a", "").unwrap())));
        scope.spawn(|| {
            for number in 0..200 {
                queue.enqueue("jobs.a", "", format!("other-{number}")).unwrap();
            }
        });
        for _ in 0..20 {
            let Err(PublishError::Denied(text)) = connection.request("closed.A", "") else { panic!("not denied") };
            names("closed.A", &text);
            let Err(EnqueueError::Denied(text)) = queue.enqueue("jobs.closed", "", "1") else { panic!("not denied") };
            names("jobs.closed", &text);
        }
    });
    let jobs = ["jobs.a", "jobs.closed", "jobs.b"].map(|subject| NewJob::new(subject, "", subject).unwrap());
    let results = queue.enqueue_all(jobs);
    assert!(matches!(results[..], [Ok(_), Err(EnqueueError::Denied(_)), Ok(_)]), "{results:?}");
    assert_eq!(queue.len().unwrap(), 202);

    connection.flush().unwrap();
    connection.publish("closed.b", "").unwrap();
    let Err(PublishError::Denied(text)) = connection.flush() else { panic!("not denied") };
    names("closed.b", &text);
    connection.flush().unwrap();
    let event = wait_for(&events, |event| matches!(event, Event::Denied(text) if text.contains("closed.b")));
    names("closed.b", &event.to_string());
    assert!(since.elapsed() < ANSWER / 10, "{:?}", since.elapsed());
}

/// Fault 246.
#[test]
fn each_call_of_a_queue_or_worker_that_is_denied_says_so_at_once() {
    let denied = "$JS.API.STREAM.CREATE.>, $JS.API.STREAM.UPDATE.>, $JS.API.CONSUMER.>, $JS.API.STREAM.PURGE.>, \
                  $JS.API.STREAM.MSG.>";
    let list: Vec<_> = denied.split(", ").map(|subject| format!("\"{subject}\"")).collect();
    let Some(server) = start(&format!("publish: {{ deny: [{}] }}", list.join(", "))) else { return };
    let pool = pool(1);
    let (admin, _) = connect(&server, "admin", &pool);
    let theirs = queue(&admin);
    theirs.enqueue("jobs.a", "", "1").unwrap();
    let never = RetryPolicy::exponential().retry_if(|_: &String| false);
    let burying = Worker::builder(&theirs, "worker").retry(never).build().unwrap();
    work_until(&burying, &pool, |_| Err("broken".to_owned()), || theirs.is_empty().unwrap());
    let letter = theirs.dead_letters(1).unwrap().remove(0);

    let (connection, _) = connect(&server, "ann", &pool);
    let mine = queue(&connection);
    mine.len().unwrap();
    let worker = Worker::<String>::builder(&mine, "worker").build().unwrap();
    type Call<'a> = Box<dyn Fn() -> Result<(), QueueError> + 'a>;
    let of_queue: Vec<(&str, Call<'_>)> = vec![
        ("STREAM.CREATE.MORE", Box::new(|| JobQueue::builder(&connection, "MORE").open().map(drop))),
        (
            "STREAM.UPDATE.JOBS",
            Box::new(|| JobQueue::builder(&connection, "JOBS").subject("jobs.>").max_jobs(9).plan()?.apply().map(drop)),
        ),
        ("CONSUMER.CREATE.JOBS_DEAD", Box::new(|| mine.dead_letters(1).map(drop))),
        ("STREAM.MSG.GET.JOBS_DEAD", Box::new(|| mine.requeue(&letter).map(drop))),
        ("STREAM.MSG.GET.JOBS_DEAD", Box::new(|| mine.discard_dead_letter(&letter))),
        ("CONSUMER.INFO.JOBS.worker", Box::new(|| worker.status().map(drop))),
        ("CONSUMER.INFO.JOBS.worker", Box::new(|| worker.clear_finished().map(drop))),
    ];
    let since = Instant::now();
    for (subject, call) in of_queue {
        let denied = call();
        let Err(QueueError::Denied(text)) = denied else { panic!("{subject}: {denied:?}") };
        names(subject, &text);
    }
    let planned = worker.plan();
    let Err(WorkerError::Denied(text)) = planned else { panic!("{planned:?}") };
    names("CONSUMER.INFO.JOBS.worker", &text);
    assert!(since.elapsed() < ANSWER / 10, "{:?}", since.elapsed());
    assert_eq!(theirs.dead_letters_len().unwrap(), 1);
}

/// Fault 247.
#[test]
fn without_permission_for_the_inbox_of_answers_no_call_waits_for_one() {
    let Some(server) = start("publish: \">\", subscribe: { deny: \"_INBOX.>\" }") else { return };
    let pool = pool(1);
    let (connection, _) = connect(&server, "ann", &pool);
    let since = Instant::now();
    for _ in 0..3 {
        let Err(PublishError::Denied(text)) = connection.request("a", "") else { panic!("not denied") };
        names("_INBOX", &text);
        let Err(QueueError::Denied(text)) = JobQueue::builder(&connection, "JOBS").open() else { panic!("not denied") };
        names("_INBOX", &text);
    }
    connection.publish("a", "").unwrap();
    connection.flush().unwrap();
    assert!(since.elapsed() < ANSWER / 10, "{:?}", since.elapsed());
}

/// Fault 247.
#[test]
fn without_permission_to_publish_to_inboxes_a_flush_and_a_subscription_still_learn_what_is_denied() {
    let permissions = "publish: { deny: [\"_INBOX.>\", \"closed\"] }, subscribe: { deny: \"closed\" }";
    let Some(server) = start(permissions) else { return };
    let pool = pool(1);
    let (connection, events) = connect(&server, "ann", &pool);
    let _all = connection.subscribe(">").start(|_| ()).unwrap();
    connection.publish("open", "").unwrap();
    connection.flush().unwrap();
    connection.publish("closed", "").unwrap();
    let Err(PublishError::Denied(text)) = connection.flush() else { panic!("not denied") };
    names("closed", &text);
    let Err(PublishError::Denied(text)) = connection.subscribe("closed").start(|_| ()) else { panic!("not denied") };
    names("closed", &text);
    for _ in 0..2 {
        let event = wait_for(&events, |event| matches!(event, Event::Denied(_)));
        names("closed", &event.to_string());
    }
    connection.flush().unwrap();
    let more: Vec<_> = events.try_iter().collect();
    assert!(more.is_empty(), "its own messages concern no user: {more:?}");
}

/// Fault 248.
#[test]
fn a_worker_that_may_not_ask_for_jobs_says_so_at_once_and_pauses_longer_each_time() {
    let Some(server) = start("publish: { deny: \"$JS.API.CONSUMER.MSG.NEXT.>\" }") else { return };
    let pool = pool(1);
    let (connection, events) = connect(&server, "ann", &pool);
    let queue = queue(&connection);
    queue.enqueue("jobs.a", "", "1").unwrap();
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        let _drained = nats_common::DrainAtEnd(&worker);
        let pauses: Vec<_> = (0..4)
            .map(|_| {
                let failed = wait_for(&events, |event| matches!(event, Event::ConsumerFailed { .. }));
                let Event::ConsumerFailed { error, retry_after, .. } = failed else { panic!("another event") };
                names("$JS.API.CONSUMER.MSG.NEXT.JOBS.worker", &error);
                retry_after
            })
            .collect();
        assert!(pauses.windows(2).all(|two| two[0] < two[1]), "{pauses:?}");
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(queue.len().unwrap(), 1);
}

/// Fault 248.
#[test]
fn a_worker_that_may_not_have_its_consumer_says_so_at_once_and_works_when_it_may() {
    let Some(server) = start("publish: { deny: \"$JS.API.CONSUMER.CREATE.>\" }") else { return };
    let pool = pool(1);
    let (admin, _) = connect(&server, "admin", &pool);
    let theirs = queue(&admin);
    theirs.enqueue("jobs.a", "", "1").unwrap();
    let (connection, events) = connect(&server, "ann", &pool);
    let mine = queue(&connection);
    let worker = Worker::<String>::builder(&mine, "worker").build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        let _drained = nats_common::DrainAtEnd(&worker);
        let failed = wait_for(&events, |event| matches!(event, Event::ConsumerFailed { .. }));
        names("$JS.API.CONSUMER.CREATE.JOBS.worker", &failed.to_string());
        // Another one makes it, for both.
        let other = Worker::<String>::builder(&theirs, "worker").build().unwrap();
        work_until(&other, &nats_common::pool(1), |_| Ok(()), || theirs.is_empty().unwrap());
        wait_for(&events, |event| matches!(event, Event::ConsumerReady { .. }));
        theirs.enqueue("jobs.a", "", "2").unwrap();
        wait_until("the job is done", || theirs.is_empty().unwrap());
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
}

/// Fault 249.
#[test]
fn an_outcome_or_a_dead_letter_that_is_denied_is_told_at_once_and_the_job_stays() {
    let Some(server) = start("publish: { deny: [\"$JS.ACK.>\", \"dead.>\"] }") else { return };
    let pool = pool(1);
    let (connection, events) = connect(&server, "ann", &pool);
    let queue = queue(&connection);
    queue.enqueue("jobs.good", "", "1").unwrap();
    queue.enqueue("jobs.bad", "", "2").unwrap();
    let never = RetryPolicy::exponential().retry_if(|_: &String| false);
    let worker = Worker::builder(&queue, "worker").slots(2).ack_wait(ANSWER).retry(never).build().unwrap();
    let handler = |job: &workcrew::nats::Job| {
        if job.subject() == "jobs.bad" { Err("broken".to_owned()) } else { Ok(()) }
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = nats_common::DrainAtEnd(&worker);
        let failed = wait_for(&events, |event| matches!(event, Event::DeadLetterFailed { .. }));
        names("dead.JOBS", &failed.to_string());
        wait_until("both are given up", || worker.metrics().outcomes_lost == 2);
        wait_until("no slot is held", || worker.metrics().jobs_in_flight == 0);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!((queue.len().unwrap(), queue.dead_letters_len().unwrap()), (2, 0));
}

#[test]
fn a_user_with_the_permissions_that_the_page_of_settings_lists_can_do_the_work() {
    let page = include_str!("../docs/nats-settings.md");
    let list = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let list: Vec<_> = list.lines().map(|line| format!("\"{}\"", line.split_whitespace().next().unwrap())).collect();
    let permissions = format!("publish: {{ allow: [{}] }}, subscribe: {{ allow: \"_INBOX.>\" }}", list.join(", "));
    let Some(server) = start(&permissions) else { return };
    let pool = pool(1);
    let (admin, _) = connect(&server, "admin", &pool);
    drop(queue(&admin));
    let (connection, events) = connect(&server, "ann", &pool);
    let mine = queue(&connection);
    mine.enqueue("jobs.good", "", "1").unwrap();
    mine.enqueue("jobs.bad", "", "2").unwrap();
    mine.enqueue_after(Duration::from_millis(300), "jobs.good", "", "3").unwrap();
    let policy = RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(2);
    let worker = Worker::builder(&mine, "worker").retry(policy).build().unwrap();
    let handler = |job: &workcrew::nats::Job| if job.subject() == "jobs.bad" { Err("broken") } else { Ok(()) };
    work_until(&worker, &pool, handler, || mine.is_empty().unwrap());
    assert_eq!((worker.metrics().jobs_acked, worker.metrics().jobs_dead), (2, 1));
    assert_eq!(mine.dead_letters_len().unwrap(), 1);
    let denied: Vec<_> = events.try_iter().filter(|event| matches!(event, Event::Denied(_))).collect();
    assert!(denied.is_empty(), "{denied:?}");
}

/// Fault 269.
#[cfg(unix)]
#[test]
fn a_worker_whose_inbox_is_denied_while_it_works_goes_on_when_it_may_have_it_again() {
    let Some(mut server) = start("publish: \">\"") else { return };
    let folder = server.folder().to_owned();
    let deny = |subject: &str| {
        let admin = "{ user: admin, password: secret }";
        let ann = format!("{{ user: ann, password: secret, permissions: {{ subscribe: {{ deny: \"{subject}\" }} }} }}");
        // Without the second line a reload would end JetStream.
        let config = format!("authorization {{ users: [ {admin}, {ann} ] }}\njetstream {{ }}\n");
        std::fs::write(folder.join("server.conf"), config).unwrap();
    };
    server.stop();
    deny("nothing");
    server.start_again();
    let pool = pool(1);
    let (admin, _) = connect(&server, "admin", &pool);
    let (connection, events) = connect(&server, "ann", &pool);
    let (theirs, mine) = (queue(&admin), queue(&connection));
    let worker = Worker::<String>::builder(&mine, "worker").build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        let _drained = nats_common::DrainAtEnd(&worker);
        theirs.enqueue("jobs.a", "", "1").unwrap();
        wait_until("it works", || worker.metrics().jobs_acked == 1);
        deny("_INBOX.>");
        server.signal("HUP");
        // A server of 2.9 leaves the subscriptions that there are.
        wait_until("it is stored", || theirs.enqueue("jobs.a", "", "2").is_ok());
        let is_denied = |event: Event| matches!(event, Event::Denied(text) if text.contains("_INBOX."));
        wait_until("it is denied", || events.try_iter().any(is_denied) || worker.metrics().jobs_acked == 2);
        deny("nothing");
        server.signal("HUP");
        wait_until("it is stored", || theirs.enqueue("jobs.a", "", "3").is_ok());
        wait_until("it goes on", || worker.metrics().jobs_acked == 3);
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
}
