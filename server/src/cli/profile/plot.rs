//! The measured points as bars of text and as curves in SVG. Must not know how they were measured.

use std::fmt::Write as _;

use gannet_runtime::control::loader::profile::Point;

/// Cells of the longest bar.
const BAR_CELLS: f64 = 48.0;

/// A bar for each number of rows and threads of one instance, in eighths of a cell.
pub(super) fn bars(points: &[Point]) -> String {
    let alone: Vec<&Point> = points.iter().filter(|point| point.instances == 1).collect();
    let most = alone.iter().map(|point| point.rows_per_second).fold(f64::MIN_POSITIVE, f64::max);
    let several = alone.iter().any(|point| point.threads > 1);
    let mut page = String::new();
    for point in alone {
        let eighths = (point.rows_per_second / most * BAR_CELLS * 8.0).round().max(1.0) as usize;
        let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let threads = if several { format!(" x{}", point.threads) } else { String::new() };
        let _ = writeln!(
            page,
            "{:>6}{threads} {}{rest} {:.0}",
            point.rows,
            "█".repeat(eighths / 8),
            point.rows_per_second
        );
    }
    page
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 48.0;
const PLOT_WIDTH: f64 = 560.0;
const PLOT_HEIGHT: f64 = 220.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d29922", "#238636", "#a371f7", "#db6d28", "#6e7681"];

/// Median time of a run and rows a second, by rows, a curve for each number of threads; both axes logarithmic.
pub(super) fn svg(title: &str, points: &[Point]) -> String {
    let both = [
        ("median time of a run (us)", (|point: &Point| point.median_us) as fn(&Point) -> f64),
        ("rows a second", |point: &Point| point.rows_per_second),
    ];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        HEIGHT * both.len() as f64
    );
    for (index, (name, value)) in both.into_iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0,{})\">", HEIGHT * index as f64);
        let _ =
            writeln!(svg, "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}: {name}</text>", escaped(title));
        panel(&mut svg, points, value);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// A range of values along an axis, logarithmic.
struct Axis {
    least: f64,
    most: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), v| (a.min(v), b.max(v)));
        Self { least: least.max(1e-9), most: most.max(least * 1.0001) }
    }

    fn place(&self, value: f64) -> f64 {
        (value.max(1e-9) / self.least).ln() / (self.most / self.least).ln()
    }
}

fn panel(svg: &mut String, points: &[Point], value: fn(&Point) -> f64) {
    let alone: Vec<&Point> = points.iter().filter(|point| point.instances == 1).collect();
    let across = Axis::over(alone.iter().map(|point| point.rows as f64));
    let up = Axis::over(alone.iter().map(|point| value(point)));
    let x = |point: &Point| LEFT + across.place(point.rows as f64) * PLOT_WIDTH;
    let y = |value: f64| TOP + (1.0 - up.place(value)) * PLOT_HEIGHT;
    for step in 0..=4 {
        let mark = up.least * (up.most / up.least).powf(f64::from(step) / 4.0);
        let at = y(mark);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT + PLOT_WIDTH,
            LEFT - 8.0,
            at + 4.0,
            short(mark)
        );
    }
    let mut sizes: Vec<&Point> = alone.clone();
    sizes.sort_by_key(|point| point.rows);
    sizes.dedup_by_key(|point| point.rows);
    for point in sizes {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(point),
            TOP + PLOT_HEIGHT + 18.0,
            point.rows
        );
    }
    let mut threads: Vec<usize> = alone.iter().map(|point| point.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    for (index, count) in threads.into_iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let curve = alone.iter().filter(|point| point.threads == count);
        let places: Vec<String> =
            curve.map(|point| format!("{:.1},{:.1}", x(point), y(value(point)))).collect();
        let legend = TOP + 14.0 + 18.0 * index as f64;
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{legend}\" fill=\"{colour}\">{count} thread{}</text>",
            places.join(" "),
            LEFT + PLOT_WIDTH + 12.0,
            if count == 1 { "" } else { "s" }
        );
    }
    let middle = LEFT + PLOT_WIDTH / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">rows in a run</text>",
        HEIGHT - 12.0
    );
}

/// Three digits and a unit.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2}M", value / 1e6),
        value if value >= 1e3 => format!("{:.1}k", value / 1e3),
        value if value >= 10.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn() {
        let point = |threads, rows, median_us: f64| Point {
            instances: 1,
            threads,
            rows,
            median_us,
            p95_us: median_us,
            rows_per_second: rows as f64 * 1e6 / median_us,
        };
        let points = [point(1, 1, 10.0), point(1, 64, 64.0), point(2, 1, 8.0), point(2, 64, 40.0)];
        let page = bars(&points);
        assert_eq!(page.lines().count(), 4, "{page}");
        assert!(page.lines().last().unwrap().contains(&"█".repeat(48)), "{page}");
        let svg = svg("a<b", &points);
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 4);
        let one = super::svg("m", &points[..1]);
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
    }
}
