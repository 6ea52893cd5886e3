//! What a user hands over is checked at the edge: odd values at every entry point, against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nats_common;

use std::fs;
use std::sync::mpsc::channel;
use std::time::Duration;

use nats_common::{LONG, Server, is_refused, pool, queue};
use workcrew::WorkerPool;
use workcrew::nats::{
    ConnectError, Connection, DeadLetterQuery, Headers, JobQueue, NewJob, StreamSettings, Worker, WorkerError,
};

/// Strings that no subject, name, id or header may be; `LONG_ONE` stands for 64 KiB.
const ODD: [&str; 14] = [
    "",
    " ",
    "a b",
    "a\r\nPUB x 0\r\n",
    "\r",
    "\n",
    "a\0b",
    "\u{7f}",
    "a\tb",
    " a",
    "a ",
    "a\u{85}b",
    "\u{2028}\u{0}",
    LONG_ONE,
];
const LONG_ONE: &str = "LONG";

/// Odd as a subject, a filter or a name only.
const ODD_WORDS: [&str; 7] = [".", ".a", "a.", "a..b", "a*", "a.>.b", ">.a"];

fn odd(more: &[&'static str]) -> Vec<String> {
    let all = ODD.iter().chain(more);
    all.map(|text| if *text == LONG_ONE { "x".repeat(64 << 10) } else { (*text).to_owned() }).collect()
}

/// A connection that hears every message of the server, and one that is used.
fn watched(server: &Server, pool: &WorkerPool) -> (Connection, std::sync::mpsc::Receiver<String>, impl Sized) {
    let watch = server.connect(pool);
    let (sender, heard) = channel();
    let listening = watch.subscribe(">").start(move |message| {
        let _ = sender.send(message.subject().to_owned());
    });
    (server.connect(pool), heard, (listening.unwrap(), watch))
}

/// Whether nothing was sent on the connection but what begins with `_INBOX` or is in `but`.
#[track_caller]
fn nothing_was_sent(connection: &Connection, heard: &std::sync::mpsc::Receiver<String>) {
    connection.publish("the.end", "").unwrap();
    connection.flush().unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), "the.end", "nothing was sent before");
}

/// Fault 213.
#[test]
fn an_odd_subject_is_refused_by_name_and_never_sent() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let setup = server.connect(&pool);
    let jobs = queue(&setup);
    let (connection, heard, _watch) = watched(&server, &pool);
    let _ = heard.recv_timeout(Duration::from_millis(200)); // the handshake of the watch itself
    let headers = Headers::new().append("Trace", "t1");
    let publisher = connection.publisher();
    for text in odd(&[&ODD_WORDS[..], &["*", ">", "a.*"]].concat()) {
        is_refused("publish", &text, "subject", connection.publish(&text, ""));
        is_refused("publisher", &text, "subject", publisher.publish(&text, ""));
        is_refused("publish", &text, "subject", connection.publish_with_headers(&text, &headers, ""));
        is_refused("request", &text, "subject", connection.request(&text, ""));
        is_refused("request", &text, "subject", connection.request_with_headers(&text, &headers, ""));
        is_refused("enqueue", &text, "subject", jobs.enqueue(&text, "", "1"));
        is_refused("enqueue", &text, "subject", jobs.enqueue_with_headers(&text, &headers, "", "1"));
        let job = NewJob::new(&*text, "", "1").unwrap();
        is_refused("enqueue_all", &text, "subject", jobs.enqueue_all([job]).remove(0));
        let opening = JobQueue::builder(&connection, "MORE").dead_letters(&*text).open();
        is_refused("open", &text, "dead_letters", opening);
    }
    is_refused("enqueue", "$", "subject", jobs.enqueue("$JS.API.STREAM.DELETE.JOBS", "", "1"));
    for text in odd(&ODD_WORDS) {
        is_refused("subscribe", &text, "subject", connection.subscribe(&text).start(|_| ()));
        is_refused("open", &text, "subject", JobQueue::builder(&connection, "MORE").subject(&*text).open());
        is_refused("plan", &text, "subject", JobQueue::builder(&connection, "MORE").subject(&*text).plan());
        let worker = Worker::<String>::builder(&jobs, "worker").subject("jobs.a").subject(&*text).build();
        is_refused("worker", &text, "subject", worker);
        let mut query = DeadLetterQuery::default();
        query.subject = Some(text.clone());
        is_refused("dead letters", &text, "subject", jobs.find_dead_letters(&query));
    }
    nothing_was_sent(&connection, &heard);
    assert_eq!(jobs.len().unwrap(), 0);
}

