//! Checks single source files.

/// The most lines of a file without a line `//! long: reason`.
const MAX_LINES: usize = 500;
/// The line that gives the reason for a longer file.
const LONG: &str = "//! long: ";

/// Calls that silently do the wrong thing, and what to use instead.
const BANNED: [(&str, &str); 11] = [
    (
        "upsample_nearest2d",
        "its backward pass overwrites gradients; use the resampling of sdft-nn",
    ),
    (
        "softmax_last_dim",
        "it stops gradients; use the attention of sdft-nn or candle_nn::ops::softmax",
    ),
    (
        "ops::layer_norm",
        "it stops gradients; use the normalisation of sdft-nn",
    ),
    (
        "ops::rms_norm",
        "it stops gradients; use the normalisation of sdft-nn",
    ),
    ("sdpa(", "it stops gradients; use the attention of sdft-nn"),
    (
        "candle_nn::AdamW",
        "its moments cannot be saved; use sdft-optim",
    ),
    (
        "VarMap",
        "it has no order; use named_vars of sdft-diffusion, or the named parameters of sdft-nn",
    ),
    (
        "Tensor::randn",
        "the CPU cannot be seeded; draw with sdft-noise",
    ),
    (
        "Tensor::rand(",
        "the CPU cannot be seeded; draw with sdft-noise",
    ),
    (
        "Var::randn",
        "the CPU cannot be seeded; draw with sdft-noise",
    ),
    (
        "Var::rand(",
        "the CPU cannot be seeded; draw with sdft-noise",
    ),
];

/// The file that puts the variables of a `VarMap` in order.
const VAR_MAP_HOME: &str = "crates/diffusion/src/trainable.rs";

/// Checks the documentation of the crate in `folder`; `read` returns the text of a file, or `None` if it does not exist.
pub(super) fn check_page(folder: &str, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let pages = ["lib.rs", "main.rs"].map(|file| format!("{folder}/src/{file}"));
    let Some((path, text)) = pages.iter().find_map(|path| Some((path, read(path)?))) else {
        return Some(format!(
            "{folder}: has neither src/lib.rs nor src/main.rs; add one with the crate's documentation"
        ));
    };
    let has_invariant = text
        .lines()
        .any(|line| line.starts_with("//!") && line.contains("**Invariant:**"));
    (!has_invariant).then(|| {
        format!("{path}: the crate documentation has no invariant; add a line `//! **Invariant:** ..` with what always holds")
    })
}

/// Checks the form of a file: its length, its first line, the sections `# Errors` and the error types of a library.
pub(super) fn check_form(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let n_lines = text.lines().count();
    if n_lines > MAX_LINES && !text.lines().any(|line| line.starts_with(LONG)) {
        problems.push(format!(
            "{path}: {n_lines} lines, at most {MAX_LINES}; split it, or add a line `//! long: reason`"
        ));
    }
    let is_root = ["lib.rs", "main.rs"].contains(&path.rsplit('/').next().unwrap_or(path));
    let page = text.lines().take_while(|line| line.starts_with("//!"));
    let n_page = page.filter(|line| !line.starts_with(LONG)).count();
    if n_page == 0 || (n_page > 1 && !is_root) {
        problems.push(format!(
            "{path}:1: starts with {n_page} lines of `//!`; start with one that says what the file is for"
        ));
    }
    if !is_library_code(path) {
        return problems;
    }
    let lines: Vec<&str> = code(text).map(str::trim).collect();
    for (i, line) in lines.iter().enumerate() {
        if !line.starts_with("//") && has_string_error(line) && !is_value_parser(path, line) {
            problems.push(format!(
                "{path}:{}: an error of type String; use the error type of the crate",
                i + 1
            ));
        }
        if *line == "/// # Errors"
            && let Some(problem) = errors_section(&lines[i + 1..])
        {
            problems.push(format!("{path}:{}: {problem}", i + 1));
        }
    }
    problems
}

/// Whether a line names a `Result` whose error is `String`.
fn has_string_error(line: &str) -> bool {
    line.match_indices("Result<").any(|(at, opening)| {
        let (mut depth, mut is_error) = (0, false);
        let mut argument = String::new();
        for c in line[at + opening.len()..].chars() {
            match c {
                '<' | '(' | '[' => depth += 1,
                // The end of an arrow `->` closes nothing.
                '>' if argument.ends_with('-') => {}
                '>' | ')' | ']' if depth == 0 => return is_error && argument.trim() == "String",
                '>' | ')' | ']' => depth -= 1,
                ',' if depth == 0 => {
                    is_error = true;
                    argument.clear();
                    continue;
                }
                _ => {}
            }
            argument.push(c);
        }
        false
    })
}

