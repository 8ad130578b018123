//! Belady's optimum, which knows the future: the item with the latest next request is evicted, or
//! not stored at all.

use std::collections::BinaryHeap;

use crate::audience::{Event, Trace};
use crate::contenders::Tally;

const NEVER: u32 = u32::MAX;

pub fn optimum(bytes_max: u64, trace: &Trace) -> Tally {
    let next = next_requests(trace);
    let mut tally = Tally::default();
    // The time of the next request for each stored item.
    let mut held: Vec<Option<u32>> = vec![None; trace.items.len()];
    let mut latest_first: BinaryHeap<(u32, u32)> = BinaryHeap::new();
    let mut bytes = 0;
    for (at, event) in trace.events.iter().enumerate() {
        let (Event::Ask(id) | Event::Publish(id)) = *event else {
            continue;
        };
        let item = trace.items[id as usize];
        let was_held = held[id as usize].take().is_some();
        if at >= trace.counted_from && matches!(event, Event::Ask(_)) {
            tally.count(item, was_held);
        }
        if was_held {
            bytes -= u64::from(item.bytes);
        }
        if next[at] == NEVER {
            continue;
        }
        held[id as usize] = Some(next[at]);
        latest_first.push((next[at], id));
        bytes += u64::from(item.bytes);
        while bytes > bytes_max {
            let Some((due, last)) = latest_first.pop() else {
                break;
            };
            if held[last as usize] == Some(due) {
                held[last as usize] = None;
                bytes -= u64::from(trace.items[last as usize].bytes);
            }
        }
    }
    tally
}

/// For each event, the time of the next request for its item.
fn next_requests(trace: &Trace) -> Vec<u32> {
    let mut next = vec![NEVER; trace.events.len()];
    let mut latest = vec![NEVER; trace.items.len()];
    for (at, event) in trace.events.iter().enumerate().rev() {
        if let Event::Ask(id) | Event::Publish(id) = *event {
            next[at] = latest[id as usize];
            if matches!(event, Event::Ask(_)) {
                latest[id as usize] = at as u32;
            }
        }
    }
    next
}
