//! Tests of the emulator against the Intel SDM, and of what the AMX kernels must leave intact.

use super::emulator::{self, Instruction, Tiles, decode};
use super::shapes::{Shape, any_shape};
use super::{KernelChoice, inputs, kernel_set, load, run};
use crate::Precision;
use crate::cpu::lanes::bf16::to_bf16;
use crate::cpu::peak::peak_flops;
use crate::fixtures::NetworkBuilder;
use crate::fixtures::{Lcg, ints, relative_difference};
use crate::graph::Graph;

/// Register number n holds 1000 n.
fn registers() -> [u64; 16] {
    std::array::from_fn(|number| 1000 * number as u64)
}

fn decoded(code: &[u8]) -> Option<Instruction> {
    let mut bytes = code.iter().copied();
    let found = decode(|| bytes.next().unwrap(), &registers());
    found.map(|(instruction, length)| {
        assert_eq!(length, code.len());
        instruction
    })
}

/// The bytes are those of the SDM's encoding and of GNU `as`.
#[test]
fn instructions_are_decoded_as_the_manual_encodes_them() {
    use Instruction::*;
    let cases: [(&[u8], Instruction); 12] = [
        // ldtilecfg [rax]; ldtilecfg [rsp + 8]; ldtilecfg [r12 + 0x100]
        (&[0xc4, 0xe2, 0x78, 0x49, 0x00], LoadConfig { address: 0 }),
        (&[0xc4, 0xe2, 0x78, 0x49, 0x44, 0x24, 0x08], LoadConfig { address: 4008 }),
        (
            &[0xc4, 0xc2, 0x78, 0x49, 0x84, 0x24, 0x00, 0x01, 0x00, 0x00],
            LoadConfig { address: 12_256 },
        ),
        // tilerelease
        (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Release),
        // tilezero tmm3
        (&[0xc4, 0xe2, 0x7b, 0x49, 0xd8], Zero { tile: 3 }),
        // tileloadd tmm4, [rcx + rdx]; tmm0, [r13 + r14 - 64]; tmm7, [rax + r9 * 8]
        (&[0xc4, 0xe2, 0x7b, 0x4b, 0x24, 0x11], Load { tile: 4, address: 1000, stride: 2000 }),
        (
            &[0xc4, 0x82, 0x7b, 0x4b, 0x44, 0x35, 0xc0],
            Load { tile: 0, address: 12_936, stride: 14_000 },
        ),
        (&[0xc4, 0xa2, 0x7b, 0x4b, 0x3c, 0xc8], Load { tile: 7, address: 0, stride: 72_000 }),
        // tilestored [rdi + rsi], tmm2; [r8 + rax], tmm5
        (&[0xc4, 0xe2, 0x7a, 0x4b, 0x14, 0x37], Store { tile: 2, address: 7000, stride: 6000 }),
        (&[0xc4, 0xc2, 0x7a, 0x4b, 0x2c, 0x00], Store { tile: 5, address: 8000, stride: 0 }),
        // tdpbf16ps tmm0, tmm4, tmm5; tmm3, tmm6, tmm7
        (&[0xc4, 0xe2, 0x52, 0x5c, 0xc4], Multiply { sum: 0, a: 4, b: 5 }),
        (&[0xc4, 0xe2, 0x42, 0x5c, 0xde], Multiply { sum: 3, a: 6, b: 7 }),
    ];
    for (code, instruction) in cases {
        assert_eq!(decoded(code), Some(instruction), "{code:02x?}");
    }
}

#[test]
fn other_instructions_are_not_decoded() {
    let others: [&[u8]; 6] = [
        // ud2 and the bytes after it
        &[0x0f, 0x0b, 0x00, 0x00, 0x00],
        // vpdpbusd xmm0, xmm1, xmm2
        &[0xc4, 0xe2, 0x71, 0x50, 0xc2],
        // tdpbssd tmm0, tmm4, tmm5
        &[0xc4, 0xe2, 0x53, 0x5e, 0xc4],
        // sttilecfg [rax]
        &[0xc4, 0xe2, 0x79, 0x49, 0x00],
        // tileloaddt1 tmm4, [rcx + rdx]
        &[0xc4, 0xe2, 0x79, 0x4b, 0x24, 0x11],
        // tdpbf16ps with W set
        &[0xc4, 0xe2, 0xd2, 0x5c, 0xc4],
    ];
    for code in others {
        assert_eq!(decoded(code), None, "{code:02x?}");
    }
}

