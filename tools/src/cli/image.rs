//! The grammar of `levee image`.

use super::{Place, SourceFile, TargetFile};
use crate::values;
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Image {
    /// Make an image of the disk in a file
    Import(ImageImport),
    /// Write an image to a file
    #[command(after_help = "\
This runs on a machine with a storage daemon: a clone of the image is attached there for the time of the export.

Examples:
  levee image export debian-12 debian-12.qcow2
  levee image export debian-12 debian-12.raw --format raw")]
    Export {
        /// Name of the image
        #[arg(value_parser = values::name)]
        name: String,
        #[command(flatten)]
        target: TargetFile,
        #[command(flatten)]
        place: Place,
    },
    /// List all images
    #[command(after_help = "Examples:
  levee image list
  levee image list --json")]
    List,
    /// Delete an image; volumes that continue from it keep what they need
    #[command(after_help = "Example:
  levee image delete debian-12")]
    Delete {
        /// Name of the image
        #[arg(value_parser = values::name)]
        name: String,
    },
}

#[derive(Args)]
#[command(after_help = "\
An image is a volume of that name with a snapshot, NAME@image, from which other volumes continue at no cost. This runs on
a machine with a storage daemon. A file is taken for qcow2 if it begins as such.

Examples:
  levee image import debian-12.qcow2 debian-12
  levee image import disk.raw golden --size 20G --copies 2
  levee volume create vm1 --from debian-12")]
pub struct ImageImport {
    #[command(flatten)]
    pub source: SourceFile,
    /// Name of the image
    #[arg(value_parser = values::name)]
    pub name: String,
    /// Size of the image's disk [default: that of the disk in the file]
    #[arg(long, value_parser = values::volume_size)]
    pub size: Option<u64>,
    /// Copies of every block
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub copies: u8,
    /// Copies that must be durable before a write is answered [default: 2, or 1 with a single copy]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub min_copies: Option<u8>,
    #[command(flatten)]
    pub place: Place,
}
