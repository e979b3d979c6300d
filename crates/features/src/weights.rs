//! Public files onto the networks' own names, strictly.

use crate::{Clip, ClipConfig, IdentityNet, Inception, Lpips, LpipsNet};
use candle_core::Tensor;
use sdft_checkpoint::{ReadOptions, read};
use sdft_nn::{ParamSpec, Params};
use std::collections::HashMap;
use std::path::PathBuf;

/// A network that measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// FID's Inception-V3.
    Inception,
    /// LPIPS.
    Lpips(LpipsNet),
    /// CLIP with patches of this side: 16 or 32.
    Clip(usize),
    /// ArcFace IR-SE50.
    Identity,
}

/// How a file's name becomes a network's.
enum Rule {
    /// A beginning replaced by another.
    Rename(&'static str, &'static str),
    /// Names of this beginning are of no use here.
    DropPrefix(&'static str),
    /// Names of this end are of no use here.
    DropSuffix(&'static str),
}
use Rule::{DropPrefix, DropSuffix, Rename};

/// Batch norm counts its batches; no computation uses the count.
const COUNTER: Rule = DropSuffix("num_batches_tracked");

/// pytorch-fid's file, or its copy without the classifier.
const INCEPTION: &[Rule] = &[COUNTER, Rename("model.", ""), DropPrefix("fc.")];
/// The module's own state dict, or torchvision's trunk together with the package's heads.
const LPIPS: &[Rule] = &[
    Rename("model.", ""),
    DropPrefix("lins."),
    DropPrefix("scaling_layer."),
    DropPrefix("classifier."),
    DropPrefix("pre_logits."),
    DropPrefix("head."),
];
/// The Hub's `openai/clip-vit-base-*`.
const CLIP: &[Rule] = &[DropSuffix("position_ids"), DropPrefix("logit_scale")];
/// `model_ir_se50`, bare or wrapped.
const IDENTITY: &[Rule] = &[
    COUNTER,
    Rename("facenet.", ""),
    Rename("module.", ""),
    Rename("model.", ""),
];

impl Network {
    /// All networks and their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("inception", Self::Inception),
        ("lpips-alex", Self::Lpips(LpipsNet::Alex)),
        ("lpips-vgg", Self::Lpips(LpipsNet::Vgg)),
        ("clip-b16", Self::Clip(16)),
        ("clip-b32", Self::Clip(32)),
        ("irse50", Self::Identity),
    ];

    /// The network's name, which is also that of its weights.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, network)| *network == self);
        found.map_or("clip", |(name, _)| *name)
    }

    /// Names, shapes and starts of its parameters.
    ///
    /// # Errors
    /// Never in practice.
    pub fn specs(self) -> candle_core::Result<Vec<ParamSpec>> {
        match self {
            Self::Inception => Inception::specs(),
            Self::Lpips(net) => Lpips::specs(net),
            Self::Clip(patch) => Clip::specs(ClipConfig::vit_b(patch)),
            Self::Identity => IdentityNet::specs(),
        }
    }

