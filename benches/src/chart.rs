//! The summary as a picture: bars for the candidates of some workloads, in SVG.
//!
//! It brings its own ground, so that it can be read on a light page and on a dark one.

use std::fmt::Write;

use crate::candidate::Kind;
use crate::figures::Figures;
use crate::markdown::time;
use crate::placement::Placement;
use crate::results::Results;

/// The workloads that are shown, and what they are called.
const PANELS: [(&str, &str); 6] = [
    ("w1_submit", "one producer, empty jobs"),
    ("w2_producers", "four producers, empty jobs"),
    ("w3_join", "one task, submit to result"),
    ("w4_group", "group of 1,000 tasks"),
    ("w6t_tree", "jobs that submit jobs"),
    ("w9_trickle", "10,000 jobs a second, until start"),
];
const COLUMNS: usize = 3;
/// The most bars in a panel.
const BARS: usize = 11;

const PANEL_WIDTH: usize = 300;
const PANEL_HEIGHT: usize = 230;
const MARGIN: usize = 16;
const HEAD: usize = 56;
/// Letters of the small print that fit in a line.
const LETTERS: usize = 160;
const LINE_HEIGHT: usize = 14;
const BAR_HEIGHT: usize = 13;
const ROW_HEIGHT: usize = 17;
const LABEL_WIDTH: usize = 124;
const VALUE_WIDTH: usize = 52;

const STYLE: &str = "\
text { font: 11px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2933 }
.title { font-size: 15px; font-weight: 600 } .panel { font-size: 12px; font-weight: 600 } .quiet { fill: #52606d }
.workcrew { fill: #d9480f } .peer { fill: #486581 } .limit { fill: #9fb3c8 } .external { fill: #3e9c8f }";

/// The candidates with the lowest medians of each panel.
pub(crate) fn svg(results: &Results, placement: Placement) -> String {
    let rows = PANELS.len().div_ceil(COLUMNS);
    let width = COLUMNS * PANEL_WIDTH + 2 * MARGIN;
    let facts = wrapped(&results.facts);
    let foot = HEAD + rows * PANEL_HEIGHT;
    let height = foot + facts.len() * LINE_HEIGHT + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
         <title>Nanoseconds per job of workcrew and other pools</title>\n<style>\n{STYLE}\n</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#cbd2d9\"/>\n"
    );
    text(&mut svg, MARGIN, 26, "title", "Nanoseconds per job; shorter is better");
    legend(&mut svg, 44);
    for (index, (workload, title)) in PANELS.into_iter().enumerate() {
        let x = MARGIN + index % COLUMNS * PANEL_WIDTH;
        let y = HEAD + index / COLUMNS * PANEL_HEIGHT;
        panel(&mut svg, x, y, title, &shown(results, placement, workload));
    }
    for (index, line) in facts.iter().enumerate() {
        text(&mut svg, MARGIN, foot + (index + 1) * LINE_HEIGHT, "quiet", line);
    }
    svg + "</svg>\n"
}

/// Lines that are no longer than there is room for.
fn wrapped(facts: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for fact in facts {
        lines.push(String::new());
        for word in fact.split(' ') {
            let line = lines.last_mut().expect("one was begun");
            if line.len() + word.len() > LETTERS {
                lines.push(word.to_owned());
            } else {
                let space = if line.is_empty() { "" } else { " " };
                line.extend([space, word]);
            }
        }
    }
    lines
}

/// Ours and the best way of each other, in the order of their medians.
fn shown<'a>(results: &'a Results, placement: Placement, workload: &str) -> Vec<&'a Figures> {
    let Some(ours) = results.ours(placement, workload) else { return Vec::new() };
    let by_median = |one: &&Figures, other: &&Figures| one.median.total_cmp(&other.median);
    let mut others = results.candidates(placement, workload);
    others.retain(|figures| figures.kind != Kind::Workcrew && figures.candidate != "no_pool");
    others.sort_by(by_median);
    // A name begins with the name of its peer.
    let mut peers = Vec::new();
    others.retain(|figures| {
        let peer = figures.candidate.split('_').next();
        let is_first = !peers.contains(&peer);
        peers.push(peer);
        is_first
    });
    others.truncate(BARS - 1);
    others.push(ours);
    others.sort_by(by_median);
    others
}

fn legend(svg: &mut String, y: usize) {
    let meanings = [
        ("workcrew", "workcrew"),
        ("peer", "other Rust pools"),
        ("external", "other languages"),
        ("limit", "no pool: a bare channel loop, threads by hand"),
    ];
    let mut x = MARGIN;
    for (class, meaning) in meanings {
        rectangle(svg, [x, y - 9, 10, 10], class);
        text(svg, x + 15, y, "quiet", meaning);
        x += 30 + 6 * meaning.len();
    }
}

fn panel(svg: &mut String, x: usize, y: usize, title: &str, bars: &[&Figures]) {
    text(svg, x, y + 18, "panel", title);
    if bars.is_empty() {
        text(svg, x, y + 40, "quiet", "not measured");
    }
    let longest = bars.iter().map(|figures| figures.median).fold(f64::MIN_POSITIVE, f64::max);
    let room = (PANEL_WIDTH - MARGIN - LABEL_WIDTH - VALUE_WIDTH) as f64;
    for (index, figures) in bars.iter().enumerate() {
        let top = y + 28 + index * ROW_HEIGHT;
        let length = (figures.median / longest * room).round().max(1.0) as usize;
        text(svg, x, top + 11, "", &figures.candidate);
        rectangle(svg, [x + LABEL_WIDTH, top, length, BAR_HEIGHT], figures.kind.name());
        text(svg, x + LABEL_WIDTH + length + 5, top + 11, "", &time(figures.median));
    }
}

fn text(svg: &mut String, x: usize, y: usize, class: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{content}</text>").expect("a string takes everything");
}

/// Left, top, width, height.
fn rectangle(svg: &mut String, [x, y, width, height]: [usize; 4], class: &str) {
    writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"2\" class=\"{class}\"/>")
        .expect("a string takes everything");
}
