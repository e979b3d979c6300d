//! Curves as SVG without colours of their own: the page's style colours them, for light and dark screens.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::error::Error as StdError;

/// Points of a curve, at most; more are averaged.
const POINTS: usize = 400;
/// Pixels of a chart; the page scales it.
const SIZE: (u32, u32) = (560, 280);
/// Distinct curves that the style has colours for.
pub(crate) const COLOURS: usize = 8;

/// Points from left to right.
pub(crate) type Points = Vec<(f64, f64)>;

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    /// The run or the term.
    pub(crate) name: String,
    pub(crate) points: Points,
    /// The standard error at some of them, by their place on the horizontal axis; drawn as a band of one error on each side.
    pub(crate) errors: Points,
    /// The number of its colour.
    pub(crate) colour: usize,
}

impl Curve {
    /// The points one error below the curve, and one above.
    fn band(&self) -> [Points; 2] {
        [-1.0, 1.0].map(|sign| {
            let at = |&(x, error): &(f64, f64)| {
                let point = self.points.iter().find(|point| point.0 == x)?;
                Some((x, point.1 + sign * error))
            };
            self.errors.iter().filter_map(at).collect()
        })
    }
}

/// Curves over the same axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    pub(crate) curves: Vec<Curve>,
    /// What the horizontal axis is.
    pub(crate) x: &'static str,
    /// Powers of ten on the horizontal axis; points at 0 and below are left out.
    pub(crate) log_x: bool,
    /// The same for the vertical axis.
    pub(crate) log_y: bool,
    /// Marks each point.
    pub(crate) marked: bool,
}

impl Chart {
    /// The picture, or `None` if no point can be shown.
    pub(crate) fn svg(&self) -> Option<String> {
        let shown: Vec<Points> = self
            .curves
            .iter()
            .map(|curve| thinned(&self.shown(&curve.points)))
            .collect();
        let bands: Vec<[Points; 2]> = self
            .curves
            .iter()
            .map(|curve| curve.band().map(|side| thinned(&self.shown(&side))))
            .collect();
        let all = || shown.iter().chain(bands.as_flattened()).flatten();
        let x = range(all().map(|point| point.0), self.log_x)?;
        let y = range(all().map(|point| point.1), self.log_y)?;
        let mut svg = String::new();
        let drawn = match (self.log_x, self.log_y) {
            (false, false) => self.draw(&mut svg, (&shown, &bands), x.0..x.1, y.0..y.1),
            (false, true) => {
                self.draw(&mut svg, (&shown, &bands), x.0..x.1, (y.0..y.1).log_scale())
            }
            (true, false) => {
                self.draw(&mut svg, (&shown, &bands), (x.0..x.1).log_scale(), y.0..y.1)
            }
            (true, true) => self.draw(
                &mut svg,
                (&shown, &bands),
                (x.0..x.1).log_scale(),
                (y.0..y.1).log_scale(),
            ),
        };
        // Writing to a string fails for no input.
        drawn.ok().map(|()| themed(&svg))
    }

    fn shown(&self, points: &[(f64, f64)]) -> Points {
        let is_shown = |&&(x, y): &&(f64, f64)| {
            x.is_finite() && y.is_finite() && (!self.log_x || x > 0.0) && (!self.log_y || y > 0.0)
        };
        points.iter().filter(is_shown).copied().collect()
    }

    fn draw<X, Y>(
        &self,
        svg: &mut String,
        (shown, bands): (&[Points], &[[Points; 2]]),
        x: X,
        y: Y,
    ) -> Result<(), Box<dyn StdError>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let to_error = |error| format!("{error:?}");
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)
            .map_err(|error| to_error(error.to_string()))?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(TEXT)
            .label_style(("sans-serif", 13).into_font().color(&TEXT))
            .axis_desc_style(("sans-serif", 13).into_font().color(&TEXT))
            .draw()
            .map_err(|error| to_error(error.to_string()))?;
        for ((curve, points), [low, high]) in self.curves.iter().zip(shown).zip(bands) {
            let colour = curve_colour(curve.colour);
            let outline: Vec<_> = low.iter().chain(high.iter().rev()).copied().collect();
            if low.len() > 1 {
                let band = std::iter::once(Polygon::new(outline, colour.mix(0.18)));
                chart
                    .draw_series(band)
                    .map_err(|error| to_error(error.to_string()))?;
            }
            chart
                .draw_series(LineSeries::new(
                    points.iter().copied(),
                    colour.stroke_width(2),
                ))
                .map_err(|error| to_error(error.to_string()))?;
            // A single point has no line.
            if self.marked || points.len() == 1 {
                let dots = points.iter().map(|&at| Circle::new(at, 3, colour.filled()));
                chart
                    .draw_series(dots)
                    .map_err(|error| to_error(error.to_string()))?;
            }
        }
        drop(chart);
        area.present()
            .map_err(|error| to_error(error.to_string()).into())
    }
}

