//! Requests that would spoil a volume for those who come after: what is stored is checked for sense first.

use super::*;
use levee_core::replica::MAX_EPOCH_GAP;
use levee_proto::Fence;

fn fence_in(era: u8, epoch: Epoch) -> (Request, Bytes) {
    (Request::Fence { volume: VOLUME, era: Era(era), epoch, disks: vec![DiskId(1)] }, Bytes::new())
}

/// Fences with ever larger epochs until none is left.
async fn spend(rt: &TestRuntime, service: &Service) {
    let mut epoch = 1;
    while epoch < Epoch::MAX.0 {
        epoch = (epoch + MAX_EPOCH_GAP).min(Epoch::MAX.0);
        assert_eq!(status(&ask(rt, service, fence_in(0, Epoch(epoch))).await), Status::Ok);
    }
}

#[test]
fn one_fence_does_not_use_up_all_epochs() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        for epoch in [Epoch::MAX, Epoch(MAX_EPOCH_GAP + 2)] {
            assert_eq!(status(&ask(&rt, &service, fence_in(0, epoch)).await), Status::FarAhead);
        }
        assert_eq!(status(&ask(&rt, &service, write(1, 1, 1)).await), Status::Ok, "nobody was deposed");
        assert_eq!(status(&ask(&rt, &service, fence_in(0, Epoch(MAX_EPOCH_GAP + 1))).await), Status::Ok);
    });
}

#[test]
fn a_volume_whose_epochs_were_spent_goes_on_in_another_era_and_who_was_deposed_stays_so() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        assert_eq!(status(&ask(&rt, &service, write(1, 1, 1)).await), Status::Ok);
        spend(&rt, &service).await;
        assert_eq!(status(&ask(&rt, &service, fence(2)).await), Status::Fenced);
        let early = ask(&rt, &service, fence_in(1, Epoch(2))).await;
        assert_eq!(status(&early), Status::Unavailable, "the meta server has not said so");
        service.set_eras([(VOLUME, Era(1))]);
        assert_eq!(status(&ask(&rt, &service, fence_in(0, Epoch::MAX)).await), Status::Fenced);
        assert_eq!(status(&ask(&rt, &service, fence_in(1, Epoch(2))).await), Status::Ok);
        assert_eq!(status(&ask(&rt, &service, write(1, 2, 1)).await), Status::Ok);
        assert_eq!(status(&ask(&rt, &service, write(1, 1, 9)).await), Status::Fenced, "deposed");
        assert_eq!(status(&ask(&rt, &service, write(1, Epoch::MAX.0, 1)).await), Status::FenceFirst);
        // A restart forgets nothing of it, also before the meta server is heard.
        let again = open(&rt, &disk.fork(CrashStyle::LoseAll, 1)).await;
        for (era, epoch) in [(0, Epoch::MAX), (0, Epoch(9)), (1, Epoch(1))] {
            assert_eq!(status(&ask(&rt, &again, fence_in(era, epoch)).await), Status::Fenced, "{era} {epoch}");
        }
        assert_eq!(status(&ask(&rt, &again, fence_in(2, Epoch(9))).await), Status::Unavailable);
        assert_eq!(status(&ask(&rt, &again, fence_in(1, Epoch(3))).await), Status::Ok);
    });
}

#[test]
fn eras_are_never_taken_back() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        service.set_eras([(VOLUME, Era(2))]);
        service.set_eras([(VOLUME, Era(1))]);
        assert_eq!(status(&ask(&rt, &service, fence_in(1, Epoch(2))).await), Status::Fenced);
        assert_eq!(status(&ask(&rt, &service, fence_in(2, Epoch(2))).await), Status::Ok);
        assert!(Fence::new(Era(2), Epoch(2)) > Fence::new(Era(1), Epoch::MAX));
    });
}

#[test]
fn commit_points_and_entries_of_later_epochs_are_refused() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        let later = Seq::new(Epoch(2), 1);
        let points = vec![(DiskId(1), ChunkId(1), ReplicaId(1), later)];
        let commit = Request::Commit { volume: VOLUME, epoch: Epoch(1), points };
        assert_eq!(status(&ask(&rt, &service, (commit, Bytes::new())).await), Status::Invalid);
        let (mut request, data) = write(1, 1, 1);
        if let Request::Write { seq, .. } = &mut request {
            *seq = later;
        }
        assert_eq!(status(&ask(&rt, &service, (request, data)).await), Status::Invalid);
    });
}

#[test]
fn a_repair_that_names_an_entry_twice_is_refused() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        let entry = |block| BlockEntry {
            block,
            kind: BlockKind::Zero,
            version: Version::FIRST,
            seq: Seq::new(Epoch(1), 1),
            crc: 0,
        };
        let repair = |entries| Request::Repair { target: target(1, 1), scope: Scope::Named, entries };
        let twice = repair(vec![entry(1), entry(2), entry(1)]);
        assert_eq!(status(&ask(&rt, &service, (twice, Bytes::new())).await), Status::Invalid);
        assert_eq!(status(&ask(&rt, &service, (repair(vec![entry(1), entry(2)]), Bytes::new())).await), Status::Ok);
    });
}
