//! What random streams are used for.

/// What a stream of random numbers is used for. It is part of the address, so two uses never share numbers.
///
/// Runs are reproducible only if these values never change: a new purpose takes the next free value, and none is reused.
/// 255 is reserved for folding long addresses (see [`Draw`](crate::Draw)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum Purpose {
    /// Timesteps of the training batch.
    Timestep = 1,
    /// Gaussian noise of the training batch.
    Noise = 2,
    /// Timesteps of the auxiliary (pure noise) input.
    AuxTimestep = 3,
    /// The auxiliary input itself.
    AuxNoise = 4,
    /// The order in which the images are visited.
    Order = 5,
    /// Horizontal flips.
    Flip = 6,
    /// Shifts and crops.
    Shift = 7,
    /// Dropout masks.
    Dropout = 8,
    /// Initial weights.
    Init = 9,
    /// The starting noise of a sampler.
    Sample = 10,
    /// The noise that a stochastic sampler adds in each step.
    Ancestral = 11,
    /// The starting noise of the previews of a run.
    Preview = 12,
    /// The gradient audit before the first step.
    Audit = 13,
    /// The classifier that evaluates a miniature experiment.
    Judge = 14,
    /// Tests and examples.
    Test = 15,
    /// Grain of rendered images.
    Grain = 16,
    /// The images whose distillation term is evaluated.
    Distill = 17,
    /// All noise of a translation.
    Translate = 18,
    /// The noise of the held-out images of a classifier.
    HeldOut = 19,
    /// The place of a random crop.
    Crop = 20,
    /// Augmentation as in EDM, and zoom.
    Augment = 21,
    /// The images whose class is left out in training.
    LabelDropout = 22,
    /// Timesteps of kept samples of the source model.
    KeptTimestep = 23,
    /// Noise of kept samples of the source model.
    KeptNoise = 24,
    /// Timesteps and noise of the Fisher information.
    Fisher = 25,
    /// Latents of the training images, drawn from an autoencoder's distribution.
    Latent = 26,
}

impl Purpose {
    /// Every purpose, in the order of its value.
    pub const ALL: [Self; 26] = [
        Self::Timestep,
        Self::Noise,
        Self::AuxTimestep,
        Self::AuxNoise,
        Self::Order,
        Self::Flip,
        Self::Shift,
        Self::Dropout,
        Self::Init,
        Self::Sample,
        Self::Ancestral,
        Self::Preview,
        Self::Audit,
        Self::Judge,
        Self::Test,
        Self::Grain,
        Self::Distill,
        Self::Translate,
        Self::HeldOut,
        Self::Crop,
        Self::Augment,
        Self::LabelDropout,
        Self::KeptTimestep,
        Self::KeptNoise,
        Self::Fisher,
        Self::Latent,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_consecutive_and_stable() {
        for (i, purpose) in Purpose::ALL.iter().enumerate() {
            assert_eq!(*purpose as usize, i + 1, "{purpose:?}");
        }
    }
}
