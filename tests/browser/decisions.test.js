// What the pages offer and show for what the API answers.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as decisions from "../../web/driver/decisions.js";

const NOW = Date.parse("2026-03-01T12:00:00.000Z");
const FREE_CONNECTOR = { startable: true, status: "Available", reasons: [] };

function busy(...reasons) {
  return { startable: false, status: "Available", reason: reasons[0], reasons };
}

function session(status, changes = {}) {
  return {
    status,
    money: "none",
    maxAmount: 1835,
    expiresAt: "2026-03-01T12:10:00.000Z",
    checkoutUrl: "https://pay.example/c/1",
    steps: [],
    ...changes,
  };
}

function states(rows) {
  return rows.map(({ name, state }) => `${name} ${state}`);
}

const unpaid = session("PendingPayment");
const lastMoment = { ...unpaid, expiresAt: "2026-03-01T12:00:00.000Z" };
const tooLate = { ...unpaid, expiresAt: "2026-03-01T11:59:59.999Z" };
const unopened = { ...unpaid, checkoutUrl: undefined };

for (const [name, connector, own, offered] of [
  ["another browser may only start", busy("ActiveReservation"), null, "start"],
  ["own browser resumes its checkout", busy("ActiveReservation"), unpaid, "resume"],
  ["checkout resumes until its last moment", busy("ActiveReservation"), lastMoment, "resume"],
  ["expired checkout starts a new session", busy("ActiveReservation"), tooLate, "start"],
  ["released connector starts a new session", FREE_CONNECTOR, unpaid, "start"],
  ["offline station only offers giving up", busy("ChargerOffline", "ActiveReservation"), unpaid, "giveUp"],
  ["unopened checkout only offers giving up", busy("ActiveReservation"), unopened, "giveUp"],
  ["a paid session is followed", busy("ActiveReservation"), session("Authorized"), "follow"],
  ["a session that is starting is followed", busy("PersistedStatus:Occupied"), session("StartRequested"), "follow"],
  ["a charge is followed", busy("LiveStatus:Occupied", "OpenTransaction"), session("Charging"), "follow"],
  ["a charge to be unplugged is followed", busy("LiveStatus:Occupied"), session("WaitingForDisconnect"), "follow"],
  ["a session that ended starts anew", FREE_CONNECTOR, session("Completed"), "start"],
  ["a failed session starts anew", busy("ActiveReservation"), session("Failed"), "start"],
]) {
  test(name, () => {
    assert.equal(decisions.offer(connector, own, NOW), offered);
  });
}

for (const [state, shown] of [
  [FREE_CONNECTOR, "ready Ready"],
  [busy("ActiveReservation"), "busy Reserved"],
  [busy("PersistedStatus:Occupied"), "busy Unknown"],
  [{ ...busy("OpenTransaction"), status: "Occupied" }, "busy Occupied"],
  [{ ...busy("ActiveReservation"), status: "Occupied" }, "busy Occupied"],
  [{ ...busy("ChargerOffline"), status: "Offline" }, "out Offline"],
]) {
  test(`badge for ${state.status} with reason ${state.reason ?? "none"}`, () => {
    const { kind, name } = decisions.badge(state);

    assert.equal(`${kind} ${name}`, shown);
  });
}

for (const [name, it, checkout, shown] of [
  ["a driver back from paying", unpaid, "done", "Confirming"],
  ["a driver back without paying", unpaid, "cancelled", "NotPaid"],
  ["a driver before paying", unpaid, null, "PendingPayment"],
  ["a paid session", session("Authorized"), "done", "Authorized"],
  ["a free session", session("Authorized", { maxAmount: 0 }), null, "Reserved"],
  ["an unbilled session", session("Completed", { amount: 0 }), null, "NoCharge"],
  ["a billed session", session("Completed", { amount: 645 }), null, "Completed"],
  ["a free session that ended", session("Completed", { amount: 0, maxAmount: 0 }), null, "Completed"],
  ["an interrupted charge", session("Failed", { startedAt: "2026-03-01T12:00:00.000Z" }), "done", "Stopped"],
]) {
  test(`${name} reads ${shown}`, () => {
    assert.equal(decisions.headline(it, checkout), shown);
  });
}

