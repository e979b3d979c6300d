//! Every way of computing a convolution against the definition, in f64.

mod invariance;

use super::*;
use crate::choice::Algorithm;
use crate::real::Scalar;
use crate::simd::Simd;

fn wave(n: usize, phase: f64) -> Vec<f64> {
    (0..n).map(|i| (i as f64 * 0.37 + phase).sin()).collect()
}

/// Standard normal numbers, the same for the same seed.
fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n)
        .map(|_| {
            let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
            f32::from_f64(radius * (std::f64::consts::TAU * uniform()).cos())
        })
        .collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn n_x(s: &ConvShape) -> usize {
    s.batch * s.c_in * s.h * s.w
}

fn n_w(s: &ConvShape) -> usize {
    s.c_out * s.c_in * s.taps()
}

fn n_y(s: &ConvShape) -> usize {
    s.batch * s.c_out * s.out_h() * s.out_w()
}

/// The definition, one multiplication at a time.
fn definition(s: &ConvShape, x: &[f64], w: &[f64], bias: &[f64]) -> Vec<f64> {
    let mut y = Vec::new();
    for b in 0..s.batch {
        for o in 0..s.c_out {
            for oy in 0..s.out_h() {
                for ox in 0..s.out_w() {
                    let mut sum = bias[o];
                    for i in 0..s.c_in {
                        for ky in 0..s.k[0] {
                            for kx in 0..s.k[1] {
                                let (iy, ix) = (oy * s.stride + ky, ox * s.stride + kx);
                                if iy >= s.pad[0]
                                    && ix >= s.pad[1]
                                    && iy < s.h + s.pad[0]
                                    && ix < s.w + s.pad[1]
                                {
                                    sum += x[((b * s.c_in + i) * s.h + iy - s.pad[0]) * s.w + ix
                                        - s.pad[1]]
                                        * w[((o * s.c_in + i) * s.k[0] + ky) * s.k[1] + kx];
                                }
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

fn shapes() -> Vec<ConvShape> {
    let base = ConvShape {
        batch: 3,
        c_in: 2,
        h: 5,
        w: 7,
        c_out: 4,
        k: [3; 2],
        stride: 1,
        pad: [1; 4],
    };
    vec![
        base,
        ConvShape { stride: 2, ..base },
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..base
        },
        ConvShape {
            pad: [0; 4],
            ..base
        },
        ConvShape {
            k: [5; 2],
            pad: [2; 4],
            stride: 2,
            h: 9,
            w: 4,
            ..base
        },
        ConvShape {
            batch: 1,
            h: 40,
            w: 40,
            ..base
        },
        ConvShape {
            batch: 9,
            h: 2,
            w: 2,
            ..base
        },
        ConvShape { h: 1, w: 1, ..base },
        ConvShape {
            k: [1, 7],
            pad: [0, 3, 0, 3],
            ..base
        },
        ConvShape {
            k: [3, 1],
            pad: [1, 0, 1, 0],
            stride: 2,
            ..base
        },
        ConvShape {
            k: [2, 5],
            pad: [3, 1, 3, 1],
            ..base
        },
        ConvShape {
            stride: 2,
            pad: [0, 0, 1, 1],
            ..base
        },
        ConvShape {
            pad: [0, 2, 1, 0],
            ..base
        },
        ConvShape {
            k: [2, 2],
            pad: [4, 0, 0, 3],
            ..base
        },
    ]
}

#[test]
fn forward_equals_the_definition_for_all_kinds_of_shapes() {
    for s in shapes() {
        let (x, w, bias) = (wave(n_x(&s), 0.1), wave(n_w(&s), 0.7), wave(s.c_out, 0.3));
        let (got, want) = (
            conv2d(&s, &x, &w, Added::bias(&bias)),
            definition(&s, &x, &w, &bias),
        );
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-12, "{s:?}");
        }
    }
}

#[test]
fn gradients_are_the_adjoints_of_the_forward_pass() {
    // <dy, conv(x, w)> is linear in x and in w: its derivatives dotted with x and w give it back.
    for s in shapes() {
        let (x, w, dy) = (wave(n_x(&s), 0.1), wave(n_w(&s), 0.7), wave(n_y(&s), 1.9));
        let (other_x, other_w) = (wave(x.len(), 2.4), wave(w.len(), 0.2));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let dx = conv2d_input_gradient(&s, &dy, &w);
        let dw = conv2d_weight_gradient(&s, &x, &dy);
        let by_x = dot(&dy, &conv2d(&s, &other_x, &w, Added::NOTHING));
        let by_w = dot(&dy, &conv2d(&s, &x, &other_w, Added::NOTHING));
        assert!((dot(&dx, &other_x) - by_x).abs() < 1e-10, "{s:?}");
        assert!((dot(&dw, &other_w) - by_w).abs() < 1e-10, "{s:?}");
    }
}

/// Largest error over largest value.
fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let top = want.iter().fold(0.0f64, |top, x| top.max(x.abs()));
    let worst = got
        .iter()
        .zip(want)
        .map(|(&got, want)| (f64::from(got) - want).abs());
    // A NaN must not get lost in the maximum.
    worst.fold(0.0, |worst, x| if x <= worst { worst } else { x }) / top
}

fn choices() -> Vec<Choice> {
    let algorithms = [Algorithm::Direct, Algorithm::F2, Algorithm::F4];
    Simd::available()
        .into_iter()
        .flat_map(|simd| {
            algorithms.map(|algorithm| Choice {
                simd,
                algorithm,
                bf16: None,
            })
        })
        .collect()
}

/// Forward pass, input gradient and weight gradient of normal numbers against f64.
fn compare(s: &ConvShape, choices: &[Choice]) {
    let (x, w, bias, dy) = (
        normal(n_x(s), 1),
        normal(n_w(s), 2),
        normal(s.c_out, 3),
        normal(n_y(s), 4),
    );
    let (x64, w64, bias64, dy64) = (wide(&x), wide(&w), wide(&bias), wide(&dy));
    let want = [
        direct::forward(s, &x64, &w64, Some(&bias64)),
        direct::input_gradient(s, &dy64, &w64),
        direct::weight_gradient(s, &x64, &dy64),
    ];
    for &choice in choices {
        let got = [
            forward(choice, s, &x, &w, Added::bias(&bias)),
            input_gradient(choice, s, &dy, &w),
            weight_gradient(choice, s, &x, &dy),
        ];
        let limit = if choice.algorithm == Algorithm::F4 {
            1e-5
        } else {
            2e-6
        };
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let error = error(got, want);
            assert!(error < limit, "{s:?}, {choice:?}, result {i}: {error:e}");
        }
    }
}

fn conv3(batch: usize, c_in: usize, (h, w): (usize, usize), c_out: usize) -> ConvShape {
    ConvShape {
        batch,
        c_in,
        h,
        w,
        c_out,
        k: [3; 2],
        stride: 1,
        pad: [1; 4],
    }
}

#[test]
fn every_path_is_accurate_for_all_kinds_of_shapes() {
    for s in [
        conv3(1, 3, (13, 17), 40),
        conv3(2, 33, (13, 17), 6),
        conv3(9, 40, (3, 3), 33),
        conv3(5, 6, (1, 1), 3),
        conv3(4, 16, (2, 2), 32),
        conv3(3, 48, (2, 3), 40),
        conv3(1, 128, (4, 4), 72),
        conv3(3, 48, (4, 4), 64),
        conv3(3, 32, (8, 8), 17),
        conv3(2, 20, (3, 40), 20),
        conv3(1, 5, (6, 150), 7),
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(3, 33, (4, 4), 40)
        },
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(2, 33, (16, 39), 40)
        },
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(2, 6, (5, 3), 3)
        },
        // More inputs, outputs and pixels than one job of a 1x1 convolution takes, and fewer.
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(2, 48, (7, 7), 72)
        },
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(2, 80, (24, 32), 264)
        },
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(1, 208, (4, 8), 208)
        },
        ConvShape {
            stride: 2,
            ..conv3(2, 6, (7, 9), 8)
        },
        ConvShape {
            stride: 2,
            ..conv3(2, 16, (7, 5), 8)
        },
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(5, 32, (2, 3), 24)
        },
    ]
    .into_iter()
    .chain(strided())
    {
        compare(&s, &choices());
    }
}

