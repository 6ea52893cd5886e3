//! The worker processes, one of which is killed or drained each second.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::jobs;
use crate::process::Process;
use crate::record;

/// How many worker processes there are at a time.
pub(crate) const PROCESSES: usize = 3;
/// There is a kill in each of these, at a moment that the seed determines. Kills at equal distances
/// would keep step with `ack_wait`, and hit the same jobs again and again.
const KILL_IN_EACH: Duration = Duration::from_secs(1);
/// How soon the end of the day is noticed.
const LOOK: Duration = Duration::from_millis(50);
/// The share of seconds in which a worker is drained instead.
const DRAINS: f64 = 0.25;
/// How long a worker may take to end that is drained: its drain, its pool, and its connection.
const DRAIN_END: Duration = jobs::DRAIN_TIMEOUT.saturating_add(Duration::from_secs(5));
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// How a worker process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The drill killed it.
    Killed,
    /// The drill sent SIGTERM, and it ended well and in time.
    Drained,
    /// The drill sent SIGTERM, and it did not.
    DrainedBadly,
    ByItself,
}

/// A worker process.
#[derive(Debug)]
struct Member {
    number: usize,
    process: Process,
    /// When it was told to end.
    drained_at: Option<Instant>,
}

/// How a worker process ended before the evening.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) process: usize,
    pub(crate) at: u64,
    pub(crate) how: How,
    pub(crate) status: ExitStatus,
}

/// All worker processes. One that has ended is replaced. One that drains is not replaced before it
/// has ended, so that there are never more slots than those of three processes.
#[derive(Debug)]
pub(crate) struct Crew {
    urls: String,
    folder: PathBuf,
    processes: Vec<Member>,
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

    fn start_one(&mut self) -> io::Result<Member> {
        self.started += 1;
        let journal = self.folder.join(record::journal_of(self.started));
        let mut command = Command::new(env::current_exe()?);
        command.args(["work", &self.urls]).arg(journal).stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::create(words_of(&self.folder, self.started))?);
        Ok(Member { number: self.started, process: Process::start(&mut command)?, drained_at: None })
    }

    /// Kills one and starts another in its place.
    fn kill(&mut self, index: usize) -> io::Result<()> {
        let status = self.processes[index].process.kill()?;
        // A worker that had ended before the kill has another status.
        let how = if status.signal() == Some(SIGKILL) { How::Killed } else { How::ByItself };
        self.replace(index, status, how)
    }

    /// Tells one to end. It is replaced when it has.
    fn drain(&mut self, index: usize) -> io::Result<()> {
        let member = &mut self.processes[index];
        member.drained_at = Some(Instant::now());
        member.process.send("TERM")
    }

    fn replace(&mut self, index: usize, status: ExitStatus, how: How) -> io::Result<()> {
        let next = self.start_one()?;
        let Member { number: process, .. } = std::mem::replace(&mut self.processes[index], next);
        self.endings.push(Ending { process, at: record::now(), how, status });
        Ok(())
    }

    /// Replaces those that have ended by themselves, or should have after they were told to.
    pub(crate) fn replace_ended(&mut self) -> io::Result<()> {
        for index in 0..self.processes.len() {
            let member = &mut self.processes[index];
            let is_late = member.drained_at.is_some_and(|at| at.elapsed() > DRAIN_END);
            if let Some(status) = member.process.wait_for(Duration::ZERO)? {
                let how = match member.drained_at {
                    None => How::ByItself,
                    Some(_) if status.success() && !is_late => How::Drained,
                    // It had not begun to work, and did not listen yet.
                    Some(_) if status.signal() == Some(SIGTERM) => How::Killed,
                    // The aborting job.
                    Some(_) if status.signal().is_some() => How::ByItself,
                    Some(_) => How::DrainedBadly,
                };
                self.replace(index, status, how)?;
            } else if is_late {
                let status = member.process.kill()?;
                self.replace(index, status, How::DrainedBadly)?;
            }
        }
        Ok(())
    }

    /// Tells all to end, by SIGTERM. Returns those that had not ended in time, or not well.
    pub(crate) fn end(&mut self, limit: Duration) -> io::Result<Vec<usize>> {
        for member in &self.processes {
            member.process.send("TERM")?;
        }
        let (since, mut failed) = (Instant::now(), Vec::new());
        for Member { number, process, .. } in &mut self.processes {
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

/// Kills or drains a worker process each second, until `is_over` says so.
pub(crate) fn end_one_each_second(crew: &Mutex<Crew>, seed: u64, is_over: impl Fn() -> bool) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (since, mut second) = (Instant::now(), 0);
    while !is_over() {
        let at = since + KILL_IN_EACH * second + KILL_IN_EACH.mul_f64(random.f64());
        let (victim, is_drained) = (random.usize(..PROCESSES), random.f64() < DRAINS);
        while !is_over() && Instant::now() < at {
            thread::sleep(at.saturating_duration_since(Instant::now()).min(LOOK));
        }
        let mut crew = lock(crew);
        crew.replace_ended()?;
        second += 1;
        // A drain takes its time, and some are to reach their end.
        if crew.processes[victim].drained_at.is_some() {
            continue;
        }
        if is_drained { crew.drain(victim)? } else { crew.kill(victim)? }
    }
    Ok(())
}
