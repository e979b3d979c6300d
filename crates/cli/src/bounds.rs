//! Tests that no number in a plan crashes the program: every numeric key gets values at and beyond its limits, with limited memory.

use crate::args::{Cli, Verb};
use crate::{autoencoder, classifier, edit, is_usage, train};
use anyhow::Result;
use clap::Parser;
use sdft_classifier::ClassifierPlan;
use sdft_directions::{DirectionPlan, TuningPlan};
use sdft_first_stage::AutoencoderPlan;
use sdft_jobs::{AUTOENCODERS, CLASSIFIERS, DIRECTIONS, TRAINING, TrainPlan as Plan};
use sdft_settings::{Presets, layers, plan};
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use toml::{Table, Value};

/// Address space of the process, in KiB.
const LIMIT: u32 = 6 << 20;

const VALUES: [&str; 7] = [
    "0",
    "-1",
    "1e18",
    "nan",
    "1000000000000000000",
    "9223372036854775807",
    "65535",
];

/// A network with a fast trial pass.
const TINY: [&str; 5] = [
    "model.model_channels=8",
    "model.norm_groups=4",
    "model.num_head_channels=8",
    "loop.batch=2",
    "loop.precision=f32",
];

/// Environment variable of the process with the limit.
const INSIDE: &str = "SDFT_TEST_SWEEP";

#[test]
fn every_number_of_a_configuration_has_bounds() {
    if std::env::var_os(INSIDE).is_some() {
        return sweep();
    }
    let name = "bounds::every_number_of_a_configuration_has_bounds";
    let script = format!("ulimit -v {LIMIT} && exec \"$0\" --exact {name} --nocapture");
    let run = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    let last = said.lines().rev().take(6).collect::<Vec<_>>();
    assert!(run.status.success(), "{}: {last:?}", run.status);
    assert!(said.contains("tried all"), "{last:?}");
}

/// Prints a line that the outer process reads.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

fn sweep() {
    let mut tried = 0;
    tried += sweep_kind::<Plan>(&TRAINING, &["train", "--config", "digits-scratch"], &TINY);
    tried += sweep_kind::<Plan>(&TRAINING, &["train", "--config", "digits-sdft"], &TINY[3..]);
    tried += sweep_kind::<ClassifierPlan>(
        &CLASSIFIERS,
        &["train-classifier", "--config", "digits-classifier"],
        &TINY,
    );
    tried += sweep_kind::<AutoencoderPlan>(
        &AUTOENCODERS,
        &["train-autoencoder", "--config", "autoencoder-digits"],
        &[],
    );
    tried += sweep_kind::<DirectionPlan>(
        &DIRECTIONS,
        &["edit", "train", "--config", "digits-3-to-2"],
        &[],
    );
    tried += sweep_kind::<TuningPlan>(
        &DIRECTIONS,
        &["edit", "train", "--config", "digits-3-to-2-diffusionclip"],
        &[],
    );
    assert!(tried > 800, "{tried}");
    for more in [
        &["--steps", "18446744073709551615"][..],
        &["--batch", "18446744073709551615"],
        &["--batch", "1000000"],
        &["--seed", "18446744073709551615"],
    ] {
        let args = [&["sdft", "train", "--dry-run"], more].concat();
        // The call only has to return; some of the numbers are valid.
        let _ = call(&args);
    }
    say("tried all");
}

/// Gives every numeric key every value. Returns the number of trials.
fn sweep_kind<P: sdft_settings::Plan>(presets: &Presets, command: &[&str], base: &[&str]) -> usize {
    let preset = command[command.len() - 1];
    let table = layers::<P>(presets, &[preset]).unwrap();
    let plan = plan::<P>(table).unwrap();
    let mut keys = Vec::new();
    numeric(&Table::try_from(&plan).unwrap(), "", &mut keys);
    assert!(keys.len() > 30, "{keys:?}");
    for (key, is_list) in &keys {
        for value in VALUES {
            let value = if *is_list {
                format!("[{value}]")
            } else {
                value.to_owned()
            };
            let last = format!("{key}={value}");
            say(&format!("{} {last}", command.join(" ")));
            let mut args = vec!["sdft"];
            args.extend(command);
            args.push("--dry-run");
            for set in base.iter().copied().chain([last.as_str()]) {
                args.extend(["--set", set]);
            }
            if let Err(error) = call(&args) {
                let text = format!("{error:#}");
                assert!(text.len() < 1500, "{text}");
                // The value is wrong, so the error names it.
                let section = key.split('.').next().unwrap();
                assert!(is_usage(&error) || text.contains(section), "{last}: {text}");
            }
        }
    }
    keys.len() * VALUES.len()
}

fn call(args: &[&str]) -> Result<ExitCode> {
    match Cli::try_parse_from(args)?.verb {
        Verb::Train(args) => train::train(&args),
        Verb::TrainClassifier(args) => classifier::train_classifier(&args),
        Verb::TrainAutoencoder(args) => autoencoder::train_autoencoder(&args),
        Verb::Edit(args) => edit::edit(&args),
        other => panic!("{other:?}"),
    }
}

/// The keys of numbers, and whether they are lists.
fn numeric(table: &Table, prefix: &str, keys: &mut Vec<(String, bool)>) {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        match value {
            Value::Integer(_) | Value::Float(_) => keys.push((full, false)),
            Value::Array(list) if list.iter().all(|v| v.is_integer() || v.is_float()) => {
                keys.push((full, true));
            }
            Value::Table(inner) => numeric(inner, &format!("{full}."), keys),
            _ => {}
        }
    }
}
