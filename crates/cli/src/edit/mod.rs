//! `edit`: edits trained from texts and applied to images, by Asyrp or DiffusionCLIP.

mod apply;
pub(crate) mod args;
mod example;
mod range;
mod train;

use crate::device::{in_f32, in_f32_or_bf16};
use crate::runs::STOP;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use args::{EditArgs, EditVerb};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

pub(crate) fn edit(args: &EditArgs) -> Result<ExitCode> {
    let ended = match &args.verb {
        Some(EditVerb::Train(args)) => in_f32("edit train").and_then(|()| train::train(args)),
        Some(EditVerb::Apply(args)) => {
            in_f32_or_bf16("edit apply").and_then(|()| apply::apply(args))
        }
        Some(EditVerb::Range(args)) => in_f32("edit range").and_then(|()| range::range(args)),
        None => in_f32("edit").and_then(|()| example::example()),
    };
    match ended {
        Err(error) if is_interruption(&error) => {
            console::note("interrupted");
            Ok(ExitCode::from(INTERRUPTED))
        }
        ended => ended,
    }
}

/// Whether the user interrupted before there was a run or a folder that reports it.
fn is_interruption(error: &anyhow::Error) -> bool {
    // A backtrace may follow the message.
    STOP.load(Ordering::Relaxed)
        && error
            .chain()
            .any(|e| e.to_string().starts_with("interrupted"))
}
