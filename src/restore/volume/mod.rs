//! A stream of tar members as files beneath a folder.

mod decode;
pub mod parse;