/// Fault 214.
#[test]
fn odd_ids_headers_and_groups_are_refused_by_name_and_never_sent() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let setup = server.connect(&pool);
    let jobs = queue(&setup);
    let (connection, heard, _watch) = watched(&server, &pool);
    let _ = heard.recv_timeout(Duration::from_millis(200));
    for text in odd(&[]) {
        if !text.contains("a b") {
            is_refused("enqueue", &text, "id", jobs.enqueue("jobs.a", "", &text));
            let job = NewJob::new("jobs.a", "", &*text).unwrap();
            is_refused("enqueue_all", &text, "id", jobs.enqueue_all([job]).remove(0));
        }
        let named = Headers::new().append(&*text, "value");
        is_refused("publish", &text, "header name", connection.publish_with_headers("a", &named, ""));
        is_refused("request", &text, "header name", connection.request_with_headers("a", &named, ""));
        is_refused("enqueue", &text, "header name", jobs.enqueue_with_headers("jobs.a", &named, "", "1"));
        if !text.is_empty() && text != "a b" {
            let valued = Headers::new().append("Name", &*text);
            let field = if text.len() > 60_000 { "headers" } else { "header value" };
            is_refused("publish", &text, field, connection.publish_with_headers("a", &valued, ""));
            is_refused("enqueue", &text, field, jobs.enqueue_with_headers("jobs.a", &valued, "", "1"));
        }
        is_refused("group", &text, "group", connection.subscribe("a").group(&*text).start(|_| ()));
    }
    for name in ["Nats-Msg-Id", "nats-rollup", "Workcrew-Id"] {
        let reserved = Headers::new().append(name, "x");
        is_refused("enqueue", name, "header name", jobs.enqueue_with_headers("jobs.a", &reserved, "", "1"));
    }
    let too_many = connection.subscribe("a").concurrent(usize::MAX).start(|_| ());
    is_refused("subscribe", "MAX", "concurrent", too_many);
    nothing_was_sent(&connection, &heard);
    assert_eq!(jobs.len().unwrap(), 0);
}

/// Fault 215.
#[test]
fn odd_names_and_limits_of_queues_and_workers_are_refused_by_name_and_never_sent() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let setup = server.connect(&pool);
    let jobs = queue(&setup);
    let (connection, heard, _watch) = watched(&server, &pool);
    let _ = heard.recv_timeout(Duration::from_millis(200));
    for text in odd(&[&ODD_WORDS[..], &["*", ">", "a/b", "a\\b", "a.b"]].concat()) {
        is_refused("open", &text, "name of the queue", JobQueue::builder(&connection, &text).open());
        is_refused("worker", &text, "name of the worker", Worker::<String>::builder(&jobs, &*text).build());
    }
    let builder = || JobQueue::builder(&connection, "MORE");
    for time in [Duration::ZERO, Duration::from_millis(1), Duration::MAX, Duration::from_secs(1 << 40)] {
        is_refused("open", "age", "max_age", builder().max_age(time).open());
        is_refused("open", "window", "duplicate_window", builder().duplicate_window(time).open());
    }
    let window = builder().max_age(Duration::from_secs(1)).duplicate_window(Duration::from_secs(2));
    is_refused("open", "window", "duplicate_window", window.open());
    is_refused("open", "0", "max_jobs", builder().max_jobs(0).open());
    is_refused("open", "0", "max_bytes", builder().max_bytes(0).open());
    for replicas in [0, 6, usize::MAX] {
        is_refused("open", "replicas", "replicas", builder().replicas(replicas).open());
    }
    let mut settings = StreamSettings::default();
    settings.max_job_bytes = Some(0);
    is_refused("open", "0", "max_job_bytes", builder().stream_settings(settings).open());
    let mut settings = StreamSettings::default();
    settings.max_jobs_per_subject = Some(0);
    is_refused("open", "0", "max_jobs_per_subject", builder().stream_settings(settings).open());
    let many = Worker::<String>::builder(&jobs, "worker").slots(usize::MAX).build();
    is_refused("worker", "MAX", "slots", many);
    nothing_was_sent(&connection, &heard);
}

