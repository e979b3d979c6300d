//! Selects images that match a text, by CLIP, and copies them with their scores.

use crate::cache::CacheLocation;
use crate::context::Context;
use crate::error::{Result, ResultExt as _, failed, option};
use crate::evaluate::{ClipModel, no_tokenizer};
use crate::weights::Weights;
use sdft_data::list_images;
use sdft_eval::{Extractor, View, features_of_text, of_files};
use sdft_features::Network;
use sdft_gallery::{
    Failures, Outputs, check_apart, check_folder, check_sheet, full_path, sheet_path, write_sheet,
};
use sdft_imaging::{Limits, Rgb8, center_crop, decode_file, grid, titled};
use sdft_metrics::cosine;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How many images are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Take {
    /// The nearest ones, this many.
    Top(usize),
    /// Those of at least this cosine similarity, -1 to 1.
    Threshold(f64),
}

/// Options of a selection.
#[derive(Clone, Debug)]
pub struct SelectOptions {
    /// The folder of the images.
    pub dir: PathBuf,
    /// What the images should show.
    pub prompt: String,
    /// How many are taken.
    pub take: Take,
    /// The folder of the result; `DIR-selected` if `None`.
    pub out: Option<PathBuf>,
    /// Whether a selection by other settings is replaced.
    pub overwrite: bool,
    /// CLIP's network.
    pub clip: ClipModel,
    /// Its files.
    pub weights: Weights,
}

/// A selection.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectReport {
    /// The folder of the copies.
    pub images: PathBuf,
    /// The table of all images, the nearest first.
    pub scores: PathBuf,
    /// The contact sheet of the best, the last taken and the first left out.
    pub sheet: PathBuf,
    /// Images taken.
    pub taken: usize,
    /// Images in all.
    pub all: usize,
    /// Similarity of the nearest image, the last one taken, and the farthest one.
    pub similarity: [f64; 3],
}

/// An image and its similarity to the text.
struct Scored<'a> {
    id: &'a str,
    path: &'a Path,
    score: f64,
}

/// Ranks the images of a folder by their similarity to a text, and copies the nearest.
///
/// # Errors
/// An option cannot be used, no image is near enough, the folder of the result holds something else, or an image cannot be copied, after
/// all others were.
pub fn select_images(options: &SelectOptions, context: &mut Context<'_>) -> Result<SelectReport> {
    match options.take {
        Take::Top(0) => return Err(option("top", "0: expected 1 or more")),
        Take::Threshold(threshold) if !(-1.0..=1.0).contains(&threshold) => {
            let problem = format!("{threshold}: expected -1 to 1");
            return Err(option("threshold", problem));
        }
        _ => {}
    }
    let files = list_images(&options.dir)?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => selected(&options.dir),
    };
    check_folder(&out, &SelectPlan::of(options), options.overwrite)?;
    check_apart(&out, &options.dir)?;
    check_sheet(&out)?;
    let patch = options.clip.patch();
    let network = Network::Clip(patch);
    let otherwise = format!("give --weights {}=FILE for both files", network.name());
    let nets = options.weights.of(network, &otherwise)?;
    let Some(tokenizer) = &nets.tokenizer else {
        return Err(no_tokenizer(network));
    };
    let device = context.runtime_in_f32().device;
    let text = features_of_text(patch, &nets.weights, tokenizer, &options.prompt, &device)?;
    let extractor = Extractor::read(View::Clip(patch), &nets.weights, &device)?;
    // Another text or threshold on the same images is likely.
    let mut cache = CacheLocation::User.features(&extractor, context);
    let (features, conversions) = of_files(&files, &extractor, &mut cache, &mut |done, all| {
        context.progress.images(done as f64, all);
    })?;
    context.notes(conversions.notes());
    if let Some(problem) = cache.problem() {
        let text = format!("features are not kept: {problem}");
        context.progress.note(&text);
    }
    let mut scored = Vec::with_capacity(files.len());
    for (i, (id, path)) in files.iter().enumerate() {
        let score = cosine(features.row(i).unwrap_or_default(), &text).context(id)?;
        scored.push(Scored { id, path, score });
    }
    // Ties are broken by name, so that the order is the same on every machine.
    scored.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(b.id)));
    let (best, worst) = (scored[0].score, scored[scored.len() - 1].score);
    let taken = match options.take {
        Take::Top(n) => n.min(scored.len()),
        Take::Threshold(threshold) => match scored.partition_point(|s| s.score >= threshold) {
            0 => {
                return Err(failed(format!(
                    "no image reaches `threshold` {threshold}: similarities are {worst:.4} to {best:.4}"
                )));
            }
            taken => taken,
        },
    };
    write(options, &out, &scored, taken)?;
    Ok(SelectReport {
        images: out.join(IMAGES),
        scores: out.join(SCORES),
        sheet: sheet_path(&out),
        taken,
        all: scored.len(),
        similarity: [best, scored[taken - 1].score, worst],
    })
}

