//! The cases that are measured.

use crate::configs::{digits, dit, light, stable_diffusion};
use sdft_adapters::AdapterKind;
use sdft_autoencoder::AutoencoderConfig;
use sdft_models::Architecture;
use serde::{Deserialize, Serialize};

/// The work of one case, in the format that both sides read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Work {
    Conv {
        batch: usize,
        c_in: usize,
        c_out: usize,
        side: usize,
        k: usize,
        stride: usize,
        /// Top, left, bottom, right.
        pad: [usize; 4],
        /// After nearest-neighbour upsampling by two.
        upsample: bool,
    },
    /// Group norm and SiLU.
    Norm {
        batch: usize,
        c_in: usize,
        side: usize,
    },
    /// `c_in` is the number of channels of queries, keys and values together.
    Attention {
        batch: usize,
        c_in: usize,
        side: usize,
        heads: usize,
    },
    Residual {
        batch: usize,
        c_in: usize,
        c_out: usize,
        side: usize,
        emb: usize,
    },
    #[serde(rename = "attention block")]
    AttentionBlock {
        batch: usize,
        c_in: usize,
        side: usize,
        heads: usize,
    },
    /// Stable Diffusion's autoencoder.
    Vae {
        part: VaePart,
        /// Of the image.
        side: usize,
        config: Box<AutoencoderConfig>,
    },
    /// AdamW and the moving average.
    Optimizer { elements: usize },
    Network {
        label: String,
        batch: usize,
        config: Box<Architecture>,
        /// `p2` or `constant`.
        weighting: String,
    },
}

/// A half of an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VaePart {
    Encode,
    Decode,
}

