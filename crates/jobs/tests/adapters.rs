//! Runs that train an adapter: every kind on every architecture, resuming, files, and the same images with and without merging.

mod common;

use candle_core::Device;
use common::{contents, never, run};
use sdft_adapters::{AdapterConfig, AdapterFile};
use sdft_checkpoint::{ReadOptions, read};
use sdft_jobs::{Context, RunOptions, SampleOptions, TrainJob, TrainOptions, sample_to_folder};
use sdft_models::LoadOptions;
use sdft_train::{Ending, Method, Progress, StepReport};
use std::collections::{BTreeMap, BTreeSet};
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

const DHARIWAL: &str = "[model]\narchitecture = \"edm\"\nimg_resolution = 16\n\n[model.model]\nmodel_type = \"DhariwalUNet\"\n\
    model_channels = 32\nchannel_mult = [1, 2]\nnum_blocks = 1\nattn_resolutions = [8]";

const TIME_AWARE: [&str; 1] = ["adapter.kind=time-aware"];

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

/// The tensors of a file, as bits.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u32>> {
    let state = read(path, &ReadOptions::default()).unwrap();
    let values = state.iter().map(|(name, tensor)| {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bits = values.into_iter().map(f32::to_bits);
        (name.to_owned(), bits.collect())
    });
    values.collect()
}

#[test]
fn a_time_aware_adapter_trains_the_attention_of_every_architecture_and_is_a_part_of_the_network() {
    let norms = ["norm", "group_norm", "norm2"];
    for (architecture, norm) in [
        (ADM, norms[0]),
        (UNET2D, norms[1]),
        (EDM, norms[2]),
        (DHARIWAL, norms[2]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let source = source(dir, architecture);
        let before = sampled(dir, &source, &[]);
        // Before step 0 the trainer checks that every trained tensor gets a gradient.
        let model = train(&tuning(dir, "tuned", &source, &TIME_AWARE));
        let adapter = model.with_file_name("adapter.safetensors");
        let [old, new, trained] = [&source, &model, &adapter].map(|path| tensors(path));
        let is_attention = |name: &str| {
            let layers = [
                "qkv", "proj_out", "proj", "to_q", "to_k", "to_v", "to_out.0",
            ];
            let layer = name.rsplit_once('.').unwrap().0;
            let ends = |end: &str| layer.ends_with(&format!(".{end}"));
            layers.into_iter().chain([norm]).any(ends) && !layer.contains(".resnets.")
        };
        for (name, values) in &new {
            match old.get(name) {
                None => assert!(
                    name.contains(".adapter.") && trained[name] == *values,
                    "{name}"
                ),
                Some(before) if is_attention(name) => {
                    assert!(before != values && trained[name] == *values, "{name}");
                }
                Some(before) => assert!(before == values && !trained.contains_key(name), "{name}"),
            }
        }
        let added: Vec<&String> = new.keys().filter(|name| !old.contains_key(*name)).collect();
        assert!(added.iter().any(|name| name.ends_with("adapter.up.weight")));

        let tuned = sampled(dir, &model, &[]);
        assert!(tuned != before);
        assert!(sampled(dir, &source, &[(&adapter, 1.0)]) == tuned);
        assert!(sampled(dir, &source, &[(&adapter, 0.0)]) == before);
        let half = sampled(dir, &source, &[(&adapter, 0.5)]);
        assert!(half != before && half != tuned);
        let twice = samples(
            &source,
            &[(&adapter, 0.5), (&adapter, 0.5)],
            &dir.join("none"),
        );
        let error = run(never(), |context| sample_to_folder(&twice, context)).0;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("at most one time-aware adapter"), "{error}");
    }
}

#[test]
fn a_network_with_time_aware_adapters_is_a_source_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = source(dir, ADM);
    let set = ["adapter.kind=time-aware", "adapter.rank=3"];
    let precise = ["loop.recompute=true", "loop.precision=bf16"];
    let model = train(&tuning(
        dir,
        "first",
        &source,
        &[&set[..], &precise].concat(),
    ));
    let names_of = |path: &Path| names(path);
    let lora = train(&tuning(dir, "lora", &model, &LORA));
    assert_eq!(names_of(&lora), names_of(&model));
    // Its adapters are trained further.
    let again = train(&tuning(dir, "again", &model, &TIME_AWARE));
    assert_eq!(names_of(&again), names_of(&model));
    let adapter = again.with_file_name("adapter.safetensors");
    assert!(sampled(dir, &model, &[(&adapter, 1.0)]) == sampled(dir, &again, &[]));
    assert!(sampled(dir, &model, &[(&adapter, 0.0)]) == sampled(dir, &model, &[]));
    let twice = samples(
        &model,
        &[(&adapter, 0.5), (&adapter, 0.5)],
        &dir.join("none"),
    );
    let result = run(never(), |context| sample_to_folder(&twice, context)).0;
    let problem = result.unwrap_err().to_string();
    assert!(
        problem.contains("at most one time-aware adapter"),
        "{problem}"
    );
    let other = ["adapter.kind=time-aware", "adapter.rank=4"];
    let error = error(&tuning(dir, "bad", &model, &other));
    assert!(
        error.contains("adapter.rank") && error.contains("found 4"),
        "{error}"
    );
    // The base of an adapter is the model that it was trained on.
    let wrong = samples(&source, &[(&adapter, 1.0)], &dir.join("none"));
    let result = run(never(), |context| sample_to_folder(&wrong, context)).0;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("another network"), "{error}");
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
    resumes(&LORA, &|name| name.contains(".lora_"));
}

#[test]
fn a_stopped_and_resumed_time_aware_adapter_ends_with_the_same_bits_and_saves_its_tensors_only() {
    resumes(&TIME_AWARE, &|name| {
        let ends = ["norm", "qkv", "proj_out"];
        let layer = name.rsplit_once('.').unwrap().0;
        layer.contains(".adapter.") || ends.iter().any(|end| layer.ends_with(end))
    });
}

fn resumes(set: &[&str], is_trained: &dyn Fn(&str) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = source(dir, ADM);
    let whole = train(&tuning(dir, "whole", &source, set));

    let stop = AtomicBool::new(false);
    let mut progress = StopAfter(3, &stop);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let job = TrainJob::new(&tuning(dir, "parts", &source, set), &mut context).unwrap();
    let root = job.root().to_owned();
    let ending = job.run(&mut context).unwrap();
    assert!(matches!(ending, Ending::Interrupted { .. }), "{ending:?}");
    let checkpoint = root.join("checkpoints/step-000003");
    for file in ["weights", "ema", "optimizer"] {
        let names = names(&checkpoint.join(format!("{file}.safetensors")));
        assert!(
            !names.is_empty() && names.iter().all(|name| is_trained(name)),
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
        let [a, b] = [whole.with_file_name(file), root.join(file)].map(|path| tensors(&path));
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
            &["adapter.kind=time-aware", "output.format=diffusers"],
            "time_adapter_rank",
        ),
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
