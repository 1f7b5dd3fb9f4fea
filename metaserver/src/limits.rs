//! Every bound of the meta server.

use std::time::Duration;

/// Bytes of one API request's body.
pub const MAX_BODY: usize = 2 << 20;
/// Bytes of a body that is too long which are read all the same, so that the refusal gets through.
pub const MAX_DISCARD: usize = 32 << 20;
/// Bytes of one Raft message's body: [`MAX_ENTRIES_PER_MESSAGE`] entries with room to spare.
pub const MAX_RAFT_BODY: usize = 128 << 20;
/// Bytes of one piece of a snapshot.
pub const SNAPSHOT_CHUNK: u64 = 1 << 20;
/// Bytes of a piece that is taken, and of all of them.
pub const MAX_SNAPSHOT_PIECE: u64 = 16 << 20;
pub const MAX_SNAPSHOT: u64 = 64 << 30;
/// Log entries in one Raft message.
pub const MAX_ENTRIES_PER_MESSAGE: u64 = 16;

/// Bytes of log entries in one Raft message, unless the first entry alone has more.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Commands in one Raft entry.
pub const MAX_BATCH: usize = 256;
/// Bytes, about, of one Raft entry; a single command may be larger, up to [`MAX_BODY`].
pub const MAX_BATCH_WEIGHT: usize = 1 << 20;
/// Volumes of a batch that one command creates, where each stands for itself.
pub const BATCH_PIECE: usize = 1000;
/// Volumes that one node serves: its intent names each, and so do its reports.
pub const MAX_SERVED: usize = 10_000;
/// Requests that wait to be proposed, and reads that wait for the leadership check.
pub const MAX_QUEUE: usize = 4096;
/// Jobs that wait for the database's writer thread.
pub const MAX_WRITES: usize = 64;

/// Items in a page of a list if the request names no number.
pub const DEFAULT_PAGE: usize = 100;

/// Addresses whose requests are counted at a time.
pub const MAX_CLIENTS: usize = 10_000;
/// Seconds of a client's rate that it may ask at once.
pub const BURST_SECONDS: f64 = 2.0;
/// Requests a second that one client may send, if nothing else is said.
pub const CLIENT_RATE: u32 = 10_000;
/// Changes a second that the cluster takes from all clients, if nothing else is said.
pub const CHANGE_RATE: u32 = 10_000;

/// How long a request waits for its commit or its leadership check.
pub const COMMIT_WAIT: Duration = Duration::from_secs(10);
/// How long a request waits for a leader to be known.
pub const LEADER_WAIT: Duration = Duration::from_secs(5);
/// Pause before a request looks for the leader again.
pub const LEADER_RETRY: Duration = Duration::from_millis(50);
/// How long a request that was passed on may take, beyond what it asks to wait itself.
pub const FORWARD_WAIT: Duration = Duration::from_secs(15);
/// How long another member may take to accept a connection.
pub const CONNECT_WAIT: Duration = Duration::from_millis(1000);
/// How long requests in flight may take after the signal to stop.
pub const STOP_WAIT: Duration = Duration::from_secs(2);
/// How long a request for snapshots waits until they are complete, if it does not say.
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(5);
/// How long a request for snapshots of several volumes waits until those that nobody uses are open.
pub const OPEN_WAIT: Duration = Duration::from_secs(5);
/// Pause between two looks at whether they are.
pub const OPEN_LOOK: Duration = Duration::from_millis(10);

/// Time between two moments of volumes' loads that are remembered, how many of them, and of how many volumes each.
pub const HISTORY_STEP: Duration = Duration::from_secs(10);
pub const HISTORY_LENGTH: usize = 60;
pub const MAX_HISTORY_VOLUMES: usize = 200;

/// Changes that are remembered for those who follow them.
pub const MAX_CHANGES_KEPT: usize = 50_000;

/// Pause between two looks at what has to be repaired.
pub const REPAIR_TICK: Duration = Duration::from_secs(1);
/// Unused volumes that are repaired at a time, in the whole cluster.
pub const MAX_REPAIRS: usize = 4;
/// Unused volumes that are opened at a time to complete snapshots, drop what no snapshot needs, or flatten them.
pub const MAX_CHORES: usize = 8;
/// Chunks that one look at unused volumes goes through, about: commits wait meanwhile.
pub const REPAIR_SCAN: usize = 20_000;
/// In this time every unused volume has its turn to be scrubbed: a week, as of those in use.
pub const SCRUB_PERIOD_MINUTES: u64 = 7 * 24 * 60;
/// Unused volumes that are scrubbed at a time, in the whole cluster.
pub const MAX_SCRUBS: usize = 2;
/// Of those whose turn it was, so many wait. Others wait for their next turn.
pub const MAX_SCRUBS_DUE: usize = 4096;
/// How long an unused volume must be whole before its repair ends.
pub const REPAIR_SETTLED: Duration = Duration::from_secs(2);
/// How long a repair may get nowhere before others have their turn.
pub const REPAIR_STALL: Duration = Duration::from_secs(120);
/// How long nothing may be heard of a command before others may work on its volume, and before what it has left is cleaned up.
pub const JOB_HOLD: Duration = Duration::from_millis(3 * levee_proto::api::JOB_RENEWAL_MS);
pub const JOB_PATIENCE: Duration = Duration::from_secs(60);
/// How long what comes and goes must last to be told.
pub const SETTLE: Duration = Duration::from_secs(3);
/// How long a volume is left alone after a repair.
pub const REPAIR_REST: Duration = Duration::from_secs(30);
/// Pause between two changes of the nodes' background rate.
pub const RATE_REST: Duration = Duration::from_secs(5);
/// Bytes per second that a node may always spend on background work: copying must end some day.
pub const MIN_NODE_RATE: u64 = 1 << 20;

