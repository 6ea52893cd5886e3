//! A trace that begins in a client is one tree over everything that carries it on: tasks, groups, timers, retries, events,
//! jobs of NATS in another process, and calls of gRPC.
//!
//! The worker process is this very program, called again. Spans have ids of their own process, so the number of the process
//! is part of what is sent. The hooks that write and read `traceparent` are what a user's tracing library brings along.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "../../tests/nats_common/mod.rs"]
mod nats_common;
#[path = "../../tests/common/spans.rs"]
mod spans;

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{caller, with_watchdog};
use nats_common::{Server, queue, work_until};
use spans::spans;
use tonic::Request;
use tracing::{Span, info_span};
use workcrew::events::EventBus;
use workcrew::nats::{Connection, JobQueue, Worker};
use workcrew::retry::{Attempt, RetryPolicy};
use workcrew::{WorkerPool, WorkerPoolBuilder};
use workcrew_interop::{RawClient, Script};

const CLIENT: u16 = 1;
const WORKER: u16 = 2;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SOON: Duration = Duration::from_millis(1);

/// A span of any process: `PROCESS:ID`.
type Place = (u16, u64);

/// A pool whose tasks have spans, and that writes and reads `traceparent`.
fn traced(process: u16) -> WorkerPoolBuilder {
    let _ = spans();
    let builder = WorkerPool::builder().workers(2).tracing(true);
    builder
        .inject(move |set| {
            let Some(id) = Span::current().id() else { return };
            let seen = spans().get(id.into_u64());
            let root = spans().ancestors(&seen).pop().unwrap_or(seen);
            set("traceparent", &format!("00-{}-{process:04x}{:012x}-01", root.field("trace"), id.into_u64()));
        })
        .extract(|headers| {
            let sent = headers.iter().find(|(name, _)| *name == "traceparent");
            let span = match sent.and_then(|(_, value)| parse(value)) {
                Some((trace, (process, id))) => info_span!(parent: None, "message", trace, process, id),
                None => Span::none(),
            };
            move |run| span.in_scope(run)
        })
}

/// Reads a `traceparent`; `None` if it is none.
fn parse(value: &str) -> Option<(&str, Place)> {
    let parts: Vec<_> = value.split('-').collect();
    let &["00", trace, span, _flags] = parts.as_slice() else { return None };
    let is_hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex(trace, 32) || !is_hex(span, 16) {
        return None;
    }
    Some((trace, (u16::from_str_radix(&span[..4], 16).ok()?, u64::from_str_radix(&span[4..], 16).ok()?)))
}

/// The spans of this process: where they are, what they are below, and their names.
fn report(process: u16) -> Vec<(Place, Option<Place>, String)> {
    let all = spans().all().into_iter().filter(|(_, seen)| seen.is_span());
    let entry = |(id, seen): (u64, spans::Seen)| {
        let remote = || Some((seen.field("process").parse().ok()?, seen.field("id").parse().ok()?));
        let parent = match seen.name() {
            "message" => remote(),
            _ => seen.parent.map(|parent| (process, parent)),
        };
        ((process, id), parent, seen.name().to_owned())
    };
    all.map(entry).collect()
}

/// Not a test: what the worker process does, until the job is done.
#[test]
fn works_when_it_is_called_again() {
    let Ok(url) = env::var("WORKCREW_TEST_URL") else { return };
    let address = env::var("WORKCREW_TEST_ADDRESS").unwrap().parse().unwrap();
    let pool = traced(WORKER).build().unwrap();
    let queue = queue(&Connection::builder(url).connect(&pool).unwrap());
    let caller = caller(address).build(&pool).unwrap();
    let worker = Worker::<String>::builder(&queue, "worker").build().unwrap();
    let answer = Arc::new(Mutex::new(String::new()));
    let answered = Arc::clone(&answer);
    let handler = move |_: &workcrew::nats::Job| {
        let trace =
            |target| async { RawClient::new(target).call("Trace", Request::new("key traceparent".to_owned())).await };
        let response = caller.call_blocking(trace).map_err(|error| error.to_string())?;
        *answered.lock().unwrap() = response.into_inner();
        Ok(())
    };
    work_until(&worker, &pool, handler, || queue.is_empty().unwrap());
    let mut out = io::stderr().lock(); // past the harness
    for ((process, id), parent, name) in report(WORKER) {
        let (of, parent) = parent.unwrap_or_default();
        writeln!(out, "SPAN {process} {id} {of} {parent} {name}").unwrap();
    }
    let (trace, (process, id)) = parse(&answer.lock().unwrap()).map(|(trace, at)| (trace.to_owned(), at)).unwrap();
    assert_eq!(trace, TRACE);
    writeln!(out, "SPAN 3 1 {process} {id} server").unwrap();
}

