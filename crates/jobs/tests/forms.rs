//! Runs on images of every form: each is stopped and resumed, equals an uninterrupted one, and its model's file states the form.

use candle_core::Device;
use sdft_imaging::{Depth, Image, ImageSpec, Samples, write_png};
use sdft_jobs::{Context, RunOptions, TrainJob, TrainOptions, load_model};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_train::{Ending, Progress, StepReport};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A tiny ADM network from random weights.
const ADM: [&str; 3] = [
    "model.model_channels=8",
    "model.norm_groups=4",
    "model.num_head_channels=8",
];

/// A tiny `UNet2DModel`.
const UNET2D: [&str; 8] = [
    "model.architecture=unet2d",
    "model.sample_size=16",
    "model.block_out_channels=[8, 8]",
    "model.down_block_types=[\"DownBlock2D\", \"DownBlock2D\"]",
    "model.up_block_types=[\"UpBlock2D\", \"UpBlock2D\"]",
    "model.layers_per_block=1",
    "model.norm_num_groups=4",
    "process.beta_end=0.02",
];

/// A tiny network of EDM.
const EDM: [&str; 6] = [
    "model.architecture=edm",
    "model.img_resolution=16",
    "model.model.model_channels=8",
    "model.model.channel_mult=[1, 2]",
    "model.model.num_blocks=1",
    "model.model.attn_resolutions=[]",
];

/// A run of a few steps on `data`.
fn options(out: &Path, data: &str, source: Option<&str>, set: &[&str]) -> TrainOptions {
    let common = [
        "output.samples=3",
        "output.sampler=ddim2",
        "output.sample_every=2",
        "output.log_every=1",
        "data.style=ember",
        "data.per_class=4",
    ];
    let of_digits = if data == "digits" { 6 } else { 4 };
    let all = common[..of_digits].iter().chain(set);
    TrainOptions {
        run: RunOptions {
            steps: Some(4),
            batch: Some(4),
            name: Some("tiny".to_owned()),
            out: out.to_owned(),
            set: all.map(|&set| set.to_owned()).collect(),
            ..RunOptions::default()
        },
        data: Some(data.to_owned()),
        source: source.map(str::to_owned),
        method: Some(match source {
            None => sdft_train::Method::Scratch,
            Some(_) => sdft_train::Method::Sdft,
        }),
        ..TrainOptions::default()
    }
}

/// Keeps the notes, and stops the run after a step.
struct Notes<'a> {
    stop_after: Option<u64>,
    stop: &'a AtomicBool,
    notes: Vec<String>,
}

impl Progress for Notes<'_> {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn step(&mut self, report: &StepReport) {
        if Some(report.step) == self.stop_after {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// A finished run.
struct Trained {
    model: LoadedModel,
    plan: String,
    notes: Vec<String>,
}

/// Trains without and with an interruption, and compares both.
fn train(data: &str, source: Option<&str>, set: &[&str]) -> Trained {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut progress = Notes {
        stop_after: None,
        stop: &stop,
        notes: Vec::new(),
    };
    let run = |out: &str, progress: &mut Notes<'_>| {
        stop.store(false, Ordering::Relaxed);
        let mut context = Context::new(Device::Cpu, &stop, progress);
        let options = options(&dir.path().join(out), data, source, set);
        let run = TrainJob::new(&options, &mut context).unwrap();
        run.run(&mut context).unwrap()
    };
    let Ending::Finished { model: whole, .. } = run("whole", &mut progress) else {
        panic!("the run did not end")
    };
    let notes = std::mem::take(&mut progress.notes);
    progress.stop_after = Some(2);
    let ending = run("parts", &mut progress);
    assert!(matches!(ending, Ending::Interrupted { .. }), "{ending:?}");
    progress.stop_after = None;
    stop.store(false, Ordering::Relaxed);
    let root = dir.path().join("parts/tiny");
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let resumed = TrainJob::resume(&root, &TrainOptions::default(), &mut context).unwrap();
    resumed.run(&mut context).unwrap();
    let read = |path: &Path| std::fs::read(path).unwrap();
    for file in ["final.safetensors", "samples/step-000004.png"] {
        let at = |out: &str| dir.path().join(out).join("tiny").join(file);
        assert!(read(&at("whole")) == read(&at("parts")), "{file} differs");
    }
    let text = |out: &str| {
        let path = dir.path().join(out).join("tiny/plan.toml");
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(text("whole"), text("parts"));
    let whole = whole.display().to_string();
    Trained {
        model: load_model(&whole, &LoadOptions::default()).unwrap(),
        plan: text("whole"),
        notes,
    }
}

fn scratch<'a>(network: &[&'a str], set: &[&'a str]) -> Trained {
    train("digits", None, &[network, set].concat())
}

