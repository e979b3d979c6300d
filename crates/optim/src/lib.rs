//! AdamW, SGD, EMA, learning-rate schedules and gradient clipping with named, restorable state.
