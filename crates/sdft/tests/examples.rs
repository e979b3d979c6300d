//! The examples run, and the README shows a part of one.

use sdft::candle::{Device, Tensor};
use sdft::diffusion::{Clip, Diffusion, GaussianDenoiser, Variance};
use sdft::gallery::Outcome;
use sdft::imaging::{Limits, Rgb8, decode_file, write_png};
use sdft::jobs::DIGITS_SOURCE;
use sdft::randn::SeededNoise;
use sdft::samplers::{Ddim, sample_ddim};
use sdft::schedule::{BetaSchedule, Schedule};
use sdft::train::{Ending, NoopProgress, Progress, StepReport, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

// The tests call functions of the examples, but not their `main`.
#[allow(dead_code)]
#[path = "../examples/distillation_weight.rs"]
mod distillation_weight;
#[allow(dead_code)]
#[path = "../examples/fid.rs"]
mod fid;
#[allow(dead_code)]
#[path = "../examples/fine_tune.rs"]
mod fine_tune;
#[allow(dead_code)]
#[path = "../examples/jobs.rs"]
mod jobs;
#[allow(dead_code)]
#[path = "../examples/sample.rs"]
mod sample;
#[allow(dead_code)]
#[path = "../examples/sampler.rs"]
mod sampler;
#[allow(dead_code)]
#[path = "../examples/sdedit.rs"]
mod sdedit;

/// Stops a run after some steps.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        self.1.store(report.step >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_network_of_ones_own_is_fine_tuned_stopped_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let setup = || fine_tune::setup(dir.path()).unwrap();
    let ending = run(setup(), &stop, &mut StopAfter(10, &stop)).unwrap();
    assert!(matches!(ending, Ending::Interrupted { .. }), "{ending:?}");
    stop.store(false, Ordering::Relaxed);
    let ending = run(setup(), &stop, &mut NoopProgress).unwrap();
    let Ending::Finished { model, shown } = ending else {
        panic!("{ending:?}")
    };
    assert!(shown.is_file());
    let log = std::fs::read_to_string(dir.path().join("run/log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 6, "{log}");
    let source = std::fs::read(dir.path().join("source.safetensors")).unwrap();
    assert_ne!(std::fs::read(model).unwrap(), source);
}

#[test]
fn samples_of_the_embedded_model_do_not_depend_on_their_number() {
    let two = sample::sample(DIGITS_SOURCE, 2, 3).unwrap();
    let three = sample::sample(DIGITS_SOURCE, 3, 3).unwrap();
    assert_eq!(two[..], three[..2]);
    assert_ne!(three[2], three[1]);
}

#[test]
fn sdedit_makes_an_image_of_each_input_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir(&input).unwrap();
    let image = Rgb8::filled(16, 16, [200, 40, 40]);
    for name in ["a.png", "b.png"] {
        write_png(&input.join(name), &image).unwrap();
    }
    let outcome = sdedit::sdedit(DIGITS_SOURCE, &input, &out, 0.3).unwrap();
    let Outcome::Done(filled) = outcome else {
        panic!("{outcome:?}")
    };
    filled.check().unwrap();
    let made = |name: &str| decode_file(&out.join(name), &Limits::default()).unwrap();
    assert_ne!(made("a.png"), image);
    assert_ne!(made("a.png"), made("b.png"));
}

#[test]
fn the_distance_of_folders_is_zero_for_the_same_and_grows_with_their_difference() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str, brightness: u8| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for i in 0..12u8 {
            let image = Rgb8::filled(8, 8, [brightness + 3 * i, 7 * i, 90 - 5 * i]);
            write_png(&folder.join(format!("{i}.png")), &image).unwrap();
        }
        folder
    };
    let (real, near, far) = (folder("real", 0), folder("near", 20), folder("far", 120));
    let distance = |other: &Path| fid::fid_of_thumbnails([&real, other]).unwrap().value;
    assert!(distance(&real).abs() < 1e-6);
    assert!(distance(&near) > 0.01 && distance(&far) > 4.0 * distance(&near));
    let missing = fid::fid_of_inception([&real, &near], &dir.path().join("none.pth"));
    assert!(missing.unwrap_err().to_string().contains("none.pth"));
}

#[test]
fn the_sampler_is_closer_to_the_exact_flow_than_ddim() {
    let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    let model = GaussianDenoiser::new(full.alpha_bar(), 0.2, 0.5);
    let respaced = full.respaced(&"ddim20".parse().unwrap()).unwrap();
    let ab = respaced.alpha_bar().to_vec();
    let diffusion = Diffusion::new(respaced, Variance::FixedLarge);
    let mut noise = SeededNoise::new(0, 0);
    let x = noise.start(&[4, 3, 8, 8], &Device::Cpu).unwrap();
    let exact = model.flow(&x, ab[ab.len() - 1], 1.0).unwrap();
    let error = |images: Tensor| -> f32 {
        let squares = (images - &exact).unwrap().sqr().unwrap();
        squares
            .mean_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
            .sqrt()
    };
    let options = Ddim {
        clip: Clip::No,
        ..Ddim::default()
    };
    let ddim = sample_ddim(
        &diffusion,
        &model,
        &x,
        &options,
        &mut noise,
        &mut |_| Ok(()),
    );
    let (ddim, ours) = (
        error(ddim.unwrap()),
        error(sampler::dpm_solver(&diffusion, &model, &x).unwrap()),
    );
    assert!(ours < 0.5 * ddim, "{ours} against {ddim}");
}

#[test]
fn a_weight_of_ones_own_scales_the_distillation() {
    let reports = |weight| distillation_weight::train(2, weight).unwrap();
    let once = reports(distillation_weight::weight);
    let twice = reports(|snr| 2.0 * distillation_weight::weight(snr));
    // Student and source are equal at first, so that both runs take the same first step.
    assert_eq!(once[0], twice[0]);
    let [once, twice] = [once, twice].map(|reports| reports[1].distill.unwrap());
    assert!(
        once > 0.0 && (twice / once - 2.0).abs() < 1e-4,
        "{once} {twice}"
    );
}

#[test]
fn a_program_trains_samples_and_evaluates() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let report = jobs::digits(dir.path(), 2, &stop).unwrap().unwrap();
    assert!(report.text().contains("FID"), "{}", report.text());
    assert!(
        dir.path()
            .join("runs/digits-sdft/final.safetensors")
            .is_file()
    );
    assert!(dir.path().join("samples-grid.png").is_file());
}

#[test]
fn the_readme_shows_a_part_of_the_first_example() {
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once("## A network of your own\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    assert!(section.lines().count() < 25, "{section}");
    let (_, code) = section.split_once("```rust\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let lines =
        |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let example = lines(include_str!("../examples/fine_tune.rs"));
    for part in code.split("\n\n").map(lines) {
        assert!(
            example.windows(part.len()).any(|found| found == part),
            "{part:#?}"
        );
    }
}
