//! What users set, hold and read at the face to NATS, against a real server: settings, payloads, headers, `Debug`, events, and
//! an error of its own for each way to fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::error::Error;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nats_common::{LONG, Server, figure, pool, queue, wait_until, work_until};
use workcrew::driver::Driver;
use workcrew::nats::{
    BoxError, ConnectError, Connection, ConnectionBuilder, DeadLetterReason, Decode, Encode, EnqueueError, Event, Job,
    JobQueue, PublishError, QueueError, Worker, WorkerError,
};
use workcrew::retry::{RetryBudget, RetryPolicy};

/// What is never shown.
const SECRET: &str = "hush";
/// The time for an answer of a server that gives none.
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn shows(thing: &dyn Debug, words: &[&str]) {
    let text = format!("{thing:?}");
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains(SECRET), "{text}");
}

/// A connection whose events can be waited for.
fn observed(builder: ConnectionBuilder, pool: &workcrew::WorkerPool) -> (Connection, Receiver<Event>) {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let told = move |event: &Event| drop(sender.lock().unwrap().send(event.clone()));
    (builder.observer(told).connect(pool).unwrap(), events)
}

#[track_caller]
fn wait_for(events: &Receiver<Event>, is_it: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.recv_timeout(LONG).unwrap();
        if is_it(&event) {
            return event;
        }
    }
}

/// What a client says to publish a message with headers, each of which ends its line.
fn with_headers(subject: &str, headers: &str, payload: &str) -> String {
    let headers = format!("NATS/1.0\r\n{headers}\r\n");
    let length = headers.len();
    format!("HPUB {subject} {length} {}\r\n{headers}{payload}\r\n", length + payload.len())
}

/// Every error is permanent.
fn never<E>() -> RetryPolicy<E> {
    RetryPolicy::fixed(Duration::ZERO).retry_if(|_| false)
}

