//! A small classifier of the style of an image and of its named attributes.

use crate::Error;
use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_autograd::average_pool_2x;
use sdft_checkpoint::{ReadOptions, read_bytes};
use sdft_kernels::Activation;
use sdft_nn::{
    Conv2d, ConvStart, GroupNorm, Linear, ParamSource, ParamSpec, Params, Scope, specs_of,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of a file's metadata that states the configuration, as JSON.
const CONFIG_KEY: &str = "sdft.judge";

/// Side, widths and heads of an [`AttributeJudge`]. Its file states them as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeConfig {
    /// Side of the images in pixels.
    pub side: usize,
    /// Channels after each convolution. Between two convolutions the side is halved.
    pub widths: Vec<usize>,
    /// Groups of the normalisation and SiLU after each convolution. Without them a ReLU follows.
    pub norm_groups: Option<usize>,
    /// Width of the last hidden layer.
    pub features: usize,
    /// What is classified next to the style.
    pub heads: Vec<JudgeHead>,
}

/// A set of exclusive values, one of which an image has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeHead {
    /// The name of the attribute.
    pub name: String,
    /// The names of its values, in the order of the logits.
    pub values: Vec<String>,
}

impl JudgeHead {
    /// The place of a value among the logits.
    pub fn position(&self, value: &str) -> Option<usize> {
        self.values.iter().position(|known| known == value)
    }
}

impl JudgeConfig {
    /// The configuration as metadata of a file.
    ///
    /// # Errors
    /// None in practice.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let text = serde_json::to_string(self).map_err(candle_core::Error::wrap)?;
        Ok(BTreeMap::from([
            ("sdft.kind".to_owned(), "attribute-judge".to_owned()),
            (CONFIG_KEY.to_owned(), text),
        ]))
    }

    /// Fails unless a network of this configuration exists.
    fn check(&self) -> Result<()> {
        let sizes = self.widths.iter().chain([&self.side, &self.features]);
        if self.widths.is_empty() || !sizes.clone().all(|n| (1..=1024).contains(n)) {
            bail!(
                "the judge: expected a side, widths and features of 1 to 1024, found {}, {:?} and {}",
                self.side,
                self.widths,
                self.features
            );
        }
        if self.widths.len() > 10 || !self.side.is_multiple_of(1 << (self.widths.len() - 1)) {
            bail!(
                "the judge: {} pixels cannot be halved {} times",
                self.side,
                self.widths.len() - 1
            );
        }
        for (i, head) in self.heads.iter().enumerate() {
            let twice = |values: &[String], i: usize| values[..i].contains(&values[i]);
            if !(1..=256).contains(&head.values.len())
                || (0..head.values.len()).any(|i| twice(&head.values, i))
                || self.heads[..i].iter().any(|other| other.name == head.name)
            {
                bail!(
                    "the judge: expected heads of different names with 1 to 256 different values, found {} with {:?}",
                    head.name,
                    head.values
                );
            }
        }
        Ok(())
    }

    /// The side of the last map.
    fn last_side(&self) -> usize {
        self.side >> (self.widths.len() - 1)
    }

    /// The number of logits, that of the style included.
    fn answers(&self) -> usize {
        1 + self
            .heads
            .iter()
            .map(|head| head.values.len())
            .sum::<usize>()
    }
}

/// Classifies the style and the attributes of an image: convolutions, one layer of features, and the logits of each head and of the style.
#[derive(Clone, Debug)]
pub struct AttributeJudge {
    config: JudgeConfig,
    convs: Vec<(Conv2d, Option<GroupNorm>)>,
    hidden: Linear,
    answers: Linear,
}

/// The outputs of a judge for a batch.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The logits of each head, `[B, values]`.
    pub heads: Vec<Tensor>,
    /// The logit of the target's style, `[B]`.
    pub style: Tensor,
    /// The features, `[B, F]`.
    pub features: Tensor,
    /// The outputs after each convolution, `[B, C_i, H_i, W_i]`.
    pub maps: Vec<Tensor>,
}

impl AttributeJudge {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// An impossible configuration, or parameters that are missing or of another shape.
    pub fn load(config: &JudgeConfig, source: &dyn ParamSource) -> Result<Self> {
        Self::build(config, &Scope::root(source))
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// An impossible configuration.
    pub fn specs(config: &JudgeConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(config, scope))
    }

