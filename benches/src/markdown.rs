//! The results in Markdown, with columns that are aligned for a terminal.

use std::fmt::Write;

use crate::candidate::{Kind, spoken_name};
use crate::figures::Figures;
use crate::placement::Placement;
use crate::results::Results;
use crate::targets::{Bound, TARGETS};
use crate::workloads::{Entry, WORKLOADS};

/// Stands in a table where nothing was measured.
const NOTHING: &str = "–";

/// Returns the summary, the targets and the exact counts.
pub(crate) fn report(results: &Results) -> String {
    let mut text = String::from("### Summary\n\n");
    text += &summary(results);
    text += "\n### Targets\n\n";
    text += &targets(results);
    text += "\n### Measured with\n\n";
    text += &measured_with(results);
    if !results.counts.is_empty() {
        text += "\n### Exact counts\n\n";
        text += &counts(results);
    }
    text
}

/// Returns the table of each workload.
pub(crate) fn tables(results: &Results) -> String {
    WORKLOADS.iter().map(|entry| workload(results, entry)).collect()
}

pub(crate) fn measured_with(results: &Results) -> String {
    let absences = results.absences.iter().map(|absence| format!("**Not measured**: {absence}"));
    results.facts.iter().cloned().chain(absences).map(|line| format!("- {line}\n")).collect()
}

/// Returns each target, its figure, and whether it is met.
pub(crate) fn targets(results: &Results) -> String {
    let mut table = Table::new(&["target", "at most", "figure", ""]);
    for target in &TARGETS {
        let figure = (target.figure)(results);
        let verdict = match figure {
            None => "not measured",
            Some(figure) if target.bound.is_met(figure) => "met",
            Some(_) => "**missed**",
        };
        let bound = match target.bound {
            Bound::AtMost(bound) => number(bound),
            Bound::AtLeast(bound) => format!("at least {}", number(bound)),
        };
        let text = if target.is_stretch { format!("{} (stretch)", target.text) } else { target.text.to_owned() };
        table.row([text, bound, figure.map_or_else(|| NOTHING.to_owned(), number), verdict.to_owned()]);
    }
    table.to_markdown()
}

/// Returns a line for each workload: workcrew, the best of the others, the limit.
pub(crate) fn summary(results: &Results) -> String {
    let head =
        ["nanoseconds", "CPUs", "workcrew", "best other Rust pool", "best in another language", "without a pool"];
    let mut table = Table::new(&head);
    for Entry { name, title, .. } in WORKLOADS.iter().filter(|entry| !entry.name.starts_with("w11")) {
        for placement in Placement::ALL {
            let Some(ours) = results.ours(placement, name) else { continue };
            let [ours, peer] = duel(Some(ours), results.best(placement, name, Kind::Peer));
            table.row([
                (*title).to_owned(),
                placement.name().to_owned(),
                ours,
                peer,
                named(results.best(placement, name, Kind::External)),
                named(limit(results, placement, name)),
            ]);
        }
    }
    table.to_markdown()
}

/// The workloads of the bars, and their titles.
const BARS: [(&str, &str); 3] = [
    ("w1_submit", "one producer, empty jobs"),
    ("w4_group", "a group of 1,000 tasks"),
    ("w6f_fork_join", "fork and join of tiny tasks"),
];
/// Letters of a name, and of the longest bar.
const NAME_WIDTH: usize = 22;
const BAR_WIDTH: usize = 44;

/// Returns bars of text for the README: workcrew, the best way of each other Rust pool, and the best in another language.
pub(crate) fn bars(results: &Results) -> String {
    let mut text = String::from("```text\n");
    for (workload, title) in BARS {
        let shown = competitors(results, workload);
        let longest = shown.iter().map(|figures| figures.median).fold(f64::MIN_POSITIVE, f64::max);
        writeln!(text, "{title}").expect("a string takes everything");
        for figures in shown {
            let bar = "█".repeat((figures.median / longest * BAR_WIDTH as f64).round().max(1.0) as usize);
            writeln!(text, "  {:NAME_WIDTH$} {:>6} {bar}", spoken_name(&figures.candidate), time(figures.median))
                .expect("a string takes everything");
        }
    }
    text + "```\n"
}

/// Returns workcrew, the best way of each other Rust pool, and the best in another language, in the order of their medians.
fn competitors<'a>(results: &'a Results, workload: &str) -> Vec<&'a Figures> {
    let placement = Placement::Free;
    let by_median = |one: &&Figures, other: &&Figures| one.median.total_cmp(&other.median);
    let mut shown = results.candidates(placement, workload);
    shown.retain(|figures| figures.kind == Kind::Peer);
    shown.sort_by(by_median);
    let mut crates = Vec::new();
    shown.retain(|figures| {
        let name = figures.candidate.split('_').next();
        let is_first = !crates.contains(&name);
        crates.push(name);
        is_first
    });
    shown.extend(results.ours(placement, workload));
    shown.extend(results.best(placement, workload, Kind::External));
    shown.sort_by(by_median);
    shown
}

