//! Which link of a caller counts, whatever the order in which things arrive.

use super::*;

fn caller(core: u16, process: u8) -> Caller {
    Caller { node: NodeId(1), core, incarnation: [process; 16] }
}

/// Links are known by a number.
type Links = Callers<u32>;

#[test]
fn a_later_link_ends_the_older_ones_of_its_caller_and_no_others() {
    let mut links = Links::default();
    let other = Caller { node: NodeId(2), ..caller(0, 1) };
    for (n, (who, core)) in [(caller(0, 1), 0), (caller(0, 1), 1), (caller(1, 1), 0), (other, 0)].iter().enumerate() {
        let ticket = links.offer();
        assert_eq!(links.enter(who, *core, ticket, n as u32), Ok(vec![]));
    }
    let ticket = links.offer();
    assert_eq!(links.enter(&caller(0, 1), 0, ticket, 9), Ok(vec![0]));
}

#[test]
fn an_older_link_that_arrives_late_is_refused_also_when_the_newer_one_has_ended() {
    let (mut links, me) = (Links::default(), caller(0, 1));
    let (early, late) = (links.offer(), links.offer());
    assert_eq!(links.enter(&me, 0, late, 2), Ok(vec![]));
    links.leave(&me, 0, late);
    assert_eq!(links.len(), 1, "it may still be needed");
    assert_eq!(links.enter(&me, 0, early, 1), Err(Late));
    assert!(links.is_empty(), "nothing can be late any more");
}

#[test]
fn a_new_process_ends_the_links_of_the_old_one_on_every_core() {
    let mut links = Links::default();
    let old: Vec<_> = (0..3).map(|core| (core, links.offer())).collect();
    for (core, ticket) in &old {
        assert_eq!(links.enter(&caller(*core, 1), *core, *ticket, u32::from(*core)), Ok(vec![]));
    }
    // It was offered before the process died, and named its ticket; that arrives later.
    let sluggish = links.offer();
    let new = links.offer();
    assert_eq!(links.enter(&caller(0, 2), 0, new, 9), Ok(vec![0, 1, 2]));
    assert_eq!(links.enter(&caller(5, 1), 5, sluggish, 5), Err(Late));
    let second = links.offer();
    assert_eq!(links.enter(&caller(1, 2), 1, second, 10), Ok(vec![]), "links of one process live side by side");
}

#[test]
fn a_ticket_is_good_once_and_only_if_it_was_given() {
    let (mut links, me) = (Links::default(), caller(0, 1));
    assert_eq!(links.enter(&me, 0, Ticket(u64::MAX), 1), Err(Late));
    let ticket = links.offer();
    assert_eq!(links.enter(&me, 0, ticket, 1), Ok(vec![]));
    assert_eq!(links.enter(&me, 0, ticket, 2), Err(Late));
    let next = links.offer();
    assert_eq!(links.enter(&me, 0, next, 3), Ok(vec![1]), "what was tried in between has changed nothing");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut links = Links::default();
    let open = links.offer();
    for n in 0..100 {
        let (who, ticket) = (Caller { node: NodeId(n), ..caller(0, 1) }, links.offer());
        links.enter(&who, 0, ticket, n).unwrap();
        links.leave(&who, 0, ticket);
    }
    assert_eq!(links.len(), 100, "the first may still enter");
    links.leave(&caller(0, 1), 0, open);
    assert!(links.is_empty());
}
