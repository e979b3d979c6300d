//! Noise schedules, signal-to-noise ratios, loss weightings and timestep respacing in f64.
