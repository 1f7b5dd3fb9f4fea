//! One answer from a callback to a waiting future, on one executor.

use crate::Answer;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

#[derive(Default)]
struct Slot {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// Where the answer goes.
pub(crate) struct Sender(Rc<RefCell<Slot>>);

/// Where it is waited for.
pub(crate) struct Receiver(Rc<RefCell<Slot>>);

pub(crate) fn oneshot() -> (Sender, Receiver) {
    let slot = Rc::new(RefCell::new(Slot::default()));
    (Sender(slot.clone()), Receiver(slot))
}

impl Sender {
    pub fn send(self, answer: Answer) {
        let waker = {
            let mut slot = self.0.borrow_mut();
            slot.answer = Some(answer);
            slot.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Receiver {
    pub async fn receive(self) -> Answer {
        poll_fn(|cx| {
            let mut slot = self.0.borrow_mut();
            match slot.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    slot.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
