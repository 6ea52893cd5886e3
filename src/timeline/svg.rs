//! Draws spans as an SVG: a row for each worker, and the number of queued tasks above them.

use std::fmt::Write;
use std::time::Duration;

use super::spans::{Span, Track, queue_lengths};
use super::trace;
use crate::observe::task_info::TaskOutcome;

/// The width of the picture in pixels.
const WIDTH: f64 = 960.0;
/// The width of the rows' names.
const NAMES: f64 = 140.0;
/// The height of a row, with the gap below it.
const ROW: f64 = 24.0;
/// The height of the curve of queued tasks.
const CURVE: f64 = 48.0;
/// The space above and below, for the axis.
const MARGIN: f64 = 28.0;
/// Rows with more spans join neighbours in one pixel.
const MAX_SPANS: usize = 500;

/// The colours are those of Okabe and Ito, which people with any colour vision tell apart. Text and
/// lines take the grey that both light and dark pages show.
const STYLE: &str = "<style>text{font:12px sans-serif;fill:#808080}.line{stroke:#808080;fill:none}\
    .succeeded{fill:#0072b2}.failed{fill:#e69f00}.panicked{fill:#d55e00}.cancelled{fill:#999999}.queued{fill:#56b4e9;fill-opacity:.5}</style>";

/// The times that the picture shows.
struct Scale {
    start: Duration,
    length: f64,
}

impl Scale {
    fn of(tracks: &[Track]) -> Self {
        let spans = || tracks.iter().flat_map(|track| &track.spans);
        let start = spans().map(Span::queued_at).min().unwrap_or_default();
        let end = spans().map(Span::end).max().unwrap_or_default();
        Self { start, length: end.saturating_sub(start).as_secs_f64().max(1e-9) }
    }

    /// Returns the horizontal place of a time.
    fn x(&self, time: Duration) -> f64 {
        NAMES + time.saturating_sub(self.start).as_secs_f64() / self.length * (WIDTH - NAMES - MARGIN)
    }
}

/// Draws the picture.
pub(super) fn draw(tracks: &[Track]) -> String {
    let scale = Scale::of(tracks);
    let rows = MARGIN + CURVE + 8.0;
    let bottom = rows + ROW * tracks.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
         <title>What each worker ran</title>{STYLE}\n",
        height = bottom + MARGIN
    );
    draw_queue(&mut svg, &scale, tracks);
    for (index, track) in tracks.iter().enumerate() {
        let top = rows + ROW * index as f64;
        let name = track.worker.map_or_else(|| "other threads".to_owned(), |index| format!("worker {index}"));
        let _ = writeln!(svg, "<text x=\"0\" y=\"{}\">{name}</text>", top + 15.0);
        for span in joined(track, &scale) {
            draw_span(&mut svg, &scale, top, &span);
        }
    }
    draw_axis(&mut svg, &scale, bottom);
    svg.push_str("</svg>\n");
    svg
}

/// Draws how many of the tasks were queued at each time.
fn draw_queue(svg: &mut String, scale: &Scale, tracks: &[Track]) {
    let lengths = queue_lengths(tracks);
    let most = lengths.iter().map(|(_, queued)| *queued).max().unwrap_or(0);
    let bottom = MARGIN + CURVE;
    let _ = writeln!(svg, "<text x=\"0\" y=\"{bottom}\">queued, at most {most}</text>");
    if most == 0 {
        return;
    }
    let mut path = format!("M{NAMES} {bottom}");
    let mut last = NAMES;
    let mut tallest = 0;
    for (time, queued) in lengths {
        tallest = tallest.max(queued);
        let x = scale.x(time);
        if x - last < 0.5 && queued > 0 {
            continue; // within one pixel the largest number counts
        }
        let y = bottom - tallest.max(queued) as f64 / most as f64 * CURVE;
        let _ = write!(path, "L{last:.1} {y:.1}L{x:.1} {y:.1}");
        (last, tallest) = (x, queued);
    }
    let _ = writeln!(svg, "<path class=\"queued\" d=\"{path}L{last:.1} {bottom}Z\"/>");
}

/// Returns the spans of a row. If there are many, those that begin in one pixel are joined, and the
/// longest gives its name and outcome.
fn joined(track: &Track, scale: &Scale) -> Vec<Span> {
    if track.spans.len() <= MAX_SPANS {
        return track.spans.clone();
    }
    let mut joined: Vec<Span> = Vec::new();
    for span in &track.spans {
        match joined.last_mut() {
            Some(last) if scale.x(span.start) - scale.x(last.start) < 1.0 => {
                let (start, end) = (last.start, last.end().max(span.end()));
                if span.run_time > last.run_time {
                    *last = span.clone();
                }
                (last.start, last.run_time) = (start, end.saturating_sub(start));
            }
            _ => joined.push(span.clone()),
        }
    }
    joined
}

fn draw_span(svg: &mut String, scale: &Scale, top: f64, span: &Span) {
    let class = match span.outcome {
        Some(TaskOutcome::Succeeded) => "succeeded",
        Some(TaskOutcome::Failed) | None => "failed",
        Some(TaskOutcome::Panicked) => "panicked",
        Some(TaskOutcome::Cancelled(_)) => "cancelled",
    };
    let (x, end) = (scale.x(span.start), scale.x(span.end()));
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\"><title>{}, {:.3?}, {}</title></rect>",
        (end - x).max(0.5),
        ROW - 4.0,
        escape(&span.name()),
        span.run_time,
        escape(&trace::outcome(span.outcome)),
    );
}

fn draw_axis(svg: &mut String, scale: &Scale, bottom: f64) {
    let right = WIDTH - MARGIN;
    let _ = writeln!(svg, "<path class=\"line\" d=\"M{NAMES} {bottom}H{right}\"/>");
    let length = Duration::from_secs_f64(scale.length);
    let middle = (NAMES + right) / 2.0;
    let y = bottom + 16.0;
    let _ = writeln!(svg, "<text x=\"{NAMES}\" y=\"{y}\">0</text>");
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{y}\" text-anchor=\"middle\">{:.1?}</text>", length / 2);
    let _ = writeln!(svg, "<text x=\"{right}\" y=\"{y}\" text-anchor=\"end\">{length:.1?}</text>");
}

/// Replaces the characters that have a meaning in XML, and those that it does not allow.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
