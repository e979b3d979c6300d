//! DDIM, DDPM and deterministic inversion on any Denoiser.
