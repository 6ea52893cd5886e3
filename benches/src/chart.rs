//! The chart of `docs/`: bars for the candidates of some workloads.
//!
//! Its figures are those of the tables in `docs/`, so it can be drawn again without a measurement.
//! It has a background of its own, which is dark for readers that prefer a dark page.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::candidate::spoken_name;

/// The workloads that are shown, and their titles.
const PANELS: [(&str, &str); 9] = [
    ("w1_submit", "Empty jobs, one producer"),
    ("w2_producers", "Empty jobs, four producers"),
    ("w4_group", "Tasks of a group of 1,000"),
    ("w3_join", "One task, from submission to result"),
    ("w3_join_idle", "The same, pool idle for 200 µs"),
    ("w9_trickle", "10,000 jobs a second, until each starts"),
    ("w6t_tree", "Jobs that submit jobs"),
    ("w6f_fork_join", "Fork and join: fib(24), per fork"),
    ("w8_files", "SHA-256 of small files"),
];
const ROWS_AND_COLUMNS: (usize, usize) = (3, 3);
const SIZE: (u32, u32) = (1_180, 1_080);
const HEAD: u32 = 66;
const FOOT: u32 = 66;
const NAMES_WIDTH: u32 = 168;
/// The most candidates in a panel.
const ROWS: usize = 12;

const GROUND: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(31, 41, 51);
/// The colours, and what each stands for.
const COLOURS: [(RGBColor, &str); 4] = [
    (RGBColor(217, 72, 15), "workcrew"),
    (RGBColor(72, 101, 129), "other Rust pools"),
    (RGBColor(62, 156, 143), "other languages"),
    (RGBColor(138, 154, 173), "no pool: a channel and a loop, or threads by hand"),
];
/// The title, and the colours for readers that prefer a dark page.
const HEADER: &str = r##"<title>Nanoseconds per job of workcrew and other pools</title>
<style>
@media (prefers-color-scheme: dark) {
  [fill="#FFFFFF"] { fill: #0d1117 } [fill="#1F2933"] { fill: #e6edf3 }
  [fill="#D9480F"] { fill: #ff7b39 } [fill="#486581"] { fill: #7fa6cc }
}
</style>
"##;

/// One candidate, and its cells in the tables: on all CPUs and on one.
struct Bar<'a> {
    candidate: &'a str,
    texts: [&'a str; 2],
}

impl Bar<'_> {
    fn nanoseconds(&self) -> [f64; 2] {
        self.texts.map(|text| text.replace(',', "").parse().unwrap_or(0.0))
    }

    /// Returns the index of the colour.
    fn colour(&self) -> usize {
        match peer(self) {
            "workcrew" => 0,
            "go" | "java" | "tbb" => 2,
            "crossbeam" | "static" | "thread" => 3,
            _ => 1,
        }
    }
}

/// Draws the chart from the text of the two pages.
pub(crate) fn svg(tables: &str, report: &str) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&GROUND)?;
        let (head, rest) = root.split_vertically(HEAD);
        let (panels, foot) = rest.split_vertically(SIZE.1 - HEAD - FOOT);
        legend(&head)?;
        for ((workload, title), area) in PANELS.into_iter().zip(panels.split_evenly(ROWS_AND_COLUMNS)) {
            panel(&area, title, &bars(tables, workload))?;
        }
        let facts = report.lines().skip_while(|line| *line != "### Measured with");
        for (index, fact) in facts.filter_map(|line| line.strip_prefix("- ")).take(3).enumerate() {
            foot.draw(&Text::new(fact, (14, 6 + 19 * index as i32), font(16)))?;
        }
        root.present()?;
    }
    Ok(svg.replacen("<rect ", &format!("{HEADER}<rect "), 1))
}

