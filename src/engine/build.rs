//! Compiles the protobuf file of the ONNX format with protox, so that no `protoc` is needed. With
//! the feature `cuda`, also compiles the CUDA kernels with nvcc.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=onnx.proto");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let onnx = protox::compile(["onnx.proto"], ["."])?;
    // Weights are not copied: they stay slices of the file's bytes.
    prost_build::Config::new().bytes([".onnx.TensorProto.raw_data"]).compile_fds(onnx)?;

    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        compile_kernels(&out)?;
        write_trampolines(&out)?;
    }
    Ok(())
}

type BuildResult = Result<(), Box<dyn std::error::Error>>;

/// Compiles each `.cu` file to PTX, which the driver translates for its GPU. The target is the
/// oldest GPU generation that today's nvcc supports, so that all later generations can run the PTX.
fn compile_kernels(out: &Path) -> BuildResult {
    const KERNELS: &str = "cuda/kernels";
    println!("cargo::rerun-if-changed={KERNELS}");
    println!("cargo::rerun-if-env-changed=NVCC");
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".to_owned());
    for file in std::fs::read_dir(KERNELS)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "cu") {
            continue;
        }
        let ptx = out.join(path.file_name().unwrap_or_default()).with_extension("ptx");
        let mut compile = Command::new(&nvcc);
        compile.args(["--ptx", "-arch=compute_75", "-o"]).arg(&ptx).arg("--output-directory");
        let status = compile.arg(out).arg(&path).status().map_err(|error| {
            let hint = "see src/engine/README.md";
            format!("feature cuda needs nvcc, and {nvcc} does not start ({error}): {hint}")
        })?;
        if !status.success() {
            return Err(format!("{nvcc} refuses {}", path.display()).into());
        }
    }
    Ok(())
}

/// Writes a trampoline for each function of CUDA's libraries: a jump through the function's slot.
/// At first every slot points to code that fills the slot. See `cuda/lazy.rs`.
fn write_trampolines(out: &Path) -> BuildResult {
    const SYMBOLS: &str = "cuda/symbols.txt";
    println!("cargo::rerun-if-changed={SYMBOLS}");
    let symbols = std::fs::read_to_string(SYMBOLS)?;
    let symbols: Vec<(&str, &str)> =
        symbols.lines().filter_map(|line| line.split_once(' ')).collect();
    let (mut assembly, mut table) = (String::new(), String::new());
    writeln!(table, "static SYMBOLS: [(&str, &CStr); {}] = [", symbols.len())?;
    for (slot, (library, name)) in symbols.iter().enumerate() {
        writeln!(
            assembly,
            ".section .text.cuda_lazy.{name},\"ax\",@progbits\n.globl {name}\n\
             .type {name},@function\n{name}:\n jmp *cuda_lazy_slots+{}(%rip)\n\
             .Lcuda_lazy_{slot}: pushq ${slot}\n jmp cuda_lazy_first",
            slot * 8,
        )?;
        writeln!(table, "    ({library:?}, c{name:?}),")?;
    }
    assembly.push_str(
        ".section .data.cuda_lazy,\"aw\",@progbits\n.globl cuda_lazy_slots\n.p2align 3\n\
         cuda_lazy_slots:\n",
    );
    for slot in 0..symbols.len() {
        writeln!(assembly, " .quad .Lcuda_lazy_{slot}")?;
    }
    assembly.push_str(FIRST_CALL);
    table.push_str("];\n");
    std::fs::write(out.join("trampolines.s"), assembly)?;
    std::fs::write(out.join("trampolines.rs"), table)?;
    Ok(())
}

/// Assembly that runs at the first call of a function. It saves every register that may hold an
/// argument, resolves the function, restores the registers and jumps to the function.
const FIRST_CALL: &str = r#"
.section .text.cuda_lazy_first,"ax",@progbits
cuda_lazy_first:
 push %rdi
 push %rsi
 push %rdx
 push %rcx
 push %r8
 push %r9
 push %rax
 push %r10
 sub $128, %rsp
 movups %xmm0, 0(%rsp)
 movups %xmm1, 16(%rsp)
 movups %xmm2, 32(%rsp)
 movups %xmm3, 48(%rsp)
 movups %xmm4, 64(%rsp)
 movups %xmm5, 80(%rsp)
 movups %xmm6, 96(%rsp)
 movups %xmm7, 112(%rsp)
 mov 192(%rsp), %rdi
 call cuda_lazy_resolve
 mov %rax, %r11
 movups 0(%rsp), %xmm0
 movups 16(%rsp), %xmm1
 movups 32(%rsp), %xmm2
 movups 48(%rsp), %xmm3
 movups 64(%rsp), %xmm4
 movups 80(%rsp), %xmm5
 movups 96(%rsp), %xmm6
 movups 112(%rsp), %xmm7
 add $128, %rsp
 pop %r10
 pop %rax
 pop %r9
 pop %r8
 pop %rcx
 pop %rdx
 pop %rsi
 pop %rdi
 add $8, %rsp
 jmp *%r11
.text
"#;
