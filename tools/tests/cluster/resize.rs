//! A volume that is made larger while a guest uses it.

use crate::cluster::Cluster;
use crate::guest::Guest;

const MIB: u64 = 1 << 20;

#[test]
fn a_volume_grows_under_its_guest() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(60 * MIB, 4 * MIB);
    // Beyond the first group of chunks.
    cluster.ok(&["volume", "resize", "vol", "--size", "320M"]);
    guest.until_capacity(320 * MIB);
    guest.write(64 * MIB, MIB);
    guest.write(319 * MIB, MIB);

    // The daemon's next incarnation knows the size from the beginning; what it did not tell is told again.
    cluster.kill("node-1");
    cluster.ok(&["volume", "resize", "vol", "--size", "512M"]);
    cluster.up();
    guest.until_capacity(512 * MIB);
    guest.write(511 * MIB, MIB);
    for at in [60, 64, 319, 511] {
        guest.check(at * MIB, MIB);
    }
    drop(guest);
    cluster.verify_equal("vol");
}
