// What applications use of ioredis. SUITE_PORT is that of the server.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, beforeEach, test } from "node:test";
import { Redis } from "ioredis";

const port = Number(process.env.SUITE_PORT);
const clients = [];
const connect = (options = {}) => {
  const client = new Redis({ port, db: 1, ...options });
  clients.push(client);
  return client;
};
const redis = connect();

beforeEach(() => redis.flushdb());
after(() => clients.forEach((client) => client.disconnect()));

test("strings and expiry", async () => {
  assert.equal(await redis.set("k", "v", "EX", 100, "NX"), "OK");
  assert.equal(await redis.set("k", "w", "NX"), null);
  assert.equal(await redis.get("k"), "v");
  assert.equal(await redis.ttl("k"), 100);
  assert.equal(await redis.incrby("n", 5), 5);
  assert.deepEqual(await redis.mget("k", "none", "n"), ["v", null, "5"]);
  const bytes = Buffer.from([0, 255, 13, 10]);
  await redis.set("bytes", bytes);
  assert.deepEqual(await redis.getBuffer("bytes"), bytes);
});

test("hashes", async () => {
  assert.equal(await redis.hset("h", { a: 1, b: "two" }), 2);
  assert.deepEqual(await redis.hgetall("h"), { a: "1", b: "two" });
  assert.equal(await redis.hincrby("h", "a", 4), 5);
  const found = [];
  for await (const part of redis.hscanStream("h")) found.push(...part);
  assert.deepEqual(found.sort(), ["5", "a", "b", "two"]);
});

test("pipelines", async () => {
  const pipeline = redis.pipeline();
  for (let i = 0; i < 1000; i++) pipeline.set(`k${i}`, i).get(`k${i}`);
  const replies = await pipeline.exec();
  assert.equal(replies.length, 2000);
  assert.deepEqual(replies[1999], [null, "999"]);
});

test("errors within a pipeline", async () => {
  const replies = await redis.pipeline().set("k", "text").incr("k").get("k").exec();
  assert.match(replies[1][0].message, /not an integer/);
  assert.deepEqual(replies[2], [null, "text"]);
});

test("transactions that watch", async () => {
  const other = connect();
  await redis.watch("k");
  await other.set("k", "changed");
  assert.equal(await redis.multi().set("k", "mine").exec(), null);
  await redis.watch("k");
  assert.deepEqual(await redis.multi().append("k", "!").get("k").exec(), [
    [null, 8],
    [null, "changed!"],
  ]);
});

test("scan streams", async () => {
  await redis.mset(...Array.from({ length: 500 }, (_, i) => [`scan:${i}`, i]).flat());
  await redis.set("other", "x");
  const found = [];
  for await (const keys of redis.scanStream({ match: "scan:*", count: 50 })) found.push(...keys);
  assert.equal(new Set(found).size, 500);
  assert.equal(found.length, 500);
});

test("channels and patterns", async () => {
  const subscriber = connect();
  await subscriber.subscribe("news");
  await subscriber.psubscribe("n*");
  const told = Promise.all([once(subscriber, "message"), once(subscriber, "pmessage")]);
  assert.equal(await redis.publish("news", "hello"), 2);
  assert.deepEqual(await told, [
    ["news", "hello"],
    ["n*", "news", "hello"],
  ]);
});

test("a command that is not there leaves the connection alone", async () => {
  await assert.rejects(redis.lpush("list", "a"), /has no lists/);
  assert.equal(await redis.ping(), "PONG");
});
