//! kbak
fn main() {}
