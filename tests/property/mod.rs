//! Laws that hold for all inputs.

mod pipeline;
