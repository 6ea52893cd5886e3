//! The figures of one candidate in one workload.

use serde::{Deserialize, Deserializer, Serialize};

use crate::candidate::Kind;

/// Times are nanoseconds per job, or per group where a whole group is timed. A process passes its
/// figures on in lines of JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Figures {
    pub(crate) workload: String,
    pub(crate) candidate: String,
    pub(crate) kind: Kind,
    /// The median over the rounds of its time divided by the first candidate's in that round.
    pub(crate) ratio: f64,
    /// The median over the rounds of each round's median.
    pub(crate) median: f64,
    /// Of all batches of all rounds.
    pub(crate) p99: f64,
    /// CPU time of all threads of the process per job, until they are idle.
    #[serde(deserialize_with = "number")]
    pub(crate) cpu: f64,
    /// Context switches of all threads of the process per 1,000 jobs.
    #[serde(deserialize_with = "number")]
    pub(crate) switches: f64,
    /// How many tasks of a group ran: the median. Not a number where the workload does not ask.
    #[serde(deserialize_with = "number")]
    pub(crate) ran: f64,
    /// The most tasks of a group that ran.
    #[serde(deserialize_with = "number")]
    pub(crate) ran_most: f64,
    pub(crate) rounds: usize,
}

/// Reads a number. JSON has `null` for one that is not a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::deserialize(deserializer).map(|number| number.unwrap_or(f64::NAN))
}
