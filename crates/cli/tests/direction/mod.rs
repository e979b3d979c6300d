//! A direction that is trained in a second, and edits with it.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::common::{Run, Workspace, place_with_inputs};

/// A direction that trains in a second: four digits, four steps.
pub(crate) const SHORT: [&str; 14] = [
    "edit",
    "train",
    "--images",
    "4",
    "--epochs",
    "2",
    "--set",
    "walk.steps=8",
    "--set",
    "walk.inversion=6",
    "--set",
    "output.checkpoint_every=2",
    "--name=turn",
    "--no-cache",
];

/// Edits `in` with few steps, inversions kept in the place.
pub(crate) fn apply(place: &Workspace, more: &[&str]) -> Run {
    let args = [
        "edit",
        "apply",
        "--model",
        "digits-source",
        "--edit",
        "runs/turn",
        "--input",
        "in",
        "--cache",
        "cache",
    ];
    let steps: &[&str] = match more.contains(&"--settings") {
        true => &[],
        false => &["--steps", "8"],
    };
    place.run(&[&args[..], steps, more].concat())
}

pub(crate) fn place_with_direction() -> Workspace {
    let place = place_with_inputs();
    place.run(&SHORT).ok();
    place
}
