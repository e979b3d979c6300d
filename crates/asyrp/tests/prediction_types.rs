//! Inversion, edits and training do not depend on what the network predicts.

use candle_core::{Device, Result, Tensor};
use sdft_asyrp::{DeltaBlock, Direction, EditPlan, Mix, edit, invert, sequence, training_steps};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Denoiser, Diffusion, Edited, Prediction, PredictionType,
    Variance,
};
use sdft_nn::Params;
use sdft_randn::GivenNoise;
use sdft_schedule::{Schedule, linear_betas};

fn schedule() -> Schedule {
    Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000).unwrap()).unwrap()
}

/// `eps = 0.4 tanh(h)` with the features `h = x`, as a network of any prediction type.
struct Net {
    kind: PredictionType,
    diffusion: Diffusion,
}

impl Net {
    fn new(kind: PredictionType) -> Self {
        let diffusion = Diffusion::new(schedule(), Variance::FixedSmall);
        Self { kind, diffusion }
    }
}

impl Denoiser for Net {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        Ok(self.predict_edited(xt, t, &mut |_, _| Ok(None))?.plain)
    }
}

impl BottleneckNet for Net {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        let steps: Vec<usize> = t.iter().map(|&t| t as usize).collect();
        let of = |h: &Tensor| -> Result<Prediction> {
            let eps = Prediction::new((h.tanh()? * 0.4)?, PredictionType::Epsilon);
            let output = self.diffusion.convert(&eps, self.kind, xt, &steps)?;
            Ok(Prediction::new(output, self.kind))
        };
        let emb = Tensor::from_slice(t, (t.len(), 1), &Device::Cpu)?.affine(1e-3, 0.0)?;
        let changed = change(xt, &emb)?;
        Ok(Edited {
            plain: of(xt)?,
            changed: changed.map(|h| of(&h)).transpose()?,
            h: xt.clone(),
        })
    }

    fn bottleneck(&self) -> Bottleneck {
        Bottleneck {
            channels: 3,
            embedding: 1,
        }
    }
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    difference.to_scalar().unwrap()
}

#[test]
fn a_network_of_any_prediction_type_is_inverted_edited_and_trained_alike() {
    let x0: Vec<f32> = (0..48).map(|i| 0.5 * (0.3 * i as f32).sin()).collect();
    let x0 = Tensor::from_vec(x0, (1, 3, 4, 4), &Device::Cpu).unwrap();
    let steps = sequence(10, 500);
    let of = |kind: PredictionType| {
        let net = Net::new(kind);
        let specs = DeltaBlock::specs(net.bottleneck(), 1).unwrap();
        let params = Params::init(&specs, 3, &Device::Cpu).unwrap();
        let block = DeltaBlock::load(&params, net.bottleneck(), 1).unwrap();
        let mix = Mix::of(vec![Direction {
            block: &block,
            strength: 0.5,
        }]);
        let latent = invert(&net, &schedule(), &x0, &steps, &mut |_| Ok(())).unwrap();
        let plan = EditPlan {
            steps: steps.clone(),
            t_edit: 200,
            t_boost: 100,
        };
        let mut noise =
            GivenNoise::new(Tensor::ones((9, 1, 3, 4, 4), x0.dtype(), &Device::Cpu).unwrap());
        let edited = edit(
            &net,
            &schedule(),
            &latent,
            &mix,
            &plan,
            &mut noise,
            &mut |_| Ok(()),
        );
        let mut learned = Vec::new();
        training_steps(&net, &schedule(), &latent, &mix, &steps, &mut |step| {
            learned.extend([step.x0.clone(), step.origin.clone()]);
            Ok(())
        })
        .unwrap();
        (latent, edited.unwrap(), Tensor::stack(&learned, 0).unwrap())
    };
    let eps = of(PredictionType::Epsilon);
    assert!(worst(&eps.1, &x0) > 1e-2, "nothing was edited");
    for kind in [PredictionType::Sample, PredictionType::V] {
        let other = of(kind);
        assert!(worst(&other.0, &eps.0) < 1e-4, "{kind}");
        assert!(worst(&other.1, &eps.1) < 1e-4, "{kind}");
        assert!(worst(&other.2, &eps.2) < 1e-4, "{kind}");
    }
}
