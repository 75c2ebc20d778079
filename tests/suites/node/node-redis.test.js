// What applications use of node-redis, over RESP3, with its cache. SUITE_PORT is that of the server.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { createClient, WatchError } from "redis";

const url = `redis://127.0.0.1:${process.env.SUITE_PORT}/2`;
const clients = [];
const connect = async (options = {}) => {
  const client = createClient({ url, RESP: 3, ...options });
  clients.push(client);
  return client.connect();
};
let redis;

before(async () => (redis = await connect()));
beforeEach(() => redis.flushDb());
after(() => clients.forEach((client) => client.destroy()));

test("strings and expiry", async () => {
  assert.equal(await redis.set("k", "v", { expiration: { type: "EX", value: 100 } }), "OK");
  assert.equal(await redis.get("k"), "v");
  assert.equal(await redis.ttl("k"), 100);
  assert.equal(await redis.incr("n"), 1);
  assert.deepEqual(await redis.mGet(["k", "none", "n"]), ["v", null, "1"]);
});

test("hashes are maps", async () => {
  assert.equal(await redis.hSet("h", { a: "1", b: "2" }), 2);
  assert.deepEqual({ ...(await redis.hGetAll("h")) }, { a: "1", b: "2" });
  const found = [];
  for await (const entries of redis.hScanIterator("h")) found.push(...[entries].flat());
  assert.equal(found.length, 2);
});

test("calls of one tick are a pipeline", async () => {
  const writes = Array.from({ length: 1000 }, (_, i) => redis.set(`k${i}`, `${i}`));
  const reads = Array.from({ length: 1000 }, (_, i) => redis.get(`k${i}`));
  await Promise.all(writes);
  assert.equal((await Promise.all(reads))[999], "999");
});

test("transactions that watch", async () => {
  const other = await connect();
  assert.deepEqual(await redis.multi().set("k", "1").incr("k").exec(), ["OK", 2]);
  await redis.watch("k");
  await other.set("k", "9");
  await assert.rejects(redis.multi().set("k", "mine").exec(), WatchError);
  assert.equal(await redis.get("k"), "9");
});

test("scan iterators", async () => {
  await redis.mSet(Array.from({ length: 500 }, (_, i) => [`scan:${i}`, `${i}`]));
  const found = [];
  for await (const keys of redis.scanIterator({ MATCH: "scan:*", COUNT: 50 })) found.push(...keys);
  assert.equal(new Set(found).size, 500);
});

test("channels and patterns", async () => {
  const subscriber = await connect();
  const told = [];
  const all = new Promise((resolve) => {
    const tell = (message, channel) => told.push(`${channel} ${message}`) === 2 && resolve();
    subscriber.subscribe("news", tell).then(() => subscriber.pSubscribe("n*", tell)).then(() =>
      redis.publish("news", "hello"));
  });
  await all;
  assert.deepEqual(told, ["news hello", "news hello"]);
});

test("keyspace notifications", async () => {
  await redis.configSet("notify-keyspace-events", "KEA");
  const subscriber = await connect();
  const told = new Promise((resolve) => {
    subscriber.subscribe("__keyspace@2__:k", resolve).then(() => redis.set("k", "v"));
  });
  assert.equal(await told, "set");
  await redis.configSet("notify-keyspace-events", "");
});

test("the cache learns of changes by others", async () => {
  const cached = await connect({ clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: "LRU" } });
  await redis.set("k", "1");
  assert.equal(await cached.get("k"), "1");
  assert.equal(await cached.get("k"), "1");
  await redis.set("k", "2");
  // A value of the cache is returned without looking at the socket.
  while ((await cached.get("k")) !== "2") await setImmediate();
  await redis.flushDb();
  while ((await cached.get("k")) !== null) await setImmediate();
});
