//! A program that uses redis-rs' client of clusters: see `cluster.py`. `SUITE_SEEDS` has the
//! addresses of all nodes.

use redis::Commands as _;
use redis::cluster::{ClusterClientBuilder, ClusterConnection};
use redis::cluster_routing::get_slot;

const KEYS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seeds = std::env::var("SUITE_SEEDS")?;
    let seeds: Vec<_> = seeds.split(' ').map(|seed| format!("redis://{seed}")).collect();
    let client = ClusterClientBuilder::new(seeds)
        .retries(100)
        .min_retry_wait(250)
        .max_retry_wait(250)
        .build()?;
    let mut cluster = client.get_connection()?;
    for number in 0..KEYS {
        cluster.set::<_, _, ()>(format!("rs:{number}"), number)?;
    }
    cluster.mset::<_, _, ()>(&[("{rs}a", 1), ("{rs}b", 2)])?;
    let both: (i64, i64) = cluster.mget(&["{rs}a", "{rs}b"])?;
    assert_eq!(both, (1, 2));
    assert_eq!(get_slot(b"{rs}a"), get_slot(b"{rs}b"));
    assert_eq!(piped(&mut cluster)?, vec![1; 20]);
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let mut kept = 0;
    for number in 0..KEYS {
        kept += usize::from(cluster.get::<_, usize>(format!("rs:{number}"))? == number);
    }
    for number in 0..KEYS {
        cluster.set::<_, _, ()>(format!("rs:{number}"), "later")?;
        assert_eq!(cluster.get::<_, String>(format!("rs:{number}"))?, "later");
    }
    println!("kept {kept}");
    Ok(())
}

/// Increments several keys at a time.
fn piped(cluster: &mut ClusterConnection) -> redis::RedisResult<Vec<i64>> {
    let mut pipe = redis::cluster::cluster_pipe();
    for number in 0..20 {
        pipe.incr(format!("rs:p{number}"), 1);
    }
    pipe.query(cluster)
}
