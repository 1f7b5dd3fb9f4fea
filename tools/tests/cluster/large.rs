//! A volume of so many chunks that what a node says of its copies does not fit into one message.

use crate::cluster::Cluster;
use crate::guest::{BLOCK, Guest, REQUEST};

const GIB: u64 = 1 << 30;
/// Of address space, in a group of four chunks.
const GROUP: u64 = GIB / 4;
/// 17,200 chunks, on one core of each node.
const SIZE: u64 = 1075 * GIB;
const LAST: u64 = SIZE - REQUEST as u64;

/// Every chunk is there, with next to nothing in it: a sparse terabyte.
#[test]
fn a_volume_of_more_than_a_tebibyte_is_written_taken_over_and_verified() {
    let cluster = Cluster::start(&["--disk-size", "1300G"]);
    cluster.create("large", &["--size", &SIZE.to_string()]);
    let mut guest = Guest::connect(&cluster.attach("large", "node-1"));
    for group in 0..SIZE / GROUP {
        guest.begin_block(group * GROUP + BLOCK as u64);
    }
    guest.finish();
    guest.write(0, REQUEST as u64);
    guest.write(LAST, REQUEST as u64);
    assert_eq!(cluster.volume("large")["chunks"], SIZE / GROUP * 4);

    // Its daemon dies and comes back, and takes it over from itself; then another node does.
    cluster.kill("node-1");
    cluster.up();
    guest.check(0, REQUEST as u64);
    guest.check(LAST, REQUEST as u64);
    guest.close();
    cluster.ok(&["volume", "detach", "large"]);
    let mut guest = Guest::connect(&cluster.attach("large", "node-2"));
    guest.check(0, REQUEST as u64);
    guest.check(LAST, REQUEST as u64);
    guest.write(LAST, REQUEST as u64);
    cluster.verify_equal("large");
    guest.close();
}
