//! An order service: an order is placed, and mail, stock and audit hear of it. Mail fails twice and then succeeds, stock
//! cannot handle one order, which ends as a dead letter, and neither costs the others anything.

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use workcrew::WorkerPool;
use workcrew::events::{DeadLetter, DeliveryOutcome, EventBus};
use workcrew::retry::RetryPolicy;

struct OrderPlaced {
    number: u32,
    item: &'static str,
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = WorkerPool::builder().workers(2).build()?;
    let dead = |letter: DeadLetter| {
        let order = letter.event::<OrderPlaced>().expect("the only events here");
        println!("dead letter: order {} for {}: {}", order.number, letter.subscription(), letter.error());
    };
    let bus = EventBus::builder(&pool).on_dead_letter(dead).build();
    let patient = || RetryPolicy::fixed(Duration::from_millis(5)).max_attempts(3);

    let connections = AtomicU32::new(0);
    let _mail = bus.subscription().name("mail").retry(patient()).handle(move |order: &OrderPlaced| {
        if connections.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err("no connection");
        }
        println!("mail: order {} is on its way", order.number);
        Ok(())
    });
    let _stock = bus.subscription().name("stock").retry(patient()).handle(|order: &OrderPlaced| match order.item {
        "unicorn" => Err(format!("no {} in stock", order.item)),
        item => {
            println!("stock: one {item} less for order {}", order.number);
            Ok(())
        }
    });
    let _audit =
        bus.subscription().name("audit").handle(|order: &OrderPlaced| println!("audit: order {}", order.number));

    let orders = [(1, "book"), (2, "unicorn"), (3, "pen")];
    let receipts = orders.map(|(number, item)| bus.publish(OrderPlaced { number, item }));
    for (receipt, (number, _)) in receipts.iter().zip(orders) {
        for delivery in receipt.wait()? {
            let handled = matches!(delivery.outcome, DeliveryOutcome::Handled);
            println!("order {number}: {} {}", delivery.subscription, if handled { "done" } else { "given up" });
            assert_eq!(handled, (number, &*delivery.subscription) != (2, "stock"));
        }
    }
    let report = pool.shutdown_timeout(Duration::from_secs(5));
    println!("{report}");
    assert!(report.drained);
    Ok(())
}