#[test]
fn debug_of_what_users_hold_shows_its_state_and_neither_secrets_nor_payloads() {
    let Some(server) = Server::with_config(&format!("authorization {{ token: {SECRET} }}")) else { return };
    let pool = pool(2);
    let builder = server.builder().name("face").token(SECRET);
    shows(&builder, &["ConnectionBuilder", "face"]);
    let connection = builder.connect(&pool).unwrap();
    shows(&connection, &["is_connected: true"]);
    shows(&connection.publisher(), &["Publisher(Connection"]);

    let (sender, texts) = channel();
    let subscribing = connection.subscribe("news.*").group("readers");
    shows(&subscribing, &["news.*", "readers"]);
    let messages = sender.clone();
    let subscription = subscribing.start(move |message| messages.send(format!("{message:?}")).unwrap()).unwrap();
    shows(&subscription, &["news.*"]);
    assert_eq!(subscription.subject(), "news.*");
    connection.publish("news.today", SECRET).unwrap();
    assert_eq!(texts.recv_timeout(LONG).unwrap(), r#"Message { subject: "news.today", bytes: 4, .. }"#);

    let opening = JobQueue::builder(&connection, "JOBS").subject("jobs.>");
    shows(&opening, &["JobQueueBuilder", "jobs.>"]);
    let queue = opening.open().unwrap();
    shows(&queue, &["JOBS", "dead.JOBS"]);
    queue.enqueue("jobs.a", SECRET, "1").unwrap();
    let building = Worker::builder(&queue, "worker").retry(never()).slots(3);
    shows(&building, &["worker", "slots: Some(3)"]);
    let worker = building.build().unwrap();
    shows(&worker, &["worker", "slots: Some(3)"]);
    let handler = move |job: &Job| {
        sender.send(format!("{job:?}")).unwrap();
        Err("no luck")
    };
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    assert_eq!(texts.recv_timeout(LONG).unwrap(), r#"Job { subject: "jobs.a", sequence: 1, attempt: 1, .. }"#);
    shows(&queue.dead_letters(1).unwrap()[0], &["jobs.a", "Permanent", "no luck"]);
}

#[test]
fn every_event_reads_differently() {
    let (subject, error) = ("jobs.a".to_owned(), "no room".to_owned());
    let (consumer, retry_after) = ("worker".to_owned(), Duration::from_secs(1));
    let events = [
        Event::Connected,
        Event::Disconnected,
        Event::LameDuck,
        Event::SlowConsumer,
        Event::Warning(error.clone()),
        Event::Denied("no permission".to_owned()),
        Event::ConsumerLost { consumer: consumer.clone() },
        Event::ConsumerReady { consumer: consumer.clone() },
        Event::ConsumerFailed { consumer, error: error.clone(), retry_after },
        Event::JobStuck { subject: subject.clone(), sequence: 7 },
        Event::DeadLetterFailed { subject: subject.clone(), sequence: 7, error },
        Event::AckLost { subject, sequence: 7 },
    ];
    let mut texts = events.map(|event| event.to_string());
    assert!(texts.iter().all(|text| text.starts_with(char::is_lowercase) && !text.ends_with('.')), "{texts:?}");
    texts.sort();
    assert!(texts.windows(2).all(|two| two[0] != two[1]), "{texts:?}");
}

#[test]
fn payloads_are_bytes_and_text_and_come_back_as_they_went() {
    let bytes = [0_u8, 159, 7];
    for encoded in [bytes.encode(), bytes[..].encode(), bytes.to_vec().encode(), Encode::encode(&&bytes)] {
        assert_eq!(Vec::<u8>::decode(&encoded.unwrap()).unwrap(), bytes);
    }
    for encoded in ["text".encode(), "text".to_owned().encode(), Encode::encode(&&"text")] {
        assert_eq!(String::decode(&encoded.unwrap()).unwrap(), "text");
    }
    assert!(String::decode(&bytes).is_err(), "it is no text");
}

#[test]
fn a_payload_that_cannot_be_encoded_goes_nowhere() {
    struct Broken;
    impl Encode for Broken {
        fn encode(&self) -> Result<Vec<u8>, BoxError> {
            Err("no such number".into())
        }
    }
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    assert!(matches!(connection.publish("a", &Broken), Err(PublishError::Encode(_))));
    assert!(matches!(connection.request("a", &Broken), Err(PublishError::Encode(_))));
    let error = queue.enqueue("jobs.a", &Broken, "1").unwrap_err();
    assert!(matches!(error, EnqueueError::Encode(_)) && error.source().unwrap().to_string() == "no such number");
    assert!(queue.is_empty().unwrap());
}

#[test]
fn a_dead_letter_whose_job_cannot_be_enqueued_again_stays() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    queue.enqueue("jobs.a", "", "1").unwrap();
    let worker = Worker::builder(&queue, "worker").retry(never()).build().unwrap();
    work_until(&worker, &pool, |_| Err("no luck"), || queue.is_empty().unwrap());
    let letter = queue.dead_letters(1).unwrap().remove(0);
    connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    let refused = queue.requeue(&letter);
    assert!(matches!(refused, Err(QueueError::Requeue(EnqueueError::NoStream))), "{refused:?}");
    assert_eq!(queue.dead_letters_len().unwrap(), 1);
}

#[test]
fn a_message_is_read_in_every_way_and_says_whether_an_answer_is_wanted() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let (sender, told) = channel();
    let listening = connection.subscribe("news").start(move |message| {
        let text = message.decode::<String>().unwrap();
        assert_eq!(message.bytes(), text.as_bytes());
        message.respond("thanks").unwrap(); // without effect, if no requester waits
        let trace = message.header("Trace").map(str::to_owned);
        sender.send((text, message.wants_response(), trace)).unwrap();
    });
    let _subscription = listening.unwrap();
    let publisher = connection.publisher();
    publisher.publish("news", "rain").unwrap();
    publisher.flush().unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), ("rain".to_owned(), false, None));
    assert_eq!(publisher.request("news", "sun").unwrap().text(), Some("thanks"));
    assert_eq!(told.recv_timeout(LONG).unwrap(), ("sun".to_owned(), true, None));
    server.say(&with_headers("news", "Trace: t1\r\n", "snow"));
    assert_eq!(told.recv_timeout(LONG).unwrap(), ("snow".to_owned(), false, Some("t1".to_owned())));
}

