//! `translate`: files or folders of images -> a folder of images under the same names.

mod example;

use crate::args::TranslateArgs;
use crate::gallery::exit_code;
use crate::job::job;
use crate::launcher::share_images;
use anyhow::Result;
use sdft_jobs::{
    EnergyKind, TranslateOptions, TranslationMethod, WalkKind, serve_translations, translate_folder,
};
use sdft_runtime::usage;
use std::process::ExitCode;

pub(crate) fn translate(args: &TranslateArgs) -> Result<ExitCode> {
    if args.model.is_none() || args.input.is_none() {
        if args.gpus.is_some() {
            return Err(usage(
                "--gpus: the example needs no second process; give --model and --input",
            ));
        }
        return example::example(args);
    }
    let method = args.method.unwrap_or(TranslationMethod::Sdedit);
    refuse_unused(args, method)?;
    let options = options(args, method)?;
    let lead = || {
        let label = options.method.to_string();
        let outcome = job(&label, |context| translate_folder(&options, context))?;
        exit_code(outcome, &options.out, options.overwrite)
    };
    share_images(args.gpus, lead, |context| {
        serve_translations(&options, context)
    })
}

/// The options of a translation by `method`.
fn options(args: &TranslateArgs, method: TranslationMethod) -> Result<TranslateOptions> {
    Ok(TranslateOptions {
        method,
        model: args.model.clone().unwrap_or_default(),
        load: args.file.options()?,
        input: args.input.clone().unwrap_or_default(),
        out: args.out.clone(),
        classifier: args.classifier.clone(),
        source_model: args.source_model.clone(),
        mask: args.mask.clone(),
        t0: args.t0,
        repeats: args.repeats,
        lambda_s: args.lambda_s,
        lambda_i: args.lambda_i,
        factor: args.factor,
        sweep: args.sweep.clone(),
        walk: args.walk,
        steps: args.steps.clone(),
        eta: args.eta,
        clip: !args.no_clip,
        specific: args.specific,
        independent: args.independent,
        free: args.free,
        class: args.class.clone(),
        guidance: args.guidance,
        guide: args.guide.options(),
        source_class: args.source_class.clone(),
        size: args.size,
        seed: args.seed,
        batch: args.batch,
        overwrite: args.overwrite,
    })
}

/// Fails on options that the method does not use.
pub(crate) fn refuse_unused(args: &TranslateArgs, method: TranslationMethod) -> Result<()> {
    use TranslationMethod::{Ddib, Egsde, Ilvr, Sdedit};
    let walks: &[_] = &[Sdedit, Egsde];
    let options: [(&str, bool, &[TranslationMethod]); 15] = [
        ("--seed", args.seed != 0, &[Sdedit, Egsde, Ilvr]),
        ("--t0", args.t0 != 0.5, walks),
        ("--walk", args.walk != WalkKind::Part, walks),
        ("--eta", args.eta != 0.0, walks),
        ("--repeats", args.repeats != 1, walks),
        ("--mask", args.mask.is_some(), &[Sdedit]),
        ("--classifier", args.classifier.is_some(), &[Egsde]),
        ("--lambda-s", args.lambda_s != 500.0, &[Egsde]),
        ("--lambda-i", args.lambda_i != 2.0, &[Egsde]),
        ("--specific", args.specific != EnergyKind::Cosine, &[Egsde]),
        (
            "--independent",
            args.independent != EnergyKind::NegL2,
            &[Egsde],
        ),
        ("--factor", args.factor.is_some(), &[Egsde, Ilvr]),
        ("--free", args.free != 20, &[Ilvr]),
        ("--source-model", args.source_model.is_some(), &[Ddib]),
        ("--source-class", args.source_class.is_some(), &[Ddib]),
    ];
    if args
        .sweep
        .as_ref()
        .is_some_and(|s| s.trim_start().starts_with("t0"))
        && args.t0 != 0.5
    {
        return Err(usage("--t0 has no effect next to its --sweep"));
    }
    for (option, given, methods) in options {
        if given && !methods.contains(&method) {
            return Err(usage(format!(
                "{option} has no effect on --method {}",
                method
            )));
        }
    }
    if args.walk == WalkKind::Ancestral {
        let given = [
            ("--steps", args.steps.is_some()),
            ("--eta", args.eta != 0.0),
            ("--no-clip", args.no_clip),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(usage(format!(
                "{option} has no effect on --walk ancestral, which takes every step without clamping"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn args(more: &[&str]) -> TranslateArgs {
        let all = ["sdft", "translate", "--model", "m", "--input", "i"];
        match Cli::try_parse_from(all.iter().chain(more)).unwrap().verb {
            Verb::Translate(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_without_effect_are_refused_by_name() {
        use TranslationMethod::{Ddib, Egsde, Sdedit};
        for (more, method, words) in [
            (
                &["--t0", "0.3"][..],
                Ddib,
                "--t0 has no effect on --method ddib",
            ),
            (&["--seed", "1"], Ddib, "--seed has no effect"),
            (&["--mask", "x.png"], Egsde, "--mask has no effect"),
            (
                &["--walk", "ancestral", "--steps", "ddim40"],
                Sdedit,
                "--steps has no effect",
            ),
        ] {
            let error = refuse_unused(&args(more), method).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn options_that_are_not_given_are_those_of_the_library() {
        let given = options(&args(&[]), TranslationMethod::Sdedit).unwrap();
        let expected = TranslateOptions {
            model: "m".into(),
            input: "i".into(),
            ..TranslateOptions::default()
        };
        assert_eq!(format!("{given:?}"), format!("{expected:?}"));
    }
}
