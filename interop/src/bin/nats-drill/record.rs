//! The journals of the worker processes: files of lines that only grow.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::jobs;

/// Returns the milliseconds since 1970, which all processes of the drill agree on.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The file of one worker process.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<File>);

impl Journal {
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        OpenOptions::new().append(true).create(true).open(path).map(|file| Self(Mutex::new(file)))
    }

    /// Appends a line by one write, which a SIGKILL cannot cut in two.
    pub(crate) fn note(&self, word: &str, text: &impl Display) {
        let line = format!("{word} {} {}\n", now(), text.to_string().replace('\n', " "));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(line.as_bytes());
    }

    /// Makes a call through the crate and notes how long it took.
    pub(crate) fn time<T>(&self, name: &str, allowed: Duration, call: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let result = call();
        let (took, allowed) = (since.elapsed().as_millis(), allowed.as_millis());
        self.note("call", &format!("{name} {took} {allowed}"));
        result
    }
}

/// A run of a good job that reached its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    /// When its handler was about to return.
    pub(crate) at: u64,
    /// The worker process, by the number of its journal.
    pub(crate) process: usize,
    /// The place of the job in the stream.
    pub(crate) sequence: u64,
    /// Which attempt it was.
    pub(crate) attempt: u32,
}

/// A moment at which the handler of a bad job was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Beginning {
    pub(crate) at: u64,
    pub(crate) process: usize,
    /// Which attempt it was, by the server's count of deliveries.
    pub(crate) attempt: u32,
}

/// A call of a worker process through the crate.
#[derive(Clone, Debug)]
pub(crate) struct WorkerCall {
    pub(crate) name: String,
    pub(crate) took: Duration,
    pub(crate) allowed: Duration,
}

/// The contents of all journals of a folder.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The runs of each good job, in the order of time.
    pub(crate) done: BTreeMap<usize, Vec<Run>>,
    /// The beginnings of each bad job, in the order of time.
    pub(crate) begun: BTreeMap<String, Vec<Beginning>>,
    /// The places of the jobs that were set aside, by the events that name them.
    pub(crate) set_aside: Vec<u64>,
    /// The places of the jobs whose outcome a worker could not tell, by the events that name them.
    pub(crate) outcome_lost: Vec<u64>,
    /// How many events told of done jobs that stay.
    pub(crate) left_behind: usize,
    pub(crate) calls: Vec<WorkerCall>,
    /// The errors that end a run, and lines that make no sense.
    pub(crate) errors: Vec<String>,
    /// The most jobs that ran at once in one process, if they were more than its slots.
    pub(crate) most_at_once: usize,
}

impl Record {
    /// Reads every journal of the folder.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut record = Self::default();
        for (process, path) in journals(folder)? {
            let text = fs::read_to_string(path)?;
            // A line without its end is being written.
            for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                if record.take(process, line).is_none() {
                    record.errors.push(line.to_owned());
                }
            }
        }
        record.done.values_mut().for_each(|runs| runs.sort_unstable());
        record.begun.values_mut().for_each(|beginnings| beginnings.sort_unstable());
        Ok(record)
    }

    /// Returns whether this good job was done.
    pub(crate) fn has_done(&self, number: usize) -> bool {
        self.done.contains_key(&number)
    }

    /// Returns the beginnings of a bad job.
    pub(crate) fn beginnings(&self, id: &str) -> &[Beginning] {
        self.begun.get(id).map_or(&[], Vec::as_slice)
    }

    /// Takes one line; `None`, if it must not be there.
    fn take(&mut self, process: usize, line: &str) -> Option<()> {
        let mut words = line.splitn(3, ' ');
        let (word, at, text) = (words.next()?, words.next()?.parse().ok()?, words.next().unwrap_or_default());
        match word {
            "done" => {
                let [id, sequence, attempt] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
                let run = Run { at, process, sequence: sequence.parse().ok()?, attempt: attempt.parse().ok()? };
                self.done.entry(jobs::number(id)?).or_default().push(run);
            }
            "begun" => {
                let (id, attempt) = text.split_once(' ')?;
                let beginning = Beginning { at, process, attempt: attempt.parse().ok()? };
                self.begun.entry(id.to_owned()).or_default().push(beginning);
            }
            "most" => self.most_at_once = self.most_at_once.max(text.parse().ok()?),
            "aside" => self.set_aside.push(text.parse().ok()?),
            "lost" => self.outcome_lost.push(text.parse().ok()?),
            "left" => self.left_behind += 1,
            "call" => {
                let [name, took, allowed] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
                let time = |text: &str| text.parse().ok().map(Duration::from_millis);
                self.calls.push(WorkerCall { name: name.to_owned(), took: time(took)?, allowed: time(allowed)? });
            }
            "event" => {}
            _ => return None,
        }
        Some(())
    }
}

/// The name of the journal of a worker process.
pub(crate) fn journal_of(process: usize) -> String {
    format!("{process}.journal")
}

fn journals(folder: &Path) -> io::Result<Vec<(usize, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            let process = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            files.push((process.ok_or_else(|| io::Error::other("a journal has a strange name"))?, path));
        }
    }
    Ok(files)
}
