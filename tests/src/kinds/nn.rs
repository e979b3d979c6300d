//! Cases of the kinds `nn.*`.

use super::{Outputs, put, put_gradient, put_gradients};
use anyhow::{Result, bail};
use candle_core::{Device, Tensor, Var};
use sdft_autograd::norm_act;
use sdft_kernels::{Activation, AttentionOrder};
use sdft_nn::{
    AttentionBlock, AttentionPool, Init, Params, ResBlock, ResBlockConfig, Resample, Resize, Scope,
    specs_of,
};
use sdft_testing::{Case, device};

pub(super) fn timestep_embedding(case: &Case) -> Result<Outputs> {
    let t = case.times("timesteps")?;
    let out =
        sdft_nn::timestep_embedding(&t, case.count("dim")?, case.number("max_period")?, device())?;
    let mut all = Outputs::new();
    put(&mut all, "out", &out)?;
    Ok(all)
}

/// Runs a module on `inputs` and collects the output and the gradients of `sum(out * R)`.
fn module(
    case: &Case,
    inputs: &[&str],
    run: impl Fn(&Scope<'_>, &[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<Outputs> {
    let stored = inputs
        .iter()
        .map(|name| case.input(name))
        .collect::<Result<Vec<_>>>()?;
    // Listing the parameters runs the module on placeholders, which may fail after all are listed.
    let specs = specs_of(|scope| {
        run(scope, &stored).or_else(|_| Tensor::zeros((), candle_core::DType::F32, &Device::Cpu))
    })?;
    let params = if specs.is_empty() {
        Params::default()
    } else {
        case.weights("module", &specs)?
    };
    let (params, vars) = params.trainable()?;
    let input_vars = stored
        .iter()
        .map(Var::from_tensor)
        .collect::<candle_core::Result<Vec<_>>>()?;
    let tracked: Vec<Tensor> = input_vars.iter().map(|v| v.as_tensor().clone()).collect();
    let result = run(&Scope::root(&params), &tracked)?;
    let gradients = sdft_autograd::backward(&result.mul(&case.input("R")?)?.sum_all()?)?;
    let mut out = Outputs::new();
    put(&mut out, "out", &result)?;
    put_gradients(&mut out, &vars, &gradients)?;
    for (name, var) in inputs.iter().zip(&input_vars) {
        put_gradient(&mut out, name, var, &gradients)?;
    }
    Ok(out)
}

pub(super) fn groupnorm_silu(case: &Case) -> Result<Outputs> {
    let (channels, groups, eps) = (
        case.count("channels")?,
        case.count("groups")?,
        case.number("eps")?,
    );
    let run = |activation| {
        module(case, &["x"], move |scope: &Scope<'_>, x: &[Tensor]| {
            let weight = scope
                .pp(0)
                .get("weight", &[channels], Init::Constant(1.0))?;
            let bias = scope.pp(0).get("bias", &[channels], Init::Constant(0.0))?;
            let rows = (x[0].dim(0)?, channels);
            norm_act(
                &x[0],
                &weight.broadcast_as(rows)?,
                &bias.broadcast_as(rows)?,
                groups,
                eps,
                activation,
            )
        })
    };
    let mut out = run(Activation::Silu)?;
    if let Some(plain) = run(Activation::None)?.remove("out") {
        out.insert("norm_only".into(), plain);
    }
    Ok(out)
}

pub(super) fn resblock(case: &Case) -> Result<Outputs> {
    let resample = match (case.flag("up", false)?, case.flag("down", false)?) {
        (true, _) => Resample::Up,
        (false, true) => Resample::Down,
        (false, false) => Resample::None,
    };
    let config = ResBlockConfig {
        scale_shift: case.flag("use_scale_shift_norm", false)?,
        resample,
        skip_kernel: if case.flag("use_conv", false)? { 3 } else { 1 },
        // Evaluation drops nothing, regardless of the probability.
        ..ResBlockConfig::new(
            case.count("channels")?,
            out_channels(case)?,
            case.count("emb_channels")?,
        )
    };
    module(case, &["x", "emb"], |scope, t| {
        ResBlock::load(scope, &config)?.forward(&t[0], Some(&t[1]), None)
    })
}

/// `out_channels`, which is that of the input where it is null.
fn out_channels(case: &Case) -> Result<usize> {
    if case
        .config
        .get("out_channels")
        .is_none_or(serde_json::Value::is_null)
    {
        return case.count("channels");
    }
    case.count("out_channels")
}

pub(super) fn attention(case: &Case) -> Result<Outputs> {
    let channels = case.count("channels")?;
    let heads = if case.number("num_head_channels")? == -1.0 {
        case.count("num_heads")?
    } else {
        let per_head = case.count("num_head_channels")?;
        if per_head == 0 || !channels.is_multiple_of(per_head) {
            bail!("num_head_channels: {per_head} does not divide {channels} channels");
        }
        channels / per_head
    };
    let order = if case.flag("use_new_attention_order", false)? {
        AttentionOrder::Chunked
    } else {
        AttentionOrder::Legacy
    };
    module(case, &["x"], |scope, t| {
        AttentionBlock::load(scope, channels, heads, 32, order)?.forward(&t[0], None)
    })
}

pub(super) fn resize(case: &Case, down: bool) -> Result<Outputs> {
    let (channels, out, learned) = (
        case.count("channels")?,
        out_channels(case)?,
        case.flag("use_conv", false)?,
    );
    module(case, &["x"], |scope, t| {
        let resize = if down {
            Resize::down(scope, channels, out, learned)?
        } else {
            Resize::up(scope, channels, out, learned)?
        };
        resize.forward(&t[0])
    })
}

pub(super) fn attention_pool(case: &Case) -> Result<Outputs> {
    let [side, channels, per_head, n_out] = [
        "spacial_dim",
        "embed_dim",
        "num_heads_channels",
        "output_dim",
    ]
    .map(|name| case.count(name));
    let (side, channels, per_head, n_out) = (side?, channels?, per_head?, n_out?);
    module(case, &["x"], |scope, t| {
        AttentionPool::load(scope, side, channels, per_head, n_out)?.forward(&t[0])
    })
}
