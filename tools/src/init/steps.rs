//! The page that says what to do with the files.

use super::plan::{DiskSpec, Host, Plan, is_device};
use std::fmt::Write;

pub fn page(plan: &Plan<'_>) -> String {
    let hosts: Vec<_> = plan.hosts().collect();
    let mut page = String::from(
        "# Setting the cluster up\n\n\
         | folder | address | runs |\n| --- | --- | --- |\n",
    );
    for host in &hosts {
        // Writing to a String does not fail.
        let _ = writeln!(page, "| `{}` | {} | {} |", host.name, host.address, units(host).join(", "));
    }
    page.push_str(
        "\n## 1. On every host\n\n\
         Install the package, put the host's files in place, and let it say what is missing:\n\n\
         ```\napt install ./levee_*.deb\ninstall -m 0644 -t /etc/levee FOLDER/*.toml\nlevee init check\n```\n\n\
         ## 2. Disks\n\n\
         **What is on these disks is lost.** Look at each name before the line is run, once:\n\n",
    );
    for host in hosts.iter().filter(|host| host.node.is_some_and(|node| !node.disks.is_empty())) {
        let _ = write!(page, "On {}:\n\n```\n{}```\n\n", host.name, formats(plan, host));
    }
    page.push_str("## 3. Meta servers, then storage daemons\n\n");
    for (what, unit) in [("meta server", "levee-metad"), ("node", "levee-stored")] {
        let names: Vec<_> = hosts.iter().filter(|h| units(h).contains(&unit)).map(|h| h.name.as_str()).collect();
        let _ = write!(page, "Every {what} ({}):\n\n```\nsystemctl enable --now {unit}\n```\n\n", names.join(", "));
    }
    let _ = write!(
        page,
        "## 4. Look at it\n\n```\nexport LEVEE_CLUSTER={}\nlevee status\nlevee doctor\n```\n\n\
         All meta servers answer, one of them leads, and all nodes are up. Then, on a host with virtual machines:\n\n\
         ```\nadduser libvirt-qemu levee        # QEMU's user may use the volumes' sockets; restart libvirtd after it\n\
         levee volume create vm1 --size 10G\nlevee volume attach vm1\nlevee qemu vm1\n```\n",
        plan.meta_urls().join(",")
    );
    page
}

fn units(host: &Host<'_>) -> Vec<&'static str> {
    let units = [("levee-metad", host.member.is_some()), ("levee-stored", host.node.is_some())];
    units.into_iter().filter(|(_, here)| *here).map(|(unit, _)| unit).collect()
}

fn formats(plan: &Plan<'_>, host: &Host<'_>) -> String {
    let cores = plan.args.cores;
    let line = |disk: &DiskSpec| match (is_device(&disk.path), plan.args.disk_size) {
        (false, Some(size)) => {
            let path = disk.path.display();
            format!("levee-stored format {path} --size {} --cores {cores} && chown levee: {path}\n", exact_size(size))
        }
        _ => format!("levee-stored format {} --cores {cores}\n", disk.path.display()),
    };
    host.node.iter().flat_map(|node| &node.disks).map(line).collect()
}

/// A size as options take it, without rounding.
fn exact_size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let whole = units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift));
    whole.map_or(bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        for (bytes, text) in [(1 << 40, "1T"), (3 << 29, "1536M"), (4096, "4K"), (4097, "4097")] {
            assert_eq!(exact_size(bytes), text);
        }
    }
}
