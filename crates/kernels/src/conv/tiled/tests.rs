//! Tiles against the definition in f64, on the same rounded factors.

use super::*;
use crate::choice::{Algorithm, Choice};
use crate::conv::Added;
use crate::conv::bf16::{self as narrow, tiled};
use crate::conv::direct;
use crate::element::Stored;
use crate::simd::Simd;
use crate::tiles::tests::units;
use half::bf16;

fn halves(n: usize, phase: f64) -> Vec<bf16> {
    let mut state = phase.to_bits() | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bf16::of((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0)
        })
        .collect()
}

fn wide(x: &[bf16]) -> Vec<f64> {
    x.iter().map(|x| f64::from(x.real())).collect()
}

fn conv(batch: usize, c_in: usize, [h, w]: [usize; 2], c_out: usize, k: [usize; 2]) -> ConvShape {
    ConvShape {
        batch,
        c_in,
        h,
        w,
        c_out,
        k,
        stride: 1,
        pad: [k[0] / 2, k[1] / 2, k[0] / 2, k[1] / 2],
    }
}

/// Errors are at most those of rounding a result to bf16, half a unit in its last place, and of sums in f32.
fn check(got: impl Iterator<Item = f64>, want: &[f64], rounding: f64, what: &str) {
    let top = want.iter().fold(0.0f64, |top, x| top.max(x.abs()));
    let mut n = 0;
    for (i, (got, want)) in got.zip(want).enumerate() {
        let limit = want.abs() * rounding + top * 2e-6;
        assert!(
            (got - want).abs() <= limit,
            "{what}, element {i}: {got} instead of {want}"
        );
        n += 1;
    }
    assert_eq!(n, want.len(), "{what}");
}

fn compare(unit: Unit, shape: ConvShape) {
    let choice = Choice {
        simd: Simd::choose(None),
        algorithm: Algorithm::Direct,
        bf16: Some(unit),
    };
    assert!(tiled(choice, &shape).is_some(), "{shape:?}");
    let x = halves(shape.batch * shape.c_in * shape.h * shape.w, 0.1);
    let w = halves(shape.c_out * shape.c_in * shape.taps(), 0.7);
    let bias = halves(shape.c_out, 0.3);
    let dy = halves(
        shape.batch * shape.c_out * shape.out_h() * shape.out_w(),
        1.9,
    );
    let narrow_w: Vec<f32> = w.iter().map(|w| w.real()).collect();
    let narrow_bias: Vec<f32> = bias.iter().map(|bias| bias.real()).collect();
    let what = |part| format!("{unit:?}, {shape:?}, {part}");
    const ROUNDING: f64 = 1.0 / 256.0;

    let want = direct::forward(&shape, &wide(&x), &wide(&w), Some(&wide(&bias)));
    let bias = Added::bias(&narrow_bias);
    let got = narrow::forward(choice, &shape, &x, &narrow_w, bias);
    check(wide(&got).into_iter(), &want, ROUNDING, &what("forward"));

    // A map that is added first would be rounded twice.
    let map = halves(want.len(), 2.3);
    let want: Vec<f64> = want.iter().zip(wide(&map)).map(|(y, x)| y + x).collect();
    let with_map = Added {
        map: Some(&map),
        ..bias
    };
    let got = narrow::forward(choice, &shape, &x, &narrow_w, with_map);
    check(wide(&got).into_iter(), &want, ROUNDING, &what("with a map"));

    let want = direct::input_gradient(&shape, &wide(&dy), &wide(&w));
    let got = narrow::input_gradient(choice, &shape, &dy, &narrow_w);
    check(
        wide(&got).into_iter(),
        &want,
        ROUNDING,
        &what("input gradient"),
    );

    let want = direct::weight_gradient(&shape, &wide(&x), &wide(&dy));
    let got = narrow::weight_gradient(choice, &shape, &x, &dy);
    check(
        got.into_iter().map(f64::from),
        &want,
        0.0,
        &what("weight gradient"),
    );
}

