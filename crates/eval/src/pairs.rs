//! Compares inputs with their outputs, image by image.

use crate::error::{EvalError, Result, of};
use crate::extractor::Extractor;
use crate::loaded::{PairOptions, load};
use crate::native::Native;
use crate::pairing::Pair;
use crate::peers::Peers;
use crate::perceptual;
use crate::report::{Measure, Report};
use crate::sets::remark;
use rayon::prelude::*;
use sdft_features::Lpips;
use sdft_imaging::{Conversions, Limits, Rgb8};
use sdft_metrics::{SsimWindow, cosine, directional_similarity, psnr, psnr_floored, ssim};
use sdft_parallel::ProcessGroup;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Batch size of the networks.
const BATCH: usize = 8;

const PSNR: &str = "PSNR";

/// The kinds of the networks in tasks of several processes.
const LPIPS: u64 = 0;
const IDENTITY: u64 = 1;
const TEXT: u64 = 2;

/// The networks that compare pairs, if requested.
#[derive(Default)]
pub struct PairNets {
    /// LPIPS, its name and the hash of its weights.
    pub lpips: Option<(Lpips, String)>,
    /// The identity network.
    pub identity: Option<Extractor>,
    /// CLIP and the direction between two texts.
    pub text: Option<(Extractor, Vec<f64>)>,
    /// The processes that share the images, only one by default; set by [`Self::with_group`].
    pub group: Arc<ProcessGroup>,
}

impl PairNets {
    fn is_empty(&self) -> bool {
        self.lpips.is_none() && self.identity.is_none() && self.text.is_none()
    }

    /// The networks whose images the processes of a group share. The other ranks are in [`Self::serve`].
    #[must_use]
    pub fn with_group(self, group: &Arc<ProcessGroup>) -> Self {
        let share = |net: Extractor, kind| net.with_group(group, kind);
        Self {
            identity: self.identity.map(|net| share(net, IDENTITY)),
            text: self
                .text
                .map(|(net, direction)| (share(net, TEXT), direction)),
            group: group.clone(),
            ..self
        }
    }

    /// On the other ranks: answers the tasks of rank 0's networks until it ends the work.
    ///
    /// # Errors
    /// Fails if a network or the connection to rank 0 fails.
    pub fn serve(&self, group: &ProcessGroup) -> Result<()> {
        let extractors = [
            self.identity.as_ref(),
            self.text.as_ref().map(|(net, _)| net),
        ];
        let mut limit = perceptual::limit(&Limits::from_env()?);
        for net in extractors.iter().flatten() {
            limit.values = limit.values.max(net.limit().values);
        }
        group.serve(limit, |task| match (task.kind, &self.lpips, extractors) {
            (LPIPS, Some((net, _)), _) => perceptual::forward(net, &task),
            (IDENTITY, _, [Some(net), _]) | (TEXT, _, [_, Some(net)]) => net.forward(&task),
            (kind, ..) => Err(EvalError::Weights(format!(
                "rank 0 asks for network {kind} of the pairs, which this process does not have"
            ))),
        })
    }
}

/// A column of values.
struct Column {
    name: &'static str,
    note: String,
    values: Vec<f64>,
}

