//! `train` without arguments: the embedded example.

use crate::job::job;
use crate::report::write_for;
use crate::{ART, INTERRUPTED, console};
use anyhow::Result;
use sdft_experiments::{ExampleOptions, FineTuningExample, fine_tuning_example};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn example(out: &Path) -> Result<ExitCode> {
    console::note(
        "no arguments: the embedded example. A model that draws emoji of all kinds in one flat style is fine-tuned on a few portraits in \
         another style, all of them light-skinned and none of a woman: first naively, then with SDFT",
    );
    let options = ExampleOptions {
        out: out.to_owned(),
        ..ExampleOptions::default()
    };
    let made = job("example", |context| fine_tuning_example(&options, context))?;
    let Some(made) = made else {
        console::line("interrupted; the same command continues from here")?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    console::line(report(&made))?;
    write_for(&made.runs, Some(&out.join("example.html")))?;
    console::line(ART)?;
    Ok(ExitCode::SUCCESS)
}

fn report(made: &FineTuningExample) -> String {
    let kept = made.kept.iter();
    let kept: Vec<String> = kept
        .map(|(title, kept)| format!("{title} {kept} of {}", made.counted))
        .collect();
    format!(
        "model    {}\n\
         kept     {}. Of {} samples of the source model, {} show something that none of the {} target pictures shows (a woman, dark skin, \
         glasses, a hat, sadness or anger, an animal). One is kept if the same noise gives that in the new style\n\
         picture  {} (the source model, target pictures, naive fine-tuning and SDFT from the same noise)",
        made.model.display(),
        kept.join(", "),
        made.samples,
        made.counted,
        made.target,
        made.picture.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_count_of_each_model() {
        let made = FineTuningExample {
            model: "m".into(),
            runs: Vec::new(),
            picture: "p.png".into(),
            target: 118,
            counted: 20,
            kept: vec![("naive", 3), ("SDFT", 5)],
            samples: 72,
        };
        let text = report(&made);
        for words in [
            "kept     naive 3 of 20, SDFT 5 of 20. Of 72 samples of the source model, 20 show",
            "118",
            "picture  p.png",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
