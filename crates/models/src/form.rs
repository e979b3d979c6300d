//! Images and classes of a network: their form, the sizes that it runs at, and its labels.

use crate::error::ModelError;
use crate::{Architecture, Classes};
use sdft_autoencoder::AutoencoderConfig;
use sdft_edm::ModelConfig;
use sdft_imaging::{Depth, ImageSpec};

/// The longest side of an image.
pub(crate) const MOST_SIDE: usize = 1 << 14;

/// The most classes that get numbers for names; the largest public tables have 21841 rows.
const MOST_NAMES: usize = 1 << 16;

impl Architecture {
    /// Height and width of an image must be multiples of this number, because the network halves them at each level, or cuts them into
    /// patches.
    ///
    /// EDM's networks whose filter has an odd number of taps need one pixel more; [`Self::check_size`] checks that.
    pub fn multiple(&self) -> usize {
        self.valid_sides()[0]
    }

    /// The sides that an image may have are `n * multiple + rest`, as `[multiple, rest]`.
    fn valid_sides(&self) -> [usize; 2] {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => [config.factor(), 0],
            Self::Unet2d(config) => [config.factor(), 0],
            Self::Edm(config) => config.valid_sides(),
            Self::Dit(config) | Self::DitFlow(config, _) => [config.patch_size, 0],
        }
    }

    /// Fails unless the network runs at this height and width. Nothing else depends on the size that it was made for.
    ///
    /// # Errors
    /// Sides that the network cannot halve at each level or cut into patches, with the nearest size that fits.
    pub fn check_size(&self, [height, width]: [usize; 2]) -> Result<(), ModelError> {
        let multiple = self.valid_sides();
        let fits = |side: usize| {
            (1..=MOST_SIDE).contains(&side) && side % multiple[0] == multiple[1] % multiple[0]
        };
        match fits(height) && fits(width) {
            true => Ok(()),
            false => Err(ModelError::Size {
                height,
                width,
                multiple,
            }),
        }
    }

    /// As [`Self::check_size`], for the images of a network in the latents of an autoencoder.
    ///
    /// # Errors
    /// As [`Self::check_size`].
    pub fn check_image_size(
        &self,
        [height, width]: [usize; 2],
        autoencoder: Option<&AutoencoderConfig>,
    ) -> Result<(), ModelError> {
        let Some(config) = autoencoder else {
            return self.check_size([height, width]);
        };
        let factor = config.factor();
        let [multiple, rest] = self.valid_sides();
        let fits = |side: usize| {
            side.is_multiple_of(factor) && self.check_size([side / factor; 2]).is_ok()
        };
        match fits(height) && fits(width) {
            true => Ok(()),
            false => Err(ModelError::Size {
                height,
                width,
                multiple: [multiple * factor, rest * factor],
            }),
        }
    }

    /// Height and width of the images that the network was made for, or of its latents.
    pub fn sides(&self) -> [usize; 2] {
        let [_, height, width] = self.image_shape();
        [height, width]
    }

    /// The form of the images of a network whose file does not state another: its own channels and size, 8 bits.
    pub fn image(&self) -> ImageSpec {
        let [channels, height, width] = self.image_shape();
        ImageSpec::new(channels, Depth::U8, width, height)
    }

    /// The classes of a network whose file does not name them: numbers. EDM networks that were trained with `label_dropout` have a null
    /// class, and so has every DiT. `None` for unconditional networks, and where there are more than 65536 classes.
    pub fn classes(&self) -> Option<Classes> {
        let has_null = match self {
            Self::Edm(config) => match &config.model {
                ModelConfig::SongUNet(model) => model.label_dropout > 0.0,
                ModelConfig::DhariwalUNet(model) => model.label_dropout > 0.0,
            },
            Self::Adm(_) | Self::AdmEdm(_) | Self::Unet2d(_) => false,
            Self::Dit(_) | Self::DitFlow(..) => true,
        };
        let n = self.n_classes();
        (1..=MOST_NAMES)
            .contains(&n)
            .then(|| Classes::numbered(n, has_null))
    }

    /// The same architecture for images of so many channels. A learned variance has as many.
    #[must_use]
    pub fn with_channels(mut self, channels: usize) -> Self {
        // A flow keeps the channels that it does not use.
        let is_double = self.out_channels() == 2 * self.in_channels();
        let outputs = channels * if is_double { 2 } else { 1 };
        match &mut self {
            Self::Adm(config) | Self::AdmEdm(config) => {
                (config.in_channels, config.out_channels) = (channels, outputs);
            }
            Self::Unet2d(config) => {
                (config.in_channels, config.out_channels) = (channels, outputs);
            }
            Self::Dit(config) | Self::DitFlow(config, _) => {
                (config.in_channels, config.out_channels) = (channels, outputs);
            }
            Self::Edm(config) => config.img_channels = channels,
        }
        self
    }

    /// The same architecture for these classes; `None` is an unconditional network. The null class of an EDM network takes no row, and
    /// that of a DiT is always there.
    #[must_use]
    pub fn with_classes(mut self, classes: Option<&Classes>) -> Self {
        let (names, labels) = classes.map_or((0, 0), |c| (c.names.len(), c.n_labels()));
        match &mut self {
            Self::Adm(config) | Self::AdmEdm(config) => config.num_classes = labels,
            Self::Unet2d(config) => config.num_class_embeds = (labels > 0).then_some(labels),
            Self::Edm(config) => config.label_dim = names,
            Self::Dit(config) | Self::DitFlow(config, _) => config.num_embeds_ada_norm = names,
        }
        self
    }

    /// The rank of the time-aware adapters in its attention blocks, 0 for an eighth of their channels; `None` without adapters.
    pub fn time_adapter_rank(&self) -> Option<usize> {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => config.time_adapter_rank,
            Self::Unet2d(config) => config.time_adapter_rank,
            Self::Edm(config) => config.time_adapter_rank,
            Self::Dit(_) | Self::DitFlow(..) => None,
        }
    }

    /// The same architecture with time-aware adapters of this rank; those that it has are kept. A DiT has none: all its layers are
    /// modulated by time.
    #[must_use]
    pub fn with_time_adapter(mut self, rank: usize) -> Self {
        let field = match &mut self {
            Self::Adm(config) | Self::AdmEdm(config) => &mut config.time_adapter_rank,
            Self::Unet2d(config) => &mut config.time_adapter_rank,
            Self::Edm(config) => &mut config.time_adapter_rank,
            Self::Dit(_) | Self::DitFlow(..) => return self,
        };
        field.get_or_insert(rank);
        self
    }

    /// A message about classes that do not fit this network.
    pub(crate) fn classes_problem(&self, classes: &Classes) -> Option<String> {
        let (expected, found) = match self {
            Self::Edm(config) => (config.label_dim, classes.names.len()),
            Self::Dit(config) | Self::DitFlow(config, _) => {
                (config.num_embeds_ada_norm, classes.names.len())
            }
            _ => (self.n_classes(), classes.n_labels()),
        };
        classes.problem().or_else(|| {
            (expected != found)
                .then(|| format!("expected {expected} classes, as the network has, found {found}"))
        })
    }

    /// A message about a form of images that does not fit this network.
    pub(crate) fn image_problem(
        &self,
        image: &ImageSpec,
        autoencoder: Option<&AutoencoderConfig>,
    ) -> Option<String> {
        let (channels, whose) = match autoencoder {
            None => (self.in_channels(), "network"),
            Some(config) => (config.decoded_channels(), "autoencoder"),
        };
        if image.channels != channels {
            return Some(format!(
                "channels: expected {channels}, as the {whose} has, found {}",
                image.channels
            ));
        }
        let [low, high] = image.range;
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Some(format!(
                "range: expected a number and a larger one, found [{low}, {high}]"
            ));
        }
        let fits = self.check_image_size([image.height, image.width], autoencoder);
        fits.err().map(|error| error.to_string())
    }
}
