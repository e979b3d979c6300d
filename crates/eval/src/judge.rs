//! Training the judge of the digits.

use candle_core::{DType, Device, Result, Tensor};
use sdft_autograd::backward;
use sdft_data::{Digits, Style};
use sdft_features::DigitsJudge;
use sdft_nn::Params;
use sdft_noise::{Draw, Purpose};
use sdft_optim::{AdamW, Decay, LearningRate, Optimizer, Rule, collect_gradients};

const STEPS: u64 = 1500;
const BATCH: u64 = 64;
const SIDE: usize = 16;
/// Every tenth digit is held out for the test.
const HELD_OUT: usize = 10;

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
    let (test, train): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| i % HELD_OUT == 0);
    let (params, vars) = Params::init(&DigitsJudge::specs()?, seed, &Device::Cpu)?.trainable()?;
    let judge = DigitsJudge::load(&params)?;
    let mut optimizer =
        Optimizer::new(Rule::AdamW(AdamW::default()), &vars).map_err(candle_core::Error::wrap)?;
    let rate = LearningRate {
        base: 2e-3,
        warmup_steps: 50,
        decay: Decay::Cosine {
            steps: STEPS,
            floor: 0.05,
        },
    };
    for step in 0..STEPS {
        let batch = Batch::draw(&digits, &train, seed, step);
        let loss = batch.loss(&judge)?;
        let gradients = collect_gradients(&vars, &backward(&loss)?);
        optimizer
            .step(&gradients, rate.at(step), 1.0)
            .map_err(candle_core::Error::wrap)?;
        progress(step + 1, STEPS, f64::from(loss.to_scalar::<f32>()?));
    }
    let report = evaluate(&digits, &test, &judge)?;
    let frozen = params
        .iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.detach()))
        .collect();
    Ok((Params::new(frozen), report))
}

struct Batch {
    images: Vec<f32>,
    labels: Vec<u32>,
    /// The share of the target style in each image.
    ember: Vec<f32>,
}

impl Batch {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    fn draw(digits: &Digits, among: &[usize], seed: u64, step: u64) -> Self {
        let mut batch = Self {
            images: Vec::new(),
            labels: Vec::new(),
            ember: Vec::new(),
        };
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
                let from = plane + shifted(y, dy) * SIDE + shifted(x, dx);
                batch
                    .images
                    .push((1.0 - ember) * chalk[from] + ember * target[from] + spread * noise);
            }
            batch.labels.push(u32::from(digits.labels()[index]));
            batch.ember.push(ember);
        }
        batch
    }

    /// Cross-entropy of the class plus binary cross-entropy of the style.
    fn loss(self, judge: &DigitsJudge) -> Result<Tensor> {
        let n = self.labels.len();
        let seen = judge.classify(&Tensor::from_vec(
            self.images,
            (n, 3, SIDE, SIDE),
            &Device::Cpu,
        )?)?;
        let labels = Tensor::from_vec(self.labels, n, &Device::Cpu)?;
        let class = candle_nn::loss::cross_entropy(&seen.classes.contiguous()?, &labels)?;
        // The stable form of -y log s(l) - (1 - y) log(1 - s(l)): max(l, 0) - l y + log(1 + exp(-|l|)).
        let ember = Tensor::from_vec(self.ember, n, &Device::Cpu)?;
        let tail = (seen.style.abs()?.neg()?.exp()? + 1.0)?.log()?;
        let style = ((seen.style.relu()? - (&seen.style * ember)?)? + tail)?.mean_all()?;
        class + style
    }
}

#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "clamped to the image"
)]
fn shifted(at: usize, by: isize) -> usize {
    (at as isize - by).clamp(0, SIDE as isize - 1) as usize
}

fn evaluate(digits: &Digits, test: &[usize], judge: &DigitsJudge) -> Result<JudgeReport> {
    let (mut class_right, mut style_right) = (0usize, 0usize);
    for (style, is_ember) in [(Style::Chalk, false), (Style::Ember, true)] {
        let images: Vec<f32> = test.iter().flat_map(|&i| digits.render(i, style)).collect();
        let seen = judge.classify(&Tensor::from_vec(
            images,
            (test.len(), 3, SIDE, SIDE),
            &Device::Cpu,
        )?)?;
        let classes = seen
            .classes
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
