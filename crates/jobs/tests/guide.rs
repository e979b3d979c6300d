//! Models are guided away from another model, in every sampler and translator.

mod common;

use candle_core::Device;
use common::{
    Place, animals, contents, never, run, spec, translated, write_classifier, write_model_of,
};
use sdft_diffusion::{Condition, Continuous, PredictionType, Process, SigmaInterval};
use sdft_imaging::{Depth, Image, ImageSpec, Samples};
use sdft_jobs::{
    Choice as _, Error, GuideOptions, SampleOptions, SamplerKind, TranslateOptions,
    TranslationMethod, WalkKind, sample_to_folder, translate_folder,
};
use sdft_models::{Architecture, Classes, LoadOptions, NetworkFile, load_network, save_network};
use sdft_randn::SeededNoise;
use sdft_testing::nonzero_params;
use sdft_train::Precision;
use serde_json::json;
use std::fs;
use std::path::Path;

const RGB: [usize; 2] = [8, 8];

fn rgb() -> ImageSpec {
    spec(3, Depth::U8, RGB, [0.0, 255.0])
}

fn process(prediction_type: PredictionType) -> Process {
    Process {
        prediction_type,
        ..Process::default()
    }
}

impl Place {
    /// Writes a guide, and returns the options to use it.
    fn guide(&self, classes: Option<&Classes>, process: &Process) -> GuideOptions {
        let path = self.path("guide.safetensors");
        write_model_of(&path, &rgb(), classes, 4, process);
        guide_in(&path)
    }

    /// Samples of the model, by a guide.
    fn guided(&self, out: &str, guide: &GuideOptions) -> SampleOptions {
        SampleOptions {
            guide: Some(guide.clone()),
            ..self.samples(out)
        }
    }
}

fn guide_in(path: &Path) -> GuideOptions {
    GuideOptions {
        model: path.display().to_string(),
        ..GuideOptions::default()
    }
}

fn weighted(guide: &GuideOptions, weight: f64) -> GuideOptions {
    GuideOptions {
        weight,
        ..guide.clone()
    }
}

fn within(guide: &GuideOptions, low: f64, high: f64) -> GuideOptions {
    GuideOptions {
        interval: Some(SigmaInterval { low, high }),
        ..guide.clone()
    }
}

fn refused<T: std::fmt::Debug>(result: (sdft_jobs::Result<T>, Vec<String>, usize)) -> Error {
    let (result, _, started) = result;
    let error = result.unwrap_err();
    assert_eq!(started, 0, "{error}");
    error
}

/// The values of the 8-bit images of a folder.
fn pixels(folder: &Path) -> Vec<i32> {
    let images = contents(folder).into_iter().map(|bytes| {
        let found = sdft_imaging::Reading::default().decode(&bytes, "image", 0);
        let Image { samples, .. } = found.unwrap().image;
        match samples {
            Samples::U8(values) => values,
            other => panic!("{other:?}"),
        }
    });
    images.flatten().map(i32::from).collect()
}

fn worst(a: &[i32], b: &[i32]) -> i32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).max().unwrap()
}

