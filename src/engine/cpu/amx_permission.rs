//! Finds out whether this process may use AMX, and asks the system for permission.
//!
//! AMX tiles are 8 KiB of state per thread. Linux saves this state only for processes that asked
//! for it.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::io;

/// Bits of `EDX` of `CPUID` leaf 7: AMX-BF16 and AMX-TILE.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;

/// Bits of `XCR0`, the states that the system saves: the tile configuration and the tile data.
const TILE_STATES: u64 = 1 << 17 | TILE_DATA_STATE;
const TILE_DATA_STATE: u64 = 1 << TILE_DATA;
const TILE_DATA: u64 = 18;

/// Requests of `arch_prctl`, as in Linux's `asm/prctl.h`.
const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;

/// Returns whether the processor has AMX with bfloat16 and the system has enabled the tile states.
pub(super) fn has_amx() -> bool {
    if !is_x86_feature_detected!("xsave") {
        return false;
    }
    let leaf = __cpuid_count(7, 0);
    has_amx_bits(leaf.edx, enabled_states())
}

fn has_amx_bits(leaf_7_edx: u32, states: u64) -> bool {
    leaf_7_edx & (AMX_TILE | AMX_BF16) == AMX_TILE | AMX_BF16 && states & TILE_STATES == TILE_STATES
}

/// Returns `XCR0`, the states that the system saves.
fn enabled_states() -> u64 {
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: `XCR0` exists if the system has enabled `XGETBV`, which the detected feature
        // shows.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the caller has detected the feature.
    unsafe { xcr0() }
}

/// Asks the system to let all threads of the process use the tiles. A second request changes
/// nothing. Threads that already run must have signal stacks large enough for tiles, as Rust's
/// threads have.
///
/// # Errors
/// If the system refuses, or is not Linux.
pub(super) fn request() -> io::Result<()> {
    arch_prctl(ARCH_REQ_XCOMP_PERM, TILE_DATA)?;
    let mut permitted = 0_u64;
    arch_prctl(ARCH_GET_XCOMP_PERM, &raw mut permitted as u64)?;
    if permitted & TILE_DATA_STATE == 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// `argument` is the number of a state for [`ARCH_REQ_XCOMP_PERM`], and the address of a `u64` for
/// [`ARCH_GET_XCOMP_PERM`].
#[cfg(target_os = "linux")]
fn arch_prctl(request: u64, argument: u64) -> io::Result<()> {
    /// Number of the system call on x86-64.
    const ARCH_PRCTL: u64 = 158;
    let result: i64;
    // SAFETY: the system call writes to at most eight bytes, which belong to the caller. It changes
    // only the three registers named here.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") request,
            in("rsi") argument,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}

#[cfg(not(target_os = "linux"))]
fn arch_prctl(_: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amx_needs_both_features_and_both_states() {
        let (features, states) = (AMX_TILE | AMX_BF16, TILE_STATES);
        assert!(has_amx_bits(u32::MAX, u64::MAX) && has_amx_bits(features, states));
        for lacking in [AMX_TILE, AMX_BF16] {
            assert!(!has_amx_bits(!lacking, states));
        }
        for lacking in [17, 18] {
            assert!(!has_amx_bits(features, !(1 << lacking)));
        }
    }

    #[test]
    fn the_system_permits_tiles_only_where_there_are_any() {
        match (has_amx(), request()) {
            (false, answer) => assert!(answer.is_err()),
            // A second request changes nothing.
            (true, Ok(())) => request().unwrap(),
            (true, Err(refused)) => assert!(refused.raw_os_error().is_some()),
        }
    }
}
