//! What the worker processes have done and heard, as files of lines that only grow.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::jobs;

/// Milliseconds since 1970, which all processes of the drill agree on.
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
}

/// What all journals of a folder say.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// When each good job was done, as often as it was.
    pub(crate) done: BTreeMap<usize, Vec<u64>>,
    /// How often each bad job was begun.
    pub(crate) begun: BTreeMap<String, usize>,
    /// The events that name a job that was set aside.
    pub(crate) set_aside: Vec<String>,
    /// The errors that end a run, and other lines that must not be there.
    pub(crate) errors: Vec<String>,
    /// The most jobs that ran at once in one process.
    pub(crate) most_at_once: usize,
}

impl Notes {
    /// Reads every journal of the folder.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut notes = Self::default();
        for path in journals(folder)? {
            for line in fs::read_to_string(path)?.lines() {
                notes.take(line);
            }
        }
        notes.done.values_mut().for_each(|times| times.sort_unstable());
        Ok(notes)
    }

    fn take(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (word, time, text) = (words.next(), words.next(), words.next().unwrap_or_default());
        let time = time.and_then(|time| time.parse().ok()).unwrap_or(0);
        match (word, jobs::number(text)) {
            (Some("done"), Some(number)) => self.done.entry(number).or_default().push(time),
            (Some("begun"), _) => *self.begun.entry(text.to_owned()).or_default() += 1,
            (Some("most"), _) => self.most_at_once = self.most_at_once.max(text.parse().unwrap_or(0)),
            (Some("aside"), _) => self.set_aside.push(text.to_owned()),
            (Some("event"), _) => {}
            _ => self.errors.push(line.to_owned()),
        }
    }
}

fn journals(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = files.collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
    Ok(files)
}