    /// The network of a `.safetensors` file whose metadata states the configuration, on `device`. `name` stands for the file in errors.
    ///
    /// # Errors
    /// - the file cannot be read, or states no configuration
    /// - a tensor is missing, unexpected or of another shape
    pub fn read_bytes(
        name: &str,
        bytes: &[u8],
        device: &Device,
    ) -> std::result::Result<Self, Error> {
        let misfit = |problem: String| Error::Weights {
            files: vec![name.into()],
            problem,
        };
        let state = read_bytes(name, bytes, &ReadOptions::default())?;
        let text = state.metadata().get(CONFIG_KEY).ok_or_else(|| {
            misfit(format!(
                "expected the metadata of a judge, {CONFIG_KEY}, found none; `sdft judge` writes such a file"
            ))
        })?;
        let config: JudgeConfig = serde_json::from_str(text)
            .map_err(|error| misfit(format!("the metadata {CONFIG_KEY} is invalid: {error}")))?;
        let specs = Self::specs(&config).map_err(|error| misfit(error.to_string()))?;
        let params = Params::fit(&specs, state.into_map().into_iter().collect())
            .map_err(|mismatch| misfit(format!("the tensors do not fit the judge: {mismatch}")))?;
        Ok(Self::load(&config, &params.to(DType::F32, device)?)?)
    }

