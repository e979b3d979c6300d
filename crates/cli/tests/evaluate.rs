//! Measuring folders, and measuring while training.

mod common;

use candle_core::{Device, Tensor};
use common::{SHORT, Workspace, assert_same, essence, workspace};
use sdft_checkpoint::write_safetensors;
use sdft_features::{Dinov2, Dinov2Config, Lpips, LpipsNet};
use sdft_nn::{ParamSpec, Params};
use serde_json::Value;
use std::collections::BTreeMap;

/// A place with 12 samples of the embedded source model in `samples`.
fn place_with_samples() -> Workspace {
    let place = workspace();
    let sample = ["sample", "--model", "digits-source", "--steps", "ddim10"];
    place
        .run(&[&sample[..], &["-n", "12", "--out", "samples"]].concat())
        .ok();
    place
}

fn value(report: &Value, name: &str) -> f64 {
    let measures = report["measures"].as_array().unwrap();
    let found = measures.iter().find(|m| m["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {report}"))["value"]
        .as_f64()
        .unwrap()
}

#[test]
fn two_sets_are_compared_cached_and_written() {
    let place = place_with_samples();
    let sets = [
        "evaluate", "--real", "digits", "--fake", "samples", "--json",
    ];
    let first = place
        .run(
            &[
                &sets[..],
                &["--cache", "c", "--out", "report", "--save-fake", "f.npz"],
            ]
            .concat(),
        )
        .ok();
    let report: Value = serde_json::from_str(&first.out).unwrap();
    assert!(value(&report, "FID") > 1.0 && value(&report, "KID x1000") > 1.0);
    assert!(
        report["settings"]["real"]
            .as_str()
            .unwrap()
            .contains("1797 images")
    );
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("12 images for 64 features"), "{warnings}");
    let written = std::fs::read_to_string(place.path("report/report.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), report);
    let csv = std::fs::read_to_string(place.path("report/report.csv")).unwrap();
    assert!(csv.starts_with("name,value,spread,n,note\nFID,"), "{csv}");

    // From the cache, without it, and on another number of threads the numbers are the same.
    let files = std::fs::read_dir(place.path("c")).unwrap().count();
    assert_eq!(files, 1);
    for extra in [&["--cache", "c"][..], &["--no-cache", "--threads", "1"]] {
        let again = place.run(&[&sets[..], extra].concat()).ok();
        assert_eq!(again.out, first.out);
    }
    // The statistics alone give the same FID.
    let bare = place
        .run(&[
            "evaluate",
            "--real",
            "digits",
            "--fake",
            "f.npz",
            "--json",
            "--no-cache",
        ])
        .ok();
    let bare: Value = serde_json::from_str(&bare.out).unwrap();
    assert_eq!(value(&bare, "FID"), value(&report, "FID"));
    assert!(bare["warnings"].to_string().contains("only statistics"));
    // A set against itself.
    let pairs = ["evaluate", "--pairs", "samples", "samples", "--json"];
    let same = place
        .run(&[&pairs[..], &["--without", "lpips,identity"]].concat())
        .ok();
    let same: Value = serde_json::from_str(&same.out).unwrap();
    assert_eq!(same["measures"][0]["value"], "inf");
    assert_eq!(value(&same, "SSIM"), 1.0);
    assert_eq!(same["pairs"].as_array().unwrap().len(), 12);
}

/// Seeded weights of a network.
fn write_weights(place: &Workspace, file: &str, specs: &[ParamSpec]) {
    let params = Params::init(specs, 1, &Device::Cpu).unwrap();
    let named = params
        .iter()
        .map(|(name, tensor)| match name.starts_with("lin") {
            true => (name, tensor.abs().unwrap()),
            false => (name, tensor.clone()),
        });
    let named: Vec<(&str, Tensor)> = named.collect();
    let tensors = named.iter().map(|(name, tensor)| (*name, tensor));
    write_safetensors(&place.path(file), tensors, &BTreeMap::new(), None).unwrap();
}

/// A DINOv2 of one layer with 64 features, in `dinov2.safetensors`.
fn write_dinov2(place: &Workspace) {
    let config = Dinov2Config {
        hidden_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        image_size: 28,
        ..Dinov2Config::default()
    };
    write_weights(
        place,
        "dinov2.safetensors",
        &Dinov2::specs(&config).unwrap(),
    );
}

#[test]
fn a_set_has_no_distance_from_itself_in_dinov2_and_is_memorised() {
    let place = place_with_samples();
    write_dinov2(&place);
    let dinov2 = [
        "evaluate",
        "--real",
        "samples",
        "--fake",
        "samples",
        "--features",
        "dinov2",
        "--weights",
        "dinov2=dinov2.safetensors",
        "--json",
        "--cache",
        "c",
    ];
    let first = place.run(&dinov2).ok();
    let report: Value = serde_json::from_str(&first.out).unwrap();
    assert!(value(&report, "FD-DINOv2").abs() < 1e-6, "{report}");
    assert!(value(&report, "KD-DINOv2 x1000").is_finite());
    assert_eq!(value(&report, "precision"), 1.0);
    assert_eq!(
        (value(&report, "memorised"), value(&report, "AuthPct")),
        (1.0, 0.0)
    );
    let features = report["settings"]["features"].as_str().unwrap();
    assert!(features.starts_with("DINOv2, 64 features"), "{features}");
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("the 1024 features of ViT-L/14"),
        "{warnings}"
    );
    assert!(!first.out.contains("FID"), "{}", first.out);
    assert_eq!(std::fs::read_dir(place.path("c")).unwrap().count(), 1);
    assert_eq!(place.run(&dinov2).ok().out, first.out);

    // The same network measures while training.
    let train = [
        "--data",
        "samples",
        "--set",
        "eval.every=4",
        "--set",
        "eval.samples=2",
        "--set",
        "eval.sampler=ddim5",
        "--set",
        "eval.features=dinov2",
    ];
    let train = [&SHORT[..], &train[..]].concat();
    let weights = ["--set", "eval.weights=dinov2.safetensors"];
    place.run(&[&train[..], &weights[..]].concat()).ok();
    let log = std::fs::read_to_string(place.path("runs/short/log.jsonl")).unwrap();
    assert_eq!(log.matches("\"eval.memorised\"").count(), 2, "{log}");
    let plan = std::fs::read_to_string(place.path("runs/short/plan.toml")).unwrap();
    assert!(plan.contains("features = \"dinov2\""), "{plan}");
    let digits = ["--set", "eval.every=4", "--set", "eval.features=dinov2"];
    let digits = [&SHORT[..], &digits[..], &["--out", "x"]].concat();
    place.run(&digits).fails(2, &["eval.features"]);
    // Weights of another network are refused before there is a run.
    place.write("other.safetensors", sdft_assets::DIGITS_SOURCE_WEIGHTS);
    let other = ["--set", "eval.weights=other.safetensors"];
    place
        .run(&[&train[..], &other, &["--out", "refused"]].concat())
        .fails(2, &["eval.weights", "other.safetensors"]);
    assert!(!place.path("refused").exists());
}

