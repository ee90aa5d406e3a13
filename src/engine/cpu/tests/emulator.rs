//! Emulates AMX on processors without it. There, AMX instructions raise `SIGILL`, and a signal
//! handler does what the instruction would do. So tests run the machine code of the kernels.
//!
//! The emulator knows the six instructions that the kernels use, as the Intel SDM (volume 2,
//! chapters 3 and 4) encodes and defines them. If it does not know an instruction, or a processor
//! would refuse it, the signal ends the process.

use std::cell::UnsafeCell;
use std::sync::OnceLock;

use crate::Precision;
use crate::cpu::kernels::{self, KernelSet};
use crate::cpu::select::KernelChoice;

/// Returns the AMX kernels, to be emulated. Returns `None` if the processor lacks AVX-512 with
/// bfloat16, which these kernels need too.
#[expect(clippy::print_stdout, reason = "a test that checks less than elsewhere says so")]
pub(super) fn amx() -> Option<&'static KernelSet> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let is_installed = *INSTALLED.get_or_init(|| {
        let has_the_rest = KernelChoice::Avx512.select(Precision::Bf16).is_ok();
        if has_the_rest {
            install();
        } else {
            println!("AMX kernels are not tested: this processor has no AVX-512 with bfloat16");
        }
        has_the_rest
    });
    is_installed.then_some(&kernels::AMX_BF16)
}

/// One instruction, with resolved addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instruction {
    LoadConfig { address: u64 },
    Release,
    Zero { tile: usize },
    Load { tile: usize, address: u64, stride: u64 },
    Store { tile: usize, address: u64, stride: u64 },
    Multiply { sum: usize, a: usize, b: usize },
}

/// Decodes the instruction whose bytes `code` returns one by one. `registers` are in the order of
/// their numbers. Returns the instruction and its length in bytes.
pub(super) fn decode(
    mut code: impl FnMut() -> u8,
    registers: &[u64; 16],
) -> Option<(Instruction, usize)> {
    // The three bytes of VEX: C4; inverted R, X, B and the map 0F38; W, inverted vvvv, L and
    // prefix.
    let [escape, extensions, tail] = [code(), code(), code()];
    if escape != 0xc4 || extensions & 0x1f != 0b00010 || tail & 0b1000_0100 != 0 {
        return None;
    }
    let [r, x, b] = [7, 6, 5].map(|bit| !extensions >> bit & 1);
    let (other, prefix) = (usize::from(!tail >> 3 & 15), tail & 3);
    let (opcode, modrm) = (code(), code());
    let mode = modrm >> 6;
    let register = usize::from(modrm >> 3 & 7);
    let low = usize::from(modrm & 7);
    // Tile numbers have three bits; only TDPBF16PS has a third operand.
    if r != 0 || (opcode != 0x5c && other != 0) || other > 7 {
        return None;
    }
    if mode == 3 {
        let instruction = match (opcode, prefix, register, low) {
            (0x49, 0, 0, 0) => Instruction::Release,
            (0x49, 3, tile, 0) => Instruction::Zero { tile },
            (0x5c, 2, sum, a) if b == 0 => Instruction::Multiply { sum, a, b: other },
            _ => return None,
        };
        return Some((instruction, 5));
    }
    let (memory, bytes) = address(&mut code, registers, [mode, modrm & 7, x, b])?;
    let instruction = match (opcode, prefix, register, memory.index) {
        (0x49, 0, 0, index) => {
            let address = memory.base.wrapping_add(index.unwrap_or(0));
            Instruction::LoadConfig { address }
        }
        (0x4b, 3, tile, Some(stride)) => Instruction::Load { tile, address: memory.base, stride },
        (0x4b, 2, tile, Some(stride)) => Instruction::Store { tile, address: memory.base, stride },
        _ => return None,
    };
    Some((instruction, 5 + bytes))
}

/// An operand in memory: the base with displacement, and the scaled index.
struct Memory {
    base: u64,
    index: Option<u64>,
}

