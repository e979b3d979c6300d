//! Guidance in every sampler equals the formula around separate predictions.

use candle_core::{DType, Result, Tensor};
use sdft_diffusion::{
    Condition, Continuous, Denoiser, Guided, Network, Prediction, PredictionType, Process,
};
use sdft_models::{Architecture, Classes};
use sdft_nn::Init;
use sdft_randn::SeededNoise;
use sdft_samplers::{
    Ancestral, Ddim, DpmSolver, Heun, Step, sample_ddim, sample_ddpm, sample_dpm, sample_heun,
};
use sdft_schedule::Respacing;
use sdft_testing::{max_abs_diff, nonzero_params, normal, tiny_config};
use serde_json::json;

const GUIDANCE: f64 = 2.5;

/// `null + guidance (class - null)`, with a prediction for each image and label.
struct ByHand<'a> {
    net: &'a dyn Network,
    labels: &'a [u32],
    null: u32,
}

impl Denoiser for ByHand<'_> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        let one = |i: usize, label: u32| {
            let condition = Condition {
                labels: Some(&[label]),
                ..Condition::default()
            };
            self.net
                .predict_with(&xt.narrow(0, i, 1)?, &t[i..=i], &condition)
        };
        let (mut outputs, mut variances) = (Vec::new(), Vec::new());
        let mut kind = PredictionType::Epsilon;
        for (i, &label) in self.labels.iter().enumerate() {
            let (class, null) = (one(i, label)?, one(i, self.null)?);
            kind = class.prediction_type;
            outputs.push(((class.output * GUIDANCE)? - (null.output * (GUIDANCE - 1.0))?)?);
            variances.extend(class.variance);
        }
        Ok(Prediction {
            output: Tensor::cat(&outputs, 0)?,
            prediction_type: kind,
            variance: match variances.is_empty() {
                true => None,
                false => Some(Tensor::cat(&variances, 0)?),
            },
        })
    }
}

fn models() -> Vec<Architecture> {
    let fields = [
        json!({
            "architecture": "unet2d", "sample_size": 8, "block_out_channels": [8], "down_block_types": ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4
        }),
        json!({
            "architecture": "edm", "img_resolution": 8,
            "model": { "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [] }
        }),
    ];
    let others = fields.map(|fields| serde_json::from_value(fields).unwrap());
    std::iter::once(tiny_config().into())
        .chain(others)
        .collect()
}

#[test]
fn guidance_is_the_formula_around_separate_predictions_in_every_sampler() {
    let names = ["cat", "dog"].map(str::to_owned).to_vec();
    let classes = Classes::new(names, true);
    for architecture in models() {
        let architecture = architecture.with_classes(Some(&classes));
        let name = architecture.title();
        let mut process = Process::default();
        if let Some(precond) = architecture.precond() {
            process.continuous = Some(Continuous::of(&precond));
            process.prediction_type = PredictionType::Sample;
        }
        let mut specs = architecture.specs().unwrap();
        for spec in &mut specs {
            // The last layers of SongUNet's blocks start almost at zero.
            if let Init::Uniform(bound) = spec.init
                && bound < 1e-3
            {
                spec.init = Init::Uniform(1e5 * bound);
            }
        }
        let params = nonzero_params(specs, 3);
        let kind = process.prediction_type;
        let net = architecture.load(&params, kind, DType::F32).unwrap();
        let (labels, null) = ([0, 1, 1], classes.null.unwrap());
        let guided = Guided {
            net: &*net,
            labels: &labels,
            null: Some(null),
            guidance: GUIDANCE,
        };
        let by_hand = ByHand {
            net: &*net,
            labels: &labels,
            null,
        };
        let learned = architecture.learns_variance();
        let diffusion = |steps: Respacing| process.diffusion(learned, &steps).unwrap();
        let some = || diffusion("ddim10".parse().unwrap());
        let [c, h, w] = architecture.image_shape();
        let x = normal(5, &[3, c, h, w]).to_dtype(DType::F32).unwrap();
        let step = &mut |_: &Step<'_>| Ok(());
        for sampler in ["ddim", "ddpm", "heun", "dpm"] {
            let mut draw = |denoiser: &dyn Denoiser| {
                let mut noise = SeededNoise::new(1, 0);
                let drawn = match sampler {
                    "ddim" => {
                        let options = Ddim {
                            eta: 0.5,
                            ..Ddim::default()
                        };
                        sample_ddim(&some(), denoiser, &x, &options, &mut noise, step)
                    }
                    "ddpm" => sample_ddpm(
                        &some(),
                        denoiser,
                        &x,
                        &Ancestral::default(),
                        &mut noise,
                        step,
                    ),
                    "heun" => {
                        let options = Heun {
                            steps: 6,
                            ..Heun::default()
                        };
                        let all = diffusion(Respacing::All);
                        sample_heun(&all, denoiser, &x, &options, &mut noise, step)
                    }
                    _ => {
                        let options = DpmSolver {
                            steps: 6,
                            ..DpmSolver::default()
                        };
                        sample_dpm(&diffusion(Respacing::All), denoiser, &x, &options, step)
                    }
                };
                drawn.unwrap()
            };
            let (found, expected, plain) = (
                draw(&guided),
                draw(&by_hand),
                draw(&Guided {
                    guidance: 1.0,
                    ..guided
                }),
            );
            let largest = max_abs_diff(&expected, &expected.zeros_like().unwrap());
            let error = max_abs_diff(&found, &expected) / largest;
            assert!(error < 1e-3, "{name} {sampler}: {error}");
            let effect = max_abs_diff(&found, &plain) / largest;
            assert!(
                effect > 10.0 * error && effect > 1e-3,
                "{name} {sampler}: {effect} {error}"
            );
        }
    }
}