// Colours that stand for roles. The page's style replaces each by one for the reader's screen.
const TEXT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);

#[expect(clippy::cast_possible_truncation, reason = "less than eight")]
fn curve_colour(i: usize) -> RGBColor {
    RGBColor(3, 3, (i % COLOURS) as u8)
}

/// Replaces the roles by the style's variables, and lets the picture scale.
fn themed(svg: &str) -> String {
    let mut text = svg
        .replace("#010101", "var(--text)")
        .replace("#020202", "var(--grid)");
    for i in 0..COLOURS {
        text = text.replace(&format!("#03030{i}"), &format!("var(--curve-{i})"));
    }
    let (width, height) = SIZE;
    text.replacen(
        &format!("width=\"{width}\" height=\"{height}\" "),
        "aria-hidden=\"true\" ",
        1,
    )
}

/// At most [`POINTS`] points: means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Points {
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        let sum = part
            .iter()
            .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(size).map(mean).collect()
}

/// The ends of an axis, a little wider than the values.
fn range(values: impl Iterator<Item = f64>, log: bool) -> Option<(f64, f64)> {
    let ends = values.fold(None, |ends: Option<(f64, f64)>, value| {
        let (low, high) = ends.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    });
    let (low, high) = ends?;
    Some(match log {
        true if high / low < 1.05 => (low / 1.5, high * 1.5),
        true => (low / 1.05, high * 1.05),
        false if low == high => {
            let more = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low - more, high + more)
        }
        false => {
            let more = (high - low) * 0.03;
            (low - more, high + more)
        }
    })
}

/// A number with three digits, as in `0.0123`, `1.5e-4` or `20000`.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !value.is_finite() {
        value.to_string()
    } else if !(1e-3..1e5).contains(&size) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{power}", without_zeros(digits))
    } else {
        let digits = match size {
            100.0.. => 0,
            10.0.. => 1,
            1.0.. => 2,
            0.1.. => 3,
            0.01.. => 4,
            _ => 5,
        };
        without_zeros(&format!("{value:.digits$}")).to_owned()
    }
}

fn without_zeros(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, log_y: bool) -> Chart {
        let name = "loss".to_owned();
        Chart {
            curves: vec![Curve {
                name,
                points,
                errors: Vec::new(),
                colour: 0,
            }],
            x: "steps",
            log_x: false,
            log_y,
            marked: false,
        }
    }

    #[test]
    fn errors_are_a_band_around_the_curve_and_widen_the_axis() {
        let mut with = chart(vec![(0.0, 5.0), (10.0, 4.0), (20.0, 3.0)], false);
        let without = with.svg().unwrap();
        with.curves[0].errors = vec![(0.0, 1.0), (20.0, 9.0)];
        let [low, high] = with.curves[0].band();
        assert_eq!(low, [(0.0, 4.0), (20.0, -6.0)]);
        assert_eq!(high, [(0.0, 6.0), (20.0, 12.0)]);
        let svg = with.svg().unwrap();
        let polygons = |svg: &str| svg.matches("<polygon").count();
        assert_eq!((polygons(&without), polygons(&svg)), (0, 1));
        assert!(
            svg.contains("\n-5\n") && !without.contains("\n-5\n"),
            "{svg}"
        );
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.012_345, "0.0123"),
            (1234.5, "1234"),
            (0.000_123_4, "1.23e-4"),
            (2e6, "2e6"),
            (-0.5, "-0.5"),
            (f64::INFINITY, "inf"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_chart_has_the_styles_colours_and_no_fixed_size() {
        let svg = chart(
            (0..1000)
                .map(|i| (f64::from(i), 1.0 / f64::from(i + 1)))
                .collect(),
            true,
        )
        .svg()
        .unwrap();
        assert!(
            svg.contains("var(--curve-0)") && svg.contains("var(--text)"),
            "{svg}"
        );
        assert!(
            !svg.contains("#0") && !svg.contains("width=\"560\""),
            "{svg}"
        );
        assert!(svg.contains("viewBox"), "{svg}");
    }

    #[test]
    fn values_that_cannot_be_shown_are_left_out() {
        assert_eq!(chart(vec![(1.0, f64::NAN)], false).svg(), None);
        assert_eq!(chart(vec![(1.0, 0.0)], true).svg(), None);
        assert!(chart(vec![(1.0, 0.0)], false).svg().is_some());
        let both = chart(vec![(1.0, 0.0), (2.0, 3.0)], true);
        assert!(both.svg().is_some());
    }

    #[test]
    fn many_points_become_means() {
        let points: Vec<_> = (0..1000)
            .map(|i| (f64::from(i), f64::from(i % 2)))
            .collect();
        let few = thinned(&points);
        assert!(few.len() <= POINTS);
        let mean: f64 = few.iter().map(|p| p.1).sum::<f64>() / few.len() as f64;
        assert!((mean - 0.5).abs() < 0.2, "{mean}");
    }
}