#[test]
fn two_processes_measure_like_one() {
    let place = place_with_samples();
    let sample = ["sample", "--model", "digits-source", "--steps", "ddim5"];
    place
        .run(&[&sample[..], &["-n", "12", "--out", "others"]].concat())
        .ok();
    write_dinov2(&place);
    let lpips = Lpips::specs(LpipsNet::Alex).unwrap();
    write_weights(&place, "alex.safetensors", &lpips);
    let sets = [
        "evaluate",
        "--real",
        "samples",
        "--fake",
        "others",
        "--features",
        "dinov2",
        "--weights",
        "dinov2=dinov2.safetensors",
        "--json",
        "--device=cpu",
    ];
    let pairs = [
        "evaluate",
        "--pairs",
        "samples",
        "others",
        "--size",
        "32",
        "--without",
        "identity",
        "--weights",
        "lpips-alex=alex.safetensors",
        "--json",
        "--device=cpu",
    ];
    for (args, more) in [(&sets[..], &["--no-cache"][..]), (&pairs, &[])] {
        let one = place.run(&[args, more].concat()).ok();
        let two = place.run(&[args, more, &["--gpus=2"]].concat()).ok();
        assert_eq!(one.out, two.out);
        let three = place.run(&[args, more, &["--gpus=3"]].concat()).ok();
        assert_eq!(one.out, three.out);
    }
    // One process finds the features of two in the cache.
    for gpus in ["--gpus=2", "--gpus=1"] {
        place
            .run(&[&sets[..], &["--cache", "c", gpus]].concat())
            .ok();
    }
    assert_eq!(std::fs::read_dir(place.path("c")).unwrap().count(), 1);
}