/// Fault 216.
#[test]
fn limits_as_large_as_can_be_are_taken_and_found_again() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    for _ in 0..2 {
        let builder = JobQueue::builder(&connection, "LARGE").max_jobs(u64::MAX);
        let ages = builder.max_age(Duration::from_secs(3_600)).duplicate_window(Duration::from_millis(100));
        drop(ages.open().unwrap());
        // The default window is two minutes; an age that is shorter shortens it.
        drop(JobQueue::builder(&connection, "SHORT").max_age(Duration::from_secs(1)).open().unwrap());
    }
}

/// Fault 217.
#[test]
fn odd_settings_of_a_connection_are_refused_by_name_without_a_server() {
    let pool = pool(1);
    for address in ["", " ", "a b", "nats://", "http://127.0.0.1", "ws://127.0.0.1", "127.0.0.1:99999", "a\nb", "[::1"]
    {
        is_refused("connect", address, "address", Connection::builder(address).connect(&pool));
        let second = Connection::builder("127.0.0.1:1").server(address).connect(&pool);
        is_refused("connect", address, "address", second);
    }
    let builder = || Connection::builder("127.0.0.1:1");
    for text in odd(&[&ODD_WORDS[..], &["*", ">"]].concat()) {
        is_refused("connect", &text, "inbox_prefix", builder().inbox_prefix(&*text).connect(&pool));
        is_refused("connect", &text, "jetstream_domain", builder().jetstream_domain(&*text).connect(&pool));
        let prefixed = builder().jetstream_api_prefix(&*text).connect(&pool);
        is_refused("connect", &text, "jetstream_api_prefix", prefixed);
    }
    is_refused("connect", "name", "name", builder().name("a\r\nb").connect(&pool));
    is_refused("connect", "seed", "nkey", builder().nkey("hush").connect(&pool));
    let never = builder().ping_interval(Duration::ZERO).connect(&pool);
    is_refused("connect", "ping", "ping_interval", never);
    for (text, secret) in [("nats://user:hush@[::1", "hush"), ("http://user:hush@host", "hush")] {
        let error = Connection::builder(text).connect(&pool).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}

/// Fault 218.
#[test]
fn a_file_or_text_without_a_certificate_is_told_and_not_taken_for_none() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let junk = server.folder().join("junk.pem");
    fs::write(&junk, "hush, this is no certificate").unwrap();
    let missing = server.folder().join("missing.pem");
    let half = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let tries = [
        server.builder().root_certificates(&junk),
        server.builder().root_certificates(&missing),
        server.builder().root_certificates_pem(""),
        server.builder().root_certificates_pem(half),
        server.builder().client_certificate(&junk, &junk),
        server.builder().client_certificate_pem(half, "no key"),
    ];
    for builder in tries {
        let refused = builder.connect(&pool);
        assert!(matches!(refused, Err(ConnectError::Certificate { .. })), "{refused:?}");
        assert!(!format!("{refused:?}").contains("hush"));
    }
    for text in ["", "no credentials"] {
        let refused = server.builder().credentials(text).connect(&pool);
        assert!(matches!(refused, Err(ConnectError::Credentials(_))), "{refused:?}");
    }
}

/// Fault 219.
#[test]
fn a_filter_that_the_queue_does_not_have_ends_the_run_with_an_error() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let queue = queue(&server.connect(&pool));
    for filter in ["other.x", "other.>"] {
        let worker = Worker::<String>::builder(&queue, "worker").subject(filter).build().unwrap();
        let ended = worker.run(&pool, |_| Ok(()));
        assert!(matches!(ended, Err(WorkerError::Rejected(_))), "{filter}: {ended:?}");
    }
}
