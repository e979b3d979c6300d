//! What a result does not depend on: threads, and the other images of a batch.

use super::*;

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for s in [
        conv3(6, 40, (12, 12), 24),
        conv3(2, 330, (5, 5), 300),
        conv3(3, 96, (2, 3), 72),
        ConvShape {
            k: [1; 2],
            pad: [0; 4],
            ..conv3(6, 24, (8, 8), 40)
        },
    ]
    .into_iter()
    .chain(strided())
    {
        let (x, w, dy) = (normal(n_x(&s), 1), normal(n_w(&s), 2), normal(n_y(&s), 3));
        for choice in choices().into_iter().rev().take(3) {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    let mut all = forward(choice, &s, &x, &w, Added::NOTHING);
                    all.extend(input_gradient(choice, &s, &dy, &w));
                    all.extend(weight_gradient(choice, &s, &x, &dy));
                    all.extend(conv2d_bias_gradient(&dy, s.batch, s.c_out));
                    all.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                })
            };
            let one = run(1);
            assert_eq!(one, run(2), "{s:?} {choice:?}");
            assert_eq!(one, run(3), "{s:?} {choice:?}");
        }
    }
}

#[test]
fn an_image_comes_out_the_same_in_any_batch_by_the_fast_ways() {
    let square = |c_in, side, c_out| conv3(5, c_in, (side, side), c_out);
    for many in [
        square(192, 32, 192),
        square(48, 12, 40),
        square(64, 2, 32),
        square(330, 5, 40),
    ]
    .into_iter()
    .chain(strided())
    {
        for choice in choices().into_iter().rev().take(2) {
            assert_ne!(choice.algorithm, Algorithm::Direct);
            let one = ConvShape { batch: 1, ..many };
            let (x, w, dy) = (
                normal(n_x(&many), 1),
                normal(n_w(&many), 2),
                normal(n_y(&many), 3),
            );
            let (x1, dy1) = (&x[..n_x(&one)], &dy[..n_y(&one)]);
            let alone = forward(choice, &one, x1, &w, Added::NOTHING);
            let among = forward(choice, &many, &x, &w, Added::NOTHING);
            assert!(alone == among[..alone.len()], "{one:?} {choice:?}");
            let alone = input_gradient(choice, &one, dy1, &w);
            let among = input_gradient(choice, &many, &dy, &w);
            assert!(alone == among[..alone.len()], "{one:?} {choice:?}");
        }
    }
}

#[test]
fn an_empty_batch_has_an_empty_result_and_no_gradient() {
    for k in [[1; 2], [3; 2]] {
        let s = ConvShape {
            k,
            pad: [k[0] / 2; 4],
            ..conv3(0, 16, (8, 8), 16)
        };
        let w = normal(n_w(&s), 2);
        for choice in choices() {
            assert!(forward(choice, &s, &[], &w, Added::NOTHING).is_empty());
            assert!(input_gradient(choice, &s, &[], &w).is_empty());
            assert!(
                weight_gradient::<f32>(choice, &s, &[], &[])
                    .iter()
                    .all(|&g| g == 0.0)
            );
        }
    }
}

#[test]
fn an_image_is_the_same_in_every_batch() {
    let small = [conv3(3, 12, (1, 1), 6), conv3(3, 64, (2, 2), 4)];
    let pixels = small.map(|s| ConvShape {
        k: [1; 2],
        pad: [0; 4],
        ..s
    });
    let strided = small.map(|s| ConvShape { stride: 2, ..s });
    let more = [conv3(3, 33, (13, 17), 40), conv3(3, 16, (40, 40), 8)];
    for all in [&small[..], &pixels, &strided, &more].concat() {
        let one = ConvShape { batch: 1, ..all };
        let (x, w, dy) = (
            normal(n_x(&all), 1),
            normal(n_w(&all), 2),
            normal(n_y(&all), 3),
        );
        for choice in choices() {
            let y: Vec<f32> = x
                .chunks_exact(n_x(&one))
                .flat_map(|x| forward(choice, &one, x, &w, Added::NOTHING))
                .collect();
            let together = forward(choice, &all, &x, &w, Added::NOTHING);
            assert_eq!(y, together, "{all:?}, {choice:?}");
            let dx: Vec<f32> = dy
                .chunks_exact(n_y(&one))
                .flat_map(|dy| input_gradient(choice, &one, dy, &w))
                .collect();
            let together = input_gradient(choice, &all, &dy, &w);
            assert_eq!(dx, together, "{all:?}, {choice:?}");
        }
    }
}
