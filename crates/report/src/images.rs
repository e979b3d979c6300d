//! A folder of images: translations or edits next to their inputs, or samples.

use crate::error::{Error, Result};
use crate::picture::{Embedded, embed, embed_picture, read};
use crate::plan::{Setting, read_plan, settings, text, value};
use sdft_imaging::{
    Depth, Fit, Fitting, Image, ImageSpec, Rgb8, fit, is_named_like_a_picture, without_ending,
};
use sdft_metrics::{Picture, SsimWindow, psnr, ssim};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::Table;

/// Inputs, or samples, on the page.
const SHOWN: usize = 32;

/// A folder of images as the page shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Images {
    pub(crate) name: String,
    /// As in `sdedit`.
    pub(crate) method: String,
    /// Images in all, and how many inputs are on the page.
    pub(crate) all: usize,
    pub(crate) shown: usize,
    /// The headings of the strengths; one without a name where there is no sweep.
    pub(crate) variants: Vec<String>,
    pub(crate) pairs: Vec<Pair>,
    /// Pictures without an input.
    pub(crate) samples: Vec<Named>,
    pub(crate) strips: Vec<Named>,
    /// What is missing on the page, and why.
    pub(crate) warnings: Vec<String>,
    pub(crate) settings: Vec<Setting>,
}

/// An input with its outputs.
#[derive(Debug, Serialize)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) input: Embedded,
    pub(crate) outputs: Vec<Output>,
}

/// An output, and how close it is to the input.
#[derive(Debug, Serialize)]
pub(crate) struct Output {
    pub(crate) variant: String,
    pub(crate) picture: Embedded,
    /// In dB; absent where it is infinite.
    pub(crate) psnr: Option<f64>,
    pub(crate) ssim: Option<f64>,
}

/// A picture with a name.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) picture: Embedded,
}

/// Reads a folder; `most` bounds the bytes of its pictures.
pub(crate) fn read_images(root: &Path, name: String, most: usize) -> Result<Images> {
    let plan = read_plan(root)?;
    let recorded = sdft_gallery::recorded_names(root).map_err(|error| Error::Content {
        path: root.to_owned(),
        problem: error.to_string(),
    })?;
    let names: BTreeSet<String> = recorded
        .into_iter()
        .filter(|name| is_named_like_a_picture(Path::new(name)))
        .filter(|name| root.join(name).is_file())
        .collect();
    let (strips, names): (BTreeSet<String>, BTreeSet<String>) = names
        .into_iter()
        .partition(|name| name.starts_with("strips/"));
    let variants = variants(&plan, &names);
    // The outputs of an input have its name inside the folder of each strength.
    let mut of_inputs: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for name in &names {
        let (variant, stem) = match variants.len() {
            0 => (String::new(), name.as_str()),
            _ => name
                .split_once('/')
                .map_or((String::new(), name.as_str()), |(variant, rest)| {
                    (variant.to_owned(), rest)
                }),
        };
        let key = without_ending(stem).to_owned();
        of_inputs
            .entry(key)
            .or_default()
            .push((variant, name.clone()));
    }
    let mut images = Images {
        name,
        method: method(&plan),
        all: names.len(),
        shown: 0,
        variants,
        pairs: Vec::new(),
        samples: Vec::new(),
        strips: Vec::new(),
        warnings: Vec::new(),
        settings: settings(&plan, &[]),
    };
    let inputs = text(&plan, &["input"]).map(|input| inputs(Path::new(input)));
    let count = of_inputs.len().min(SHOWN);
    let each = most / (count * (images.variants.len().max(1) + 1) + strips.len().min(8)).max(1);
    for (stem, outputs) in of_inputs.into_iter().take(SHOWN) {
        let input = inputs.as_ref().map(|inputs| inputs.get(&stem));
        match input {
            Some(Some(input)) => match pair(root, stem, input, &outputs, each) {
                Ok(pair) => images.pairs.push(pair),
                Err(error) => images.warnings.push(error.to_string()),
            },
            _ => {
                if input.is_some() {
                    let problem = format!("{stem}: its input is not in the plan's folder any more");
                    images.warnings.push(problem);
                }
                for (_, name) in outputs {
                    let picture = embed(&root.join(&name), each)?;
                    images.samples.push(Named { name, picture });
                }
            }
        }
        images.shown += 1;
    }
    for name in strips.into_iter().take(8) {
        let picture = embed(&root.join(&name), each)?;
        images.strips.push(Named { name, picture });
    }
    Ok(images)
}

/// The folders of a sweep, in the order of their strengths.
fn variants(plan: &Table, names: &BTreeSet<String>) -> Vec<String> {
    let count = ["variants", "factors"]
        .iter()
        .filter_map(|key| value(plan, &[key])?.as_array())
        .map(Vec::len)
        .max()
        .unwrap_or(1);
    if count < 2 {
        return Vec::new();
    }
    let labels = value(plan, &["variants"]).and_then(toml::Value::as_array);
    let labels: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|variant| Some(variant.get("label")?.as_str()?.to_owned()))
        .collect();
    if labels.len() == count {
        return labels;
    }
    let folders = names
        .iter()
        .filter_map(|name| Some(name.split_once('/')?.0.to_owned()));
    folders.collect::<BTreeSet<_>>().into_iter().collect()
}

fn method(plan: &Table) -> String {
    match text(plan, &["method"]) {
        Some(method) => method.to_owned(),
        None if plan.contains_key("edits") => "edit".to_owned(),
        None => "samples".to_owned(),
    }
}