#[test]
fn a_queue_is_made_with_the_settings_that_it_was_given() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let builder = JobQueue::builder(&connection, "JOBS").max_bytes(4_096).max_age(HOUR).in_memory();
    let queue = builder.dead_letters("graves.jobs").open().unwrap();
    assert_eq!((queue.name(), queue.dead_subject()), ("JOBS", "graves.jobs"));
    for stream in ["JOBS", "JOBS_DEAD"] {
        let answer = connection.request(&format!("$JS.API.STREAM.INFO.{stream}"), "").unwrap();
        let told: String = answer.text().unwrap().split_whitespace().collect();
        assert!(told.contains(r#""storage":"memory""#), "{told}");
        let limits = ["max_bytes", "max_age"].map(|name| figure(&told, name));
        let of_jobs = [Some(4_096), Some(HOUR.as_nanos() as u64)];
        assert_eq!(limits, if stream == "JOBS" { of_jobs } else { [None, Some(0)] }, "{told}");
    }
    // Its subjects, unless it is told others, are those that begin with its name.
    queue.enqueue("JOBS.a", &vec![0_u8; 3_000], "1").unwrap();
    let full = queue.enqueue("JOBS.b", &vec![0_u8; 3_000], "2");
    assert!(matches!(full, Err(EnqueueError::Full(_))), "{full:?}");
    let worker = Worker::builder(&queue, "worker").retry(never()).build().unwrap();
    work_until(&worker, &pool, |_| Err("no luck"), || queue.is_empty().unwrap());
    assert_eq!(queue.dead_letters_len().unwrap(), 1);
    let alone = JobQueue::builder(&connection, "MORE").replicas(3).open();
    assert!(matches!(alone, Err(QueueError::Rejected(_))), "{alone:?}");
}

#[test]
fn headers_and_payload_of_another_clients_job_live_on_in_its_dead_letter_and_when_it_is_requeued() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    queue.enqueue("jobs.b", "for another worker", "1").unwrap();
    server.say(&with_headers("jobs.a", "Trace: t1\r\nNats-Msg-Id: it-2\r\n", "seven"));
    let (sender, seen) = channel();
    let handler = move |job: &Job| {
        assert_eq!((job.subject(), job.header("Trace"), job.header("None")), ("jobs.a", Some("t1"), None));
        assert!(job.age() < LONG);
        sender.send((job.sequence(), job.id().unwrap().to_owned(), job.decode::<String>().unwrap())).unwrap();
        Err("no luck")
    };
    let next = || seen.recv_timeout(LONG).unwrap();
    for (sequence, id) in [(2, "it-2"), (3, "it-2")] {
        let worker = Worker::builder(&queue, "worker").subject("jobs.a").retry(never()).build().unwrap();
        work_until(&worker, &pool, handler.clone(), || queue.dead_letters_len().unwrap() == 1);
        assert_eq!(next(), (sequence, id.to_owned(), "seven".to_owned()));
        let letter = queue.dead_letters(1).unwrap().remove(0);
        assert_eq!((letter.id(), letter.header("Trace"), letter.subject()), (Some(id), Some("t1"), "jobs.a"));
        assert_eq!(
            (letter.decode::<String>().unwrap(), letter.header("Workcrew-Stream")),
            ("seven".into(), Some("JOBS"))
        );
        queue.requeue(&letter).unwrap();
    }
    assert_eq!(queue.len().unwrap(), 2, "the job that was not started, and the one that was requeued");
}

#[test]
fn a_job_is_given_up_when_its_policy_has_no_time_left_or_no_budget() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    let late = RetryPolicy::fixed(HOUR).timeout(HOUR / 2);
    let poor = RetryPolicy::fixed(Duration::ZERO).budget(RetryBudget::new(0));
    for (policy, reason) in [(late, DeadLetterReason::Deadline), (poor, DeadLetterReason::Budget)] {
        queue.enqueue("jobs.a", "", reason.to_string()).unwrap();
        let worker = Worker::builder(&queue, "worker").retry(policy).build().unwrap();
        work_until(&worker, &pool, |_| Err("no luck"), || queue.is_empty().unwrap());
        let letter = queue.dead_letters(1).unwrap().remove(0);
        assert_eq!((letter.reason(), letter.attempts()), (Some(reason), Some(1)));
        queue.discard_dead_letter(&letter).unwrap();
    }
}

