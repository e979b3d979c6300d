//! A direction that is trained in a second, and edits with it.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::common::{Run, Workspace, place_with_inputs};

/// A direction that trains in a second: four digits, four steps.
pub(crate) const SHORT: [&str; 15] = [
    "edit",
    "train",
    "--images",
    "4",
    "--config=digits-3-to-2",
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

/// A model that is tuned in a second: four digits, three steps.
pub(crate) const TUNED: [&str; 14] = [
    "edit",
    "train",
    "--config=digits-3-to-2-diffusionclip",
    "--images",
    "4",
    "--epochs",
    "1",
    "--set",
    "walk.steps=3",
    "--set",
    "walk.inversion=6",
    "--set",
    "output.sampler=6",
    "--no-cache",
];

/// Edits `in` by the direction, inversions kept in the place.
pub(crate) const APPLY: [&str; 10] = [
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

/// [`APPLY`] with few steps.
pub(crate) fn apply(place: &Workspace, more: &[&str]) -> Run {
    let steps: &[&str] = match more.contains(&"--settings") {
        true => &[],
        false => &["--steps", "8"],
    };
    place.run(&[&APPLY[..], steps, more].concat())
}

pub(crate) fn place_with_direction() -> Workspace {
    let place = place_with_inputs();
    place.run(&SHORT).ok();
    place
}
