//! One exact count, what it may be at most, and the line in which a process tells it to another.

use crate::error::Error;

/// What was counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Count {
    /// What of: an operation of workcrew, or of a peer.
    pub(crate) name: String,
    pub(crate) value: f64,
    /// `None` for a peer, which is counted for comparison only.
    pub(crate) bound: Option<f64>,
    pub(crate) unit: String,
}

/// The first field of a line that holds a count.
const KEY: &str = "count";

impl Count {
    pub(crate) fn is_kept(&self) -> bool {
        self.bound.is_none_or(|bound| self.value <= bound)
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.bound {
            None => "",
            Some(_) if self.is_kept() => "kept",
            Some(_) => "EXCEEDED",
        }
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let Self { name, value, bound, unit } = self;
        let bound = bound.map_or_else(String::new, |bound| format!("at most {bound}"));
        format!("{name:34}{value:>12.3} {unit:34}{bound:>16} {}", self.verdict()).trim_end().to_owned()
    }

    /// For programs.
    pub(crate) fn to_line(&self) -> String {
        let bound = self.bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
        [KEY, &self.name, &self.value.to_string(), &bound, &self.unit].join("\t")
    }

    /// `None` if the line holds something else.
    ///
    /// # Errors
    ///
    /// If it begins like a count, and goes on otherwise.
    pub(crate) fn from_line(line: &str) -> Result<Option<Self>, Error> {
        if !line.starts_with(KEY) {
            return Ok(None);
        }
        match line.split('\t').collect::<Vec<_>>()[..] {
            [KEY, name, value, bound, unit] => Ok(Some(Self {
                name: name.to_owned(),
                value: value.parse().map_err(|_| Error::Line(line.to_owned()))?,
                bound: bound.parse().ok(),
                unit: unit.to_owned(),
            })),
            _ => Err(Error::Line(line.to_owned())),
        }
    }
}
