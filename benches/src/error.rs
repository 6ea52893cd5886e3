//! The errors of the benches.

use std::io;
use std::path::PathBuf;

/// An error of the environment or of the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The variable does not hold a number of workers.
    #[error("{variable} is {value}, which is not a number of workers")]
    Workers { variable: &'static str, value: String },
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    /// A text lacks the markers between which the results are written.
    #[error("{} lacks the markers to write between", .0.display())]
    Markers(PathBuf),
    /// The chart could not be drawn.
    #[error("the chart: {0}")]
    Chart(Box<dyn std::error::Error>),
    /// A process could not be started, or failed.
    #[error("{name}: {reason}")]
    Process { name: String, reason: String },
    /// A process wrote a line that this one does not understand.
    #[error("a line that was not expected: {0}")]
    Line(String),
}