#[test]
fn copies_of_the_few_training_images_have_no_intra_lpips() {
    let place = place_with_samples();
    write_weights(
        &place,
        "vgg.safetensors",
        &Lpips::specs(LpipsNet::Vgg).unwrap(),
    );
    let one = std::fs::read(place.path("samples/00000.png")).unwrap();
    for (folder, name) in [("few", "a.png"), ("twice", "a.png"), ("twice", "b.png")] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
        std::fs::write(place.path(folder).join(name), &one).unwrap();
    }
    let measured = place.run(&[
        "evaluate",
        "--real",
        "digits",
        "--fake",
        "twice",
        "--intra-lpips",
        "few",
        "--weights",
        "lpips-vgg=vgg.safetensors",
        "--json",
        "--no-cache",
    ]);
    let report: Value = serde_json::from_str(&measured.ok().out).unwrap();
    assert!(value(&report, "Intra-LPIPS") < 1e-9, "{report}");
    assert_eq!(report["settings"]["clusters"], "2");
    assert_eq!(report["settings"]["few-shot"], "few");
}

#[test]
fn invalid_measurements_are_refused_before_the_first_one() {
    let place = place_with_samples();
    let evaluate = |args: &[&str]| {
        let mut command = place.command(&["evaluate", "--no-cache"]);
        command.args(args).env("HF_HUB_CACHE", place.path("hub"));
        common::Run::from(command.output().unwrap())
    };
    evaluate(&[]).fails(2, &["nothing to measure", "--pairs"]);
    evaluate(&["--real", "sampels", "--fake", "samples"]).fails(2, &["sampels", "no such"]);
    evaluate(&["--real", "samples"]).fails(2, &["--fake"]);
    evaluate(&["--real", "samples", "--fake", "samples"])
        .fails(1, &["inception", "hf download", "--weights inception=FILE"]);
    evaluate(&["--pairs", "samples", "samples"]).fails(1, &["lpips-alex", "--without lpips"]);
    let sets = ["--real", "samples", "--fake", "samples"];
    let with = |more: &[&str]| evaluate(&[&sets[..], more].concat());
    with(&["--features", "dinov2"]).fails(1, &["dinov2", "hf download", "--weights dinov2=FILE"]);
    with(&["--features", "dinov2", "--resize", "clean-fid"]).fails(2, &["--resize"]);
    with(&["--features", "clip"]).fails(2, &["clip", "dinov2"]);
    let digits = ["--real", "digits", "--fake", "samples"];
    evaluate(&[&digits[..], &["--features", "dinov2"]].concat()).fails(2, &["--features"]);
    evaluate(&[&digits[..], &["--intra-lpips", "samples"]].concat())
        .fails(1, &["lpips-vgg", "omit --intra-lpips"]);
    evaluate(&[&digits[..], &["--intra-lpips", "samples/00000.png"]].concat())
        .fails(2, &["needs a folder"]);
    // One training image too many, before features and weights are read.
    let one = std::fs::read(place.path("samples/00000.png")).unwrap();
    std::fs::create_dir_all(place.path("many")).unwrap();
    for i in 0..101 {
        std::fs::write(place.path(&format!("many/{i}.png")), &one).unwrap();
    }
    let many = ["--intra-lpips", "many"];
    evaluate(&[&digits[..], &many].concat())
        .fails(1, &["--intra-lpips many", "expected 1 to 100, found 101"]);
    evaluate(&[&digits[..], &many, &["--out", "many/report"]].concat())
        .fails(2, &["--out many/report", "folder of the inputs"]);
    evaluate(&[
        "--real",
        "digits",
        "--fake",
        "samples",
        "--weights",
        "incption=x",
    ])
    .fails(2, &["incption", "did you mean inception?"]);
    evaluate(&[
        "--real", "digits", "--fake", "samples", "--resize", "bicubic",
    ])
    .fails(2, &["bicubic", "clean-fid"]);
    for range in ["4095", "4095,0", "0,1,2", "low,high"] {
        let options = ["--real", "digits", "--fake", "samples", "--range", range];
        evaluate(&options).fails(2, &[range, "LOW,HIGH"]);
    }
    place.write("bad.npz", b"PK\x03\x04 nothing else");
    evaluate(&["--real", "digits", "--fake", "bad.npz"]).fails(1, &["bad.npz"]);
    place.write("samples/00012.png", b"no picture");
    evaluate(&["--real", "digits", "--fake", "samples"]).fails(1, &["00012.png"]);
    place.write("weights.safetensors", b"{}");
    evaluate(&[
        "--real",
        "samples",
        "--fake",
        "samples",
        "--weights",
        "inception=weights.safetensors",
    ])
    .fails(1, &["weights.safetensors"]);
}

