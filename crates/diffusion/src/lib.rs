//! Gaussian diffusion on tensors and the traits Denoiser and FeatureNet.
