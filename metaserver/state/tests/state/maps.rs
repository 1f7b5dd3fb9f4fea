//! Where the chunks of large volumes are, page by page.

use crate::common::*;
use levee_meta_state::{Command, State};
use levee_proto::api::*;
use levee_proto::*;

/// A few more than a page has.
const CHUNKS: usize = MAP_PAGE + 300;

/// A volume of so many chunks with a snapshot that is done, attached to `n1`.
fn large() -> (State, Epoch) {
    let mut state = cluster(&[10_000, 10_000]);
    create(&mut state, "v", CHUNKS as u64 * CHUNK_SIZE, 1).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    for part in (0..CHUNKS as u32).collect::<Vec<_>>().chunks(256) {
        allocate(&mut state, "v", epoch, part).unwrap();
    }
    snapshot(&mut state, &["v@s"]).unwrap();
    sealed(&mut state, "v", epoch, 1).unwrap();
    (state, epoch)
}

fn indexes(chunks: &[ChunkInfo]) -> Vec<u32> {
    chunks.iter().map(|c| c.index).collect()
}

#[test]
fn a_map_goes_on_where_it_ended_for_the_newest_gateway_alone() {
    let (mut state, epoch) = large();
    let opened = open(&mut state, "v", 101).unwrap();
    assert_eq!((opened.epoch, opened.chunks.len(), opened.more), (epoch, MAP_PAGE, true));
    let last = opened.chunks.last().map(|c| c.index);
    let page = state.map_page(opened.id, Some(epoch), last).unwrap();
    assert!(!page.more);
    let all = [opened.chunks, page.chunks].concat();
    assert_eq!(indexes(&all), (0..CHUNKS as u32).collect::<Vec<_>>());
    assert_eq!(state.map_page(opened.id, Some(epoch), Some(u32::MAX)), Ok(ChunkPage::default()));
    assert_eq!(state.map_page(opened.id, None, None).unwrap().chunks, all[..MAP_PAGE]);
    // Another process opens it: what the first one would put together may not be of one moment.
    register(&mut state, &node_named("n1", 201, &[(1001, 10_000)])).unwrap();
    open(&mut state, "v", 201).unwrap();
    assert_eq!(state.map_page(opened.id, Some(epoch), last).unwrap_err().kind, ProblemKind::Fenced);
    assert_eq!(state.map_page(VolumeId(99), None, None).unwrap_err().kind, ProblemKind::NotFound);
}

#[test]
fn ancestors_share_the_room_of_an_answer() {
    let (mut state, _) = large();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    clone(&mut state, "v@s", Family::single("c")).unwrap();
    attach(&mut state, "c", Some("n2")).unwrap();
    let opened = open(&mut state, "c", 102).unwrap();
    allocate(&mut state, "c", opened.epoch, &[0, 5, 9]).unwrap();
    let opened = open(&mut state, "c", 102).unwrap();
    assert_eq!((indexes(&opened.chunks), opened.more), (vec![0, 5, 9], false));
    let parent = opened.parent.expect("a parent");
    assert_eq!((parent.chunks.len(), parent.more), (MAP_PAGE - 3, true));
    let rest = state.map_page(parent.volume, None, parent.chunks.last().map(|c| c.index)).unwrap();
    assert_eq!((rest.chunks.len(), rest.more), (303, false));
    assert_eq!(state.volume_parent("c").unwrap().parent.map(|p| p.chunks.len()), Some(MAP_PAGE));
}
