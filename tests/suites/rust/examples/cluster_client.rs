//! A program that uses redis-rs' client of clusters: see `cluster.py`. `SUITE_SEEDS` has the
//! addresses of all nodes.

use redis::AsyncCommands as _;
use redis::cluster::ClusterClientBuilder;

const KEYS: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seeds = std::env::var("SUITE_SEEDS")?;
    let seeds: Vec<_> = seeds.split(' ').map(|seed| format!("redis://{seed}")).collect();
    let client = ClusterClientBuilder::new(seeds)
        .retries(100)
        .min_retry_wait(250)
        .max_retry_wait(250)
        .build()?;
    let mut cluster = client.get_async_connection().await?;
    for number in 0..KEYS {
        cluster.set::<_, _, ()>(format!("rs:{number}"), number).await?;
    }
    cluster.mset::<_, _, ()>(&[("{rs}a", 1), ("{rs}b", 2)]).await?;
    let both: (i64, i64) = cluster.mget(&["{rs}a", "{rs}b"]).await?;
    assert_eq!(both, (1, 2));
    let mut pipe = redis::pipe();
    pipe.atomic().incr("{rs}n", 1).hset("{rs}h", "field", "value");
    let replies: (i64, i64) = pipe.query_async(&mut cluster).await?;
    assert_eq!(replies, (1, 1));
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let mut kept = 0;
    for number in 0..KEYS {
        kept += usize::from(cluster.get::<_, usize>(format!("rs:{number}")).await? == number);
    }
    for number in 0..KEYS {
        cluster.set::<_, _, ()>(format!("rs:{number}"), "later").await?;
        assert_eq!(cluster.get::<_, String>(format!("rs:{number}")).await?, "later");
    }
    println!("kept {kept}");
    Ok(())
}
