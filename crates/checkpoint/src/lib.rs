//! Reads .pt and .safetensors weights without executing anything; writes .safetensors.