#[test]
fn what_differs_is_told_in_a_sentence() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    drop(JobQueue::builder(&connection, "JOBS").max_jobs(10).open().unwrap());
    let error = JobQueue::builder(&connection, "JOBS").max_jobs(20).in_memory().open().unwrap_err();
    let text =
        "the stream JOBS exists with other settings: max_msgs is Some(10), not Some(20), storage is File, not Memory";
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_the_server_refuses_is_an_error_and_not_tried_for_ever() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let elsewhere = Worker::<String>::builder(&queue, "worker").subject("elsewhere").build().unwrap();
    let refused = elsewhere.run(&pool, |_| Ok(()));
    assert!(matches!(refused, Err(WorkerError::Rejected(_))), "{refused:?}");
    let push = r#"{"stream_name":"JOBS","config":{"durable_name":"pushed","deliver_subject":"there","ack_policy":"explicit"}}"#;
    connection.request("$JS.API.CONSUMER.DURABLE.CREATE.JOBS.pushed", push).unwrap();
    let pushed = Worker::<String>::builder(&queue, "pushed").build().unwrap();
    let refused = pushed.run(&pool, |_| Ok(()));
    assert!(matches!(refused, Err(WorkerError::Rejected(_))), "{refused:?}");
    let large = connection.request("jobs.a", &vec![0_u8; 2 << 20]);
    assert!(matches!(large, Err(PublishError::TooLarge)), "{large:?}");
    let large = connection.publish("jobs.a", &vec![0_u8; 2 << 20]);
    assert!(matches!(large, Err(PublishError::TooLarge)), "{large:?}");
    drop(JobQueue::builder(&connection, "OTHER").subject("other.>").open().unwrap());
    let foreign = queue.enqueue("other.a", "", "1");
    assert!(matches!(foreign, Err(EnqueueError::Rejected(_))), "{foreign:?}");
    let nowhere = connection.request("no such subject", "");
    assert!(matches!(nowhere, Err(PublishError::Invalid(_))), "{nowhere:?}");
    let nowhere = connection.publish("no such subject", "");
    assert!(matches!(nowhere, Err(PublishError::Invalid(_))), "{nowhere:?}");
    connection.request("$JS.API.STREAM.DELETE.JOBS", "").unwrap();
    assert!(matches!(queue.len(), Err(QueueError::Rejected(_))), "{:?}", queue.len());
}

/// A key and its public half, made of the numbers from 0 to 31 for this test.
const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";
const PUBLIC: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";

#[test]
fn each_way_to_log_in_is_taken_or_refused_and_the_last_one_counts() {
    let pool = pool(1);
    if let Some(server) = Server::with_config(&format!("authorization {{ token: {SECRET} }}")) {
        let connection = server.builder().user_and_password("ann", "wrong").token(SECRET).connect(&pool).unwrap();
        assert!(connection.is_connected());
        let refused = server.builder().token(SECRET).token("wrong").connect(&pool);
        assert!(matches!(refused, Err(ConnectError::Refused(_))), "{refused:?}");
    }
    let Some(server) = Server::with_config(&format!("authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}")) else {
        return;
    };
    // The second server of the list is used where there is no first.
    let builder = Connection::builder("127.0.0.1:1").server(server.url());
    assert!(builder.nkey(SEED).connect(&pool).unwrap().is_connected());
    assert!(matches!(server.builder().connect(&pool), Err(ConnectError::Refused(_))));
    let missing = server.builder().credentials_file(server.folder().join("none.creds")).connect(&pool);
    assert!(matches!(missing, Err(ConnectError::Credentials(_))), "{missing:?}");
}

/// What waits for the I/O thread, tried on it: the name of each call, and whether it was refused as it should be.
fn calls_that_wait(
    builder: ConnectionBuilder,
    connection: &Connection,
    queue: &JobQueue,
    pool: &workcrew::WorkerPool,
) -> Vec<(&'static str, bool)> {
    let worker = Worker::<String>::builder(queue, "worker").build().unwrap();
    let opening = JobQueue::builder(connection, "MORE").open();
    vec![
        ("connect", matches!(builder.connect(pool), Err(ConnectError::WouldDeadlock))),
        ("publish", matches!(connection.publish("a", ""), Err(PublishError::WouldDeadlock))),
        ("flush", matches!(connection.flush(), Err(PublishError::WouldDeadlock))),
        ("request", matches!(connection.request("a", ""), Err(PublishError::WouldDeadlock))),
        ("start", matches!(connection.subscribe("a").start(|_| ()), Err(PublishError::WouldDeadlock))),
        ("open", matches!(opening, Err(QueueError::WouldDeadlock))),
        ("enqueue", matches!(queue.enqueue("jobs.a", "", "1"), Err(EnqueueError::WouldDeadlock))),
        ("len", matches!(queue.len(), Err(QueueError::WouldDeadlock))),
        ("dead_letters", matches!(queue.dead_letters(1), Err(QueueError::WouldDeadlock))),
        ("run", matches!(worker.run(pool, |_| Ok(())), Err(WorkerError::WouldDeadlock))),
    ]
}