/// Deterministic DDIM, with `guide + 1.5 (model - guide)` of the noise: a model of v with classes, and a guide of the noise without.
#[test]
fn samples_with_a_guide_are_those_of_a_loop_by_hand() {
    let place = Place::new(&rgb(), None);
    let classes = animals();
    let of_model = process(PredictionType::V);
    let path = place.path("model.safetensors");
    write_model_of(&path, &rgb(), Some(&classes), 3, &of_model);
    let guide = place.guide(None, &Process::default());
    let options = SampleOptions {
        batch: 3,
        clip: false,
        ..place.guided("found", &guide)
    };
    let sampled = run(never(), |context| {
        // The loop is f32 on every processor.
        context.precision = Some(Precision::F32);
        sample_to_folder(&options, context)
    });
    sampled.0.unwrap();

    let load = |path: &Path| load_network(path, &LoadOptions::default()).unwrap();
    let [model, source] =
        [load(&path), load(Path::new(&guide.model))].map(|m| m.network().unwrap());
    let diffusion = of_model.diffusion(false, &"3".parse().unwrap()).unwrap();
    let alpha_bar = diffusion.schedule.alpha_bar();
    let mut x = SeededNoise::new(0, 0)
        .start(&[3, 3, 8, 8], &Device::Cpu)
        .unwrap();
    let labels = Condition {
        labels: Some(&[0, 1, 2]),
        ..Condition::default()
    };
    for t in (0..3).rev() {
        let times = [diffusion.schedule.timestep_map()[t] as f32; 3];
        let (a, s) = (alpha_bar[t].sqrt(), (1.0 - alpha_bar[t]).sqrt());
        let v = model.predict_with(&x, &times, &labels).unwrap().output;
        let eps = ((v * a).unwrap() + (&x * s).unwrap()).unwrap();
        let of_source = source.predict(&x, &times).unwrap().output;
        let eps = ((eps * 1.5).unwrap() - (of_source * 0.5).unwrap()).unwrap();
        let x0 = ((&x - (&eps * s).unwrap()).unwrap() / a).unwrap();
        let next = if t > 0 { alpha_bar[t - 1] } else { 1.0 };
        x = ((x0 * next.sqrt()).unwrap() + (eps * (1.0 - next).sqrt()).unwrap()).unwrap();
    }
    let by_hand = sdft_train::to_pictures(&x, &rgb()).unwrap();
    let by_hand = by_hand
        .into_iter()
        .flat_map(|image| match image.unwrap().samples {
            Samples::U8(values) => values,
            other => panic!("{other:?}"),
        });
    let by_hand: Vec<i32> = by_hand.map(i32::from).collect();
    let found = pixels(&options.out);
    assert!(worst(&found, &by_hand) <= 1, "{}", worst(&found, &by_hand));
    place.sampled(&SampleOptions {
        guide: None,
        out: place.path("plain"),
        ..options
    });
    assert!(worst(&found, &pixels(&place.path("plain"))) > 5);
}

#[test]
fn a_weight_of_1_is_the_model_and_0_the_guide_to_the_bit_with_every_sampler() {
    let place = Place::new(&rgb(), None);
    let guide = place.guide(None, &Process::default());
    for &sampler in SamplerKind::ALL.iter().map(|(kind, ..)| kind) {
        let drawn = |name: &str, model: &str, guide: Option<GuideOptions>| {
            place.sampled(&SampleOptions {
                model: model.to_owned(),
                sampler: Some(sampler),
                guide,
                ..place.samples(&format!("{sampler}-{name}"))
            })
        };
        let own = place.model();
        let plain = drawn("plain", &own, None);
        let others = drawn("others", &guide.model, None);
        let by = |name: &str, guide: &GuideOptions| drawn(name, &own, Some(guide.clone()));
        assert_eq!(by("one", &weighted(&guide, 1.0)), plain, "{sampler}");
        assert_eq!(by("zero", &weighted(&guide, 0.0)), others, "{sampler}");
        let itself = guide_in(Path::new(&own));
        assert_eq!(by("itself", &weighted(&itself, 3.0)), plain, "{sampler}");
        let guided = by("guided", &guide);
        assert!(guided.iter().zip(&plain).all(|(a, b)| a != b), "{sampler}");
        // All noise levels, none, and some.
        let all = by("all", &within(&guide, 0.0, f64::INFINITY));
        assert_eq!(all, guided, "{sampler}");
        let none = by("none", &within(&guide, 1e4, f64::INFINITY));
        assert_eq!(none, plain, "{sampler}");
        let some = by("some", &within(&guide, 0.0, 2.0));
        assert!(some != guided && some != plain, "{sampler}");
    }
}

#[test]
fn the_plan_records_the_guide_and_a_folder_of_other_values_is_refused() {
    let place = Place::new(&rgb(), None);
    let guide = place.guide(None, &Process::default());
    let (report, notes, _) = run(never(), |c| {
        sample_to_folder(&place.guided("out", &within(&guide, 0.2, 5.0)), c)
    });
    report.unwrap();
    let expected = format!(
        "guided by {} with weight 1.5 at noise levels above 0.2 up to 5",
        guide.model
    );
    assert!(notes.contains(&expected), "{notes:?}");
    let plan = fs::read_to_string(place.path("out/plan.toml")).unwrap();
    let hash = sdft_files::sha256_file(Path::new(&guide.model)).unwrap();
    for line in [
        format!("guide_sha256 = \"{hash}\""),
        "guide_weight = 1.5".to_owned(),
    ] {
        assert!(plan.contains(&line), "{plan}");
    }
    for (other, words) in [
        (None, "no guide"),
        (
            Some(weighted(&within(&guide, 0.2, 5.0), 2.0)),
            "guide_weight",
        ),
        (Some(guide.clone()), "guide_interval"),
        (Some(within(&guide, 0.2, 6.0)), "guide_interval"),
    ] {
        let options = SampleOptions {
            guide: other,
            ..place.samples("out")
        };
        let error = refused(run(never(), |c| sample_to_folder(&options, c)));
        assert!(error.to_string().contains(words), "{error}");
    }
    // A weight of 1 is no guide.
    place.sampled(&place.guided("one", &weighted(&guide, 1.0)));
    let plan = fs::read_to_string(place.path("one/plan.toml")).unwrap();
    assert!(!plan.contains("guide"), "{plan}");
}

