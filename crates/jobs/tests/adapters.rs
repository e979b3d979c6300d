//! Runs that train an adapter: every kind on every architecture, resuming, files, and the same images with and without merging.

mod common;

use candle_core::Device;
use common::{contents, never, run};
use sdft_adapters::{AdapterConfig, AdapterFile};
use sdft_checkpoint::{ReadOptions, read};
use sdft_jobs::{Context, RunOptions, SampleOptions, TrainJob, TrainOptions, sample_to_folder};
use sdft_models::LoadOptions;
use sdft_train::{Ending, Method, Progress, StepReport};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const ADM: &str = "[model]\nimage_size = 16\nmodel_channels = 8\nchannel_mult = [1, 2]\nnum_res_blocks = 1\n\
    attention_resolutions = [2]\nnum_head_channels = 8\nnorm_groups = 4";

const UNET2D: &str = "[model]\narchitecture = \"unet2d\"\nsample_size = 16\nblock_out_channels = [8, 16]\n\
    down_block_types = [\"DownBlock2D\", \"AttnDownBlock2D\"]\nup_block_types = [\"AttnUpBlock2D\", \"UpBlock2D\"]\n\
    layers_per_block = 1\nnorm_num_groups = 4\nattention_head_dim = 8";

const EDM: &str = "[model]\narchitecture = \"edm\"\nimg_resolution = 16\n\n[model.model]\nmodel_channels = 8\n\
    channel_mult = [1, 2]\nnum_blocks = 1\nattn_resolutions = [8]";

const LORA: [&str; 3] = ["adapter.kind=lora", "adapter.rank=2", "adapter.alpha=4"];

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn short(out: &Path, name: &str, set: &[&str]) -> RunOptions {
    let usual = [
        "output.samples=1",
        "output.sampler=ddim2",
        "output.checkpoint_every=2",
        "optim.lr=0.01",
    ];
    RunOptions {
        steps: Some(4),
        batch: Some(4),
        name: Some(name.to_owned()),
        out: out.to_owned(),
        set: usual.iter().chain(set).map(|s| (*s).to_owned()).collect(),
        ..RunOptions::default()
    }
}

/// A model of these settings that was trained from random weights.
fn source(dir: &Path, model: &str) -> PathBuf {
    let config = dir.join("model.toml");
    fs::write(&config, model).unwrap();
    let options = TrainOptions {
        data: Some("digits".to_owned()),
        method: Some(Method::Scratch),
        run: RunOptions {
            config: vec![text(&config)],
            ..short(dir, "source", &["data.style=chalk"])
        },
        ..TrainOptions::default()
    };
    train(&options)
}

/// Fine-tuning of a source model.
fn tuning(dir: &Path, name: &str, source: &Path, set: &[&str]) -> TrainOptions {
    TrainOptions {
        source: Some(text(source)),
        data: Some("digits".to_owned()),
        method: Some(Method::Sdft),
        run: short(dir, name, set),
        ..TrainOptions::default()
    }
}

fn train(options: &TrainOptions) -> PathBuf {
    match run(never(), |context| {
        TrainJob::new(options, context)?.run(context)
    })
    .0
    .unwrap()
    {
        Ending::Finished { model, .. } => model,
        other => panic!("{other:?}"),
    }
}

fn error(options: &TrainOptions) -> String {
    let result = run(never(), |context| TrainJob::new(options, context).map(drop)).0;
    let error = result.unwrap_err();
    assert!(error.is_usage(), "{error}");
    error.to_string()
}

/// The names of the tensors of a file.
fn names(path: &Path) -> BTreeSet<String> {
    let state = read(path, &ReadOptions::default()).unwrap();
    state.iter().map(|(name, _)| name.to_owned()).collect()
}

fn sampled(dir: &Path, model: &Path, adapters: &[(&Path, f64)]) -> Vec<Vec<u8>> {
    let out = tempfile::tempdir_in(dir).unwrap();
    let options = samples(model, adapters, &out.path().join("out"));
    run(never(), |context| sample_to_folder(&options, context))
        .0
        .unwrap();
    contents(&options.out)
}

fn samples(model: &Path, adapters: &[(&Path, f64)], out: &Path) -> SampleOptions {
    let adapters = adapters.iter().map(|(path, strength)| AdapterFile {
        path: path.to_path_buf(),
        strength: *strength,
    });
    SampleOptions {
        model: text(model),
        load: LoadOptions {
            adapters: adapters.collect(),
            ..LoadOptions::default()
        },
        n: 2,
        steps: Some("3".to_owned()),
        out: out.to_owned(),
        ..SampleOptions::default()
    }
}

#[test]
fn every_kind_trains_every_architecture_and_merging_changes_no_sample() {
    for (architecture, names_pattern) in [(ADM, "*.qkv.*"), (UNET2D, "*.to_q.*"), (EDM, "*.qkv.*")]
    {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let source = source(dir, architecture);
        let before = sampled(dir, &source, &[]);
        let pattern = format!("adapter.names=[\"{names_pattern}\"]");
        let kinds: [(&str, &[&str]); 3] = [
            ("lora", &LORA),
            ("difffit", &["adapter.kind=difffit"]),
            ("names", &["adapter.kind=names", &pattern]),
        ];
        for (name, set) in kinds {
            // Before step 0 the trainer checks that every trained tensor gets a gradient.
            let model = train(&tuning(dir, name, &source, set));
            let adapter = model.with_file_name("adapter.safetensors");
            assert!(names(&adapter).len() < names(&model).len(), "{name}");
            assert_eq!(names(&model), names(&source), "{name}");
            let merged = sampled(dir, &model, &[]);
            assert!(merged != before, "{name} has no effect");
            assert!(
                sampled(dir, &source, &[(&adapter, 1.0)]) == merged,
                "{name}"
            );
            assert!(
                sampled(dir, &source, &[(&adapter, 0.0)]) == before,
                "{name}"
            );
            let halves = sampled(dir, &source, &[(&adapter, 0.5), (&adapter, 0.5)]);
            assert_eq!(halves.len(), merged.len());
        }
    }
}

