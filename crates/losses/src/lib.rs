//! The objectives of SDFT: base loss, distillation, auxiliary-input distillation (Eq. 1-6).
