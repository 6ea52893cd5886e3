//! Times each call through the crate, and ends a drill that hangs.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::env;
use std::fmt::Display;
use std::fs::{self, File};
use std::process::{self, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::jobs;
use crate::process::kill_all;

/// How long a call may take beyond its time-out.
const GRACE: Duration = Duration::from_secs(1);
/// How long after that it counts as hanging.
const HANGS: Duration = Duration::from_secs(15);
/// How long a debugger may take to print stacks.
const DEBUGGER_SECONDS: &str = "40";

/// Returns how long a call may take that waits for this many answers of the server, one after the
/// other.
pub(crate) fn allowed(answers: u32) -> Duration {
    jobs::CALL_TIMEOUT * answers + GRACE
}

/// All calls of this process through the crate.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, OpenCall>,
    done: BTreeMap<String, Tally>,
}

#[derive(Debug)]
struct OpenCall {
    name: &'static str,
    since: Instant,
    allowed: Duration,
    stack: Backtrace,
}

/// The numbers of the calls of one name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    pub(crate) longest: Duration,
    /// Those that took longer than allowed.
    pub(crate) late: usize,
    pub(crate) allowed: Duration,
}

impl Calls {
    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a call.
    pub(crate) fn time<T, E>(
        &self,
        name: &'static str,
        allowed: Duration,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let (since, stack) = (Instant::now(), Backtrace::force_capture());
        let number = self.state(|state| {
            state.next += 1;
            state.open.insert(state.next, OpenCall { name, since, allowed, stack });
            state.next
        });
        let result = call();
        self.state(|state| drop(state.open.remove(&number)));
        self.add(name, since.elapsed(), allowed, result.is_err());
        result
    }

    /// Counts a call that was made elsewhere.
    pub(crate) fn add(&self, name: &str, took: Duration, allowed: Duration, failed: bool) {
        self.state(|state| {
            let tally = state.done.entry(name.to_owned()).or_default();
            tally.calls += 1;
            tally.failed += usize::from(failed);
            tally.late += usize::from(took > allowed);
            tally.longest = tally.longest.max(took);
            tally.allowed = allowed;
        });
    }

    pub(crate) fn tallies(&self) -> BTreeMap<String, Tally> {
        self.state(|state| state.done.clone())
    }

    /// Describes the calls that are under way: their names, their ages, and where they were made.
    fn under_way(&self, only_hanging: bool) -> Vec<String> {
        self.state(|state| {
            let calls = state.open.values().filter(|call| !only_hanging || call.since.elapsed() > call.allowed + HANGS);
            calls
                .map(|call| format!("{} since {:?}, called from\n{}", call.name, call.since.elapsed(), call.stack))
                .collect()
        })
    }
}

/// Ends the whole drill as failed when a call hangs, or when it takes longer than `limit`. Runs
/// until `is_over` says so.
pub(crate) fn watch(calls: &Calls, limit: Duration, replay: &impl Display, is_over: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_over() {
        thread::sleep(Duration::from_millis(100));
        let hanging = calls.under_way(true);
        if hanging.is_empty() && since.elapsed() < limit {
            continue;
        }
        println!("VIOLATION: after {:?} the drill is not over; limit {limit:?}", since.elapsed());
        let shown = if hanging.is_empty() { calls.under_way(false) } else { hanging };
        println!("{} calls are under way", shown.len());
        shown.iter().for_each(|call| println!("{call}"));
        print_stacks();
        println!("replay: {replay}\n0 passed, 1 failed");
        kill_all();
        process::exit(1);
    }
}

/// Prints the stack of each thread, if there is a debugger. It writes to a file, since it holds up
/// this process, which could not empty a pipe meanwhile.
fn print_stacks() {
    let path = env::temp_dir().join(format!("nats-drill-{}.stacks", process::id()));
    let Ok(file) = File::create(&path) else { return };
    let id = process::id().to_string();
    let debugger = Command::new("timeout")
        .args(["-s", "KILL", DEBUGGER_SECONDS, "gdb", "-nx", "-p", &id, "-batch"])
        .args(["-iex", "set debuginfod enabled off", "-ex", "thread apply all backtrace 30"])
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null())
        .status();
    println!("{}", fs::read_to_string(&path).unwrap_or_default());
    match debugger {
        Ok(status) if status.success() => {}
        Ok(status) => println!("the debugger did not show every stack: {status}"),
        Err(error) => println!("no debugger shows the other stacks: {error}"),
    }
    let _ = fs::remove_file(path);
}
