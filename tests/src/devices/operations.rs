//! Each operation with its gradients, in every type.

use super::{Finding, bound, finding, wave};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use sdft_autograd::{
    add, add_gated, add_per_channel, add_scaled, attention, average_pool_2x, backward, concat,
    conv2d, conv2d_joined, conv2d_onto, conv2d_padded, conv2d_unbiased, embedding, gelu,
    group_norm, group_norm_biased, group_norm_joined, heads_apart, linear, linears, norm_act,
    pointwise_onto, pool, relu, resample_filter_down, resample_filter_up, silu, taped, token_norm,
    unpatchify, upsample_nearest_2x,
};
use sdft_kernels::{Activation, AttentionOrder, PoolKind};

type Network<'a> = Box<dyn Fn(&[Tensor]) -> candle_core::Result<Tensor> + 'a>;

/// An operation, the shapes of its feature maps and those of its parameters.
pub(super) struct Operation<'a> {
    pub(super) name: String,
    maps: Vec<Vec<usize>>,
    parameters: Vec<Vec<usize>>,
    f: Network<'a>,
}

pub(super) fn operations() -> Vec<Operation<'static>> {
    let mut all: Vec<Operation<'static>> = Vec::new();
    let mut put =
        |name: String, maps: &[&[usize]], parameters: &[&[usize]], f: Network<'static>| {
            let owned = |list: &[&[usize]]| list.iter().map(|shape| shape.to_vec()).collect();
            all.push(Operation {
                name,
                maps: owned(maps),
                parameters: owned(parameters),
                f,
            });
        };
    for (b, c_in, c_out, h, w, k, stride, pad) in [
        (2, 16, 32, 9, 7, [3, 3], 1, [1, 1]),
        (2, 3, 32, 8, 8, [3, 3], 1, [1, 1]),
        (1, 32, 6, 8, 8, [3, 3], 1, [1, 1]),
        (2, 40, 24, 8, 6, [1, 1], 1, [0, 0]),
        (2, 8, 16, 9, 9, [3, 3], 2, [1, 1]),
        (1, 8, 8, 7, 9, [1, 5], 1, [0, 2]),
        (1, 5, 7, 6, 6, [5, 5], 1, [2, 2]),
        (2, 128, 128, 16, 16, [3, 3], 1, [1, 1]),
    ] {
        put(
            format!("conv {}x{} {c_in}->{c_out} /{stride}", k[0], k[1]),
            &[&[b, c_in, h, w]],
            &[&[c_out, c_in, k[0], k[1]], &[c_out]],
            Box::new(move |t| conv2d(&t[0], &t[1], &t[2], stride, pad)),
        );
    }
    for (b, c_in, c_out, h, w, stride, pad) in [
        (2, 16, 16, 8, 8, 2, [0, 0, 1, 1]),
        (1, 5, 7, 6, 9, 1, [2, 0, 0, 1]),
    ] {
        put(
            format!("conv 3x3 {c_in}->{c_out} /{stride} padded {pad:?}"),
            &[&[b, c_in, h, w]],
            &[&[c_out, c_in, 3, 3], &[c_out]],
            Box::new(move |t| conv2d_padded(&t[0], &t[1], &t[2], stride, pad)),
        );
    }
    // On a tape, where additions become part of the operation before or after them.
    for (c_in, c_out, k) in [(16, 24, 3), (5, 7, 3), (24, 16, 1)] {
        put(
            format!("conv {k}x{k} {c_in}->{c_out} onto a map"),
            &[&[2, c_in, 9, 7], &[2, c_out, 9, 7]],
            &[&[c_out, c_in, k, k], &[c_out]],
            Box::new(move |t| {
                taped(&t[0], |x| {
                    conv2d_onto(&t[1], x, &t[2], &t[3], 1, [k / 2; 4])
                })
            }),
        );
    }
    put(
        "pointwise onto a map".to_owned(),
        &[&[2, 24, 35], &[2, 16, 35]],
        &[&[16, 24], &[16]],
        Box::new(|t| taped(&t[0], |x| pointwise_onto(&t[1], x, &t[2], &t[3]))),
    );
    for (c, groups, places) in [(128, 32, 300), (20, 4, 7), (6, 3, 5)] {
        put(
            format!("norm {c} in {groups} added to its input"),
            &[&[2, c, places, 1]],
            &[&[c], &[c]],
            Box::new(move |t| {
                taped(&t[0], |x| {
                    let y = group_norm(x, &t[1], &t[2], None, groups, 1e-5, Activation::Silu)?;
                    add(&y, x)
                })
            }),
        );
    }
    put(
        "conv without bias".to_owned(),
        &[&[2, 16, 9, 7]],
        &[&[24, 16, 3, 3]],
        Box::new(|t| conv2d_unbiased(&t[0], &t[1], 1, [1; 4])),
    );
    for (c, groups, places) in [(128, 32, 300), (20, 4, 7), (6, 3, 5)] {
        put(
            format!("norm {c} in {groups} with the bias before it"),
            &[&[2, c, places, 1]],
            &[&[c], &[c], &[c], &[2, 2 * c]],
            Box::new(move |t| {
                let (x, x_bias, act, eps) = (&t[0], &t[1], Activation::Silu, 1e-5);
                let emb = Some(&t[4]);
                if x.device().is_cuda() {
                    return group_norm_biased((x, x_bias), &t[2], &t[3], emb, groups, eps, act);
                }
                let x = add_per_channel(x, &x_bias.broadcast_as((2, c))?)?;
                group_norm(&x, &t[2], &t[3], emb, groups, eps, act)
            }),
        );
    }
    // Groups that extend over both maps, and channels that are loaded one at a time. The sum gives each map an earlier gradient.
    for (a, b, groups, places, is_added) in [
        (128, 64, 32, 300, false),
        (24, 40, 4, 35, true),
        (5, 7, 3, 5, true),
        (5, 7, 3, 5, false),
    ] {
        put(
            format!("norm of {a} and {b} in {groups}"),
            &[&[2, a, places, 1], &[2, b, places, 1]],
            &[&[a + b], &[a + b]],
            Box::new(move |t| {
                taped(&t[0], |x| {
                    let y = group_norm_joined(
                        [x, &t[1]],
                        &t[2],
                        &t[3],
                        groups,
                        1e-5,
                        Activation::Silu,
                    )?;
                    match is_added {
                        true => add(&y, &concat(x, &t[1])?),
                        false => Ok(y),
                    }
                })
            }),
        );
    }
    for (a, b, c_out, k) in [(16, 24, 16, 1), (5, 3, 7, 3)] {
        put(
            format!("conv {k}x{k} of {a} and {b}"),
            &[&[2, a, 9, 7], &[2, b, 9, 7]],
            &[&[c_out, a + b, k, k], &[c_out]],
            Box::new(move |t| {
                taped(&t[0], |x| {
                    conv2d_joined([x, &t[1]], &t[2], &t[3], [k / 2; 4])
                })
            }),
        );
    }
    put(
        "linear".to_owned(),
        &[&[5, 24]],
        &[&[17, 24], &[17]],
        Box::new(|t| linear(&t[0], &t[1], &t[2])),
    );
    // More images and inputs than one pass of a block of threads takes, a layer that nothing uses, and many rows.
    for (batch, n_in, narrow, wide) in [(11, 300, 17, 33), (3, 20, 2100, 2200)] {
        put(
            format!("{narrow} and {wide} of {n_in} at once"),
            &[&[batch, n_in]],
            &[
                &[narrow, n_in],
                &[narrow],
                &[wide, n_in],
                &[wide],
                &[narrow, wide],
                &[narrow],
            ],
            Box::new(move |t| {
                taped(&t[0], |x| {
                    let unused = [&t[3].detach(), &t[4].detach()];
                    let y = linears(x, &[[&t[1], &t[2]], unused, [&t[3], &t[4]]])?;
                    add(&y[0], &linear(&y[2], &t[5], &t[6])?)
                })
            }),
        );
    }
    put(
        "more layers than one launch takes".to_owned(),
        &[&[2, 24]],
        &[&[17, 24], &[17]],
        Box::new(|t| {
            taped(&t[0], |x| {
                let y = linears(x, &[[&t[1], &t[2]]; 66])?;
                add(&add(&y[0], &y[63])?, &y[65])
            })
        }),
    );
    for (c, groups, places) in [
        (32, 32, 25),
        (20, 4, 7),
        (128, 32, 300),
        (96, 32, 64),
        (6, 3, 5),
    ] {
        for activation in [Activation::None, Activation::Silu] {
            put(
                format!("norm {c} in {groups} {activation:?}"),
                &[&[2, c, places, 1]],
                &[&[2, c], &[2, c]],
                Box::new(move |t| norm_act(&t[0], &t[1], &t[2], groups, 1e-5, activation)),
            );
        }
    }
    for (order, channels, heads, n) in [
        (AttentionOrder::Legacy, 64, 4, 49),
        (AttentionOrder::Chunked, 64, 2, 64),
        (AttentionOrder::Legacy, 24, 1, 7),
        (AttentionOrder::Chunked, 24, 2, 16),
        (AttentionOrder::Legacy, 120, 3, 70),
        (AttentionOrder::Chunked, 128, 1, 66),
        (AttentionOrder::Chunked, 192, 2, 65),
        (AttentionOrder::Legacy, 128, 2, 130),
    ] {
        put(
            format!("attention {order:?} {channels} heads {heads} places {n}"),
            &[&[2, 3 * channels, n]],
            &[],
            Box::new(move |t| attention(&t[0], heads, order)),
        );
    }
    for (c, n) in [(24, 35), (72, 256), (5, 3)] {
        put(
            format!("token norm {c} x {n}"),
            &[&[2, c, n]],
            &[&[2, 6 * c]],
            Box::new(|t| token_norm(&t[0], &t[1], 3, 1e-6)),
        );
        put(
            format!("add gated {c} x {n}"),
            &[&[2, c, n], &[2, c, n]],
            &[&[2, 6 * c]],
            Box::new(|t| add_gated(&t[0], &t[1], &t[2], 5)),
        );
    }
    put(
        "unpatchify".to_owned(),
        &[&[2, 12, 6]],
        &[],
        Box::new(|t| unpatchify(&t[0], 2, [3, 2])),
    );
    let map: &[usize] = &[2, 24, 6, 10];
    put(
        "upsample".into(),
        &[map],
        &[],
        Box::new(|t| upsample_nearest_2x(&t[0])),
    );
    put(
        "average".into(),
        &[map],
        &[],
        Box::new(|t| average_pool_2x(&t[0])),
    );
    let odd: &[usize] = &[1, 5, 5, 7];
    put(
        "average odd".into(),
        &[odd],
        &[],
        Box::new(|t| average_pool_2x(&t[0])),
    );
    for (filter, pad) in [(&[0.5f32, 0.5][..], 0), (&[0.125, 0.375, 0.375, 0.125], 1)] {
        for shape in [map, odd] {
            put(
                format!("filter down by {} {shape:?}", filter.len()),
                &[shape],
                &[],
                Box::new(move |t| {
                    resample_filter_down(&t[0], &Tensor::new(filter, t[0].device())?, pad)
                }),
            );
            put(
                format!("filter up by {} {shape:?}", filter.len()),
                &[shape],
                &[],
                Box::new(move |t| {
                    resample_filter_up(&t[0], &Tensor::new(filter, t[0].device())?, pad)
                }),
            );
        }
    }
    put("relu".into(), &[map], &[], Box::new(|t| relu(&t[0])));
    put("silu".into(), &[odd], &[], Box::new(|t| silu(&t[0])));
    put("gelu".into(), &[odd], &[], Box::new(|t| gelu(&t[0])));
    put(
        "add".into(),
        &[map, map],
        &[],
        Box::new(|t| add(&t[0], &t[1])),
    );
    put(
        "add scaled".into(),
        &[map, map],
        &[],
        Box::new(|t| add_scaled(&t[0], &t[1], 0.7)),
    );
    put(
        "heads apart".into(),
        &[&[5, 24]],
        &[&[48, 24], &[48]],
        Box::new(|t| linear(&t[0], &heads_apart(&t[1], 4)?, &heads_apart(&t[2], 4)?)),
    );
    put(
        "concat".into(),
        &[map, &[2, 9, 6, 10]],
        &[],
        Box::new(|t| concat(&t[0], &t[1])),
    );
    put(
        "concat even".into(),
        &[map, &[2, 8, 6, 10]],
        &[],
        Box::new(|t| concat(&t[0], &t[1])),
    );
    // The second is more than one launch takes.
    for n in [3, 1100] {
        let rows: Vec<u32> = (0..n).map(|i| i * i % 5).collect();
        put(
            format!("lookup of {n}"),
            &[],
            &[&[5, 8]],
            Box::new(move |t| embedding(&t[0], &rows)),
        );
    }
    for (kind, k, stride, pad) in [
        (PoolKind::Max, 3, 2, 1),
        (PoolKind::Average, 3, 1, 1),
        (PoolKind::Max, 2, 2, 0),
    ] {
        put(
            format!("pool {kind:?} {k} /{stride}"),
            &[&[2, 12, 9, 7]],
            &[],
            Box::new(move |t| pool(&t[0], kind, k, stride, pad)),
        );
    }
    all
}

