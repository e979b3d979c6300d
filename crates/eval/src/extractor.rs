//! Networks with their preprocessing: pictures in, feature vectors out.

use crate::error::{EvalError, Result};
use crate::native::{describe_range, read_native};
use crate::peers::{Peers, sizes_of};
use candle_core::{DType, Device, Tensor};
use sdft_data::{Digits, Emoji, EmojiStyle, Style};
use sdft_features::{
    AttributeJudge, Clip, ClipConfig, DINOV2_SIDE, Dinov2, Dinov2Config, IDENTITY_SIDE,
    INCEPTION_FEATURES, INCEPTION_SIDE, IdentityNet, Inception, InceptionResize, Network,
    clip_input, dinov2_input, inception_input,
};
use sdft_files::{sha256_bytes, sha256_file};
use sdft_imaging::{Conversions, Limits, Rgb8, center_crop, read_image_file, to_unit_range};
use sdft_nn::Params;
use sdft_parallel::{ProcessGroup, Task, TaskLimit};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Batch size of the networks.
pub(crate) const BATCH: usize = 32;
/// Batch size of the judges.
const CHUNK: usize = 256;

/// The network that measures images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// FID's Inception, with its method of resizing to 299 pixels.
    Inception(InceptionResize),
    /// DINOv2, with the preprocessing of dgm-eval.
    Dinov2,
    /// CLIP with patches of this size.
    Clip(usize),
    /// Face identity; images are brought to 256 pixels as for training.
    Identity,
    /// A judge of 16x16 digits. Its features are divided by their standard deviation over all digits in the target's style.
    Digits,
    /// A judge of 32x32 emoji. Its features are divided by their standard deviation over all emoji in the target's style.
    Emoji,
}

impl View {
    /// The network whose public weights are required.
    pub fn network(self) -> Option<Network> {
        match self {
            Self::Inception(_) => Some(Network::Inception),
            Self::Dinov2 => Some(Network::Dinov2),
            Self::Clip(patch) => Some(Network::Clip(patch)),
            Self::Identity => Some(Network::Identity),
            Self::Digits | Self::Emoji => None,
        }
    }

    /// What the Fréchet and the kernel distance of its features are called.
    pub fn distances(self) -> [&'static str; 2] {
        match self {
            Self::Dinov2 => ["FD-DINOv2", "KD-DINOv2"],
            _ => ["FID", "KID"],
        }
    }
}

/// The network of public weights whose features two sets are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetFeatures {
    /// Inception: FID and KID.
    #[default]
    Inception,
    /// DINOv2: FD-DINOv2 and KD-DINOv2.
    Dinov2,
}

impl SetFeatures {
    /// The network whose weights are required.
    pub fn network(self) -> Network {
        match self {
            Self::Inception => Network::Inception,
            Self::Dinov2 => Network::Dinov2,
        }
    }

    /// The network with its preprocessing; `resize` is that of Inception.
    pub fn view(self, resize: InceptionResize) -> View {
        match self {
            Self::Inception => View::Inception(resize),
            Self::Dinov2 => View::Dinov2,
        }
    }
}

enum Net {
    Inception(Inception),
    Dinov2(Dinov2),
    Clip(Clip),
    Identity(IdentityNet),
    /// The judge, and the reciprocal standard deviation of each feature over an embedded set in the target's style.
    Judge(AttributeJudge, Tensor),
}

/// A network with its preprocessing: pictures in, feature vectors out.
pub struct Extractor {
    view: View,
    net: Net,
    weights: String,
    range: Option<[f64; 2]>,
    /// Where the network computes.
    device: Device,
    compute_dtype: DType,
    /// The processes that share the pictures.
    peers: Option<Peers>,
}

