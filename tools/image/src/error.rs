//! Why an image cannot be read or written: one line for a person.

use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused it.
    #[error("{}: {what}", path.display())]
    Io { path: PathBuf, what: &'static str, source: std::io::Error },
    /// The file contradicts itself or its format.
    #[error("{}: the image is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    /// A file as it may be, but not one that is taken.
    #[error("{}: {why}", path.display())]
    Refused { path: PathBuf, why: String },
}