/// Raft: milliseconds between heartbeats (rounded up to ticks of one and a half of them), also the time that one append may take.
pub const HEARTBEAT_MS: u64 = 250;
/// Raft: milliseconds for which a member that heard a leader votes for nobody else.
pub const LEASE_MS: u64 = 1000;
/// The same with the time that a vote's way takes.
pub const LEASE: Duration = Duration::from_millis(LEASE_MS + 50);
/// Raft: milliseconds that a vote may take.
pub const VOTE_MS: u64 = 600;
pub const VOTE_WAIT: Duration = Duration::from_millis(VOTE_MS);
/// Milliseconds without a leader beyond the lease before an election; drawn each time.
pub const ELECTION_DELAY_MS: std::ops::Range<u64> = 0..400;
/// Pause between two looks at whether there is a leader.
pub const ELECTION_LOOK: Duration = Duration::from_millis(40);
/// A look that is later than this says that the member was stopped itself.
pub const ELECTION_PAUSE: Duration = Duration::from_millis(500);
/// Pause before a member that could not be reached is tried again.
pub const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);
/// How long the others may take to say whether they hear a leader.
pub const CANVASS_WAIT: Duration = Duration::from_millis(300);
/// How long ago a member may have been heard to count as alive.
pub const ALIVE_WITHIN: Duration = Duration::from_secs(4);
/// How long a leader that most members follow must not be heard of to count as none: longer than a heartbeat may be late.
pub const QUORUM_PATIENCE: Duration = Duration::from_millis(1500);
/// Pause between two looks at that, and between two lines about it in the log.
pub const QUORUM_LOOK: Duration = Duration::from_millis(250);
pub const QUORUM_REMINDER: Duration = Duration::from_secs(30);
/// How long a leader that hands over may fall silent, and waits for the other one.
pub const HANDOVER_WAIT: Duration = Duration::from_secs(4);
/// Pause between two looks at what the group's membership needs.
pub const MEMBERS_TICK: Duration = Duration::from_millis(500);
/// Entries that a learner may lack when it becomes a voter.
pub const LEARNER_LAG: u64 = 64;
/// How long a change of members waits for its commit.
pub const CHANGE_WAIT: Duration = Duration::from_secs(20);
/// How long another member may take to say who it is.
pub const HELLO_WAIT: Duration = Duration::from_secs(2);
/// Bytes of another member's answer.
pub const MAX_ANSWER: usize = 256 << 10;
/// Pause before a new group's first member looks again whether all others are there.
pub const FOUND_RETRY: Duration = Duration::from_millis(200);
/// Pause before a member announces itself again.
pub const JOIN_RETRY: Duration = Duration::from_secs(1);
/// Messages of other members that are not taken are logged so often.
pub const REFUSAL_REST: Duration = Duration::from_secs(10);
/// How long a member that hears no leader waits before it asks whether it was removed.
pub const REMOVED_LOOK: Duration = Duration::from_secs(3);
/// Raft: milliseconds that one piece of a snapshot may take.
pub const SNAPSHOT_CHUNK_MS: u64 = 10_000;

/// Bytes of database pages kept in memory.
pub const DATABASE_CACHE: usize = 8 << 20;

/// A node that came back so often within [`FLAP_WINDOW`] flaps, until it has stayed for [`FLAP_REST`].
pub const FLAPS: usize = 3;
pub const FLAP_WINDOW: Duration = Duration::from_secs(600);
pub const FLAP_REST: Duration = Duration::from_secs(120);
/// Returns of a node that are remembered.
pub const MAX_FLAPS: usize = 32;
/// For how long it is told that a second daemon with a node's name was refused.
pub const STRANGER_WORD: Duration = Duration::from_secs(60);
/// For how long a node's word about its links counts.
pub const LINK_WORD: Duration = Duration::from_secs(5);
/// For how long one node must not reach another one before that is worth a word: both may just have started.
pub const LINK_PATIENCE: Duration = Duration::from_secs(3);
/// A node is slow when half of the others wait so long for it,
pub const SLOW_LINK: Duration = Duration::from_millis(200);
/// or when one of its disks has not answered for so long.
pub const SLOW_DISK: Duration = Duration::from_secs(3);
/// For how long no silence counts when most nodes have been down: they come back one after the other.
pub const HOLD_REST: Duration = Duration::from_secs(30);
/// A node whose disks were given up is given more time each time it happens again within this; up to so many doublings.
pub const GIVEN_UP_WINDOW: Duration = Duration::from_secs(3600);
pub const MAX_DOUBLINGS: u32 = 4;

/// How long daemons may take to say how large their replicas are.
pub const SIZES_WAIT: Duration = Duration::from_secs(20);
/// How long a plan waits for disks that are not measured yet, and the pause between two looks.
pub const DISKS_WAIT: Duration = Duration::from_secs(5);
pub const DISKS_LOOK: Duration = Duration::from_millis(100);
/// How far above the mean a disk may stay if the request does not say, percent.
pub const DEFAULT_TOLERANCE: u8 = 3;
/// A move that is under way for so long gets nowhere.
pub const MOVE_STALL: Duration = Duration::from_secs(1800);
/// Moves of one command; larger plans are cut off.
pub const MAX_PLAN: usize = 20_000;
