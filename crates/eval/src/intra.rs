//! Intra-LPIPS: the diversity of what a model makes of a few training images.

use crate::error::{EvalError, Result, of};
use crate::native::read_native;
use crate::report::{Measure, Report};
use candle_core::Tensor;
use rayon::prelude::*;
use sdft_features::Lpips;
use sdft_imaging::{Filter, Limits, Rgb8, read_image_file, resize, to_unit_range};
use sdft_metrics::{SubsetDraw, draw_subsets};
use std::path::{Path, PathBuf};

/// The most training images: vector and mean of one take 64 MB with VGG16.
const MOST: usize = 100;
/// The most samples of a cluster that are compared.
const MEMBERS: usize = 50;
/// Side of the images that are compared.
const SIDE: usize = 256;
/// Batch size of the network.
const BATCH: usize = 4;
/// Numbers of one job.
const CHUNK: usize = 1 << 14;

/// Intra-LPIPS, and the clusters that it is a mean over.
#[derive(Clone, Debug, PartialEq)]
pub struct IntraLpips {
    /// The mean over the clusters of their mean pairwise distance; NaN if no cluster has two samples.
    pub mean: f64,
    /// The standard deviation over these clusters (divisor `n - 1`), if there are at least two.
    pub spread: Option<f64>,
    /// The cluster of each training image, in their order.
    pub clusters: Vec<IntraCluster>,
}

/// The samples that are nearest to one training image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntraCluster {
    /// Number of samples.
    pub members: usize,
    /// The mean distance of two samples, of up to 50; `None` with fewer than two.
    pub mean: Option<f64>,
}

impl IntraLpips {
    /// Adds it to a report, with the size of each cluster and a warning if clusters were left out. `network` is LPIPS's, and its weights.
    pub fn add_to(&self, report: &mut Report, network: &str) {
        let sizes = self.clusters.iter().map(|cluster| cluster.members);
        let samples: usize = sizes.clone().sum();
        let (all, left_out) = (
            self.clusters.len(),
            self.clusters.iter().filter(|c| c.mean.is_none()).count(),
        );
        let text: Vec<String> = sizes.map(|size| size.to_string()).collect();
        report.settings.push(("clusters".into(), text.join(", ")));
        if left_out > 0 {
            report.warnings.push(format!(
                "Intra-LPIPS: {left_out} of {all} training images are the nearest of fewer than 2 samples and are left out, as in the \
                 published program; the mean hides that these modes are missing"
            ));
        }
        if left_out < all {
            let used = all - left_out;
            report.measures.push(Measure {
                name: "Intra-LPIPS".into(),
                value: self.mean,
                spread: self.spread,
                n: format!("{all} / {samples}"),
                note: format!(
                    "higher is more diverse; {used} of {all} clusters, {MEMBERS} samples of each at most; {network}"
                ),
            });
        }
    }
}

/// Fails unless Intra-LPIPS can be measured with this number of training images.
///
/// # Errors
/// No training images, or more than 100.
pub fn check_few_shot(n: usize) -> Result<()> {
    match n {
        1..=MOST => Ok(()),
        found => Err(EvalError::FewShot { most: MOST, found }),
    }
}

