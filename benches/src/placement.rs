//! Where the threads of a run are. Each placement has a process of its own, which prints figures.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::figures::Figures;
use crate::options::Options;

/// The CPUs that the threads of a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// All CPUs; the system places the threads.
    Free,
    /// One CPU.
    One,
}

impl Placement {
    pub(crate) const ALL: [Self; 2] = [Self::Free, Self::One];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::One => "one",
        }
    }

    /// Returns a command that starts this program at the placement.
    fn command(self) -> Result<Command, Error> {
        let program = env::current_exe()
            .map_err(|error| Error::Process { name: "this program".to_owned(), reason: error.to_string() })?;
        Ok(match self {
            Self::Free => Command::new(program),
            Self::One => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
        })
    }

    /// Runs a new process with these variables in its environment. Calls `on_version` with the
    /// version of each external pool.
    ///
    /// # Errors
    ///
    /// Returns an error if the process cannot be started or fails. [`One`](Self::One) needs
    /// `taskset`.
    pub(crate) fn run(
        self,
        options: &Options,
        variables: &[(&'static str, String)],
        mut on_version: impl FnMut(&str),
    ) -> Result<Vec<Figures>, Error> {
        let failed = |reason: String| Error::Process { name: format!("the placement {}", self.name()), reason };
        let mut command = self.command()?;
        command.arg("--run").arg(options.time().as_secs_f64().to_string()).args(&options.names);
        command.envs(variables.iter().map(|(name, value)| (name, value))).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
        let mut figures = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| failed(error.to_string()))?;
            match line.strip_prefix(VERSION) {
                Some(version) => on_version(version),
                None => figures.push(serde_json::from_str(&line).map_err(|_| Error::Line(line))?),
            }
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(figures) } else { Err(failed(status.to_string())) }
    }
}

/// Begins a line with the version of a peer in another language.
pub(crate) const VERSION: &str = "version\t";
