"""A program that uses redis-py's client of clusters: see `cluster.py`. SUITE_SEEDS has the addresses of all nodes."""

import os

from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

KEYS = 200
seeds = [ClusterNode(*seed.rsplit(":", 1)) for seed in os.environ["SUITE_SEEDS"].split()]
client = RedisCluster(startup_nodes=seeds, retry=Retry(ConstantBackoff(0.05), 5000), decode_responses=True)
for number in range(KEYS):
    assert client.set(f"py:{number}", number)
assert client.mset_nonatomic({f"py:m{number}": number for number in range(20)})
assert client.mget_nonatomic([f"py:m{number}" for number in range(20)]) == [str(number) for number in range(20)]
assert client.mset({"{py}a": 1, "{py}b": 2}) and client.mget(["{py}a", "{py}b"]) == ["1", "2"]
pipeline = client.pipeline()
for number in range(50):
    pipeline.incr(f"py:p{number}")
assert pipeline.execute() == [1] * 50
with client.pipeline(transaction=True) as transaction:
    transaction.hset("{py}h", "field", "value")
    transaction.incr("{py}n")
    assert transaction.execute() == [1, 1]
print("ready", flush=True)
input()
kept = sum(client.get(f"py:{number}") == str(number) for number in range(KEYS))
for number in range(KEYS):
    assert client.set(f"py:{number}", "later")
assert all(client.get(f"py:{number}") == "later" for number in range(KEYS))
print(f"kept {kept}", flush=True)
