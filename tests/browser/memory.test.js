// What a browser remembers of the reservations it began.

import assert from "node:assert/strict";
import { test } from "node:test";

import { following, notesIn } from "../../web/driver/memory.js";

const NOW = Date.parse("2026-03-01T12:00:00.000Z");
const MINE = { reservationId: "a", created: "2026-03-01T11:00:00.000Z" };
const OTHER = { reservationId: "b", created: "2026-03-01T11:30:00.000Z" };
const NOTES = { "cp-1 1": MINE, "cp-2 1": OTHER };

function session(status, connectorId = 1) {
  return { reservationId: "a", chargePointId: "CP-1", connectorId, status };
}

test("live reservation is remembered", () => {
  assert.deepEqual(following(NOTES, session("PendingPayment")), NOTES);
});

for (const ended of ["Completed", "Cancelled", "Failed"]) {
  test(`only the ${ended} reservation is forgotten`, () => {
    assert.deepEqual(following(NOTES, session(ended)), { "cp-2 1": OTHER });
  });
}

test("moved reservation follows its new connector", () => {
  assert.deepEqual(following(NOTES, session("Charging", 2)), { "cp-2 1": OTHER, "cp-1 2": MINE });
});

test("another browser's session is not remembered", () => {
  assert.equal(following(NOTES, { ...session("Charging"), reservationId: "c" }), NOTES);
});

test("stored note expires after a week", () => {
  assert.deepEqual(notesIn(JSON.stringify(NOTES), NOW), NOTES);
  assert.deepEqual(notesIn(JSON.stringify(NOTES), NOW + 7 * 24 * 3600 * 1000), {});
});

const STRANGE = [null, "", "null", "[]", "7", '"text"', "{", '{"cp-1 1":"plain"}', '{"cp-1 1":null}', '{"cp-1 1":{}}'];

for (const text of STRANGE) {
  test(`stored ${JSON.stringify(text)} is ignored`, () => {
    assert.deepEqual(notesIn(text, NOW), {});
  });
}