/// Configures tiles 0, 1 and 2, each by its rows and the bytes of a row.
fn configured(shapes: [[u8; 2]; 3]) -> Option<Tiles> {
    let mut config = [0; 64];
    config[0] = 1;
    for (tile, [rows, bytes]) in shapes.into_iter().enumerate() {
        (config[48 + tile], config[16 + 2 * tile]) = (rows, bytes);
    }
    let mut tiles = Tiles::RELEASED;
    let address = config.as_ptr() as u64;
    // SAFETY: the instruction reads the 64 bytes of `config`.
    unsafe { tiles.execute(Instruction::LoadConfig { address }) }.map(|()| tiles)
}

fn execute(tiles: &mut Tiles, instruction: Instruction) -> Option<()> {
    // SAFETY: the tests below pass memory for tiles of the configured shapes.
    unsafe { tiles.execute(instruction) }
}

/// Multiplies one row of pairs by a column of pairs, and returns the product plus `sum`.
fn product(sum: f32, a: &[f32], b: &[f32]) -> f32 {
    let bytes = 2 * a.len() as u8;
    let mut tiles = configured([[1, 4], [1, bytes], [bytes / 4, 4]]).unwrap();
    let [a, b] = [a, b].map(|x| x.iter().map(|&x| to_bf16(x)).collect::<Vec<u16>>());
    let mut sum = sum;
    for (tile, address, stride) in
        [(0, &raw const sum as u64, 0), (1, a.as_ptr() as u64, 0), (2, b.as_ptr() as u64, 4)]
    {
        execute(&mut tiles, Instruction::Load { tile, address, stride }).unwrap();
    }
    execute(&mut tiles, Instruction::Multiply { sum: 0, a: 1, b: 2 }).unwrap();
    let address = &raw mut sum as u64;
    execute(&mut tiles, Instruction::Store { tile: 0, address, stride: 0 }).unwrap();
    sum
}

/// The sums of even and of odd products are kept apart, then added to each other, then to the sum.
#[test]
fn products_are_added_in_the_order_of_the_manual() {
    assert_eq!(product(10.0, &[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0, 100.0, 1000.0]), 4331.0);
    let huge = 2.0_f32.powi(30);
    // In any other order, 1 would be lost in the huge numbers, or the huge numbers in the sum.
    assert_eq!(product(0.0, &[huge, 1.0, -huge, 0.0], &[1.0; 4]), 1.0);
    assert_eq!(product(1.0, &[huge, -huge, 0.0, 0.0], &[1.0; 4]), 1.0);
    assert_eq!(product(huge, &[1.0, 1.0, 0.0, -huge], &[1.0; 4]), 0.0);
}

#[test]
fn denormal_numbers_are_zeros_in_and_out() {
    let tiny = f32::MIN_POSITIVE;
    assert_eq!(product(0.0, &[tiny / 2.0, 0.0], &[1e30, 0.0]), 0.0);
    assert_eq!(product(0.0, &[tiny, 0.0], &[0.5, 0.0]), 0.0);
    assert_eq!(product(tiny / 2.0, &[tiny, 0.0], &[1.0, 0.0]), tiny);
    assert_eq!(product(0.0, &[tiny, 0.0], &[-1.0, 0.0]), -tiny);
}

#[test]
fn the_emulator_refuses_what_a_processor_refuses() {
    let fits = [[2, 64], [2, 32], [8, 64]];
    assert!(execute(&mut configured(fits).unwrap(), Instruction::Zero { tile: 0 }).is_some());
    let multiply = Instruction::Multiply { sum: 0, a: 1, b: 2 };
    assert!(execute(&mut configured(fits).unwrap(), multiply).is_some());
    for shapes in [
        [[3, 64], [2, 32], [8, 64]],
        [[2, 32], [2, 32], [8, 64]],
        [[2, 64], [2, 64], [8, 64]],
        [[2, 64], [2, 32], [0, 0]],
    ] {
        assert!(execute(&mut configured(shapes).unwrap(), multiply).is_none(), "{shapes:?}");
    }
    assert!(execute(&mut configured(fits).unwrap(), Instruction::Zero { tile: 3 }).is_none());
    assert!(configured([[17, 64], [0, 0], [0, 0]]).is_none());
    assert!(configured([[16, 65], [0, 0], [0, 0]]).is_none());
    let mut released = Tiles::RELEASED;
    assert!(execute(&mut released, multiply).is_none());
}