impl Operation<'_> {
    pub(super) fn compare(
        &self,
        dtype: DType,
        device: &Device,
        name: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let n_maps = self.maps.len();
        let inputs: Vec<Tensor> = self
            .maps
            .iter()
            .chain(&self.parameters)
            .enumerate()
            .map(|(i, shape)| {
                let values = wave(shape, i as u64, &Device::Cpu)?;
                // Both sides get the same, rounded numbers.
                Ok(if i < n_maps {
                    values.to_dtype(dtype)?.to_dtype(DType::F32)?
                } else {
                    values
                })
            })
            .collect::<Result<_>>()?;
        let run = |device: &Device, dtype: DType| -> Result<(Tensor, Vec<Tensor>)> {
            let vars: Vec<Var> = inputs
                .iter()
                .enumerate()
                .map(|(i, x)| {
                    let x = x.to_device(device)?;
                    let x = if i < n_maps { x.to_dtype(dtype)? } else { x };
                    Ok(Var::from_tensor(&x)?)
                })
                .collect::<Result<_>>()?;
            let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = (self.f)(&tracked)?;
            let r = wave(y.dims(), 99, device)?.to_dtype(y.dtype())?;
            let gradients = backward(&y.mul(&r)?.sum_all()?)?;
            let gradients = vars
                .iter()
                .map(|v| gradients.get(v).cloned().context("no gradient"))
                .collect::<Result<_>>()?;
            Ok((y.detach(), gradients))
        };
        let (y, gradients) = run(device, dtype)?;
        let (y_cpu, gradients_cpu) = run(&Device::Cpu, DType::F32)?;
        findings.push(finding(name.to_owned(), &y, &y_cpu, bound(dtype))?);
        for (i, (a, b)) in gradients.iter().zip(&gradients_cpu).enumerate() {
            findings.push(finding(format!("{name} d{i}"), a, b, 2.0 * bound(dtype))?);
        }
        Ok(())
    }
}
