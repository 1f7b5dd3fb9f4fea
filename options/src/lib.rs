//! What the command lines of all programs have in common: options from a file, manual pages, completion.
//!
//! A program's options are declared once, to clap. A file of options has no declaration of its own: its keys are
//! the long names, and its values become arguments before clap sees any ([`merge`]). So an option is checked by one
//! rule wherever it is given, and a new one works in files without a line here.
//!
//! What is given in several places is taken from the command line, else from the environment, else from the file.
#![forbid(unsafe_code)]

pub mod file;
mod limits;
mod merge;
pub mod pages;
pub mod sample;

pub use merge::{parse, try_parse_from};
