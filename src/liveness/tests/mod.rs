//! Whole sessions of a synthetic head: honest ones pass, attacks do not.

mod attacks;
mod honest;
mod identity;
mod laws;
mod simulation;
