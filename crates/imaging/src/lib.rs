//! Decoding with limits, Pillow-exact resizing, u8 and [-1, 1] conversions, PNG and grids.
