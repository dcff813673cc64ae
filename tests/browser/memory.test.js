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

test("f36 a reservation is remembered while it lives", () => {
  assert.deepEqual(following(NOTES, session("PendingPayment")), NOTES);
});

for (const ended of ["Completed", "Cancelled", "Failed"]) {
  test(`f36 a reservation that is ${ended} is forgotten, and no other`, () => {
    assert.deepEqual(following(NOTES, session(ended)), { "cp-2 1": OTHER });
  });
}

test("f33 a reservation that moved is found at its new bay", () => {
  assert.deepEqual(following(NOTES, session("Charging", 2)), { "cp-2 1": OTHER, "cp-1 2": MINE });
});

test("f36 following another browser's session remembers nothing", () => {
  assert.equal(following(NOTES, { ...session("Charging"), reservationId: "c" }), NOTES);
});

test("a note survives being stored, and not a week", () => {
  assert.deepEqual(notesIn(JSON.stringify(NOTES), NOW), NOTES);
  assert.deepEqual(notesIn(JSON.stringify(NOTES), NOW + 7 * 24 * 3600 * 1000), {});
});

const STRANGE = [null, "", "null", "[]", "7", '"text"', "{", '{"cp-1 1":"plain"}', '{"cp-1 1":null}', '{"cp-1 1":{}}'];

for (const text of STRANGE) {
  test(`what is stored as ${text} is no note, and no accident`, () => {
    assert.deepEqual(notesIn(text, NOW), {});
  });
}
