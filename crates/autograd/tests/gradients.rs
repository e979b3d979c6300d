//! Every operation against central differences, in f64.

mod differences;

use candle_core::{DType, Device, Result, Tensor, Var};
use differences::{check, wave};
use sdft_autograd::{
    add, add_gated, add_scaled, affine, attention, average_pool_2x, backward, concat, conv2d,
    conv2d_onto, conv2d_padded, gelu, heads_apart, join_rows, linear, norm_act, pool, relu,
    resample_filter_down, resample_filter_up, silu, taped, token_norm, unpatchify,
    upsample_nearest_2x,
};
use sdft_kernels::{Activation, AttentionOrder, PoolKind};

#[test]
fn operations_have_exact_gradients() {
    for (stride, pad, [k_h, k_w]) in [
        (1, [1; 2], [3; 2]),
        (2, [1; 2], [3; 2]),
        (1, [0; 2], [1; 2]),
        (2, [2; 2], [5; 2]),
        (1, [0, 2], [1, 5]),
        (2, [1, 0], [3, 1]),
    ] {
        let inputs = [
            wave(&[2, 3, 6, 5], 0.1),
            wave(&[4, 3, k_h, k_w], 0.2),
            wave(&[4], 0.3),
        ];
        check(&inputs, |t| conv2d(&t[0], &t[1], &t[2], stride, pad));
    }
    for (stride, pad) in [(2, [0, 0, 1, 1]), (1, [2, 0, 0, 1]), (3, [0, 3, 1, 0])] {
        let inputs = [
            wave(&[2, 3, 6, 5], 0.1),
            wave(&[4, 3, 3, 3], 0.2),
            wave(&[4], 0.3),
        ];
        check(&inputs, |t| conv2d_padded(&t[0], &t[1], &t[2], stride, pad));
    }
    check(
        &[wave(&[3, 5], 0.1), wave(&[4, 5], 0.2), wave(&[4], 0.3)],
        |t| linear(&t[0], &t[1], &t[2]),
    );
    for activation in [Activation::None, Activation::Silu] {
        let inputs = [
            wave(&[2, 6, 3, 5], 0.1),
            wave(&[2, 6], 0.5),
            wave(&[2, 6], 1.3),
        ];
        check(&inputs, |t| {
            norm_act(&t[0], &t[1], &t[2], 3, 1e-5, activation)
        });
    }
    for order in [AttentionOrder::Legacy, AttentionOrder::Chunked] {
        check(&[wave(&[2, 3 * 8, 7], 0.4)], |t| attention(&t[0], 2, order));
    }
    check(&[wave(&[2, 3, 4, 5], 0.4)], |t| upsample_nearest_2x(&t[0]));
    check(&[wave(&[2, 3, 5, 7], 0.4)], |t| average_pool_2x(&t[0]));
    for (filter, pad) in [
        (vec![0.5, 0.5], 0),
        (vec![0.125, 0.375, 0.375, 0.125], 1),
        (vec![0.2, 0.5, 0.3], 2),
    ] {
        let filter = Tensor::new(filter, &Device::Cpu).unwrap();
        check(&[wave(&[2, 3, 6, 9], 0.4)], |t| {
            resample_filter_down(&t[0], &filter, pad)
        });
        check(&[wave(&[2, 3, 4, 5], 0.4)], |t| {
            resample_filter_up(&t[0], &filter, pad)
        });
    }
    check(&[wave(&[2, 3, 5, 7], 0.4)], |t| relu(&t[0]));
    check(&[wave(&[2, 3, 5, 7], 0.4), wave(&[2, 3, 5, 7], 0.8)], |t| {
        add_scaled(&t[0], &t[1], 0.7)
    });
    check(&[wave(&[24, 5, 1, 1], 0.4)], |t| heads_apart(&t[0], 2));
    check(&[wave(&[2, 3, 5, 7], 0.4)], |t| affine(&t[0], 2.0, -1.0));
    let parts = [&[2, 3], &[4, 3], &[1, 3]].map(|shape| wave(shape, 0.2));
    check(&parts, |t| join_rows(&[&t[0], &t[1], &t[2]]));
    for kind in [PoolKind::Max, PoolKind::Average] {
        for (k, stride, pad) in [(3, 1, 1), (3, 2, 0), (2, 2, 0)] {
            check(&[wave(&[2, 3, 5, 7], 0.4)], |t| {
                pool(&t[0], kind, k, stride, pad)
            });
        }
    }
}

