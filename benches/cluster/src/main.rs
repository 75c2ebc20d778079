//! The clients of `benches/cluster/run`: they write, read, or wait for a failover, and print what
//! they have measured as JSON.
//!
//! - All clients run in one thread, each with connections of its own. A client sends its next
//!   request when the last one was answered.
//! - Every value that is read is checked. A wrong one, or an error, ends the program.
//! - Clients of bitcask and of Redis Cluster send each request to the leader, or master, of its
//!   slot. Clients of etcd send all to the leader, which saves it from forwarding them.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]
#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]
#![expect(clippy::cast_possible_truncation, reason = "the counted values are small")]
#![expect(clippy::cast_sign_loss, reason = "the counted values are positive")]

mod arguments;
mod client;
mod etcd;
mod failover;
#[path = "../../support/histogram.rs"]
#[expect(dead_code, reason = "each bench uses a part of the module")]
mod histogram;
mod load;
#[path = "../../support/random.rs"]
#[expect(dead_code, reason = "each bench uses a part of the module")]
mod random;
mod redis;
mod resp;

use arguments::{Arguments, Task};

/// Why a request failed.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let figures = runtime.block_on(async {
        match arguments.task {
            Task::Fill => load::fill(&arguments).await,
            Task::Write | Task::Read => load::run(&arguments).await,
            Task::Failover => failover::run(&arguments).await,
            Task::Stop => failover::stop(&arguments).await,
        }
    });
    match figures {
        Ok(figures) => println!("{figures}"),
        Err(failure) => {
            eprintln!("{failure}");
            std::process::exit(1);
        }
    }
}