fn names(trained: &Trained) -> Vec<&str> {
    let classes = trained.model.classes.as_ref();
    classes.map_or(Vec::new(), |classes| {
        classes.names.iter().map(String::as_str).collect()
    })
}

#[test]
fn grey_digits_are_trained_and_the_plan_has_nothing_else() {
    for network in [&ADM[..], &UNET2D, &EDM] {
        let trained = scratch(network, &["data.channels=1"]);
        assert_eq!(trained.model.image, ImageSpec::new(1, Depth::U8, 16, 16));
        assert!(trained.plan.contains("channels = 1\n"), "{}", trained.plan);
    }
    // A plain run has no new key.
    let plain = scratch(&ADM, &[]);
    let start = plain.plan.find("[data]").unwrap();
    let section = &plain.plan[start..start + plain.plan[start..].find("\n\n").unwrap()];
    assert_eq!(section.lines().count(), 9, "{section}");
}

#[test]
fn sixteen_bits_and_four_channels_are_kept() {
    let deep = scratch(&ADM, &["data.depth=16", "data.range=[0, 4095]"]);
    let expected = ImageSpec {
        range: [0.0, 4095.0],
        ..ImageSpec::new(3, Depth::U16, 16, 16)
    };
    assert_eq!(deep.model.image, expected);
    let alpha = scratch(&ADM, &["data.channels=4"]);
    assert_eq!(alpha.model.image.channels, 4);
}

#[test]
fn images_that_are_not_square_are_padded_with_a_mask() {
    for network in [&ADM[..], &UNET2D, &EDM] {
        let trained = scratch(network, &["data.size=24x16", "data.fit=pad"]);
        let image = trained.model.image;
        assert_eq!([image.height, image.width], [24, 16]);
        assert_eq!(trained.model.architecture.image_size(), 24);
    }
}

#[test]
fn classes_are_trained_by_every_architecture() {
    for network in [&ADM[..], &UNET2D, &EDM] {
        let set = ["data.classes=folders", "data.digits=[1, 4, 7]"];
        let trained = scratch(network, &set);
        assert_eq!(names(&trained), ["1", "4", "7"]);
        assert_eq!(trained.model.null_class(), Some(3));
        assert!(trained.plan.contains("class_counts = [4, 4, 4]\n"));
    }
    let set = ["data.classes=folders", "loss.label_dropout=0"];
    assert_eq!(scratch(&ADM, &set).model.null_class(), None);
}

#[test]
fn augmentation_labels_reach_networks_that_take_them() {
    let augment = [
        "data.augment=0.9",
        "data.flip_vertical=true",
        "data.scale=0.1",
    ];
    let edm = scratch(&EDM, &augment);
    assert_eq!(edm.model.architecture.augment_dim(), 9);
    let said = |trained: &Trained| trained.notes.iter().any(|n| n.contains("data.augment"));
    assert!(!said(&edm));
    assert!(said(&scratch(&ADM, &augment)));
}

