//! The core's ports over glommio. Every import of glommio's file and task types is here or in
//! `executor.rs`.

mod disk;
mod runtime;

pub use disk::GlommioDisk;
pub use runtime::GlommioRuntime;
