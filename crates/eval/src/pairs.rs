//! Compares inputs with their outputs, image by image.

use crate::error::{EvalError, Result, of};
use crate::extractor::Extractor;
use crate::report::{Measure, Report};
use crate::sets::remark;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use sdft_features::Lpips;
use sdft_imaging::{
    Conversions, Limits, Reading, Rgb8, read_image_file, resize_short_side, to_unit_range,
    without_ending,
};
use sdft_metrics::{Picture, SsimWindow, cosine, directional_similarity, psnr, psnr_floored, ssim};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Batch size of the networks.
const BATCH: usize = 8;
/// Longest side of a resized picture.
const LONGEST: usize = 16_384;
/// Most pixels in a batch for LPIPS.
const BATCH_PIXELS: usize = 8 * 256 * 256;

const PSNR: &str = "PSNR";

/// How the images of two folders are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// By path relative to the folder, without extension.
    Name,
    /// In sorted order, as EGSDE's evaluation does.
    Order,
    /// By name; images without a partner are left out.
    Common,
}

/// An input and its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Path relative to the folder, without extension.
    pub name: String,
    /// The input image.
    pub input: PathBuf,
    /// The output image.
    pub output: PathBuf,
}

/// Pairs the images of two folders.
///
/// # Errors
/// Fails if a folder contains no images or an image has no partner; the error names them.
pub fn pair_up(input: &Path, output: &Path, pairing: Pairing) -> Result<Vec<Pair>> {
    let (inputs, outputs) = (
        sdft_data::list_images(input)?,
        sdft_data::list_images(output)?,
    );
    let stem = |id: &str| without_ending(id).to_owned();
    let problem = |problem: String| EvalError::Content {
        path: output.to_owned(),
        problem,
    };
    if pairing == Pairing::Order {
        if inputs.len() != outputs.len() {
            return Err(problem(format!(
                "expected as many images as in {} ({}), found {}",
                input.display(),
                inputs.len(),
                outputs.len()
            )));
        }
        let both = inputs.into_iter().zip(outputs);
        return Ok(both
            .map(|((id, input), (_, output))| Pair {
                name: stem(&id),
                input,
                output,
            })
            .collect());
    }
    let mut partners: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (id, path) in outputs {
        if let Some(other) = partners.insert(stem(&id), path) {
            return Err(problem(format!(
                "{id} and {} have the same name",
                other.display()
            )));
        }
    }
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for (id, input) in inputs {
        match partners.remove(&stem(&id)) {
            Some(output) => pairs.push(Pair {
                name: stem(&id),
                input,
                output,
            }),
            None => alone.push(id),
        }
    }
    alone.extend(partners.into_keys());
    if pairing == Pairing::Common && pairs.is_empty() {
        return Err(problem(format!(
            "no image has a partner of the same name in {}",
            input.display()
        )));
    }
    if !alone.is_empty() && pairing == Pairing::Name {
        let shown = alone.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = alone.len().saturating_sub(5);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        return Err(problem(format!(
            "{} images have no partner of the same name in the other folder: {shown}{more}; --pair-by order pairs them in sorted order",
            alone.len()
        )));
    }
    Ok(pairs)
}

/// The networks that compare pairs, if requested.
#[derive(Default)]
pub struct PairNets {
    /// LPIPS, its name and the hash of its weights.
    pub lpips: Option<(Lpips, String)>,
    /// The identity network.
    pub identity: Option<Extractor>,
    /// CLIP and the direction between two texts.
    pub text: Option<(Extractor, Vec<f64>)>,
}

/// A column of values.
struct Column {
    name: &'static str,
    note: String,
    values: Vec<f64>,
}

