//! How many generated images repeat training images.

use crate::Result;
use crate::features::{Features, enough, same_dim};
use crate::neighbours::{each_block, nearest, nearest_others};
use rayon::prelude::*;

/// The training images nearest to a sample, whose mean distance its nearest distance is compared with.
const AROUND: usize = 50;
/// Alpha: the share of that mean below which a sample is memorised.
const SHARE: f64 = 0.5;

/// How many generated images repeat training images, by two measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memorisation {
    /// The memorisation ratio: the share of the samples whose nearest training image is less than half as far away as the 50 nearest ones
    /// are on average (all of them if there are fewer). 0 to 1.
    pub ratio: f64,
    /// AuthPct: the percentage of the samples that are farther from their nearest training image than that is from the nearest other one.
    /// 0 to 100.
    pub auth_pct: f64,
}

/// Compares generated with training images.
///
/// ```text
/// l(x) = |x - y_1| / (0.5 mean_{i <= 50} |x - y_i|)        y_i the i-th nearest training image; memorised if l < 1
/// ```
/// Source: the ratio is after the calibrated distance of Carlini et al. 2023 (section 5.1). The choices here are not theirs: the
/// neighbourhood is that of the sample, its 50 nearest training images with the nearest one among them; alpha is 0.5; and a sample is
/// memorised below 1. AuthPct is dgm-eval's `compute_authpct` (Alaa et al. 2022). An exact copy is memorised, however many duplicates
/// the training set has.
///
/// # Errors
/// Fails if the vectors have different lengths, there are no samples or fewer than two training images.
pub fn memorisation(train: &Features, samples: &Features) -> Result<Memorisation> {
    same_dim("memorisation", train.dim(), samples.dim())?;
    enough("memorisation: training images", train.n(), 2)?;
    enough("memorisation: samples", samples.n(), 1)?;
    let closest = nearest(samples, train)?;
    let around = AROUND.min(train.n());
    let mut means = Vec::with_capacity(samples.n());
    each_block(samples, train, |_, squares| {
        means.par_extend((0..squares.ncols()).into_par_iter().map(|j| {
            let mut squares: Vec<f64> = squares.col(j).iter().copied().collect();
            squares.select_nth_unstable_by(around - 1, f64::total_cmp);
            let sum: f64 = squares[..around].iter().map(|square| square.sqrt()).sum();
            sum / around as f64
        }));
    });
    let memorised = closest.iter().zip(&means);
    let memorised = memorised.filter(|(y, mean)| y.distance == 0.0 || y.distance < SHARE * **mean);
    let others = nearest_others(train)?;
    let authentic = closest
        .iter()
        .filter(|y| others[y.index].distance < y.distance);
    let n = samples.n() as f64;
    Ok(Memorisation {
        ratio: memorised.count() as f64 / n,
        auth_pct: 100.0 * authentic.count() as f64 / n,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f32]) -> Features {
        Features::new(values.to_vec(), 1).unwrap()
    }

    #[test]
    fn a_set_is_memorised_by_itself_and_not_by_a_distant_one() {
        let values: Vec<f32> = (0..600).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let train = Features::new(values.clone(), 4).unwrap();
        let same = memorisation(&train, &train).unwrap();
        assert_eq!((same.ratio, same.auth_pct), (1.0, 0.0));
        let far = Features::new(values.iter().map(|v| v + 9.0).collect(), 4).unwrap();
        let far = memorisation(&train, &far).unwrap();
        assert_eq!((far.ratio, far.auth_pct), (0.0, 100.0));
        // A copy remains one if the training set has it twice.
        let twice = Features::new([values.as_slice(), &values].concat(), 4).unwrap();
        assert_eq!(memorisation(&twice, &train).unwrap().ratio, 1.0);
    }

    #[test]
    fn both_measures_are_those_counted_by_hand() {
        // Means to all three: of 0.9 (0.9 + 3.1 + 9.1)/3 = 4.37, of 2 (2 + 2 + 8)/3 = 4, of 7 (3 + 3 + 7)/3 = 4.33, of 1.9 4.03.
        let train = points(&[0.0, 4.0, 10.0]);
        let found = memorisation(&train, &points(&[0.9, 2.0, 7.0, 1.9])).unwrap();
        // Nearest: 0.9 and 1.9 are less than half their means away, 2 is exactly half, 3 is farther.
        assert_eq!(found.ratio, 0.5);
        // The nearest others are 4, 4 and 6 away, so no sample is farther than that.
        assert_eq!(found.auth_pct, 0.0);
        assert_eq!(
            memorisation(&train, &points(&[-5.0, 1.0]))
                .unwrap()
                .auth_pct,
            50.0
        );
        // Only the nearest 50 count: 100 more that are far away change nothing.
        let near: Vec<f32> = (0..50).map(|i| 1.0 + 0.01 * i as f32).collect();
        let far = [near.as_slice(), &[1e6; 100]].concat();
        for sample in [0.0, 0.5, 0.7] {
            let ratio = |train: &[f32]| memorisation(&points(train), &points(&[sample])).unwrap();
            assert_eq!(ratio(&near).ratio, ratio(&far).ratio);
        }
        assert!(memorisation(&points(&[1.0]), &train).is_err());
        assert!(memorisation(&train, &points(&[])).is_err());
    }
}
