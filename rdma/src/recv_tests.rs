use super::*;
use crate::frame::{Batch, Label};
use crate::limits::MAX_FRAME;
use levee_proto::wire::{MAX_DATA, Status};
use proptest::prelude::*;

fn encode(frames: &[(usize, usize)]) -> Vec<u8> {
    let mut bytes = vec![];
    for (id, &(meta, data)) in frames.iter().enumerate() {
        let mut batch = Batch::default();
        let label = Label { kind: 4, id: id as u64, status: Status::Ok };
        let meta = vec![id as u8; meta];
        batch.push(label, |out| out.extend_from_slice(&meta), vec![!(id as u8); data].into()).expect("fits");
        while !batch.is_sent() {
            let piece = batch.first_piece().to_vec();
            batch.advance(piece.len());
            bytes.extend_from_slice(&piece);
        }
    }
    bytes
}

/// Feeds `bytes` in reads of at most `step`, and keeps the data of the last `hold` frames alive.
fn feed(bytes: &[u8], step: usize, hold: usize) -> Result<Vec<(usize, usize)>, Malformed> {
    let mut buf = RecvBuffer::new(MAX_FRAME);
    let (mut rest, mut seen, mut held) = (bytes, vec![], VecDeque::new());
    while !rest.is_empty() {
        let room = buf.room();
        let n = room.len().min(step).min(rest.len());
        assert!(n > 0);
        room[..n].copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        buf.advance(n);
        while let Some(frame) = buf.next_frame()? {
            let id = frame.header.id.get();
            assert_eq!(id, seen.len() as u64);
            assert!(frame.meta.iter().all(|b| *b == id as u8));
            seen.push((frame.meta.len(), frame.data.len()));
            held.push_back((id, frame.data));
            if held.len() > hold {
                held.pop_front();
            }
        }
        // What is held must not be overwritten by what arrives.
        assert!(held.iter().all(|(id, data)| data.iter().all(|b| *b == !(*id as u8))));
    }
    assert!(!buf.is_partial());
    Ok(seen)
}

#[test]
fn frames_of_every_size_arrive_and_held_data_stays_intact() {
    let sizes = [(0, 0), (40, 4096), (1, 0), (1000, 1 << 20), (0, MAX_DATA), (16, 128 << 10), (0, 0), (300_000, 0)];
    let frames: Vec<_> = sizes.iter().cycle().take(40).copied().collect();
    let bytes = encode(&frames);
    for (step, hold) in [(usize::MAX, 0), (usize::MAX, 100), (1 << 16, 3), (100_003, 12)] {
        assert_eq!(feed(&bytes, step, hold), Ok(frames.clone()), "step {step}, hold {hold}");
    }
}

#[test]
fn memory_is_reused_while_nothing_is_held() {
    let bytes = encode(&vec![(40, 4096); 500]);
    let mut buf = RecvBuffer::new(MAX_FRAME);
    let first = buf.room().as_ptr();
    for chunk in bytes.chunks(4176) {
        let room = buf.room();
        assert_eq!(room.as_ptr(), first);
        room[..chunk.len()].copy_from_slice(chunk);
        buf.advance(chunk.len());
        assert!(buf.next_frame().expect("well-formed").is_some());
    }
    assert!(buf.used.is_empty());
}

#[test]
fn a_frame_beyond_the_bound_is_refused_before_memory_is_taken() {
    let mut buf = RecvBuffer::new(1000);
    let bytes = encode(&[(0, 4096)]);
    buf.room()[..HEADER_LEN].copy_from_slice(&bytes[..HEADER_LEN]);
    buf.advance(HEADER_LEN);
    assert_eq!(buf.next_frame().err(), Some(Malformed("frame too large")));
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_frames(
        frames in prop::collection::vec((0usize..200, 0usize..9000), 1..60),
        step in 1usize..20_000,
        hold in 0usize..50,
    ) {
        prop_assert_eq!(feed(&encode(&frames), step, hold), Ok(frames));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..5000), at in 0usize..4000, good in 0usize..3) {
        let mut all = encode(&vec![(10, 100); good]);
        let at = at.min(all.len());
        all.splice(at..at, bytes);
        let mut buf = RecvBuffer::new(MAX_FRAME);
        let mut rest = &all[..];
        while !rest.is_empty() {
            let room = buf.room();
            let n = room.len().min(rest.len());
            room[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            buf.advance(n);
            loop {
                match buf.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}