#[test]
fn operations_on_tokens_have_exact_gradients() {
    check(&[wave(&[2, 6, 5], 0.4)], |t| gelu(&t[0]));
    // More tokens than are normalised together, more channels than are summed at once, and parts that are not read.
    for (c, n, parts, first) in [(6, 5, 2, 0), (40, 3, 6, 3), (4, 70, 3, 1)] {
        let (x, e) = (wave(&[2, c, n], 0.1), wave(&[2, parts * c], 0.5));
        check(&[x.clone(), e.clone()], |t| {
            token_norm(&t[0], &t[1], first, 1e-3)
        });
        check(&[x, wave(&[2, c, n], 1.1), e], |t| {
            add_gated(&t[0], &t[1], &t[2], first)
        });
    }
    check(&[wave(&[2, 4 * 3, 6], 0.2)], |t| {
        unpatchify(&t[0], 2, [2, 3])
    });
}

#[test]
fn joined_parameters_get_their_rows_of_the_gradient_on_a_tape() {
    let x = wave(&[2, 3], 0.1);
    let [first, second] = [wave(&[4, 3], 0.2), wave(&[2, 3], 0.3)];
    let vars = [&first, &second].map(|w| Var::from_tensor(w).unwrap());
    let bias = wave(&[6], 0.4);
    let joined = Var::from_tensor(&Tensor::cat(&[&first, &second], 0).unwrap()).unwrap();
    let r = wave(&[2, 6], 0.7);
    let gradients = |f: &dyn Fn(&Tensor) -> Result<Tensor>| {
        let y = taped(&x, f).unwrap();
        backward(&y.mul(&r).unwrap().sum_all().unwrap()).unwrap()
    };
    let split = gradients(&|x| linear(x, &join_rows(&[&vars[0], &vars[1]])?, &bias));
    let whole = gradients(&|x| linear(x, &joined, &bias));
    let split = vars.each_ref().map(|var| split.get(var).unwrap().clone());
    let split = Tensor::cat(&split, 0).unwrap();
    let rows = |t: &Tensor| t.to_vec2::<f64>().unwrap();
    assert_eq!(rows(&split), rows(whole.get(&joined).unwrap()));
}

/// A residual block on a tape, whose convolution adds `x`, and whose norm adds the gradient that `x` has already.
#[test]
fn sums_inside_operations_are_those_of_operations_of_their_own() {
    let values = |dtype| {
        let shapes: [&[usize]; 5] = [&[2, 8, 6, 6], &[8, 8, 3, 3], &[8], &[2, 8], &[2, 8]];
        let waves = shapes.into_iter().enumerate();
        let waves = waves.map(|(i, shape)| wave(shape, 0.3 * i as f64).to_dtype(dtype).unwrap());
        waves.collect::<Vec<_>>()
    };
    let norm = |x: &Tensor, t: &[Tensor]| norm_act(x, &t[3], &t[4], 4, 1e-5, Activation::Silu);
    for dtype in [DType::F64, DType::F32] {
        let t = values(dtype);
        let x = Var::from_tensor(&t[0]).unwrap();
        let w = Var::from_tensor(&t[1]).unwrap();
        let apart = |x: &Tensor| add(x, &conv2d(&norm(x, &t)?, &w, &t[2], 1, [1; 2])?);
        let inside = |x: &Tensor| conv2d_onto(x, &norm(x, &t)?, &w, &t[2], 1, [1; 4]);
        let r = wave(t[0].dims(), 0.9).to_dtype(dtype).unwrap();
        let numbers = |t: &Tensor| {
            let t = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
            t.to_vec1::<f64>().unwrap()
        };
        let all = |y: Tensor| {
            let gradients = backward(&y.mul(&r).unwrap().sum_all().unwrap()).unwrap();
            [&y, gradients.get(&x).unwrap(), gradients.get(&w).unwrap()].map(numbers)
        };
        let want = all(apart(&x).unwrap());
        assert_eq!(all(inside(&x).unwrap()), want, "{dtype:?}, graph");
        assert_eq!(all(taped(&x, inside).unwrap()), want, "{dtype:?}, tape");
    }
    // Of bf16 maps the sum is rounded once.
    let t = values(DType::F32);
    let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
    let wide = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    let (x, w) = (half(&t[0]), wide(&half(&t[1])));
    let onto = |x: &Tensor| taped(x, |x| conv2d_onto(x, x, &w, &t[2], 1, [1; 4])).unwrap();
    let (narrow, want) = (onto(&x), half(&onto(&wide(&x))));
    let numbers = |t: &Tensor| wide(t).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(numbers(&narrow), numbers(&want));
}

