//! Statistics of the streams, and what they depend on.

use sdft_noise::{Draw, Purpose};

fn draw(sample: u64) -> Draw {
    Draw::new(42, Purpose::Test, 7, sample)
}

/// Mean, variance, skewness and excess kurtosis.
fn moments(values: &[f64]) -> [f64; 4] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let central = |power| values.iter().map(|v| (v - mean).powi(power)).sum::<f64>() / n;
    let var = central(2);
    [
        mean,
        var,
        central(3) / var.powf(1.5),
        central(4) / (var * var) - 3.0,
    ]
}

/// Expected values from an independent computation (Python integers and floats) of the documented formulas.
#[test]
fn first_values_do_not_change() {
    let draw = Draw::new(1, Purpose::Noise, 2, 3);
    let bits: Vec<u32> = draw.normals(6).into_iter().map(f32::to_bits).collect();
    assert_eq!(
        bits,
        [
            0xbf85e527, 0x40219e0f, 0x3ea8d0af, 0x3aceefa5, 0xbf7a8de0, 0xbe404e71
        ]
    );
    assert_eq!(
        [0, 1, 2].map(|i| draw.uniform(i).to_bits()),
        [0x3f986e5a794000c0, 0x3fee4e961180063e, 0x3fe379ae8cb0f72b]
    );
    assert_eq!([0, 1, 2].map(|i| draw.below(i, 1000)), [23, 947, 608]);
    assert_eq!(draw.permutation(8), [0, 7, 1, 2, 4, 6, 5, 3]);
    let mut small = [0.0; 3];
    draw.fill_uniform(&mut small);
    assert_eq!(
        small.map(f32::to_bits),
        [0x3cc372c0, 0x3ea00060, 0x3f7274b0]
    );
}

#[test]
fn longer_buffers_start_with_the_shorter_ones() {
    let long = draw(0).normals(103);
    for n in [0, 1, 2, 3, 4, 5, 50] {
        assert_eq!(draw(0).normals(n), long[..n]);
    }
    let (mut long, mut short) = ([0.0; 37], [0.0; 6]);
    draw(0).fill_uniform(&mut long);
    draw(0).fill_uniform(&mut short);
    assert_eq!(short, long[..6]);
}

#[test]
fn pieces_equal_the_whole() {
    let whole = draw(1).normals(64);
    for first in 0..9 {
        for n in [0, 1, 2, 3, 4, 7, 20] {
            let mut piece = vec![0.0; n];
            draw(1).fill_normal_from(first as u64, &mut piece);
            assert_eq!(
                piece,
                whole[first..first + n],
                "elements {first}..{}",
                first + n
            );
        }
    }
}

#[test]
fn normals_have_the_moments_of_a_standard_normal() {
    let values: Vec<f64> = draw(2)
        .normals(200_000)
        .into_iter()
        .map(f64::from)
        .collect();
    let [mean, var, skew, kurtosis] = moments(&values);
    // Four standard errors at this n: 1/sqrt(n), sqrt(2/n), sqrt(6/n), sqrt(24/n).
    assert!(mean.abs() < 0.009, "mean {mean}");
    assert!((var - 1.0).abs() < 0.0127, "variance {var}");
    assert!(skew.abs() < 0.022, "skewness {skew}");
    assert!(kurtosis.abs() < 0.044, "excess kurtosis {kurtosis}");
    let share = values.iter().filter(|v| v.abs() < 1.0).count() as f64 / values.len() as f64;
    assert!(
        (share - 0.682_689).abs() < 0.0042,
        "within one sigma: {share}"
    );
}

#[test]
fn uniforms_have_the_moments_of_a_uniform() {
    let wide: Vec<f64> = (0..100_000).map(|i| draw(3).uniform(i)).collect();
    let mut narrow = vec![0.0; 100_000];
    draw(3).fill_uniform(&mut narrow);
    let narrow: Vec<f64> = narrow.into_iter().map(f64::from).collect();
    for values in [wide, narrow] {
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        let [mean, var, ..] = moments(&values);
        assert!((mean - 0.5).abs() < 0.0037, "mean {mean}");
        assert!((var - 1.0 / 12.0).abs() < 0.001, "variance {var}");
    }
}

#[test]
fn integers_fill_their_range_evenly() {
    let mut counts = [0_u32; 7];
    for i in 0..70_000 {
        counts[draw(4).below(i, 7) as usize] += 1;
    }
    // Chi-squared with 6 degrees of freedom: above 22.5 once in a thousand streams.
    let chi2: f64 = counts
        .iter()
        .map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4)
        .sum();
    assert!(chi2 < 22.5, "{counts:?}");
    assert_eq!(draw(4).below(0, 0), 0);
    assert_eq!(draw(4).below(0, 1), 0);
}

#[test]
fn every_part_of_the_address_matters() {
    let base = Draw::new(1, Purpose::Noise, 2, 3);
    let others = [
        Draw::new(2, Purpose::Noise, 2, 3),
        Draw::new(1 | 1 << 32, Purpose::Noise, 2, 3),
        Draw::new(1, Purpose::AuxNoise, 2, 3),
        Draw::new(1, Purpose::Noise, 3, 3),
        Draw::new(1, Purpose::Noise, 2 | 1 << 32, 3),
        Draw::new(1, Purpose::Noise, 2 | 1 << 56, 3),
        Draw::new(1, Purpose::Noise, 2, 4),
        Draw::new(1, Purpose::Noise, 2, 3 | 1 << 32),
    ];
    let n = 20_000;
    let values = base.normals(n);
    for other in others {
        let dot: f64 = values
            .iter()
            .zip(other.normals(n))
            .map(|(&a, b)| f64::from(a) * f64::from(b))
            .sum();
        let correlation = dot / n as f64;
        assert!(correlation.abs() < 0.03, "{other:?}: {correlation}");
    }
}

#[test]
fn neighbouring_samples_are_uncorrelated() {
    let rows: Vec<Vec<f32>> = (0..200).map(|sample| draw(sample).normals(100)).collect();
    let dot: f64 = rows
        .windows(2)
        .flat_map(|pair| {
            pair[0]
                .iter()
                .zip(&pair[1])
                .map(|(&a, &b)| f64::from(a * b))
        })
        .sum();
    assert!((dot / 19_900.0).abs() < 0.03, "{dot}");
}

#[test]
fn permutations_visit_everything_once_and_differ() {
    for n in [0, 1, 2, 100] {
        let mut order = draw(5).permutation(n);
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..n));
    }
    assert_ne!(draw(5).permutation(100), draw(6).permutation(100));
    let mut counts = [0_u32; 6];
    for sample in 0..6000 {
        let order = draw(sample).permutation(3);
        counts[order[0] * 2 + usize::from(order[1] > order[2])] += 1;
    }
    let chi2: f64 = counts
        .iter()
        .map(|&c| (f64::from(c) - 1e3).powi(2) / 1e3)
        .sum();
    assert!(chi2 < 20.5, "{counts:?}");
}