/// Compares inputs with outputs: PSNR, SSIM, and the metrics of `nets`.
///
/// If `size` is given, the short side of every image is resized to it first (Pillow's bicubic, as EGSDE's evaluation does with 256).
/// `progress` is called with (pairs done, total).
///
/// # Errors
/// Fails if an image cannot be read, the images of a pair have different sizes, or a network fails.
pub fn compare_pairs(
    pairs: &[Pair],
    size: Option<usize>,
    nets: &PairNets,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report> {
    let mut columns = vec![
        Column::new(PSNR, "dB, higher is better".into()),
        Column::new(
            "PSNR, EGSDE",
            "dB, at most 100: the error has a floor of 1e-10".into(),
        ),
        Column::new("SSIM", "higher is better; Gaussian 11, 1.5".into()),
        Column::new(
            "SSIM, 7x7",
            "higher is better; scikit-image's default".into(),
        ),
    ];
    if let Some((_, name)) = &nets.lpips {
        columns.push(Column::new("LPIPS", format!("lower is better; {name}")));
    }
    if let Some(net) = &nets.identity {
        columns.push(Column::new(
            "ID",
            format!("higher is better; {}", net.describe()),
        ));
    }
    if let Some((net, _)) = &nets.text {
        columns.push(Column::new(
            "S_dir",
            format!("higher is better; {}", net.describe()),
        ));
    }
    let limits = Limits::from_env()?;
    let mut conversions = [Conversions::default(); 2];
    for (i, chunk) in pairs.chunks(BATCH).enumerate() {
        let loaded = chunk
            .par_iter()
            .map(|pair| load(pair, size, &limits))
            .collect::<Result<Vec<_>>>()?;
        let mut images = Vec::with_capacity(loaded.len());
        for (pair, [input, output]) in loaded {
            images.push(pair);
            conversions[0] += input;
            conversions[1] += output;
        }
        let scores = images
            .par_iter()
            .zip(chunk)
            .map(|((a, b), pair)| of(&pair.name, pixel_scores(a, b)))
            .collect::<Result<Vec<_>>>()?;
        let (inputs, outputs): (Vec<Rgb8>, Vec<Rgb8>) = images.into_iter().unzip();
        let mut added = (0..4)
            .map(|c| scores.iter().map(|s| s[c]).collect::<Vec<f64>>())
            .collect::<Vec<_>>();
        if let Some((net, _)) = &nets.lpips {
            added.push(perceptual(net, &inputs, &outputs)?);
        }
        if let Some(net) = &nets.identity {
            added.push(embedded(net, &inputs, &outputs, chunk, &cosine)?);
        }
        if let Some((net, direction)) = &nets.text {
            let score = |a: &[f32], b: &[f32]| directional_similarity(a, b, direction);
            added.push(embedded(net, &inputs, &outputs, chunk, &score)?);
        }
        for (column, values) in columns.iter_mut().zip(added) {
            // Only PSNR may be infinite, for equal pictures.
            let sound = |v: &f64| v.is_finite() || (column.name == PSNR && *v == f64::INFINITY);
            if let Some(i) = values.iter().position(|v| !sound(v)) {
                return Err(EvalError::Content {
                    path: chunk[i].output.clone(),
                    problem: format!("{} is {}", column.name, values[i]),
                });
            }
            column.values.extend(values);
        }
        progress(i * BATCH + chunk.len(), pairs.len());
    }
    let mut report = summary(pairs, columns);
    for (label, conversions) in ["inputs", "outputs"].iter().zip(&conversions) {
        report.warnings.extend(remark(label, conversions));
    }
    Ok(report)
}

impl Column {
    fn new(name: &'static str, note: String) -> Self {
        Self {
            name,
            note,
            values: Vec::new(),
        }
    }
}

/// Two images, and their conversions while they were read.
type Loaded = ((Rgb8, Rgb8), [Conversions; 2]);

fn load(pair: &Pair, size: Option<usize>, limits: &Limits) -> Result<Loaded> {
    let read = |path: &Path| -> Result<(Rgb8, Conversions)> {
        let bytes = read_image_file(path, limits)?;
        let decoded = Reading::rgb8(*limits).decode(&bytes, &path.display().to_string(), 0)?;
        let conversions = decoded.conversions();
        let image = Rgb8::from_image(decoded.image);
        let (short, long) = (image.width.min(image.height), image.width.max(image.height));
        let image = match size {
            Some(size) if long * size / short > LONGEST => {
                return Err(EvalError::Content {
                    path: path.to_owned(),
                    problem: format!(
                        "{}x{} pixels: resizing the short side to {size} makes it longer than {LONGEST}",
                        image.width, image.height
                    ),
                });
            }
            Some(size) => resize_short_side(&image, size),
            None => image,
        };
        Ok((image, conversions))
    };
    let ((a, of_a), (b, of_b)) = (read(&pair.input)?, read(&pair.output)?);
    if (a.width, a.height) != (b.width, b.height) {
        return Err(EvalError::Content {
            path: pair.output.clone(),
            problem: format!(
                "{}x{} pixels, expected the {}x{} of {}; --size resizes pictures of one aspect ratio to one size",
                b.width,
                b.height,
                a.width,
                a.height,
                pair.input.display()
            ),
        });
    }
    Ok(((a, b), [of_a, of_b]))
}

fn pixel_scores(a: &Rgb8, b: &Rgb8) -> sdft_metrics::Result<[f64; 4]> {
    let a = Picture::rgb8(&a.pixels, a.width, a.height)?;
    let b = Picture::rgb8(&b.pixels, b.width, b.height)?;
    Ok([
        psnr(&a, &b)?,
        psnr_floored(&a, &b)?,
        ssim(&a, &b, SsimWindow::Gaussian11)?,
        ssim(&a, &b, SsimWindow::Uniform7)?,
    ])
}

/// LPIPS of each pair, in batches of pairs of one size.
fn perceptual(net: &Lpips, inputs: &[Rgb8], outputs: &[Rgb8]) -> Result<Vec<f64>> {
    let tensor = |image: &Rgb8| {
        let shape = (1, 3, image.height, image.width);
        Tensor::from_vec(to_unit_range(image), shape, &Device::Cpu)
    };
    let mut out = Vec::with_capacity(inputs.len());
    let same = inputs
        .iter()
        .all(|i| (i.width, i.height) == (inputs[0].width, inputs[0].height));
    // A batch of large pictures would need gigabytes for its feature maps.
    let pixels = inputs.iter().map(|i| i.width * i.height).max();
    let step = if same {
        (BATCH_PIXELS / pixels.unwrap_or(1)).max(1)
    } else {
        1
    };
    for (a, b) in inputs.chunks(step).zip(outputs.chunks(step)) {
        let stack = |images: &[Rgb8]| -> Result<Tensor> {
            let all = images.iter().map(tensor);
            Ok(Tensor::cat(
                &all.collect::<candle_core::Result<Vec<_>>>()?,
                0,
            )?)
        };
        let total = net.distance(&stack(a)?, &stack(b)?)?.total;
        out.extend(total.to_vec1::<f32>()?.into_iter().map(f64::from));
    }
    Ok(out)
}

/// A score of two feature vectors.
type Score<'a> = &'a dyn Fn(&[f32], &[f32]) -> sdft_metrics::Result<f64>;

fn embedded(
    net: &Extractor,
    inputs: &[Rgb8],
    outputs: &[Rgb8],
    pairs: &[Pair],
    score: Score<'_>,
) -> Result<Vec<f64>> {
    let (a, b) = (net.extract(inputs)?, net.extract(outputs)?);
    let rows = a.chunks_exact(net.dim()).zip(b.chunks_exact(net.dim()));
    rows.zip(pairs)
        .map(|((a, b), pair)| of(&pair.name, score(a, b)))
        .collect()
}

fn summary(pairs: &[Pair], columns: Vec<Column>) -> Report {
    let mut report = Report::default();
    for column in &columns {
        let finite: Vec<f64> = column
            .values
            .iter()
            .copied()
            .filter(|v| v.is_finite())
            .collect();
        let left_out = column.values.len() - finite.len();
        if left_out > 0 {
            report.warnings.push(format!(
                "{}: {left_out} of {} pairs are equal pixel by pixel, so their value is infinite; the mean is over the others",
                column.name,
                pairs.len()
            ));
        }
        let n = finite.len() as f64;
        let mean = finite.iter().sum::<f64>() / n;
        let variance = finite.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        report.measures.push(Measure {
            name: column.name.to_owned(),
            value: if finite.is_empty() {
                f64::INFINITY
            } else {
                mean
            },
            spread: (finite.len() > 1).then(|| variance.sqrt()),
            n: pairs.len().to_string(),
            note: column.note.clone(),
        });
    }
    report.columns = columns.iter().map(|c| c.name.to_owned()).collect();
    report.rows = pairs
        .iter()
        .enumerate()
        .map(|(i, pair)| {
            let values = columns.iter().map(|c| c.values[i]).collect();
            (pair.name.clone(), values)
        })
        .collect();
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_imaging::write_png;

    fn folder(names: &[(&str, u8)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, level) in names {
            let mut image = Rgb8::filled(16, 12, [*level, 40, 90]);
            image.pixels[7] = 200;
            write_png(&dir.path().join(name), &image).unwrap();
        }
        dir
    }

    #[test]
    fn images_are_paired_by_name_and_those_without_partner_are_named() {
        let (a, b) = (
            folder(&[("x.png", 10), ("y.png", 20)]),
            folder(&[("y.png", 30), ("x.png", 10)]),
        );
        let pairs = pair_up(a.path(), b.path(), Pairing::Name).unwrap();
        assert_eq!(pairs[1].output, b.path().join("y.png"));
        let mut calls = 0;
        let nets = PairNets::default();
        let report = compare_pairs(&pairs, None, &nets, &mut |_, _| calls += 1).unwrap();
        assert_eq!(calls, 1);
        assert_eq!(report.rows[0].1[0], f64::INFINITY);
        assert_eq!(report.rows[0].1[1], 100.0);
        assert_eq!(report.rows[0].1[2], 1.0);
        // Red differs by 10 in all pixels, the other channels are equal: mse = 100 / 3 / 255^2.
        let expected = 10.0 * (3.0 * 255.0 * 255.0 / 100.0f64).log10();
        assert!((report.measures[0].value - expected).abs() < 0.05);
        assert!(report.warnings[0].contains("1 of 2 pairs are equal"));
        let c = folder(&[("x.png", 10), ("z.png", 20)]);
        let error = pair_up(a.path(), c.path(), Pairing::Name).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("2 images have no partner") && text.contains("y.png, z"),
            "{text}"
        );
        let n = |pairing| pair_up(a.path(), c.path(), pairing).unwrap().len();
        assert_eq!((n(Pairing::Order), n(Pairing::Common)), (2, 1));
        let d = folder(&[("other.png", 1)]);
        assert!(pair_up(a.path(), d.path(), Pairing::Common).is_err());
        let one = folder(&[("x.png", 10)]);
        assert!(pair_up(a.path(), one.path(), Pairing::Order).is_err());
    }

    #[test]
    fn sizes_must_match_or_be_resized() {
        let (a, b) = (folder(&[("x.png", 10)]), tempfile::tempdir().unwrap());
        write_png(&b.path().join("x.png"), &Rgb8::filled(32, 24, [10, 40, 90])).unwrap();
        let pairs = pair_up(a.path(), b.path(), Pairing::Name).unwrap();
        let nets = PairNets::default();
        let error = compare_pairs(&pairs, None, &nets, &mut |_, _| {}).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("32x24") && text.contains("16x12") && text.contains("--size"),
            "{text}"
        );
        compare_pairs(&pairs, Some(12), &nets, &mut |_, _| {}).unwrap();
    }
}
