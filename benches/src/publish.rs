//! Where the results are written: into the texts that hold them, between two marks, and into a picture.

use std::fs;
use std::path::{Path, PathBuf};

use crate::chart;
use crate::error::Error;
use crate::markdown;
use crate::placement::Placement;
use crate::results::Results;

const BEGIN: &str = "<!-- performance: written by cargo bench --bench compare -- --write -->";
const END: &str = "<!-- performance: end -->";

/// Writes bars into the README, the report and the tables into the pages of `docs`, and the chart beside them.
///
/// # Errors
///
/// If a file cannot be read or written, or lacks the marks.
pub(crate) fn write(results: &Results) -> Result<Vec<PathBuf>, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the member lies in the workspace");
    let readme = root.join("README.md");
    let [report, tables, chart] =
        ["performance.md", "performance-tables.md", "performance.svg"].map(|name| root.join("docs").join(name));
    let summary = format!("{}\n{}", markdown::bars(results), markdown::measured_with(results));
    replace(&readme, &summary)?;
    replace(&report, &markdown::report(results))?;
    replace(&tables, &markdown::tables(results))?;
    fs::write(&chart, chart::svg(results, Placement::Free)).map_err(|error| file_error(&chart, error))?;
    Ok(vec![readme, report, tables, chart])
}

/// Replaces what stands between the marks.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let old = fs::read_to_string(path).map_err(|error| file_error(path, error))?;
    let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| Error::Markers(path.to_owned()))?;
    let new = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim());
    fs::write(path, new).map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, error: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), error }
}
