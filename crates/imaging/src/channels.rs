//! Converts the channels of a decoded picture to those that were asked for.

use std::fmt;

use crate::{Image, ImagingError, Reading, Result, Samples, alpha::Tone, picture::map_samples};

/// Channels as they are in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// All channels.
    pub(crate) channels: usize,
    /// Whether the last one is alpha.
    pub(crate) has_alpha: bool,
    /// Leading channels that are grey (1) or red, green and blue (3), if the others can be left out; otherwise all.
    pub(crate) colours: usize,
}

impl Layout {
    /// The channels of a picture without alpha.
    pub(crate) fn plain(channels: usize) -> Self {
        Self {
            channels,
            has_alpha: false,
            colours: channels,
        }
    }

    /// How the channels asked for are made, or `None` if they cannot be.
    fn plan(self, asked: Option<usize>) -> Option<Plan> {
        let kept = if self.has_alpha {
            self.channels - 1
        } else {
            self.channels
        };
        let asked = asked.unwrap_or(self.channels);
        let alpha = match asked {
            _ if asked == self.channels && (!self.has_alpha || matches!(asked, 2 | 4)) => {
                return Some(Plan::Keep);
            }
            4 if matches!(kept, 1 | 3) && self.has_alpha => Some(true),
            4 if matches!(kept, 1 | 3) => Some(false),
            _ => None,
        };
        match (self.colours, alpha.map_or(asked, |_| 3)) {
            (1, 1) | (3, 3) => Some(Plan::Colours { alpha }),
            (3, 1) => Some(Plan::Grey),
            (1, 3) => Some(Plan::Repeat { alpha }),
            // An alpha channel next to other channels than grey and colours.
            (n, asked) if n == asked && self.has_alpha => Some(Plan::Colours { alpha }),
            _ => None,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.channels;
        match (self.colours, self.has_alpha) {
            (1, false) if n == 1 => f.write_str("1 (grey)"),
            (1, true) if n == 2 => f.write_str("2 (grey and alpha)"),
            (3, false) if n == 3 => f.write_str("3 (red, green, blue)"),
            (3, true) if n == 4 => f.write_str("4 (red, green, blue, alpha)"),
            (3, false) => write!(f, "{n} (red, green, blue and {} more)", n - 3),
            (_, true) => write!(f, "{n} (the last is alpha)"),
            _ => write!(f, "{n}"),
        }
    }
}

impl Image {
    /// The picture with another number of channels, as [`Reading`] converts them: grey is repeated or made with Pillow's weights, and alpha is
    /// opaque.
    ///
    /// # Errors
    /// Fails if these channels cannot be made from the picture's.
    pub fn with_channels(mut self, channels: usize) -> Result<Self> {
        let reading = Reading {
            channels: Some(channels),
            ..Reading::default()
        };
        let layout = Layout::plain(self.channels);
        let range = self.depth().full_range();
        match convert(&mut self, layout, &reading, range) {
            Some(_) => Ok(self),
            None => Err(ImagingError::Channels {
                origin: "picture in memory".to_owned(),
                expected: channels,
                found: layout.to_string(),
            }),
        }
    }
}

/// How channels are made. `alpha` is `Some` if the result has it: from the file, or opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// All as they are.
    Keep,
    /// The colours.
    Colours { alpha: Option<bool> },
    /// The grey of the colours.
    Grey,
    /// Grey three times.
    Repeat { alpha: Option<bool> },
}

/// Converts to the channels of `reading`, and returns whether a pixel was not opaque and composed on the background; `None` if the channels
/// cannot be made.
///
/// Works in place unless pixels grow, so that a large picture is in memory once.
pub(crate) fn convert(
    image: &mut Image,
    layout: Layout,
    reading: &Reading,
    range: [f64; 2],
) -> Option<bool> {
    let plan = layout.plan(reading.channels)?;
    let samples = std::mem::replace(&mut image.samples, Samples::U8(Vec::new()));
    let transparent;
    image.samples = map_samples!(samples, values => {
        let (values, composed) = converted(values, layout, plan, reading, range);
        transparent = composed;
        values
    });
    image.channels = image.samples.len() / (image.width * image.height).max(1);
    Some(transparent)
}

fn converted<T: Tone>(
    mut values: Vec<T>,
    layout: Layout,
    plan: Plan,
    reading: &Reading,
    range: [f64; 2],
) -> (Vec<T>, bool) {
    let n = layout.channels;
    let keeps_alpha = matches!(
        plan,
        Plan::Keep | Plan::Colours { alpha: Some(_) } | Plan::Repeat { alpha: Some(_) }
    );
    let mut transparent = false;
    let opaque = T::from_level(255, range);
    if layout.has_alpha && !keeps_alpha {
        let background = reading.background.map(|level| T::from_level(level, range));
        let background = match layout.colours {
            3 => background,
            _ => [T::luma(background); 3],
        };
        for pixel in values.chunks_exact_mut(n) {
            let alpha = pixel[n - 1];
            if alpha != opaque {
                transparent = true;
                if !reading.as_pillow {
                    for (c, level) in pixel[..n - 1].iter_mut().enumerate() {
                        *level = level.over(background[c.min(2)], alpha, range);
                    }
                }
            }
        }
    }
    let values = match plan {
        Plan::Keep => values,
        Plan::Colours { alpha: None } => {
            compact(&mut values, n, layout.colours);
            values
        }
        Plan::Grey => {
            for i in 0..values.len() / n {
                let at = n * i;
                values[i] = T::luma([values[at], values[at + 1], values[at + 2]]);
            }
            values.truncate(values.len() / n);
            values
        }
        Plan::Repeat { alpha: None } => {
            let mut out = Vec::with_capacity(3 * (values.len() / n));
            out.extend(values.chunks_exact(n).flat_map(|pixel| [pixel[0]; 3]));
            out
        }
        Plan::Colours { alpha: Some(_) } => {
            let pixels = values.chunks_exact(n);
            let mut out = Vec::with_capacity(4 * pixels.len());
            out.extend(pixels.flat_map(|p| [p[0], p[1], p[2], opaque]));
            out
        }
        Plan::Repeat {
            alpha: Some(from_file),
        } => {
            let pixels = values.chunks_exact(n);
            let mut out = Vec::with_capacity(4 * pixels.len());
            out.extend(pixels.flat_map(|p| {
                let alpha = if from_file { p[n - 1] } else { opaque };
                [p[0], p[0], p[0], alpha]
            }));
            out
        }
    };
    (values, transparent)
}

/// Keeps the first `kept` of `n` channels.
pub(crate) fn compact<T: Copy>(values: &mut Vec<T>, n: usize, kept: usize) {
    if n == kept {
        return;
    }
    for i in 0..values.len() / n {
        values.copy_within(n * i..n * i + kept, kept * i);
    }
    values.truncate(values.len() / n * kept);
}
