//! AMX: eight tiles of 16 rows of 64 bytes. Four hold the sums of a block, two each the factors of a step.

// The intrinsics are not stable, so the instructions are written out. The compiler never uses tiles, so they keep their content from one
// piece of assembly to the next, as long as no other code runs between them.

use super::Block;
use std::arch::asm;
use std::sync::OnceLock;

/// Whether the processor has the instructions and the kernel lets this process use them.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let leaf = std::arch::x86_64::__cpuid_count(0, 0);
        if leaf.eax < 7 {
            return false;
        }
        let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
        let (bf16, tile) = (1 << 22, 1 << 24);
        features & bf16 != 0 && features & tile != 0 && permitted()
    })
}

/// Asks the kernel for the state of the tiles, for all threads of this process.
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call changes what the process may use, and no memory.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// Gives all tiles their full size.
///
/// # Safety
/// The unit is available.
pub(super) unsafe fn configure() {
    #[repr(C, align(64))]
    struct Configuration([u8; 64]);
    let mut configuration = Configuration([0; 64]);
    let bytes = &mut configuration.0;
    bytes[0] = 1;
    for tile in 0..8 {
        // Bytes of a row, in two bytes, and rows.
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
    }
    // SAFETY: the caller's promise; 64 bytes are read.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags, readonly));
    }
}

/// # Safety
/// [`configure`] was called on this thread.
pub(super) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
}

/// # Safety
/// As [`super::Session::block`], on a thread that called [`configure`].
pub(super) unsafe fn block(block: &Block<'_>) {
    let lower = block.c.wrapping_byte_add(16 * block.c_row);
    // SAFETY: the caller's promise.
    unsafe {
        if block.add {
            asm!(
                "tileloadd tmm0, [{upper} + {row}*1]",
                "tileloadd tmm1, [{upper} + {row}*1 + 64]",
                "tileloadd tmm2, [{lower} + {row}*1]",
                "tileloadd tmm3, [{lower} + {row}*1 + 64]",
                upper = in(reg) block.c,
                lower = in(reg) lower,
                row = in(reg) block.c_row,
                options(nostack, preserves_flags, readonly)
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, preserves_flags, nomem)
            );
        }
        for &[a, b] in block.steps {
            let (a, b) = (
                block.a.wrapping_add(a as usize),
                block.b.wrapping_add(b as usize),
            );
            asm!(
                "tileloadd tmm4, [{a0} + {a_row}*1]",
                "tileloadd tmm6, [{b0} + {b_row}*1]",
                "tileloadd tmm7, [{b1} + {b_row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1} + {a_row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                a0 = in(reg) a,
                a1 = in(reg) a.wrapping_add(block.a_second),
                a_row = in(reg) 64usize,
                b0 = in(reg) b,
                b1 = in(reg) b.wrapping_add(block.b_second),
                b_row = in(reg) block.b_row,
                options(nostack, preserves_flags, readonly)
            );
        }
        asm!(
            "tilestored [{upper} + {row}*1], tmm0",
            "tilestored [{upper} + {row}*1 + 64], tmm1",
            "tilestored [{lower} + {row}*1], tmm2",
            "tilestored [{lower} + {row}*1 + 64], tmm3",
            upper = in(reg) block.c,
            lower = in(reg) lower,
            row = in(reg) block.c_row,
            options(nostack, preserves_flags)
        );
    }
}