/// The part of the work that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pass {
    #[serde(rename = "forward")]
    Forward,
    #[serde(rename = "input gradient")]
    InputGradient,
    #[serde(rename = "weight gradient")]
    WeightGradient,
    /// All gradients.
    #[serde(rename = "backward")]
    Backward,
    /// Forward pass and all gradients.
    #[serde(rename = "both")]
    Both,
    /// One step of naive fine-tuning.
    #[serde(rename = "step")]
    Step,
    /// One step of naive fine-tuning with recomputed activations of blocks.
    #[serde(rename = "recomputed step")]
    Recomputed,
    /// One step of SDFT.
    #[serde(rename = "sdft step")]
    Sdft,
    /// One step of naive fine-tuning of a LoRA.
    #[serde(rename = "lora step")]
    Lora,
    /// The same with DiffFit.
    #[serde(rename = "difffit step")]
    Difffit,
    /// The same with a time-aware adapter.
    #[serde(rename = "time-aware step")]
    TimeAware,
    /// Ten steps of deterministic DDIM, from noise to images.
    #[serde(rename = "sampling")]
    Sampling,
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::InputGradient => "input gradient",
            Self::WeightGradient => "weight gradient",
            Self::Backward => "backward",
            Self::Both => "forward+backward",
            Self::Step => "step",
            Self::Recomputed => "recomputed step",
            Self::Sdft => "sdft step",
            Self::Lora => "lora step",
            Self::Difffit => "difffit step",
            Self::TimeAware => "time-aware step",
            Self::Sampling => "ddim10",
        }
    }

    /// What a step trains.
    pub(crate) fn adapter(self) -> AdapterKind {
        match self {
            Self::Lora => AdapterKind::Lora,
            Self::Difffit => AdapterKind::Difffit,
            Self::TimeAware => AdapterKind::TimeAware,
            _ => AdapterKind::Full,
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    #[serde(flatten)]
    pub(crate) work: Work,
    pub(crate) pass: Pass,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let what = match &self.work {
            Work::Conv {
                batch,
                c_in,
                c_out,
                side,
                k,
                stride,
                pad,
                upsample,
            } => {
                let up = if *upsample { "up+" } else { "" };
                let stride = if *stride == 1 {
                    String::new()
                } else {
                    format!("/{stride}")
                };
                let pad = if *pad == [k / 2; 4] {
                    String::new()
                } else {
                    format!(" pad {}", pad.map(|side| side.to_string()).join(","))
                };
                format!("{up}conv{k}{stride}{pad} {batch}x{c_in}->{c_out}@{side}")
            }
            Work::Norm { batch, c_in, side } => format!("norm+silu {batch}x{c_in}@{side}"),
            Work::Attention {
                batch,
                c_in,
                side,
                heads,
            } => {
                format!("attention {batch}x{}@{side} heads {heads}", c_in / 3)
            }
            Work::Residual {
                batch,
                c_in,
                c_out,
                side,
                ..
            } => {
                format!("residual block {batch}x{c_in}->{c_out}@{side}")
            }
            Work::AttentionBlock {
                batch, c_in, side, ..
            } => format!("attention block {batch}x{c_in}@{side}"),
            Work::Vae { part, side, .. } => match part {
                VaePart::Encode => format!("vae-encode-{side}"),
                VaePart::Decode => format!("vae-decode-{side}"),
            },
            Work::Optimizer { elements } => {
                format!("adamw+ema {:.1}M", *elements as f64 / 1e6)
            }
            Work::Network {
                label,
                batch,
                config,
                ..
            } => format!("{label}@{} batch {batch}", config.image_size()),
        };
        match self.pass {
            _ if matches!(self.work, Work::Optimizer { .. } | Work::Vae { .. }) => what,
            pass => format!("{what} {}", pass.name()),
        }
    }

    /// Number of operations in convolutions and matrix products (a multiplication and an addition are two), if these dominate.
    pub(crate) fn flops(&self) -> Option<f64> {
        let passes = match self.pass {
            Pass::Forward | Pass::InputGradient | Pass::WeightGradient => 1.0,
            Pass::Backward => 2.0,
            Pass::Both | Pass::Step => 3.0,
            Pass::Sampling => 10.0,
            Pass::Recomputed | Pass::Sdft | Pass::Lora | Pass::Difffit | Pass::TimeAware => {
                return None;
            }
        };
        let conv = |batch: usize, c_in: usize, c_out: usize, side: usize, k: usize| {
            2.0 * (batch * c_in * c_out * side * side * k * k) as f64
        };
        let attention = |batch: usize, channels: usize, side: usize| {
            4.0 * (batch * channels * side * side) as f64 * (side * side) as f64
        };
        let forward = match &self.work {
            Work::Conv {
                batch,
                c_in,
                c_out,
                side,
                k,
                stride,
                upsample,
                ..
            } => {
                let side = if *upsample { 2 * side } else { *side };
                conv(*batch, *c_in, *c_out, side / stride, *k)
            }
            Work::Attention {
                batch, c_in, side, ..
            } => attention(*batch, c_in / 3, *side),
            Work::Residual {
                batch,
                c_in,
                c_out,
                side,
                ..
            } => {
                let skip = if c_in == c_out { 0 } else { 1 };
                conv(*batch, *c_in, *c_out, *side, 3)
                    + conv(*batch, *c_out, *c_out, *side, 3)
                    + conv(*batch, *c_in, *c_out * skip, *side, 1)
            }
            Work::AttentionBlock {
                batch, c_in, side, ..
            } => conv(*batch, *c_in, 4 * c_in, *side, 1) + attention(*batch, *c_in, *side),
            Work::Network { batch, config, .. } => {
                config.cost(config.sides()).forward_flops * *batch as f64
            }
            Work::Norm { .. } | Work::Vae { .. } | Work::Optimizer { .. } => return None,
        };
        Some(passes * forward)
    }

    /// Approximate memory use in bytes.
    pub(crate) fn bytes(&self) -> f64 {
        if matches!(self.work, Work::Vae { .. }) {
            return 2e9;
        }
        let Work::Network { batch, config, .. } = &self.work else {
            return 1e9;
        };
        let cost = config.cost(config.sides());
        let kept = match self.pass {
            Pass::Forward | Pass::Sampling => 0.3,
            Pass::Sdft => 1.5,
            _ => 1.0,
        };
        24.0 * cost.parameters as f64 + kept * *batch as f64 * cost.activation_bytes + 5e8
    }

    /// The naive step of the same work, with which a recomputed or SDFT step and that of an adapter are compared.
    pub(crate) fn naive(&self) -> Option<Self> {
        let is_other = matches!(self.pass, Pass::Recomputed | Pass::Sdft);
        (is_other || self.pass.adapter() != AdapterKind::Full).then(|| Self {
            pass: Pass::Step,
            ..self.clone()
        })
    }
}

