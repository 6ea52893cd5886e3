//! The errors of the benches.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// An error of the environment or of the caller.
#[derive(Debug)]
pub(crate) enum Error {
    /// An option that does not exist.
    Option(String),
    /// An option without the value it needs, or with an illegal one.
    Value { option: &'static str, value: Option<String> },
    /// The variable does not hold a number of workers.
    Workers { variable: &'static str, value: String },
    /// No workload has this in its name.
    Selection(String),
    /// A file could not be read or written.
    File { path: PathBuf, error: io::Error },
    /// A text has no place for what is to be written.
    Markers(PathBuf),
    /// A process could not be started, or ended badly.
    Process { name: String, reason: String },
    /// What a process wrote is not what was agreed on.
    Line(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(option) => write!(f, "there is no option {option}; --help lists those there are"),
            Self::Value { option, value: None } => write!(f, "{option} needs a value"),
            Self::Value { option, value: Some(value) } => write!(f, "{value} is no value for {option}"),
            Self::Workers { variable, value } => write!(f, "{variable} is {value}, which is not a number of workers"),
            Self::Selection(part) => write!(f, "no workload has {part} in its name"),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Markers(path) => write!(f, "{} lacks the markers to write between", path.display()),
            Self::Process { name, reason } => write!(f, "{name}: {reason}"),
            Self::Line(line) => write!(f, "a line that was not expected: {line}"),
        }
    }
}

impl std::error::Error for Error {}
