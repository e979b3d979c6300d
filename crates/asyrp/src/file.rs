//! Directions in files.

use crate::DeltaBlock;
use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_checkpoint::{ReadOptions, read, write_safetensors};
use sdft_diffusion::Bottleneck;
use sdft_nn::Params;
use sdft_schedule::MAX_STEPS;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The metadata of a file of a direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionInfo {
    /// The start of the direction, as a text or a class.
    pub from: String,
    /// Its end.
    pub to: String,
    /// The network that it was trained on: SHA-256 of its architecture and weights.
    pub network_sha256: String,
    /// Groups of its norms.
    pub norm_groups: usize,
    /// The last step of its trajectories.
    pub t_0: usize,
    /// Steps of the inversions that it was trained from.
    pub inversion: usize,
    /// Steps of the trajectories, from `t_0` to 0, for which strength 1 was trained.
    pub steps: usize,
    /// Features are changed at this step and above it.
    pub t_edit: usize,
    /// Below this step fresh noise is added.
    pub t_boost: usize,
}

impl DirectionInfo {
    /// The first field that is outside its range.
    fn odd(&self) -> Option<String> {
        let all = [
            ("t_0", self.t_0, 0),
            ("inversion", self.inversion, 1),
            ("steps", self.steps, 1),
            ("t_edit", self.t_edit, 0),
            ("t_boost", self.t_boost, 0),
        ];
        let (field, found, least) = all
            .into_iter()
            .find(|(_, n, least)| !(*least..=MAX_STEPS).contains(n))?;
        Some(format!(
            "{field}: expected {least} to {MAX_STEPS}, found {found}"
        ))
    }
}

/// A direction from a file.
#[derive(Clone, Debug)]
pub struct LoadedDirection {
    /// The block.
    pub block: DeltaBlock,
    /// Its metadata; the published files have none.
    pub info: Option<DirectionInfo>,
}

const KIND: &str = "sdft.kind";
const INFO: &str = "sdft.direction";
/// The prefix of the block in a whole model.
const INSIDE: &str = "layer_0.";

/// The metadata of a file; `provenance` is how it was made.
///
/// # Errors
/// Never in practice.
pub fn direction_metadata(
    info: &DirectionInfo,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let text = serde_json::to_string(info).map_err(candle_core::Error::wrap)?;
    let mut metadata = BTreeMap::from([
        (KIND.to_owned(), "direction".to_owned()),
        (INFO.to_owned(), text),
    ]);
    let facts = provenance.iter();
    metadata.extend(facts.map(|(key, value)| (format!("sdft.provenance.{key}"), value.clone())));
    Ok(metadata)
}

/// Writes a direction.
///
/// # Errors
/// An error of the file system; an existing file at `path` is then unchanged.
pub fn write_direction(
    path: &Path,
    params: &Params,
    info: &DirectionInfo,
    provenance: &BTreeMap<String, String>,
) -> Result<()> {
    let metadata = direction_metadata(info, provenance)?;
    write_safetensors(path, params.iter(), &metadata, None).map_err(candle_core::Error::wrap)
}

