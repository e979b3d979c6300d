//! Scores of generated and translated digits.

use candle_core::{Device, Result, Tensor, bail};
use sdft_data::{Digits, Style};
use sdft_features::DigitsJudge;

/// Minimum confidence for a sample to count as its class.
const CONFIDENT: f32 = 0.8;
/// Minimum share of samples for a class to count as generated.
const DRAWN: f64 = 0.02;
/// Batch size of the judge.
const CHUNK: usize = 256;

/// Scores of a set of samples.
#[derive(Clone, Debug, PartialEq)]
pub struct DigitsScore {
    /// Number of samples.
    pub n: usize,
    /// Share of confident samples of classes absent from the target set, in the target style.
    pub coverage: f64,
    /// Share of samples in the target style.
    pub style: f64,
    /// Number of classes that make up at least 2 % of the samples.
    pub classes: usize,
    /// Share of samples classified as each digit.
    pub histogram: [f64; 10],
}

/// Scores samples; `present` are the classes of the target set.
///
/// # Shapes
/// - `samples`: `[N, 3, 16, 16]` in [-1, 1]
///
/// # Errors
/// Fails if the samples have another size or there are none.
pub fn score_digits(judge: &DigitsJudge, samples: &Tensor, present: &[u8]) -> Result<DigitsScore> {
    let n = samples.dim(0)?;
    if n == 0 {
        bail!("expected at least one sample, found none");
    }
    let (mut covered, mut styled, mut counts) = (0usize, 0usize, [0usize; 10]);
    for Seen {
        class,
        confidence,
        in_style,
    } in classify(judge, samples)?
    {
        let absent = !present.iter().any(|&p| usize::from(p) == class);
        counts[class] += 1;
        styled += usize::from(in_style);
        covered += usize::from(in_style && absent && confidence > CONFIDENT);
    }
    let share = |count: usize| count as f64 / n as f64;
    let histogram = counts.map(share);
    Ok(DigitsScore {
        n,
        coverage: share(covered),
        style: share(styled),
        classes: histogram.iter().filter(|share| **share >= DRAWN).count(),
        histogram,
    })
}

/// Scores of translated digits whose classes are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeptScore {
    /// Number of images.
    pub n: usize,
    /// Share that keeps its class.
    pub class: f64,
    /// Share in the target style.
    pub style: f64,
    /// Share that keeps its class in the target style.
    pub both: f64,
}

/// Scores translated images; `classes` are those of the inputs.
///
/// # Shapes
/// - `images`: `[N, 3, 16, 16]` in [-1, 1]
/// - `classes`: `N` digits
///
/// # Errors
/// Fails if the images have another size, there are none, or their number differs from that of the classes.
pub fn score_kept(judge: &DigitsJudge, images: &Tensor, classes: &[u8]) -> Result<KeptScore> {
    let n = images.dim(0)?;
    if n == 0 || n != classes.len() {
        bail!(
            "expected one class for each image, found {n} images and {} classes",
            classes.len()
        );
    }
    let (mut kept, mut styled, mut both) = (0usize, 0usize, 0usize);
    for (seen, &class) in classify(judge, images)?.iter().zip(classes) {
        let same = seen.class == usize::from(class);
        kept += usize::from(same);
        styled += usize::from(seen.in_style);
        both += usize::from(same && seen.in_style);
    }
    let share = |count: usize| count as f64 / n as f64;
    Ok(KeptScore {
        n,
        class: share(kept),
        style: share(styled),
        both: share(both),
    })
}

/// The judge's features of embedded digits of one class, the first `n` in each style, `[2 n, F]`. A direction between classes is computed
/// from them.
///
/// # Errors
/// Fails if the class does not exist or has fewer than `n` digits.
pub fn class_features(judge: &DigitsJudge, class: u8, n: usize) -> crate::Result<Tensor> {
    let digits = Digits::embedded()?;
    let labels = digits.labels().iter().enumerate();
    let these: Vec<usize> = labels
        .filter(|(_, label)| **label == class)
        .map(|(i, _)| i)
        .take(n)
        .collect();
    if n == 0 || these.len() < n {
        return Err(candle_core::Error::Msg(format!(
            "expected {n} digits of class {class}, found {}",
            these.len()
        ))
        .into());
    }
    let side = Digits::SIZE;
    let pixels: Vec<f32> = [Style::Chalk, Style::Ember]
        .into_iter()
        .flat_map(|style| these.iter().map(move |&i| (i, style)))
        .flat_map(|(i, style)| digits.render(i, style))
        .collect();
    let x = Tensor::from_vec(pixels, (2 * n, 3, side, side), &Device::Cpu)?;
    Ok(judge.classify(&x)?.features)
}

