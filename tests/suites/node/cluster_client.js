// A program that uses ioredis' client of clusters: see `cluster.py`. SUITE_SEEDS has the addresses of all nodes.

import assert from "node:assert/strict";
import { once } from "node:events";
import { Cluster } from "ioredis";

const KEYS = 200;
const seeds = process.env.SUITE_SEEDS.split(" ").map((seed) => {
  const at = seed.lastIndexOf(":");
  return { host: seed.slice(0, at), port: Number(seed.slice(at + 1)) };
});
const cluster = new Cluster(seeds, { maxRedirections: 100, retryDelayOnClusterDown: 250, retryDelayOnFailover: 250 });
const numbers = [...Array(KEYS).keys()];

await Promise.all(numbers.map(async (number) => assert.equal(await cluster.set(`js:${number}`, number), "OK")));
await cluster.mset("{js}a", 1, "{js}b", 2);
assert.deepEqual(await cluster.mget("{js}a", "{js}b"), ["1", "2"]);
assert.deepEqual(await cluster.multi().incr("{js}n").hset("{js}h", "field", "value").exec(), [[null, 1], [null, 1]]);
const replica = await cluster.nodes("all")[0].role?.().catch(() => null);
assert.ok(replica === null || Array.isArray(replica));
console.log("ready");
await once(process.stdin, "data");
const values = await Promise.all(numbers.map((number) => cluster.get(`js:${number}`)));
const kept = values.filter((value, number) => value === String(number)).length;
await Promise.all(numbers.map((number) => cluster.set(`js:${number}`, "later")));
const later = await Promise.all(numbers.map((number) => cluster.get(`js:${number}`)));
assert.ok(later.every((value) => value === "later"));
console.log(`kept ${kept}`);
cluster.disconnect();
process.exit(0);
