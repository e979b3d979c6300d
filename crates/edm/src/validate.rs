//! Checks of a configuration before anything is allocated.

use crate::plan::Plan;
use crate::{ConfigError, EdmConfig};
use sdft_diffusion::Precond;

/// The widest layer; public networks have up to 1024 channels.
const MOST_WIDTH: usize = 1 << 16;
/// The largest network; public ones have up to 3e8 parameters.
const MOST_PARAMETERS: usize = 20_000_000_000;
/// The longest filter; public ones have up to 4 taps.
const MOST_TAPS: usize = 16;

fn invalid<T>(field: &str, problem: String) -> Result<T, ConfigError> {
    Err(ConfigError::new(field, problem))
}

impl EdmConfig {
    /// Checks that the network can be built and run at its image size.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let plan = self.plan();
        for (field, value, low, high) in [
            ("img_resolution", plan.resolution, 1, 4096),
            ("img_channels", plan.channels, 1, MOST_WIDTH),
            ("label_dim", plan.label_dim, 0, 1 << 20),
            ("augment_dim", plan.augment_dim, 0, MOST_WIDTH),
            (
                "time_adapter_rank",
                plan.time_adapter_rank.unwrap_or(0),
                0,
                MOST_WIDTH,
            ),
            ("model_channels", plan.model_channels, 4, MOST_WIDTH),
            ("channel_mult_emb", plan.channel_mult_emb, 1, 64),
            ("channel_mult_noise", plan.channel_mult_noise, 1, 64),
            ("num_blocks", plan.num_blocks, 1, 256),
        ] {
            if !(low..=high).contains(&value) {
                return invalid(field, format!("expected {low} to {high}, found {value}"));
            }
        }
        if !(1..=12).contains(&plan.levels()) {
            return invalid(
                "channel_mult",
                format!("expected 1 to 12 levels, found {}", plan.levels()),
            );
        }
        for (field, value) in [
            ("dropout", plan.dropout),
            ("label_dropout", plan.label_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                return invalid(
                    field,
                    format!("expected 0 or more and less than 1, found {value}"),
                );
            }
        }
        // An odd number of sinusoids has no halves to swap; one pair has no last frequency.
        if !plan.noise().is_multiple_of(2) {
            return invalid(
                "model_channels",
                format!("expected an even number, found {}", plan.model_channels),
            );
        }
        self.check_filter(&plan)?;
        self.check_widths(&plan)?;
        if !plan.fits(self.img_resolution) {
            return invalid(
                "img_resolution",
                format!(
                    "expected a multiple of {}, because channel_mult has {} levels and resample_filter {} taps; found {}",
                    plan.multiple(),
                    plan.levels(),
                    plan.filter.len(),
                    self.img_resolution
                ),
            );
        }
        check_precond(&self.precond)?;
        let parameters = self.cost([self.img_resolution; 2]).parameters;
        if parameters > MOST_PARAMETERS {
            return invalid(
                "model_channels",
                format!(
                    "the network would have {parameters} parameters, expected at most {MOST_PARAMETERS}"
                ),
            );
        }
        Ok(())
    }

    /// The sides that an image may have are `n * multiple + rest`, as `[multiple, rest]`. The rest is 0 for filters of an even number of taps,
    /// which are all public ones, and 1 for others.
    pub fn valid_sides(&self) -> [usize; 2] {
        let plan = self.plan();
        let multiple = 1 << plan.levels().saturating_sub(1);
        [multiple, plan.filter.len() % 2 % multiple]
    }

    fn check_filter(&self, plan: &Plan<'_>) -> Result<(), ConfigError> {
        let taps = plan.filter;
        let sum: f64 = taps.iter().sum();
        if !(1..=MOST_TAPS).contains(&taps.len()) || !sum.is_finite() || sum == 0.0 {
            return invalid(
                "resample_filter",
                format!(
                    "expected 1 to {MOST_TAPS} finite numbers whose sum is not 0, found {taps:?}"
                ),
            );
        }
        Ok(())
    }

    fn check_widths(&self, plan: &Plan<'_>) -> Result<(), ConfigError> {
        let mut widths: Vec<usize> = Vec::new();
        for (level, &mult) in plan.channel_mult.iter().enumerate() {
            if !(1..=MOST_WIDTH / plan.model_channels).contains(&mult) {
                return invalid(
                    "channel_mult",
                    format!(
                        "entry {mult} times model_channels {} is not a width from 1 to {MOST_WIDTH}",
                        plan.model_channels
                    ),
                );
            }
            widths.push(plan.width(level));
        }
        let (_, skips) = plan.encoder();
        let joined = plan.decoder(skips.clone());
        widths.extend(skips);
        widths.extend(joined.iter().filter_map(|part| match &part.kind {
            crate::plan::Kind::Block(spec) => Some(spec.c_in),
            _ => None,
        }));
        for width in widths {
            let groups = Plan::groups(width);
            if groups == 0 || !width.is_multiple_of(groups) {
                return invalid(
                    "model_channels",
                    format!("a layer of {width} channels does not split into {groups} norm groups"),
                );
            }
        }
        for level in 0..plan.levels() {
            let (width, heads) = (plan.width(level), plan.heads(plan.width(level)));
            let here = plan.attn_resolutions.contains(&(plan.resolution >> level));
            let middle = level + 1 == plan.levels();
            if (here || middle) && heads > 0 && !width.is_multiple_of(heads) {
                return invalid(
                    "attn_resolutions",
                    format!(
                        "{heads} heads do not divide the {width} channels of level {level}, which has attention"
                    ),
                );
            }
        }
        Ok(())
    }
}