/// The judge's output for one image.
struct Seen {
    class: usize,
    confidence: f32,
    in_style: bool,
}

fn classify(judge: &DigitsJudge, images: &Tensor) -> Result<Vec<Seen>> {
    let n = images.dim(0)?;
    let mut all = Vec::with_capacity(n);
    for start in (0..n).step_by(CHUNK) {
        let seen = judge.classify(&images.narrow(0, start, CHUNK.min(n - start))?)?;
        let confidence = candle_nn::ops::softmax(&seen.heads[0], 1)?.to_vec2::<f32>()?;
        let style = seen.style.to_vec1::<f32>()?;
        for (probabilities, style) in confidence.iter().zip(style) {
            let mut class = 0;
            for (i, p) in probabilities.iter().enumerate() {
                if *p > probabilities[class] {
                    class = i;
                }
            }
            all.push(Seen {
                class,
                confidence: probabilities[class],
                in_style: style > 0.0,
            });
        }
    }
    Ok(all)
}

/// The background colour of samples between the source's style (0) and the target's (1).
///
/// The background is the frame of two pixels that no digit reaches.
///
/// # Shapes
/// - `samples`: `[N, 3, 16, 16]` in [-1, 1]
///
/// # Errors
/// Fails if the samples have another size or there are none.
pub fn tint(samples: &Tensor) -> crate::Result<f64> {
    let (n, _, h, w) = samples.dims4()?;
    let digits = Digits::embedded()?;
    if n == 0 || (h, w) != (Digits::SIZE, Digits::SIZE) {
        return Err(candle_core::Error::Msg(format!(
            "expected samples of {side}x{side}, found {n} of {w}x{h}",
            side = Digits::SIZE
        ))
        .into());
    }
    let all = 0..digits.labels().len();
    let style = |style| ground(all.clone().flat_map(|i| digits.render(i, style)));
    let (from, to) = (style(Style::Chalk), style(Style::Ember));
    let found = ground(samples.flatten_all()?.to_vec1::<f32>()?.into_iter());
    let dot = |a: [f64; 3], b: [f64; 3]| -> f64 {
        (0..3).map(|c| (a[c] - from[c]) * (b[c] - from[c])).sum()
    };
    Ok(dot(found, to) / dot(to, to))
}

/// The mean colour of the frames of consecutive images.
fn ground(values: impl Iterator<Item = f32>) -> [f64; 3] {
    let side = Digits::SIZE;
    let (mut sums, mut n) = ([0.0; 3], 0usize);
    for (i, value) in values.enumerate() {
        let (x, y, c) = (i % side, i / side % side, i / (side * side) % 3);
        if x.min(y).min(side - 1 - x).min(side - 1 - y) < 2 {
            sums[c] += f64::from(value);
            n += 1;
        }
    }
    sums.map(|sum| 3.0 * sum / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    #[test]
    fn the_tint_is_0_and_1_for_the_two_styles() {
        let digits = Digits::embedded().unwrap();
        let samples = |style| {
            let pixels: Vec<f32> = (0..200).flat_map(|i| digits.render(i, style)).collect();
            Tensor::from_vec(pixels, (200, 3, 16, 16), &Device::Cpu).unwrap()
        };
        let (chalk, ember) = (samples(Style::Chalk), samples(Style::Ember));
        assert!(tint(&chalk).unwrap().abs() < 0.01);
        assert!((tint(&ember).unwrap() - 1.0).abs() < 0.01);
        let half = ((chalk + ember).unwrap() / 2.0).unwrap();
        assert!((tint(&half).unwrap() - 0.5).abs() < 0.01);
        assert!(tint(&Tensor::zeros((1, 3, 8, 8), DType::F32, &Device::Cpu).unwrap()).is_err());
    }
}
