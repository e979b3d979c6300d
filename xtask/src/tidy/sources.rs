//! Rules about single source files.

/// Longer files need a reason.
const MAX_LINES: usize = 600;

/// Calls that do the wrong thing without an error, and what to use instead.
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

/// Checks the page of the crate in `folder`; `read` gives the text of a file, if there is one.
pub(super) fn check_page(folder: &str, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let pages = ["lib.rs", "main.rs"].map(|file| format!("{folder}/src/{file}"));
    let Some((path, text)) = pages.iter().find_map(|path| Some((path, read(path)?))) else {
        return Some(format!(
            "{folder}: neither src/lib.rs nor src/main.rs; add one with a crate page"
        ));
    };
    let has_invariant = text
        .lines()
        .any(|line| line.starts_with("//!") && line.contains("**Invariant:**"));
    (!has_invariant).then(|| {
        format!("{path}: the crate page has no invariant; add a line `//! **Invariant:** ..` that says what always holds")
    })
}

/// Checks one file, given its path relative to the root.
pub(super) fn check_file(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let n_lines = text.lines().count();
    if n_lines > MAX_LINES && !text.lines().any(|line| line.starts_with("//! long: ")) {
        problems.push(format!(
            "{path}: {n_lines} lines, at most {MAX_LINES}; split it, or add a line `//! long: reason`"
        ));
    }
    if is_library_code(path) {
        // Tests stand at the end of a file and may use what they compare with.
        let code = text
            .lines()
            .take_while(|line| line.trim() != "#[cfg(test)]");
        for (i, line) in code
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

/// Whether a file belongs to a crate and not to its tests.
fn is_library_code(path: &str) -> bool {
    let inside = path
        .strip_prefix("crates/")
        .and_then(|rest| rest.split_once('/'));
    inside.is_some_and(|(_, file)| {
        file.starts_with("src/") && !file.ends_with("/tests.rs") && !file.contains("/tests/")
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
                .starts_with("crates/a/src/lib.rs: the crate page has no invariant")
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
        let lines = |n: usize| "x\n".repeat(n);
        assert!(check_file("xtask/src/a.rs", &lines(600)).is_empty());
        let problems = check_file("xtask/src/a.rs", &lines(601));
        assert!(
            problems[0].starts_with("xtask/src/a.rs: 601 lines, at most 600;"),
            "{problems:?}"
        );
        let excused = format!("//! long: a table of names\n{}", lines(700));
        assert!(check_file("xtask/src/a.rs", &excused).is_empty());
    }

    #[test]
    fn banned_calls_are_found_in_library_code() {
        let text = "//! Unlike VarMap.\nlet y = candle_nn::ops::softmax_last_dim(&x)?;\n";
        let problems = check_file("crates/nn/src/a.rs", text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0]
                .starts_with("crates/nn/src/a.rs:2: uses softmax_last_dim; it stops gradients")
        );
        let random =
            "let a = Tensor::randn(0., 1., 3, d)?;\nlet b = Tensor::rand(0., 1., 3, d)?;\n";
        assert_eq!(check_file("crates/nn/src/a.rs", random).len(), 2);
    }

    #[test]
    fn tests_may_compare_with_banned_calls() {
        let text =
            "fn f() {}\n#[cfg(test)]\nmod tests {\n    let x = Tensor::randn(0., 1., 3, d);\n}\n";
        assert!(check_file("crates/nn/src/a.rs", text).is_empty());
        for path in [
            "crates/nn/tests/a.rs",
            "tests/src/a.rs",
            "crates/nn/src/a/tests.rs",
            "crates/nn/benches/a.rs",
        ] {
            assert!(check_file(path, "VarMap::new()").is_empty(), "{path}");
        }
        assert_eq!(check_file("crates/nn/src/a.rs", "VarMap::new()").len(), 1);
        assert!(check_file(VAR_MAP_HOME, "VarMap::new()").is_empty());
    }
}
