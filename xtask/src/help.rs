//! Help texts that are printed without building a program.

use crate::verbs;

/// Whether these arguments ask for help.
pub(crate) fn is_asked(args: &[String]) -> bool {
    args.iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| ["--help", "-h"].contains(&arg.as_str()))
}

/// The help of a verb, if it is known without building a program.
pub(crate) fn of(verb: &str, args: &[String]) -> Option<String> {
    let text = match verb {
        "fetch" => include_str!("../../crates/hub/src/bin/sdft-fetch/help.txt"),
        "push" => include_str!("../../crates/hub/src/bin/sdft-fetch/push-help.txt"),
        "data" if args.first().is_some_and(|word| word == "prepare") => {
            include_str!("../../crates/prepare/src/bin/sdft-prepare/help.txt")
        }
        "bench" => include_str!("../../bench/src/help.txt"),
        "parity" => include_str!("../../tests/src/bin/help.txt"),
        "gpu-report" => GPU_REPORT,
        _ => return verbs::about(verb),
    };
    Some(text.to_owned())
}

const GPU_REPORT: &str = "\
Check a GPU in parts that each have a time limit: doctor, operations, speed, eager, parity, sanitizer, batch32, resume, compiled.
Writes a summary after each part, and the output of the parts to a folder of the same name.
Builds sdft, sdft-parity and sdft-bench for the GPU first, which takes several minutes the first time.

Usage: cargo xtask gpu-report [OPTIONS]

Options:
      --report <FILE>    Where the report goes [default: gpu-report.md]
      --only <PART,..>   Only these parts
      --device <PLACE>   cuda or cuda:N [default: cuda]
      --python <PYTHON>  The Python that has PyTorch [default: python3]
  -h, --help             Print help
";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(args: &[&str]) -> Vec<String> {
        args.iter().map(|&arg| arg.to_owned()).collect()
    }

    #[test]
    fn help_is_asked_for_before_two_dashes() {
        assert!(is_asked(&words(&["--steps", "3", "--help"])));
        assert!(is_asked(&words(&["-h"])));
        assert!(!is_asked(&words(&["--", "--help"])));
        assert!(!is_asked(&words(&["--helpful"])));
    }

    #[test]
    fn verbs_of_long_builds_have_their_help_here() {
        for (verb, args) in [
            ("bench", &[][..]),
            ("gpu-report", &[]),
            ("parity", &[]),
            ("fetch", &[]),
            ("push", &[]),
            ("data", &["prepare"]),
            ("ci", &[]),
            ("tidy", &[]),
            ("test", &[]),
        ] {
            let text = of(verb, &words(args)).unwrap();
            let call = format!("Usage: cargo xtask {verb}");
            assert!(text.contains(&call), "{verb}: {text}");
        }
        assert_eq!(of("train", &[]), None);
        assert_eq!(of("data", &words(&["check"])), None);
    }
}