#[test]
fn on_the_io_thread_each_call_that_would_wait_for_it_is_refused() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    let driver = Driver::new(&pool, 1).unwrap();
    let (builder, own) = (server.builder(), (connection.clone(), queue.clone(), pool.clone()));
    let tried = driver.spawn(async move { calls_that_wait(builder, &own.0, &own.1, &own.2) }).unwrap();
    let wrong: Vec<_> = tried.join().unwrap().into_iter().filter(|(_, is_refused)| !is_refused).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(queue.len().unwrap(), 0, "and elsewhere it all goes on");
}

#[test]
#[cfg(unix)]
fn a_server_that_says_nothing_is_waited_for_so_long_and_no_longer() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.builder().timeout(SHORT).connect(&pool).unwrap();
    let queue = queue(&connection);
    server.freeze();
    let asked = connection.request("a", "");
    assert!(matches!(asked, Err(PublishError::Timeout)), "{asked:?}");
    let enqueued = queue.enqueue("jobs.a", "", "1");
    assert!(matches!(enqueued, Err(EnqueueError::Timeout)), "{enqueued:?}");
    assert!(matches!(queue.len(), Err(QueueError::Unavailable(_))));
    assert!(matches!(queue.dead_letters(1), Err(QueueError::Unavailable(_))));
    let opened = JobQueue::builder(&connection, "MORE").open();
    assert!(matches!(opened, Err(QueueError::Unavailable(_))), "{opened:?}");
    let second = server.builder().timeout(SHORT).connect(&pool);
    assert!(matches!(second, Err(ConnectError::Timeout)), "{second:?}");
    // What is published is held back, up to a limit.
    let held_back = (0..1_000_000).find_map(|_| connection.publish("a", &[0_u8; 4_096]).err());
    assert!(matches!(held_back, Some(PublishError::Timeout)), "{held_back:?}");
    let subscribed = connection.subscribe("a").start(|_| ());
    assert!(matches!(subscribed, Err(PublishError::Timeout)), "{subscribed:?}");
    server.signal("CONT");
    wait_until("it answers again", || queue.enqueue("jobs.a", "", "1").is_ok());
    assert_eq!(queue.len().unwrap(), 1, "what was not confirmed in time was stored all the same, and once");
}

#[test]
#[cfg(unix)]
fn an_outcome_that_the_server_does_not_confirm_is_told_to_be_lost_and_the_job_comes_again() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(server.builder().timeout(SHORT), &pool);
    let queue = queue(&connection);
    queue.enqueue("jobs.a", "", "1").unwrap();
    let worker = Worker::<String>::builder(&queue, "worker").ack_wait(SHORT).build().unwrap();
    let ((started, start), (open, gate)) = (channel(), channel::<()>());
    let gate = Mutex::new(gate);
    let handler = move |job: &Job| {
        started.send(job.attempt().number()).unwrap();
        let _ = gate.lock().unwrap().recv();
        Ok(())
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        assert_eq!(start.recv_timeout(LONG).unwrap(), 1);
        server.freeze();
        drop(open);
        wait_for(&events, |event| matches!(event, Event::AckLost { sequence: 1, .. }));
        server.signal("CONT");
        wait_until("the job is gone", || queue.is_empty().is_ok_and(|is_empty| is_empty));
        worker.drain();
        assert!(run.join().unwrap().drained);
    });
    assert_eq!(queue.dead_letters_len().unwrap(), 0);
}

/// Hears what the worker named `worker` asks the server, by the protocol itself.
struct Spy(BufReader<TcpStream>);

impl Spy {
    fn on(server: &Server) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write!(stream, "CONNECT {{\"verbose\":false}}\r\nSUB $JS.API.CONSUMER.MSG.NEXT.JOBS.worker 1\r\nPING\r\n")
            .unwrap();
        let mut spy = Self(BufReader::new(stream));
        while spy.line() != "PONG" {}
        spy
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the server has hung up");
        line.trim_end().to_owned()
    }

    /// Where the next question is to be answered to, and for how many jobs it asks.
    fn question(&mut self) -> (String, u64) {
        loop {
            let line = self.line();
            if let ["MSG", _, _, reply, _] = line.split(' ').collect::<Vec<_>>()[..] {
                return (reply.to_owned(), figure(&self.line(), "batch").unwrap());
            }
        }
    }
}

