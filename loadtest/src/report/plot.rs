//! Line plots as inline SVG, with axes that suit latencies and rates.
//!
//! Must not know what is plotted.

use std::fmt::Write as _;

/// One line of a plot.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub name: String,
    /// A CSS colour.
    pub colour: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// How values lie along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// A plot to draw.
pub(super) struct Plot<'a> {
    pub title: &'a str,
    pub x_title: &'a str,
    pub y_scale: Scale,
    /// Marks on the x axis; computed when empty.
    pub x_ticks: Vec<(f64, String)>,
    pub y_label: fn(f64) -> String,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 42.0;
/// Points of a line at most; more are thinned to the greatest of each group.
const POINTS_MAX: usize = 1200;

struct Axis {
    scale: Scale,
    min: f64,
    max: f64,
    start: f64,
    length: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let along = |v: f64| match self.scale {
            Scale::Linear => v,
            Scale::Logarithmic => v.max(self.min).ln(),
        };
        let (min, max) = (along(self.min), along(self.max));
        self.start + (along(value) - min) / (max - min) * self.length
    }

    /// Round values inside the axis.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let rough = (self.max - self.min) / 5.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .into_iter()
                    .map(|factor| factor * power)
                    .find(|step| *step >= rough)
                    .unwrap_or(rough);
                let first = (self.min / step).ceil() as i64;
                (first..first + 12).map(|i| i as f64 * step).take_while(|v| *v <= self.max).collect()
            }
            Scale::Logarithmic => {
                let first = self.min.log10().floor() as i32;
                let last = self.max.log10().ceil() as i32;
                let factors: &[f64] = if last - first > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let decade = |d: i32| factors.iter().map(move |f| f * 10f64.powi(d));
                let inside = |v: &f64| *v >= self.min && *v <= self.max;
                (first..=last).flat_map(decade).filter(inside).collect()
            }
        }
    }
}

impl Plot<'_> {
    /// The plot as an SVG element; a sentence when there is nothing to draw.
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let finite = |(x, y): &&(f64, f64)| x.is_finite() && y.is_finite();
        if points().filter(finite).count() < 2 {
            return format!("<p>{}: too few values for a plot.</p>", escape(self.title));
        }
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let greatest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let x_axis = Axis {
            scale: Scale::Linear,
            min: least(&mut points().map(|p| p.0)),
            max: greatest(&mut points().map(|p| p.0)).max(1e-9),
            start: LEFT,
            length: WIDTH - LEFT - RIGHT,
        };
        let y_max = greatest(&mut points().map(|p| p.1)).max(1e-9);
        let y_min = match self.y_scale {
            Scale::Linear => 0.0,
            Scale::Logarithmic => {
                least(&mut points().map(|p| p.1).filter(|y| *y > 0.0)).min(y_max / 2.0) * 0.9
            }
        };
        let y_axis = Axis {
            scale: self.y_scale,
            min: y_min,
            max: y_max * 1.08,
            start: HEIGHT - BOTTOM,
            length: TOP + BOTTOM - HEIGHT,
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n<text x=\"{LEFT}\" \
             y=\"16\" class=\"title\">{}</text>\n",
            escape(self.title),
            escape(self.title)
        );
        // Writing to a String cannot fail.
        let _ = self.draw(&mut svg, &x_axis, &y_axis);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw(&self, svg: &mut String, x_axis: &Axis, y_axis: &Axis) -> std::fmt::Result {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y_axis.ticks() {
            let y = y_axis.place(tick);
            writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                escape(&(self.y_label)(tick))
            )?;
        }
        let x_ticks = match self.x_ticks.is_empty() {
            true => x_axis.ticks().into_iter().map(|x| (x, short(x))).collect(),
            false => self.x_ticks.clone(),
        };
        for (tick, label) in x_ticks {
            let x = x_axis.place(tick);
            if x > right + 1.0 {
                continue;
            }
            writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escape(&label)
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            escape(self.x_title)
        )?;
        for (index, series) in self.series.iter().enumerate() {
            let mut path = String::new();
            for (x, y) in thinned(&series.points) {
                let letter = if path.is_empty() { 'M' } else { 'L' };
                write!(path, "{letter}{:.1} {:.1}", x_axis.place(x), y_axis.place(y))?;
            }
            let x = right - 130.0 * (self.series.len() - index) as f64;
            writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
                 <path d=\"M{x:.1} 12h16\" stroke=\"{colour}\" stroke-width=\"3\"/>\
                 <text x=\"{:.1}\" y=\"16\">{}</text>",
                x + 21.0,
                escape(&series.name),
                colour = series.colour
            )?;
        }
        Ok(())
    }
}

/// The greatest point of each group, so that peaks stay.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS_MAX).max(1);
    let peak = |group: &[(f64, f64)]| group.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(group).filter_map(peak).collect()
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Text that is safe inside HTML and attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, min: f64, max: f64) -> Axis {
        Axis { scale, min, max, start: 0.0, length: 100.0 }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(axis(Scale::Linear, 0.0, 10.0).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(axis(Scale::Logarithmic, 3.0, 60.0).ticks(), [5.0, 10.0, 20.0, 50.0]);
        assert!((axis(Scale::Logarithmic, 10.0, 1000.0).place(100.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn peaks_survive_thinning() {
        let mut points: Vec<(f64, f64)> = (0..50_000).map(|i| (f64::from(i), 1.0)).collect();
        points[31_234].1 = 99.0;
        let thinned = thinned(&points);
        assert!(thinned.len() <= POINTS_MAX);
        assert!(thinned.iter().any(|p| p.1 == 99.0));
    }

    #[test]
    fn too_few_points_are_said_and_text_is_escaped() {
        let plot = Plot {
            title: "a<b",
            x_title: "",
            y_scale: Scale::Linear,
            x_ticks: Vec::new(),
            y_label: short,
            series: Vec::new(),
        };
        assert!(plot.svg().contains("a&lt;b"));
        assert!(plot.svg().starts_with("<p>"));
    }
}
