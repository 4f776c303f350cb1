//! Laws that hold for all inputs.

mod pipeline;

mod trust;
