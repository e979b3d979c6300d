//! Converts the depth of a decoded picture, and checks its range.

use crate::{Depth, Image, ImagingError, Reading, Result, Samples};

/// The values of a file that are black and white: its own range, or all levels of its depth.
pub(crate) fn file_range(image: &Image, own: Option<[f64; 2]>) -> [f64; 2] {
    own.unwrap_or_else(|| image.depth().full_range())
}

/// Converts to the depth of `reading`. Without a range, 16 bits keep their upper byte and 8 bits are repeated in both bytes; other
/// conversions map the range of the file to the range of the result.
pub(crate) fn convert(image: &mut Image, reading: &Reading, from: [f64; 2]) {
    let Some(depth) = reading.depth.filter(|&depth| depth != image.depth()) else {
        return;
    };
    let samples = std::mem::replace(&mut image.samples, Samples::U8(Vec::new()));
    image.samples = match (samples, depth, reading.range) {
        (Samples::U16(values), Depth::U8, None) => {
            Samples::U8(values.into_iter().map(|v| (v >> 8) as u8).collect())
        }
        (Samples::U8(values), Depth::U16, None) => {
            Samples::U16(values.into_iter().map(|v| u16::from(v) * 257).collect())
        }
        (samples, _, range) => mapped(&samples, depth, from, range),
    };
}

fn mapped(samples: &Samples, depth: Depth, from: [f64; 2], range: Option<[f64; 2]>) -> Samples {
    let [low, high] = range.unwrap_or_else(|| depth.full_range());
    let scale = (high - low) / (from[1] - from[0]);
    let all: Box<dyn Iterator<Item = f64>> = match samples {
        Samples::U8(values) => Box::new(values.iter().map(|&v| v.into())),
        Samples::U16(values) => Box::new(values.iter().map(|&v| v.into())),
        Samples::F32(values) => Box::new(values.iter().map(|&v| v.into())),
    };
    let all = all.map(|v| (v - from[0]) * scale + low);
    // Casts clamp to the levels of the type.
    match depth {
        Depth::U8 => Samples::U8(all.map(|v| (v + 0.5).floor() as u8).collect()),
        Depth::U16 => Samples::U16(all.map(|v| (v + 0.5).floor() as u16).collect()),
        Depth::F32 => Samples::F32(all.map(|v| v as f32).collect()),
    }
}

/// Clamps samples to a range that was given, and returns how many were outside. A float outside its range is an error if none was given,
/// and so is NaN; a reading of the file's own depth without a range accepts any value.
pub(crate) fn check(
    image: &mut Image,
    reading: &Reading,
    file: [f64; 2],
    origin: &str,
) -> Result<usize> {
    if let Samples::F32(values) = &image.samples
        && (reading.range.is_some() || reading.depth.is_some())
    {
        let found = values.iter().filter(|v| !v.is_finite()).count();
        if found > 0 {
            return Err(ImagingError::Values {
                origin: origin.to_owned(),
                found: format!("{found} of {} values are NaN or infinite", values.len()),
                expected: "numbers; replace missing values, for example by 0".to_owned(),
            });
        }
    }
    match (reading.range, &mut image.samples) {
        (Some(range), Samples::U8(values)) => Ok(clamp(values, range, |v| v as u8)),
        (Some(range), Samples::U16(values)) => Ok(clamp(values, range, |v| v as u16)),
        (Some(range), Samples::F32(values)) => Ok(clamp(values, range, |v| v as f32)),
        (None, Samples::F32(values)) if reading.depth.is_some() => {
            let fold = |start: f32, of: fn(f32, f32) -> f32| values.iter().copied().fold(start, of);
            let (min, max) = (
                fold(f32::INFINITY, f32::min),
                fold(f32::NEG_INFINITY, f32::max),
            );
            let [low, high] = file;
            if f64::from(min) < low || f64::from(max) > high {
                return Err(ImagingError::Values {
                    origin: origin.to_owned(),
                    found: format!("values from {min} to {max}"),
                    expected: format!(
                        "values from {low} to {high}; set data.depth = \"float\" and data.range = [low, high] to the values that are \
                         black and white"
                    ),
                });
            }
            Ok(0)
        }
        (None, _) => Ok(0),
    }
}

fn clamp<T: Copy + Into<f64>>(
    values: &mut [T],
    [low, high]: [f64; 2],
    narrow: impl Fn(f64) -> T,
) -> usize {
    let mut outside = 0;
    for value in values {
        let v: f64 = (*value).into();
        if v < low || v > high {
            outside += 1;
            *value = narrow(v.clamp(low, high));
        }
    }
    outside
}
