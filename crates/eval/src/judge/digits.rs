//! Training the judge of the digits.

use super::{Batch, HELD_OUT, shifted, train};
use candle_core::{DType, Device, Result, Tensor};
use sdft_data::{Digits, Style};
use sdft_features::{AttributeJudge, DigitsJudge};
use sdft_nn::Params;
use sdft_noise::{Draw, Purpose};

const STEPS: u64 = 1500;
const BATCH: u64 = 64;
const SIDE: usize = Digits::SIZE;

/// The judge's accuracy on held-out digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeReport {
    /// Share of held-out images, in both styles, with the right class.
    pub class_accuracy: f64,
    /// Share of held-out images with the right style.
    pub style_accuracy: f64,
    /// Number of held-out images, both styles together.
    pub n: usize,
}

/// Trains the judge on both styles and on blends of them, shifted and with noise. The same seed gives the same weights.
///
/// # Errors
/// Fails if a tensor operation fails.
pub fn train_judge(
    seed: u64,
    mut progress: impl FnMut(u64, u64, f64),
) -> Result<(Params, JudgeReport)> {
    let digits = Digits::embedded().map_err(candle_core::Error::wrap)?;
    let n = digits.labels().len();
    let (test, among): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| i % HELD_OUT == 0);
    let draw = |step| draw(&digits, &among, seed, step);
    let (judge, params) = train(&DigitsJudge::config(), seed, STEPS, draw, &mut progress)?;
    let report = evaluate(&digits, &test, &judge)?;
    Ok((params, report))
}

#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
fn draw(digits: &Digits, among: &[usize], seed: u64, step: u64) -> Batch {
    let (mut images, mut labels, mut style) = (Vec::new(), Vec::new(), Vec::new());
    for sample in 0..BATCH {
        let draw = Draw::new(seed, Purpose::Judge, step, sample);
        let index = among[draw.below(0, among.len() as u64) as usize];
        // One third chalk, one third ember, one third in between.
        let ember = match draw.below(1, 3) {
            0 => 0.0,
            1 => 1.0,
            _ => draw.uniform(2) as f32,
        };
        let (dx, dy) = (draw.below(3, 5) as isize - 2, draw.below(4, 5) as isize - 2);
        let spread = 0.25 * draw.uniform(5) as f32;
        let (chalk, target) = (
            digits.render(index, Style::Chalk),
            digits.render(index, Style::Ember),
        );
        let noise = Draw::new(seed, Purpose::Judge, step, BATCH + sample).normals(chalk.len());
        for (i, noise) in noise.into_iter().enumerate() {
            let (x, y, plane) = (i % SIDE, i / SIDE % SIDE, i / (SIDE * SIDE) * SIDE * SIDE);
            let from = plane + shifted(y, dy, SIDE) * SIDE + shifted(x, dx, SIDE);
            images.push((1.0 - ember) * chalk[from] + ember * target[from] + spread * noise);
        }
        labels.push(Some(u32::from(digits.labels()[index])));
        style.push(Some(ember));
    }
    Batch {
        images,
        style,
        labels: vec![labels],
    }
}

fn evaluate(digits: &Digits, test: &[usize], judge: &AttributeJudge) -> Result<JudgeReport> {
    let (mut class_right, mut style_right) = (0usize, 0usize);
    for (style, is_ember) in [(Style::Chalk, false), (Style::Ember, true)] {
        let images: Vec<f32> = test.iter().flat_map(|&i| digits.render(i, style)).collect();
        let seen = judge.classify(&Tensor::from_vec(
            images,
            (test.len(), 3, SIDE, SIDE),
            &Device::Cpu,
        )?)?;
        let classes = seen.heads[0]
            .argmax(1)?
            .to_dtype(DType::U32)?
            .to_vec1::<u32>()?;
        class_right += test
            .iter()
            .zip(classes)
            .filter(|(i, class)| u32::from(digits.labels()[**i]) == *class)
            .count();
        style_right += seen
            .style
            .to_vec1::<f32>()?
            .into_iter()
            .filter(|logit| (*logit > 0.0) == is_ember)
            .count();
    }
    let n = 2 * test.len();
    let share = |right: usize| right as f64 / n as f64;
    Ok(JudgeReport {
        class_accuracy: share(class_right),
        style_accuracy: share(style_right),
        n,
    })
}