/// Stops the run after a step.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        self.1.store(report.step >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_stopped_and_resumed_lora_ends_with_the_same_bits_and_saves_its_tensors_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = source(dir, ADM);
    let whole = train(&tuning(dir, "whole", &source, &LORA));

    let stop = AtomicBool::new(false);
    let mut progress = StopAfter(3, &stop);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let job = TrainJob::new(&tuning(dir, "parts", &source, &LORA), &mut context).unwrap();
    let root = job.root().to_owned();
    let ending = job.run(&mut context).unwrap();
    assert!(matches!(ending, Ending::Interrupted { .. }), "{ending:?}");
    let checkpoint = root.join("checkpoints/step-000003");
    for file in ["weights", "ema", "optimizer"] {
        let names = names(&checkpoint.join(format!("{file}.safetensors")));
        assert!(
            !names.is_empty() && names.iter().all(|name| name.contains(".lora_")),
            "{names:?}"
        );
    }
    // The average of a checkpoint is an adapter, too, and no model.
    let ema = checkpoint.join("ema.safetensors");
    assert!(sampled(dir, &source, &[(&ema, 1.0)]) != sampled(dir, &source, &[]));
    let options = samples(&checkpoint, &[], &dir.join("none"));
    let result = run(never(), |context| sample_to_folder(&options, context)).0;
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("found an adapter") && error.contains("--adapter"),
        "{error}"
    );

    stop.store(false, Ordering::Relaxed);
    let (ending, _, _) = run(never(), |context| {
        TrainJob::resume(&root, &TrainOptions::default(), context)?.run(context)
    });
    assert!(matches!(ending.unwrap(), Ending::Finished { .. }));
    for file in ["final.safetensors", "adapter.safetensors"] {
        let [a, b] = [whole.with_file_name(file), root.join(file)].map(|path| {
            let state = read(&path, &ReadOptions::default()).unwrap();
            let values = state.iter().map(|(name, tensor)| {
                let bits = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let bits: Vec<u32> = bits.into_iter().map(f32::to_bits).collect();
                (name.to_owned(), bits)
            });
            values.collect::<Vec<_>>()
        });
        assert!(a == b, "{file} differs");
    }
    let sums = fs::read_to_string(root.join("SHA256SUMS")).unwrap();
    assert!(sums.contains("adapter.safetensors"), "{sums}");
}

#[test]
fn an_adapter_of_another_model_is_refused_and_both_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = source(dir, ADM);
    let model = train(&tuning(dir, "tuned", &source, &LORA));
    let adapter = model.with_file_name("adapter.safetensors");
    let options = samples(&model, &[(&adapter, 1.0)], &dir.join("none"));
    let result = run(never(), |context| sample_to_folder(&options, context)).0;
    let error = result.unwrap_err().to_string();
    for words in [
        "adapter.safetensors",
        "another network",
        "final.safetensors",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn without_an_adapter_the_plan_and_the_folder_do_not_mention_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = source(dir, ADM);
    let model = train(&tuning(dir, "full", &source, &[]));
    assert!(!model.with_file_name("adapter.safetensors").exists());
    let plan = fs::read_to_string(model.with_file_name("plan.toml")).unwrap();
    assert!(!plan.contains("adapter]"), "{plan}");
    // A plan with an adapter states what it trains.
    let tuned = tuning(dir, "lora", &source, &["adapter.kind=lora"]);
    let (job, _, _) = run(never(), |context| TrainJob::new(&tuned, context));
    let expected = AdapterConfig {
        rank: Some(8),
        alpha: Some(8.0),
        targets: vec!["qkv".to_owned(), "proj_out".to_owned()],
        ..job.unwrap().plan().adapter.clone()
    };
    let (job, _, _) = run(never(), |context| TrainJob::new(&tuned, context));
    assert_eq!(job.unwrap().plan().adapter, expected);
}

#[test]
fn settings_that_do_not_fit_are_refused_by_key_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = source(dir, ADM);
    let of = |set: &[&str]| error(&tuning(dir, "bad", &source, set));
    for (set, words) in [
        (
            &["adapter.rank=4"][..],
            "adapter.rank: belongs to adapter.kind = \"lora\"",
        ),
        (
            &["adapter.kind=lora", "adapter.targets=[\"to_q\"]"],
            "adapter.targets: \"to_q\" matches nothing",
        ),
        (&["adapter.kind=names"], "adapter.names"),
        (
            &["adapter.kind=lora", "adapter.rnk=4"],
            "did you mean adapter.rank",
        ),
        // The source model gets a table of classes, which no file of it has.
        (
            &["adapter.kind=lora", "data.classes=folders"],
            "adapter.kind: expected \"full\"",
        ),
    ] {
        let error = of(set);
        assert!(error.contains(words), "{words}: {error}");
    }
    let scratch = TrainOptions {
        source: None,
        method: Some(Method::Scratch),
        ..tuning(dir, "bad", &source, &["adapter.kind=lora"])
    };
    let error = error(&scratch);
    assert!(error.contains("adapter.kind"), "{error}");
}