fn check_precond(precond: &Precond) -> Result<(), ConfigError> {
    let positive = |field: &str, value: f64| {
        if value > 0.0 && value.is_finite() {
            Ok(())
        } else {
            invalid(field, format!("expected a positive number, found {value}"))
        }
    };
    match *precond {
        Precond::Edm { sigma_data, .. } | Precond::ConsistencyAdm { sigma_data, .. } => {
            positive("sigma_data", sigma_data)?;
        }
        Precond::Vp {
            beta_d,
            beta_min,
            m,
            epsilon_t,
        } => {
            positive("beta_d", beta_d)?;
            positive("beta_min", beta_min)?;
            positive("M", m)?;
            positive("epsilon_t", epsilon_t)?;
        }
        Precond::Ve { sigma_min, .. } => positive("sigma_min", sigma_min)?,
        Precond::Flow { .. } => {
            return invalid(
                "precond",
                "expected a preconditioning of NVlabs/edm, found a flow".to_owned(),
            );
        }
    }
    let (low, high) = (precond.sigma_min(), precond.sigma_max());
    if !(low >= 0.0 && high > low) {
        return invalid(
            "sigma_max",
            format!(
                "expected noise levels from sigma_min to a larger sigma_max, found {low} and {high}"
            ),
        );
    }
    Ok(())
}

impl Plan<'_> {
    /// The valid sides, for messages.
    pub(crate) fn multiple(&self) -> String {
        let multiple = 1usize << (self.levels() - 1);
        match self.filter.len() % 2 {
            1 if multiple > 1 => format!("{multiple}, plus 1"),
            _ => multiple.to_string(),
        }
    }

    /// Whether a side of `n` pixels is the same again after all changes of resolution, so that encoder and decoder fit.
    pub(crate) fn fits(&self, n: usize) -> bool {
        let (taps, pad) = (self.filter.len(), (self.filter.len() - 1) / 2);
        let mut side = n;
        for _ in 1..self.levels() {
            if side + 2 * pad < taps {
                return false;
            }
            let small = (side + 2 * pad - taps) / 2 + 1;
            if small == 0 || 2 * (small - 1) + taps - 2 * pad != side {
                return false;
            }
            side = small;
        }
        side > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DhariwalConfig, ModelConfig, SongUnetConfig};

    fn field(change: impl Fn(&mut SongUnetConfig)) -> String {
        let mut model = SongUnetConfig::default();
        change(&mut model);
        let config = EdmConfig {
            model: ModelConfig::SongUNet(model),
            ..EdmConfig::default()
        };
        config.validate().unwrap_err().field
    }

    #[test]
    fn sizes_have_bounds_before_anything_is_allocated() {
        EdmConfig::default().validate().unwrap();
        assert_eq!(field(|m| m.model_channels = usize::MAX), "model_channels");
        assert_eq!(field(|m| m.model_channels = 2), "model_channels");
        assert_eq!(field(|m| m.model_channels = 131), "model_channels");
        assert_eq!(
            field(|m| m.channel_mult = vec![1, usize::MAX]),
            "channel_mult"
        );
        assert_eq!(field(|m| m.channel_mult = vec![]), "channel_mult");
        assert_eq!(field(|m| m.num_blocks = usize::MAX), "num_blocks");
        assert_eq!(field(|m| m.dropout = f64::NAN), "dropout");
        assert_eq!(
            field(|m| m.resample_filter = vec![1.0, -1.0]),
            "resample_filter"
        );
        assert_eq!(field(|m| m.resample_filter = vec![]), "resample_filter");
        assert_eq!(field(|m| m.channel_mult = vec![1; 9]), "img_resolution");
        let precond = Precond::Edm {
            sigma_min: 0.0,
            sigma_max: None,
            sigma_data: 0.0,
        };
        let config = EdmConfig {
            precond,
            ..EdmConfig::default()
        };
        assert_eq!(config.validate().unwrap_err().field, "sigma_data");
        let heads = DhariwalConfig {
            model_channels: 200,
            ..DhariwalConfig::default()
        };
        let config = EdmConfig {
            model: ModelConfig::DhariwalUNet(heads),
            ..EdmConfig::default()
        };
        assert!(config.validate().is_err());
    }

    #[test]
    fn filters_of_odd_length_fit_odd_sides() {
        let model = SongUnetConfig {
            resample_filter: vec![1.0, 2.0, 1.0],
            channel_mult: vec![1, 1, 1],
            ..SongUnetConfig::default()
        };
        let config = |img_resolution| EdmConfig {
            img_resolution,
            model: ModelConfig::SongUNet(model.clone()),
            ..EdmConfig::default()
        };
        config(65).validate().unwrap();
        assert_eq!(config(64).validate().unwrap_err().field, "img_resolution");
    }
}
