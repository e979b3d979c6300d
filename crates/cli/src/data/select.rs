//! `data select`: images near to a text -> a folder of copies with their scores.

use super::args::SelectArgs;
use crate::args::ClipArg;
use crate::evaluate::{open_cache, user_cache_folder};
use crate::gallery::outputs::{Outputs, ends_everything};
use crate::gallery::{Failures, full_path, refusal, sheet};
use crate::weights::Weights;
use crate::{console, usage};
use anyhow::{Context, Result, bail};
use sdft_data::list_images;
use sdft_eval::{Extractor, View, features_of_text, of_files};
use sdft_features::Network;
use sdft_imaging::{Limits, Rgb8, center_crop, decode_file, grid, titled};
use sdft_metrics::cosine;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// An image and its similarity to the text.
struct Scored<'a> {
    id: &'a str,
    path: &'a Path,
    score: f64,
}

pub(crate) fn select(args: &SelectArgs) -> Result<()> {
    if let Some(threshold) = args.threshold
        && !(-1.0..=1.0).contains(&threshold)
    {
        return Err(usage(format!("--threshold {threshold}: expected -1 to 1")));
    }
    let files = list_images(&args.dir)?;
    let out = args.out.clone().unwrap_or_else(|| beside(&args.dir));
    refusal::check(&out, &SelectPlan::of(args), args.overwrite.into())?;
    refusal::check_apart(&out, &args.dir)?;
    sheet::check(&out)?;
    let patch = match args.clip {
        ClipArg::B16 => 16,
        ClipArg::B32 => 32,
    };
    let network = Network::Clip(patch);
    let name = network.name();
    let nets = Weights::parse(&args.weights)?.of(
        network,
        &format!("give --weights {name}=FILE for both files"),
    )?;
    let Some(tokenizer) = &nets.tokenizer else {
        bail!(
            "{name}: texts need the model's tokenizer.json too; give --weights {name}=tokenizer.json"
        );
    };
    let text = features_of_text(patch, &nets.weights, tokenizer, &args.prompt)?;
    let extractor = Extractor::read(View::Clip(patch), &nets.weights)?;
    // Another text or threshold is tried soon.
    let mut cache = open_cache(user_cache_folder(), &extractor);
    let mut ticker = console::Ticker::new("looking", files.len());
    let (features, conversions) = of_files(&files, &extractor, &mut cache, &mut |done, _| {
        ticker.tick(done as f64);
    })?;
    ticker.finish(files.len());
    for note in conversions.notes() {
        console::note(&note);
    }
    if let Some(problem) = cache.problem() {
        console::note(&format!("features are not kept: {problem}"));
    }
    let mut scored = Vec::with_capacity(files.len());
    for (i, (id, path)) in files.iter().enumerate() {
        let score =
            cosine(features.row(i).unwrap_or_default(), &text).with_context(|| id.clone())?;
        scored.push(Scored { id, path, score });
    }
    // Ties by name, so that the order says nothing about the machine.
    scored.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(b.id)));
    let taken = match (args.top, args.threshold) {
        (Some(n), _) => n.min(scored.len()),
        (_, threshold) => scored.partition_point(|s| Some(s.score) >= threshold),
    };
    let (best, worst) = (scored[0].score, scored[scored.len() - 1].score);
    if taken == 0 {
        bail!(
            "no image reaches --threshold {}: similarities are {worst:.4} to {best:.4}",
            args.threshold.unwrap_or_default()
        );
    }
    write(args, &out, &scored, taken)?;
    let least = scored[taken - 1].score;
    console::line(format_args!(
        "{}: {taken} of {} images, similarity {best:.4} to {least:.4} (all: down to {worst:.4})",
        out.join(IMAGES).display(),
        scored.len()
    ))?;
    console::line(format_args!("scores   {}", out.join(SCORES).display()))?;
    console::line(format_args!("to look at {}", sheet::place(&out).display()))?;
    Ok(())
}

const IMAGES: &str = "images";
const SCORES: &str = "scores.csv";
const SELECTION: &str = "selection.txt";

