//! What is known of a candidate after some rounds of a workload.

use serde::{Deserialize, Deserializer, Serialize};

use crate::candidate::Kind;

/// Times are nanoseconds per job, or per group where a whole group is timed. Processes pass it on as a line of JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Figures {
    pub(crate) workload: String,
    pub(crate) candidate: String,
    pub(crate) kind: Kind,
    /// The median over the rounds of its time by that of the first candidate in the same round.
    pub(crate) ratio: f64,
    /// The median over the rounds of each round's median.
    pub(crate) median: f64,
    /// Of all batches of all rounds.
    pub(crate) p99: f64,
    /// CPU time of all threads of the process for each job, until they have come to rest.
    #[serde(deserialize_with = "number")]
    pub(crate) cpu: f64,
    /// Context switches of all threads of the process for each 1,000 jobs.
    #[serde(deserialize_with = "number")]
    pub(crate) switches: f64,
    /// How many tasks of a group ran: the median, and the most. Not a number where that is not in question.
    #[serde(deserialize_with = "number")]
    pub(crate) ran: f64,
    #[serde(deserialize_with = "number")]
    pub(crate) ran_most: f64,
    pub(crate) rounds: usize,
}

/// JSON has `null` for what is not a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::deserialize(deserializer).map(|number| number.unwrap_or(f64::NAN))
}