    fn build(config: &JudgeConfig, scope: &Scope<'_>) -> Result<Self> {
        config.check()?;
        let (mut convs, mut c_in) = (Vec::new(), 3);
        for (i, &width) in config.widths.iter().enumerate() {
            let at = scope.pp(format!("conv{i}"));
            let conv = Conv2d::load(&at, c_in, width, 3, 1, ConvStart::FanIn)?;
            let at = scope.pp(format!("norm{i}"));
            let norm = config.norm_groups;
            let norm = norm.map(|groups| GroupNorm::load(&at, width, groups));
            convs.push((conv, norm.transpose()?));
            c_in = width;
        }
        let side = config.last_side();
        let (features, answers) = (config.features, config.answers());
        Ok(Self {
            config: config.clone(),
            convs,
            hidden: Linear::load(&scope.pp("hidden"), c_in * side * side, features)?,
            answers: Linear::load(&scope.pp("answers"), features, answers)?,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &JudgeConfig {
        &self.config
    }

    /// The index of a head.
    ///
    /// # Errors
    /// Fails with the list of heads if there is no such head.
    pub fn head(&self, name: &str) -> Result<usize> {
        let heads = &self.config.heads;
        match heads.iter().position(|head| head.name == name) {
            Some(index) => Ok(index),
            None => {
                let names: Vec<&str> = heads.iter().map(|head| head.name.as_str()).collect();
                bail!(
                    "the judge has no attribute {name:?}, expected one of {}",
                    names.join(", ")
                )
            }
        }
    }

    /// The outputs for images in [-1, 1]. Grey images are repeated. Differentiable.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, side, side]` or `[B, 1, side, side]`
    ///
    /// # Errors
    /// Images of another size or number of channels.
    pub fn classify(&self, x: &Tensor) -> Result<Judgement> {
        let (b, c, h, w) = x.dims4()?;
        let side = self.config.side;
        if !matches!(c, 1 | 3) || (h, w) != (side, side) {
            bail!(
                "the judge: expected 3x{side}x{side} or 1x{side}x{side} images, found {c}x{h}x{w}"
            );
        }
        let mut maps = Vec::with_capacity(self.convs.len());
        let mut h = match c {
            1 => x.expand((b, 3, side, side))?.contiguous()?,
            _ => x.clone(),
        };
        for (i, (conv, norm)) in self.convs.iter().enumerate() {
            let input = if i == 0 { h } else { average_pool_2x(&h)? };
            let out = conv.forward(&input)?;
            h = match norm {
                Some(norm) => norm.forward(&out, Activation::Silu)?,
                None => out.relu()?,
            };
            maps.push(h.clone());
        }
        let features = self.hidden.forward(&h.flatten_from(1)?)?.relu()?;
        let answers = self.answers.forward(&features)?;
        let (mut heads, mut first) = (Vec::new(), 0);
        for head in &self.config.heads {
            heads.push(answers.narrow(1, first, head.values.len())?);
            first += head.values.len();
        }
        Ok(Judgement {
            heads,
            style: answers.narrow(1, first, 1)?.squeeze(1)?,
            features,
            maps,
        })
    }
}

impl AsRef<Self> for AttributeJudge {
    fn as_ref(&self) -> &Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_checkpoint::write_safetensors;

    fn config() -> JudgeConfig {
        let head = |name: &str, values: &[&str]| JudgeHead {
            name: name.to_owned(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        JudgeConfig {
            side: 16,
            widths: vec![4, 8, 8],
            norm_groups: Some(2),
            features: 12,
            heads: vec![
                head("shape", &["round", "square", "star"]),
                head("hat", &["no", "yes"]),
            ],
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient_and_other_sizes_are_refused() {
        let config = config();
        let (params, vars) =
            Params::init(&AttributeJudge::specs(&config).unwrap(), 3, &Device::Cpu)
                .unwrap()
                .trainable()
                .unwrap();
        let judge = AttributeJudge::load(&config, &params).unwrap();
        let x = Tensor::arange(0f32, 1536.0, &Device::Cpu).unwrap();
        let x = (x.reshape((2, 3, 16, 16)).unwrap() / 1536.0).unwrap();
        let seen = judge.classify(&x).unwrap();
        let shapes = |maps: &[Tensor]| -> Vec<Vec<usize>> {
            maps.iter().map(|map| map.dims()[1..].to_vec()).collect()
        };
        assert_eq!(shapes(&seen.maps), [[4, 16, 16], [8, 8, 8], [8, 4, 4]]);
        assert_eq!(shapes(&seen.heads), [[3], [2]]);
        let mut loss = seen.style.sqr().unwrap().sum_all().unwrap();
        for head in &seen.heads {
            loss = (loss + head.sqr().unwrap().sum_all().unwrap()).unwrap();
        }
        let gradients = loss.backward().unwrap();
        for (name, var) in &vars {
            let sum = gradients.get(var).unwrap().abs().unwrap().sum_all();
            assert!(sum.unwrap().to_scalar::<f32>().unwrap() > 0.0, "{name}");
        }
        let ones = |c| Tensor::ones((1, c, 16, 16), DType::F32, &Device::Cpu).unwrap();
        let [grey, colour] = [1, 3].map(|c| {
            let seen = judge.classify(&ones(c)).unwrap();
            seen.heads[0].to_vec2::<f32>().unwrap()
        });
        assert_eq!(grey, colour);
        let small = Tensor::zeros((1, 3, 8, 8), DType::F32, &Device::Cpu).unwrap();
        let error = judge.classify(&small).unwrap_err().to_string();
        assert!(
            error.contains("3x16x16") && error.contains("3x8x8"),
            "{error}"
        );
        let error = judge.head("colour").unwrap_err().to_string();
        assert!(error.contains("shape, hat"), "{error}");
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let changes: [fn(&mut JudgeConfig); 8] = [
            |c| c.norm_groups = Some(3),
            |c| c.widths.clear(),
            |c| c.widths[1] = 0,
            |c| c.side = 10,
            |c| c.side = 0,
            |c| c.heads[1].name = "shape".into(),
            |c| c.heads[0].values.clear(),
            |c| c.heads[0].values[2] = "round".into(),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut config = config();
            change(&mut config);
            assert!(AttributeJudge::specs(&config).is_err(), "{i}");
        }
    }

    #[test]
    fn a_file_states_its_heads_and_is_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("judge.safetensors");
        let config = config();
        let specs = AttributeJudge::specs(&config).unwrap();
        let params = Params::init(&specs, 1, &Device::Cpu).unwrap();
        let read = |skip: usize, metadata: &BTreeMap<String, String>| {
            let tensors = params.iter().skip(skip);
            write_safetensors(&path, tensors, metadata, Some(DType::F16)).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            AttributeJudge::read_bytes("judge", &bytes, &Device::Cpu)
        };
        let metadata = config.metadata().unwrap();
        assert_eq!(read(0, &metadata).unwrap().config(), &config);
        let error = read(0, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("sdft.judge"), "{error}");
        let error = read(1, &metadata).unwrap_err().to_string();
        assert!(error.contains("conv0.weight"), "{error}");
        let more = metadata[CONFIG_KEY].replace("\"side\"", "\"depth\":1,\"side\"");
        let more = BTreeMap::from([(CONFIG_KEY.to_owned(), more)]);
        let error = read(0, &more).unwrap_err().to_string();
        assert!(error.contains("depth"), "{error}");
    }
}