    fn rules(self) -> &'static [Rule] {
        match self {
            Self::Inception => INCEPTION,
            Self::Lpips(_) => LPIPS,
            Self::Clip(_) => CLIP,
            Self::Identity => IDENTITY,
        }
    }

    /// The network's name for a tensor of a file, or `None` for one that it does without.
    fn rename(self, name: &str) -> Option<String> {
        let mut name = name.to_owned();
        for rule in self.rules() {
            match rule {
                Rename(from, to) => {
                    if let Some(rest) = name.strip_prefix(from) {
                        name = format!("{to}{rest}");
                    }
                }
                DropPrefix(prefix) if name.starts_with(prefix) => return None,
                DropSuffix(suffix) if name.ends_with(suffix) => return None,
                DropPrefix(_) | DropSuffix(_) => {}
            }
        }
        if let Self::Lpips(net) = self
            && let Some((index, leaf)) = name
                .strip_prefix("features.")
                .and_then(|rest| rest.split_once('.'))
            && let Some(slice) = index.parse().ok().and_then(|index| net.slice_of(index))
        {
            return Some(format!("net.slice{}.{index}.{leaf}", slice + 1));
        }
        Some(name)
    }

    /// Parameters from the tensors of one or more files.
    ///
    /// # Errors
    /// What is missing, left over or of another shape, and the likely cause where there is one.
    pub fn fit(
        self,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Params, String> {
        let mut named = HashMap::new();
        let mut classes = None;
        for (name, tensor) in tensors {
            if name.ends_with("fc.weight") {
                classes = tensor.dims().first().copied();
            }
            if let Some(name) = self.rename(&name)
                && named.insert(name.clone(), tensor).is_some()
            {
                return Err(format!("{name} is there twice"));
            }
        }
        if self == Self::Inception && classes.is_some_and(|n| n != 1008) {
            return Err(
                "this Inception was trained on ImageNet's 1000 classes, expected FID's own weights of 2015 with 1008".into(),
            );
        }
        let specs = self.specs().map_err(|e| e.to_string())?;
        Params::fit(&specs, named).map_err(|mismatch| {
            let heads = matches!(self, Self::Lpips(_))
                && mismatch.missing.iter().all(|name| name.starts_with("lin"));
            let cause = if heads && !mismatch.missing.is_empty() {
                "a trunk alone: give the file with LPIPS's heads (lin0 .. lin4) as well\n"
            } else {
                ""
            };
            format!("the tensors do not fit {}: {cause}{mismatch}", self.name())
        })
    }

    /// Reads weights from files, which are taken together.
    ///
    /// # Errors
    /// A file that cannot be read; as [`Self::fit`].
    pub fn read(self, files: &[PathBuf]) -> Result<Params, String> {
        let mut all = Vec::new();
        for file in files {
            let state = read(file, &ReadOptions::default()).map_err(|e| e.to_string())?;
            all.extend(state.into_map());
        }
        let shown: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        self.fit(all)
            .map_err(|problem| format!("{}: {problem}", shown.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn zeros(shape: &[usize]) -> Tensor {
        let zero = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
        zero.broadcast_as(shape).unwrap()
    }

    fn tensors(network: Network) -> Vec<(String, Tensor)> {
        let specs = network.specs().unwrap();
        specs
            .into_iter()
            .map(|spec| (spec.name, zeros(&spec.shape)))
            .collect()
    }

    #[test]
    fn every_network_takes_its_own_names_and_the_extras_of_public_files() {
        for (name, network) in Network::ALL {
            assert_eq!(network.name(), name);
            let mut all = tensors(network);
            let n = all.len();
            match network {
                Network::Inception => {
                    all.push(("fc.weight".into(), zeros(&[1008, 2048])));
                    all.push(("Conv2d_1a_3x3.bn.num_batches_tracked".into(), zeros(&[])));
                }
                Network::Lpips(_) => {
                    all.push(("scaling_layer.shift".into(), zeros(&[1, 3, 1, 1])));
                    all.push(("lins.0.model.1.weight".into(), zeros(&[1, 64, 1, 1])));
                }
                Network::Clip(_) => {
                    all.push(("logit_scale".into(), zeros(&[])));
                    all.push(("text_model.embeddings.position_ids".into(), zeros(&[1, 77])));
                }
                Network::Identity => {
                    for (name, _) in &mut all {
                        *name = format!("facenet.{name}");
                    }
                }
            }
            assert_eq!(network.fit(all).unwrap().len(), n, "{name}");
        }
    }

    #[test]
    fn torchvisions_trunk_and_the_packages_heads_go_together() {
        for net in [LpipsNet::Alex, LpipsNet::Vgg] {
            let network = Network::Lpips(net);
            let (heads, trunk): (Vec<_>, Vec<_>) = tensors(network)
                .into_iter()
                .partition(|(name, _)| name.starts_with("lin"));
            let mut trunk: Vec<_> = trunk
                .into_iter()
                .map(|(name, tensor)| {
                    let (_, rest) = name["net.slice".len()..].split_once('.').unwrap();
                    (format!("features.{rest}"), tensor)
                })
                .collect();
            trunk.push(("classifier.6.weight".into(), zeros(&[1000, 4096])));
            let error = network.fit(trunk.clone()).unwrap_err();
            assert!(error.contains("a trunk alone"), "{error}");
            trunk.extend(heads);
            network.fit(trunk).unwrap();
        }
    }

    #[test]
    fn foreign_weights_are_refused_with_their_likely_cause() {
        let mut all = tensors(Network::Inception);
        all.push(("fc.weight".into(), zeros(&[1000, 2048])));
        let error = Network::Inception.fit(all).unwrap_err();
        assert!(error.contains("1000") && error.contains("1008"), "{error}");
        let error = Network::Identity
            .fit(tensors(Network::Lpips(LpipsNet::Alex)))
            .unwrap_err();
        assert!(
            error.contains("irse50") && error.contains("missing"),
            "{error}"
        );
    }
}
