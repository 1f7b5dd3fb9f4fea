//! Plans to make disks even: bounded moves, the right ones, and nothing that brings copies together.

use crate::common::*;
use levee_meta_state::{Bounds, Command, State, Surroundings, Weights};
use levee_proto::api::*;
use levee_proto::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MIB: u64 = 1 << 20;

/// Nodes with a disk of so many chunks each, in these zones; the first `filled` have the copies of `chunks` chunks.
fn scene(sizes: &[u64], zones: &[u8], filled: usize, chunks: u32) -> State {
    let mut state = State::default();
    state.apply(&Command::Found { cluster: CLUSTER }).unwrap();
    let join = |state: &mut State, i: usize| {
        let mut node = node_named(&format!("n{i}"), 100 + i as u64, &[(1000 + i as u64, sizes[i])]);
        node.zone = zones.get(i).map(|zone| format!("z{zone}"));
        register(state, &node).expect("registered");
    };
    (0..filled).for_each(|i| join(&mut state, i));
    let policy = ChangePlacement { local_copy: Some(false), reserve_percent: Some(0), ..Default::default() };
    state.apply(&Command::SetPlacement(policy)).unwrap();
    create(&mut state, "v", 1 << 44, 3).unwrap();
    attach(&mut state, "v", Some("n0")).unwrap();
    let epoch = open(&mut state, "v", 100).unwrap().epoch;
    for some in (0..chunks).collect::<Vec<_>>().chunks(256) {
        allocate(&mut state, "v", epoch, some).expect("there is room");
    }
    (filled..sizes.len()).for_each(|i| join(&mut state, i));
    state
}

/// Every copy has as many bytes as `size` says.
fn weigh(state: &State, size: impl Fn(&Place) -> u64) -> Weights {
    let mut bytes = BTreeMap::new();
    let mut used: BTreeMap<DiskId, u64> = state.disks().map(|(id, _)| (id, 0)).collect();
    for place in places(state) {
        bytes.insert(place.replica, size(&place));
        *used.get_mut(&place.disk).expect("a disk") += size(&place);
    }
    let around = Surroundings { alive: everyone(state), full: BTreeSet::new(), used };
    Weights { around, bytes, load: BTreeMap::new() }
}

struct Place {
    index: u32,
    replica: ReplicaId,
    node: NodeId,
    disk: DiskId,
}

fn places(state: &State) -> Vec<Place> {
    let chunks = &state.volume(VolumeId(1)).expect("the volume").chunks;
    let of = |(index, chunk): (&u32, &levee_meta_state::Chunk)| {
        let place = |r: &ReplicaPlace| Place { index: *index, replica: r.replica, node: r.node, disk: r.disk };
        chunk.replicas.iter().map(place).collect::<Vec<_>>()
    };
    chunks.iter().flat_map(of).collect()
}

fn bounds(goal: RebalanceGoal) -> Bounds {
    Bounds { goal, tolerance_percent: 3, max_bytes: u64::MAX, max_moves: 100_000 }
}

/// Bytes above the targets: what has to be moved at least.
fn necessary(state: &State, weights: &Weights) -> u64 {
    let size = |id: &DiskId| u128::from(state.disk(*id).expect("a disk").capacity);
    let (sum, sizes) =
        weights.around.used.iter().fold((0, 0), |(sum, sizes), (id, used)| (sum + u128::from(*used), sizes + size(id)));
    let target = |id: &DiskId| (sum * size(id) / sizes) as u64;
    weights.around.used.iter().map(|(id, used)| used.saturating_sub(target(id))).sum()
}

/// Where every copy is when the plan has been carried out; panics if that brings copies of a chunk together.
fn carried_out(state: &State, plan: &RebalancePlan) -> BTreeMap<u32, BTreeSet<NodeId>> {
    let moved: BTreeMap<ReplicaId, DiskId> = plan.moves.iter().map(|m| (m.replica, m.to)).collect();
    assert_eq!(moved.len(), plan.moves.len(), "no copy moves twice");
    let mut chunks: BTreeMap<u32, BTreeSet<NodeId>> = BTreeMap::new();
    for place in places(state) {
        let node = moved.get(&place.replica).map_or(place.node, |disk| state.disk(*disk).expect("a disk").node);
        assert!(chunks.entry(place.index).or_default().insert(node), "two copies of chunk {} on one node", place.index);
    }
    chunks
}

