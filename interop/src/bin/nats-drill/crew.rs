//! The worker processes.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::servers;

/// How many worker processes there are at a time.
pub(crate) const PROCESSES: usize = 3;

/// All worker processes. One that has ended is replaced.
#[derive(Debug)]
pub(crate) struct Crew {
    urls: String,
    folder: PathBuf,
    processes: Vec<Child>,
    started: usize,
}

impl Crew {
    pub(crate) fn start(urls: String, folder: &Path) -> io::Result<Self> {
        let mut crew = Self { urls, folder: folder.to_owned(), processes: Vec::new(), started: 0 };
        for _ in 0..PROCESSES {
            let process = crew.start_one()?;
            crew.processes.push(process);
        }
        Ok(crew)
    }

    fn start_one(&mut self) -> io::Result<Child> {
        self.started += 1;
        let journal = self.folder.join(format!("{}.journal", self.started));
        let mut command = Command::new(env::current_exe()?);
        command.args(["work", &self.urls]).arg(journal).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn()
    }

    /// Kills one and starts another in its place.
    pub(crate) fn kill(&mut self, index: usize) -> io::Result<()> {
        let process = &mut self.processes[index];
        process.kill()?;
        process.wait()?;
        self.processes[index] = self.start_one()?;
        Ok(())
    }

    /// Replaces those that have ended by themselves; returns how many did.
    pub(crate) fn replace_ended(&mut self) -> io::Result<usize> {
        let mut ended = 0;
        for index in 0..self.processes.len() {
            if self.processes[index].try_wait()?.is_some() {
                self.processes[index] = self.start_one()?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Tells all to end, by SIGTERM. Returns how many had not ended in time, or not well.
    pub(crate) fn end(mut self, limit: Duration) -> io::Result<usize> {
        for process in &self.processes {
            servers::send("TERM", process.id())?;
        }
        let (since, mut failed) = (Instant::now(), 0);
        for process in &mut self.processes {
            let status = loop {
                match process.try_wait()? {
                    None if since.elapsed() < limit => thread::sleep(Duration::from_millis(20)),
                    status => break status,
                }
            };
            failed += usize::from(!status.is_some_and(|status| status.success()));
        }
        Ok(failed)
    }
}

impl Drop for Crew {
    /// A drill that fails leaves no process behind.
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
