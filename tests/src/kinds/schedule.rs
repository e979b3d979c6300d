//! Cases of the kinds `schedule.*`.

use super::Outputs;
use anyhow::{Result, anyhow};
use sdft_schedule::{Respacing, Weighting};
use sdft_testing::{Array, Case};

pub(super) fn table(case: &Case) -> Result<Outputs> {
    let s = sdft_testing::schedule(&case.config)?;
    let tables = [
        ("betas", s.betas()),
        ("alphas_cumprod", s.alpha_bar()),
        ("alphas_cumprod_prev", s.alpha_bar_prev()),
        ("alphas_cumprod_next", s.alpha_bar_next()),
        ("sqrt_alphas_cumprod", s.sqrt_alpha_bar()),
        (
            "sqrt_one_minus_alphas_cumprod",
            s.sqrt_one_minus_alpha_bar(),
        ),
        ("log_one_minus_alphas_cumprod", s.log_one_minus_alpha_bar()),
        ("sqrt_recip_alphas_cumprod", s.sqrt_recip_alpha_bar()),
        ("sqrt_recipm1_alphas_cumprod", s.sqrt_recipm1_alpha_bar()),
        ("posterior_variance", s.posterior_variance()),
        (
            "posterior_log_variance_clipped",
            s.posterior_log_variance_clipped(),
        ),
        ("posterior_mean_coef1", s.posterior_mean_coef1()),
        ("posterior_mean_coef2", s.posterior_mean_coef2()),
        ("snr", s.snr()),
    ];
    let mut out: Outputs = tables
        .into_iter()
        .map(|(name, table)| (name.to_owned(), Array::vector(table.to_vec())))
        .collect();
    out.insert("timestep_map".into(), Array::indices(s.timestep_map()));
    Ok(out)
}

pub(super) fn weights(case: &Case) -> Result<Outputs> {
    let schedule = sdft_testing::schedule(&case.config)?;
    let mut out = Outputs::new();
    let mut put = |name: String, weighting: Weighting| {
        out.insert(name, Array::vector(weighting.weights(&schedule)));
    };
    // A name carries the number as it is written in the configuration.
    let gammas = |name: &str| -> Result<Vec<(String, f64)>> {
        let list = case
            .get(name)?
            .as_array()
            .ok_or_else(|| anyhow!("{name} is no list"))?;
        list.iter()
            .map(|v| {
                Ok((
                    v.to_string(),
                    v.as_f64().ok_or_else(|| anyhow!("{name} holds {v}"))?,
                ))
            })
            .collect()
    };
    let k = case.number("p2_k")?;
    for (text, gamma) in gammas("p2_gammas")? {
        put(format!("p2_gamma{text}"), Weighting::P2 { k, gamma });
    }
    for (text, gamma) in gammas("distill_gammas")? {
        put(
            format!("distill_gamma{text}"),
            Weighting::Snr { k: 1.0, gamma },
        );
    }
    let cap = case.number("min_snr_gamma")?;
    put("min_snr_eps".into(), Weighting::MinSnrEps { cap });
    put("min_snr_clamp".into(), Weighting::MinSnr { cap });
    out.insert("snr".into(), Array::vector(schedule.snr().to_vec()));
    Ok(out)
}

pub(super) fn respacing(case: &Case) -> Result<Outputs> {
    let n = case.count("num_timesteps")?;
    let specs = case
        .get("section_counts")?
        .as_array()
        .ok_or_else(|| anyhow!("section_counts is no list"))?;
    let mut out = Outputs::new();
    for spec in specs {
        let spec = spec
            .as_str()
            .ok_or_else(|| anyhow!("section_counts holds {spec}, which is no text"))?;
        let kept = spec.parse::<Respacing>()?.indices(n)?;
        out.insert(format!("idx.{spec}"), Array::indices(&kept));
    }
    Ok(out)
}
