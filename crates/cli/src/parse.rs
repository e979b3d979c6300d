//! Parsing of the command line and of its values.

use crate::args::Cli;
use crate::job;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use sdft_diffusion::SigmaInterval;
use sdft_jobs::Choice;
use std::str::FromStr;

impl Cli {
    /// Reads the arguments of this process. Invalid arguments are printed and exit with code 2.
    pub(crate) fn from_process() -> Self {
        let command = command();
        let matches = command.clone().try_get_matches();
        let parsed = matches.and_then(|matches| {
            job::set_options(options_of(&command, &matches));
            Self::from_arg_matches(&matches)
        });
        parsed.unwrap_or_else(|error| exit(&error))
    }

    /// Reads these words; the first is the program's name.
    pub(crate) fn from_words<'a>(
        words: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(words)?;
        Self::from_arg_matches(&matches)
    }
}

/// Prints a help text or an error of the arguments, and exits as clap does.
fn exit(error: &clap::Error) -> ! {
    let text = error.render();
    let (plain, styled) = (text.to_string(), text.ansi().to_string());
    sdft_runtime::exit_with(&plain, &styled, error.use_stderr(), error.exit_code())
}

/// The commands with their options. `--seed -1` gives an option the value -1, so that the option reports what it expects.
fn command() -> clap::Command {
    fn negative(command: clap::Command) -> clap::Command {
        command
            .mut_args(
                |arg| match arg.get_action().takes_values() && !arg.is_positional() {
                    true => arg.allow_negative_numbers(true),
                    false => arg,
                },
            )
            .mut_subcommands(negative)
    }
    negative(Cli::command())
}

/// The options of the command that was called, as fields: `lambda_s` of `--lambda-s`.
fn options_of(command: &clap::Command, matches: &ArgMatches) -> Vec<String> {
    let names = |arg: &clap::Arg| {
        let long = arg.get_long().map(|long| long.replace('-', "_"));
        long.into_iter()
            .chain(arg.get_short().map(String::from))
            .collect::<Vec<_>>()
    };
    let own = command.get_arguments().flat_map(names);
    let inner = matches.subcommand().and_then(|(name, matches)| {
        let command = command.find_subcommand(name)?;
        Some(options_of(command, matches))
    });
    own.chain(inner.into_iter().flatten()).collect()
}

/// One of the names of a choice.
pub(crate) fn choice<T: Choice>() -> impl TypedValueParser<Value = T> {
    let values = T::ALL.iter().map(|(_, name, about)| {
        let value = PossibleValue::new(*name);
        match about.is_empty() {
            true => value,
            false => value.help(*about),
        }
    });
    PossibleValuesParser::new(values).try_map(|name| T::named(&name))
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=4096).contains(&n) => Ok(n),
        _ => Err("expected a whole number from 1 to 4096".into()),
    }
}

/// A whole number of any size.
pub(crate) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    whole_from::<T, 0>(text)
}

/// A whole number that is not smaller than `LEAST`.
pub(crate) fn whole_from<T: FromStr, const LEAST: u128>(text: &str) -> Result<T, String> {
    match text.parse::<u128>() {
        Ok(n) if n >= LEAST => text.parse().map_err(|_| "too large".into()),
        _ => Err(format!("expected a whole number from {LEAST}")),
    }
}

/// Height and width, as in `192x256`, or the side of a square.
pub(crate) fn size(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| text.trim().parse().ok().filter(|side| *side > 0);
    let sides = match text.split_once(['x', 'X', '×']) {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|side| (side, side)),
    };
    let expected = || "expected HEIGHTxWIDTH in pixels, as in 192x256, or one side of a square";
    sides
        .map(|(height, width)| [height, width])
        .ok_or_else(|| expected().to_owned())
}

/// A number; its bounds are checked where they are known.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number".into())
}