/// The SHA-256 of a file, or of several files together.
///
/// # Errors
/// Fails if a file cannot be read.
pub fn hash_of(files: &[PathBuf]) -> Result<String> {
    let hashes = files
        .iter()
        .map(|file| {
            sha256_file(file).map_err(|e| EvalError::Weights(format!("{}: {e}", file.display())))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(match &hashes[..] {
        [one] => one.clone(),
        all => sha256_bytes(all.concat().as_bytes()),
    })
}

/// The parameters of a network's public weights, on a device.
pub(crate) fn read_on(network: Network, files: &[PathBuf], device: &Device) -> Result<Params> {
    let params = network.read(files);
    let params = params.map_err(|e| EvalError::Weights(e.to_string()))?;
    Ok(params.to(DType::F32, device)?)
}

/// All images of an embedded set in the target's style, `[N, 3, side, side]`.
fn target_domain(view: View) -> Result<Tensor> {
    let (mut pixels, mut n, mut side) = (Vec::new(), 0, Digits::SIZE);
    if view == View::Emoji {
        let emoji = Emoji::embedded()?;
        side = Emoji::SIZE;
        for index in 0..emoji.entries().len() {
            if let Some(picture) = emoji.picture(index, EmojiStyle::Fluent) {
                pixels.extend(to_unit_range(&picture));
                n += 1;
            }
        }
    } else {
        let digits = Digits::embedded()?;
        n = digits.labels().len();
        pixels.extend((0..n).flat_map(|i| digits.render(i, Style::Ember)));
    }
    Ok(Tensor::from_vec(pixels, (n, 3, side, side), &Device::Cpu)?)
}

/// One over the standard deviation of each feature of these images; 1 for constant features.
fn scale(judge: &AttributeJudge, images: &Tensor) -> Result<Tensor> {
    let mut rows = Vec::new();
    for start in (0..images.dim(0)?).step_by(CHUNK) {
        let n = CHUNK.min(images.dim(0)? - start);
        rows.push(judge.classify(&images.narrow(0, start, n)?)?.features);
    }
    let features = Tensor::cat(&rows, 0)?.to_dtype(DType::F64)?;
    let centred = features.broadcast_sub(&features.mean_keepdim(0)?)?;
    let spread = centred.sqr()?.mean(0)?.sqrt()?.to_vec1::<f64>()?;
    let scale: Vec<f64> = spread
        .into_iter()
        .map(|s| if s > 1e-6 { 1.0 / s } else { 1.0 })
        .collect();
    Ok(Tensor::new(scale, &Device::Cpu)?.to_dtype(DType::F32)?)
}

impl Extractor {
    /// Reads a network's public weights. It computes in f32 on `device`.
    ///
    /// # Errors
    /// Fails if the view has no public weights, if the files cannot be read or do not match, or if the device has no memory left.
    pub fn read(view: View, files: &[PathBuf], device: &Device) -> Result<Self> {
        let Some(network) = view.network() else {
            return Err(EvalError::Weights(format!(
                "{view:?} has no public weights"
            )));
        };
        let params = read_on(network, files, device)?;
        Self::new(view, &params, hash_of(files)?)
    }

    /// Makes an extractor from parameters, on their device; `weights` is the hash of their file.
    ///
    /// # Errors
    /// Fails if the parameters do not match the network.
    pub fn new(view: View, params: &Params, weights: String) -> Result<Self> {
        let net = match view {
            View::Inception(_) => Net::Inception(Inception::load(params)?),
            View::Dinov2 => {
                let config = Dinov2Config::of_shapes(|name| params.tensor(name).map(Tensor::dims));
                let config = config.map_err(|error| EvalError::Weights(error.to_string()))?;
                Net::Dinov2(Dinov2::load(config, params)?)
            }
            View::Clip(patch) => Net::Clip(Clip::load(ClipConfig::vit_b(patch), params)?),
            View::Identity => Net::Identity(IdentityNet::load(params)?),
            View::Digits | View::Emoji => {
                return Err(EvalError::Weights(format!(
                    "{view:?} takes a judge, not parameters"
                )));
            }
        };
        let device = params.iter().next().map(|(_, tensor)| tensor.device());
        Ok(Self {
            device: device.cloned().unwrap_or(Device::Cpu),
            ..Self::of_net(view, net, weights)
        })
    }

    /// Makes an extractor from a judge of the digits or emoji on the CPU, where these small networks are fast enough; `weights` is the hash
    /// of its file.
    ///
    /// # Errors
    /// Fails if the view is another network, or the judge takes images of another size.
    pub fn of_judge(
        view: View,
        judge: &impl AsRef<AttributeJudge>,
        weights: String,
    ) -> Result<Self> {
        if view.network().is_some() {
            return Err(EvalError::Weights(format!("{view:?} has no judge")));
        }
        let judge = judge.as_ref().clone();
        let scale = scale(&judge, &target_domain(view)?)?;
        Ok(Self::of_net(view, Net::Judge(judge, scale), weights))
    }

    fn of_net(view: View, net: Net, weights: String) -> Self {
        Self {
            view,
            net,
            weights,
            range: None,
            device: Device::Cpu,
            compute_dtype: DType::F32,
            peers: None,
        }
    }

    /// The extractor whose network rounds the factors of its layers to this type. Judges always compute in f32.
    #[must_use]
    pub fn with_compute_dtype(self, compute_dtype: DType) -> Self {
        let net = match self.net {
            Net::Inception(net) => Net::Inception(net.with_compute_dtype(compute_dtype)),
            Net::Dinov2(net) => Net::Dinov2(net.with_compute_dtype(compute_dtype)),
            Net::Clip(net) => Net::Clip(net.with_compute_dtype(compute_dtype)),
            Net::Identity(net) => Net::Identity(net.with_compute_dtype(compute_dtype)),
            judge @ Net::Judge(..) => return Self { net: judge, ..self },
        };
        Self {
            net,
            compute_dtype,
            ..self
        }
    }

    /// The extractor whose pictures the processes of a group share, as the networks of kind `kind`. The other ranks are in [`Self::serve`]
    /// or [`crate::PairNets::serve`].
    #[must_use]
    pub fn with_group(self, group: &Arc<ProcessGroup>, kind: u64) -> Self {
        let peers = Peers::of(group, kind);
        Self { peers, ..self }
    }

    /// The extractor with the lowest and the highest possible value of images of 16 bits and floats, which become black and white.
    #[must_use]
    pub fn with_range(self, range: Option<[f64; 2]>) -> Self {
        Self { range, ..self }
    }

    /// The lowest and the highest possible value of images of 16 bits and floats, if it was given.
    pub(crate) fn range(&self) -> Option<[f64; 2]> {
        self.range
    }

    /// Page `page` of an image file in memory, in the 8-bit RGB that the network takes.
    pub(crate) fn decode(
        &self,
        bytes: &[u8],
        path: &Path,
        page: usize,
        limits: Limits,
    ) -> Result<(Rgb8, Conversions)> {
        read_native(bytes, path, page, limits, self.range)?.into_rgb8()
    }

    /// An image file in the 8-bit RGB that the network takes.
    ///
    /// # Errors
    /// Fails if the file cannot be read, has another number of channels than grey and RGB, with or without alpha, or has floats outside
    /// their range.
    pub fn show(&self, path: &Path) -> Result<Rgb8> {
        let limits = Limits::from_env()?;
        let bytes = read_image_file(path, &limits)?;
        self.decode(&bytes, path, 0, limits).map(|(image, _)| image)
    }

    /// The device of its network.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The precision of the network's products: `f32`, `bf16`, or on a GPU `tf32`.
    pub fn precision(&self) -> &'static str {
        match self.compute_dtype {
            DType::F32 if self.device.is_cuda() && sdft_cuda::is_tf32_allowed() => "tf32",
            dtype => dtype.as_str(),
        }
    }

    /// What cached features depend on: [`Self::describe`], the device and the precision, because these round differently. Features of the
    /// CPU in f32 are under the description alone.
    pub fn cache_key(&self) -> String {
        let (description, precision) = (self.describe(), self.precision());
        match (self.device.is_cuda(), precision) {
            (false, "f32") => description,
            (false, _) => format!("{description}, {precision}"),
            (true, _) => format!("{description}, cuda {precision}"),
        }
    }

    /// The network and its preprocessing as text, which also identifies statistics.
    pub fn describe(&self) -> String {
        let weights = self.weights.get(..12).unwrap_or(&self.weights);
        let what = match self.view {
            View::Inception(mode) => format!("inception, {mode} resize"),
            View::Dinov2 => format!("DINOv2, {} features", self.dim()),
            View::Clip(patch) => format!("CLIP ViT-B/{patch}"),
            View::Identity => "IR-SE50".to_owned(),
            View::Digits => "digits judge".to_owned(),
            View::Emoji => "emoji judge".to_owned(),
        };
        let range = self.range.map_or(String::new(), |range| {
            format!(", range {}", describe_range(range))
        });
        format!("{what}, weights {weights}{range}")
    }

    /// Its network.
    pub fn view(&self) -> View {
        self.view
    }

    /// The hash of its weights.
    pub fn weights(&self) -> &str {
        &self.weights
    }

    /// Length of a feature vector.
    pub fn dim(&self) -> usize {
        match &self.net {
            Net::Inception(_) => INCEPTION_FEATURES,
            Net::Dinov2(net) => net.config().hidden_size,
            Net::Clip(_) | Net::Identity(_) => 512,
            Net::Judge(judge, _) => judge.config().features,
        }
    }

    fn input(&self, image: &Rgb8) -> Vec<f32> {
        match self.view {
            View::Inception(mode) => inception_input(image, mode),
            View::Dinov2 => dinov2_input(image),
            View::Clip(_) => clip_input(image, 224),
            View::Identity => to_unit_range(&center_crop(image, IDENTITY_SIDE)),
            View::Digits | View::Emoji => to_unit_range(image),
        }
    }

    fn side(&self, image: &Rgb8) -> [usize; 2] {
        match self.view {
            View::Inception(_) => [INCEPTION_SIDE; 2],
            View::Dinov2 => [DINOV2_SIDE; 2],
            View::Clip(_) => [224; 2],
            View::Identity => [IDENTITY_SIDE; 2],
            View::Digits | View::Emoji => [image.height, image.width],
        }
    }

    /// Pictures that are worth extracting together.
    pub(crate) fn at_once(&self) -> usize {
        BATCH * self.peers.as_ref().map_or(1, Peers::size)
    }

    /// The feature vectors of pictures, one after the other; pictures are processed in batches.
    ///
    /// # Errors
    /// Fails if the network does not accept a picture, or a process that shares them fails.
    pub fn extract(&self, images: &[Rgb8]) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(images.len() * self.dim());
        for chunk in images.chunks(self.at_once()) {
            let Some(peers) = &self.peers else {
                out.extend(self.forward(&self.task(chunk)?)?);
                continue;
            };
            let tasks = peers.parts(chunk).map(|part| self.task(part));
            let answers = peers.share(tasks.collect::<Result<_>>()?, |task| self.forward(&task))?;
            out.extend(answers.concat());
        }
        Ok(out)
    }

    /// On the other ranks: answers the tasks of rank 0's extractor until it ends the work.
    ///
    /// # Errors
    /// Fails if the network or the connection to rank 0 fails.
    pub fn serve(&self, group: &ProcessGroup) -> Result<()> {
        group.serve(self.limit(), |task| self.forward(&task))
    }

    /// The largest task of this network.
    pub(crate) fn limit(&self) -> TaskLimit {
        let [h, w] = match &self.net {
            Net::Judge(judge, _) => [judge.config().side; 2],
            _ => self.side(&Rgb8::filled(1, 1, [0; 3])),
        };
        TaskLimit {
            numbers: 3,
            values: BATCH * (3 * h * w).max(self.dim()),
        }
    }

    /// The input of the network for up to [`BATCH`] pictures: their number, height and width, and their values.
    fn task(&self, images: &[Rgb8]) -> Result<Task> {
        use rayon::prelude::*;
        let [h, w] = images.first().map_or([0; 2], |first| self.side(first));
        let inputs: Vec<Vec<f32>> = images.par_iter().map(|image| self.input(image)).collect();
        if let Some(other) = inputs.iter().position(|input| input.len() != 3 * h * w) {
            return Err(EvalError::Tensor(candle_core::Error::Msg(format!(
                "expected pictures of one size (height x width), found {h}x{w} and {}x{}",
                images[other].height, images[other].width
            ))));
        }
        Ok(Task {
            kind: self.peers.as_ref().map_or(0, Peers::kind),
            numbers: [images.len(), h, w].map(|n| n as u64).to_vec(),
            values: inputs.concat(),
            answer: images.len() * self.dim(),
        })
    }

    /// The feature vectors of a task's pictures.
    pub(crate) fn forward(&self, task: &Task) -> Result<Vec<f32>> {
        let [n, h, w] = sizes_of(task)?;
        if n == 0 {
            return Ok(Vec::new());
        }
        let x = Tensor::from_slice(&task.values, (n, 3, h, w), &self.device)?;
        let y = match &self.net {
            Net::Inception(net) => net.features(&x)?,
            Net::Dinov2(net) => net.features(&x)?,
            Net::Clip(net) => net.image_features(&x)?,
            Net::Identity(net) => net.embed(&x)?,
            Net::Judge(net, scale) => net.classify(&x)?.features.broadcast_mul(scale)?,
        };
        Ok(y.flatten_all()?.to_vec1::<f32>()?)
    }
}
