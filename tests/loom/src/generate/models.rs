//! Every event arrives once and in order, and nobody sleeps while there is one.

use super::Event;
use super::events::Events;
use crate::Result;
use loom::sync::Notify;
use loom::thread;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

/// A task's executor: it sleeps until it is woken.
#[derive(Default)]
struct Sleep(Notify);

impl Wake for Sleep {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn next(events: &Events, sleep: &Arc<Sleep>) -> Option<Result<Event>> {
    let waker = Waker::from(sleep.clone());
    loop {
        match events.poll(&waker) {
            Poll::Ready(event) => return event,
            Poll::Pending => sleep.0.wait(),
        }
    }
}

fn produce(events: &Arc<Events>, count: usize) -> thread::JoinHandle<()> {
    let events = events.clone();
    thread::spawn(move || {
        (0..count).for_each(|token| events.push(Ok(Event::Token(token))));
        events.close();
    })
}

#[test]
fn a_thread_that_waits_gets_all_events_and_the_end() {
    loom::model(|| {
        let events = Arc::new(Events::default());
        let producer = produce(&events, 2);
        for token in 0..2 {
            assert_eq!(events.wait(), Some(Ok(Event::Token(token))));
        }
        assert_eq!((events.wait(), events.wait()), (None, None));
        producer.join().unwrap();
    });
}

#[test]
fn a_task_that_polls_gets_all_events_and_the_end() {
    loom::model(|| {
        let events = Arc::new(Events::default());
        let producer = produce(&events, 2);
        let sleep = Arc::new(Sleep::default());
        for token in 0..2 {
            assert_eq!(next(&events, &sleep), Some(Ok(Event::Token(token))));
        }
        assert_eq!(next(&events, &sleep), None);
        producer.join().unwrap();
    });
}

#[test]
fn a_stream_that_moves_to_another_task_wakes_that_one() {
    loom::model(|| {
        let events = Arc::new(Events::default());
        let producer = produce(&events, 1);
        let left = Arc::new(Sleep::default());
        let first = match events.poll(&Waker::from(left)) {
            Poll::Ready(event) => event,
            Poll::Pending => next(&events, &Arc::new(Sleep::default())),
        };
        assert_eq!(first, Some(Ok(Event::Token(0))));
        producer.join().unwrap();
        assert_eq!((events.wait(), events.len()), (None, 0));
    });
}

#[test]
fn an_iterator_on_another_thread_is_woken_beside_a_task() {
    crate::bounded(|| {
        let events = Arc::new(Events::default());
        let producer = produce(&events, 1);
        let other = events.clone();
        let iterator = thread::spawn(move || other.wait().is_some());
        let polled = next(&events, &Arc::new(Sleep::default())).is_some();
        // one of the two has the event, both see the end
        assert_ne!(polled, iterator.join().unwrap());
        producer.join().unwrap();
    });
}
