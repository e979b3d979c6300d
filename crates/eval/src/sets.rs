//! Compares a set of generated images with real ones.

use crate::error::{Result, of};
use crate::report::{Measure, Report};
use crate::set::ImageSet;
use sdft_files::plural;
use sdft_imaging::Conversions;
use sdft_metrics::{
    Features, KidOptions, KidSubsets, Neighbour, SubsetDraw, fid, kid, manifold, memorisation,
    mmd2_unbiased, nearest, nearest_others,
};

/// Settings of a comparison of two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// Number of KID's subsets.
    pub kid_subsets: usize,
    /// Number of samples in each subset; fewer if a set has fewer.
    pub kid_size: usize,
    /// How the subsets are drawn.
    pub kid_draw: SubsetDraw,
    /// The neighbour that the balls of precision and recall reach to.
    pub k: usize,
    /// What the Fréchet and the kernel distance of these features are called; see [`View::distances`](crate::View::distances).
    pub distances: [&'static str; 2],
}

impl Default for SetOptions {
    fn default() -> Self {
        Self {
            kid_subsets: 100,
            kid_size: 1000,
            kid_draw: SubsetDraw::TorchFidelity,
            k: 3,
            distances: ["FID", "KID"],
        }
    }
}

/// With this many samples or fewer, the covariance of so many features does not have full rank.
fn too_few_for_fid(n: u64, dim: usize) -> bool {
    n <= dim as u64
}

/// Compares generated with real images: FID, KID, precision and recall, density and coverage, nearest neighbours and memorisation.
///
/// If only the statistics of one side are known, the report has FID only, and a warning. The neighbours are those of the generated images
/// among the real ones.
///
/// # Errors
/// Fails if the features have different lengths or there are no images.
pub fn compare_sets(
    real: &ImageSet,
    fake: &ImageSet,
    options: &SetOptions,
) -> Result<(Report, Vec<Neighbour>)> {
    let mut report = Report::default();
    let n = |set: &ImageSet| set.n().map_or_else(|| "?".to_owned(), |n| n.to_string());
    let images = |set: &ImageSet| match set.n() {
        Some(n) => plural(n, "image", "images"),
        None => "an unknown number of images".to_owned(),
    };
    let sizes = format!("{} / {}", n(real), n(fake));
    for (role, set) in [("real", real), ("fake", fake)] {
        let others = match &set.describe_skipped {
            Some(text) => format!("; skipped: {text}"),
            None => String::new(),
        };
        let text = format!("{} ({}{others})", set.label, images(set));
        report.settings.push((role.to_owned(), text));
    }
    let mut put = |name: &str, value: f64, spread: Option<f64>, note: String| {
        report.measures.push(Measure {
            name: name.to_owned(),
            value,
            spread,
            n: sizes.clone(),
            note,
        });
    };
    let mut warnings = Vec::new();
    let [fd, kd] = options.distances;
    for set in [real, fake] {
        warnings.extend(remark(&set.label, &set.conversions));
    }
    match (&real.statistics, &fake.statistics) {
        (Some(a), Some(b)) => {
            let distance = of(fd, fid(a, b))?;
            let note = format!(
                "lower is better; rank {}/{}",
                distance.rank[0], distance.rank[1]
            );
            put(fd, distance.value, None, note);
            for set in [real, fake] {
                match set.n() {
                    Some(n) if too_few_for_fid(n, a.dim()) => warnings.push(format!(
                        "{fd}: {} has {n} images for {} features, so the value is biased upwards and depends on n; \
                         compare only at equal n, or use {kd}, which is unbiased",
                        set.label,
                        a.dim()
                    )),
                    None => warnings.push(format!(
                        "{fd}: {} does not record its number of images, so its bias is unknown",
                        set.label
                    )),
                    _ => {}
                }
            }
        }
        _ => warnings.push(format!(
            "{fd} needs at least 2 images on each side, so it is left out"
        )),
    }
    for set in [real, fake] {
        if set.features.is_none() && set.made_with.is_none() {
            warnings.push(format!(
                "{fd}: {} does not record its resizing and weights; the value is meaningless if they differ",
                set.label
            ));
        }
    }
    let mut neighbours = Vec::new();
    match (&real.features, &fake.features) {
        (Some(x), Some(y)) => {
            let least = x.n().min(y.n());
            if least >= 2 {
                kernel_distance(x, y, options, &mut put, &mut warnings)?;
            } else {
                warnings.push(format!(
                    "{kd} needs at least 2 images on each side, so it is left out"
                ));
            }
            if least > options.k {
                let m = of("precision and recall", manifold(x, y, options.k))?;
                let k = options.k;
                for (name, value, note) in [
                    ("precision", m.precision, "fidelity"),
                    ("recall", m.recall, "diversity"),
                    ("density", m.density, "fidelity, may exceed 1"),
                    ("coverage", m.coverage, "diversity"),
                ] {
                    put(name, value, None, format!("higher is better; {note}; k {k}"));
                }
                if least < 10 * k {
                    warnings.push(format!(
                        "precision, recall, density and coverage: {least} images for k {k}, so the radius of each reaches much of its set; use more images"
                    ));
                } else if least < 500 {
                    warnings.push(format!(
                        "precision, recall, density and coverage of {least} images vary by several hundredths; compare only at equal n"
                    ));
                }
            } else {
                warnings.push(format!(
                    "precision and recall need more than {} images on each side, so they are left out",
                    options.k
                ));
            }
            neighbours = of("nearest neighbours", nearest(y, x))?;
            copies(x, &neighbours, &mut put)?;
            if x.n() >= 2 {
                let m = of("memorisation", memorisation(x, y))?;
                let note = format!(
                    "lower is better; share of fakes less than half as far from their nearest real as from the nearest {} on average",
                    x.n().min(50)
                );
                put("memorised", m.ratio, None, note);
                let note = "percentage of fakes farther from their nearest real than it is from others";
                put("AuthPct", m.auth_pct, None, format!("higher is better; {note}"));
            }
        }
        _ => warnings.push(format!(
            "only statistics are known for one side; {kd}, precision and recall and nearest neighbours need the images"
        )),
    }
    report.warnings = warnings;
    Ok((report, neighbours))
}

