//! The size of the processor's caches.

use std::sync::OnceLock;

/// Bytes of the second cache of one core, or one mebibyte where the processor does not tell.
///
/// It may set how many jobs share work, but never the order of a sum: results do not depend on it.
pub(crate) fn second_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let known = of_processor().filter(|bytes| (256 << 10..=16 << 20).contains(bytes));
        known.unwrap_or(1 << 20)
    })
}

#[cfg(target_arch = "x86_64")]
fn of_processor() -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // Intel describes its caches in leaf 4, AMD in the same form in leaf 0x8000_001d.
    let (basic, extended) = (__cpuid(0).eax, __cpuid(0x8000_0000).eax);
    let leaves = [(4, basic), (0x8000_001d, extended)];
    let leaves = leaves.into_iter().filter(|(leaf, last)| leaf <= last);
    let caches = leaves.flat_map(|(leaf, _)| {
        (0..8)
            .map(move |i| __cpuid_count(leaf, i))
            .take_while(|cache| cache.eax & 0x1f != 0)
    });
    let second = caches
        .into_iter()
        .find(|cache| cache.eax >> 5 & 7 == 2 && matches!(cache.eax & 0x1f, 1 | 3))?;
    let field = |low: u32, bits: u32| (second.ebx >> low & ((1 << bits) - 1)) as usize + 1;
    Some(field(22, 10) * field(12, 10) * field(0, 12) * (second.ecx as usize + 1))
}

#[cfg(not(target_arch = "x86_64"))]
fn of_processor() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_cache_is_what_the_system_says() {
        let path = "/sys/devices/system/cpu/cpu0/cache/index2/size";
        let said = std::fs::read_to_string(path).ok();
        let said = said.and_then(|text| text.trim().strip_suffix('K')?.parse::<usize>().ok());
        match (said, of_processor()) {
            (Some(kib), Some(bytes)) => assert_eq!(bytes, kib << 10),
            _ => assert!(second_cache() >= 256 << 10),
        }
    }
}
