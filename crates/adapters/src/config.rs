//! The section `adapter` of a plan.

use crate::error::{Error, Result};
use crate::layers::default_targets;
use sdft_nn::ParamSpec;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterKind {
    /// Every parameter.
    #[default]
    Full,
    /// Low-rank changes of layers.
    Lora,
    /// Biases, norms, the class embedding, and scales of branches.
    Difffit,
    /// Attention blocks, and an adapter in each that the time embedding scales and shifts.
    TimeAware,
    /// Parameters by name.
    Names,
}

impl AdapterKind {
    /// The name in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lora => "lora",
            Self::Difffit => "difffit",
            Self::TimeAware => "time-aware",
            Self::Names => "names",
        }
    }
}

/// peft's default.
const RANK: usize = 8;
/// The largest rank.
const MOST: usize = 65_536;

/// What is trained, and how.
///
/// A pattern is a whole name or its end after a dot, and `*` stands for any text: `qkv`, `to_out.0`, `*.attentions.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// What is trained.
    pub kind: AdapterKind,
    /// LoRA: the rank of a change; 8 if not given. Time-aware: the width of an adapter; an eighth of its block's channels if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// LoRA: a change is multiplied by alpha / rank; the rank if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// LoRA: the factor is alpha / sqrt(rank) instead, so that the size of a change does not fall with its rank.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rank_stabilised: bool,
    /// LoRA: patterns of the layers that are changed; if empty, the projections of attention.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Names: patterns of the parameters that are trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl AdapterConfig {
    /// Whether every parameter is trained, so that there is no adapter.
    pub fn is_full(&self) -> bool {
        self.kind == AdapterKind::Full
    }

    /// Whether a plan leaves the section out.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// LoRA: the rank.
    pub fn rank(&self) -> usize {
        self.rank.unwrap_or(RANK)
    }

    /// Time-aware: the rank of the adapters as a network's configuration has it, 0 for an eighth of the channels. `None` for other kinds.
    pub fn time_adapter_rank(&self) -> Option<usize> {
        (self.kind == AdapterKind::TimeAware).then(|| self.rank.unwrap_or(0))
    }

    /// LoRA: the factor of `B A`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank() as f64;
        let alpha = self.alpha.unwrap_or(rank);
        match self.rank_stabilised {
            true => alpha / rank.sqrt(),
            false => alpha / rank,
        }
    }

    /// The same settings with the defaults that a network of these parameters gives them.
    #[must_use]
    pub fn resolved(mut self, specs: &[ParamSpec]) -> Self {
        if self.kind == AdapterKind::Lora {
            let rank = self.rank();
            self.rank = Some(rank);
            self.alpha = self.alpha.or(Some(rank as f64));
            if self.targets.is_empty() {
                self.targets = default_targets(specs);
            }
        }
        self
    }

    /// Fails unless the settings are in their ranges and belong to the kind.
    ///
    /// # Errors
    /// [`Error::Config`] with the first such key.
    pub fn check(&self) -> Result<()> {
        use AdapterKind::{Lora, Names, TimeAware};
        let kind = self.kind;
        let given: [(_, _, &[AdapterKind]); 5] = [
            ("rank", self.rank.is_some(), &[Lora, TimeAware]),
            ("alpha", self.alpha.is_some(), &[Lora]),
            ("rank_stabilised", self.rank_stabilised, &[Lora]),
            ("targets", !self.targets.is_empty(), &[Lora]),
            ("names", !self.names.is_empty(), &[Names]),
        ];
        for (key, is_given, of) in given {
            if is_given && !of.contains(&kind) {
                let of: Vec<String> = of.iter().map(|kind| format!("{:?}", kind.name())).collect();
                let problem = format!(
                    "belongs to adapter.kind = {}, found {:?}",
                    of.join(" or "),
                    kind.name()
                );
                return Err(Error::config(key, problem));
            }
        }
        if kind == Names && self.names.is_empty() {
            let problem = "expected patterns of the parameters to train, as in [\"*.qkv.*\"]";
            return Err(Error::config("names", problem));
        }
        if !(1..=MOST).contains(&self.rank()) {
            let problem = format!("expected 1 to {MOST}, found {}", self.rank());
            return Err(Error::config("rank", problem));
        }
        match self.alpha {
            Some(alpha) if !(alpha > 0.0 && alpha.is_finite()) => Err(Error::config(
                "alpha",
                format!("expected a number above 0, found {alpha}"),
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for AdapterConfig {
    /// `full`, `LoRA of rank 8`, `DiffFit`, `time-aware adapter` or `names qkv, bias`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            AdapterKind::Full => f.write_str("full"),
            AdapterKind::Lora => write!(f, "LoRA of rank {}", self.rank()),
            AdapterKind::Difffit => f.write_str("DiffFit"),
            AdapterKind::TimeAware => match self.rank {
                None => f.write_str("time-aware adapter"),
                Some(rank) => write!(f, "time-aware adapter of rank {rank}"),
            },
            AdapterKind::Names => write!(f, "names {}", self.names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_another_kind_and_outside_their_ranges_are_refused_by_key() {
        let of = |kind| AdapterConfig {
            kind,
            ..AdapterConfig::default()
        };
        let key = |config: AdapterConfig| match config.check().unwrap_err() {
            Error::Config { key, .. } => key,
            other => panic!("{other}"),
        };
        for kind in [
            AdapterKind::Full,
            AdapterKind::Lora,
            AdapterKind::Difffit,
            AdapterKind::TimeAware,
        ] {
            of(kind).check().unwrap();
        }
        let rank = |kind, rank| AdapterConfig {
            rank: Some(rank),
            ..of(kind)
        };
        assert_eq!(key(rank(AdapterKind::Full, 4)), "rank");
        assert_eq!(key(rank(AdapterKind::Lora, 0)), "rank");
        assert_eq!(key(rank(AdapterKind::TimeAware, 0)), "rank");
        rank(AdapterKind::TimeAware, 4).check().unwrap();
        let alpha = AdapterConfig {
            alpha: Some(4.0),
            ..of(AdapterKind::TimeAware)
        };
        assert_eq!(key(alpha), "alpha");
        assert_eq!(key(of(AdapterKind::Names)), "names");
        let names = AdapterConfig {
            names: vec!["bias".into()],
            ..of(AdapterKind::Lora)
        };
        assert_eq!(key(names), "names");
        let alpha = AdapterConfig {
            alpha: Some(f64::NAN),
            ..of(AdapterKind::Lora)
        };
        assert_eq!(key(alpha), "alpha");
    }

    #[test]
    fn the_factor_is_alpha_over_the_rank_or_over_its_root() {
        let mut config = AdapterConfig {
            kind: AdapterKind::Lora,
            rank: Some(16),
            ..AdapterConfig::default()
        };
        assert_eq!(config.scale(), 1.0);
        config.alpha = Some(8.0);
        assert_eq!(config.scale(), 0.5);
        config.rank_stabilised = true;
        assert_eq!(config.scale(), 2.0);
    }
}