/// The conversions of a set's images, and what they mean for a comparison with other tools.
pub(crate) fn remark(label: &str, conversions: &Conversions) -> Option<String> {
    let notes = conversions.notes();
    if notes.is_empty() {
        return None;
    }
    let other_tools = match conversions.transparent + conversions.reoriented {
        0 => "",
        _ => {
            ". Tools that read images with Pillow's convert(\"RGB\"), such as pytorch-fid, drop transparency and orientation instead: their \
             numbers differ"
        }
    };
    Some(format!("{label}: {}{other_tools}", notes.join("; ")))
}

/// Adds a measure: name, value, spread and note.
type Put<'a> = &'a mut dyn FnMut(&str, f64, Option<f64>, String);

fn kernel_distance(
    x: &Features,
    y: &Features,
    options: &SetOptions,
    put: Put<'_>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let size = options.kid_size.min(x.n()).min(y.n());
    let kernel = KidOptions::default();
    let subsets = KidSubsets {
        count: options.kid_subsets,
        size,
        draw: options.kid_draw,
    };
    let name = options.distances[1];
    let over = of(name, kid(x, y, &subsets, &kernel))?;
    let draw = match options.kid_draw {
        SubsetDraw::TorchFidelity => "torch-fidelity's draw".to_owned(),
        SubsetDraw::Seeded(seed) => format!("seed {seed}"),
    };
    let note = format!(
        "lower is better; {} subsets of {size}, {draw}",
        over.subsets
    );
    let spread = Some(1e3 * over.std);
    put(&format!("{name} x1000"), 1e3 * over.mean, spread, note);
    let whole = of(name, mmd2_unbiased(x, y, &kernel))?;
    let note = "lower is better; all images at once".to_owned();
    put(&format!("{name} x1000, whole"), 1e3 * whole, None, note);
    if size < options.kid_size {
        warnings.push(format!(
            "{name}: subsets of {size} instead of {}, because a set has no more images (torch-fidelity would fail); \
             the mean is still unbiased, but the spread is that of smaller subsets",
            options.kid_size
        ));
    }
    if whole < 0.0 {
        warnings.push(format!(
            "{name} is negative: the estimate is unbiased, so it may be below 0 if the distance is small; there is no measurable difference"
        ));
    }
    Ok(())
}