/// A convolution of any shape whose input and output are stored exactly. Only the order of its sums
/// may differ between kernels.
fn exact_convolution(random: &mut Lcg) -> Option<Graph> {
    let shape = any_shape(random);
    let mut draft = NetworkBuilder::default();
    draft.push("Relu", &["x"], "a", &[]);
    draft.convolution("a", "y", &shape, 1);
    shape.fits().then(|| draft.graph(&[shape.channels, shape.sides[0], shape.sides[1]]))
}

/// A convolution with a residual and slopes. Its input and output images have different borders.
fn residual_convolution(random: &mut Lcg) -> Graph {
    let channels = 1 + random.below(70);
    let sides = [1 + random.below(20), 1 + random.below(20)];
    let shape =
        Shape { channels, sides, out: channels, kernel: [3, 3], strides: [1, 1], pads: [1; 4] };
    let mut draft = NetworkBuilder::default();
    draft.push("Relu", &["x"], "a", &[]);
    draft.convolution("a", "b", &shape, 1);
    draft.push("Add", &["b", "a"], "c", &[]);
    draft.noise("slopes", &[channels, 1, 1], 0.5);
    draft.push("PRelu", &["c", "slopes"], "y", &[]);
    draft.graph(&[channels, sides[0], sides[1]])
}

#[test]
fn convolutions_of_any_shape_differ_from_others_in_the_order_of_sums_only() {
    if kernel_set(KernelChoice::Amx, Precision::Bf16).is_none() {
        return;
    }
    let mut random = Lcg::new(5);
    let mut graphs: Vec<Graph> = (0..150).filter_map(|_| exact_convolution(&mut random)).collect();
    assert!(graphs.len() > 75);
    graphs.extend((0..25).map(|_| residual_convolution(&mut random)));
    for (number, graph) in graphs.iter().enumerate() {
        let input = inputs(graph, 2);
        let [found, expected] = [KernelChoice::Amx, KernelChoice::Portable].map(|kernels| {
            run(&load(graph, kernels, Precision::Bf16, 1), graph, 2, &input).concat()
        });
        let difference = relative_difference(&found, &expected);
        assert!(difference <= 1e-5, "number {number}: {difference:.1e}");
    }
}

/// Kernels have one to five columns, with one or two blocks and one or two pieces. The number of
/// products follows from the taps of two and of one. No tile is in use after a run.
#[test]
fn a_run_multiplies_whole_taps_and_releases_its_tiles() {
    let is_emulated = KernelChoice::Amx.select(Precision::Bf16).is_err();
    if !is_emulated || kernel_set(KernelChoice::Amx, Precision::Bf16).is_none() {
        return;
    }
    for (side, columns) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
        for out in [16, 32] {
            let mut draft = NetworkBuilder::default();
            draft.push("Relu", &["x"], "a", &[]);
            draft.noise("weight", &[out, 40, side, side], 0.1);
            let pads = ints("pads", &[side as i64 / 2; 4]);
            draft.push("Conv", &["a", "weight"], "y", &[pads]);
            let graph = draft.graph(&[40, 9, 9]);
            let network = load(&graph, KernelChoice::Amx, Precision::Bf16, 1);
            let (is_in_use, before) = emulator::state();
            assert!(!is_in_use);
            run(&network, &graph, 1, &inputs(&graph, 1));
            let (is_in_use, behind) = emulator::state();
            assert!(!is_in_use, "tiles are released");
            // The rows of the input follow each other, with both borders between them.
            let high = 9 + 2 * (side / 2) - (side - 1);
            let positions = (high - 1) * (9 + 2 * (side / 2)) + high;
            let products = positions.div_ceil(16) * (out / 16) * 3 * side * columns;
            assert_eq!(behind - before, products as u64, "{side}×{side} to {out}");
        }
    }
}

/// Every product has full depth, and each step has four: 8 blocks × 4 products for each line.
#[test]
fn the_peak_is_that_of_whole_products() {
    let is_emulated = KernelChoice::Amx.select(Precision::Bf16).is_err();
    let Some(kernels) = kernel_set(KernelChoice::Amx, Precision::Bf16).filter(|_| is_emulated)
    else {
        return;
    };
    let (_, before) = emulator::state();
    assert!(peak_flops(kernels, 1) > 0.0);
    let (is_in_use, behind) = emulator::state();
    let lines = 1000 / 64 * 64;
    assert_eq!((is_in_use, behind - before), (false, lines * 8 * 4));
}