/// A worker that runs does its work still, and ends when it is told to.
fn does_a_job_and_drains(queue: &JobQueue, worker: &Worker<String>) {
    queue.enqueue("jobs.a", "", "1").unwrap();
    wait_until("the job is done", || queue.is_empty().unwrap());
    worker.drain();
}

#[test]
fn a_worker_asks_again_when_its_question_has_run_out_and_makes_sense_of_what_it_does_not_know() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(server.builder(), &pool);
    let queue = queue(&connection);
    let worker = Worker::<String>::builder(&queue, "worker").slots(3).build().unwrap();
    let mut spy = Spy::on(&server);
    let status = |reply: &str, words: &str| {
        let headers = format!("NATS/1.0 {words}\r\n\r\n");
        server.say(&format!("HPUB {reply} {0} {0}\r\n{headers}\r\n", headers.len()));
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        let (first, jobs) = spy.question();
        status(&first, "408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 0");
        let (second, again) = spy.question();
        assert_eq!((jobs, again, first == second), (3, 3, false));
        server.say(&format!("PUB {second} 0\r\n\r\n"));
        let complaint = wait_for(&events, |event| matches!(event, Event::Warning(_)));
        assert_eq!(complaint.to_string(), "a message arrived that is not a job");
        status(&second, "499 Out Of Cheese");
        let failure = wait_for(&events, |event| matches!(event, Event::ConsumerFailed { .. })).to_string();
        assert!(failure.contains("499") && failure.ends_with("Out Of Cheese"), "{failure}");
        wait_for(&events, |event| matches!(event, Event::ConsumerReady { .. }));
        does_a_job_and_drains(&queue, &worker);
        assert!(run.join().unwrap().drained);
    });
}

#[test]
#[cfg(unix)]
fn a_worker_tells_that_it_hears_nothing_of_its_server_and_goes_on_when_it_does() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(server.builder(), &pool);
    let queue = queue(&connection);
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    let is_ready = |event: &Event| matches!(event, Event::ConsumerReady { .. });
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        wait_for(&events, is_ready);
        server.freeze();
        let event = wait_for(&events, |event| matches!(event, Event::ConsumerFailed { .. }));
        assert!(event.to_string().contains("the server is silent"), "{event}");
        server.signal("CONT");
        wait_for(&events, is_ready);
        does_a_job_and_drains(&queue, &worker);
        assert!(run.join().unwrap().drained);
    });
}

#[test]
#[cfg(unix)]
fn what_the_server_complains_of_and_that_it_will_end_is_told() {
    let user = "user: ann, password: secret, permissions: { publish: \"open.>\", subscribe: \">\" }";
    let Some(server) = Server::with_config(&format!("authorization {{ users: [ {{ {user} }} ] }}")) else { return };
    let pool = pool(1);
    let (connection, events) = observed(server.builder().user_and_password("ann", "secret"), &pool);
    connection.publish("closed.a", "").unwrap();
    let complaint = wait_for(&events, |event| matches!(event, Event::Denied(_))).to_string();
    assert!(complaint.to_lowercase().contains("permissions violation"), "{complaint}");
    server.signal("USR2");
    wait_for(&events, |event| *event == Event::LameDuck);
}

#[test]
fn a_subscription_that_takes_its_messages_too_slowly_is_told_of() {
    /// More than the client keeps for a subscription.
    const MESSAGES: usize = 70_000;
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let (connection, events) = observed(server.builder(), &pool);
    let (_open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let listening = connection.subscribe("flood").concurrent(1).start(move |_| {
        let _ = gate.lock().unwrap().recv();
    });
    let _subscription = listening.unwrap();
    let asked = connection.request("nobody", ""); // when this is answered the server knows of the subscription
    assert!(matches!(asked, Err(PublishError::NoResponders)), "{asked:?}");
    server.say(&"PUB flood 0\r\n\r\n".repeat(MESSAGES));
    wait_for(&events, |event| *event == Event::SlowConsumer);
}