/// `DIR-selected`.
fn beside(dir: &Path) -> PathBuf {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = full.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{name}-selected");
    match dir.file_name() {
        Some(_) => dir.with_file_name(name),
        // `.` and `..` have no name of their own to replace.
        None => full.with_file_name(name),
    }
}

/// What decides a selection, as it stands in `plan.toml` next to it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectPlan {
    dir: String,
    prompt: String,
    top: Option<usize>,
    threshold: Option<f64>,
    clip: String,
    weights: Vec<String>,
}

impl SelectPlan {
    fn of(args: &SelectArgs) -> Self {
        Self {
            dir: full_path(&args.dir.display().to_string()),
            prompt: args.prompt.clone(),
            top: args.top,
            threshold: args.threshold,
            clip: format!("{:?}", args.clip).to_lowercase(),
            weights: args.weights.clone(),
        }
    }
}

fn write(args: &SelectArgs, out: &Path, scored: &[Scored<'_>], taken: usize) -> Result<()> {
    let mut outputs = Outputs::open(out, &SelectPlan::of(args), args.overwrite)?;
    let mut failures = Failures::new("images");
    let (mut table, mut list) = (String::from("file,similarity,taken\n"), String::new());
    let mut names = vec![SCORES.to_owned(), SELECTION.to_owned()];
    for (i, Scored { id, path, score }) in scored.iter().enumerate() {
        writeln!(table, "{},{score:.6},{}", field(id), u8::from(i < taken))?;
        if i < taken {
            writeln!(list, "{id}")?;
            let name = format!("{IMAGES}/{id}");
            if let Some(problem) = copy(&mut outputs, path, &name)? {
                failures.add(id, problem);
            }
            names.push(name);
        }
    }
    outputs.put(SCORES, "", table.as_bytes())?;
    outputs.put(SELECTION, "", list.as_bytes())?;
    // Those of an earlier selection from fewer images are not part of this one.
    outputs.retain(&names.iter().map(String::as_str).collect())?;
    sheet::write(out, &picture(args, scored, taken))?;
    failures.conclude(taken)
}

/// Copies an image, or says why not; what would meet every other image as well is an error.
fn copy(outputs: &mut Outputs, from: &Path, name: &str) -> Result<Option<String>> {
    let bytes = match std::fs::read(from) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Some(format!("cannot read {}: {error}", from.display()))),
    };
    let hash = sdft_checkpoint::sha256_bytes(&bytes);
    if outputs.is_complete(name, &hash) {
        return Ok(None);
    }
    match outputs.put(name, &hash, &bytes) {
        Err(error) if !ends_everything(&error) => Ok(Some(format!("{error:#}"))),
        put => put.map(|()| None),
    }
}

/// A field of a table: in quotes where it needs them.
fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// The best, the last taken and the first left out: what a threshold should be judged by.
fn picture(args: &SelectArgs, scored: &[Scored<'_>], taken: usize) -> Rgb8 {
    const COLUMNS: usize = 12;
    const SIDE: usize = 96;
    let cell = |s: &Scored<'_>| -> Result<Rgb8> {
        let image = decode_file(s.path, &Limits::from_env()?)?;
        Ok(titled(
            &center_crop(&image, SIDE),
            &format!("{:.3}", s.score),
        ))
    };
    let mut parts = vec![("best", &scored[..taken.min(2 * COLUMNS)])];
    if taken > 2 * COLUMNS {
        let from = (taken - COLUMNS).max(2 * COLUMNS);
        parts.push(("last taken", &scored[from..taken]));
    }
    if taken < scored.len() {
        let to = (taken + COLUMNS).min(scored.len());
        parts.push(("first left out", &scored[taken..to]));
    }
    let mut rows = Vec::new();
    for (title, part) in parts {
        // One that cannot be read any more is listed where it is copied.
        let cells: Vec<Rgb8> = part.iter().filter_map(|s| cell(s).ok()).collect();
        rows.push(titled(&grid(&cells, COLUMNS, 2, [24, 24, 24]), title));
    }
    titled(&stacked(&rows), &args.prompt)
}

