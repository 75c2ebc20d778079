//! Clients that write or read for some time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Failure;
use crate::arguments::{Arguments, Task};
use crate::client::Client;
use crate::histogram::Histogram;
use crate::random::Random;

/// How long the clients work before their requests count.
const START: Duration = Duration::from_millis(500);

/// Writes each key once.
pub(crate) async fn fill(arguments: &Arguments) -> Result<Value, Failure> {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..arguments.clients)
        .map(|number| {
            let arguments = arguments.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(&arguments).await?;
                let clients = usize::try_from(arguments.clients)?;
                for number in (number..arguments.keys).step_by(clients) {
                    let key = arguments.key(number);
                    client.put(&key, &arguments.value(&key)).await?;
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(json!({ "keys": arguments.keys, "seconds": begin.elapsed().as_secs_f64() }))
}

/// What one client has seen.
struct Seen {
    times: Histogram,
    /// Number of requests that were sent after the start, and answered before the end.
    count: u64,
    /// Number of all requests.
    requests: u64,
}

/// Writes or reads, and returns how fast that was.
pub(crate) async fn run(arguments: &Arguments) -> Result<Value, Failure> {
    // All clients are connected before the first of them begins.
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        clients.push(Client::connect(arguments).await?);
    }
    let arguments = Arc::new(arguments.clone());
    let begin = Instant::now() + START;
    let tasks: Vec<_> = (0..)
        .zip(clients)
        .map(|(number, client)| tokio::spawn(one(Arc::clone(&arguments), number, client, begin)))
        .collect();
    let mut all = Seen { times: Histogram::new(), count: 0, requests: 0 };
    for task in tasks {
        let seen = task.await??;
        all.times.extend(&seen.times);
        all.count += seen.count;
        all.requests += seen.requests;
    }
    let milliseconds = |part| all.times.percentile(part) as f64 / 1e6;
    Ok(json!({
        "rate": all.count as f64 / arguments.duration.as_secs_f64(),
        "p50": milliseconds(0.5),
        "p99": milliseconds(0.99),
        "requests": all.requests,
    }))
}

/// Runs one client.
async fn one(
    arguments: Arc<Arguments>,
    number: u64,
    mut client: Client,
    begin: Instant,
) -> Result<Seen, Failure> {
    let mut random = Random::new(arguments.seed * 1_000_003 + number);
    let end = begin + arguments.duration;
    let mut seen = Seen { times: Histogram::new(), count: 0, requests: 0 };
    loop {
        let key = arguments.key(random.below(arguments.keys));
        let value = arguments.value(&key);
        let sent = Instant::now();
        if sent >= end {
            return Ok(seen);
        }
        if arguments.task == Task::Read {
            if client.get(&key).await?.as_ref() != Some(&value) {
                return Err(format!("{} has another value", String::from_utf8(key)?).into());
            }
        } else {
            client.put(&key, &value).await?;
        }
        seen.requests += 1;
        let answered = Instant::now();
        if sent >= begin && answered <= end {
            seen.times.add(answered - sent);
            seen.count += 1;
        }
    }
}
