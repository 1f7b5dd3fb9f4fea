//! The grammar of `levee snapshot`.

use super::Measure;
use crate::values;
use clap::Subcommand;
use levee_proto::api::SnapshotName;
use std::time::Duration;

#[derive(Subcommand)]
pub enum Snapshot {
    /// Take snapshots of volumes, in use or not
    #[command(after_help = "\
Everything that the guest was told is written before the command starts is in the snapshot. Snapshots of several
volumes are of one moment: none has what was written after something else was answered that another lacks. All of them
are taken, or none.

Examples:
  levee snapshot create vm1@before-upgrade
  levee snapshot create vm1@monday vm2@monday
  levee volume create vm2 --from vm1@monday     a volume that continues from it")]
    Create {
        /// Volume, and name of its new snapshot
        #[arg(value_name = "VOLUME@NAME", required = true, value_parser = values::snapshot)]
        names: Vec<SnapshotName>,
        /// How long to wait until enough copies are known to hold all of it
        #[arg(long, value_parser = values::duration, default_value = "30s")]
        timeout: Duration,
    },
    /// List the snapshots of a volume, or of all volumes
    #[command(after_help = "\
With a volume, EXCLUSIVE says what the deletion of each snapshot would give back, in each copy: the blocks that it shows and
neither the volume as it is nor another snapshot of it does. The volume's gateway counts that; `-` where it cannot be asked.

Examples:
  levee snapshot list
  levee snapshot list vm1 --json
  levee snapshot list vm1 --measure     also if nobody uses the volume")]
    List {
        /// Name of the volume
        #[arg(value_parser = values::name)]
        volume: Option<String>,
        #[command(flatten)]
        measure: Measure,
    },
    /// List the parts of a volume that were written between two snapshots, or since one
    #[command(after_help = "\
One line for each part: its offset and length, in bytes. What is not listed reads the same; what is listed may, too, if it was
written with what it held. A volume that is not attached is attached for the time of the comparison.

Examples:
  levee snapshot diff vm1@monday vm1@tuesday
  levee snapshot diff vm1@monday vm1            since monday")]
    Diff {
        /// Volume and name of the older snapshot
        #[arg(value_name = "VOLUME@NAME", value_parser = values::snapshot)]
        from: SnapshotName,
        /// Another snapshot of the volume, or the volume as it is
        #[arg(value_name = "VOLUME[@NAME]", value_parser = values::moment)]
        to: values::Moment,
        /// How long to wait until the volume is served
        #[arg(long, value_parser = values::duration, default_value = "30s")]
        timeout: Duration,
    },
    /// Delete snapshots; what other snapshots and the volume have is kept
    #[command(after_help = "\
A snapshot with clones stays for them, as `deleting`, until the last one is deleted or flattened.

Examples:
  levee snapshot delete vm1@monday
  levee snapshot delete vm1@monday vm2@monday")]
    Delete {
        /// Volume and name of the snapshot
        #[arg(value_name = "VOLUME@NAME", required = true, value_parser = values::snapshot)]
        names: Vec<SnapshotName>,
    },
    /// Make a volume what it was when a snapshot was taken; it must be detached
    #[command(after_help = "\
What was written since is lost, unless another snapshot has it.

Example:
  levee volume detach vm1
  levee snapshot rollback vm1@before-upgrade")]
    Rollback {
        /// Volume and name of the snapshot
        #[arg(value_name = "VOLUME@NAME", value_parser = values::snapshot)]
        name: SnapshotName,
    },
}