/// Strides, paddings, filters and sizes of maps that are not multiples of anything.
fn strided() -> Vec<ConvShape> {
    let base = ConvShape {
        stride: 2,
        ..conv3(2, 40, (13, 18), 24)
    };
    vec![
        base,
        ConvShape {
            pad: [0, 0, 1, 1],
            h: 16,
            w: 16,
            ..base
        },
        ConvShape {
            batch: 1,
            c_in: 17,
            c_out: 130,
            w: 70,
            pad: [0, 0, 1, 1],
            ..base
        },
        ConvShape {
            batch: 19,
            c_in: 16,
            c_out: 16,
            h: 9,
            w: 9,
            ..base
        },
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..base
        },
        ConvShape {
            stride: 3,
            pad: [2, 3, 1, 0],
            ..base
        },
        ConvShape {
            stride: 4,
            k: [2, 5],
            pad: [0, 4, 3, 0],
            ..base
        },
    ]
}

#[test]
fn wide_layers_on_small_maps_are_accurate() {
    let fastest: Vec<Choice> = choices().into_iter().rev().take(3).collect();
    compare(&conv3(2, 330, (8, 8), 300), &fastest);
    compare(&conv3(3, 256, (4, 4), 256), &fastest);
    compare(&conv3(2, 128, (24, 24), 128), &fastest);
}