/// One below the other, aligned at the left.
fn stacked(rows: &[Rgb8]) -> Rgb8 {
    let width = rows.iter().map(|row| row.width).max().unwrap_or(1);
    let height = rows.iter().map(|row| row.height).sum::<usize>().max(1);
    let mut out = Rgb8::filled(width, height, [24, 24, 24]);
    let mut y = 0;
    for row in rows {
        for line in row.pixels.chunks_exact(3 * row.width) {
            out.pixels[3 * y * width..][..line.len()].copy_from_slice(line);
            y += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use crate::data::args::DataVerb;
    use clap::Parser;
    use sdft_imaging::write_png;

    fn args(more: &[&str]) -> SelectArgs {
        let words = ["sdft", "data", "select", "pics", "--prompt", "a text"];
        let verb = Cli::try_parse_from(words.iter().chain(more)).unwrap().verb;
        let Verb::Data(data) = verb else { panic!() };
        let DataVerb::Select(args) = data.verb else {
            panic!()
        };
        args
    }

    #[test]
    fn one_of_top_and_threshold_is_needed() {
        let words = ["sdft", "data", "select", "pics", "--prompt", "x"];
        assert!(Cli::try_parse_from(words).is_err());
        for both in [["--top", "1"], ["--threshold", "0.2"]] {
            assert!(Cli::try_parse_from(words.iter().chain(&both)).is_ok());
        }
        let both = ["--top", "1", "--threshold", "0.2"];
        assert!(Cli::try_parse_from(words.iter().chain(&both)).is_err());
        assert!(Cli::try_parse_from(words.iter().chain(&["--top", "0"])).is_err());
    }

    #[test]
    fn scores_selection_images_and_sheet_are_written_together() {
        let root = tempfile::tempdir().unwrap();
        let pics = root.path().join("pics");
        let ids = ["b/x.png", "a, \"quoted\".png", "c.png"];
        let mut files = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let path = pics.join(id);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_png(&path, &Rgb8::filled(20, 10, [i as u8, 0, 0])).unwrap();
            files.push((*id, path));
        }
        let scored: Vec<Scored<'_>> = files
            .iter()
            .zip([0.5, 0.25, -0.125])
            .map(|((id, path), score)| Scored { id, path, score })
            .collect();
        let out = root.path().join("out");
        write(&args(&["--top", "2"]), &out, &scored, 2).unwrap();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        let table = "file,similarity,taken\nb/x.png,0.500000,1\n\"a, \"\"quoted\"\".png\",0.250000,1\nc.png,-0.125000,0\n";
        assert_eq!(read(SCORES), table);
        assert_eq!(read(SELECTION), "b/x.png\na, \"quoted\".png\n");
        let kept = list_images(&out.join(IMAGES)).unwrap();
        let kept: Vec<&str> = kept.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(kept, ["a, \"quoted\".png", "b/x.png"]);
        assert!(root.path().join("out-grid.png").is_file());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 3);
    }

    #[test]
    fn an_image_that_is_gone_is_named_and_the_others_are_taken() {
        let root = tempfile::tempdir().unwrap();
        let (gone, there) = (root.path().join("gone.png"), root.path().join("there.png"));
        write_png(&there, &Rgb8::filled(20, 10, [7; 3])).unwrap();
        let scored = [("gone.png", &gone), ("there.png", &there)].map(|(id, path)| Scored {
            id,
            path,
            score: 0.5,
        });
        let out = root.path().join("out");
        let args = args(&["--top", "2"]);
        let error = write(&args, &out, &scored, 2).unwrap_err().to_string();
        assert!(
            error.contains("1 of 2 images failed") && error.contains("gone.png"),
            "{error}"
        );
        assert!(out.join(IMAGES).join("there.png").is_file());
        // The same selection again goes on, and drops what it does not take any more.
        write(&args, &out, &scored[..1], 1).unwrap_err();
        assert!(!out.join(IMAGES).join("there.png").exists());
        let other = SelectArgs {
            top: Some(1),
            ..args
        };
        assert!(write(&other, &out, &scored[1..], 1).is_err());
    }
}
