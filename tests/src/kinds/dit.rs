//! Cases of the kind `dit.forward_backward`.

use super::unet::{check_count, run};
use super::{Outputs, labels};
use anyhow::{Context, Result};
use sdft_dit::{Dit, DitConfig};
use sdft_testing::{Case, compute_dtype};

pub(super) fn forward_backward(case: &Case) -> Result<Outputs> {
    let json = case.get("model")?.as_object();
    let config = DitConfig::from_json(json.context("model: expected an object")?)?;
    let params = case.weights("model", &Dit::specs(&config)?)?;
    check_count(case, &params)?;
    let (params, vars) = params.trainable()?;
    let dit = Dit::load(&params, &config)?.with_compute_dtype(compute_dtype());
    let labels = labels(case)?;
    run(case, vars, |x, t| {
        dit.forward(x, t, labels.as_deref(), None)
    })
}
