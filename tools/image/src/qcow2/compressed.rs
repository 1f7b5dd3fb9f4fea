//! Unpacks one cluster. Never more than the cluster comes out, whatever went in.

use flate2::{Decompress, FlushDecompress};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::header::Compression;
use crate::limits::MAX_ZSTD_WINDOW_BITS;

/// Fills `cluster` from the start of `packed`, behind which other bytes may follow. Says how many were needed.
pub fn unpack(compression: Compression, packed: &[u8], cluster: &mut [u8]) -> Result<u64, String> {
    match compression {
        Compression::Deflate => inflate(packed, cluster),
        Compression::Zstd => unzstd(packed, cluster),
    }
}

fn inflate(packed: &[u8], cluster: &mut [u8]) -> Result<u64, String> {
    let mut state = Decompress::new(false);
    state.decompress(packed, cluster, FlushDecompress::Finish).map_err(|e| e.to_string())?;
    if state.total_out() != cluster.len() as u64 {
        return Err(format!("it has {} of {} bytes", state.total_out(), cluster.len()));
    }
    Ok(state.total_in())
}

fn unzstd(packed: &[u8], cluster: &mut [u8]) -> Result<u64, String> {
    let failed = |e: std::io::Error| e.to_string();
    let mut decoder = Decoder::new().map_err(failed)?;
    decoder.set_parameter(DParameter::WindowLogMax(MAX_ZSTD_WINDOW_BITS)).map_err(failed)?;
    let size = cluster.len();
    let mut input = InBuffer::around(packed);
    let mut output = OutBuffer::around(cluster);
    while output.pos() < size {
        let before = (input.pos(), output.pos());
        decoder.run(&mut input, &mut output).map_err(failed)?;
        if (input.pos(), output.pos()) == before {
            return Err(format!("it has {} of {size} bytes", output.pos()));
        }
    }
    Ok(input.pos() as u64)
}
