//! Every bound of the command line, in one place.

use std::time::Duration;

/// Longest wait for a TCP connection to a server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for the whole answer to one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for what a meta server says of itself where all are asked.
pub const SURVEY_TIMEOUT: Duration = Duration::from_millis(1000);
/// For how long they are asked again while they are choosing a leader, and the pause between.
pub const SURVEY_TIME: Duration = Duration::from_millis(600);
pub const SURVEY_PAUSE: Duration = Duration::from_millis(200);
/// How long a request is repeated while the meta servers have no leader.
pub const NO_LEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one request for snapshots waits until they are complete; well below [`REQUEST_TIMEOUT`].
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(5);
/// Pause before a request is sent again that the servers were too busy for.
pub const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks at something that is waited for.
pub const POLL_PAUSE: Duration = Duration::from_millis(100);
/// The first such pause, each being twice the one before: most of what is waited for takes a few milliseconds.
pub const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// Largest answer that is read, bytes.
pub const MAX_ANSWER: usize = 64 << 20;
/// Longest line of a progress stream, bytes.
pub const MAX_EVENT: usize = 16 << 20;
/// Longest silence of a progress stream.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest silence of a daemon that counts what a volume takes up, where that is asked for: longer than it tries a chunk.
pub const USAGE_SILENCE: Duration = Duration::from_secs(15);
/// The same where other things are to be shown as well, soon.
pub const USAGE_GLANCE: Duration = Duration::from_secs(3);
/// Most lines of each kind that `levee top` shows.
pub const MAX_TOP: u16 = 1000;
/// Most pages of a list that are followed.
pub const MAX_PAGES: usize = 100_000;

/// Data of one request while a disk is moved between a file and a volume, bytes.
pub const TRANSFER_PIECE: usize = 1 << 20;
/// What is tested for zeros, and left out, while a volume is filled, bytes.
pub const TRANSFER_GRAIN: usize = 64 << 10;
/// Pieces that may wait between a file and a volume.
pub const TRANSFER_QUEUE: usize = 16;
/// How far a volume is read ahead of what is handed on, bytes.
pub const TRANSFER_WINDOW: u64 = 64 << 20;
/// Longest wait for an answer of a volume before something else is looked at.
pub const TRANSFER_TICK: Duration = Duration::from_millis(50);
/// Silence of a volume that is told to whoever watches.
pub const STALL_NOTICE: Duration = Duration::from_secs(5);

/// Ports of one node in an embedded cluster: its admin endpoint and its cores.
pub const PORTS_PER_NODE: u16 = 10;
/// Where the nodes' ports begin, counted from the base port.
pub const NODE_PORTS_OFFSET: u16 = 100;
/// Most cores of a node in an embedded cluster.
pub const MAX_CORES: u16 = 8;
/// Most nodes of an embedded cluster.
pub const MAX_NODES: u16 = 100;
/// Where the meta servers' addresses begin in a cluster of network namespaces; nodes begin at 1.
pub const META_HOSTS_OFFSET: u16 = 200;
/// Most disks of a node in an embedded cluster.
pub const MAX_DISKS_PER_NODE: u16 = 16;
/// Free space below which an embedded cluster is not created, bytes.
pub const MIN_FREE_SPACE: u64 = 256 << 20;
/// How long a command is waited for that may be dead, before its volume is taken over: longer than meta servers wait to hear of it.
pub const JOB_WAIT: Duration = Duration::from_secs(15);
/// Longest path of a Unix socket that the kernel takes, bytes.
pub const MAX_SOCKET_PATH: usize = 107;
/// What must remain of [`MAX_SOCKET_PATH`] for the socket's own name.
pub const SOCKET_NAME_ROOM: usize = 40;
/// How long a second `levee up` or `levee down` waits for the first.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a log's end is looked at for the reason of a failed start, bytes.
pub const LOG_TAIL: u64 = 16 << 10;
/// Longest wait for a killed process to disappear.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a port may still be held by a daemon that was just killed: the kernel closes what is
/// under way in an io_uring after the process has gone.
pub const PORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long QEMU may take to show that it can use KVM.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most cores that a disk is divided among, as `levee-stored format` has it.
pub const MAX_DISK_SHARES: u16 = 64;
/// Locked memory that a storage daemon needs at least, bytes.
pub const MIN_LOCKED_MEMORY: u64 = 512 << 10;
/// How much of a disk's beginning is looked at for what may be on it, bytes.
pub const DISK_HEAD: usize = 1 << 20;

/// How long it may take until it is known that the last user of a volume has gone, if that was ourselves, and if an operator
/// says so; and how often it is looked at.
pub const DETACH_PATIENCE: Duration = Duration::from_secs(5);
pub const DETACH_GLANCE: Duration = Duration::from_millis(500);
pub const DETACH_RETRY: Duration = Duration::from_millis(100);