/// Runs the worker process to its end, and returns its spans.
fn run_worker(url: &str, address: &str) -> Vec<(Place, Option<Place>, String)> {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "works_when_it_is_called_again", "--nocapture", "--test-threads=1"])
        .env("WORKCREW_TEST_URL", url)
        .env("WORKCREW_TEST_ADDRESS", address)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let entry = |line: &str| {
        let words: Vec<_> = line.strip_prefix("SPAN ")?.split(' ').collect();
        let place = |at: usize| (words[at].parse().unwrap(), words[at + 1].parse().unwrap());
        Some((place(0), Some(place(2)).filter(|(process, _)| *process > 0), words[4].to_owned()))
    };
    told.lines().filter_map(entry).collect()
}

/// An order was placed.
struct Placed;

/// Has a task enqueue a job behind a group, a timer, a retry and an event.
fn place_order(pool: &WorkerPool, bus: &EventBus) {
    let group = pool.group();
    let (own, bus) = (pool.clone(), bus.clone());
    group.spawn(move || {
        let (late, bus) = (own.clone(), bus.clone());
        let delayed = own.spawn_after(SOON, move || {
            let attempt = move |attempt: Attempt| {
                if !attempt.is_last() {
                    return Err("again");
                }
                bus.publish(Placed);
                Ok(())
            };
            let policy = RetryPolicy::fixed(SOON).max_attempts(2);
            late.spawn_with_retry(policy, attempt).unwrap().join().unwrap().unwrap();
        });
        delayed.unwrap().join().unwrap();
    });
    group.wait().unwrap();
}

/// Fault 529.
#[test]
fn a_trace_is_one_tree_over_tasks_events_two_processes_and_calls() {
    if env::var_os("WORKCREW_TEST_URL").is_some() {
        return;
    }
    let has_server = || Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if env::var_os("NATS_SERVER_BIN").is_none() && !has_server() {
        let _ = writeln!(io::stderr(), "SKIPPED: nats-server is not there; install it or set NATS_SERVER_BIN");
        return;
    }
    with_watchdog(|| {
        let Some(server) = Server::start() else { return };
        let called = workcrew_interop::Server::start(&Script::default());
        let pool = traced(CLIENT).build().unwrap();
        let jobs: JobQueue = queue(&server.connect(&pool));
        let bus = EventBus::new(&pool);
        let _mail = bus.subscribe(move |_: &Placed| _ = jobs.enqueue("jobs.mail", "hello", "1").unwrap());
        let client = info_span!("client", trace = TRACE);
        let (own, events) = (pool.clone(), bus.clone());
        client.in_scope(|| pool.spawn(move || place_order(&own, &events))).unwrap().join().unwrap();
        bus.wait_idle();
        let mut found = report(CLIENT);
        found.extend(run_worker(&server.url(), &called.address().to_string()));
        let tree: BTreeMap<_, _> = found.into_iter().map(|(at, parent, name)| (at, (parent, name))).collect();
        let root = (CLIENT, client.id().unwrap().into_u64());
        // Every span of both processes belongs to the trace.
        for at in tree.keys() {
            let mut path = std::iter::successors(Some(*at), |at| tree[at].0);
            assert_eq!(path.by_ref().last(), Some(root), "{at:?}");
        }
        let path = std::iter::successors(Some((3, 1)), |at| tree[at].0);
        let names: Vec<_> = path.map(|at| tree[&at].1.as_str()).collect();
        // The server, its call, the handler, the message; the delivery, the retried, the delayed, the group's and the
        // first task; the client.
        let tasks = |number| std::iter::repeat_n("task", number);
        let wanted = ["server"].into_iter().chain(tasks(2)).chain(["message"]).chain(tasks(5)).chain(["client"]);
        assert_eq!(names, wanted.collect::<Vec<_>>());
    });
}