/// Returns the operand in memory, and the bytes of SIB and displacement. Addresses without a base
/// register are not supported.
fn address(
    code: &mut impl FnMut() -> u8,
    registers: &[u64; 16],
    [mode, low, x, b]: [u8; 4],
) -> Option<(Memory, usize)> {
    let mut base = low;
    let mut index = None;
    let mut bytes = 0;
    if low == 4 {
        let sib = code();
        bytes += 1;
        base = sib & 7;
        let number = (sib >> 3 & 7) | x << 3;
        index = (number != 4).then(|| registers[usize::from(number)] << (sib >> 6));
    }
    if mode == 0 && base == 5 {
        return None;
    }
    let displacement = match mode {
        0 => 0,
        1 => i64::from(code() as i8),
        _ => i64::from(i32::from_le_bytes([code(), code(), code(), code()])),
    };
    bytes += [0, 1, 4][usize::from(mode)];
    let base = registers[usize::from(base | b << 3)].wrapping_add_signed(displacement);
    Some((Memory { base, index }, bytes))
}

/// The tiles of a thread.
pub(super) struct Tiles {
    is_configured: bool,
    row_bytes: [usize; 8],
    rows: [usize; 8],
    data: [[[u8; 64]; 16]; 8],
    /// Products since the thread started.
    products: u64,
}

thread_local! {
    /// It has no destructor and no lazy initialisation, so a signal handler may use it.
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::RELEASED) };
}

/// Returns whether this thread has tiles in use, and its number of products.
pub(super) fn state() -> (bool, u64) {
    TILES.with(|tiles| {
        // SAFETY: the tiles belong to this thread, and the handler runs only at an AMX instruction.
        let tiles = unsafe { &*tiles.get() };
        (tiles.is_configured, tiles.products)
    })
}

impl Tiles {
    pub(super) const RELEASED: Self = Self {
        is_configured: false,
        row_bytes: [0; 8],
        rows: [0; 8],
        data: [[[0; 64]; 16]; 8],
        products: 0,
    };

    /// Executes an instruction. Returns `None` if a processor would raise an exception.
    ///
    /// # Safety
    /// The memory that the instruction reads and writes is valid for it.
    pub(super) unsafe fn execute(&mut self, instruction: Instruction) -> Option<()> {
        match instruction {
            Instruction::LoadConfig { address } => {
                // SAFETY: the caller guarantees 64 bytes.
                self.configure(unsafe { &*(address as *const [u8; 64]) })?;
            }
            Instruction::Release => *self = Self { products: self.products, ..Self::RELEASED },
            Instruction::Zero { tile } => {
                self.shape(tile)?;
                self.data[tile] = [[0; 64]; 16];
            }
            Instruction::Load { tile, address, stride } => {
                let [rows, bytes] = self.shape(tile)?;
                self.data[tile] = [[0; 64]; 16];
                for (at, row) in self.data[tile][..rows].iter_mut().enumerate() {
                    let from = address.wrapping_add(stride.wrapping_mul(at as u64));
                    // SAFETY: the caller guarantees a row of the tile.
                    unsafe { row.as_mut_ptr().copy_from(from as *const u8, bytes) };
                }
            }
            Instruction::Store { tile, address, stride } => {
                let [rows, bytes] = self.shape(tile)?;
                for (at, row) in self.data[tile][..rows].iter().enumerate() {
                    let to = address.wrapping_add(stride.wrapping_mul(at as u64));
                    // SAFETY: the caller guarantees a row of the tile.
                    unsafe { row.as_ptr().copy_to(to as *mut u8, bytes) };
                }
            }
            Instruction::Multiply { sum, a, b } => self.multiply(sum, a, b)?,
        }
        Some(())
    }

    /// Returns the rows of a tile in use, and the bytes of a row.
    fn shape(&self, tile: usize) -> Option<[usize; 2]> {
        let shape = [self.rows[tile], self.row_bytes[tile]];
        (self.is_configured && !shape.contains(&0)).then_some(shape)
    }

