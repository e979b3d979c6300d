//! Class-conditional models are sampled and translate, with guidance.

mod common;

use common::{Place, animals, contents, never, run, translated};
use sdft_imaging::ImageSpec;
use sdft_jobs::{
    Choice as _, SampleOptions, SamplerKind, TranslateOptions, TranslationMethod, sample_to_folder,
    translate_folder,
};
use sdft_models::Classes;
use sdft_npz::Values;
use std::fs;

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
    for &sampler in SamplerKind::ALL.iter().map(|(kind, ..)| kind) {
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
    for (classes, guidance, words) in [
        (None, 2.0, "unconditional"),
        (Some(&without_null), 2.0, "no null class"),
        (Some(&without_null), -2.0, "expected 0 or more"),
    ] {
        let place = Place::new(&ImageSpec::rgb8(8, 8), classes);
        let guided = SampleOptions {
            guidance: Some(guidance),
            ..place.samples("out")
        };
        let (refused, _, started) = run(never(), |c| sample_to_folder(&guided, c));
        let error = refused.unwrap_err();
        assert!(error.is_usage() && started == 0, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("guidance {guidance}")) && text.contains(words),
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
