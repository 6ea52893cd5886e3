//! Calls everything else that the crate offers, all day and through the bad network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use workcrew::nats::{Connection, JobQueue};

use crate::calls::{Calls, allowed};

/// Between two calls.
const PAUSE: Duration = Duration::from_millis(20);

/// Makes calls in the order of the seed until the day is over. They may fail, but not hang.
pub(crate) fn run(connection: &Connection, queue: &JobQueue, calls: &Calls, seed: u64, is_over: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !is_over.load(Ordering::SeqCst) {
        match random.u8(..7) {
            0 => drop(calls.time("len", allowed(1), || queue.len())),
            1 => drop(calls.time("dead_letters_len", allowed(1), || queue.dead_letters_len())),
            2 => drop(dead_letters(queue, calls)),
            3 => drop(calls.time("publish", allowed(1), || connection.publish("drill-news", "x"))),
            4 => drop(calls.time("flush", allowed(1), || connection.flush())),
            5 => drop(calls.time("request", allowed(1), || connection.request("$JS.API.INFO", ""))),
            _ => drop(calls.time("request, no responder", allowed(1), || connection.request("drill-nothing", ""))),
        }
        thread::sleep(PAUSE);
    }
}

/// Reads the dead letters. A page of them takes four answers: a reader is made, a page and an empty
/// page are read, and the reader is deleted.
pub(crate) fn dead_letters(
    queue: &JobQueue,
    calls: &Calls,
) -> Result<Vec<workcrew::nats::DeadLetter>, workcrew::nats::QueueError> {
    calls.time("dead_letters", allowed(4), || queue.dead_letters(60))
}
