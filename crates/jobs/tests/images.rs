//! A Rust program samples, translates and measures without the command line.

mod common;

use common::{never, run};
use sdft_gallery::Outcome;
use sdft_jobs::{
    DIGITS_SOURCE, EvaluateOptions, PairPart, PairsOptions, SampleOptions, TranslateOptions,
    evaluate_pairs, sample_to_folder, translate_folder,
};
use std::fs;
use std::path::{Path, PathBuf};

fn samples(out: &Path) -> SampleOptions {
    SampleOptions {
        n: 4,
        batch: 2,
        steps: Some("3".to_owned()),
        out: out.to_owned(),
        npz: true,
        model: DIGITS_SOURCE.to_owned(),
        ..SampleOptions::default()
    }
}

fn pngs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "png"))
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            (PathBuf::from(path.file_name().unwrap()), bytes)
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_stopped_job_continues_and_its_images_are_those_of_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let (report, _, started) = run(never(), |c| sample_to_folder(&samples(&whole), c));
    let report = report.unwrap();
    assert_eq!((report.complete, report.all, started), (4, 4, 1));
    assert!(report.array.unwrap().ends_with("samples_4x16x16x3.npz"));
    assert!(report.sheet.unwrap().0.ends_with("whole-grid.png"));

    // Stopped after a step of the second batch: the first two images are complete, the others are not.
    let (report, ..) = run(2.5, |c| sample_to_folder(&samples(&parts), c));
    let report = report.unwrap();
    assert_eq!((report.complete, report.sheet), (2, None));
    let (report, notes, _) = run(never(), |c| sample_to_folder(&samples(&parts), c));
    assert_eq!(report.unwrap().complete, 4);
    assert!(notes.iter().any(|note| note == "2 are complete and stay"));
    assert_eq!(pngs(&whole), pngs(&parts));

    // Errors name the field, and nothing is written after one.
    let other = SampleOptions {
        eta: 2.0,
        ..samples(&dir.path().join("none"))
    };
    let (refused, _, started) = run(never(), |c| sample_to_folder(&other, c));
    let error = refused.unwrap_err();
    assert!(error.is_usage() && started == 0);
    assert_eq!(error.to_string(), "eta 2: expected 0 to 1");
    let other = SampleOptions {
        seed: 1,
        ..samples(&whole)
    };
    let (refused, ..) = run(never(), |c| sample_to_folder(&other, c));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("there seed = 0, now seed = 1"), "{text}");
    assert!(!text.contains("--"), "{text}");
}

#[test]
fn samples_are_translated_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("samples"), dir.path().join("translated"));
    run(never(), |c| sample_to_folder(&samples(&input), c))
        .0
        .unwrap();
    let options = TranslateOptions {
        model: sdft_jobs::DIGITS_SOURCE.to_owned(),
        input: input.clone(),
        out: out.clone(),
        steps: Some("4".to_owned()),
        sweep: Some("t0=0,0.5".to_owned()),
        ..TranslateOptions::default()
    };
    let (outcome, ..) = run(never(), |c| translate_folder(&options, c));
    let Outcome::Done(filled) = outcome.unwrap() else {
        panic!("it was not stopped")
    };
    filled.check().unwrap();
    assert_eq!(filled.folders, [out.join("t0=0"), out.join("t0=0.5")]);
    assert_eq!(filled.sheet.unwrap().1, 4);

    let measured = |output: &Path| {
        let pairs = PairsOptions {
            input: input.clone(),
            output: output.to_owned(),
            without: vec![PairPart::Lpips, PairPart::Identity],
            common: EvaluateOptions {
                out: Some(dir.path().join("report")),
                overwrite: true,
                ..EvaluateOptions::default()
            },
            ..PairsOptions::default()
        };
        let (evaluation, ..) = run(never(), |c| evaluate_pairs(&pairs, c));
        let evaluation = evaluation.unwrap();
        let written = evaluation.write().unwrap().unwrap().join("report.json");
        let json = serde_json::to_string_pretty(&evaluation.report.json()).unwrap();
        assert_eq!(fs::read_to_string(written).unwrap(), json);
        evaluation.report.text()
    };
    // A share of 0 returns the input, half of the process does not.
    assert!(measured(&filled.folders[0]).contains("inf"));
    assert!(!measured(&filled.folders[1]).contains("inf"));
}
