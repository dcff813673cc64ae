// Every text that a page names is there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { TEXTS, has, text } from "../../web/driver/texts.js";

const WEB = new URL("../../web/driver/", import.meta.url);

function named(file, pattern) {
  return [...readFileSync(new URL(file, WEB), "utf8").matchAll(pattern)].map(([, key]) => key);
}

for (const [file, pattern] of [
  ["start.html", /data-text="([^"]+)"/g],
  ["session.html", /data-text="([^"]+)"/g],
  ["start.js", /text\("([^"]+)"/g],
  ["session.js", /text\("([^"]+)"/g],
  ["receipt.html", /data-text="([^"]+)"/g],
  ["receipt.js", /text\("([^"]+)"/g],
  ["account.js", /"(receipt\.[^"]+)"/g],
  ["decisions.js", /"(idle\.[^"]+)"/g],
  ["decisions.js", /"(price\.[^"]+)"/g],
]) {
  test(`every text of ${file} exists`, () => {
    const keys = named(file, pattern);

    assert.ok(keys.length > 0);
    assert.deepEqual(keys.filter((key) => !has(key)), []);
  });
}

test("a text is filled in", () => {
  assert.equal(text("start.connector", { connector: 2 }), "Connector 2");
});

test("the pages have no words of their own for why a connector is busy", () => {
  assert.deepEqual(Object.keys(TEXTS).filter((key) => key.startsWith("reason.")), []);
});
