//! Runs an operation that has no kernel here as the reference executor does.

use candle_core::{Device, Tensor};

use super::{OutputRegion, RunContext, Work};
use crate::error::EngineError;
use crate::reference::ReferenceOp;

/// A step of the reference executor on flat buffers.
pub(in crate::cpu) struct Fallback {
    /// Name of the operation, for errors.
    pub(in crate::cpu) op: &'static str,
    pub(in crate::cpu) reference_op: ReferenceOp,
    /// Flat buffers, with the shapes of their items.
    pub(in crate::cpu) inputs: Vec<(usize, Vec<usize>)>,
    pub(in crate::cpu) output: usize,
    pub(in crate::cpu) len: usize,
}

impl Work for Fallback {
    fn algorithm(&self) -> &'static str {
        "reference"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            // SAFETY: the flat buffers have these lengths.
            unsafe {
                let inputs = self.inputs.iter().map(|(buffer, shape)| {
                    let from = run.item_ptr(*buffer, item).cast_const().cast::<f32>();
                    let numbers = std::slice::from_raw_parts(from, shape.iter().product());
                    Tensor::from_slice(numbers, [&[1], shape.as_slice()].concat(), &Device::Cpu)
                });
                let result = inputs.collect::<candle_core::Result<Vec<_>>>().and_then(|inputs| {
                    let inputs: Vec<&Tensor> = inputs.iter().collect();
                    self.reference_op.run(&inputs)?.flatten_all()?.to_vec1::<f32>()
                });
                match result {
                    Ok(numbers) => {
                        let to = run.item_ptr(self.output, item).cast::<f32>();
                        std::slice::from_raw_parts_mut(to, self.len).copy_from_slice(&numbers);
                    }
                    Err(source) => run.failure.report(EngineError::Tensor { op: self.op, source }),
                }
            }
        }
    }
}
