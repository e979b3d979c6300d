//! The training loop: run folder, atomic checkpoints, resume, logs.