/// Whether a line is the signature of a parser of one argument of the command line: clap shows its error as it is.
fn is_value_parser(path: &str, line: &str) -> bool {
    path.starts_with("crates/cli/src/") && line.contains("(text: &str) -> Result<")
}

/// What is wrong with the section `# Errors` that begins with these lines: it has a sentence, or a list of cases, or both.
fn errors_section(lines: &[&str]) -> Option<&'static str> {
    let body: Vec<&str> = lines
        .iter()
        .map_while(|line| line.strip_prefix("///"))
        .map(str::trim)
        .take_while(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let (Some(first), Some(last)) = (body.first(), body.last()) else {
        return Some("`# Errors` has no text right below it; say when the function fails");
    };
    let is_item = |line: &&&str| line.starts_with("- ");
    let n_items = body.iter().filter(is_item).count();
    if body.iter().any(|line| line.contains('·')) {
        Some("`# Errors` has items in one line; write a sentence, or one line for each")
    } else if n_items == 1 {
        Some("`# Errors` has a list of one item; write a sentence that ends with a full stop")
    } else if n_items == 0
        && !(first.starts_with(|c: char| !c.is_lowercase()) && last.ends_with('.'))
    {
        Some("`# Errors` is not a sentence; begin with a capital and end with a full stop")
    } else {
        None
    }
}

/// The lines before the unit tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
}

/// Checks one file for calls that silently do the wrong thing.
pub(super) fn check_calls(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if is_library_code(path) {
        // Unit tests are at the end of a file and may compare with such calls.
        for (i, line) in code(text)
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            let banned = BANNED
                .iter()
                .filter(|(call, _)| line.contains(call))
                .filter(|(call, _)| *call != "VarMap" || path != VAR_MAP_HOME);
            for (call, reason) in banned {
                problems.push(format!(
                    "{path}:{}: uses {}; {reason}",
                    i + 1,
                    call.trim_end_matches('(')
                ));
            }
        }
    }
    problems
}

