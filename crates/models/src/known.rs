//! Public files with a known architecture.

use sdft_adm::AdmConfig;

/// SHA-256 of a file and its architecture.
type Known = (&'static str, fn() -> AdmConfig);

/// Public files with a known architecture, including fields that do not follow from shapes.
const KNOWN: [Known; 2] = [
    // diffusion_ffhq_10m.pt: the light FFHQ-256 network.
    (
        "81d535743156ec6be34d8668e6920da94f0614074d7793a16c8fa9e306237faa",
        AdmConfig::default,
    ),
    // 256x256_diffusion_uncond.pt: ADM-256 on ImageNet, unconditional.
    (
        "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        AdmConfig::adm_256,
    ),
];

/// Size of the smallest known file; smaller files are not hashed.
pub(crate) const SMALLEST_KNOWN: u64 = 300 << 20;

pub(crate) fn known_file(sha256: &str) -> Option<AdmConfig> {
    KNOWN
        .iter()
        .find(|(hash, _)| *hash == sha256)
        .map(|(_, config)| config())
}