const IMAGES: &str = "images";
const SCORES: &str = "scores.csv";
const SELECTION: &str = "selection.txt";

/// The default folder, `DIR-selected`.
fn selected(dir: &Path) -> PathBuf {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = full.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{name}-selected");
    match dir.file_name() {
        Some(_) => dir.with_file_name(name),
        // `.` and `..` have no name of their own to replace.
        None => full.with_file_name(name),
    }
}

/// The settings that decide a selection, as they are recorded in `plan.toml` next to it.
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
    fn of(options: &SelectOptions) -> Self {
        let (top, threshold) = match options.take {
            Take::Top(n) => (Some(n), None),
            Take::Threshold(x) => (None, Some(x)),
        };
        Self {
            dir: full_path(&options.dir.display().to_string()),
            prompt: options.prompt.clone(),
            top,
            threshold,
            clip: options.clip.to_string(),
            weights: options.weights.arguments().to_vec(),
        }
    }
}

fn write(options: &SelectOptions, out: &Path, scored: &[Scored<'_>], taken: usize) -> Result<()> {
    let mut outputs = Outputs::open(out, &SelectPlan::of(options), options.overwrite)?;
    let mut failures = Failures::new("images");
    let (mut table, mut list) = (String::from("file,similarity,taken\n"), String::new());
    let mut names = vec![SCORES.to_owned(), SELECTION.to_owned()];
    for (i, Scored { id, path, score }) in scored.iter().enumerate() {
        table += &format!("{},{score:.6},{}\n", field(id), u8::from(i < taken));
        if i < taken {
            list += &format!("{id}\n");
            let name = format!("{IMAGES}/{id}");
            if let Some(problem) = copy(&mut outputs, path, &name)? {
                failures.add(id, problem);
            }
            names.push(name);
        }
    }
    outputs.put(SCORES, "", table.as_bytes())?;
    outputs.put(SELECTION, "", list.as_bytes())?;
    // Images of an earlier selection from fewer images are not part of this one.
    outputs.retain(&names.iter().map(String::as_str).collect())?;
    write_sheet(out, &picture(options, scored, taken))?;
    Ok(failures.check(taken)?)
}

/// Copies an image, and returns why that failed if other images may still succeed.
fn copy(outputs: &mut Outputs, from: &Path, name: &str) -> Result<Option<String>> {
    let bytes = match std::fs::read(from) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Some(format!("cannot read {}: {error}", from.display()))),
    };
    let hash = sdft_files::sha256_bytes(&bytes);
    if outputs.is_complete(name, &hash) {
        return Ok(None);
    }
    match outputs.put(name, &hash, &bytes) {
        Err(error) if !error.ends_everything() => Ok(Some(error.to_string())),
        put => Ok(put.map(|()| None)?),
    }
}

/// A field of a table, in quotes where necessary.
fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// The best, the last taken and the first left out, to judge a threshold by.
fn picture(options: &SelectOptions, scored: &[Scored<'_>], taken: usize) -> Rgb8 {
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
        // An image that cannot be read any more fails where it is copied.
        let cells: Vec<Rgb8> = part.iter().filter_map(|s| cell(s).ok()).collect();
        rows.push(titled(&grid(&cells, COLUMNS, 2, [24, 24, 24]), title));
    }
    titled(&stacked(&rows), &options.prompt)
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
    use sdft_imaging::write_png;

    fn top(n: usize) -> SelectOptions {
        SelectOptions {
            dir: "pics".into(),
            prompt: "a text".into(),
            take: Take::Top(n),
            out: None,
            overwrite: false,
            clip: ClipModel::B32,
            weights: Weights::default(),
        }
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
        write(&top(2), &out, &scored, 2).unwrap();
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
    fn a_missing_image_is_named_and_the_others_are_copied() {
        let root = tempfile::tempdir().unwrap();
        let (gone, there) = (root.path().join("gone.png"), root.path().join("there.png"));
        write_png(&there, &Rgb8::filled(20, 10, [7; 3])).unwrap();
        let scored = [("gone.png", &gone), ("there.png", &there)].map(|(id, path)| Scored {
            id,
            path,
            score: 0.5,
        });
        let out = root.path().join("out");
        let error = write(&top(2), &out, &scored, 2).unwrap_err().to_string();
        assert!(
            error.contains("1 of 2 images failed") && error.contains("gone.png"),
            "{error}"
        );
        assert!(out.join(IMAGES).join("there.png").is_file());
        // The same selection again continues, and drops images that it does not take any more.
        write(&top(2), &out, &scored[..1], 1).unwrap_err();
        assert!(!out.join(IMAGES).join("there.png").exists());
        assert!(write(&top(1), &out, &scored[1..], 1).is_err());
    }
}
