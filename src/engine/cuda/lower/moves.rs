//! Lowers operations that only move elements.

use super::{Lowering, NO_WINDOW, relayout};
use crate::cuda::layout::{StridedPair, ValueLayout};
use crate::cuda::work::{Border, Copy, Fill, WindowPlan};
use crate::graph::Node;
use crate::op::Window;
use crate::shape::{broadcast_strides, element_count, permute, strides};

impl Lowering<'_> {
    pub(super) fn lower_pad(&mut self, node: &Node, before: &[usize], after: &[usize], value: f32) {
        let layout = self.layout_of(node.inputs[0]);
        let from = self.buffer_in(node.inputs[0], layout);
        let (inner, outer) = (self.shape(node.inputs[0]), self.shape(node.output));
        let to = self.add_buffer(node.output, layout);
        if let (ValueLayout::ChannelsLast, [0, top, left], [0, bottom, right]) =
            (layout, before, after)
        {
            let window = Window { pads: [*top, *left, *bottom, *right], ..NO_WINDOW };
            let window_plan = WindowPlan::new(inner, outer, window, [1, 1]);
            let work = Border::new(window_plan, None, value, self.element_type);
            return self.push_step(work, vec![from], to);
        }
        let fill = Fill::new(value, element_count(outer), self.element_type);
        self.push_step(fill, Vec::new(), to);
        let (read, written) = (layout.strides(inner), layout.strides(outer));
        let start = before.iter().zip(&written).map(|(before, stride)| before * stride).sum();
        let item_strides = [element_count(inner), element_count(outer)];
        let pair = StridedPair::new(inner, [&read, &written], item_strides, &written);
        self.push_step(Copy::new(pair, [0, start], self.element_type), vec![from], to);
    }

    pub(super) fn lower_concat(&mut self, node: &Node, axis: usize) {
        let layout = self.layout_of(node.inputs[0]);
        let outer = self.shape(node.output);
        let written = layout.strides(outer);
        let to = self.add_buffer(node.output, layout);
        let mut start = 0;
        for &id in &node.inputs {
            let from = self.buffer_in(id, layout);
            let part = self.shape(id);
            let item_strides = [element_count(part), element_count(outer)];
            let read = layout.strides(part);
            let pair = StridedPair::new(part, [&read, &written], item_strides, &written);
            let work = Copy::new(pair, [0, start * written[axis]], self.element_type);
            self.push_step(work, vec![from], to);
            start += part[axis];
        }
    }

    pub(super) fn lower_slice(&mut self, node: &Node, axis: usize, [start, step]: [usize; 2]) {
        let layout = self.layout_of(node.inputs[0]);
        let from = self.buffer_in(node.inputs[0], layout);
        let (outer, part) = (self.shape(node.inputs[0]), self.shape(node.output));
        let (mut read, written) = (layout.strides(outer), layout.strides(part));
        let start = start * read[axis];
        read[axis] *= step;
        let item_strides = [element_count(outer), element_count(part)];
        let pair = StridedPair::new(part, [&read, &written], item_strides, &written);
        let to = self.add_buffer(node.output, layout);
        self.push_step(Copy::new(pair, [start, 0], self.element_type), vec![from], to);
    }

    /// Lowers a transpose, into the layout in which no element moves if there is one.
    pub(super) fn lower_transpose(&mut self, node: &Node, perm: &[usize]) {
        let (x, y) = (node.inputs[0], node.output);
        let layout = self.layout_of(x);
        let from = self.buffer_in(x, layout);
        let (permuted, shape) = (permute(&layout.strides(self.shape(x)), perm), self.shape(y));
        let pair_to = |to: ValueLayout| relayout(shape, &permuted, &to.strides(shape));
        let channels_last = pair_to(ValueLayout::ChannelsLast);
        let (pair, layout) = match channels_last.is_identity() && shape.len() == 3 {
            true => (channels_last, ValueLayout::ChannelsLast),
            false => (pair_to(ValueLayout::Flat), ValueLayout::Flat),
        };
        self.copy_or_reuse(pair, from, (y, layout));
    }

    pub(super) fn lower_reshape(&mut self, node: &Node) {
        let buffer = self.buffer_in(node.inputs[0], ValueLayout::Flat);
        self.buffer_of.insert((node.output, ValueLayout::Flat), buffer);
    }

    pub(super) fn lower_expand(&mut self, node: &Node) {
        let (x, y) = (node.inputs[0], node.output);
        let from = self.buffer_in(x, ValueLayout::Flat);
        let (inner, outer) = (self.shape(x), self.shape(y));
        let (read, written) = (broadcast_strides(inner, outer), strides(outer));
        let item_strides = [element_count(inner), element_count(outer)];
        let pair = StridedPair::new(outer, [&read, &written], item_strides, &written);
        self.copy_or_reuse(pair, from, (y, ValueLayout::Flat));
    }
}