#[test]
fn convolutions_by_tiles_equal_the_definition() {
    for unit in units() {
        for shape in [
            // One tile, several of everything, and sizes that fill no tile.
            conv(1, 16, [4, 4], 16, [3, 3]),
            conv(2, 64, [8, 8], 96, [3, 3]),
            conv(3, 40, [5, 7], 33, [3, 3]),
            conv(5, 17, [4, 4], 50, [3, 3]),
            // More than one band in an image, whose last one is short.
            conv(1, 32, [40, 33], 32, [3, 3]),
            // Other filters, and 1x1 with rows that are cut.
            conv(2, 20, [6, 9], 18, [1, 5]),
            conv(1, 32, [9, 6], 16, [5, 3]),
            conv(2, 48, [12, 12], 40, [1, 1]),
            conv(3, 33, [1, 300], 34, [1, 1]),
            conv(2, 33, [1, 96], 34, [1, 1]),
        ] {
            compare(unit, shape);
        }
        let uneven = conv(2, 24, [6, 5], 20, [3, 3]);
        for pad in [[0; 4], [0, 2, 1, 0], [2, 0, 0, 1]] {
            compare(unit, ConvShape { pad, ..uneven });
        }
        if !unit.beats_winograd() {
            continue;
        }
        for (stride, size, k, pad) in [
            (2, [8, 8], [3, 3], [1; 4]),
            (2, [9, 12], [3, 3], [0, 0, 1, 1]),
            (2, [12, 11], [4, 2], [1, 0, 1, 0]),
            (3, [13, 16], [3, 5], [1, 2, 0, 3]),
            (2, [11, 10], [1, 1], [0; 4]),
            // One tap for each phase, on rows that tiles cut.
            (2, [16, 16], [1, 1], [0; 4]),
            (2, [16, 16], [2, 2], [0; 4]),
            (3, [24, 24], [3, 2], [0; 4]),
        ] {
            let shape = conv(2, 18, size, 20, k);
            compare(
                unit,
                ConvShape {
                    stride,
                    pad,
                    ..shape
                },
            );
        }
    }
}

#[test]
fn the_number_of_threads_and_the_batch_change_no_bit() {
    let shape = conv(3, 48, [10, 10], 80, [3, 3]);
    let x = halves(3 * 48 * 100, 0.4);
    let w: Vec<f32> = halves(80 * 48 * 9, 0.2).iter().map(|w| w.real()).collect();
    let dy = halves(3 * 80 * 100, 0.9);
    for unit in units() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let conv = Tiled::of(unit, &shape).unwrap();
            let simd = Simd::choose(None);
            pool.install(|| {
                (
                    conv.forward(simd, &x, &w, Added::NOTHING),
                    conv.input_gradient(simd, &dy, &w),
                    conv.weight_gradient(simd, &x, &dy),
                )
            })
        };
        let one = run(1);
        assert!(one == run(5), "{unit:?}");
        let single = ConvShape { batch: 1, ..shape };
        let conv = Tiled::of(unit, &single).unwrap();
        let alone = conv.forward(
            Simd::choose(None),
            &x[48 * 100..2 * 48 * 100],
            &w,
            Added::NOTHING,
        );
        assert!(alone == one.0[80 * 100..2 * 80 * 100], "{unit:?}");
    }
}

#[test]
fn convolutions_that_would_waste_tiles_are_left_to_f32() {
    for unit in units() {
        let base = conv(2, 32, [8, 8], 32, [3, 3]);
        let choice = Choice {
            simd: Simd::choose(None),
            algorithm: Algorithm::F4,
            bf16: Some(unit),
        };
        assert_eq!(tiled(choice, &base).is_some(), unit.beats_winograd());
        for shape in [
            ConvShape { c_in: 3, ..base },
            ConvShape { c_out: 6, ..base },
            ConvShape { h: 2, w: 2, ..base },
            ConvShape {
                pad: [3, 1, 1, 1],
                ..base
            },
        ] {
            assert!(tiled(choice, &shape).is_none(), "{shape:?}");
        }
    }
}

#[test]
fn an_empty_batch_has_an_empty_result_and_no_gradient() {
    for unit in units() {
        for stride in [1, 2] {
            if stride == 2 && !unit.beats_winograd() {
                continue;
            }
            let shape = ConvShape {
                stride,
                ..conv(0, 16, [8, 8], 16, [3, 3])
            };
            let choice = Choice {
                simd: Simd::choose(None),
                algorithm: Algorithm::Direct,
                bf16: Some(unit),
            };
            assert!(tiled(choice, &shape).is_some());
            let w = vec![1.0; 16 * 16 * 9];
            assert!(narrow::forward(choice, &shape, &[], &w, Added::NOTHING).is_empty());
            assert!(narrow::input_gradient(choice, &shape, &[], &w).is_empty());
            let dw = narrow::weight_gradient(choice, &shape, &[], &[]);
            assert!(dw == vec![0.0; w.len()], "{unit:?}");
        }
    }
}