#[test]
fn a_new_node_takes_its_share_and_hardly_more_is_moved() {
    for (nodes, new) in [(4, 1), (6, 3), (40, 1)] {
        let sizes = vec![4000; nodes + new];
        let state = scene(&sizes, &[], nodes, 3000);
        let weights = weigh(&state, |place| 40 * MIB + u64::from(place.index % 25) * MIB);
        let plan = state.freeze().plan_rebalance(&weights, bounds(RebalanceGoal::Space));
        carried_out(&state, &plan);
        let after: Vec<u64> = plan.disks.iter().map(|d| d.after).collect();
        let (most, least) = (*after.iter().max().unwrap(), *after.iter().min().unwrap());
        let mean = after.iter().sum::<u64>() / after.len() as u64;
        assert!(most * 100 <= mean * 105 && least * 100 >= mean * 90, "{after:?}");
        assert!(
            plan.bytes * 10 <= necessary(&state, &weights) * 11,
            "{} of {}",
            plan.bytes,
            necessary(&state, &weights)
        );
        assert_eq!(plan.remark, None);
        assert!(plan.imbalance_after <= 1050 && plan.imbalance_before > plan.imbalance_after);
    }
}

#[test]
fn even_disks_are_left_alone() {
    let state = scene(&[4000; 6], &[], 6, 2000);
    let weights = weigh(&state, |_| 64 * MIB);
    let plan = state.freeze().plan_rebalance(&weights, bounds(RebalanceGoal::Space));
    assert_eq!((plan.count, plan.bytes), (0, 0), "{} moves at {}", plan.count, plan.imbalance_before);
}

#[test]
fn hot_chunks_are_taken_apart() {
    let state = scene(&[4000; 6], &[], 6, 600);
    let mut weights = weigh(&state, |_| 64 * MIB);
    // All that disk 1 holds is busy.
    let busy: Vec<u32> = places(&state).into_iter().filter(|p| p.disk == DiskId(1)).map(|p| p.index).take(40).collect();
    let load = Load { reads: 300, writes: 100, read_bytes: 0, write_bytes: 0 };
    weights.load = busy.iter().map(|index| ((VolumeId(1), *index), load)).collect();
    let plan = state.freeze().plan_rebalance(&weights, bounds(RebalanceGoal::Load));
    carried_out(&state, &plan);
    assert!(
        plan.imbalance_before > 1500 && plan.imbalance_after <= 1300,
        "{} {}",
        plan.imbalance_before,
        plan.imbalance_after
    );
    assert!(plan.moves.iter().all(|m| busy.contains(&m.index)), "nothing idle is moved");
    let used: Vec<u64> = plan.disks.iter().map(|d| d.after).collect();
    let mean = used.iter().sum::<u64>() / used.len() as u64;
    assert!(used.iter().all(|u| u * 100 <= mean * 108), "space stays even: {used:?}");
}

#[test]
fn a_plan_keeps_to_its_bounds() {
    let state = scene(&[4000; 6], &[], 4, 1000);
    let weights = weigh(&state, |_| 64 * MIB);
    let few = Bounds { max_bytes: 640 * MIB, ..bounds(RebalanceGoal::Space) };
    let plan = state.freeze().plan_rebalance(&weights, few);
    assert_eq!((plan.count, plan.bytes), (10, 640 * MIB));
    assert!(plan.remark.is_some_and(|r| r.contains("cut off")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the sizes and zones: no copies come together, zones are not given up, no disk overflows, and
    /// hardly more is moved than has to be.
    #[test]
    fn plans_do_no_harm(
        sizes in proptest::collection::vec(800..4000_u64, 5..10),
        zones in proptest::collection::vec(0..4u8, 0..10),
        chunks in 50..400_u32,
        spread in 1..64_u64,
    ) {
        let filled = 4;
        let state = scene(&sizes, &zones, filled, chunks);
        let weights = weigh(&state, |place| (1 + u64::from(place.index) * 7 % spread) * MIB);
        let plan = state.freeze().plan_rebalance(&weights, bounds(RebalanceGoal::Space));
        let after = carried_out(&state, &plan);
        let zone = |node: &NodeId| state.node(*node).and_then(|n| n.zone.clone());
        let spread_of = |nodes: &BTreeSet<NodeId>| nodes.iter().filter_map(zone).collect::<BTreeSet<_>>().len();
        let mut before: BTreeMap<u32, BTreeSet<NodeId>> = BTreeMap::new();
        for place in places(&state) {
            before.entry(place.index).or_default().insert(place.node);
        }
        let with_zone = |nodes: &BTreeSet<NodeId>| nodes.iter().filter(|n| zone(n).is_some()).count();
        for (index, nodes) in &after {
            // Copies in zones of their own: as many as before.
            let crowd = |nodes: &BTreeSet<NodeId>| with_zone(nodes) - spread_of(nodes);
            prop_assert!(crowd(nodes) <= crowd(&before[index]));
        }
        prop_assert!(plan.bytes <= necessary(&state, &weights) * 11 / 10 + 64 * MIB);
        prop_assert!(plan.imbalance_after <= plan.imbalance_before.max(1031));
        prop_assert!(plan.disks.iter().all(|d| d.after <= d.capacity));
    }
}
