//! `reproduce`: arguments -> an experiment -> its tables.

pub(crate) mod args;

use crate::job::job;
use crate::report::write_for;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use args::{Experiment, ReproduceArgs, TargetArg};
use clap::ValueEnum;
use sdft_experiments::{
    DigitsOptions, EmojiOptions, PaperTable, Report, TableOptions, Target, choose_emoji_lambda,
    reproduce_digits, reproduce_emoji, reproduce_table,
};
use sdft_features::InceptionResize;
use sdft_jobs::Weights;
use sdft_runtime::usage;
use std::process::ExitCode;

pub(crate) fn reproduce(args: &ReproduceArgs) -> Result<ExitCode> {
    refuse_unused(args)?;
    let tables = match args.experiment {
        Experiment::Emoji => {
            let options = of_emoji(args, EmojiOptions::default());
            job("emoji", |context| reproduce_emoji(&options, context))?.map(Vec::from)
        }
        Experiment::EmojiLambda => {
            let usual = EmojiOptions {
                seeds: 1,
                out: "runs/reproduce-emoji-lambda".into(),
                ..EmojiOptions::default()
            };
            let options = of_emoji(args, usual);
            job("lambda", |context| choose_emoji_lambda(&options, context))?
                .map(|report| vec![report])
        }
        Experiment::Digits => {
            let usual = DigitsOptions::default();
            let options = DigitsOptions {
                seeds: args.seeds.unwrap_or(usual.seeds),
                out: args.out.clone().unwrap_or(usual.out),
            };
            job("digits", |context| reproduce_digits(&options, context))?.map(Vec::from)
        }
        Experiment::Table1 => table(PaperTable::Table1, args)?,
        Experiment::Table2 => table(PaperTable::Table2, args)?,
        Experiment::Table3 => table(PaperTable::Table3, args)?,
        Experiment::Table4 => table(PaperTable::Table4, args)?,
    };
    let Some(tables) = tables else {
        console::line("interrupted; the same command continues from here")?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    for (i, table) in tables.iter().enumerate() {
        if i > 0 {
            console::line("")?;
        }
        print(table)?;
    }
    if let Some(table) = tables.first() {
        page_of(table)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_emoji(args: &ReproduceArgs, usual: EmojiOptions) -> EmojiOptions {
    let source = args.source.as_ref();
    EmojiOptions {
        seeds: args.seeds.unwrap_or(usual.seeds),
        out: args.out.clone().unwrap_or(usual.out),
        source: source.map_or(usual.source, |source| source.display().to_string()),
        scale: usual.scale,
    }
}

fn table(table: PaperTable, args: &ReproduceArgs) -> Result<Option<Vec<Report>>> {
    let options = TableOptions {
        target: match args.target {
            TargetArg::Metfaces => Target::Metfaces,
            TargetArg::Aahq => Target::Aahq,
        },
        source: args.source.clone(),
        inputs: args.inputs.clone(),
        data: args.data.clone(),
        rows: args.row.clone(),
        limit: args.limit,
        resize: args.resize,
        weights: Weights::parse(&args.weights)?,
        out: args.out.clone(),
    };
    let made = job("table", |context| reproduce_table(table, &options, context))?;
    Ok(made.map(|report| vec![report]))
}

pub(crate) fn print(report: &Report) -> Result<()> {
    console::line(&report.text)?;
    if !report.reading.is_empty() {
        console::line(report.reading)?;
    }
    console::line(format_args!("table    {}", report.table.display()))?;
    if let Some(picture) = &report.picture {
        console::line(format_args!("picture  {}", picture.display()))?;
    }
    Ok(())
}

/// Writes the page of the folder with a table.
pub(crate) fn page_of(report: &Report) -> Result<()> {
    match report.table.parent() {
        Some(folder) => write_for(&[folder.to_owned()], None),
        None => Ok(()),
    }
}

/// Fails on options that the experiment does not use.
fn refuse_unused(args: &ReproduceArgs) -> Result<()> {
    use Experiment::{Digits, Emoji, EmojiLambda, Table1, Table2, Table3, Table4};
    let all = args.experiment;
    let tables = !matches!(all, Emoji | EmojiLambda | Digits);
    let options = [
        ("--seeds", args.seeds.is_some(), !tables),
        ("--target", args.target != TargetArg::Metfaces, tables),
        (
            "--source",
            args.source.is_some(),
            matches!(all, Emoji | EmojiLambda | Table3 | Table4),
        ),
        ("--inputs", args.inputs.is_some(), matches!(all, Table1)),
        ("--data", args.data.is_some(), tables),
        ("--row", !args.row.is_empty(), tables),
        ("--limit", args.limit.is_some(), tables),
        (
            "--resize",
            args.resize != InceptionResize::default(),
            tables && !matches!(all, Table2),
        ),
        ("--weights", !args.weights.is_empty(), tables),
    ];
    match options.iter().find(|(_, given, used)| *given && !used) {
        Some((option, ..)) => Err(usage(format!("{option} has no effect on {}", name(all)))),
        None => Ok(()),
    }
}

/// The experiment as it is typed.
fn name(experiment: Experiment) -> String {
    let value = experiment.to_possible_value();
    value.map_or(String::new(), |value| value.get_name().to_owned())
}
