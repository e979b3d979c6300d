//! The choice of lambda, and of the number of steps: one seed of each value.

use super::generation::Generation;
use super::{EmojiOptions, NAIVE, SDFT, Study};
use crate::methods::{Method, unless_stopped};
use crate::table::Report;
use sdft_jobs::{Context, Result};

/// SDFT with another lambda.
macro_rules! sdft {
    ($lambda:literal) => {
        Method {
            label: concat!("SDFT, lambda ", $lambda),
            title: concat!("lambda ", $lambda),
            set: &[
                concat!("loss.lambda=", $lambda),
                concat!("loss.lambda_aux=", $lambda),
            ],
            ..SDFT
        }
    };
}

/// An ablation of the weight, with another lambda.
macro_rules! weighted {
    ($label:literal, $weight:literal, $lambda:literal) => {
        Method {
            label: concat!($label, ", lambda ", $lambda),
            set: &[
                concat!("loss.lambda=", $lambda),
                concat!("loss.lambda_aux=", $lambda),
                concat!("loss.weight=", $weight),
                concat!("loss.weight_aux=", $weight),
            ],
            ..SDFT
        }
    };
}

/// SDFT with the chosen lambda and more steps.
macro_rules! longer {
    ($steps:literal) => {
        Method {
            label: concat!("SDFT, lambda 3, ", $steps, " steps"),
            title: concat!("lambda 3, ", $steps, " steps"),
            set: &[concat!("loop.steps=", $steps)],
            ..SDFT
        }
    };
}

/// Naive fine-tuning, stopped after some steps.
macro_rules! stopped {
    ($steps:literal) => {
        Method {
            label: concat!("naive, ", $steps, " steps"),
            set: &[concat!("loop.steps=", $steps)],
            ..NAIVE
        }
    };
}

const METHODS: [Method; 16] = [
    stopped!("30"),
    stopped!("60"),
    stopped!("120"),
    stopped!("300"),
    sdft!("0.3"),
    sdft!("1.0"),
    sdft!("3.0"),
    sdft!("10.0"),
    longer!("600"),
    longer!("1200"),
    weighted!("constant weight", "constant", "0.1"),
    weighted!("constant weight", "constant", "0.3"),
    weighted!("constant weight", "constant", "1.0"),
    weighted!("Min-SNR-5 (v form)", "min-snr-5-v", "1.0"),
    weighted!("Min-SNR-5 (v form)", "min-snr-5-v", "3.0"),
    weighted!("Min-SNR-5 (v form)", "min-snr-5-v", "10.0"),
];

/// Trains naive models of several lengths, and SDFT and its ablations with several values of lambda, and measures their samples, as [`reproduce_emoji`](super::reproduce_emoji)
/// does. Returns the table, or `None` if the job was interrupted.
///
/// # Errors
/// As [`reproduce_emoji`](super::reproduce_emoji).
pub fn choose_emoji_lambda(
    options: &EmojiOptions,
    context: &mut Context<'_>,
) -> Result<Option<Report>> {
    let done = run(options, &METHODS, context);
    unless_stopped(done, context)
}

fn run(options: &EmojiOptions, methods: &[Method], context: &mut Context<'_>) -> Result<Report> {
    let mut study = Study::open(options, "emoji-lambda", methods, context)?;
    let mut generation = Generation::new(&mut study, context)?;
    for method in methods {
        for seed in 0..options.seeds {
            let model = study.train(method, seed, context)?;
            generation.add(method, &model, &mut study, context)?;
        }
    }
    generation.finish(&options.out)
}
