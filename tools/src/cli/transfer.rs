//! What commands say that move whole disks between files and volumes.

use crate::values;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// How a disk lies in a file.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FileFormat {
    Raw,
    Qcow2,
}

impl FileFormat {
    pub fn format(self) -> levee_image::Format {
        match self {
            FileFormat::Raw => levee_image::Format::Raw,
            FileFormat::Qcow2 => levee_image::Format::Qcow2,
        }
    }
}

/// A file with a disk.
#[derive(Args)]
pub struct SourceFile {
    /// File with the disk
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Format of the file [default: qcow2 if it begins as such, else raw, unless it is known to be something else]
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// Also read a qcow2 file that is completed by another one, in the same folder or below it
    #[arg(long)]
    pub allow_backing: bool,
    /// Also read a compressed file that unpacks to more than 200 times its size
    #[arg(long)]
    pub allow_expansion: bool,
}

/// A file to be written.
#[derive(Args)]
pub struct TargetFile {
    /// File to create
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Format of the file [default: what its name says, .raw or .qcow2, else qcow2]
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// Where a volume is attached for the time of a command.
#[derive(Args)]
pub struct Place {
    /// Node on this machine that serves the volume meanwhile [default: one that is found]
    #[arg(long, value_parser = values::name)]
    pub node: Option<String>,
    /// How long to wait until it is served
    #[arg(long, value_parser = values::duration, default_value = "30s")]
    pub timeout: Duration,
}
