//! The program `sdft-parity`: its output, its exit codes, and invalid cases.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Exit code, lines on stdout, stderr.
fn parity(args: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sdft-parity"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout).lines().map(str::to_owned).collect(),
        text(&output.stderr),
    )
}

/// A copy of a packaged case under another name, with its description changed.
fn plant(root: &Path, name: &str, from: &str, change: impl FnOnce(&mut Value)) {
    let (to, from) = (root.join(name), sdft_testing::parity_folder().join(from));
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let path = to.join("case.json");
    let mut case = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut case);
    std::fs::write(path, case.to_string()).unwrap();
}

/// The line of the only case of a folder that is expected to fail.
fn failure(from: &str, change: impl FnOnce(&mut Value)) -> String {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), "group/case", from, change);
    let (code, lines, _) = parity(&[dir.path().to_str().unwrap()]);
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:?}");
    assert_eq!(lines[1], "1 cases: 0 passed, 1 failed, 0 not built");
    assert!(lines[0].starts_with("FAILED"), "{lines:?}");
    lines[0].clone()
}

#[test]
fn the_packaged_cases_of_a_group_pass_in_order() {
    let (code, lines, _) = parity(&["--kind", "schedule,optim.ema"]);
    assert_eq!(code, Some(0), "{lines:?}");
    let (last, cases) = lines.split_last().unwrap();
    let n = cases.len();
    assert_eq!(
        *last,
        format!("{n} cases: {n} passed, 0 failed, 0 not built")
    );
    let names: Vec<&str> = cases
        .iter()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert!(names.is_sorted() && names.contains(&"optim/ema_0.99"));
    for line in cases {
        assert!(line.starts_with("ok ") && line.contains(" worst 0."));
        assert!(line.contains(" schedule.") || line.contains(" optim.ema "));
    }
}

#[test]
fn one_bad_case_is_named_and_the_others_still_run() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let same = |_: &mut Value| {};
    plant(root, "a/good", "schedule/respacing_300", same);
    plant(root, "a/later", "schedule/respacing_300", |case| {
        case["kind"] = json!("future.kind");
    });
    plant(root, "b/no_tensors", "schedule/respacing_300", same);
    std::fs::remove_file(root.join("b/no_tensors/tensors.safetensors")).unwrap();
    plant(root, "c/no_json", "schedule/respacing_300", same);
    std::fs::write(root.join("c/no_json/case.json"), "{").unwrap();
    plant(root, "d/deep/down/good", "optim/ema_0.99", same);
    let root = root.to_str().unwrap();
    let (code, lines, _) = parity(&[root]);
    assert_eq!(code, Some(1));
    let firsts: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| line.split_whitespace().take(4).collect())
        .collect();
    assert_eq!(firsts[0][..2], ["ok", "a/good"]);
    assert_eq!(firsts[1], ["not", "built", "a/later", "future.kind"]);
    assert_eq!(
        firsts[2][..3],
        ["FAILED", "b/no_tensors", "schedule.respacing"]
    );
    assert!(lines[2].contains("tensors.safetensors"));
    assert_eq!(firsts[3][..3], ["FAILED", "c/no_json", "?"]);
    assert!(lines[3].contains("case.json is not JSON"));
    assert_eq!(firsts[4][..2], ["ok", "d/deep/down/good"]);
    assert_eq!(lines[5], "5 cases: 2 passed, 2 failed, 1 not built");
    // A case that cannot be read could be of any kind, so no filter hides it.
    let (code, lines, _) = parity(&[root, "--kind=optim"]);
    assert_eq!(code, Some(1));
    assert_eq!(lines[2], "2 cases: 1 passed, 1 failed, 0 not built");
    let (code, lines, _) = parity(&[&format!("{root}/a/good")]);
    assert_eq!(code, Some(0), "{lines:?}");
}

#[test]
fn wrong_numbers_come_with_tensor_error_and_tolerance() {
    let line = failure("schedule/weights_linear_1000", |case| {
        case["config"]["min_snr_gamma"] = json!(6);
    });
    assert!(line.contains("min_snr_clamp: error 1e0, tolerance"));
    assert!(line.contains("min_snr_eps: error") && !line.contains("p2_gamma1:"));
    let line = failure("schedule/linear_1000", |case| {
        case["config"]["diffusion_steps"] = json!(250);
    });
    assert!(line.contains("betas: shape [250], expected [1000]"));
}

#[test]
fn an_unknown_configuration_is_an_error_that_names_it() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 12] = [
        (
            "sdft/no_aux",
            |c| c["config"]["weight_aux"] = json!({"name": "sigmoid"}),
            "unknown weight \"sigmoid\"",
        ),
        (
            "sdft/no_aux",
            |c| c["config"]["weights"]["target"]["source"] = json!("url"),
            "weights.target: unknown source \"url\"",
        ),
        (
            "sdft/no_aux",
            |c| c["config"]["weights"] = json!({}),
            "config.weights.source is missing",
        ),
        (
            "sdft/no_aux",
            |c| c["config"]["diffusion"]["predict_xstart"] = json!(true),
            "diffusion.predict_xstart = true is not known",
        ),
        (
            "sdft/no_aux",
            |c| c["config"]["model"]["norm"] = json!("batch"),
            "model.norm = \"batch\" is not known",
        ),
        (
            "sdft/no_aux",
            |c| c["config"]["diffusion"]["timestep_respacing"] = json!("ddim60"),
            "ddim60",
        ),
        (
            "sdft/no_aux",
            |c| c["config"]["diffusion"]["diffusion_steps"] = json!(100),
            "is outside 0..100",
        ),
        (
            "unet/light",
            |c| c["config"]["param_count"] = json!(7),
            "828358 parameters, expected 7",
        ),
        (
            "unet/one_level_pt",
            |c| c["config"]["weights"]["model"]["prefix"] = json!("module."),
            "missing",
        ),
        (
            "optim/sgd",
            |c| c["config"]["optimizer"] = json!("Lion"),
            "unknown optimizer \"Lion\"",
        ),
        (
            "nn/attention_new",
            |c| c["config"]["num_head_channels"] = json!(0),
            "0 does not divide 64 channels",
        ),
        (
            "optim/sgd",
            |c| c["expected"] = json!([]),
            "expected is empty",
        ),
    ];
    for (from, change, message) in cases {
        let line = failure(from, change);
        assert!(line.contains(message), "{message:?} is not in {line:?}");
        assert!(!line.contains("panicked"), "{line}");
    }
}

#[test]
fn wrong_usage_ends_with_two() {
    let empty = tempfile::tempdir().unwrap();
    for (args, message) in [
        (&["--fast"][..], "unknown option --fast"),
        (&["--kind"][..], "--kind needs a prefix"),
        (&["--kind", "nn,,unet"][..], "an empty prefix"),
        (&["--kind", "sampling"][..], "no case of kind sampling"),
        (&["no/such/folder"][..], "no/such/folder"),
        (&["one", "two"][..], "one folder is enough"),
        (&[empty.path().to_str().unwrap()][..], "no case.json below"),
    ] {
        let (code, lines, error) = parity(args);
        assert_eq!(code, Some(2), "{args:?}: {error}");
        assert!(lines.is_empty() && error.contains(message), "{error}");
    }
}