/// Two noise levels, as in `0.2,5`; their bounds are checked where they are known.
pub(crate) fn interval(text: &str) -> Result<SigmaInterval, String> {
    let ends = text
        .split_once(',')
        .and_then(|(low, high)| Some([low.trim().parse().ok()?, high.trim().parse().ok()?]));
    ends.map(SigmaInterval::from)
        .ok_or_else(|| "expected two noise levels LOW,HIGH, as in 0.2,5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::GLOBAL;

    /// Every command with its whole name, subcommands included.
    fn all() -> Vec<(String, clap::Command)> {
        fn collect(name: &str, command: &clap::Command, out: &mut Vec<(String, clap::Command)>) {
            out.push((name.to_owned(), command.clone()));
            for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
                collect(&format!("{name} {}", inner.get_name()), inner, out);
            }
        }
        let mut command = command();
        command.build();
        let mut out = Vec::new();
        collect("cargo xtask", &command, &mut out);
        out
    }

    #[test]
    fn the_short_help_fits_a_screen() {
        for (name, mut command) in all() {
            let text = command.render_help().to_string();
            // Lines as a terminal of 100 columns breaks them.
            let lines = text
                .lines()
                .map(|line| line.chars().count().div_ceil(100).max(1));
            let lines: usize = lines.sum();
            assert!(lines <= 45, "{name}: {lines}\n{text}");
        }
    }

    #[test]
    fn global_options_stand_together_after_all_others() {
        for (name, mut command) in all() {
            let text = command.render_long_help().to_string();
            let (before, after) = text.split_once(GLOBAL).unwrap_or((&text, ""));
            for option in ["--threads <", "--offline", "--device <", "--precision <"] {
                let heads = |text: &str| text.lines().any(|l| l.trim().starts_with(option));
                assert!(!heads(before), "{name}: {option}\n{text}");
                assert!(after.is_empty() || heads(after), "{name}: {option}\n{text}");
            }
        }
    }

    #[test]
    fn examples_are_calls_that_work_from_a_clone() {
        for (name, mut command) in all() {
            let text = command.render_long_help().to_string();
            assert!(!text.contains("\n  sdft "), "{name}\n{text}");
            for line in text
                .lines()
                .filter(|line| line.starts_with("  cargo xtask "))
            {
                let words: Vec<String> = split(line.trim().trim_start_matches("cargo xtask"));
                let words = std::iter::once("sdft").chain(words.iter().map(String::as_str));
                if let Err(error) = Cli::from_words(words) {
                    panic!("{line}\n{error}");
                }
            }
        }
    }

    /// Words of a line as a shell splits it, without a remark in brackets at its end.
    fn split(line: &str) -> Vec<String> {
        let line = line.split("      (").next().unwrap_or_default();
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '\'' | '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_error_of_a_number_names_the_expected_range() {
        let slip = |words: &[&str]| {
            let words = std::iter::once("sdft").chain(words.iter().copied());
            Cli::from_words(words).unwrap_err().to_string()
        };
        let mut n = 0;
        for (name, command) in all() {
            let path: Vec<&str> = name.split(' ').skip(2).collect();
            for arg in command.get_arguments() {
                let is_number = arg.get_value_names().is_some_and(|names| {
                    [
                        "N", "PIXELS", "SEED", "CLASS", "STEP", "SHARE", "WEIGHT", "K",
                    ]
                    .contains(&names[0].as_str())
                });
                let (true, Some(long)) = (is_number, arg.get_long()) else {
                    continue;
                };
                let option = format!("--{long}");
                for wrong in ["many", "1.5.2"] {
                    let text = slip(&[&path[..], &[&option, wrong]].concat());
                    assert!(
                        text.contains("expected a "),
                        "{name} {option} {wrong}: {text}"
                    );
                }
                n += 1;
            }
        }
        assert!(n > 40, "{n}");
        for words in [
            &["train", "--seed", "-1"][..],
            &["sample", "--seed=-1"],
            &["sample", "-n", "-3"],
            &["edit", "train", "--epochs", "-2"],
        ] {
            let text = slip(words);
            assert!(text.contains("expected a whole number from"), "{text}");
        }
    }
}