/// Whether a file belongs to a library, not to its tests or to a program.
fn is_library_code(path: &str) -> bool {
    let inside = path
        .strip_prefix("crates/")
        .and_then(|rest| rest.split_once('/'));
    inside.is_some_and(|(_, file)| {
        file.starts_with("src/")
            && !file.starts_with("src/bin/")
            && !file.ends_with("/tests.rs")
            && !file.contains("/tests/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_page_needs_an_invariant() {
        let page = |text: &'static str| {
            check_page("crates/a", move |path| {
                (path == "crates/a/src/lib.rs").then(|| text.to_owned())
            })
        };
        assert_eq!(
            page("//! A page.\n//!\n//! **Invariant:** does no I/O.\n"),
            None
        );
        assert!(
            page("//! A page.\n")
                .unwrap()
                .starts_with("crates/a/src/lib.rs: the crate documentation has no invariant")
        );
        assert!(page("// **Invariant:** not on the page\n").is_some());
        let program = |path: &str| {
            (path == "crates/a/src/main.rs").then(|| "//! **Invariant:** x".to_owned())
        };
        assert_eq!(check_page("crates/a", program), None);
        assert!(
            check_page("crates/a", |_| None)
                .unwrap()
                .contains("neither")
        );
    }

    #[test]
    fn long_files_need_a_reason() {
        let lines = |n: usize| format!("//! A file.\n{}", "x\n".repeat(n - 1));
        assert!(check_form("xtask/src/a.rs", &lines(500)).is_empty());
        let problems = check_form("xtask/src/a.rs", &lines(501));
        assert!(
            problems[0].starts_with("xtask/src/a.rs: 501 lines, at most 500;"),
            "{problems:?}"
        );
        let excused = format!("//! A file.\n//! long: a table\n{}", "x\n".repeat(700));
        assert!(check_form("xtask/src/a.rs", &excused).is_empty());
    }

    #[test]
    fn a_file_starts_with_one_line_of_documentation() {
        let n_problems = |path: &str, text: &str| check_form(path, text).len();
        assert_eq!(
            n_problems("crates/a/src/b.rs", "//! One line.\nfn f() {}\n"),
            0
        );
        assert_eq!(n_problems("crates/a/src/b.rs", "fn f() {}\n"), 1);
        assert_eq!(n_problems("crates/a/src/b.rs", "//! Two\n//! lines.\n"), 1);
        assert_eq!(
            n_problems("crates/a/src/lib.rs", "//! Two\n//! lines.\n"),
            0
        );
    }

    #[test]
    fn errors_are_a_sentence_or_a_list() {
        let problems = |section: &str| {
            let text = format!("//! A file.\n/// # Errors\n{section}pub fn f() {{}}\n");
            check_form("crates/a/src/b.rs", &text).len()
        };
        assert_eq!(problems("/// Fails if `n` is 0.\n"), 0);
        assert_eq!(problems("/// Fails if `n` is 0,\n/// or above 9.\n"), 0);
        assert_eq!(problems("/// - `n` is 0\n/// - `n` is above 9\n"), 0);
        assert_eq!(
            problems("/// Fails if\n/// - `n` is 0\n/// - `n` is above 9\n"),
            0
        );
        assert_eq!(problems("/// - `n` is 0 · `n` is above 9\n/// - x\n"), 1);
        assert_eq!(problems("/// - `n` is 0\n"), 1);
        assert_eq!(problems("/// Fails if `n` is 0\n"), 1);
        assert_eq!(problems("/// another size.\n"), 1);
        assert_eq!(problems("///\n/// Fails if `n` is 0.\n"), 1);
    }

    #[test]
    fn errors_of_a_library_are_not_strings() {
        let text = "//! A file.\nfn f() -> Result<Vec<u8>, String> {\n";
        assert_eq!(
            check_form("crates/a/src/b.rs", text),
            ["crates/a/src/b.rs:2: an error of type String; use the error type of the crate"]
        );
        assert!(check_form("crates/a/src/bin/b.rs", text).is_empty());
        assert!(check_form("xtask/src/b.rs", text).is_empty());
        let n_problems =
            |path: &str, line: &str| check_form(path, &format!("//! A file.\n{line}\n")).len();
        for (n, line) in [
            (1, "type Known<T> = std::result::Result<T, String>;"),
            (1, "fn f() -> Result<BTreeMap<String, String>, String>"),
            (1, "f: impl Fn(&str) -> Result<(u8, [T; 2]), String>,"),
            (0, "fn f() -> Result<BTreeMap<String, String>> {"),
            (
                0,
                "fn f() -> Result<BTreeMap<String, String>, ModelError> {",
            ),
            (0, "fn f() -> Result<String> {"),
            (0, "fn f() -> Result<Box<dyn Fn(u8) -> String>, Error> {"),
            (0, "// Result<u8, String>"),
        ] {
            assert_eq!(n_problems("crates/a/src/b.rs", line), n, "{line}");
        }
        let parser = "pub(crate) fn number(text: &str) -> Result<f64, String> {";
        assert_eq!(n_problems("crates/cli/src/parse.rs", parser), 0);
        assert_eq!(n_problems("crates/a/src/parse.rs", parser), 1);
    }

    #[test]
    fn banned_calls_are_found_in_library_code() {
        let text = "//! Unlike VarMap.\nlet y = candle_nn::ops::softmax_last_dim(&x)?;\n";
        let problems = check_calls("crates/nn/src/a.rs", text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0]
                .starts_with("crates/nn/src/a.rs:2: uses softmax_last_dim; it stops gradients")
        );
        let random =
            "let a = Tensor::randn(0., 1., 3, d)?;\nlet b = Tensor::rand(0., 1., 3, d)?;\n";
        assert_eq!(check_calls("crates/nn/src/a.rs", random).len(), 2);
    }

    #[test]
    fn tests_may_compare_with_banned_calls() {
        let text =
            "fn f() {}\n#[cfg(test)]\nmod tests {\n    let x = Tensor::randn(0., 1., 3, d);\n}\n";
        assert!(check_calls("crates/nn/src/a.rs", text).is_empty());
        for path in [
            "crates/nn/tests/a.rs",
            "tests/src/a.rs",
            "crates/nn/src/a/tests.rs",
            "crates/nn/benches/a.rs",
        ] {
            assert!(check_calls(path, "VarMap::new()").is_empty(), "{path}");
        }
        assert_eq!(check_calls("crates/nn/src/a.rs", "VarMap::new()").len(), 1);
        assert!(check_calls(VAR_MAP_HOME, "VarMap::new()").is_empty());
    }
}
