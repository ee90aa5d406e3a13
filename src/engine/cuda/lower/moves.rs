//! Operations that only move numbers.

use super::{Lowering, NO_WINDOW, between};
use crate::cuda::axes::{Order, Pair};
use crate::cuda::work::{Border, Copy, Fill, WindowPlan};
use crate::graph::Node;
use crate::op::Window;
use crate::shape::{broadcast_strides, known_elements, permute, strides};

impl Lowering<'_> {
    pub(super) fn pad(&mut self, node: &Node, before: &[usize], after: &[usize], value: f32) {
        let order = self.order(node.inputs[0]);
        let from = self.have(node.inputs[0], order);
        let (inner, outer) = (self.shape(node.inputs[0]), self.shape(node.output));
        let to = self.place(node.output, order);
        if let (Order::ChannelsLast, [0, top, left], [0, bottom, right]) = (order, before, after) {
            let window = Window { pads: [*top, *left, *bottom, *right], ..NO_WINDOW };
            let window = WindowPlan::new(inner, outer, window, [1, 1]);
            let work = Border::new(window, None, value, self.element_type);
            return self.push(work, vec![from], to);
        }
        let fill = Fill::new(value, known_elements(outer), self.element_type);
        self.push(fill, Vec::new(), to);
        let steps = order.strides(outer);
        let start = before.iter().zip(&steps).map(|(before, step)| before * step).sum();
        let rows = [known_elements(inner), known_elements(outer)];
        let pair = Pair::new(inner, [&order.strides(inner), &steps], rows, &steps);
        self.push(Copy::new(pair, [0, start], self.element_type), vec![from], to);
    }

    pub(super) fn concat(&mut self, node: &Node, axis: usize) {
        let order = self.order(node.inputs[0]);
        let outer = self.shape(node.output);
        let steps = order.strides(outer);
        let to = self.place(node.output, order);
        let mut start = 0;
        for &id in &node.inputs {
            let from = self.have(id, order);
            let part = self.shape(id);
            let rows = [known_elements(part), known_elements(outer)];
            let pair = Pair::new(part, [&order.strides(part), &steps], rows, &steps);
            let work = Copy::new(pair, [0, start * steps[axis]], self.element_type);
            self.push(work, vec![from], to);
            start += part[axis];
        }
    }

    pub(super) fn slice(&mut self, node: &Node, axis: usize, [start, step]: [usize; 2]) {
        let order = self.order(node.inputs[0]);
        let from = self.have(node.inputs[0], order);
        let (outer, part) = (self.shape(node.inputs[0]), self.shape(node.output));
        let mut steps = order.strides(outer);
        let start = start * steps[axis];
        steps[axis] *= step;
        let (written, rows) = (order.strides(part), [known_elements(outer), known_elements(part)]);
        let pair = Pair::new(part, [&steps, &written], rows, &written);
        let to = self.place(node.output, order);
        self.push(Copy::new(pair, [start, 0], self.element_type), vec![from], to);
    }

    /// In the order in which no number moves, where there is one.
    pub(super) fn transpose(&mut self, node: &Node, perm: &[usize]) {
        let (x, y) = (node.inputs[0], node.output);
        let order = self.order(x);
        let from = self.have(x, order);
        let (turned, shape) = (permute(&order.strides(self.shape(x)), perm), self.shape(y));
        let to = |order: Order| between(shape, &turned, &order.strides(shape));
        let (pair, order) = match (to(Order::ChannelsLast), to(Order::Plain)) {
            (last, _) if last.is_same() && shape.len() == 3 => (last, Order::ChannelsLast),
            (_, plain) => (plain, Order::Plain),
        };
        self.moved(pair, from, (y, order));
    }

    pub(super) fn reshape(&mut self, node: &Node) {
        let storage = self.have(node.inputs[0], Order::Plain);
        self.places.insert((node.output, Order::Plain), storage);
    }

    pub(super) fn expand(&mut self, node: &Node) {
        let (x, y) = (node.inputs[0], node.output);
        let from = self.have(x, Order::Plain);
        let (inner, outer) = (self.shape(x), self.shape(y));
        let (steps, written) = (broadcast_strides(inner, outer), strides(outer));
        let rows = [known_elements(inner), known_elements(outer)];
        let pair = Pair::new(outer, [&steps, &written], rows, &written);
        self.moved(pair, from, (y, Order::Plain));
    }
}
