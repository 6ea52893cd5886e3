//! The worker processes, one of which is killed each second.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::record;

/// How many worker processes there are at a time.
pub(crate) const PROCESSES: usize = 3;
/// There is a kill in each of these, at a moment that the seed determines. Kills at equal distances
/// would keep step with `ack_wait`, and hit the same jobs again and again.
const KILL_IN_EACH: Duration = Duration::from_secs(1);
/// How soon the end of the day is noticed.
const LOOK: Duration = Duration::from_millis(50);
const SIGKILL: i32 = 9;

/// How a worker process ended before the evening.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) process: usize,
    pub(crate) at: u64,
    /// Whether the drill killed it; otherwise it ended by itself.
    pub(crate) was_killed: bool,
    pub(crate) status: ExitStatus,
}

/// All worker processes. One that has ended is replaced.
#[derive(Debug)]
pub(crate) struct Crew {
    urls: String,
    folder: PathBuf,
    processes: Vec<(usize, Process)>,
    started: usize,
    pub(crate) endings: Vec<Ending>,
}

impl Crew {
    pub(crate) fn start(urls: String, folder: &Path) -> io::Result<Self> {
        let mut crew = Self { urls, folder: folder.to_owned(), processes: Vec::new(), started: 0, endings: Vec::new() };
        for _ in 0..PROCESSES {
            let process = crew.start_one()?;
            crew.processes.push(process);
        }
        Ok(crew)
    }

    fn start_one(&mut self) -> io::Result<(usize, Process)> {
        self.started += 1;
        let journal = self.folder.join(record::journal_of(self.started));
        let mut command = Command::new(env::current_exe()?);
        command.args(["work", &self.urls]).arg(journal).stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::create(words_of(&self.folder, self.started))?);
        Ok((self.started, Process::start(&mut command)?))
    }

    /// Kills one and starts another in its place.
    fn kill(&mut self, index: usize) -> io::Result<()> {
        let status = self.processes[index].1.kill()?;
        self.replace(index, status)
    }

    fn replace(&mut self, index: usize, status: ExitStatus) -> io::Result<()> {
        let next = self.start_one()?;
        let (process, _) = std::mem::replace(&mut self.processes[index], next);
        // A worker that had ended before the kill has another status.
        let was_killed = status.signal() == Some(SIGKILL);
        self.endings.push(Ending { process, at: record::now(), was_killed, status });
        Ok(())
    }

    /// Replaces those that have ended by themselves.
    pub(crate) fn replace_ended(&mut self) -> io::Result<()> {
        for index in 0..self.processes.len() {
            if let Some(status) = self.processes[index].1.wait_for(Duration::ZERO)? {
                self.replace(index, status)?;
            }
        }
        Ok(())
    }

    /// Tells all to end, by SIGTERM. Returns those that had not ended in time, or not well.
    pub(crate) fn end(&mut self, limit: Duration) -> io::Result<Vec<usize>> {
        for (_, process) in &self.processes {
            process.send("TERM")?;
        }
        let (since, mut failed) = (Instant::now(), Vec::new());
        for (number, process) in &mut self.processes {
            let status = process.wait_for(limit.saturating_sub(since.elapsed()))?;
            if !status.is_some_and(|status| status.success()) {
                failed.push(*number);
            }
        }
        self.processes.clear();
        Ok(failed)
    }
}

/// Where a worker process writes its last words.
pub(crate) fn words_of(folder: &Path, process: usize) -> PathBuf {
    folder.join(format!("{process}.stderr"))
}

pub(crate) fn lock(crew: &Mutex<Crew>) -> MutexGuard<'_, Crew> {
    crew.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a worker process each second, until `is_over` says so.
pub(crate) fn kill_each_second(crew: &Mutex<Crew>, seed: u64, is_over: impl Fn() -> bool) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (since, mut second) = (Instant::now(), 0);
    while !is_over() {
        let at = since + KILL_IN_EACH * second + KILL_IN_EACH.mul_f64(random.f64());
        let victim = random.usize(..PROCESSES);
        while !is_over() && Instant::now() < at {
            thread::sleep(at.saturating_duration_since(Instant::now()).min(LOOK));
        }
        let mut crew = lock(crew);
        crew.replace_ended()?;
        crew.kill(victim)?;
        second += 1;
    }
    Ok(())
}
