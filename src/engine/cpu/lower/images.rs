//! Operations on images that are no convolutions.

use super::classes::{self, Class};
use super::{Draft, Lowering, finish};
use crate::cpu::kernels::pool::PoolKind;
use crate::cpu::pack;
use crate::cpu::work::{
    Assemble, Enlarge, GlobalMean, ImageRef, PackedFinish, Part, Pixelwise, Pool,
};
use crate::graph::{Node, ValueId};
use crate::op::{BinaryOp, Op};

impl<'g> Lowering<'g> {
    pub(super) fn affine(&mut self, node: &'g Node) {
        let Op::ScaleShift(affine) = &node.op else { unreachable!("the class says it") };
        let a = self.image(node.inputs[0]);
        let output = self.output_image(node.output);
        let shape = [a.layout.channels, a.layout.height, a.layout.width];
        let numbers = |constant| {
            let numbers = classes::along_channels(constant, shape).expect("the class says it");
            pack::per_channel(&numbers, 0.0)
        };
        let affine = Some([numbers(&affine.scale), numbers(&affine.shift)]);
        let finish = PackedFinish::Nothing;
        let (gate, b, enlarged) = (None, None, [1, 1]);
        let work = Pixelwise { a, affine, gate, b, enlarged, finish, output };
        self.push(node.op.name().to_owned(), Draft::by_block(work, vec![a.value], &output));
        self.border(output, self.classes.border_fill(node.output));
    }

    pub(super) fn activation(&mut self, node: &'g Node) {
        let Op::Activation(activation) = &node.op else { unreachable!("the class says it") };
        let a = self.image(node.inputs[0]);
        let output = self.output_image(node.output);
        let (finish, curve) = finish::packed(Some(activation), a.layout.channels);
        let (affine, gate, b, enlarged) = (None, None, None, [1, 1]);
        let work = Pixelwise { a, affine, gate, b, enlarged, finish, output };
        self.push(node.op.name().to_owned(), Draft::by_block(work, vec![a.value], &output));
        self.curve(output, curve);
        self.border(output, self.classes.border_fill(node.output));
    }

    pub(super) fn binary(&mut self, node: &'g Node, class: Class) {
        let Op::Binary(op) = &node.op else { unreachable!("the class says it") };
        let absorbed = node.inputs.iter().find_map(|&id| Some((id, self.classes.absorbed(id)?)));
        let other =
            |id: ValueId| *node.inputs.iter().find(|&&input| input != id).expect("a sum of two");
        let (a, gate, b) = match (absorbed, class) {
            (Some((product, Node { op: Op::Binary(_), inputs, .. })), _) => {
                (inputs[0], Some(inputs[1]), Some((BinaryOp::Add, other(product))))
            }
            (Some((enlarged, enlarge)), _) => {
                (other(enlarged), None, Some((BinaryOp::Add, enlarge.inputs[0])))
            }
            (None, Class::Gate) => (node.inputs[0], Some(node.inputs[1]), None),
            (None, _) => (node.inputs[0], None, Some((*op, node.inputs[1]))),
        };
        let a = self.image(a);
        let gate = gate.map(|id| self.image(id));
        let b = b.map(|(op, id)| (op, self.image(id)));
        let output = self.output_image(node.output);
        let reads = [Some(a), gate, b.map(|(_, b)| b)].into_iter().flatten();
        let reads = reads.map(|image| image.value).collect();
        let enlarged = b.map_or([1, 1], |(_, b)| factor(&b, &output));
        let (affine, finish) = (None, PackedFinish::Nothing);
        let work = Pixelwise { a, affine, gate, b, enlarged, finish, output };
        let draft = Draft::by_block(work, reads, &output);
        self.push(node.op.name().to_owned(), draft);
        self.border(output, self.classes.border_fill(node.output));
    }

    pub(super) fn pool(&mut self, node: &'g Node) {
        let (kind, window) = match &node.op {
            Op::MaxPool(window) => (PoolKind::Max, *window),
            Op::AveragePool(pool) if pool.count_include_pad => {
                (PoolKind::MeanWithBorder, pool.window)
            }
            Op::AveragePool(pool) => (PoolKind::Mean, pool.window),
            _ => unreachable!("the class says it"),
        };
        let input = self.image(node.inputs[0]);
        let output = self.output_image(node.output);
        let work = Pool { kind, window, input, output };
        let draft = Draft::by_block(work, vec![input.value], &output);
        let [high, wide] = window.kernel;
        self.push(format!("{} {high}×{wide}", node.op.name()), draft);
        self.border(output, self.classes.border_fill(node.output));
    }

    pub(super) fn global_mean(&mut self, node: &'g Node) {
        let input = self.image(node.inputs[0]);
        let output = self.output_image(node.output);
        let draft = Draft::by_block(GlobalMean { input, output }, vec![input.value], &output);
        self.push(node.op.name().to_owned(), draft);
        self.border(output, self.classes.border_fill(node.output));
    }

    pub(super) fn enlarge(&mut self, node: &'g Node) {
        let input = self.image(node.inputs[0]);
        let output = self.output_image(node.output);
        let factor =
            [output.layout.height / input.layout.height, output.layout.width / input.layout.width];
        let work = Enlarge { input, output, factor };
        let draft = Draft::by_block(work, vec![input.value], &output);
        self.push(format!("{} ×{}", node.op.name(), factor[0]), draft);
        self.border(output, self.classes.border_fill(node.output));
    }

    pub(super) fn assemble(&mut self, node: &'g Node) {
        let inputs: Vec<ImageRef> = node.inputs.iter().map(|&id| self.image(id)).collect();
        let output = self.output_image(node.output);
        let (fill, filled, start) = match &node.op {
            Op::Pad { before, value, .. } => {
                let at = |axis: usize| before.get(axis).copied().unwrap_or(0);
                let fill = self.lanes(&vec![*value; output.layout.channels], &output);
                (fill, 0..output.layout.blocks(), [at(0), at(1), at(2)])
            }
            _ => (self.lanes(&[], &output), self.beyond(&output), [0; 3]),
        };
        let [mut channel, top, left] = start;
        let mut parts = Vec::new();
        for image in inputs {
            parts.push(Part { image, channel, top, left });
            channel += image.layout.channels;
        }
        let reads = parts.iter().map(|part| part.image.value).collect();
        let work = Assemble { fill, filled, parts, output };
        let mut draft = Draft::by_block(work, reads, &output);
        draft.groups = 1;
        self.push(node.op.name().to_owned(), draft);
        self.border(output, self.classes.border_fill(node.output));
    }
}

/// Rows and columns of `large` for each of `small`.
fn factor(small: &ImageRef, large: &ImageRef) -> [usize; 2] {
    [large.layout.height / small.layout.height, large.layout.width / small.layout.width]
}
