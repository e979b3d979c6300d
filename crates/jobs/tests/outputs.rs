//! Images of every form are sampled, translated and edited, and a stopped folder continues.

mod common;

use common::{
    Place, animals, contents, filled, never, read, run, spec, translated, write_classifier,
};
use sdft_asyrp::{DeltaBlock, DirectionInfo, write_direction};
use sdft_directions::EditMethod;
use sdft_gallery::Outcome;
use sdft_imaging::{Depth, Image, ImageSpec, Limits, Samples, decode_file};
use sdft_jobs::{
    CacheLocation, DIGITS, DirectionJob, DirectionOptions, EditOptions, RunOptions, SampleOptions,
    TranslateOptions, TranslationMethod, TuningJob, edit_folder, sample_to_folder,
    translate_folder,
};
use sdft_models::{LoadOptions, load_network};
use sdft_npz::Values;
use sdft_testing::nonzero_params;
use sdft_train::{Ending, Size};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Grey, 16 bits of which 12 are used, four and five channels, floats, and a rectangle.
fn forms() -> [ImageSpec; 6] {
    [
        spec(1, Depth::U8, [8, 8], [0.0, 255.0]),
        spec(1, Depth::U16, [8, 8], [0.0, 4095.0]),
        spec(4, Depth::U16, [8, 8], [0.0, 65_535.0]),
        spec(5, Depth::U8, [8, 8], [0.0, 255.0]),
        spec(1, Depth::F32, [8, 8], [-1000.0, 3000.0]),
        spec(3, Depth::U8, [24, 16], [0.0, 255.0]),
    ]
}

#[test]
fn samples_have_the_form_of_the_model_and_a_stopped_folder_continues() {
    for form in forms() {
        let place = Place::new(&form, None);
        let npz = |out: &str| SampleOptions {
            npz: true,
            ..place.samples(out)
        };
        let whole = place.sampled(&npz("whole"));
        let (report, ..) = run(1.5, |c| sample_to_folder(&npz("parts"), c));
        assert!(report.unwrap().complete < 3, "{form}");
        assert_eq!(place.sampled(&npz("parts")), whole, "{form}");

        let ending = form.ending();
        let first = read(&place.path(&format!("whole/00000.{ending}")), &form);
        assert!(fs::read_to_string(place.path("whole/plan.toml")).is_ok());
        // The array has the values of the files.
        let [c, h, w] = form.shape();
        let array = place.path(&format!("whole/samples_3x{h}x{w}x{c}.npz"));
        let arrays = sdft_npz::read_npz(&array).unwrap();
        assert_eq!(arrays["arr_0"].shape, [3, h, w, c]);
        match (&arrays["arr_0"].values, &first.samples) {
            (Values::U8(all), Samples::U8(first)) => assert_eq!(all[..first.len()], first[..]),
            (Values::U16(all), Samples::U16(first)) => assert_eq!(all[..first.len()], first[..]),
            (Values::F32(all), Samples::F32(first)) => assert_eq!(all[..first.len()], first[..]),
            other => panic!("{form}: {other:?}"),
        }
        assert!(!arrays.contains_key("arr_1"));
        let sheet = decode_file(&place.path("whole-grid.png"), &Limits::default()).unwrap();
        assert!(sheet.width >= w && sheet.height >= h);
    }
}

#[test]
fn inputs_are_translated_in_the_form_of_the_model_by_every_method() {
    use TranslationMethod::{Ddib, Egsde, Ilvr, Sdedit};
    for form in forms() {
        let place = Place::new(&form, None);
        let classifier = place.path("classifier.safetensors");
        write_classifier(&classifier, &form);
        place.sampled(&place.samples("in"));
        let name = format!("00001.{}", form.ending());
        let input = read(&place.path("in").join(&name), &form);
        for method in [Sdedit, Egsde, Ddib, Ilvr] {
            let out = format!("{method}");
            let options = TranslateOptions {
                method,
                classifier: Some(classifier.display().to_string()),
                source_model: (method == Ddib).then(|| place.model()),
                ..place.translation(&out, "in")
            };
            translated(&options);
            assert_ne!(read(&place.path(&out).join(&name), &form), input, "{form}");
        }
        // A share of 0 returns the input; a strip is a picture whatever the form is.
        let sweep = TranslateOptions {
            sweep: Some("t0=0,0.5".to_owned()),
            ..place.translation("sweep", "in")
        };
        let (done, _) = translated(&sweep);
        assert_eq!(read(&done.folders[0].join(&name), &form), input);
        let strip = place.path("sweep/strips/00001.png");
        assert!(decode_file(&strip, &Limits::default()).is_ok(), "{form}");
        let before = contents(&done.folders[1]);
        fs::remove_file(done.folders[1].join(&name)).unwrap();
        let (_, notes) = translated(&sweep);
        assert!(
            notes.iter().any(|n| n == "2 are complete and stay"),
            "{notes:?}"
        );
        // Sums of floats depend on the batch in their last bits.
        if form.depth != Depth::F32 {
            assert_eq!(contents(&done.folders[1]), before);
        }
    }
}

