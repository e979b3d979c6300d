//! The page in a real browser, where there is one (`chromium` or `google-chrome` on the PATH); without one the test says that it is skipped.
#![expect(clippy::print_stderr, reason = "says that the test is skipped")]

use sdft_imaging::{Rgb8, write_png};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The folder of a run of two logged steps.
fn run(root: &Path) {
    fs::create_dir_all(root.join("samples")).unwrap();
    let plan = "name = 'r'\nmethod = 'sdft'\n[loop]\nsteps = 20\n[loss]\nbase = 'p2-1'\nweight = 'snr-3'\nweight_aux = 'snr-50'\n";
    fs::write(root.join("plan.toml"), plan).unwrap();
    let log = "{\"step\":10,\"loss\":0.5,\"eval.kid\":9.0,\"time\":{}}\n{\"step\":20,\"loss\":0.25,\"eval.kid\":5.0,\"time\":{}}\n";
    fs::write(root.join("log.jsonl"), log).unwrap();
    for step in [0, 10, 20] {
        let path = root.join(format!("samples/step-{step:06}.png"));
        write_png(&path, &Rgb8::filled(40, 20, [step, 90, 30])).unwrap();
    }
}

#[test]
fn a_browser_shows_the_page_without_errors_and_its_script_works() {
    let browsers = ["chromium", "google-chrome"];
    let is_there = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let Some(browser) = browsers.iter().find(is_there) else {
        eprintln!("skipped: no chromium or google-chrome on the PATH");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let roots = ["a", "b"].map(|name| dir.path().join(name));
    roots.iter().for_each(|root| run(root));
    let evaluation = dir.path().join("e");
    fs::create_dir(&evaluation).unwrap();
    fs::write(evaluation.join("plan.toml"), "size = 3").unwrap();
    fs::write(
        evaluation.join("report.json"),
        r#"{"measures":[{"name":"FID","value":1.5}]}"#,
    )
    .unwrap();
    let folders = [&roots[..], &[evaluation]].concat();
    let path = sdft_report::write_page(&folders, Some(&dir.path().join("p.html")), &|_| None);
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            dir.path().join("profile").display()
        ))
        .arg(format!("file://{}", path.unwrap().display()))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr);
    // Everything that the page's console shows, also what its content policy has refused to load.
    let console: Vec<&str> = messages
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    assert!(console.is_empty(), "{console:#?}");
    assert!(
        shown.contains("aria-valuetext=\"20 steps\""),
        "the slider has not been set up"
    );
    assert!(
        shown.contains("<button>measure</button>"),
        "the table does not sort"
    );
    assert_eq!(
        shown.matches("<svg").count(),
        4,
        "loss, KID and the weights of two runs"
    );
}