#[test]
fn a_source_model_is_fitted_to_channels_and_classes() {
    let set = [
        "data.channels=1",
        "data.classes=folders",
        "data.digits=[2, 3]",
    ];
    let trained = train("digits", Some("digits-source"), &set);
    assert_eq!(trained.model.image.channels, 1);
    assert_eq!(names(&trained), ["2", "3"]);
    let said = trained.notes.join("\n");
    assert!(said.contains("input kernels are summed"), "{said}");
    assert!(said.contains("2 classes starts at zero"), "{said}");
    // The frozen source model is adapted as well: a run without steps of its own would equal it.
    let dir = tempfile::tempdir().unwrap();
    let (stop, mut progress) = (AtomicBool::new(false), sdft_train::NoopProgress);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let set = ["data.channels=1", "model.adapt_channels=false"];
    let options = options(dir.path(), "digits", Some("digits-source"), &set);
    let error = TrainJob::new(&options, &mut context).err().unwrap();
    assert!(error.is_usage(), "{error}");
    for words in ["data.channels", "the images have 1", "adapt_channels=true"] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[test]
fn emoji_are_chosen_by_what_they_show() {
    let cooks = [
        "data.only.role=cook",
        "data.only.hat=[\"yes\"]",
        "data.digits=[1]",
    ];
    let trained = train("emoji", None, &[&ADM[..], &cooks].concat());
    assert_eq!(trained.model.image, ImageSpec::new(3, Depth::U8, 32, 32));
    for line in [
        "[data.only]\n",
        "role = [\"cook\"]\n",
        "style = \"fluent\"\n",
    ] {
        assert!(trained.plan.contains(line), "{line}: {}", trained.plan);
    }
    let notes = trained.notes.join("\n");
    // Men and persons of two tones.
    assert!(notes.contains("on 4 images of"), "{notes}");
    let left_out = "ignored, because the embedded emoji do not have it: data.digits";
    assert!(notes.contains(left_out), "{notes}");
    let dir = tempfile::tempdir().unwrap();
    for (set, words) in [
        (
            "data.only.tone=[\"blue\"]",
            &[
                "data.only.tone: expected none, light, medium-light",
                "found \"blue\"",
            ][..],
        ),
        (
            "data.only.ton=light",
            &["no key data.only.ton", "did you mean data.only.tone?"],
        ),
        (
            "data.only.colour=[\"red\"]",
            &[
                "no key data.only.colour",
                "[data.only] has kind, tone, gender",
            ],
        ),
        (
            "data.only.tone=3",
            &["data.only", "tone: expected a text or a list of texts"],
        ),
        (
            "data.only.kind=food",
            &["data.only: expected values that leave at least one emoji"],
        ),
        (
            "data.style=chalk",
            &["data.style: expected noto or fluent, found \"chalk\""],
        ),
        (
            "data.classes=folders",
            &["data.classes", "emoji have no classes"],
        ),
    ] {
        let (stop, mut progress) = (AtomicBool::new(false), sdft_train::NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut progress);
        let options = options(dir.path(), "emoji", None, &[&ADM[..], &[set]].concat());
        let error = TrainJob::new(&options, &mut context).err();
        let error = error
            .unwrap_or_else(|| panic!("{set} was accepted"))
            .to_string();
        for word in words {
            assert!(error.contains(word), "{set}: {word}: {error}");
        }
    }
}

#[test]
fn masks_of_a_folder_belong_to_its_images() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["images/a", "images/b", "masks/a", "masks/b"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for i in 0..6usize {
        let name = format!("{}/{i}.png", if i % 2 == 0 { "a" } else { "b" });
        let noise = (0..16 * 16 * 3)
            .map(|p| (p * (i + 3) % 251) as u8)
            .collect();
        let image = Image::new(16, 16, 3, Samples::U8(noise)).unwrap();
        let mask = (0..16 * 16 * 3)
            .map(|p| if p < 400 { 255 } else { 0 })
            .collect();
        let mask = Image::new(16, 16, 3, Samples::U8(mask)).unwrap();
        for (folder, image) in [("images", image), ("masks", mask)] {
            let path = dir.path().join(folder).join(&name);
            write_png(&path, &image.into_rgb8().unwrap()).unwrap();
        }
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    let masks = format!("data.masks={}", path("masks"));
    let form = [
        "model.channel_mult=[1, 2]",
        "data.size=16",
        "data.classes=folders",
    ];
    let images = path("images");
    let set = [&ADM[..], &form, &[masks.as_str()]].concat();
    let masked = train(&images, None, &set);
    assert_eq!(names(&masked), ["a", "b"]);
    assert!(masked.plan.contains("masks = "));
    let open = train(&images, None, &set[..set.len() - 1]);
    let weights = |trained: &Trained| -> Vec<f32> {
        let tensors = trained.model.params.iter();
        let values = tensors.map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1().unwrap());
        values.collect::<Vec<Vec<f32>>>().concat()
    };
    assert!(
        weights(&masked) != weights(&open),
        "the masks have no effect"
    );
}

#[test]
fn images_of_other_channels_than_the_network_are_refused_with_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let samples = Samples::U8(vec![7; 16 * 16 * 5]);
    let spec = ImageSpec::new(5, Depth::U8, 16, 16);
    let stack = spec.encode(&Image::new(16, 16, 5, samples).unwrap());
    std::fs::write(folder.path().join("a.npy"), stack.unwrap()).unwrap();
    let data = folder.path().display().to_string();
    let (stop, mut progress) = (AtomicBool::new(false), sdft_train::NoopProgress);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let options = options(&folder.path().join("runs"), &data, None, &ADM);
    let error = TrainJob::new(&options, &mut context).err().unwrap();
    let error = error.to_string();
    let expected = "data.channels is 3, as in the network; set it to the number in the images";
    assert!(error.starts_with(expected), "{error}");
    assert!(
        error.contains("a.npy: expected 3 channels, found 5"),
        "{error}"
    );
}