#[test]
fn a_tensor_used_twice_gets_both_gradients() {
    // The order of the two summands must not matter: y = up(x) + up(2x) has the gradient 3 * 4.
    let x = Var::from_tensor(&wave(&[1, 2, 3, 3], 0.0)).unwrap();
    let twice = (x.as_tensor() * 2.0).unwrap();
    let y = (upsample_nearest_2x(x.as_tensor()).unwrap() + upsample_nearest_2x(&twice).unwrap())
        .unwrap();
    let gradient = y.sum_all().unwrap().backward().unwrap();
    let gradient: Vec<f64> = gradient
        .get(&x)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    assert!(gradient.iter().all(|g| *g == 12.0), "{gradient:?}");
}

#[test]
fn bad_shapes_are_errors_that_name_the_shapes() {
    let f32 = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let error = conv2d(
        &f32(&[1, 3, 4, 4]),
        &f32(&[2, 4, 3, 3]),
        &f32(&[2]),
        1,
        [1; 2],
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("[1, 3, 4, 4]") && error.contains("[2, 4, 3, 3]"),
        "{error}"
    );
    assert!(
        conv2d(
            &f32(&[1, 3, 1, 1]),
            &f32(&[2, 3, 5, 5]),
            &f32(&[2]),
            1,
            [1; 2]
        )
        .is_err()
    );
    for (shape, groups) in [
        ([1, 6, 2], 4),
        ([1, 6, 2], 0),
        ([1, 0, 2], 4),
        ([1, 6, 0], 3),
    ] {
        let (x, a) = (f32(&shape), f32(&shape[..2]));
        assert!(norm_act(&x, &a, &a, groups, 1e-5, Activation::Silu).is_err());
    }
    assert!(attention(&f32(&[1, 10, 2]), 2, AttentionOrder::Legacy).is_err());
    assert!(average_pool_2x(&f32(&[1, 2, 1, 4])).is_err());
    let (small, taps) = (f32(&[1, 2, 2, 1]), f32(&[4]));
    assert!(resample_filter_down(&small, &taps, 1).is_err());
    assert!(resample_filter_up(&small, &taps, 2).is_err());
    let trained = Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
    let y = resample_filter_down(&f32(&[1, 2, 2, 2]), &trained, 0).unwrap();
    let error = y.sum_all().unwrap().backward().unwrap_err().to_string();
    assert!(error.contains("the filter must be a constant"), "{error}");
    let bytes = Tensor::zeros((1, 2, 4, 4), DType::U8, &Device::Cpu).unwrap();
    assert!(upsample_nearest_2x(&bytes).is_err());
    let error = conv2d(
        &Tensor::zeros((1, 3, 4, 4), DType::BF16, &Device::Cpu).unwrap(),
        &Tensor::zeros((2, 3, 3, 3), DType::BF16, &Device::Cpu).unwrap(),
        &f32(&[2]),
        1,
        [1; 2],
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("parameters of type f32 for an input of type bf16"),
        "{error}"
    );
}