/// Assigns each sample to the training image that is nearest by LPIPS, and averages the distance of two samples within each cluster, then
/// over the clusters. Clusters with fewer than two samples are left out, as in the published program.
///
/// Images are resized to 256x256 with Pillow's bilinear filter. Up to 50 samples of a cluster are compared; where there are more, a seeded
/// choice of them. `network` of papers is VGG16. `range` is that of images of 16 bits and floats. `progress` is called with (images done,
/// total).
///
/// The network sees each image once, and two vectors for each training image are all that is kept: the mean squared distance of two members
/// is twice their variance, which is accumulated as they come.
///
/// Source: Ojha et al. 2021 (CDC), `feat_cluster.py`.
///
/// # Errors
/// Fails if there are no training images or more than 100, or an image cannot be read.
pub fn intra_lpips(
    network: &Lpips,
    train: &[PathBuf],
    samples: &[PathBuf],
    range: Option<[f64; 2]>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<IntraLpips> {
    check_few_shot(train.len())?;
    let total = train.len() + samples.len();
    let mut centres = Vec::with_capacity(train.len());
    for paths in train.chunks(BATCH) {
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        centres.extend(embedded(network, &paths, range)?);
        progress(centres.len(), total);
    }
    let mut clusters = vec![Spread::default(); train.len()];
    // In this order the first members of a cluster are a random choice of them.
    let n = samples.len();
    let order = of(
        "Intra-LPIPS",
        draw_subsets([n, n], 1, n, SubsetDraw::Seeded(0)),
    )?;
    let order: Vec<usize> = order.into_iter().flat_map(|(order, _)| order).collect();
    for (i, places) in order.chunks(BATCH).enumerate() {
        let paths: Vec<&Path> = places.iter().map(|&at| samples[at].as_path()).collect();
        for vector in embedded(network, &paths, range)? {
            let apart = centres
                .iter()
                .map(|centre| squared_distance(centre, &vector));
            let nearest = apart.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((nearest, _)) = nearest {
                clusters[nearest].add(vector);
            }
        }
        progress(train.len() + i * BATCH + places.len(), total);
    }
    let clusters: Vec<IntraCluster> = clusters.iter().map(Spread::cluster).collect();
    let means: Vec<f64> = clusters.iter().filter_map(|cluster| cluster.mean).collect();
    let k = means.len() as f64;
    let mean = means.iter().sum::<f64>() / k;
    let squares: f64 = means.iter().map(|m| (m - mean) * (m - mean)).sum();
    Ok(IntraLpips {
        mean,
        spread: (means.len() > 1).then(|| (squares / (k - 1.0)).sqrt()),
        clusters,
    })
}

/// Mean and squared deviations of the first members of a cluster, by Welford's recurrence.
#[derive(Clone, Default)]
struct Spread {
    members: usize,
    mean: Vec<f32>,
    squares: f64,
}

impl Spread {
    fn add(&mut self, vector: Vec<f32>) {
        self.members += 1;
        if self.members == 1 {
            self.mean = vector;
        } else if self.members <= MEMBERS {
            let share = 1.0 / self.members as f32;
            let chunks = self.mean.par_chunks_mut(CHUNK);
            let added: Vec<f64> = chunks
                .zip(vector.par_chunks(CHUNK))
                .map(|(mean, vector)| {
                    let mut lanes = [0.0f32; 16];
                    let (means, rest) = mean.as_chunks_mut::<16>();
                    let (values, last) = vector.as_chunks::<16>();
                    let step = |mean: &mut f32, value: f32, lane: &mut f32| {
                        let before = value - *mean;
                        *mean += share * before;
                        *lane += before * (value - *mean);
                    };
                    for (means, values) in means.iter_mut().zip(values) {
                        for ((mean, value), lane) in means.iter_mut().zip(values).zip(&mut lanes) {
                            step(mean, *value, lane);
                        }
                    }
                    for (mean, value) in rest.iter_mut().zip(last) {
                        step(mean, *value, &mut lanes[0]);
                    }
                    lanes.into_iter().map(f64::from).sum()
                })
                .collect();
            self.squares += added.into_iter().sum::<f64>();
        }
    }

    fn cluster(&self) -> IntraCluster {
        let compared = self.members.min(MEMBERS);
        IntraCluster {
            members: self.members,
            mean: (compared > 1).then(|| 2.0 * self.squares / (compared - 1) as f64),
        }
    }
}

/// The vectors of images.
fn embedded(network: &Lpips, paths: &[&Path], range: Option<[f64; 2]>) -> Result<Vec<Vec<f32>>> {
    let limits = Limits::from_env()?;
    let images = paths.par_iter().map(|path| seen(path, limits, range));
    let images = images.collect::<Result<Vec<Rgb8>>>()?;
    let values: Vec<f32> = images.iter().flat_map(to_unit_range).collect();
    let x = Tensor::from_vec(values, (images.len(), 3, SIDE, SIDE), network.device())?;
    let vectors = network.embed(&x)?;
    let rows = (0..images.len()).map(|i| vectors.get(i)?.to_vec1());
    Ok(rows.collect::<candle_core::Result<_>>()?)
}

/// An image as the network sees it.
fn seen(path: &Path, limits: Limits, range: Option<[f64; 2]>) -> Result<Rgb8> {
    let bytes = read_image_file(path, &limits)?;
    let (image, _) = read_native(&bytes, path, 0, limits, range)?.into_rgb8()?;
    Ok(resize(&image, SIDE, SIDE, Filter::Bilinear))
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let sums: Vec<f64> = a
        .par_chunks(CHUNK)
        .zip(b.par_chunks(CHUNK))
        .map(|(a, b)| {
            let mut lanes = [0.0f32; 16];
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
            for (a, b) in a.iter().zip(b) {
                for ((a, b), lane) in a.iter().zip(b).zip(&mut lanes) {
                    *lane += (a - b) * (a - b);
                }
            }
            let rest = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b));
            lanes.into_iter().chain(rest).map(f64::from).sum()
        })
        .collect();
    sums.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_features::LpipsNet;
    use sdft_imaging::write_png;
    use sdft_nn::Params;

    fn alex() -> Lpips {
        let specs = Lpips::specs(LpipsNet::Alex).unwrap();
        let params = Params::init(&specs, 1, &Device::Cpu).unwrap();
        let absolute = params.iter().map(|(name, tensor)| {
            let tensor = match name.starts_with("lin") {
                true => tensor.abs().unwrap(),
                false => tensor.clone(),
            };
            (name.to_owned(), tensor)
        });
        Lpips::load(LpipsNet::Alex, &Params::new(absolute.collect())).unwrap()
    }

    /// Stripes of a direction and a width, and of this colour.
    fn picture(dir: &Path, name: &str, [across, width]: [usize; 2], level: u8) -> PathBuf {
        let mut image = Rgb8::filled(64, 64, [level, 90, 30]);
        for (i, value) in image.pixels.iter_mut().enumerate() {
            let place = if across > 0 { i / 3 % 64 } else { i / 192 };
            *value = if place / width % 2 > 0 {
                255 - *value
            } else {
                *value
            };
        }
        let path = dir.join(name);
        write_png(&path, &image).unwrap();
        path
    }

    fn measure(train: &[PathBuf], samples: &[PathBuf]) -> IntraLpips {
        intra_lpips(&alex(), train, samples, None, &mut |_, _| {}).unwrap()
    }

    #[test]
    fn clusters_average_the_distances_of_their_pairs() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, stripes, level| picture(dir.path(), name, stripes, level);
        let train = [
            make("a.png", [0, 4], 200),
            make("b.png", [1, 4], 200),
            make("c.png", [1, 32], 20),
        ];
        let near_a: Vec<PathBuf> = (0..4)
            .map(|i| make(&format!("a{i}.png"), [0, 4], 180 + 5 * i))
            .collect();
        let near_b: Vec<PathBuf> = (0..3)
            .map(|i| make(&format!("b{i}.png"), [1, 4], 170 + 9 * i))
            .collect();
        let samples = [near_a.as_slice(), &near_b].concat();
        let found = measure(&train, &samples);
        let members: Vec<usize> = found.clusters.iter().map(|c| c.members).collect();
        assert_eq!((members, found.clusters[2].mean), (vec![4, 3, 0], None));
        let network = alex();
        let pairs = |paths: &[PathBuf]| {
            let read = |path: &PathBuf| {
                let image = seen(path, Limits::default(), None).unwrap();
                Tensor::from_vec(to_unit_range(&image), (1, 3, SIDE, SIDE), &Device::Cpu).unwrap()
            };
            let mut distances = Vec::new();
            for (i, a) in paths.iter().enumerate() {
                for b in &paths[i + 1..] {
                    let distance = network.distance(&read(a), &read(b)).unwrap().total;
                    distances.push(f64::from(distance.to_vec1::<f32>().unwrap()[0]));
                }
            }
            distances.iter().sum::<f64>() / distances.len() as f64
        };
        let expected = [pairs(&near_a), pairs(&near_b)];
        for (cluster, expected) in found.clusters.iter().zip(expected) {
            let got = cluster.mean.unwrap();
            assert!(
                expected > 1e-5 && (got / expected - 1.0).abs() < 1e-3,
                "{got} {expected}"
            );
        }
        let means = [
            found.clusters[0].mean.unwrap(),
            found.clusters[1].mean.unwrap(),
        ];
        assert!((found.mean - (means[0] + means[1]) / 2.0).abs() < 1e-12);
        let spread = (means[0] - means[1]).abs() / 2f64.sqrt();
        assert!((found.spread.unwrap() - spread).abs() < 1e-12);
        let mut report = Report::default();
        found.add_to(&mut report, "lpips-alex");
        assert_eq!(report.settings[0].1, "4, 3, 0");
        assert_eq!(
            (report.measures[0].value, report.measures[0].n.as_str()),
            (found.mean, "3 / 7")
        );
        assert!(report.measures[0].note.contains("2 of 3 clusters"));
        assert!(report.warnings[0].contains("1 of 3 training images"));
    }

    #[test]
    fn copies_of_the_training_images_have_no_diversity() {
        let dir = tempfile::tempdir().unwrap();
        let train = [
            picture(dir.path(), "a.png", [0, 4], 200),
            picture(dir.path(), "b.png", [1, 4], 200),
        ];
        let found = measure(&train, &[train.clone(), train.clone()].concat());
        assert!(
            found.mean < 1e-9 && found.spread.unwrap() < 1e-9,
            "{found:?}"
        );
        let too_few = measure(&train, &train);
        assert!(too_few.mean.is_nan());
        let mut report = Report::default();
        too_few.add_to(&mut report, "lpips-alex");
        assert_eq!((report.measures.len(), report.warnings.len()), (0, 1));
    }

    #[test]
    fn only_a_few_training_images_are_measured() {
        let error = intra_lpips(&alex(), &[], &[], None, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("1 to 100"), "{error}");
        assert!(check_few_shot(1).is_ok() && check_few_shot(100).is_ok());
        let error = check_few_shot(101).unwrap_err().to_string();
        assert!(error.contains("found 101"), "{error}");
    }

    #[test]
    fn only_fifty_members_of_a_cluster_are_compared() {
        let mut spread = Spread::default();
        for i in 0..60u8 {
            spread.add(vec![f32::from(i), 1.0]);
        }
        let cluster = spread.cluster();
        // Twice the variance of 0 to 49, which is 50 * 51 / 12.
        assert_eq!(cluster.members, 60);
        assert!((cluster.mean.unwrap() - 425.0).abs() < 0.01, "{cluster:?}");
    }
}
