//! Snapshots that are attached for reading: they show what they froze, and nothing is ever written through them.

use crate::cases::{get, pass, put, within};
use crate::snapshots::{scenario, snapshot};
use crate::world::{Fate, TestGateway, VOLUME, World};
use bytes::Bytes;
use levee_core::gateway::Failure;
use levee_proto::BLOCK_SIZE;
use levee_proto::api::OpenedVolume;
use levee_proto::wire::Request;
use std::cell::Cell;
use std::rc::Rc;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Has a chunk in the volume, and one that has none.
const OFFSETS: [u64; 2] = [BLOCK, 300 << 20];

/// Whether a gateway asks replicas for nothing but what snapshots hold.
fn only_reads(world: &World, reader: u64) -> Rc<Cell<bool>> {
    let only = Rc::new(Cell::new(true));
    let seen = only.clone();
    world.rule(move |gateway, _, request| {
        let reads = matches!(request, Request::ReadShared { .. } | Request::Presence { .. });
        seen.set(seen.get() && (gateway != reader || reads));
        Fate::Deliver
    });
    only
}

/// Every way to change a volume: each is refused.
async fn assert_nothing_is_written(world: &World, gateway: &TestGateway) {
    for at in OFFSETS {
        for data in [Bytes::new(), Bytes::from(vec![9; 512]), Bytes::from(vec![9; 2 * BLOCK_SIZE])] {
            let refused = within(world, "a write", gateway.write(at, data)).await.unwrap_err();
            assert!(matches!(&refused, Failure::Stopped(s) if s.0.contains("read-only")), "{refused:?}");
        }
        for len in [512, BLOCK, 4 << 20] {
            assert!(within(world, "zeroes", gateway.write_zeroes(at, len)).await.is_err());
            assert!(within(world, "a discard", gateway.discard(at, len)).await.is_err());
        }
    }
    assert_eq!(gateway.stopped(), None, "it goes on");
}

#[test]
fn a_snapshot_is_read_while_its_volume_is_written() {
    scenario(|world| async move {
        let (volume, _) = world.attach();
        put(&world, &volume, 1, 1).await;
        put(&world, &volume, 256, 1).await;
        let view = snapshot(&world, &volume).await;
        for shared in [0, 1 << 20] {
            if shared > 0 {
                world.remember(shared);
            }
            let id = world.reader(VOLUME, &view);
            let (reader, number) = world.attach_volume(id);
            let only = only_reads(&world, number);
            within(&world, "the opening", reader.ready()).await.unwrap();
            for stamp in 2..5 {
                put(&world, &volume, 1, stamp).await;
                put(&world, &volume, 2, stamp).await;
                assert_eq!([get(&world, &reader, 1).await, get(&world, &reader, 256).await], [1, 1]);
                assert_eq!(get(&world, &reader, 2).await, 0);
                assert_nothing_is_written(&world, &reader).await;
                pass(&world, 3000).await;
            }
            assert_eq!([get(&world, &reader, 1).await, get(&world, &volume, 1).await], [1, 4]);
            assert!(only.get(), "a replica was asked for something else");
            assert_eq!((world.chunks_of(id), reader.health()), (0, Default::default()));
            reader.stop("detached");
        }
    });
}

#[test]
fn a_reader_with_anything_of_its_own_is_not_served() {
    scenario(|world| async move {
        let (volume, _) = world.attach();
        put(&world, &volume, 1, 1).await;
        let view = snapshot(&world, &volume).await;
        let opened = world.opened(world.reader(VOLUME, &view));
        assert_eq!(levee_core::gateway::check(&opened), Ok(()));
        let of_volume = world.opened(VOLUME);
        let with_chunks = OpenedVolume { chunks: of_volume.chunks.clone(), ..opened.clone() };
        let without_parent = OpenedVolume { parent: None, ..opened };
        for wrong in [with_chunks, without_parent] {
            assert!(levee_core::gateway::check(&wrong).unwrap_err().contains("read-only"));
        }
    });
}
