use super::*;

fn label(id: u64) -> Label {
    Label { kind: 4, id, status: Status::Ok }
}

/// The bytes of a batch when at most `step` of them are taken at a time.
fn drain(batch: &mut Batch, step: usize) -> Vec<u8> {
    let mut out = vec![];
    while !batch.is_sent() {
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let n = batch.pieces(&mut pieces);
        assert_eq!(&*pieces[0], batch.first_piece());
        let all: Vec<u8> = pieces[..n].iter().flat_map(|p| p.iter().copied()).collect();
        let taken = step.min(all.len());
        assert!(taken > 0);
        out.extend_from_slice(&all[..taken]);
        batch.advance(taken);
    }
    out
}

fn batch(frames: usize) -> Batch {
    let mut batch = Batch::default();
    for i in 0..frames {
        let data = if i % 3 == 0 { Bytes::new() } else { Bytes::from(vec![i as u8; i * 7]) };
        batch.push(label(i as u64), |out| out.extend_from_slice(&[9; 5]), data).expect("fits");
    }
    batch
}

#[test]
fn a_batch_comes_out_the_same_however_it_is_cut() {
    let whole = drain(&mut batch(150), usize::MAX);
    assert_eq!(whole.len(), batch(150).bytes());
    for step in [13, 40, 4097] {
        assert!(drain(&mut batch(150), step) == whole, "step {step}");
    }
}

#[test]
fn acknowledgements_are_one_piece() {
    let mut batch = Batch::default();
    for id in 0..32 {
        batch.push(label(id), |_| {}, Bytes::new()).expect("fits");
    }
    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
    assert_eq!(batch.pieces(&mut pieces), 1);
    assert_eq!(pieces[0].len(), 32 * HEADER_LEN);
}

#[test]
fn what_is_too_large_leaves_the_batch_as_it_was() {
    let mut batch = batch(3);
    let bytes = batch.bytes();
    assert_eq!(batch.push(label(9), |out| out.resize(out.len() + MAX_META + 1, 0), Bytes::new()), Err(TooLarge));
    assert_eq!(batch.push(label(9), |_| {}, vec![0; MAX_DATA + 1].into()), Err(TooLarge));
    assert_eq!(batch.bytes(), bytes);
    assert_eq!(drain(&mut batch, usize::MAX).len(), bytes);
    batch.clear();
    assert!(batch.is_empty() && batch.is_sent());
}