#[test]
fn an_evaluated_run_keeps_its_best_model_and_resumes_bit_for_bit() {
    let place = workspace();
    let eval = [
        "--set",
        "eval.every=2",
        "--set",
        "eval.samples=3",
        "--set",
        "eval.sampler=ddim5",
    ];
    let all = [&SHORT[..], &eval[..]].concat();
    place.run(&[&all[..], &["--out", "whole"]].concat()).ok();
    let whole = place.path("whole/short");
    let log = std::fs::read_to_string(whole.join("log.jsonl")).unwrap();
    let scores: Vec<f64> = log
        .lines()
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["eval.kid"].as_f64()
        })
        .collect();
    assert_eq!(scores.len(), 4);
    assert!(whole.join("samples/neighbours-000008.png").is_file());
    // The best file is that of the smallest score.
    let best = (0..4)
        .min_by(|&a, &b| scores[a].total_cmp(&scores[b]))
        .unwrap();
    let inspected = place.run(&["inspect", "whole/short/best.safetensors"]).ok();
    let step = 2 * (best + 1);
    assert!(
        inspected
            .out
            .contains(&format!("provenance.steps = {step}\n")),
        "{}, expected step {step}",
        inspected.out
    );

    // The same in two parts, the first on one thread.
    let mut first = all.clone();
    first[2] = "4";
    place
        .run(&[&first[..], &["--out", "parts", "--threads", "1"]].concat())
        .ok();
    place
        .run(&["train", "--resume", "parts/short", "--steps", "8"])
        .ok();
    let mut parts = essence(&place.path("parts/short"));
    let mut expected = essence(&whole);
    // A run of 4 steps logs and draws at its end.
    parts.retain(|(name, _)| name != "log" && name != "step-000004.png");
    expected.retain(|(name, _)| name != "log" && name != "step-000004.png");
    assert_same(&parts, &expected);
    let evaluations = |root: &str| {
        let log = std::fs::read_to_string(place.path(root).join("log.jsonl")).unwrap();
        let lines = log.lines().filter(|line| line.contains("eval.kid"));
        lines
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                line.as_object_mut().unwrap().remove("time");
                line
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(evaluations("parts/short"), evaluations("whole/short"));
    let best = |root: &str| std::fs::read(place.path(root).join("best.safetensors")).unwrap();
    assert!(best("parts/short") == best("whole/short"));

    // Patience ends a run that does not improve; it is finished, not interrupted.
    let patient = [
        "--set",
        "eval.patience=1",
        "--set",
        "optim.lr=0.0",
        "--out",
        "patient",
    ];
    let ended = place.run(&[&all[..], &patient[..]].concat()).ok();
    assert!(ended.err.contains("the run ends here"), "{}", ended.err);
    assert!(place.path("patient/short/final.safetensors").is_file());
    place
        .run(&[&all[..], &["--set", "eval.best=fid", "--out", "x"]].concat())
        .fails(2, &["eval.best", "coverage"]);
}

#[test]
fn a_table_of_the_paper_lists_its_missing_inputs() {
    let place = workspace();
    let reproduce = |args: &[&str]| {
        let mut command = place.command(&["reproduce"]);
        command.args(args).env("HF_HUB_CACHE", place.path("hub"));
        common::Run::from(command.output().unwrap())
    };
    reproduce(&["table3"]).fails(
        1,
        &[
            "7 things are missing",
            "--source",
            "--row sdft=RUN",
            "hf download",
            "metfaces-sdft",
        ],
    );
    reproduce(&["table1", "--target", "aahq"]).fails(1, &["egsde-sdft", "--inputs"]);
    reproduce(&["table2"]).fails(
        1,
        &[
            "5 things are missing",
            "Asyrp",
            "irse50",
            "clip-b16",
            "--data: a folder of all 1,336",
            "--row naive=RUN",
            "--row sdft=RUN",
        ],
    );
    reproduce(&["table4", "--target", "aahq"]).fails(2, &["metfaces"]);
    reproduce(&["table3", "--seeds", "1"]).fails(2, &["--seeds has no effect on table3"]);
    reproduce(&["digits", "--limit", "5"]).fails(2, &["--limit has no effect on digits"]);
    let emoji = ["emoji-lambda", "--data", "photos"];
    reproduce(&emoji).fails(2, &["--data has no effect on emoji-lambda"]);
    reproduce(&["table3", "--row", "sft=x"]).fails(2, &["sft=x", "scratch, naive, sdft"]);
}
