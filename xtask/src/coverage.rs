//! Reads which lines of `src` were run, from a trace in the format of lcov. Lines of tests beside the code do not count.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// How many of a hundred lines at least.
const WANTED: f64 = 95.0;

/// The lines of a file that hold code, by number, with how often each was run.
type Lines = BTreeMap<usize, u64>;

/// The figures of a trace; an error if too few lines were run, or one with `unsafe` was not. The lines that were not run are
/// written to `list`.
pub(crate) fn check(trace: &Path, list: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", trace.display());
    let folder = env::current_dir().map_err(unreadable)?.join("src");
    let text = fs::read_to_string(trace).map_err(unreadable)?;
    let (mut lines, mut run, mut missed, mut unsafe_lines) = (0, 0, String::new(), Vec::new());
    for (file, covered) in traced(&text, &folder) {
        let source = fs::read_to_string(folder.join(&file)).map_err(unreadable)?;
        let source: Vec<&str> = source.lines().collect();
        let counted = outside_of_tests(&file, &source, covered);
        let not_run: Vec<_> = counted.iter().filter(|(_, count)| **count == 0).map(|(number, _)| *number).collect();
        lines += counted.len();
        run += counted.len() - not_run.len();
        if !not_run.is_empty() {
            let _ = writeln!(missed, "src/{file}: {} of {} lines not run", not_run.len(), counted.len());
        }
        for number in not_run {
            let line = source.get(number - 1).copied().unwrap_or_default();
            let _ = writeln!(missed, "{number:5}  {line}");
            if line.contains("unsafe ") {
                unsafe_lines.push(format!("src/{file}:{number}"));
            }
        }
    }
    fs::write(list, missed).map_err(unreadable)?;
    let percent = 100.0 * run as f64 / lines as f64;
    let words = format!("{percent:.2} % of the {lines} lines of src, {WANTED} % wanted; see {}", list.display());
    match unsafe_lines.is_empty() {
        true if percent >= WANTED => Ok(words),
        true => Err(words),
        false => Err(format!("{words}; unsafe and not run: {}", unsafe_lines.join(", "))),
    }
}

/// The files of the trace that lie in the folder.
fn traced(trace: &str, folder: &Path) -> BTreeMap<String, Lines> {
    let (mut files, mut file) = (BTreeMap::<String, Lines>::new(), None);
    for line in trace.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = Path::new(path).strip_prefix(folder).ok().map(|path| path.display().to_string());
        } else if let (Some(counts), Some(file)) = (line.strip_prefix("DA:"), &file) {
            let mut numbers = counts.split(',').map(str::parse::<u64>);
            if let (Some(Ok(number)), Some(Ok(count))) = (numbers.next(), numbers.next()) {
                *files.entry(file.clone()).or_default().entry(number as usize).or_default() += count;
            }
        }
    }
    files
}

/// Leaves out files named `tests.rs`, and what follows a `#[cfg(test)]` up to the end of that item.
fn outside_of_tests(file: &str, source: &[&str], mut lines: Lines) -> Lines {
    if Path::new(file).ends_with("tests.rs") {
        return Lines::new();
    }
    let mut item = None;
    for (number, line) in (1..).zip(source) {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start() == "#[cfg(test)]" {
            item = item.or(Some(indent));
        }
        if let Some(outer) = item {
            lines.remove(&number);
            let is_end = indent == outer && (line.trim() == "}" || line.ends_with([';', ',']));
            if is_end {
                item = None;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_folders_are_left_out() {
        let trace = "SF:/a/src/b/c.rs\nDA:1,0\nDA:2,7\nend_of_record\nSF:/a/tests/d.rs\nDA:1,1\nend_of_record\n";
        let files = traced(trace, Path::new("/a/src"));
        assert_eq!(files, BTreeMap::from([("b/c.rs".to_owned(), Lines::from([(1, 0), (2, 7)]))]));
    }

    #[test]
    fn tests_beside_the_code_do_not_count() {
        let source = "\
fn first() {
    #[cfg(test)]
    second();
    third();
}
#[cfg(test)]
mod tests {
    fn fourth() {
    }
}
fn fifth() {}";
        let source: Vec<&str> = source.lines().collect();
        let all: Lines = (1..=source.len()).map(|number| (number, 1)).collect();
        let left: Vec<_> = outside_of_tests("a.rs", &source, all.clone()).into_keys().collect();
        assert_eq!(left, [1, 4, 5, 11]);
        assert!(outside_of_tests("b/tests.rs", &source, all).is_empty());
    }
}
