//! Ends what tasks of one executor are doing, all of them at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};

/// Tasks that can be told to let go of what they are doing.
#[derive(Default)]
pub(crate) struct Cancel {
    cancelled: Cell<bool>,
    /// Of the tasks that wait, by slot.
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Cancel {
    /// Does `work`, in a task, and returns what came of it; drops it and returns `None` once everything is cancelled.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut slot = None;
        let done = poll_fn(|context| {
            if self.cancelled.get() {
                return Poll::Ready(None);
            }
            let done = work.as_mut().poll(context);
            if done.is_pending() {
                let slot = *slot.get_or_insert_with(|| self.enter());
                self.wakers.borrow_mut()[slot].get_or_insert_with(|| context.waker().clone());
            }
            done.map(Some)
        })
        .await;
        if let Some(slot) = slot {
            self.leave(slot);
        }
        done
    }

    /// Whatever is being done ends, and whatever is begun.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        let wakers: Vec<Waker> = self.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn enter(&self) -> usize {
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(|| {
            let mut wakers = self.wakers.borrow_mut();
            wakers.push(None);
            wakers.len() - 1
        })
    }

    fn leave(&self, slot: usize) {
        self.wakers.borrow_mut()[slot] = None;
        self.free.borrow_mut().push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::task::Context;

    #[test]
    fn work_is_dropped_when_everything_is_cancelled() {
        let cancel = Cancel::default();
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(pin!(cancel.unless_cancelled(ready(7))).poll(context), Poll::Ready(Some(7)));
        let dropped = std::rc::Rc::new(());
        let held = dropped.clone();
        let work = async move {
            let _held = held;
            pending::<()>().await
        };
        let mut task = Box::pin(cancel.unless_cancelled(work));
        assert!(task.as_mut().poll(context).is_pending());
        cancel.cancel();
        assert_eq!(task.as_mut().poll(context), Poll::Ready(None));
        drop(task);
        assert_eq!(std::rc::Rc::strong_count(&dropped), 1);
        assert_eq!(cancel.wakers.borrow().len(), cancel.free.borrow().len());
        assert_eq!(pin!(cancel.unless_cancelled(ready(7))).poll(context), Poll::Ready(None), "nothing begins");
    }
}
