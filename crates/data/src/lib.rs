//! Image folders and the embedded digits as seeded, resumable batches.
