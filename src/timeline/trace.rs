//! Writes spans in the trace event format.
//!
//! The format is described in "Trace Event Format" by the Chromium project. Times are microseconds.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::spans::{Span, Track, queue_lengths};
use crate::observe::task_info::TaskOutcome;

/// The process of all events.
const PROCESS: u64 = 1;

/// Writes all spans as one JSON object. It is written event by event, so that it takes no memory of
/// its own.
pub(super) fn write(tracks: &[Track], mut to: impl Write) -> io::Result<()> {
    to.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")?;
    let process = json!({"name": "process_name", "ph": "M", "pid": PROCESS, "args": {"name": "workcrew"}});
    serde_json::to_writer(&mut to, &process)?;
    let names = tracks.iter().map(|track| thread_name(track.worker));
    let spans = tracks.iter().flat_map(|track| track.spans.iter().flat_map(|span| events(track.worker, span)));
    let lengths = queue_lengths(tracks).into_iter().map(|(time, queued)| queue_length(time, queued));
    for event in names.chain(spans).chain(lengths) {
        to.write_all(b",\n")?;
        serde_json::to_writer(&mut to, &event)?;
    }
    to.write_all(b"\n]}\n")?;
    to.flush()
}

/// Returns the number of a thread in the trace: workers count from one.
fn thread(worker: Option<usize>) -> usize {
    worker.map_or(0, |index| index + 1)
}

fn thread_name(worker: Option<usize>) -> Value {
    let name = worker.map_or_else(|| "other threads".to_owned(), |index| format!("worker {index}"));
    json!({"name": "thread_name", "ph": "M", "pid": PROCESS, "tid": thread(worker), "args": {"name": name}})
}

/// Returns the events of a span: one for a worker, on which spans nest. The spans of other threads
/// may overlap, so each has an asynchronous begin and end.
fn events(worker: Option<usize>, span: &Span) -> Vec<Value> {
    let mut begin = json!({
        "name": span.name(),
        "cat": "task",
        "ph": "X",
        "ts": microseconds(span.start),
        "pid": PROCESS,
        "tid": thread(worker),
        "args": {
            "task": span.id.to_string(),
            "submitted at": span.location.to_string(),
            "outcome": outcome(span.outcome),
            "queue wait in µs": microseconds(span.queue_wait),
        },
    });
    if worker.is_some() {
        begin["dur"] = microseconds(span.run_time).into();
        return vec![begin];
    }
    (begin["ph"], begin["id"]) = ("b".into(), span.id.to_string().into());
    let mut end = begin.clone();
    (end["ph"], end["ts"]) = ("e".into(), microseconds(span.end()).into());
    vec![begin, end]
}

fn queue_length(time: Duration, queued: u64) -> Value {
    json!({"name": "queued tasks", "ph": "C", "ts": microseconds(time), "pid": PROCESS, "args": {"queued": queued}})
}

/// Returns the text for an outcome, `None` for a failed attempt.
pub(super) fn outcome(outcome: Option<TaskOutcome>) -> String {
    outcome.map_or_else(|| "attempt failed".to_owned(), |outcome| outcome.to_string())
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}
