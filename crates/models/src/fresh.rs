//! New networks: settings that follow from the images that they are trained on.

use crate::Architecture;
use sdft_edm::ModelConfig;
use sdft_unet2d::SampleSize;

impl Architecture {
    /// The same architecture, made for images of this height and width. Networks with one side take the longer one; they run at any size
    /// that [`Architecture::check_size`] accepts.
    #[must_use]
    pub fn with_size(mut self, [height, width]: [usize; 2]) -> Self {
        let side = height.max(width);
        match &mut self {
            Self::Adm(config) | Self::AdmEdm(config) => config.image_size = side,
            Self::Unet2d(config) => {
                config.sample_size = Some(match height == width {
                    true => SampleSize::Side(side),
                    false => SampleSize::Sides([height, width]),
                });
            }
            Self::Edm(config) => config.img_resolution = side,
            Self::Dit(config) | Self::DitFlow(config, _) => config.sample_size = side,
        }
        self
    }

    /// The same architecture with an input for augmentation labels of this length, if it can have one.
    #[must_use]
    pub fn with_augment_dim(mut self, n: usize) -> Self {
        if let Self::Edm(config) = &mut self {
            match &mut config.model {
                ModelConfig::SongUNet(model) => model.augment_dim = n,
                ModelConfig::DhariwalUNet(model) => model.augment_dim = n,
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_adm::AdmConfig;
    use sdft_edm::EdmConfig;
    use sdft_unet2d::Unet2dConfig;

    #[test]
    fn a_new_network_has_the_longer_side_and_only_edm_takes_augmentation_labels() {
        let all: [(Architecture, usize); 3] = [
            (AdmConfig::default().into(), 0),
            (Unet2dConfig::default().into(), 0),
            (EdmConfig::default().into(), 9),
        ];
        for (architecture, n) in all {
            let architecture = architecture.with_size([64, 96]).with_augment_dim(9);
            assert_eq!(architecture.image_size(), 96);
            assert_eq!(architecture.augment_dim(), n);
            architecture.check_size([64, 96]).unwrap();
        }
    }
}