const PRICES = { idlePricePerMinute: "0", idleMaximum: 0, idleGraceMinutes: 0, minimumEnergyWh: 0, vatPercent: "0" };
const IDLE = { ...PRICES, idlePricePerMinute: "12.5", idleMaximum: 1000 };

for (const [name, tariff, billed] of [
  ["with price and maximum costs", IDLE, true],
  ["without price is free", { ...IDLE, idlePricePerMinute: "0.00" }, false],
  ["without maximum is free", { ...IDLE, idleMaximum: 0 }, false],
]) {
  test(`idle time ${name}`, () => {
    assert.equal(decisions.billsIdle(tariff), billed);
  });
}

test("idle terms name only those set", () => {
  const window = { idleFreeFrom: "22:00", idleFreeUntil: "06:00" };
  const all = ["price.idleFrom", "price.idleGrace", "price.idleWindow", "price.idleMaximum"];

  assert.deepEqual(decisions.idleTerms(IDLE), ["price.idleFrom", "price.idleMaximum"]);
  assert.deepEqual(decisions.idleTerms({ ...IDLE, idleGraceMinutes: 20, ...window }), all);
});

test("price terms name minimum and VAT", () => {
  const all = ["price.coversIdle", "price.minimum", "price.vat"];

  assert.deepEqual(decisions.priceTerms(PRICES), ["price.covers"]);
  assert.deepEqual(decisions.priceTerms({ ...IDLE, minimumEnergyWh: 1000, vatPercent: "8.1" }), all);
});

test("waiting reasons are told without duplicates", () => {
  const waitingFor = [
    { code: "LiveStatus:Occupied", message: "In use." },
    { code: "OpenTransaction", message: "In use." },
    { code: "Plug", message: "Plug the cable into your car." },
  ];

  const told = ["In use.", "Plug the cable into your car."];

  assert.deepEqual(decisions.waits(session("Authorized", { waitingFor })), told);
  assert.deepEqual(decisions.waits(session("Charging")), []);
});

test("countdown runs only before the start", () => {
  const startDeadline = "2026-03-01T12:10:00.000Z";
  const all = ["PendingPayment", "Authorized", "StartRequested", "Charging", "Completed", "Failed"];
  const running = all.filter((status) => decisions.mustStart(session(status, { startDeadline })));

  assert.deepEqual(running, ["Authorized", "StartRequested"]);
  assert.equal(decisions.mustStart(session("Authorized")), false);
});

test("a car plugged in elsewhere is offered or kept", () => {
  const pluggedElsewhere = [
    { connectorId: 2, startable: true },
    { connectorId: 3, startable: false },
  ];
  const waiting = session("Authorized", { pluggedElsewhere });

  assert.deepEqual([decisions.offers(waiting), decisions.keptElsewhere(waiting)], [[2], [3]]);
  assert.deepEqual([decisions.offers(unpaid), decisions.keptElsewhere(unpaid)], [[], []]);
});

test("a hold for an unheard start is asked for less often", () => {
  const failed = session("Failed", { money: "authorised", heldUntil: "2026-03-01T12:15:00.000Z" });

  assert.equal(decisions.isSettled(failed), false);
  assert.ok(decisions.refreshPause(failed) > decisions.refreshPause(session("Charging")));
});

test("moved session says so until ended", () => {
  const steps = [{ event: "Created" }, { event: "Moved" }];

  assert.equal(decisions.hasMoved(session("Charging", { steps })), true);
  assert.equal(decisions.hasMoved(session("Completed", { steps })), false);
  assert.equal(decisions.hasMoved(session("Charging")), false);
});

test("steps before the current are done", () => {
  const rows = decisions.progress(session("Charging", { startedAt: "2026-03-01T12:00:00.000Z" }));

  assert.deepEqual(states(rows), ["paid done", "starting done", "charging current", "finished todo"]);
  assert.equal(rows[2].at, "2026-03-01T12:00:00.000Z");
});

