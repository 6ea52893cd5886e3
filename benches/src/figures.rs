//! What is known of a candidate after some rounds of a workload, and the line in which a process tells it to another.

use std::str::FromStr;

use crate::candidate::Kind;
use crate::error::Error;

/// Times are nanoseconds per job, or per group where a whole group is timed.
#[derive(Clone, Debug, PartialEq)]
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
    pub(crate) cpu: f64,
    /// Context switches of all threads of the process for each 1,000 jobs.
    pub(crate) switches: f64,
    /// How many tasks of a group ran: the median, and the most. Not a number where that is not in question.
    pub(crate) ran: f64,
    pub(crate) ran_most: f64,
    pub(crate) rounds: usize,
}

/// The first field of a line that holds figures.
const KEY: &str = "figures";

impl Figures {
    pub(crate) fn to_line(&self) -> String {
        let words = [KEY, &self.workload, &self.candidate, self.kind.name()].join("\t");
        let numbers = [self.ratio, self.median, self.p99, self.cpu, self.switches, self.ran, self.ran_most];
        let numbers = numbers.map(|number| number.to_string()).join("\t");
        format!("{words}\t{numbers}\t{}", self.rounds)
    }

    pub(crate) fn from_line(line: &str) -> Result<Self, Error> {
        Self::parse(line).ok_or_else(|| Error::Line(line.to_owned()))
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [KEY, workload, candidate, kind, ratio, median, p99, cpu, switches, ran, ran_most, rounds] = fields[..]
        else {
            return None;
        };
        Some(Self {
            workload: workload.to_owned(),
            candidate: candidate.to_owned(),
            kind: Kind::ALL.into_iter().find(|known| known.name() == kind)?,
            ratio: number(ratio)?,
            median: number(median)?,
            p99: number(p99)?,
            cpu: number(cpu)?,
            switches: number(switches)?,
            ran: number(ran)?,
            ran_most: number(ran_most)?,
            rounds: number(rounds)?,
        })
    }
}

fn number<N: FromStr>(field: &str) -> Option<N> {
    field.parse().ok()
}
