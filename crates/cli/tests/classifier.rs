//! Training the classifier that EGSDE needs.

mod common;

use common::{CLASSIFIER, assert_same, essence, place_with_inputs, translate, workspace};

#[test]
fn a_classifier_that_is_resumed_equals_one_that_was_not() {
    let steady = ["--set", "optim.schedule=constant"];
    let whole = workspace();
    whole.run(&[&CLASSIFIER[..], &steady].concat()).ok();
    let parts = workspace();
    let mut four = CLASSIFIER;
    four[2] = "4";
    parts
        .run(&[&four[..], &steady, &["--threads", "1"]].concat())
        .ok();
    let root = parts.path("runs/classifier");
    let on = [
        "train-classifier",
        "--resume",
        "runs/classifier",
        "--steps",
        "8",
    ];
    let resumed = parts.run(&on).ok();
    assert!(resumed.err.contains("continuing from"), "{resumed:?}");
    assert_same(&essence(&whole.path("runs/classifier")), &essence(&root));
    let accuracy = std::fs::read_to_string(root.join("accuracy.json")).unwrap();
    let accuracy: serde_json::Value = serde_json::from_str(&accuracy).unwrap();
    assert_eq!(accuracy["levels"].as_array().unwrap().len(), 10);
    assert_eq!(
        (&accuracy["n_source"], &accuracy["n_target"]),
        (&30.into(), &9.into())
    );
    let log = std::fs::read_to_string(root.join("log.jsonl")).unwrap();
    assert!(log.contains("eval.accuracy_t050"), "{log}");
    // Each command refuses runs of the other kind.
    parts
        .run(&["train", "--resume", "runs/classifier"])
        .fails(1, &["expected the plan of a run of `sdft train`"]);
    parts
        .run(&[
            "train-classifier",
            "--resume",
            "runs/classifier",
            "--set",
            "optim.lr=1",
        ])
        .fails(2, &["--set optim.lr=1", "only loop.steps"]);
}

#[test]
fn a_classifier_starts_from_another_and_learns_two_folders() {
    let place = place_with_inputs();
    place.run(&CLASSIFIER).ok();
    translate(&place, &["--out", "other", "--t0", "0.9"]).ok();
    let folders = [
        "train-classifier",
        "--source",
        "in",
        "--target",
        "other",
        "--model",
        "digits-source",
    ];
    let small = ["--steps", "2", "--batch", "2", "--set", "data.held_out=0"];
    let begun = place
        .run(
            &[
                &folders[..],
                &small,
                &["--init", "runs/classifier/final.safetensors", "--name=next"],
            ]
            .concat(),
        )
        .ok();
    // All but the head, which belongs to other domains.
    let all = sdft_checkpoint::read(
        &place.path("runs/next/final.safetensors"),
        &sdft_checkpoint::ReadOptions::default(),
    )
    .unwrap();
    let trunk = all
        .iter()
        .filter(|(name, _)| !name.starts_with("out."))
        .count();
    let words = format!("{trunk} of {} tensors start as in", all.len());
    assert!(
        trunk < all.len() && begun.err.contains(&words),
        "{words}: {begun:?}"
    );
    let plan = std::fs::read_to_string(place.path("runs/next/plan.toml")).unwrap();
    assert!(
        plan.contains("model_channels = 32") && plan.contains("image_size = 16"),
        "{plan}"
    );
    let cases: [(&[&str], i32, &[&str]); 5] = [
        (
            &["train-classifier", "--source", "in"],
            2,
            &["data.target.path", "--target"],
        ),
        (
            &[
                "train-classifier",
                "--source",
                "in",
                "--target",
                "in",
                "--model",
                "digits-source",
            ],
            2,
            &["same images"],
        ),
        (
            &["train-classifier", "--source", "none", "--target", "in"],
            2,
            &["--source none: no such file or folder"],
        ),
        (
            &["train-classifier", "--set", "data.held_ot=0"],
            2,
            &["no key data.held_ot", "data.held_out"],
        ),
        (
            &["train-classifier", "--init", "in/00000.png"],
            1,
            &["00000.png"],
        ),
    ];
    for (args, code, words) in cases {
        place.run(args).fails(code, words);
    }
}