/// Reads a direction for a network on `device` with these sizes and norms of `groups`: this project's, a published
/// checkpoint (entry `0`), or a whole model that has one as `layer_0`.
///
/// # Errors
/// A file that cannot be read, that holds no direction, or one for another network.
pub fn read_direction(
    path: &Path,
    bottleneck: Bottleneck,
    groups: usize,
    device: &Device,
) -> Result<LoadedDirection> {
    let name = path.display();
    let state = read(path, &ReadOptions::default()).map_err(candle_core::Error::wrap)?;
    let info = match state.metadata().get(INFO) {
        None => None,
        Some(text) => match serde_json::from_str::<DirectionInfo>(text) {
            Ok(info) => match info.odd() {
                None => Some(info),
                Some(problem) => bail!("{name}: {INFO} in its metadata: {problem}"),
            },
            Err(error) => bail!("{name}: {INFO} in its metadata cannot be read: {error}"),
        },
    };
    let kind = state.metadata().get(KIND);
    if let Some(kind) = kind.filter(|kind| *kind != "direction") {
        bail!("{name}: expected a direction made by edit train, found a file of kind {kind}");
    }
    if let Some(info) = info.as_ref().filter(|info| info.norm_groups != groups) {
        bail!(
            "{name}: this direction has norms of {} groups, but the model's have {groups}",
            info.norm_groups
        );
    }
    let mut tensors: HashMap<String, Tensor> = state.into_map().into_iter().collect();
    if tensors.keys().any(|name| name.starts_with(INSIDE)) {
        tensors = tensors
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(INSIDE)?.to_owned(), tensor)))
            .collect();
    }
    match tensors.get("in_layers.2.weight").map(Tensor::dims) {
        None => bail!(
            "{name}: expected a direction (in_layers.0, in_layers.2, emb_layers.1, out_layers.0, out_layers.3), found {} other tensors",
            tensors.len()
        ),
        Some(dims) if dims.first() != Some(&bottleneck.channels) => bail!(
            "{name}: this direction changes features of {} channels, but the model's deepest features have {}",
            dims.first().copied().unwrap_or_default(),
            bottleneck.channels
        ),
        Some(_) => {}
    }
    let specs = DeltaBlock::specs(bottleneck, groups)?;
    match Params::fit(&specs, tensors) {
        Ok(params) => Ok(LoadedDirection {
            block: DeltaBlock::load(&params.to(DType::F32, device)?, bottleneck, groups)?,
            info,
        }),
        Err(mismatch) => bail!("{name}: it does not fit the model\n{mismatch}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Bottleneck = Bottleneck {
        channels: 8,
        embedding: 16,
    };

    fn info() -> DirectionInfo {
        DirectionInfo {
            from: "face".into(),
            to: "smiling face".into(),
            network_sha256: "ab".into(),
            norm_groups: 4,
            t_0: 999,
            inversion: 100,
            steps: 50,
            t_edit: 500,
            t_boost: 200,
        }
    }

    #[test]
    fn a_direction_comes_back_with_its_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("smile.safetensors");
        let specs = DeltaBlock::specs(SIZES, 4).unwrap();
        let params = Params::init(&specs, 1, &Device::Cpu).unwrap();
        let facts = BTreeMap::from([("seed".to_owned(), "7".to_owned())]);
        write_direction(&path, &params, &info(), &facts).unwrap();
        let loaded = read_direction(&path, SIZES, 4, &Device::Cpu).unwrap();
        assert_eq!(loaded.info, Some(info()));
        let h = Tensor::rand(-1f32, 1f32, (1, 8, 2, 2), &Device::Cpu).unwrap();
        let block = DeltaBlock::load(&params, SIZES, 4).unwrap();
        let moved = |block: &DeltaBlock| {
            let moved = block.forward(&h, None).unwrap();
            moved.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(moved(&loaded.block), moved(&block));

        // Inside a whole model, under its name there.
        let whole: Vec<(String, Tensor)> = params
            .iter()
            .map(|(name, tensor)| (format!("layer_0.{name}"), tensor.clone()))
            .chain([("out.2.bias".to_owned(), h.clone())])
            .collect();
        let entries = whole.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let path = dir.path().join("whole.safetensors");
        write_safetensors(&path, entries, &BTreeMap::new(), None).unwrap();
        let loaded = read_direction(&path, SIZES, 4, &Device::Cpu).unwrap();
        assert_eq!((moved(&loaded.block), loaded.info), (moved(&block), None));
    }

    #[test]
    fn directions_that_do_not_fit_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("smile.safetensors");
        let specs = DeltaBlock::specs(SIZES, 4).unwrap();
        let params = Params::init(&specs, 1, &Device::Cpu).unwrap();
        write_direction(&path, &params, &info(), &BTreeMap::new()).unwrap();
        let refused = |bottleneck, groups| {
            read_direction(&path, bottleneck, groups, &Device::Cpu)
                .unwrap_err()
                .to_string()
        };
        let (wider, longer) = (
            Bottleneck {
                channels: 16,
                ..SIZES
            },
            Bottleneck {
                embedding: 32,
                ..SIZES
            },
        );
        assert!(refused(wider, 4).contains("8 channels, but the model's deepest features have 16"));
        assert!(
            refused(longer, 4).contains("emb_layers.1.weight: expected [8, 32], found [8, 16]")
        );
        assert!(refused(SIZES, 2).contains("norms of 4 groups, but the model's have 2"));

        let w = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let other = dir.path().join("other.safetensors");
        write_safetensors(&other, [("w", &w)], &BTreeMap::new(), None).unwrap();
        let error = read_direction(&other, SIZES, 4, &Device::Cpu)
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected a direction"), "{error}");
        for field in ["t_0", "inversion", "steps", "t_edit", "t_boost"] {
            let mut text = serde_json::to_value(info()).unwrap();
            text[field] = u64::MAX.into();
            let odd = BTreeMap::from([(INFO.to_owned(), text.to_string())]);
            write_safetensors(&other, params.iter(), &odd, None).unwrap();
            let error = read_direction(&other, SIZES, 4, &Device::Cpu)
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("{field}: expected")), "{error}");
        }
        let kind = BTreeMap::from([(KIND.to_owned(), "unet".to_owned())]);
        write_safetensors(&other, [("w", &w)], &kind, None).unwrap();
        let error = read_direction(&other, SIZES, 4, &Device::Cpu)
            .unwrap_err()
            .to_string();
        assert!(error.contains("found a file of kind unet"), "{error}");
    }
}
