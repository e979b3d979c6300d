//! Layers of diffusion networks with exact gradients, and named parameters.
