//! Asyrp's step on the small network and a block that continues its filling.

use crate::{assert_tensor, fill, s, tiny};
use candle_core::Tensor;
use sdft_adm::Unet;
use sdft_asyrp::{DeltaBlock, Direction, Levels, Mix, step};
use sdft_diffusion::{Bottleneck, BottleneckNet, Denoiser};
use sdft_schedule::{Schedule, linear_betas};

/// Groups of the block's norms.
const GROUPS: usize = 32;

#[test]
fn asymmetric_steps_agree() {
    let config = tiny();
    let mut specs = Unet::specs(&config).unwrap();
    const SIZES: Bottleneck = Bottleneck {
        channels: 64,
        embedding: 128,
    };
    let of_block = DeltaBlock::specs(SIZES, GROUPS).unwrap();
    let place = specs.len();
    specs.extend(of_block.clone());
    let filled = fill(&specs, 0.1);
    let unet = Unet::load(&filled, &config).unwrap();
    assert_eq!((place, specs.len()), (144, 154));
    let block = DeltaBlock::load(&filled, unet.bottleneck(), GROUPS).unwrap();
    let schedule = Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000).unwrap()).unwrap();
    let ab = schedule.alpha_bar();
    let x = s(&[2, 3, 16, 16]);
    let mix = Mix::of(vec![Direction {
        block: &block,
        strength: 1.0,
    }]);
    let taken = |t: usize, next: Option<usize>, changed: bool, z: Option<&Tensor>| {
        let times = [t as f32; 2];
        let levels = Levels {
            alpha_bar: ab[t],
            alpha_bar_next: next.map_or(1.0, |next| ab[next]),
            eta: 1.0,
        };
        let (plain, other) = match changed {
            false => {
                let plain = unet.predict(&x, &times).unwrap();
                (plain.clone(), plain)
            }
            true => {
                let mut change = |h: &Tensor, emb: &Tensor| mix.apply(h, emb);
                let edited = unet.predict_edited(&x, &times, &mut change).unwrap();
                (edited.plain.clone(), edited.changed().clone())
            }
        };
        step(&x, &plain, &other, levels, z).unwrap()
    };
    let plain = taken(500, Some(400), false, None);
    let first = [-0.089_860_2, -0.036_060_6, 0.122_571_3];
    assert_tensor(&plain.next, 109.831_593, 1_481.921_087, &first, &[], 1e-5);
    let first = [-0.501_612_2, -0.462_186_3];
    assert_tensor(&plain.x0, 528.848_186, 3_368.384_076, &first, &[], 1e-5);

    let edited = taken(500, Some(400), true, None);
    let first = [-0.083_785_2, -0.027_895_4, 0.117_785_2];
    assert_tensor(&edited.next, 110.433_057, 1_488.583_371, &first, &[], 1e-5);
    let first = [-0.487_804_5, -0.443_627_8];
    assert_tensor(&edited.x0, 530.215_256, 3_381.276_94, &first, &[], 1e-5);

    let last = taken(0, None, false, None);
    let first = [-0.001_482_9, 0.048_086_1];
    for image in [&last.next, &last.x0] {
        assert_tensor(image, 17.506_584, 974.936_212, &first, &[], 1e-5);
    }
    let up = taken(400, Some(500), false, None);
    let first = [0.057_944_6, 0.105_732_8];
    assert_tensor(&up.next, -43.157_267, 678.645_776, &first, &[], 1e-5);

    // Below t_edit nothing is changed, and with quality boosting all noise is fresh.
    let z = x.ones_like().unwrap();
    let boosted = taken(200, Some(180), false, Some(&z));
    let first = [0.232_071_7, 0.278_542_0];
    assert_tensor(&boosted.next, 421.831_649, 1_042.731_76, &first, &[], 1e-5);
}
