//! Strict reading of the public weight files.

use crate::{
    Clip, ClipConfig, Dinov2, Dinov2Config, Error, IdentityNet, Inception, Lpips, LpipsNet,
};
use candle_core::Tensor;
use sdft_checkpoint::{ReadOptions, read};
use sdft_nn::{ParamSpec, Params};
use std::collections::HashMap;
use std::path::PathBuf;

/// A network that measures images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// FID's Inception-V3.
    Inception,
    /// DINOv2 of any size; the published measures use ViT-L/14.
    Dinov2,
    /// LPIPS.
    Lpips(LpipsNet),
    /// CLIP with patches of this side: 16 or 32.
    Clip(usize),
    /// ArcFace IR-SE50.
    Identity,
}

/// From the tensor names of a file to those of a network.
enum Rule {
    /// Replaces a prefix.
    Rename(&'static str, &'static str),
    /// Ignores names with this prefix.
    DropPrefix(&'static str),
    /// Ignores names with this suffix.
    DropSuffix(&'static str),
}
use Rule::{DropPrefix, DropSuffix, Rename};

/// The batch counter of batch norm, which no computation uses.
const COUNTER: Rule = DropSuffix("num_batches_tracked");

/// pytorch-fid's file, or its copy without the classifier.
const INCEPTION: &[Rule] = &[COUNTER, Rename("model.", ""), DropPrefix("fc.")];
/// The Hub's `facebook/dinov2-*`, bare or below a classifier; see [`DINOV2_ATTENTION`] too.
const DINOV2: &[Rule] = &[Rename("dinov2.", ""), DropPrefix("classifier.")];
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

/// Names of an attention's layers in the Hub's files of DINOv2, and in transformers since 5.18.
const DINOV2_ATTENTION: [(&str, &str); 4] = [
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
];

impl Network {
    /// All networks and their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("inception", Self::Inception),
        ("dinov2", Self::Dinov2),
        ("lpips-alex", Self::Lpips(LpipsNet::Alex)),
        ("lpips-vgg", Self::Lpips(LpipsNet::Vgg)),
        ("clip-b16", Self::Clip(16)),
        ("clip-b32", Self::Clip(32)),
        ("irse50", Self::Identity),
    ];

    /// The name of the network, as in `--weights NAME=FILE`.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, network)| *network == self);
        found.map_or("clip", |(name, _)| *name)
    }

    /// The names, shapes and initial values of its parameters; of DINOv2 those of ViT-L/14.
    ///
    /// # Errors
    /// None in practice.
    pub fn specs(self) -> candle_core::Result<Vec<ParamSpec>> {
        match self {
            Self::Inception => Inception::specs(),
            Self::Dinov2 => Dinov2::specs(&Dinov2Config::large()),
            Self::Lpips(net) => Lpips::specs(net),
            Self::Clip(patch) => Clip::specs(ClipConfig::vit_b(patch)),
            Self::Identity => IdentityNet::specs(),
        }
    }

    fn rules(self) -> &'static [Rule] {
        match self {
            Self::Inception => INCEPTION,
            Self::Dinov2 => DINOV2,
            Self::Lpips(_) => LPIPS,
            Self::Clip(_) => CLIP,
            Self::Identity => IDENTITY,
        }
    }

    /// The network's name for a tensor of a file, or `None` for one that is ignored.
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
        if self == Self::Dinov2 {
            for (hub, ours) in DINOV2_ATTENTION {
                name = name.replace(hub, ours);
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
    /// Tensors that are missing, unexpected or of another shape, with the likely cause where there is one.
    pub fn fit(self, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Params, Error> {
        self.fit_of(tensors, &[])
    }

    fn fit_of(
        self,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        files: &[PathBuf],
    ) -> Result<Params, Error> {
        let misfit = |problem| Error::Weights {
            files: files.to_vec(),
            problem,
        };
        let mut named = HashMap::new();
        let mut classes = None;
        for (name, tensor) in tensors {
            if name.ends_with("fc.weight") {
                classes = tensor.dims().first().copied();
            }
            if let Some(name) = self.rename(&name)
                && named.insert(name.clone(), tensor).is_some()
            {
                return Err(misfit(format!("expected {name} once, found it twice")));
            }
        }
        if self == Self::Inception && classes.is_some_and(|n| n != 1008) {
            return Err(misfit(
                "this Inception was trained on ImageNet's 1000 classes, expected FID's own weights of 2015 with 1008".into(),
            ));
        }
        let specs = match self {
            Self::Dinov2 => {
                let shape = |name: &str| named.get(name).map(Tensor::dims);
                let config = Dinov2Config::of_shapes(shape).map_err(|e| misfit(e.to_string()))?;
                Dinov2::specs(&config)?
            }
            _ => self.specs()?,
        };
        Params::fit(&specs, named).map_err(|mismatch| {
            let heads = matches!(self, Self::Lpips(_))
                && mismatch.missing.iter().all(|name| name.starts_with("lin"));
            let cause = if heads && !mismatch.missing.is_empty() {
                "a trunk alone: give the file with LPIPS's heads (lin0 .. lin4) as well\n"
            } else {
                ""
            };
            misfit(format!(
                "the tensors do not fit {}: {cause}{mismatch}",
                self.name()
            ))
        })
    }

    /// Reads weights from one or more files together.
    ///
    /// # Errors
    /// A file that cannot be read, and those of [`Self::fit`].
    pub fn read(self, files: &[PathBuf]) -> Result<Params, Error> {
        let mut all = Vec::new();
        for file in files {
            all.extend(read(file, &ReadOptions::default())?.into_map());
        }
        self.fit_of(all, files)
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
                Network::Dinov2 => {
                    for (name, _) in &mut all {
                        for (hub, ours) in DINOV2_ATTENTION {
                            *name = name.replace(ours, hub);
                        }
                        *name = format!("dinov2.{name}");
                    }
                    all.push(("classifier.weight".into(), zeros(&[1000, 2048])));
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
            let error = network.fit(trunk.clone()).unwrap_err().to_string();
            assert!(error.contains("a trunk alone"), "{error}");
            trunk.extend(heads);
            network.fit(trunk).unwrap();
        }
    }

    #[test]
    fn foreign_weights_are_refused_with_their_likely_cause() {
        let mut all = tensors(Network::Inception);
        all.push(("fc.weight".into(), zeros(&[1000, 2048])));
        let error = Network::Inception.fit(all).unwrap_err().to_string();
        assert!(error.contains("1000") && error.contains("1008"), "{error}");
        let error = Network::Identity
            .fit(tensors(Network::Lpips(LpipsNet::Alex)))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("irse50") && error.contains("missing"),
            "{error}"
        );
    }
}
