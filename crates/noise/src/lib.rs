//! Seeded, counter-based random numbers: every draw is a pure function of its address.