/// Half-precision feature maps with f32 parameters: each operation is that of f32, rounded once, on the way back too. Weights of
/// convolutions are representable here, since they are rounded next to bf16.
#[test]
fn half_maps_are_computed_in_f32_and_rounded_once() {
    let f32 = |shape: &[usize], phase| wave(shape, phase).to_dtype(DType::F32).unwrap();
    let w = f32(&[8, 8, 3, 3], 0.2).to_dtype(DType::BF16).unwrap();
    let (w, b) = (w.to_dtype(DType::F32).unwrap(), f32(&[8], 0.3));
    let (scale, shift) = (f32(&[2, 8], 0.5), f32(&[2, 8], 1.3));
    let taps = Tensor::new(&[0.125f32, 0.375, 0.375, 0.125], &Device::Cpu).unwrap();
    for dtype in [DType::BF16, DType::F16] {
        let x = f32(&[2, 8, 4, 4], 0.1).to_dtype(dtype).unwrap();
        let rounded = |t: &Tensor| t.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
        let numbers = |t: &Tensor| {
            let t = t.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            t.to_vec1::<f32>().unwrap()
        };
        type Network<'a> = (&'a str, Box<dyn Fn(&Tensor) -> Result<Tensor> + 'a>);
        let networks: Vec<Network<'_>> = vec![
            ("conv2d", Box::new(|x| conv2d(x, &w, &b, 1, [1; 2]))),
            (
                "norm_act",
                Box::new(|x| norm_act(x, &scale, &shift, 4, 1e-5, Activation::Silu)),
            ),
            ("upsample", Box::new(upsample_nearest_2x)),
            ("average pool", Box::new(average_pool_2x)),
            (
                "resample_filter_down",
                Box::new(|x| resample_filter_down(x, &taps, 1)),
            ),
            (
                "resample_filter_up",
                Box::new(|x| resample_filter_up(x, &taps, 1)),
            ),
            ("relu", Box::new(relu)),
            ("silu", Box::new(silu)),
            ("add", Box::new(|x| add(x, x))),
            ("concat", Box::new(|x| concat(x, x))),
        ];
        for (name, f) in networks {
            let half = Var::from_tensor(&x).unwrap();
            let wide = Var::from_tensor(&x.to_dtype(DType::F32).unwrap()).unwrap();
            let (y, y32) = (f(&half).unwrap(), f(&wide).unwrap());
            assert_eq!(y.dtype(), dtype, "{name}");
            assert_eq!(numbers(&y), numbers(&rounded(&y32)), "{name}");
            let dy = rounded(&f32(y.dims(), 0.7));
            let back = |y: Tensor, x: &Var, dy: &Tensor| {
                let loss = y.mul(dy).unwrap().sum_all().unwrap();
                numbers(sdft_autograd::backward(&loss).unwrap().get(x).unwrap())
            };
            let dx = back(y, &half, &dy.to_dtype(dtype).unwrap());
            let dx32 = back(y32, &wide, &dy);
            let size = dx32.iter().fold(0f32, |m, v| m.max(v.abs()));
            let bound = if dtype == DType::BF16 { 8e-3 } else { 1e-3 };
            for (a, b) in dx.iter().zip(&dx32) {
                assert!((a - b).abs() <= bound * size, "{name}: {a} {b}");
            }
        }
    }
}

#[test]
fn alternating_queries_keys_and_values_come_to_follow_one_another() {
    let rows: Vec<f64> = (0..12).map(f64::from).collect();
    let rows = Tensor::from_vec(rows, 12, &Device::Cpu).unwrap();
    let apart = heads_apart(&rows, 2).unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(apart, [0., 3., 1., 4., 2., 5., 6., 9., 7., 10., 8., 11.]);
    assert!(heads_apart(&rows, 3).is_err());
}