#[test]
fn inputs_of_other_forms_are_converted_with_a_note() {
    let grey = spec(1, Depth::U16, [8, 8], [0.0, 4095.0]);
    let place = Place::new(&grey, None);
    fs::create_dir(place.path("in")).unwrap();
    let put = |name: &str, spec: &ImageSpec, samples: Samples| {
        let image = Image::new(spec.width, spec.height, spec.channels, samples).unwrap();
        fs::write(place.path("in").join(name), spec.encode(&image).unwrap()).unwrap();
    };
    let rgb = spec(3, Depth::U8, [8, 8], [0.0, 255.0]);
    put("a.png", &rgb, Samples::U8(vec![255; 192]));
    let own = spec(1, Depth::U16, [8, 8], [0.0, 65_535.0]);
    put("b.png", &own, Samples::U16((4050..4114).collect()));
    let options = TranslateOptions {
        t0: 0.0,
        ..place.translation("out", "in")
    };
    let (_, notes) = translated(&options);
    for expected in [
        "1 image has 3 channels: converted to the model's 1",
        "1 image is of 8 bits: converted to the model's 16 bits",
        "1 image has values outside the range: clamped to it",
    ] {
        assert!(notes.iter().any(|note| note == expected), "{notes:?}");
    }
    let white = read(&place.path("out/a.png"), &grey);
    assert_eq!(white.samples, Samples::U16(vec![4095; 64]));
    let Samples::U16(clamped) = read(&place.path("out/b.png"), &grey).samples else {
        panic!("16 bits stay 16 bits")
    };
    assert_eq!((clamped[0], clamped[45], clamped[63]), (4050, 4095, 4095));
    // Five channels cannot become one.
    let five = spec(5, Depth::U8, [8, 8], [0.0, 255.0]);
    put("c.npy", &five, Samples::U8(vec![7; 320]));
    let (outcome, ..) = run(never(), |c| translate_folder(&options, c));
    let Outcome::Done(done) = outcome.unwrap() else {
        panic!("it was not stopped")
    };
    let error = done.check().unwrap_err().to_string();
    assert!(error.contains("1 of 3 images failed"), "{error}");
    assert!(error.contains("c.npy") && error.contains('5'), "{error}");
}

#[test]
fn a_model_runs_at_other_sizes_that_it_can_halve() {
    let form = ImageSpec::rgb8(8, 8);
    let place = Place::new(&form, None);
    let wide = SampleOptions {
        size: Some(Size::new(16, 24)),
        ..place.samples("in")
    };
    place.sampled(&wide);
    read(&place.path("in/00000.png"), &ImageSpec::rgb8(24, 16));
    let translation = TranslateOptions {
        size: Some(Size::new(24, 8)),
        ..place.translation("out", "in")
    };
    translated(&translation);
    read(&place.path("out/00000.png"), &ImageSpec::rgb8(8, 24));
    // The model's own size is not recorded, so folders of older versions continue.
    let own = SampleOptions {
        size: Some(Size::new(8, 8)),
        ..place.samples("own")
    };
    let first = place.sampled(&own);
    assert_eq!(place.sampled(&place.samples("own")), first);
    // A file may state another size than that of its network, which can still be asked for.
    let stated = Place::new(&ImageSpec::rgb8(24, 16), None);
    let as_network = SampleOptions {
        size: Some(Size::new(8, 8)),
        ..stated.samples("small")
    };
    stated.sampled(&as_network);
    read(&stated.path("small/00000.png"), &ImageSpec::rgb8(8, 8));
    let odd = SampleOptions {
        size: Some(Size::new(15, 24)),
        ..place.samples("odd")
    };
    let (refused, _, started) = run(never(), |c| sample_to_folder(&odd, c));
    let error = refused.unwrap_err();
    assert!(error.is_usage() && started == 0, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("size 15x24") && text.contains("16x24"),
        "{text}"
    );
}

#[test]
fn the_light_part_of_a_mask_of_any_shape_keeps_the_input() {
    let form = spec(1, Depth::U16, [24, 16], [0.0, 65_535.0]);
    let place = Place::new(&form, None);
    place.sampled(&place.samples("in"));
    // The upper half is light.
    let mask = ImageSpec::new(1, Depth::U8, 32, 48);
    let levels = (0..48 * 32).map(|i| if i < 24 * 32 { 255 } else { 0 });
    let picture = Image::new(32, 48, 1, Samples::U8(levels.collect())).unwrap();
    fs::write(place.path("mask.png"), mask.encode(&picture).unwrap()).unwrap();
    let options = TranslateOptions {
        mask: Some(place.path("mask.png")),
        ..place.translation("out", "in")
    };
    translated(&options);
    let halves = |folder: &str| {
        let image = read(&place.path(folder).join("00000.png"), &form);
        [0, 12].map(|y| image.crop(0, y, 16, 12).unwrap())
    };
    let (before, after) = (halves("in"), halves("out"));
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
}