/// Whether generated images are closer to real ones than real ones to each other.
fn copies(real: &Features, neighbours: &[Neighbour], put: Put<'_>) -> Result<()> {
    let mut distances: Vec<f64> = neighbours.iter().map(|n| n.distance).collect();
    let Some(typical) = median(&mut distances) else {
        return Ok(());
    };
    put(
        "nearest real",
        typical,
        None,
        "median distance of a fake to its nearest real".into(),
    );
    // With fewer reals, a twentieth is less than one image.
    if real.n() < 40 {
        return Ok(());
    }
    let others = of("nearest neighbours", nearest_others(real))?;
    let mut among: Vec<f64> = others.iter().map(|n| n.distance).collect();
    among.sort_by(f64::total_cmp);
    // The distance below which only a twentieth of the reals have a neighbour; anything closer may be a copy.
    let close = among[(among.len() - 1) / 20];
    let n = neighbours.iter().filter(|n| n.distance <= close).count();
    let note = format!(
        "share of fakes within {close:.3} of a real, as 5 % of reals are of another; well above 0.05 suggests copying"
    );
    put("copies", n as f64 / neighbours.len() as f64, None, note);
    Ok(())
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: usize, phase: f64) -> ImageSet {
        let value = |i: usize| ((i * i) as f64 * 0.37 + i as f64 * phase).sin() as f32;
        let features = Features::new((0..n * 4).map(value).collect(), 4).unwrap();
        ImageSet::of_features(format!("set {n}"), Vec::new(), features).unwrap()
    }

    fn value(report: &Report, name: &str) -> Option<f64> {
        let found = report.measures.iter().find(|m| m.name == name);
        found.map(|m| m.value)
    }

    #[test]
    fn a_set_has_distance_0_from_itself() {
        let a = set(60, 0.7);
        let (report, neighbours) = compare_sets(&a, &a, &SetOptions::default()).unwrap();
        assert!(value(&report, "FID").unwrap().abs() < 1e-12);
        assert_eq!(value(&report, "precision"), Some(1.0));
        assert_eq!(value(&report, "coverage"), Some(1.0));
        assert_eq!(value(&report, "nearest real"), Some(0.0));
        assert_eq!(value(&report, "copies"), Some(1.0));
        assert_eq!(value(&report, "memorised"), Some(1.0));
        assert_eq!(value(&report, "AuthPct"), Some(0.0));
        assert!(neighbours.iter().enumerate().all(|(i, n)| n.index == i));
        let text = report.warnings.join("\n");
        assert!(text.contains("subsets of 60 instead of 1000"), "{text}");
        assert!(text.contains("negative"), "{text}");
    }

    #[test]
    fn copies_are_counted_even_if_the_reals_have_duplicates() {
        let half = set(30, 0.7).features.unwrap();
        let twice = [half.as_slice(), half.as_slice()].concat();
        let doubled = Features::new(twice, half.dim()).unwrap();
        let real = ImageSet::of_features("doubled".into(), Vec::new(), doubled).unwrap();
        let fake = ImageSet::of_features("copies".into(), Vec::new(), half).unwrap();
        let (report, _) = compare_sets(&real, &fake, &SetOptions::default()).unwrap();
        assert_eq!(value(&report, "copies"), Some(1.0));
        let far = set(30, 0.1);
        let (report, _) = compare_sets(&real, &far, &SetOptions::default()).unwrap();
        assert!(value(&report, "copies").unwrap() < 0.1);
    }

    #[test]
    fn small_sets_have_warnings() {
        let (one, two, few) = (set(1, 0.2), set(2, 0.3), set(3, 0.7));
        let (report, _) = compare_sets(&one, &few, &SetOptions::default()).unwrap();
        assert_eq!(value(&report, "FID"), None);
        assert!(
            report
                .warnings
                .iter()
                .any(|w| w.starts_with("FID needs at least 2"))
        );
        assert!(
            report
                .warnings
                .iter()
                .any(|w| w.starts_with("KID needs at least 2"))
        );
        let (report, _) = compare_sets(&two, &few, &SetOptions::default()).unwrap();
        assert!(value(&report, "FID").unwrap().is_finite());
        assert!(value(&report, "KID x1000").unwrap().is_finite());
        let text = report.warnings.join("\n");
        assert!(text.contains("set 2 has 2 images for 4 features"), "{text}");
        assert!(
            text.contains("precision and recall need more than 3"),
            "{text}"
        );
    }

    #[test]
    fn statistics_alone_give_fid_alone() {
        let (a, b) = (set(50, 0.7), set(70, 0.4));
        let bare = ImageSet {
            features: None,
            ..a.clone()
        };
        let (report, neighbours) = compare_sets(&bare, &b, &SetOptions::default()).unwrap();
        let (whole, _) = compare_sets(&a, &b, &SetOptions::default()).unwrap();
        assert_eq!(value(&report, "FID"), value(&whole, "FID"));
        assert_eq!(report.measures.len(), 1);
        assert!(neighbours.is_empty());
        assert!(
            report
                .warnings
                .iter()
                .any(|w| w.contains("only statistics"))
        );
    }
}