/// Compares inputs with outputs: PSNR, SSIM, and the metrics of `nets`.
///
/// PSNR and SSIM are those of the images' own channels and depth. Alpha counts as a channel where a pixel of either image is transparent.
/// Images of 8 and 16 bits with different channels or depths are compared as 8-bit RGB. Networks see 8-bit RGB. `progress` is called with
/// (pairs done, total).
///
/// # Errors
/// Fails if an image cannot be read, the images of a pair have different sizes, forms or ranges, or a network fails.
pub fn compare_pairs(
    pairs: &[Pair],
    options: &PairOptions,
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
    let mut outside = [0; 2];
    let mut forms = BTreeSet::new();
    let at_once = BATCH * nets.group.size();
    let peers = Peers::of(&nets.group, LPIPS);
    for (i, chunk) in pairs.chunks(at_once).enumerate() {
        let loaded = chunk
            .par_iter()
            .map(|pair| load(pair, options, limits))
            .collect::<Result<Vec<_>>>()?;
        let scores = loaded
            .par_iter()
            .zip(chunk)
            .map(|([a, b], pair)| of(&pair.name, pixel_scores(a, b)))
            .collect::<Result<Vec<_>>>()?;
        forms.extend(loaded.iter().map(|[input, _]| input.form()));
        let [mut inputs, mut outputs] = [Vec::new(), Vec::new()];
        for both in loaded {
            for (side, native) in both.into_iter().enumerate() {
                outside[side] += native.outside;
                if nets.is_empty() {
                    conversions[side] += native.conversions;
                    continue;
                }
                let (image, converted) = native.into_rgb8()?;
                conversions[side] += converted;
                [&mut inputs, &mut outputs][side].push(image);
            }
        }
        let mut added = (0..4)
            .map(|c| scores.iter().map(|s| s[c]).collect::<Vec<f64>>())
            .collect::<Vec<_>>();
        if let Some((net, _)) = &nets.lpips {
            added.push(perceptual::distances(
                net,
                &inputs,
                &outputs,
                peers.as_ref(),
            )?);
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
        progress(i * at_once + chunk.len(), pairs.len());
    }
    let mut report = summary(pairs, columns);
    let forms: Vec<String> = forms.into_iter().collect();
    report.settings.push(("pixels".into(), forms.join("; ")));
    for (label, (conversions, outside)) in ["inputs", "outputs"]
        .iter()
        .zip(conversions.iter().zip(outside))
    {
        report.warnings.extend(remark(label, conversions));
        if outside > 0 {
            report.warnings.push(format!(
                "{label}: {outside} values are outside the range; PSNR and SSIM use them as they are"
            ));
        }
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

fn pixel_scores(a: &Native, b: &Native) -> sdft_metrics::Result<[f64; 4]> {
    let (a, b) = (a.picture()?, b.picture()?);
    Ok([
        psnr(&a, &b)?,
        psnr_floored(&a, &b)?,
        ssim(&a, &b, SsimWindow::Gaussian11)?,
        ssim(&a, &b, SsimWindow::Uniform7)?,
    ])
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
    use crate::pairing::{Pairing, pair_up};
    use sdft_imaging::{Depth, Image, ImageSpec, Samples, write_png};
    use std::path::Path;

    fn compare(a: &Path, b: &Path, options: PairOptions) -> Result<Report> {
        let pairs = pair_up(a, b, Pairing::Name)?;
        compare_pairs(&pairs, &options, &PairNets::default(), &mut |_, _| {})
    }

    fn folder(names: &[(&str, u8)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, level) in names {
            let mut image = Rgb8::filled(16, 12, [*level, 40, 90]);
            image.pixels[7] = 200;
            write_png(&dir.path().join(name), &image).unwrap();
        }
        dir
    }

    /// A folder with one image of 16x12 pixels, `x`.
    fn one(spec: ImageSpec, samples: Samples) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new(16, 12, spec.channels, samples).unwrap();
        let name = format!("x.{}", spec.ending());
        std::fs::write(dir.path().join(name), spec.encode(&image).unwrap()).unwrap();
        dir
    }

    fn spec(channels: usize, depth: Depth) -> ImageSpec {
        ImageSpec::new(channels, depth, 16, 12)
    }

    #[test]
    fn equal_images_are_infinitely_close_and_left_out_of_the_mean() {
        let (a, b) = (
            folder(&[("x.png", 10), ("y.png", 20)]),
            folder(&[("y.png", 30), ("x.png", 10)]),
        );
        let report = compare(a.path(), b.path(), PairOptions::default()).unwrap();
        assert_eq!(report.rows[0].1[0], f64::INFINITY);
        assert_eq!(report.rows[0].1[1], 100.0);
        assert_eq!(report.rows[0].1[2], 1.0);
        // Red differs by 10 in all pixels, the other channels are equal: mse = 100 / 3 / 255^2.
        let expected = 10.0 * (3.0 * 255.0 * 255.0 / 100.0f64).log10();
        assert!((report.measures[0].value - expected).abs() < 0.05);
        assert!(report.warnings[0].contains("1 of 2 pairs are equal"));
        assert_eq!(
            report.settings,
            [("pixels".into(), "3 channels of 8 bits, 0 to 255".into())]
        );
    }

    #[test]
    fn sizes_must_match_or_be_resized() {
        let (a, b) = (folder(&[("x.png", 10)]), tempfile::tempdir().unwrap());
        write_png(&b.path().join("x.png"), &Rgb8::filled(32, 24, [10, 40, 90])).unwrap();
        let error = compare(a.path(), b.path(), PairOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("24x32") && text.contains("12x16") && text.contains("--size"),
            "{text}"
        );
        let options = PairOptions {
            size: Some(12),
            ..PairOptions::default()
        };
        compare(a.path(), b.path(), options).unwrap();
    }

    /// PSNR of two folders of one image each, and the form that the report states.
    fn measured(a: &Path, b: &Path, range: Option<[f64; 2]>) -> (f64, String, Report) {
        let report = compare(a, b, PairOptions { size: None, range }).unwrap();
        (
            report.measures[0].value,
            report.settings[0].1.clone(),
            report,
        )
    }

    #[test]
    fn images_are_compared_in_their_own_depth_channels_and_range() {
        let psnr = |difference: f64, range: f64| 20.0 * (range / difference).log10();
        let sixteen = |v| one(spec(1, Depth::U16), Samples::U16(vec![v; 192]));
        let (a, b) = (sixteen(1000), sixteen(1100));
        let (value, form, report) = measured(a.path(), b.path(), None);
        assert!((value - psnr(100.0, 65_535.0)).abs() < 1e-9, "{value}");
        assert_eq!(form, "1 channel of 16 bits, 0 to 65535");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        let (value, form, _) = measured(a.path(), b.path(), Some([0.0, 4095.0]));
        assert!((value - psnr(100.0, 4095.0)).abs() < 1e-9, "{value}");
        assert_eq!(form, "1 channel of 16 bits, 0 to 4095");
        let (.., report) = measured(a.path(), b.path(), Some([0.0, 1050.0]));
        let text = report.warnings.join("\n");
        assert!(text.contains("outputs: 192 values are outside"), "{text}");

        let many = |v| one(spec(5, Depth::F32), Samples::F32(vec![v; 5 * 192]));
        let (a, b) = (many(0.25), many(0.5));
        let (value, form, _) = measured(a.path(), b.path(), None);
        assert!((value - psnr(0.25, 1.0)).abs() < 1e-9, "{value}");
        assert_eq!(form, "5 channels of floats, 0 to 1");

        // A float TIFF states its range.
        let float = |v, range| {
            let spec = ImageSpec {
                range,
                ..spec(1, Depth::F32)
            };
            one(spec, Samples::F32(vec![v; 192]))
        };
        let (a, b) = (
            float(-500.0, [-1000.0, 3000.0]),
            float(0.0, [-1000.0, 3000.0]),
        );
        let (value, form, _) = measured(a.path(), b.path(), None);
        assert!((value - psnr(500.0, 4000.0)).abs() < 1e-9, "{value}");
        assert_eq!(form, "1 channel of floats, -1000 to 3000");
        let c = float(0.0, [0.0, 3000.0]);
        let error = compare(a.path(), c.path(), PairOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("-1000 to 3000")
                && text.contains("0 to 3000")
                && text.contains("--range"),
            "{text}"
        );
        let (value, ..) = measured(a.path(), c.path(), Some([-1000.0, 1000.0]));
        assert!((value - psnr(500.0, 2000.0)).abs() < 1e-9, "{value}");
    }

    #[test]
    fn images_of_different_forms_become_8_bit_rgb_or_are_refused() {
        let grey = one(spec(1, Depth::U8), Samples::U8(vec![10; 192]));
        let colour = one(spec(3, Depth::U8), Samples::U8([10, 10, 40].repeat(192)));
        let (value, form, _) = measured(grey.path(), colour.path(), None);
        let expected = 10.0 * (3.0 * 255.0 * 255.0 / 900.0f64).log10();
        assert!((value - expected).abs() < 1e-9, "{value}");
        assert_eq!(form, "3 channels of 8 bits, 0 to 255");
        let deep = one(spec(1, Depth::U16), Samples::U16(vec![2560; 192]));
        let (value, _, report) = measured(grey.path(), deep.path(), None);
        assert_eq!(value, f64::INFINITY);
        let text = report.warnings.join("\n");
        assert!(text.contains("the upper 8 bits are used"), "{text}");
        // Alpha counts if it hides something.
        let alpha = |a| one(spec(4, Depth::U8), Samples::U8([10, 10, 40, a].repeat(192)));
        let (opaque, clear) = (alpha(255), alpha(0));
        let (value, form, _) = measured(colour.path(), opaque.path(), None);
        assert_eq!((value, form.contains("alpha")), (f64::INFINITY, false));
        let (value, form, _) = measured(opaque.path(), clear.path(), None);
        assert!((value - 10.0 * 4f64.log10()).abs() < 1e-9, "{value}");
        assert_eq!(form, "4 channels of 8 bits with alpha, 0 to 255");
        let float = one(spec(1, Depth::F32), Samples::F32(vec![0.5; 192]));
        for (a, b) in [(&grey, &float), (&float, &deep)] {
            let error = compare(a.path(), b.path(), PairOptions::default()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("of floats, 0 to 1") && text.contains("bits"),
                "{text}"
            );
        }
    }
}