    /// Executes `LDTILECFG` with palette 1, the only one that the kernels load.
    fn configure(&mut self, config: &[u8; 64]) -> Option<()> {
        let is_reserved_zero = config[1..16].iter().chain(&config[32..48]).chain(&config[56..]);
        if config[0] != 1 || is_reserved_zero.into_iter().any(|&byte| byte != 0) {
            return None;
        }
        *self = Self { is_configured: true, products: self.products, ..Self::RELEASED };
        for tile in 0..8 {
            let at = 16 + 2 * tile;
            self.row_bytes[tile] = usize::from(u16::from_le_bytes([config[at], config[at + 1]]));
            self.rows[tile] = usize::from(config[48 + tile]);
        }
        let fits = self.rows.iter().all(|&rows| rows <= 16)
            && self.row_bytes.iter().all(|&bytes| bytes <= 64);
        fits.then_some(())
    }

    /// Executes `TDPBF16PS`.
    fn multiply(&mut self, sum: usize, a: usize, b: usize) -> Option<()> {
        let [rows, bytes] = self.shape(sum)?;
        let [a_rows, a_bytes] = self.shape(a)?;
        let [b_rows, b_bytes] = self.shape(b)?;
        let is_distinct = sum != a && sum != b && a != b;
        let fits = a_rows == rows && b_bytes == bytes && b_rows * 4 == a_bytes;
        if !is_distinct || !fits || !bytes.is_multiple_of(4) || !a_bytes.is_multiple_of(4) {
            return None;
        }
        self.products += 1;
        let weights: [[f32; 32]; 16] = self.data[b].map(|row| numbers(&row));
        for row in 0..rows {
            let pixels = numbers(&self.data[a][row]);
            // SAFETY: the emulator is installed only on processors with AVX-512, which have FMA.
            let products = unsafe { dot(&pixels[..a_bytes / 2], &weights[..b_rows]) };
            let sums = self.data[sum][row].as_chunks_mut::<4>().0;
            for (sum, pair) in sums[..bytes / 4].iter_mut().zip(products.as_chunks::<2>().0) {
                let product = flush_denormal(pair[0] + pair[1]);
                let all = flush_denormal(flush_denormal(f32::from_le_bytes(*sum)) + product);
                *sum = all.to_le_bytes();
            }
        }
        Some(())
    }
}

/// Sums the even and the odd products of a row separately, over the rows of the other matrix.
#[target_feature(enable = "avx512f,fma")]
fn dot(pixels: &[f32], weights: &[[f32; 32]]) -> [f32; 32] {
    let mut sums = [0.0; 32];
    for (pair, weights) in pixels.as_chunks::<2>().0.iter().zip(weights) {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = flush_denormal(pair[at % 2].mul_add(weights[at], *sum));
        }
    }
    sums
}

/// Returns the bfloat16 numbers of a row, with denormal numbers as zeros.
fn numbers(row: &[u8; 64]) -> [f32; 32] {
    let mut numbers = [0.0; 32];
    for (number, bytes) in numbers.iter_mut().zip(row.as_chunks::<2>().0) {
        *number = flush_denormal(f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16));
    }
    numbers
}

/// Replaces a denormal number by zero of the same sign.
#[inline(always)]
fn flush_denormal(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x }
}

/// The indices of the general registers in a signal's context, in the order of their numbers.
const REGISTERS: [libc::c_int; 16] = [
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

fn install() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = emulate;
    // SAFETY: an action of zeros is valid, and the handler has the signature that `SA_SIGINFO`
    // requires. The handler calls only functions that a signal handler may call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
    }
}

extern "C" fn emulate(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the operating system passes the context of the interrupted thread, whose instruction
    // pointer is at an instruction. The AMX kernels guarantee the memory of their instructions.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let mut next = registers[libc::REG_RIP as usize] as *const u8;
        let code = || {
            let byte = *next;
            next = next.add(1);
            byte
        };
        let values = REGISTERS.map(|register| registers[register as usize] as u64);
        let done = decode(code, &values).and_then(|(instruction, bytes)| {
            TILES.with(|tiles| (*tiles.get()).execute(instruction))?;
            Some(bytes)
        });
        match done {
            Some(bytes) => registers[libc::REG_RIP as usize] += bytes as i64,
            // Without a handler, the instruction raises the signal again and ends the process.
            None => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}