/// Returns the cells of workcrew and of the best peer. The faster one is bold.
fn duel(ours: Option<&Figures>, peer: Option<&Figures>) -> [String; 2] {
    let median = |figures: Option<&Figures>| figures.map_or(f64::INFINITY, |figures| figures.median);
    let bold = |text: String, wins: bool| if wins { format!("**{text}**") } else { text };
    let ours_wins = median(ours) <= median(peer);
    let own = ours.map_or_else(|| NOTHING.to_owned(), |ours| time(ours.median));
    [bold(own, ours_wins && ours.is_some()), bold(named(peer), !ours_wins)]
}

/// Limits that no pool could reach, since they hand nothing over.
const NO_RIVALS: [&str; 2] = ["no_pool", "five_atomic_steps"];

/// Returns the best limit: a bare loop or threads by hand, or else a call on the same thread.
fn limit<'a>(results: &'a Results, placement: Placement, workload: &str) -> Option<&'a Figures> {
    let is_rival = |figures: &Figures| figures.kind == Kind::Limit && !NO_RIVALS.contains(&&*figures.candidate);
    let other = results.best_of(placement, workload, is_rival);
    other.or_else(|| results.best(placement, workload, Kind::Limit))
}

fn named(figures: Option<&Figures>) -> String {
    figures.map_or_else(|| NOTHING.to_owned(), |figures| format!("{} {}", time(figures.median), figures.candidate))
}

/// Returns the candidates of one workload at all placements. Empty if it did not run.
fn workload(results: &Results, Entry { name, title, .. }: &Entry) -> String {
    let mut text = String::new();
    for placement in Placement::ALL {
        let candidates = results.candidates(placement, name);
        let Some(first) = candidates.first() else { continue };
        let mut table = Table::new(&["", "ratio", "p50", "p99", "CPU", "switches", "ran"]);
        for figures in &candidates {
            let bold = if figures.kind == Kind::Workcrew { "**" } else { "" };
            table.row([
                format!("{bold}{}{bold}", figures.candidate),
                number(figures.ratio),
                time(figures.median),
                time(figures.p99),
                time(figures.cpu),
                number(figures.switches),
                ran(figures),
            ]);
        }
        let rounds = match first.rounds {
            1 => "one round".to_owned(),
            rounds => format!("{rounds} rounds"),
        };
        write!(text, "\n### {title}; {}\n\n`{name}`, {rounds}\n\n{}", placement.name(), table.to_markdown())
            .expect("a string takes everything");
    }
    text
}

pub(crate) fn counts(results: &Results) -> String {
    let mut table = Table::new(&["of", "count", "at most", "unit", ""]);
    for count in &results.counts {
        let bound = count.bound.map_or_else(String::new, number);
        table.row([count.name.clone(), number(count.value), bound, count.unit.clone(), count.verdict().to_owned()]);
    }
    table.to_markdown()
}

fn ran(figures: &Figures) -> String {
    if figures.ran.is_nan() {
        return String::new();
    }
    format!("{} (most {})", number(figures.ran), number(figures.ran_most))
}

/// Returns nanoseconds, with one decimal below 100.
fn time(nanoseconds: f64) -> String {
    if nanoseconds < 99.5 { format!("{nanoseconds:.1}") } else { grouped(nanoseconds) }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        NOTHING.to_owned()
    } else if value == value.trunc() {
        grouped(value)
    } else if value.abs() < 0.1 {
        format!("{value:.3}")
    } else if value.abs() < 99.5 {
        format!("{value:.2}")
    } else {
        grouped(value)
    }
}

/// Returns the number rounded, with commas between thousands.
fn grouped(value: f64) -> String {
    if value.is_nan() {
        return NOTHING.to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table. Its first column is text, the others are figures.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.rows[0].len(), "a row has a cell for each column");
        self.rows.push(cells.into());
    }

    fn to_markdown(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(2);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            text += &line(row, &widths);
            if index == 0 {
                let rule = |(column, width): (usize, &usize)| match column {
                    0 => "-".repeat(*width),
                    _ => format!("{}:", "-".repeat(width - 1)),
                };
                text += &line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>(), &widths);
            }
        }
        text
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::from("|");
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.chars().count());
        text += &if column == 0 { format!(" {cell}{padding} |") } else { format!(" {padding}{cell} |") };
    }
    text + "\n"
}