test("early end marks the failed step", () => {
  const authorizedAt = "2026-03-01T12:00:00.000Z";

  assert.deepEqual(states(decisions.progress(session("Cancelled"))).slice(0, 2), ["paid failed", "starting todo"]);
  assert.deepEqual(states(decisions.progress(session("Failed", { authorizedAt }))).slice(0, 2), [
    "paid done",
    "starting failed",
  ]);
});

test("free session shows no money", () => {
  const free = session("Failed", { maxAmount: 0 });

  assert.deepEqual(states(decisions.progress(free)), ["starting failed", "charging todo", "finished todo"]);
  assert.deepEqual(decisions.bill(free), []);
});

for (const [name, changes, lines] of [
  ["nothing before authorization", {}, []],
  ["the standing hold", { money: "authorised" }, [["held", 1835]]],
  [
    "charge and release",
    { money: "captured", capturedAmount: 824 },
    [["held", 1835], ["released", 1011], ["charged", 824]],
  ],
  [
    "a pending refund",
    { money: "refunding", capturedAmount: 824, amount: 600 },
    [["held", 1835], ["released", 1011], ["charged", 824], ["toRefund", -224], ["stays", 600]],
  ],
  [
    "a completed refund",
    { money: "captured", capturedAmount: 824, amount: 600, refundedAmount: 224 },
    [["held", 1835], ["released", 1011], ["charged", 824], ["refunded", -224], ["stays", 600]],
  ],
  [
    "a refund under review",
    { money: "needs_review", capturedAmount: 824, amount: 600 },
    [["held", 1835], ["released", 1011], ["charged", 824], ["toRefund", -224], ["stays", 600]],
  ],
  ["full charge without release", { money: "captured", capturedAmount: 1835 }, [
    ["held", 1835],
    ["charged", 1835],
  ]],
  ["only hold under review", { money: "needs_review", amount: 600 }, [["held", 1835]]],
  ["an operator's settlement", { money: "captured", capturedAmount: 700, amount: 824 }, [
    ["held", 1835],
    ["released", 1135],
    ["charged", 700],
  ]],
  ["a released hold", { money: "released" }, [["held", 1835], ["released", 1835]]],
]) {
  test(`payment card shows ${name}`, () => {
    assert.deepEqual(decisions.bill(session("Charging", changes)), lines);
  });
}

const SINCE = "2026-03-01T11:30:00.000Z";
const RUNNING = { seconds: 1800, fee: 0, since: SINCE, feeBeginsAt: "2026-03-01T12:00:00.001Z" };

for (const [name, idle, key, status = "WaitingForDisconnect"] of [
  ["nothing without idle time", undefined, null],
  ["fee start announced beforehand", RUNNING, "idle.soon"],
  ["fee runs from its start", { ...RUNNING, feeBeginsAt: "2026-03-01T12:00:00.000Z" }, "idle.runs"],
  ["fee so far", { ...RUNNING, fee: 200 }, "idle.runs"],
  ["fee so far while charging", { ...RUNNING, fee: 200 }, "idle.runs", "Charging"],
  ["fee at its maximum", { ...RUNNING, fee: 1000 }, "idle.most"],
  ["fee paused by renewed charging", { seconds: 1800, fee: 200 }, "idle.paused"],
  ["nothing for a free spell", { seconds: 60, fee: 0 }, null],
  ["nothing without a coming fee", { seconds: 60, fee: 0, since: SINCE }, null],
  ["nothing after the session", { seconds: 1800, fee: 200 }, null, "Completed"],
]) {
  test(`idle notice: ${name}`, () => {
    assert.equal(decisions.idleNotice(session(status, { idle, tariff: IDLE }), NOW), key);
  });
}

