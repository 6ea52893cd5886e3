//! One exact count, and its bound.

use serde::{Deserialize, Serialize};

/// A process passes its counts on in lines of JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Count {
    /// What was counted, of workcrew or of a peer.
    pub(crate) name: String,
    pub(crate) value: f64,
    /// `None` for a peer, which is counted for comparison only.
    pub(crate) bound: Option<f64>,
    pub(crate) unit: String,
}

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

    /// Returns a line for people.
    pub(crate) fn to_text(&self) -> String {
        let Self { name, value, bound, unit } = self;
        let bound = bound.map_or_else(String::new, |bound| format!("at most {bound}"));
        format!("{name:34}{value:>12.3} {unit:34}{bound:>16} {}", self.verdict()).trim_end().to_owned()
    }
}
