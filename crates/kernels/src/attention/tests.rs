//! Attention in f32 against the definition in f64.

use super::*;
use crate::element::Stored;
use crate::real::Scalar;
use crate::simd::Simd;
use crate::tiles::tests::units;

fn wave(n: usize, phase: f64) -> Vec<f64> {
    (0..n)
        .map(|i| 2.0 * (i as f64 * 1.37 + phase + (i as f64 * 0.013).sin()).sin())
        .collect()
}

fn rounded(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| f32::from_f64(x)).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// The definition, one query at a time.
fn definition(s: &AttentionShape, qkv: &[f64]) -> Vec<f64> {
    let (n, d) = (s.n, s.head_channels());
    let mut out = vec![0.0; s.batch * s.channels * n];
    for (head, out) in out.chunks_exact_mut(d * n).enumerate() {
        let [q, k, v] = s.parts(head).map(|start| &qkv[start..start + d * n]);
        for i in 0..n {
            let score = |j: usize| (0..d).map(|c| q[c * n + i] * k[c * n + j]).sum::<f64>();
            let exp: Vec<f64> = (0..n)
                .map(|j| (score(j) / (d as f64).sqrt()).exp())
                .collect();
            let total: f64 = exp.iter().sum();
            for c in 0..d {
                let sum: f64 = (0..n).map(|j| exp[j] * v[c * n + j]).sum();
                out[c * n + i] = sum / total;
            }
        }
    }
    out
}

/// Whole blocks, queries and channels left over, one position, and heads that take the general way.
fn shapes() -> impl Iterator<Item = AttentionShape> {
    let sizes = [
        (2, 64, 64, 1),
        (1, 48, 197, 2),
        (2, 16, 49, 2),
        (1, 72, 33, 1),
        (3, 8, 1, 1),
        (1, 24, 150, 3),
        (2, 12, 20, 2),
    ];
    sizes
        .into_iter()
        .zip(
            [AttentionOrder::Legacy, AttentionOrder::Chunked]
                .into_iter()
                .cycle(),
        )
        .map(|((batch, channels, n, heads), order)| AttentionShape {
            batch,
            channels,
            n,
            heads,
            order,
        })
}

fn assert_close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let top = want.iter().fold(0.0f64, |top, x| top.max(x.abs()));
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(
            error <= 2e-6 * top,
            "{what} at {i}: {got} instead of {want}"
        );
    }
}

#[test]
fn every_instruction_set_computes_the_definition() {
    for shape in shapes() {
        let qkv = rounded(&wave(3 * shape.batch * shape.channels * shape.n, 0.3));
        let want = definition(&shape, &wide(&qkv));
        for simd in Simd::available() {
            let got = attention_by(simd, &shape, &qkv);
            assert_close(&got, &want, &format!("{shape:?} {simd:?}"));
        }
    }
}

#[test]
fn the_gradient_is_that_of_f64() {
    for shape in shapes() {
        let qkv = rounded(&wave(3 * shape.batch * shape.channels * shape.n, 0.3));
        let dout = rounded(&wave(shape.batch * shape.channels * shape.n, 1.1));
        let want = attention_gradient(&shape, &wide(&qkv), &wide(&dout));
        for simd in Simd::available() {
            let got = gradient_by(simd, &shape, &qkv, &dout);
            assert_close(&got, &want, &format!("{shape:?} {simd:?}"));
        }
    }
}

/// Factors are rounded to bf16, which keeps eight bits: weights, their gradients and the result.
fn assert_close_in_bf16(got: &[bf16], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let top = want.iter().fold(0.0f64, |top, x| top.max(x.abs()));
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(got.real());
        assert!(
            (got - want).abs() <= 0.012 * top,
            "{what} at {i}: {got} instead of {want}, of {top}"
        );
    }
}

#[test]
fn in_bf16_every_unit_computes_the_definition_and_its_gradient() {
    for shape in shapes() {
        let qkv = to_bf16(&rounded(&wave(
            3 * shape.batch * shape.channels * shape.n,
            0.3,
        )));
        let dout = to_bf16(&rounded(&wave(shape.batch * shape.channels * shape.n, 1.1)));
        let [exact, dexact] = [&qkv, &dout].map(|x| wide(&to_f32(x)));
        let want = definition(&shape, &exact);
        let dwant = attention_gradient(&shape, &exact, &dexact);
        let simd = Choice::get().simd;
        for unit in units().into_iter().map(Some).chain([None]) {
            let choice = Choice {
                bf16: unit,
                ..Choice::get()
            };
            let what = format!("{shape:?} {unit:?} {simd:?}");
            assert_close_in_bf16(&forward_bf16(choice, &shape, &qkv), &want, &what);
            assert_close_in_bf16(&gradient_bf16(choice, &shape, &qkv, &dout), &dwant, &what);
        }
    }
}

#[test]
fn the_gradient_in_f64_is_the_slope_of_the_definition() {
    let shape = AttentionShape {
        batch: 1,
        channels: 8,
        n: 5,
        heads: 2,
        order: AttentionOrder::Legacy,
    };
    let (qkv, dout) = (wave(3 * 8 * 5, 0.3), wave(8 * 5, 1.1));
    let loss = |qkv: &[f64]| -> f64 {
        let out = definition(&shape, qkv);
        out.iter().zip(&dout).map(|(y, dy)| y * dy).sum()
    };
    let gradient = attention_gradient(&shape, &qkv, &dout);
    for (i, &slope) in gradient.iter().enumerate() {
        let step = 1e-5;
        let at = |sign: f64| {
            let mut moved = qkv.clone();
            moved[i] += sign * step;
            loss(&moved)
        };
        let want = (at(1.0) - at(-1.0)) / (2.0 * step);
        assert!(
            (slope - want).abs() < 1e-7,
            "{i}: {slope} instead of {want}"
        );
    }
}

#[test]
fn results_do_not_depend_on_batch_or_threads_and_nan_stays() {
    let shape = |batch| AttentionShape {
        batch,
        channels: 32,
        n: 150,
        heads: 2,
        order: AttentionOrder::Chunked,
    };
    let qkv = rounded(&wave(2 * 3 * 32 * 150, 0.3));
    let both = attention(&shape(2), &qkv);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    assert_eq!(pool.install(|| attention(&shape(2), &qkv)), both);
    let (first, second) = qkv.split_at(qkv.len() / 2);
    let mut one_by_one = attention(&shape(1), first);
    one_by_one.extend(attention(&shape(1), second));
    assert_eq!(one_by_one, both);
    let mut broken = qkv;
    broken[7] = f32::NAN;
    assert!(attention(&shape(2), &broken)[7].is_nan());
}
