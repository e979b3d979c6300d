//! ILVR, masks, repeats and the numbers of draws.

mod common;

use candle_core::{Device, Result, Tensor};
use common::{classifier, diffusion, gaussian, image, led, low_pass, noise, plain, unet, walks};
use sdft_diffusion::Clip;
use sdft_randn::{NoiseSource, NumberedNoise};
use sdft_testing::{max_abs_diff as worst, values};
use sdft_translators::{Energies, Guide, Ilvr, SdeditOptions, Walk, edit_step, ilvr, sdedit};

#[test]
fn what_the_mask_keeps_is_the_input() {
    let (unet, x0) = (unet(1), image(0, 2));
    let left: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i % 8 < 4))).collect();
    let mask = Tensor::from_vec(left, (1, 1, 8, 8), &Device::Cpu).unwrap();
    for walk in walks() {
        let edit = SdeditOptions {
            walk,
            start: Some(12),
            repeats: 2,
        };
        let out = plain(&diffusion("25"), &unet, &x0, Some(&mask), &edit);
        let half = |x: &Tensor, from| x.narrow(3, from, 4).unwrap();
        assert_eq!(values(&half(&out, 0)), values(&half(&x0, 0)), "{walk:?}");
        assert!(worst(&half(&out, 4), &half(&x0, 4)) > 0.05, "{walk:?}");
    }
}

#[test]
fn ilvr_takes_the_coarse_image_of_its_reference() {
    let model = gaussian(0.0, 0.3);
    let reference = image(0, 2);
    let filter = low_pass(4);
    let run = |free: usize| {
        let options = Ilvr {
            low_pass: filter.clone(),
            free,
            clip: Clip::Yes,
        };
        ilvr(
            &diffusion("100"),
            &model,
            &reference,
            &options,
            &mut noise(),
            &mut |_| Ok(()),
        )
        .unwrap()
    };
    let coarse = |x: &Tensor| filter.apply(x).unwrap();
    let led = worst(&coarse(&run(0)), &coarse(&reference));
    let free = worst(&coarse(&run(usize::MAX)), &coarse(&reference));
    assert!(led < 0.05 && free > 4.0 * led, "{led} {free}");
    // The fine image is the model's own.
    assert!(worst(&run(0), &reference) > 0.2);
}

#[test]
fn repeats_begin_with_the_last_result_and_follow_the_first_source() {
    let (unet, classifier, source) = (unet(1), classifier(), image(0, 2));
    let energies = Energies::new(&classifier, low_pass(4));
    let process = diffusion("25");
    let (walk, start) = (Walk::Ancestral, 3);
    // By hand, as EGSDE's sampler is written.
    let mut image = source.clone();
    for repeat in 0..2 {
        let draw = |k: usize| noise().normal(repeat * (start + 2) + k, &source).unwrap();
        let e = draw(0);
        let mut x = process.q_sample(&image, &[start; 2], &e).unwrap();
        for (k, t) in (0..=start).rev().enumerate() {
            let xt = process.q_sample(&source, &[t; 2], &e).unwrap();
            let z = draw(1 + k);
            let guide = Guide {
                energies: &energies,
                source: xt,
            };
            x = edit_step(&process, &unet, Some(&guide), &x, t, walk, Some(&z))
                .unwrap()
                .next;
        }
        image = x;
    }
    let edit = SdeditOptions {
        walk,
        start: Some(start),
        repeats: 2,
    };
    let out = led(&process, &unet, &energies, &source, &edit);
    assert_eq!(values(&out), values(&image));
}

#[test]
fn a_mask_holds_the_level_of_its_source_on_the_way() {
    let (unet, x0) = (unet(1), image(0, 2));
    let left: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i % 8 < 4))).collect();
    let mask = Tensor::from_vec(left, (1, 1, 8, 8), &Device::Cpu).unwrap();
    let process = diffusion("25");
    let e = noise().normal(0, &x0).unwrap();
    let kept = |x: &Tensor| values(&x.narrow(3, 0, 4).unwrap());
    for (walk, lag) in [(Walk::Ancestral, 0), (Walk::PAPER, 1)] {
        let edit = SdeditOptions {
            walk,
            start: Some(5),
            repeats: 1,
        };
        let mut seen = 0;
        sdedit(
            &process,
            &unet,
            &x0,
            Some(&mask),
            &edit,
            &mut noise(),
            &mut |step| {
                // SDEdit's ancestral sampler keeps the level that is left, DDIM's steps the one that is reached.
                let expected = match step.t.checked_sub(lag) {
                    Some(level) => process.q_sample(&x0, &[level; 2], &e)?,
                    None => x0.clone(),
                };
                assert_eq!(kept(step.x), kept(&expected), "{walk:?} {}", step.t);
                seen += 1;
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(seen, 6);
    }
}

#[test]
fn ilvr_follows_the_reference_above_a_step_and_is_free_below() {
    let (unet, reference) = (unet(1), image(0, 2));
    let process = diffusion("25");
    // A filter of factor 1 keeps everything, so the state is replaced by the reference.
    let options = Ilvr {
        low_pass: low_pass(1),
        free: 7,
        clip: Clip::Yes,
    };
    let mut followed = Vec::new();
    ilvr(
        &process,
        &unet,
        &reference,
        &options,
        &mut noise(),
        &mut |step| {
            if step.t > 0 {
                let e = noise().normal(2 + 2 * (step.done - 1), &reference)?;
                let at = process.q_sample(&reference, &[step.t - 1; 2], &e)?;
                if worst(step.x, &at) < 1e-4 {
                    followed.push(step.t);
                }
            }
            Ok(())
        },
    )
    .unwrap();
    let expected: Vec<usize> = (8..25).rev().collect();
    assert_eq!(followed, expected);
}

/// Counts what a walk draws.
struct Counted(Vec<usize>);

impl NoiseSource for Counted {
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
        self.0.push(draw);
        NumberedNoise::new(0, vec![0, 1]).normal(draw, like)
    }
}

#[test]
fn every_draw_has_its_number_whether_it_is_used_or_not() {
    let (unet, x0) = (unet(1), image(0, 2));
    let drawn = |walk| {
        let mut counted = Counted(Vec::new());
        let edit = SdeditOptions {
            walk,
            start: Some(2),
            repeats: 2,
        };
        sdedit(
            &diffusion("25"),
            &unet,
            &x0,
            None,
            &edit,
            &mut counted,
            &mut |_| Ok(()),
        )
        .unwrap();
        counted.0
    };
    assert_eq!(drawn(Walk::Ancestral), [0, 1, 2, 4, 5, 6]);
    assert_eq!(drawn(Walk::PAPER), [0, 4]);
}
