//! Images of every form are sampled, translated and edited, and a stopped folder continues.

mod common;

use common::{never, run};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Pool};
use sdft_asyrp::{DeltaBlock, DirectionInfo, write_direction};
use sdft_diffusion::Process;
use sdft_gallery::{Filled, Outcome, reading};
use sdft_imaging::{Depth, Image, ImageSpec, Limits, Reading, Samples, decode_file};
use sdft_jobs::{
    CacheLocation, DIGITS, DirectionJob, DirectionOptions, EditOptions, RunOptions, SampleOptions,
    SamplerKind, TranslateOptions, TranslationMethod, edit_folder, sample_to_folder,
    translate_folder,
};
use sdft_models::{
    Architecture, Classes, LoadOptions, NetworkFile, encoder_metadata, load_network, save_network,
};
use sdft_npz::Values;
use sdft_testing::{nonzero_params, tiny_config};
use sdft_train::{Ending, Size};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A form with the number of its channels, its depth, its size and its range.
fn spec(channels: usize, depth: Depth, [height, width]: [usize; 2], range: [f64; 2]) -> ImageSpec {
    ImageSpec {
        range,
        ..ImageSpec::new(channels, depth, width, height)
    }
}

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

fn write_model(path: &Path, image: &ImageSpec, classes: Option<&Classes>) {
    let config = AdmConfig {
        out_channels: 3,
        ..tiny_config()
    };
    let architecture = Architecture::from(config)
        .with_channels(image.channels)
        .with_classes(classes);
    let params = nonzero_params(architecture.specs().unwrap(), 3);
    let process = Process::default();
    let file = NetworkFile {
        image: Some(image),
        classes,
        ..NetworkFile::new(&architecture, &process)
    };
    save_network(path, &file, &params, None).unwrap();
}

/// Writes EGSDE's classifier for images of a model.
fn write_classifier(path: &Path, image: &ImageSpec) {
    let config = EncoderConfig {
        net: AdmConfig {
            in_channels: image.channels,
            out_channels: 2,
            ..tiny_config()
        },
        pool: Pool::Attention,
    };
    let params = nonzero_params(Encoder::specs(&config).unwrap(), 4);
    let metadata = encoder_metadata(&config, &Process::default(), &BTreeMap::new()).unwrap();
    sdft_checkpoint::write_safetensors(path, params.iter(), &metadata, None).unwrap();
}

/// A place for a model and the folders made with it.
struct Place(tempfile::TempDir);

impl Place {
    fn new(image: &ImageSpec, classes: Option<&Classes>) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        write_model(&place.path("model.safetensors"), image, classes);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn model(&self) -> String {
        self.path("model.safetensors").display().to_string()
    }

    fn samples(&self, out: &str) -> SampleOptions {
        SampleOptions {
            model: self.model(),
            n: 3,
            batch: 2,
            steps: Some("3".to_owned()),
            out: self.path(out),
            ..SampleOptions::default()
        }
    }

    fn sampled(&self, options: &SampleOptions) -> Vec<Vec<u8>> {
        let report = run(never(), |c| sample_to_folder(options, c)).0.unwrap();
        assert_eq!(report.complete, options.n);
        contents(&options.out)
    }

    fn translation(&self, out: &str, input: &str) -> TranslateOptions {
        TranslateOptions {
            model: self.model(),
            input: self.path(input),
            out: self.path(out),
            steps: Some("4".to_owned()),
            free: 1,
            ..TranslateOptions::default()
        }
    }
}

/// The images of a folder, in the order of their names.
fn contents(folder: &Path) -> Vec<Vec<u8>> {
    let is_image = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        !name.starts_with('.') && !name.ends_with(".toml") && !name.ends_with(".npz")
    };
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(is_image)
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn filled(outcome: sdft_jobs::Result<Outcome>) -> Filled {
    let Outcome::Done(filled) = outcome.unwrap() else {
        panic!("it was not stopped")
    };
    filled.check().unwrap();
    filled
}

fn translated(options: &TranslateOptions) -> (Filled, Vec<String>) {
    let (outcome, notes, _) = run(never(), |c| translate_folder(options, c));
    (filled(outcome), notes)
}

