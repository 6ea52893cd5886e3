//! Writes the results into pages, between two markers, and into a chart.

use std::fs;
use std::path::{Path, PathBuf};

use crate::chart;
use crate::error::Error;
use crate::markdown;
use crate::results::Results;

const BEGIN: &str = "<!-- performance: written by cargo bench --bench compare -- --write -->";
const END: &str = "<!-- performance: end -->";

/// The files, from the root of the workspace.
const README: &str = "README.md";
const REPORT: &str = "docs/performance.md";
const TABLES: &str = "docs/performance-tables.md";
const CHART: &str = "docs/performance.svg";

/// Writes bars into the README, the report and the tables into `docs/`, and draws the chart.
///
/// # Errors
///
/// Returns an error if a file cannot be read or written, or lacks the markers.
pub(crate) fn write(results: &Results) -> Result<(), Error> {
    let summary = format!("{}\n{}", markdown::bars(results), markdown::measured_with(results));
    for (name, text) in [(README, summary), (REPORT, markdown::report(results)), (TABLES, markdown::tables(results))] {
        let old = read_file(name)?;
        let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = parts.ok_or_else(|| Error::Markers(path(name)))?;
        write_file(name, &format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim()))?;
    }
    draw_chart()
}

/// Draws the chart from the figures in the pages of `docs/`.
///
/// # Errors
///
/// Returns an error if a file cannot be read or written.
pub(crate) fn draw_chart() -> Result<(), Error> {
    write_file(CHART, &chart::svg(&read_file(TABLES)?, &read_file(REPORT)?).map_err(Error::Chart)?)
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(name)
}

fn read_file(name: &str) -> Result<String, Error> {
    fs::read_to_string(path(name)).map_err(|error| Error::File { path: path(name), error })
}

fn write_file(name: &str, text: &str) -> Result<(), Error> {
    fs::write(path(name), text).map_err(|error| Error::File { path: path(name), error })?;
    println!("wrote {name}");
    Ok(())
}