#[test]
fn a_guide_that_does_not_fit_is_refused() {
    let place = Place::new(&rgb(), None);
    let guide = place.guide(None, &Process::default());
    let cosine = Process {
        noise_schedule: "cosine".to_owned(),
        ..Process::default()
    };
    let other = place.path("cosine.safetensors");
    write_model_of(&other, &rgb(), None, 4, &cosine);
    place.sampled(&place.samples("in"));
    for (guide, words) in [
        (guide_in(&other), "both models need the same noise schedule"),
        (
            weighted(&guide, -1.0),
            "guide_weight -1: expected 0 or more",
        ),
        (weighted(&guide, f64::NAN), "guide_weight NaN"),
        (
            within(&guide, 5.0, 0.2),
            "guide_interval 5,0.2: expected two noise levels",
        ),
        (within(&guide, -1.0, 2.0), "guide_interval -1,2"),
    ] {
        let sampled = place.guided("out", &guide);
        let error = refused(run(never(), |c| sample_to_folder(&sampled, c)));
        assert!(
            error.is_usage() && error.to_string().contains(words),
            "{error}"
        );
        let translated = TranslateOptions {
            guide: Some(guide),
            ..place.translation("out", "in")
        };
        let error = refused(run(never(), |c| translate_folder(&translated, c)));
        assert!(
            error.is_usage() && error.to_string().contains(words),
            "{error}"
        );
    }
    let missing = guide_in(&place.path("missing.safetensors"));
    let missing = place.guided("out", &missing);
    let error = refused(run(never(), |c| sample_to_folder(&missing, c)));
    assert!(error.to_string().contains("missing.safetensors"), "{error}");
    assert!(!place.path("out").exists());
}

#[test]
fn a_translation_by_a_guide_of_weight_0_is_that_of_the_guide() {
    use TranslationMethod::{Ddib, Egsde, Ilvr, Sdedit};
    use WalkKind::{Ancestral, Inside, Part};
    let place = Place::new(&rgb(), None);
    let guide = place.guide(None, &Process::default());
    let classifier = place.path("classifier.safetensors");
    write_classifier(&classifier, &rgb());
    place.sampled(&place.samples("in"));
    for (method, walk, t0) in [
        (Sdedit, Part, 0.5),
        (Sdedit, Inside, 0.5),
        (Sdedit, Ancestral, 0.02),
        (Egsde, Part, 0.5),
        (Ddib, Part, 0.5),
        (Ilvr, Part, 0.5),
    ] {
        let name_of = |name: &str| format!("{method}-{walk}-{name}");
        let out = |name: &str, model: &str, guide: Option<GuideOptions>| {
            let options = TranslateOptions {
                method,
                model: model.to_owned(),
                walk,
                t0,
                source_model: (method == Ddib).then(|| place.model()),
                classifier: (method == Egsde).then(|| classifier.display().to_string()),
                guide,
                ..place.translation(&name_of(name), "in")
            };
            translated(&options);
            contents(&options.out)
        };
        let own = place.model();
        let plain = out("plain", &own, None);
        let zero = out("zero", &own, Some(weighted(&guide, 0.0)));
        assert_eq!(zero, out("others", &guide.model, None), "{method} {walk}");
        let guided = out("guided", &own, Some(guide.clone()));
        assert!(guided != plain && guided != zero, "{method} {walk}");
        assert_eq!(out("one", &own, Some(weighted(&guide, 1.0))), plain);
        let plan = fs::read_to_string(place.path(&name_of("guided/plan.toml")));
        assert!(plan.unwrap().contains("guide_weight = 1.5"));
    }
}