/// Reads a file as it is, and in the form of the model.
fn read(path: &Path, form: &ImageSpec) -> Image {
    let found = Reading::default().decode_file(path, 0).unwrap();
    assert_eq!((found.channels, found.depth), (form.channels, form.depth));
    let image = reading(form).decode_file(path, 0).unwrap().image;
    assert_eq!(image, found.image);
    assert_eq!((image.height, image.width), (form.height, form.width));
    image
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
        "1 image is with values outside the range: clamped to it",
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

/// Three classes and a null class.
fn animals() -> Classes {
    let names = ["cat", "dog", "owl"].map(str::to_owned);
    Classes::new(names.into(), true)
}

#[test]
fn classes_are_sampled_in_turn_or_by_name() {
    let place = Place::new(&ImageSpec::rgb8(8, 8), Some(&animals()));
    let many = |class: Option<&str>, out: &str| SampleOptions {
        n: 7,
        class: class.map(str::to_owned),
        npz: true,
        ..place.samples(out)
    };
    let in_turn = place.sampled(&many(None, "in-turn"));
    for (label, name) in ["cat", "dog", "owl"].iter().enumerate() {
        let of_class = place.sampled(&many(Some(name), name));
        let by_label = format!("{label}");
        assert_eq!(place.sampled(&many(Some(&by_label), &by_label)), of_class);
        for i in 0..7 {
            // Image i depends on the seed, on i and on its class only.
            assert_eq!(in_turn[i] == of_class[i], i % 3 == label, "{name} {i}");
        }
    }
    let arrays = sdft_npz::read_npz(&place.path("in-turn/samples_7x8x8x3.npz")).unwrap();
    let labels = Values::I64(vec![0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(arrays["arr_1"].values, labels);
    let plan = fs::read_to_string(place.path("in-turn/plan.toml")).unwrap();
    assert!(
        plan.contains(r#"classes = ["cat", "dog", "owl"]"#),
        "{plan}"
    );
    // A folder of all classes is not continued with one.
    let other = many(Some("cat"), "in-turn");
    let (refused, ..) = run(never(), |c| sample_to_folder(&other, c));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("now class = 0"), "{text}");
    // The null class is no class.
    for (class, words) in [
        ("3", "cat, dog, owl"),
        ("cats", "did you mean"),
        ("-1", "no such class"),
    ] {
        let (refused, ..) = run(never(), |c| sample_to_folder(&many(Some(class), "no"), c));
        let error = refused.unwrap_err();
        assert!(
            error.is_usage() && error.to_string().contains(words),
            "{error}"
        );
    }
}

#[test]
fn a_guidance_of_1_is_the_conditional_model_to_the_bit_with_every_sampler() {
    let place = Place::new(&ImageSpec::rgb8(8, 8), Some(&animals()));
    for &sampler in <SamplerKind as sdft_jobs::Choice>::ALL
        .iter()
        .map(|(kind, ..)| kind)
    {
        let drawn = |guidance: Option<f64>| {
            let name = guidance.map_or_else(|| "none".to_owned(), |g| g.to_string());
            place.sampled(&SampleOptions {
                sampler: Some(sampler),
                guidance,
                ..place.samples(&format!("{sampler}-{name}"))
            })
        };
        let plain = drawn(None);
        assert_eq!(drawn(Some(1.0)), plain, "{sampler}");
        let guided = drawn(Some(2.0));
        assert!(guided.iter().zip(&plain).all(|(a, b)| a != b), "{sampler}");
        // With 0 only the null class is left, so every class gives the same images.
        let of = |class: &str| {
            place.sampled(&SampleOptions {
                sampler: Some(sampler),
                guidance: Some(0.0),
                class: Some(class.to_owned()),
                ..place.samples(&format!("{sampler}-{class}"))
            })
        };
        assert_eq!(of("cat"), of("owl"), "{sampler}");
    }
    let plan = fs::read_to_string(place.path("ddim-1/plan.toml")).unwrap();
    assert!(!plan.contains("guidance"), "{plan}");
    assert!(
        fs::read_to_string(place.path("ddim-2/plan.toml"))
            .unwrap()
            .contains("guidance = 2.0")
    );
}

#[test]
fn guidance_needs_classes_and_a_null_class() {
    let names = ["cat", "dog"].map(str::to_owned).to_vec();
    let without_null = Classes::new(names, false);
    for (classes, words) in [
        (None, "unconditional"),
        (Some(&without_null), "no null class"),
    ] {
        let place = Place::new(&ImageSpec::rgb8(8, 8), classes);
        let guided = SampleOptions {
            guidance: Some(2.0),
            ..place.samples("out")
        };
        let (refused, _, started) = run(never(), |c| sample_to_folder(&guided, c));
        let error = refused.unwrap_err();
        assert!(error.is_usage() && started == 0, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("guidance 2") && text.contains(words),
            "{text}"
        );
        assert!(!place.path("out").exists());
    }
}

#[test]
fn a_class_conditional_model_translates_into_a_class_or_into_none() {
    use TranslationMethod::{Ddib, Ilvr, Sdedit};
    let place = Place::new(&ImageSpec::rgb8(8, 8), Some(&animals()));
    place.sampled(&place.samples("in"));
    for method in [Sdedit, Ddib, Ilvr] {
        let out = |out: &str, change: fn(&mut TranslateOptions)| {
            let name = format!("{method}-{out}");
            let mut options = TranslateOptions {
                method,
                source_model: (method == Ddib).then(|| place.model()),
                ..place.translation(&name, "in")
            };
            change(&mut options);
            translated(&options);
            contents(&options.out)
        };
        let none = out("none", |_| {});
        let cat = out("cat", |o| o.class = Some("cat".to_owned()));
        let guided = out("guided", |o| {
            (o.class, o.guidance) = (Some("cat".to_owned()), Some(3.0));
        });
        assert!(none != cat && cat != guided && none != guided, "{method}");
        let nulls = out("nulls", |o| {
            (o.class, o.guidance) = (Some("cat".to_owned()), Some(0.0));
        });
        assert_eq!(nulls, none, "{method}");
    }
    let from = TranslateOptions {
        method: Ddib,
        source_model: Some(place.model()),
        source_class: Some("dog".to_owned()),
        ..place.translation("from", "in")
    };
    translated(&from);
    assert_ne!(
        contents(&place.path("from")),
        contents(&place.path("ddib-none"))
    );

    // Guidance leads to a class, and without a null class there has to be one.
    let refused = |options: &TranslateOptions, words: &str| {
        let (refused, _, started) = run(never(), |c| translate_folder(options, c));
        let error = refused.unwrap_err();
        assert!(error.is_usage() && started == 0, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let guided = TranslateOptions {
        guidance: Some(2.0),
        ..place.translation("no", "in")
    };
    refused(&guided, "leads to a class; give it as `class`");
    let names = ["cat", "dog"].map(str::to_owned).to_vec();
    let other = Place::new(&ImageSpec::rgb8(8, 8), Some(&Classes::new(names, false)));
    let without = TranslateOptions {
        input: place.path("in"),
        ..other.translation("no", "in")
    };
    refused(&without, "give a class as `class`");
    let with = TranslateOptions {
        class: Some("dog".to_owned()),
        ..without
    };
    translated(&with);
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

#[test]
fn a_direction_is_trained_on_a_grey_class_conditional_model() {
    let form = spec(1, Depth::U8, [16, 16], [0.0, 255.0]);
    let classes = animals();
    let place = Place::new(&form, Some(&classes));
    let set = [
        "goal.network=digits",
        "walk.inversion=3",
        "walk.steps=3",
        "walk.t_edit=300",
        "walk.t_boost=0",
        "output.samples=2",
        "output.sampler=3",
    ];
    let options = DirectionOptions {
        model: Some(place.model()),
        data: Some(DIGITS.to_owned()),
        from: Some("3".to_owned()),
        to: Some("2".to_owned()),
        class: Some("dog".to_owned()),
        epochs: Some(1),
        images: Some(2),
        cache: CacheLocation::Folder(place.path("cache")),
        run: RunOptions {
            set: set.map(str::to_owned).to_vec(),
            out: place.path("runs"),
            name: Some("direction".to_owned()),
            ..RunOptions::default()
        },
        ..DirectionOptions::default()
    };
    let trained = run(never(), |c| DirectionJob::new(&options, false, c)?.run(c));
    let Ending::Finished { model, .. } = trained.0.unwrap() else {
        panic!("it was not stopped")
    };
    let plan = fs::read_to_string(place.path("runs/direction/plan.toml")).unwrap();
    assert!(plan.contains("class = 1"), "{plan}");
    place.sampled(&place.samples("in"));
    let edit = EditOptions {
        model: place.model(),
        edits: vec![model.display().to_string()],
        input: place.path("in"),
        out: place.path("out"),
        cache: options.cache.clone(),
        ..EditOptions::default()
    };
    filled(run(never(), |c| edit_folder(&edit, c)).0);
    read(&place.path("out/00000.png"), &form);
}
