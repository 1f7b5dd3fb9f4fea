//! The rules of the protocol that can be switched off, each to show that it is needed.

macro_rules! rules {
    ($($variant:ident $name:literal $cause:literal $text:literal)*) => {
        /// A rule of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $(#[doc = $text] $variant,)* }

        impl Rule {
            pub const ALL: &[Rule] = &[$(Rule::$variant,)*];

            /// As the command line names it.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)* }
            }

            /// The execution that it closes, as the design counts them.
            pub fn closes(self) -> &'static str {
                match self { $(Rule::$variant => $cause,)* }
            }

            pub fn text(self) -> &'static str {
                match self { $(Rule::$variant => $text,)* }
            }
        }
    };
}

rules! {
    WriteQuorum "write-quorum" "-" "a write is acknowledged when min-copies members have it durably"
    ReadQuorum "read-quorum" "-" "a takeover hears copies - min-copies + 1 members"
    LargerSeqWins "larger-seq-wins" "-" "a write takes effect on a block only if its seq is larger"
    RefuseBelowFence "refuse-below-fence" "-" "a replica refuses requests below its fence"
    PersistFence "persist-fence" "-" "a fence survives a restart"
    VoidUnadopted "void-unadopted" "H1" "members below the largest adopted epoch contribute only entries of that epoch or later"
    AdoptWhenHeld "adopt-when-held" "H1" "no member adopts before min-copies members hold the decided state durably"
    ServeWhenAdopted "serve-when-adopted" "H2" "a chunk is served when min-copies members have adopted"
    FenceAfterWrites "fence-after-writes" "H3" "a fence is answered when every write accepted earlier is durable"
    ReconcileLatecomers "reconcile-latecomers" "H4" "a member that was not part of the takeover is compared before it counts as current"
    MergeNewEntries "merge-new-entries" "H6" "a repair replaces entries of older epochs, and merges those of this epoch by seq"
    CopyAbsent "copy-absent" "H6" "catching up removes what the source does not hold"
    EpochPerIncarnation "epoch-per-incarnation" "H10" "a restarted gateway takes a new epoch"
    DamagedIsNoWitness "damaged-is-no-witness" "H15" "a replica that lost entries to corruption counts for no takeover quorum"
    FenceFirst "fence-first" "H15" "after a restart a replica serves a gateway only when that has fenced it again"
    ForgetAcks "forget-acks" "H15" "what a replica acknowledged before it lost entries does not count any more"
    AdoptAfterWrites "adopt-after-writes" "H15" "what was sent to a member before its adoption is durable there before it"
    OwedIsDoubtful "owed-is-doubtful" "-" "who is compared with a member that owes a write of a block may hold the newer state of it"
    OldLinksAreDead "old-links-are-dead" "-" "a repair sent on a link that broke does not arrive after the next link's fence"
    SameData "same-data" "H18" "every retry of a write sends the same data"
    ReadWaits "read-waits" "H19" "a read waits for writes in flight that it overlaps"
    KeptAreCurrent "kept-are-current" "H9" "a change keeps only members that are current"
    KeptAcknowledge "kept-acknowledge" "H9" "while members are attested, a write is acknowledged only when all of them have it"
    KeptHaveAll "kept-have-all" "H9" "a change is sent when every acknowledged write is on all members that are kept"
    ChangeByCurrent "change-by-current" "H8" "a change is refused when a newer epoch was opened"
    AskForOutcome "ask-for-outcome" "H7" "the rule for acknowledgements goes back only when the change's outcome is known"
    QuorumKnows "quorum-knows" "H7" "a takeover in a later config hears at least one member that has adopted"
    NewcomerKnowsNothing "newcomer-knows-nothing" "H7" "a newcomer has adopted nothing until it was filled"
    CommitNeedsAll "commit-needs-all" "H5" "a commit point moves only when every member of the config is complete"
    CommitAfterCopies "commit-after-copies" "H13" "a commit point does not move while a copy is on its way to the member"
    WriteAboveCommit "write-above-commit" "H13" "a write at or below the commit point has no effect"
    DropBelowCommit "drop-below-commit" "H13" "a tombstone is dropped only at or below the commit point"
    OpenVersionFirst "open-version-first" "H11" "a version is opened in Raft before the first write at it"
    OpenByCurrent "open-by-current" "H11" "a version is opened only by the current epoch's gateway"
    SealComplete "seal-complete" "H12" "a replica seals a version when its writes are settled and it holds them all"
    ReadSealed "read-sealed" "H12" "a replica serves a snapshot only when it has sealed the version"
    AllocateByCurrent "allocate-by-current" "H14" "chunks are allocated and freed only by the current epoch's gateway"
    CloseBeforeFree "close-before-free" "H14" "a gateway closes a chunk before it asks for it to be freed"
    MapAfterOpen "map-after-open" "H14" "a takeover fences what the map names after its epoch was committed"
    NewChunkIds "new-chunk-ids" "H14" "the id of a chunk that was freed is never used again"
    ReadComplete "read-complete" "-" "a block is read only from a member that neither misses nor owes anything of it"
}

/// The rules in force: all but those switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rules {
    off: u64,
}

impl Rules {
    pub const ALL: Rules = Rules { off: 0 };

    pub fn without(rules: &[Rule]) -> Rules {
        Rules { off: rules.iter().fold(0, |off, rule| off | 1 << *rule as u8) }
    }

    pub fn on(self, rule: Rule) -> bool {
        self.off & (1 << rule as u8) == 0
    }
}