/// Reads the tables of a workload. Returns the best candidate of each pool, the fastest first.
fn bars<'a>(tables: &'a str, workload: &str) -> Vec<Bar<'a>> {
    let mut bars: Vec<Bar> = Vec::new();
    let mark = format!("\n`{workload}`, ");
    for (placement, table) in tables.split(&mark).skip(1).enumerate().take(2) {
        for row in table.lines().skip(4).take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim_matches([' ', '*'])).collect();
            let [_, candidate, _, p50, ..] = cells[..] else { continue };
            match bars.iter_mut().find(|bar| bar.candidate == candidate) {
                Some(bar) => bar.texts[placement] = p50,
                None => bars.push(Bar { candidate, texts: [p50, "–"] }),
            }
        }
    }
    let ours = bars.first().map(|bar| bar.candidate);
    bars.retain(|bar| Some(bar.candidate) == ours || !["workcrew", "no", "five"].contains(&peer(bar)));
    bars.sort_by(|one, other| one.nanoseconds()[0].total_cmp(&other.nanoseconds()[0]));
    let mut peers = Vec::new();
    bars.retain(|bar| {
        let is_first = !peers.contains(&peer(bar));
        peers.push(peer(bar));
        is_first
    });
    bars.truncate(ROWS);
    bars
}

/// Returns the pool of a candidate, which stands first in its name.
fn peer<'a>(bar: &Bar<'a>) -> &'a str {
    bar.candidate.split('_').next().unwrap_or_default()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn legend(head: &Area<'_>) -> Result<(), Box<dyn Error>> {
    head.draw(&Text::new("Nanoseconds per job: shorter is better", (14, 10), font(21)))?;
    let mut x = 14;
    for (colour, meaning) in COLOURS {
        head.draw(&Rectangle::new([(x, 42), (x + 11, 53)], colour.filled()))?;
        head.draw(&Text::new(meaning, (x + 16, 41), font(16)))?;
        x += 40 + 7 * meaning.len() as i32;
    }
    let bars = "Upper bar and first number: on all CPUs. Lower bar: on one CPU.";
    head.draw(&Text::new(bars, (SIZE.0 as i32 / 2 - 60, 14), font(16)))?;
    Ok(())
}

fn panel(area: &Area<'_>, title: &str, bars: &[Bar<'_>]) -> Result<(), Box<dyn Error>> {
    let absent = if bars.is_empty() { ": not measured" } else { "" };
    let longest = bars.iter().flat_map(Bar::nanoseconds).fold(1.0, f64::max);
    let mut names: Vec<String> = bars.iter().map(|bar| spoken_name(bar.candidate)).collect();
    names.resize(ROWS, String::new());
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{title}{absent}"), ("sans-serif", 17, FontStyle::Bold).into_font().color(&INK))
        .margin(10)
        .y_label_area_size(NAMES_WIDTH)
        .build_cartesian_2d(0.0..longest * 1.85, (0..ROWS).into_segmented())?;
    chart
        .configure_mesh()
        .disable_mesh()
        .disable_x_axis()
        .axis_style(TRANSPARENT)
        .y_labels(ROWS + 1)
        .y_label_style(font(16))
        .y_label_formatter(&|row| match row {
            SegmentValue::CenterOf(row) if *row < ROWS => names[ROWS - 1 - row].clone(),
            _ => String::new(),
        })
        .draw()?;
    for (bar, row) in bars.iter().zip((0..ROWS).rev()) {
        let (nanoseconds, colour) = (bar.nanoseconds(), COLOURS[bar.colour()].0);
        for (value, opacity, [above, below]) in [(nanoseconds[0], 1.0, [2, 9]), (nanoseconds[1], 0.5, [9, 2])] {
            let corners = [(0.0, SegmentValue::Exact(row)), (value, SegmentValue::Exact(row + 1))];
            let mut rectangle = Rectangle::new(corners, colour.mix(opacity).filled());
            rectangle.set_margin(above, below, 0, 0);
            chart.draw_series([rectangle])?;
        }
        let end = (nanoseconds[0].max(nanoseconds[1]), SegmentValue::CenterOf(row));
        let style = font(16).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series([EmptyElement::at(end) + Text::new(bar.texts.join(" / "), (5, 0), style)])?;
    }
    Ok(())
}
