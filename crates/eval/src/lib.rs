//! What a model still draws: coverage, style and classes of digit samples.