/// The input files by their path inside the folder, without the ending.
fn inputs(path: &Path) -> BTreeMap<String, PathBuf> {
    let mut all = BTreeMap::new();
    if path.is_file() {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        all.insert(without_ending(&name).to_owned(), path.to_owned());
    } else {
        list(path, "", &mut all);
    }
    all
}

fn list(folder: &Path, prefix: &str, all: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), &format!("{name}/"), all),
            Ok(_) if is_named_like_a_picture(&entry.path()) => {
                all.entry(without_ending(&name).to_owned())
                    .or_insert(entry.path());
            }
            _ => {}
        }
    }
}

fn pair(
    root: &Path,
    name: String,
    input: &Path,
    outputs: &[(String, String)],
    each: usize,
) -> Result<Pair> {
    let original = read(input)?;
    let mut seen = None;
    let mut rows = Vec::with_capacity(outputs.len());
    for (variant, file) in outputs {
        let path = root.join(file);
        let output = read(&path)?;
        // What the model has seen of the input: its middle, in the size of the output.
        let input = cropped(&original, output.width, output.height);
        let measured = |value: Option<f64>| value.filter(|value| value.is_finite());
        rows.push(Output {
            variant: variant.clone(),
            picture: embed(&path, each)?,
            psnr: measured(compared(&input, &output, psnr)),
            ssim: measured(compared(&input, &output, |a, b| {
                ssim(a, b, SsimWindow::Gaussian11)
            })),
        });
        seen = Some(input);
    }
    Ok(Pair {
        name,
        input: embed_picture(seen.as_ref().unwrap_or(&original), each)?,
        outputs: rows,
    })
}

fn cropped(picture: &Rgb8, width: usize, height: usize) -> Rgb8 {
    if (picture.width, picture.height) == (width, height) {
        return picture.clone();
    }
    let spec = ImageSpec::new(3, Depth::U8, width, height);
    let fitted = fit(
        &Image::from(picture.clone()),
        &Fitting::new(spec, Fit::Crop),
    );
    Rgb8::from_image(fitted.image)
}

fn compared(
    a: &Rgb8,
    b: &Rgb8,
    measure: impl Fn(&Picture<'_>, &Picture<'_>) -> sdft_metrics::Result<f64>,
) -> Option<f64> {
    measure(&samples(a)?, &samples(b)?).ok()
}

fn samples(picture: &Rgb8) -> Option<Picture<'_>> {
    Picture::rgb8(&picture.pixels, picture.width, picture.height).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_gallery::Outputs;
    use sdft_imaging::{encode_png, write_png};

    #[derive(Serialize, serde::Deserialize)]
    struct Plan {
        method: String,
        input: String,
        variants: Vec<Variant>,
    }

    #[derive(Serialize, serde::Deserialize)]
    struct Variant {
        label: String,
    }

    fn picture(value: u8) -> Rgb8 {
        let pixels = (0..3 * 16 * 16)
            .map(|i| value.wrapping_add((i % 16) as u8))
            .collect();
        Rgb8::new(16, 16, pixels).unwrap()
    }

    #[test]
    fn outputs_are_next_to_their_inputs_with_the_distance() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        std::fs::create_dir_all(input.join("sub")).unwrap();
        write_png(&input.join("a.png"), &picture(10)).unwrap();
        write_png(&input.join("sub/b.png"), &picture(20)).unwrap();
        let plan = Plan {
            method: "sdedit".into(),
            input: input.display().to_string(),
            variants: ["0.5", "0.25"]
                .map(|label| Variant {
                    label: label.into(),
                })
                .into(),
        };
        let root = dir.path().join("out");
        let mut outputs = Outputs::open(&root, &plan, false).unwrap();
        for name in ["0.5/a.png", "0.25/a.png", "0.5/sub/b.png", "0.25/sub/b.png"] {
            let png = encode_png(&picture(10)).unwrap();
            outputs.put(name, "", &png).unwrap();
        }
        drop(outputs);
        let images = read_images(&root, "out".into(), 1 << 20).unwrap();
        assert_eq!(images.variants, ["0.5", "0.25"]);
        assert_eq!((images.all, images.shown), (4, 2));
        let names: Vec<_> = images.pairs.iter().map(|pair| pair.name.as_str()).collect();
        assert_eq!(names, ["a", "sub/b"]);
        // An equal picture has an infinite PSNR, which is not shown, and an SSIM of 1.
        let same = &images.pairs[0].outputs[0];
        assert_eq!((same.psnr, same.ssim), (None, Some(1.0)));
        let other = &images.pairs[1].outputs[0];
        assert!((other.psnr.unwrap() - 20.0 * (255.0f64 / 10.0).log10()).abs() < 0.01);
        assert!(images.warnings.is_empty());
    }

    #[test]
    fn an_input_that_is_gone_is_a_warning_and_the_output_stays() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            method: "ddib".into(),
            input: dir.path().join("gone").display().to_string(),
            variants: Vec::new(),
        };
        let root = dir.path().join("out");
        let mut outputs = Outputs::open(&root, &plan, false).unwrap();
        outputs
            .put("a.png", "", &encode_png(&picture(1)).unwrap())
            .unwrap();
        drop(outputs);
        let images = read_images(&root, "out".into(), 1 << 20).unwrap();
        assert_eq!((images.pairs.len(), images.samples.len()), (0, 1));
        assert!(images.warnings[0].contains("a: its input"));
    }
}