/// All cases, small operations first.
pub(crate) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |work: Work, passes: &[Pass]| {
        all.extend(passes.iter().map(|&pass| Case {
            work: work.clone(),
            pass,
        }));
    };
    use Pass::{
        Backward, Both, Difffit, Forward, InputGradient, Lora, Recomputed, Sdft, Step, TimeAware,
        WeightGradient,
    };
    let conv = |[batch, c_in, c_out, side]: [usize; 4], (k, stride, pad), upsample| Work::Conv {
        batch,
        c_in,
        c_out,
        side,
        k,
        stride,
        pad,
        upsample,
    };
    for (batch, c_in, c_out, side, k, stride) in [
        (64, 32, 32, 16, 3, 1),
        (64, 64, 64, 4, 3, 1),
        (4, 128, 128, 64, 3, 1),
        (1, 128, 128, 256, 3, 1),
        (4, 384, 128, 64, 3, 1),
        (4, 256, 256, 32, 3, 1),
        (4, 512, 512, 16, 3, 1),
        (4, 1024, 512, 16, 3, 1),
        (4, 512, 512, 8, 3, 1),
        (4, 512, 512, 4, 3, 1),
        (4, 512, 512, 2, 3, 1),
        (1, 512, 512, 4, 3, 1),
        (4, 3, 128, 64, 3, 1),
        (4, 128, 6, 64, 3, 1),
        (4, 256, 128, 64, 1, 1),
        (4, 1024, 512, 16, 1, 1),
        (4, 128, 128, 64, 3, 2),
        (4, 256, 256, 32, 3, 2),
        (4, 512, 512, 16, 3, 2),
    ] {
        let work = conv([batch, c_in, c_out, side], (k, stride, [k / 2; 4]), false);
        add(work, &[Forward, InputGradient, WeightGradient]);
    }
    for (batch, channels, side) in [(4, 128, 64), (1, 128, 256), (4, 512, 16)] {
        let work = conv(
            [batch, channels, channels, side],
            (3, 2, [0, 0, 1, 1]),
            false,
        );
        add(work, &[Forward, InputGradient, WeightGradient]);
    }
    for (batch, channels, side) in [(4, 128, 32), (4, 256, 16), (4, 512, 8)] {
        let work = conv([batch, channels, channels, side], (3, 1, [1; 4]), true);
        add(work, &[Forward, InputGradient, WeightGradient]);
    }
    for (batch, c_in, side) in [(4, 128, 64), (4, 512, 16)] {
        add(Work::Norm { batch, c_in, side }, &[Forward, Backward]);
    }
    add(
        Work::Attention {
            batch: 4,
            c_in: 3 * 512,
            side: 16,
            heads: 8,
        },
        &[Forward, Backward],
    );
    add(
        Work::Optimizer {
            elements: 20_000_000,
        },
        &[Step],
    );
    for (c_in, c_out, side) in [(128, 128, 64), (1024, 512, 16)] {
        add(
            Work::Residual {
                batch: 4,
                c_in,
                c_out,
                side,
                emb: 512,
            },
            &[Forward, Both],
        );
    }
    add(
        Work::AttentionBlock {
            batch: 4,
            c_in: 512,
            side: 16,
            heads: 8,
        },
        &[Forward, Both],
    );
    for (part, side) in [
        (VaePart::Encode, 256),
        (VaePart::Decode, 256),
        (VaePart::Decode, 512),
    ] {
        let config = Box::new(stable_diffusion());
        add(Work::Vae { part, side, config }, &[Forward]);
    }
    for batch in [8, 64] {
        add(
            Work::Network {
                label: "digits".into(),
                batch,
                config: Box::new(digits().into()),
                weighting: "constant".into(),
            },
            &[Forward, Step, Sdft],
        );
    }
    for (side, batch) in [(64, 1), (64, 4), (256, 1), (256, 4)] {
        let work = Work::Network {
            label: "light".into(),
            batch,
            config: Box::new(light(side).into()),
            weighting: "p2".into(),
        };
        add(work.clone(), &[Forward, Step, Recomputed, Sdft]);
        if (side, batch) == (64, 4) {
            add(work, &[Lora, Difffit, TimeAware]);
        }
    }
    let dit = Work::Network {
        label: "dit-s/2".into(),
        batch: 4,
        config: Box::new(dit().into()),
        weighting: "constant".into(),
    };
    add(dit, &[Forward, Step, Recomputed, Sdft, Lora, Difffit]);
    all
}

/// The cases for a GPU: the light 256x256 network at the batch size of the paper and at a large one, and a small one, which launches limit.
pub(crate) fn gpu_cases() -> Vec<Case> {
    let network = |side, batch| Work::Network {
        label: "light".into(),
        batch,
        config: Box::new(light(side).into()),
        weighting: "p2".into(),
    };
    let mut all = Vec::new();
    for (side, batch) in [(256, 8), (256, 32), (64, 4)] {
        for pass in [Pass::Step, Pass::Sampling, Pass::Sdft] {
            let work = network(side, batch);
            all.push(Case { work, pass });
        }
    }
    let (work, pass) = (network(256, 8), Pass::Recomputed);
    all.push(Case { work, pass });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_jobs_survive_their_text() {
        let cases = cases();
        let names: std::collections::BTreeSet<String> = cases.iter().map(Case::name).collect();
        assert_eq!(names.len(), cases.len());
        for case in cases {
            let text = serde_json::to_string(&case).unwrap();
            let back: Case = serde_json::from_str(&text).unwrap();
            assert_eq!(back.name(), case.name(), "{text}");
        }
    }

    #[test]
    fn operations_of_a_network_are_about_those_of_its_parts() {
        let of = |name: &str| {
            let case = cases()
                .into_iter()
                .find(|case| case.name() == name)
                .unwrap();
            case.flops().unwrap()
        };
        // 2 * 4 * 128 * 128 * 64 * 64 * 9
        assert_eq!(of("conv3 4x128->128@64 forward"), 4_831_838_208.0);
        let forward = of("light@64 batch 4 forward");
        assert!((96e9..105e9).contains(&forward), "{forward:e}");
        assert_eq!(of("light@64 batch 4 step"), 3.0 * forward);
        // 12 blocks of 12 products of 384x384 at 256 tokens of 4 images, and attention.
        let forward = of("dit-s/2@32 batch 4 forward");
        assert!((48e9..50e9).contains(&forward), "{forward:e}");
    }
}