for (const [name, changes, late] of [
  ["payment after cancellation", { failureCode: "CancelledByDriver", steps: [{ event: "PaymentCameTooLate" }] }, true],
  ["payment after timeout", { failureCode: "PaymentTimeout", money: "releasing" }, true],
  ["absent payment", { failureCode: "PaymentTimeout", money: "none" }, false],
  ["payment before cancellation", { failureCode: "CancelledByDriver", money: "released" }, false],
]) {
  test(`${name} ${late ? "counts as late" : "is not late"}`, () => {
    assert.equal(decisions.paidTooLate(session("Cancelled", changes)), late);
  });
}

test("payment in time is not late", () => {
  assert.equal(decisions.paidTooLate(session("Authorized", { money: "authorised" })), false);
});

for (const [status, changes, what] of [
  ["Completed", { amount: 645 }, "capture"],
  ["Completed", { amount: 0 }, "release"],
  ["Failed", { amount: 0 }, "release"],
  ["Completed", { amount: 288, capturedAmount: 645 }, "refund"],
]) {
  test(`${status} session under review shows ${what}`, () => {
    assert.equal(decisions.reviewed(session(status, { money: "needs_review", ...changes })), what);
  });
}

test("doubted meter is reviewed before finishing", () => {
  const checked = session("Completed", { money: "needs_review", amount: 1835, meterDoubted: true });
  const marks = decisions.progress(checked).map(({ state }) => state);

  assert.equal(decisions.reviewed(checked), "meter");
  assert.equal(decisions.headline(checked, null), "Checking");
  assert.equal(marks.at(-1), "current");
  assert.equal(decisions.isChecked({ ...checked, money: "capturing" }), false);
  assert.equal(decisions.isChecked({ ...checked, meterDoubted: undefined }), false);
  assert.equal(decisions.headline({ ...checked, meterDoubted: undefined }, null), "Completed");
});

test("released doubted session reads NoCharge", () => {
  const released = session("Completed", { money: "released", amount: 0, maxAmount: 1835, meterDoubted: true });

  assert.equal(decisions.headline(released, null), "NoCharge");
  assert.equal(decisions.reviewed({ ...released, money: "needs_review" }), "release");
});

for (const status of ["Charging", "WaitingForDisconnect", "Completed"]) {
  test(`${status} session hides doubted meter figures`, () => {
    const sound = session(status, { amount: 1835, maxAmount: 1835, powerW: 7000 });
    const charging = status === "Charging";

    assert.deepEqual(decisions.figures(sound), { energy: true, power: charging, cost: true });
    assert.deepEqual(decisions.figures({ ...sound, meterDoubted: true }), { energy: false, power: false, cost: false });
    assert.equal(decisions.willBeChecked({ ...sound, meterDoubted: true }), status !== "Completed");
    assert.equal(decisions.willBeChecked(sound), false);
  });
}

test("session under review is polled slowly", () => {
  const reviewed = session("Completed", { money: "needs_review" });

  assert.equal(decisions.isSettled(reviewed), false);
  assert.ok(decisions.refreshPause(reviewed) > decisions.refreshPause(session("Completed", { money: "capturing" })));
});

test("page polls until money is settled", () => {
  assert.equal(decisions.isSettled(session("Completed", { money: "capturing" })), false);
  assert.equal(decisions.isSettled(session("Completed", { money: "captured" })), true);
  assert.equal(decisions.isSettled(session("Completed", { money: "refunding" })), false);
  assert.equal(decisions.isSettled(session("Charging", { money: "authorised" })), false);
});

test("confirm retries back off and stop", () => {
  const pauses = [];
  for (let tries = 1; decisions.confirmPause(tries) !== null; tries += 1) pauses.push(decisions.confirmPause(tries));

  assert.ok(pauses.length > 0);
  assert.deepEqual(pauses, pauses.toSorted((a, b) => a - b));
  assert.ok(pauses.reduce((sum, pause) => sum + pause) <= 60_000);
});

test("only conflicts and service failures are retried", () => {
  assert.deepEqual([409, 429, 500, 502, 503].map(decisions.mayPass), [true, true, true, true, true]);
  assert.deepEqual([400, 404, undefined].map(decisions.mayPass), [false, false, false]);
});