/// Writes a direction of a model.
fn write_block(model: &Path, path: &Path) {
    let model = load_network(model, &LoadOptions::default()).unwrap();
    let net = model.network().unwrap();
    let groups = model.architecture.norm_groups();
    let specs = DeltaBlock::specs(net.bottleneck(), groups).unwrap();
    let info = DirectionInfo {
        from: "plain".into(),
        to: "changed".into(),
        network_sha256: model.network_sha256().unwrap(),
        norm_groups: groups,
        t_0: 999,
        inversion: 4,
        steps: 4,
        t_edit: 300,
        t_boost: 0,
    };
    write_direction(path, &nonzero_params(specs, 5), &info, &BTreeMap::new()).unwrap();
}

#[test]
fn images_of_every_form_and_class_are_edited() {
    let with_classes = animals();
    let rectangle = spec(1, Depth::U16, [16, 24], [0.0, 65_535.0]);
    let cases = [
        (spec(1, Depth::U8, [8, 8], [0.0, 255.0]), None),
        (rectangle, None),
        (ImageSpec::rgb8(8, 8), Some(&with_classes)),
    ];
    for (form, classes) in cases {
        let place = Place::new(&form, classes);
        place.sampled(&place.samples("in"));
        write_block(
            &place.path("model.safetensors"),
            &place.path("block.safetensors"),
        );
        let edited = |strength: f64, class: Option<&str>| {
            let name = format!("{strength}-{}", class.unwrap_or_default());
            let options = EditOptions {
                model: place.model(),
                edits: vec![place.path("block.safetensors").display().to_string()],
                strengths: vec![strength],
                input: place.path("in"),
                out: place.path(&name),
                steps: Some(4),
                class: class.map(str::to_owned),
                cache: CacheLocation::Folder(place.path("cache")),
                ..EditOptions::default()
            };
            filled(run(never(), |c| edit_folder(&options, c)).0);
            read(&options.out.join(format!("00000.{}", form.ending())), &form)
        };
        let plain = edited(0.0, None);
        assert_ne!(edited(20.0, None), plain, "{form}");
        if classes.is_some() {
            assert_ne!(edited(0.0, Some("owl")), plain);
        }
    }
}

#[test]
fn edits_are_trained_on_a_grey_class_conditional_model() {
    let form = spec(1, Depth::U8, [16, 16], [0.0, 255.0]);
    let classes = animals();
    let place = Place::new(&form, Some(&classes));
    place.sampled(&place.samples("in"));
    let shared = [
        "goal.network=digits",
        "walk.inversion=3",
        "walk.steps=3",
        "output.samples=2",
        "output.sampler=3",
    ];
    let of_asyrp = ["walk.t_edit=300", "walk.t_boost=0"];
    let of_diffusionclip = ["loop.update=step", "optim.lr=0.01"];
    for (method, own) in [
        (EditMethod::Asyrp, of_asyrp),
        (EditMethod::DiffusionClip, of_diffusionclip),
    ] {
        let name = method.name();
        let set = shared.iter().chain(&own).map(|&set| set.to_owned());
        let options = DirectionOptions {
            method: Some(method),
            model: Some(place.model()),
            data: Some(DIGITS.to_owned()),
            from: Some("3".to_owned()),
            to: Some("2".to_owned()),
            class: Some("dog".to_owned()),
            epochs: Some(1),
            images: Some(2),
            cache: CacheLocation::Folder(place.path("cache")),
            run: RunOptions {
                set: set.collect(),
                out: place.path("runs"),
                name: Some(name.to_owned()),
                ..RunOptions::default()
            },
            ..DirectionOptions::default()
        };
        let (trained, ..) = run(never(), |c| match method {
            EditMethod::Asyrp => DirectionJob::new(&options, false, c)?.run(c),
            EditMethod::DiffusionClip => TuningJob::new(&options, c)?.run(c),
        });
        let Ending::Finished { model, .. } = trained.unwrap() else {
            panic!("it was not stopped")
        };
        let plan = fs::read_to_string(place.path("runs").join(name).join("plan.toml")).unwrap();
        assert!(plan.contains("class = 1"), "{plan}");
        let edited = |strength: f64| {
            let edit = EditOptions {
                model: place.model(),
                edits: vec![model.display().to_string()],
                strengths: vec![strength],
                input: place.path("in"),
                out: place.path(&format!("{name}-{strength}")),
                class: Some("dog".to_owned()),
                cache: options.cache.clone(),
                ..EditOptions::default()
            };
            filled(run(never(), |c| edit_folder(&edit, c)).0);
            read(&edit.out.join("00000.png"), &form)
        };
        assert_ne!(edited(20.0), edited(0.0), "{name}");
    }
}