#[test]
fn a_map_is_added_as_a_sum_of_its_own_would_be() {
    let small = conv3(3, 64, (2, 2), 4);
    let pixels = ConvShape {
        k: [1; 2],
        pad: [0; 4],
        ..conv3(2, 24, (8, 8), 16)
    };
    let tiles = [
        conv3(1, 16, (8, 8), 16),
        conv3(2, 33, (13, 17), 40),
        conv3(3, 48, (12, 12), 40),
        conv3(2, 64, (40, 36), 64),
    ];
    for s in tiles.into_iter().chain([small, pixels]).chain(strided()) {
        let (x, w) = (normal(n_x(&s), 1), normal(n_w(&s), 2));
        let (bias, map) = (normal(s.c_out, 3), normal(n_y(&s), 4));
        for choice in choices() {
            let bias = Added::bias(&bias);
            let apart = forward(choice, &s, &x, &w, bias);
            let apart: Vec<f32> = map.iter().zip(&apart).map(|(x, y)| x + y).collect();
            let map = Some(&map[..]);
            let together = forward(choice, &s, &x, &w, Added { map, ..bias });
            assert!(apart == together, "{s:?} {choice:?}");
        }
    }
}

#[test]
fn fast_convolutions_count_the_products_of_their_tiles() {
    let s = conv3(2, 16, (8, 12), 32);
    assert_eq!(s.flops(), 2.0 * (2 * 8 * 12 * 9 * 16 * 32) as f64);
    let winograd = |algorithm| {
        let simd = Simd::choose(None);
        let choice = Choice {
            simd,
            algorithm,
            bf16: None,
        };
        Winograd::of(&s, choice).map(|winograd| winograd.flops(&s))
    };
    assert_eq!(winograd(Algorithm::F4), Some(s.flops() / 4.0));
    assert_eq!(winograd(Algorithm::F2), Some(s.flops() / 2.25));
    assert_eq!(winograd(Algorithm::Direct), None);
    // Small maps of wide layers are one product.
    let small = conv3(2, 256, (4, 4), 256);
    assert_eq!(small.flops_of_products(), small.flops());
    // The tiles at the border are whole.
    let s = conv3(1, 16, (9, 9), 16);
    let f4 = Winograd::of(&s, choices()[choices().len() - 1]).unwrap();
    assert_eq!(f4.flops(&s), 2.0 * (9 * 36 * 16 * 16) as f64);
}
