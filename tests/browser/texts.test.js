// Every text that a page names is there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { TEXTS, has, text } from "../../web/driver/texts.js";

const WEB = new URL("../../web/driver/", import.meta.url);

function named(file, pattern) {
  return [...readFileSync(new URL(file, WEB), "utf8").matchAll(pattern)].map(([, key]) => key);
}

for (const [file, kind, pattern] of [
  ["start.html", "marked", /data-text="([^"]+)"/g],
  ["session.html", "marked", /data-text="([^"]+)"/g],
  ["start.js", "called", /text\("([^"]+)"/g],
  ["session.js", "called", /text\("([^"]+)"/g],
  ["receipt.html", "marked", /data-text="([^"]+)"/g],
  ["receipt.js", "called", /text\("([^"]+)"/g],
  ["account.js", "receipt", /"(receipt\.[^"]+)"/g],
  ["decisions.js", "idle", /"(idle\.[^"]+)"/g],
  ["decisions.js", "price", /"(price\.[^"]+)"/g],
]) {
  test(`every ${kind} text of ${file} exists`, () => {
    const keys = named(file, pattern);

    assert.ok(keys.length > 0);
    assert.deepEqual(keys.filter((key) => !has(key)), []);
  });
}

test("a text is filled in", () => {
  assert.equal(text("start.connector", { connector: 2 }), "Connector 2");
});

test("pages define no busy reason texts", () => {
  assert.deepEqual(Object.keys(TEXTS).filter((key) => key.startsWith("reason.")), []);
});