#[test]
fn a_class_conditional_guide_is_asked_for_its_null_class() {
    let place = Place::new(&rgb(), Some(&animals()));
    let names = ["owl", "cat"].map(str::to_owned).to_vec();
    let drawn = |out: &str, guide: &GuideOptions, class: &str| {
        place.sampled(&SampleOptions {
            class: Some(class.to_owned()),
            ..place.guided(out, &weighted(guide, 0.0))
        })
    };
    // With a null class, the class of the model has no effect on the guide; without one, classes of the same name meet.
    let guide = place.guide(
        Some(&Classes::new(names.clone(), true)),
        &Process::default(),
    );
    assert_eq!(drawn("cat", &guide, "cat"), drawn("owl", &guide, "owl"));
    let guide = place.guide(Some(&Classes::new(names, false)), &Process::default());
    let (cat, owl) = (drawn("cat-0", &guide, "cat"), drawn("owl-0", &guide, "owl"));
    assert_ne!(cat, owl);
    for (class, expected) in [("cat", cat), ("owl", owl)] {
        let own = SampleOptions {
            model: guide.model.clone(),
            class: Some(class.to_owned()),
            ..place.samples(&format!("own-{class}"))
        };
        assert_eq!(place.sampled(&own), expected, "{class}");
    }
    // Guidance towards the class is applied to the model first: at the null class the class has no effect.
    let guide = place.guide(None, &Process::default());
    let of = |class: &str| {
        place.sampled(&SampleOptions {
            class: Some(class.to_owned()),
            guidance: Some(0.0),
            ..place.guided(&format!("null-{class}"), &guide)
        })
    };
    assert_eq!(of("cat"), of("owl"));
}

#[test]
fn channels_that_the_guide_has_not_learned_are_sampled_by_the_model() {
    let rgba = spec(4, Depth::U8, RGB, [0.0, 255.0]);
    let place = Place::new(&rgba, None);
    let guide = weighted(&place.guide(None, &Process::default()), 0.0);
    let (report, notes, _) = run(never(), |c| {
        sample_to_folder(&place.guided("guided", &guide), c)
    });
    report.unwrap();
    let expected = "has learned the first 3 of 4 channels; the model alone predicts the others";
    assert!(
        notes.iter().any(|note| note.contains(expected)),
        "{notes:?}"
    );
    let itself = guide_in(Path::new(&place.model()));
    place.sampled(&place.guided("itself", &weighted(&itself, 0.0)));
    let [guided, own] = ["guided", "itself"].map(|out| pixels(&place.path(out)));
    assert_eq!(guided.len(), own.len());
    assert_ne!(guided, own);
}

/// Writes a network of EDM.
fn write_edm(path: &Path, seed: u64) {
    let architecture: Architecture = serde_json::from_value(json!({
        "architecture": "edm", "img_resolution": 8,
        "model": { "model_type": "DhariwalUNet", "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [] }
    }))
    .unwrap();
    let process = Process {
        continuous: Some(Continuous::of(&architecture.precond().unwrap())),
        ..process(PredictionType::Sample)
    };
    let params = nonzero_params(architecture.specs().unwrap(), seed);
    let file = NetworkFile::new(&architecture, &process);
    save_network(path, &file, &params, None).unwrap();
}

#[test]
fn networks_of_different_kinds_meet_at_the_same_noise_levels() {
    let place = Place::new(&rgb(), None);
    let [model, other] = ["edm", "other"].map(|name| place.path(&format!("{name}.safetensors")));
    write_edm(&model, 3);
    write_edm(&other, 4);
    let adm = place.guide(None, &Process::default());
    let drawn = |out: &str, model: &Path, guide: Option<&GuideOptions>, sampler: SamplerKind| {
        let options = SampleOptions {
            model: model.display().to_string(),
            sampler: Some(sampler),
            guide: guide.map(|guide| weighted(guide, 0.0)),
            clip: false,
            ..place.samples(out)
        };
        place.sampled(&options);
        pixels(&options.out)
    };
    // Two networks of EDM meet at any sigma, to the bit.
    let alone = drawn("heun", &other, None, SamplerKind::Heun);
    let by = drawn("by-edm", &model, Some(&guide_in(&other)), SamplerKind::Heun);
    assert_eq!(alone, by);
    // EDM and ADM meet at the steps, up to the rounding of the conversion from noise to image.
    for sampler in [SamplerKind::Ddim, SamplerKind::Ddpm] {
        let alone = drawn(
            &format!("{sampler}-adm"),
            Path::new(&adm.model),
            None,
            sampler,
        );
        let by = drawn(&format!("{sampler}-by-adm"), &model, Some(&adm), sampler);
        assert!(worst(&alone, &by) <= 1, "{sampler}");
        let alone = drawn(&format!("{sampler}-edm"), &model, None, sampler);
        let edm = guide_in(&model);
        let by = drawn(
            &format!("{sampler}-by-edm"),
            Path::new(&adm.model),
            Some(&edm),
            sampler,
        );
        assert!(worst(&alone, &by) <= 1, "{sampler}");
    }
}
