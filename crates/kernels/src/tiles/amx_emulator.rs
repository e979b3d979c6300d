//! AMX on machines without it, for tests: the processor refuses each instruction, and the handler of the signal computes its result.

// Subnormal numbers are kept, which the processor takes as zero.
//
// Source: Intel's manual of the instruction set, volume 2: LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TILERELEASE, TDPBF16PS.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::Once;

/// Rows and bytes of the tiles of a thread, and their content.
struct State {
    is_configured: bool,
    tiles: [[[u8; 64]; 16]; 8],
}

thread_local! {
    static STATE: UnsafeCell<State> = const {
        UnsafeCell::new(State { is_configured: false, tiles: [[[0; 64]; 16]; 8] })
    };
}

/// Emulates the instructions from now on, on all threads.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler only reads its own thread's state and what the refused instruction may read and write.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(
                libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()),
                0
            );
        }
    });
}

/// The registers in the order of their encoding.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn handle(_: c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the context of the thread that was interrupted.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let at = registers[libc::REG_RIP as usize] as *const u8;
    // SAFETY: no other reference to the state of this thread exists: it is used here only.
    let length = STATE.with(|state| unsafe { execute(&mut *state.get(), at, registers) });
    match length {
        Some(length) => registers[libc::REG_RIP as usize] += length as i64,
        None => {
            // Not one of these instructions: the default action ends the process.
            // SAFETY: restores the default.
            unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
        }
    }
}

/// Executes the instruction and returns its length, or nothing if it is another one.
unsafe fn execute(state: &mut State, at: *const u8, registers: &[i64; 23]) -> Option<usize> {
    // SAFETY: an instruction that was fetched can be read; VEX with three bytes is at least five long.
    let byte = |i: usize| unsafe { *at.add(i) };
    if byte(0) != 0xc4 {
        return None;
    }
    let (first, second, opcode, modrm) = (byte(1), byte(2), byte(3), byte(4));
    // Map 0F38, W0, 128 bits.
    if first & 0x1f != 2 || second & 0x84 != 0 {
        return None;
    }
    let (prefix, vvvv) = (second & 3, usize::from(!(second >> 3) & 15));
    let (mode, reg, rm) = (
        modrm >> 6,
        usize::from(modrm >> 3 & 7),
        usize::from(modrm & 7),
    );
    let high = |bit: u8| if first & bit == 0 { 8 } else { 0 };
    let tiles = &mut state.tiles;
    match (opcode, prefix, mode) {
        (0x49, 0, 3) => {
            state.is_configured = false;
            Some(5)
        }
        (0x49, 0, _) => {
            // SAFETY: the instruction has a memory operand.
            let (address, _, length) = unsafe { operand(at, registers, mode, rm, high(0x20), 0) };
            // SAFETY: 64 bytes by the instruction.
            let configuration = unsafe { std::slice::from_raw_parts(address as *const u8, 64) };
            assert_eq!(configuration[0], 1, "the palette");
            for tile in 0..8 {
                assert_eq!(configuration[48 + tile], 16, "rows");
                assert_eq!(configuration[16 + 2 * tile], 64, "bytes of a row");
            }
            state.is_configured = true;
            *tiles = [[[0; 64]; 16]; 8];
            Some(length)
        }
        _ if !state.is_configured => None,
        (0x49, 3, 3) => {
            tiles[reg] = [[0; 64]; 16];
            Some(5)
        }
        (0x4b, 2 | 3, 0..=2) if rm == 4 => {
            let (address, stride, length) =
                // SAFETY: as above.
                unsafe { operand(at, registers, mode, rm, high(0x20), high(0x40)) };
            for (row, tile) in tiles[reg].iter_mut().enumerate() {
                let memory = (address + row as i64 * stride) as *mut [u8; 64];
                // SAFETY: the row of a tile by the instruction.
                unsafe {
                    if prefix == 3 {
                        tile.copy_from_slice(&*memory);
                    } else {
                        (*memory).copy_from_slice(tile);
                    }
                }
            }
            Some(length)
        }
        (0x5c, 2, 3) => {
            let (a, b) = (tiles[rm], tiles[vvvv]);
            for (sums, a) in tiles[reg].iter_mut().zip(&a) {
                multiply(sums, a, &b);
            }
            Some(5)
        }
        _ => None,
    }
}

/// Address and index of a memory operand, and the length of the instruction.
unsafe fn operand(
    at: *const u8,
    registers: &[i64; 23],
    mode: u8,
    rm: usize,
    base_high: usize,
    index_high: usize,
) -> (i64, i64, usize) {
    let register = |i: usize| registers[REGISTERS[i] as usize];
    let (mut next, mut address, mut stride) = (5, 0, 0);
    if rm == 4 {
        // SAFETY: part of the instruction.
        let sib = unsafe { *at.add(next) };
        next += 1;
        let (scale, index, base) = (
            sib >> 6,
            usize::from(sib >> 3 & 7) + index_high,
            usize::from(sib & 7) + base_high,
        );
        assert!(base & 7 != 5 || mode != 0, "an address without base");
        address += register(base);
        if index != 4 {
            stride = register(index) << scale;
        }
    } else {
        assert!(
            rm != 5 || mode != 0,
            "an address relative to the instruction"
        );
        address += register(rm + base_high);
    }
    // SAFETY: part of the instruction.
    unsafe {
        if mode == 1 {
            address += i64::from(at.add(next).cast::<i8>().read());
            next += 1;
        } else if mode == 2 {
            address += i64::from(at.add(next).cast::<i32>().read_unaligned());
            next += 4;
        }
    }
    (address, stride, next)
}

/// One row of sums. Two sums, of the even and of the odd terms, are added to the old one, in f32.
fn multiply(sums: &mut [u8; 64], a: &[u8; 64], b: &[[u8; 64]; 16]) {
    let number = |bytes: &[u8], i: usize| {
        f32::from_bits(u32::from(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])) << 16)
    };
    for (n, sum) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let mut partial = [0.0f32; 2];
        for (k, b) in b.iter().enumerate() {
            for (i, partial) in partial.iter_mut().enumerate() {
                *partial = number(a, 2 * k + i).mul_add(number(b, 2 * n + i), *partial);
            }
        }
        *sum = (f32::from_le_bytes(*sum) + (partial[0] + partial[1])).to_le_bytes();
    }
}
