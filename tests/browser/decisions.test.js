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
  ["f36 another browser may only start", busy("ActiveReservation"), null, "start"],
  ["f36 the browser that began may resume its payment", busy("ActiveReservation"), unpaid, "resume"],
  ["f36 at the last moment of its hold, too", busy("ActiveReservation"), lastMoment, "resume"],
  ["f36 but not after it: that lock is another's", busy("ActiveReservation"), tooLate, "start"],
  ["a reservation that no longer holds the connector starts anew", FREE_CONNECTOR, unpaid, "start"],
  ["paying for an offline station is of no use", busy("ChargerOffline", "ActiveReservation"), unpaid, "giveUp"],
  ["a checkout that never opened can only be given up", busy("ActiveReservation"), unopened, "giveUp"],
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
  test(`a connector that is ${state.status} because of ${state.reason} has the badge ${shown}`, () => {
    const { kind, name } = decisions.badge(state);

    assert.equal(`${kind} ${name}`, shown);
  });
}

for (const [name, it, checkout, shown] of [
  ["a driver back from paying", unpaid, "done", "Confirming"],
  ["a driver back without paying", unpaid, "cancelled", "NotPaid"],
  ["a driver who has not been there", unpaid, null, "PendingPayment"],
  ["a paid session", session("Authorized"), "done", "Authorized"],
  ["a free session", session("Authorized", { maxAmount: 0 }), null, "Reserved"],
  ["a session that took too little", session("Completed", { amount: 0 }), null, "NoCharge"],
  ["a session that is billed", session("Completed", { amount: 645 }), null, "Completed"],
  ["a free session that ended", session("Completed", { amount: 0, maxAmount: 0 }), null, "Completed"],
  ["a charge that broke off", session("Failed", { startedAt: "2026-03-01T12:00:00.000Z" }), "done", "Stopped"],
]) {
  test(`${name} reads the headline ${shown}`, () => {
    assert.equal(decisions.headline(it, checkout), shown);
  });
}

const PRICES = { idlePricePerMinute: "0", idleMaximum: 0, idleGraceMinutes: 0, minimumEnergyWh: 0, vatPercent: "0" };
const IDLE = { ...PRICES, idlePricePerMinute: "12.5", idleMaximum: 1000 };

for (const [name, tariff, billed] of [
  ["a price and a maximum cost", IDLE, true],
  ["no price costs nothing", { ...IDLE, idlePricePerMinute: "0.00" }, false],
  ["no maximum costs nothing", { ...IDLE, idleMaximum: 0 }, false],
]) {
  test(`f68 idle time with ${name}`, () => {
    assert.equal(decisions.billsIdle(tariff), billed);
  });
}

test("f68 of the idle fee all is said that holds, and nothing else", () => {
  const window = { idleFreeFrom: "22:00", idleFreeUntil: "06:00" };
  const all = ["price.idleFrom", "price.idleGrace", "price.idleWindow", "price.idleMaximum"];

  assert.deepEqual(decisions.idleTerms(IDLE), ["price.idleFrom", "price.idleMaximum"]);
  assert.deepEqual(decisions.idleTerms({ ...IDLE, idleGraceMinutes: 20, ...window }), all);
});

test("f66 the minimum energy and the VAT are said where there are any", () => {
  const all = ["price.coversIdle", "price.minimum", "price.vat"];

  assert.deepEqual(decisions.priceTerms(PRICES), ["price.covers"]);
  assert.deepEqual(decisions.priceTerms({ ...IDLE, minimumEnergyWh: 1000, vatPercent: "8.1" }), all);
});

test("what a session waits for is told once per sentence, in the API's words", () => {
  const waitingFor = [
    { code: "LiveStatus:Occupied", message: "In use." },
    { code: "OpenTransaction", message: "In use." },
    { code: "Plug", message: "Plug the cable into your car." },
  ];

  const told = ["In use.", "Plug the cable into your car."];

  assert.deepEqual(decisions.waits(session("Authorized", { waitingFor })), told);
  assert.deepEqual(decisions.waits(session("Charging")), []);
});

test("the countdown runs only while the charge must still begin", () => {
  const startDeadline = "2026-03-01T12:10:00.000Z";
  const all = ["PendingPayment", "Authorized", "StartRequested", "Charging", "Completed", "Failed"];
  const running = all.filter((status) => decisions.mustStart(session(status, { startDeadline })));

  assert.deepEqual(running, ["Authorized", "StartRequested"]);
  assert.equal(decisions.mustStart(session("Authorized")), false);
});

test("f33 a session that moved to another bay says so until it is over", () => {
  const steps = [{ event: "Created" }, { event: "Moved" }];

  assert.equal(decisions.hasMoved(session("Charging", { steps })), true);
  assert.equal(decisions.hasMoved(session("Completed", { steps })), false);
  assert.equal(decisions.hasMoved(session("Charging")), false);
});

test("the steps of a charge are done up to the present one", () => {
  const rows = decisions.progress(session("Charging", { startedAt: "2026-03-01T12:00:00.000Z" }));

  assert.deepEqual(states(rows), ["paid done", "starting done", "charging current", "finished todo"]);
  assert.equal(rows[2].at, "2026-03-01T12:00:00.000Z");
});

test("a session that ended early shows at which step", () => {
  const authorizedAt = "2026-03-01T12:00:00.000Z";

  assert.deepEqual(states(decisions.progress(session("Cancelled"))).slice(0, 2), ["paid failed", "starting todo"]);
  assert.deepEqual(states(decisions.progress(session("Failed", { authorizedAt }))).slice(0, 2), [
    "paid done",
    "starting failed",
  ]);
});

test("f37 a free session has no step and no line about money", () => {
  const free = session("Failed", { maxAmount: 0 });

  assert.deepEqual(states(decisions.progress(free)), ["starting failed", "charging todo", "finished todo"]);
  assert.deepEqual(decisions.bill(free), []);
});

for (const [name, changes, lines] of [
  ["nothing before it is authorised", {}, []],
  ["the hold while it stands", { money: "authorised" }, [["held", 1835]]],
  [
    "what was charged and what was let go",
    { money: "captured", capturedAmount: 824 },
    [["held", 1835], ["released", 1011], ["charged", 824]],
  ],
  [
    "what goes back of it",
    { money: "refunding", capturedAmount: 824, amount: 600 },
    [["held", 1835], ["released", 1011], ["charged", 824], ["toRefund", -224], ["stays", 600]],
  ],
  [
    "what went back of it",
    { money: "captured", capturedAmount: 824, amount: 600, refundedAmount: 224 },
    [["held", 1835], ["released", 1011], ["charged", 824], ["refunded", -224], ["stays", 600]],
  ],
  [
    "what a human has yet to give back",
    { money: "needs_review", capturedAmount: 824, amount: 600 },
    [["held", 1835], ["released", 1011], ["charged", 824], ["toRefund", -224], ["stays", 600]],
  ],
  ["no release where all of the hold was charged", { money: "captured", capturedAmount: 1835 }, [
    ["held", 1835],
    ["charged", 1835],
  ]],
  ["the hold alone while a human looks at it", { money: "needs_review", amount: 600 }, [["held", 1835]]],
  ["what a human settled otherwise", { money: "captured", capturedAmount: 700, amount: 824 }, [
    ["held", 1835],
    ["released", 1135],
    ["charged", 700],
  ]],
  ["the hold that went back", { money: "released" }, [["held", 1835], ["released", 1835]]],
]) {
  test(`the payment card shows ${name}`, () => {
    assert.deepEqual(decisions.bill(session("Charging", changes)), lines);
  });
}

const SINCE = "2026-03-01T11:30:00.000Z";
const RUNNING = { seconds: 1800, fee: 0, since: SINCE, feeBeginsAt: "2026-03-01T12:00:00.001Z" };

for (const [name, idle, key, status = "WaitingForDisconnect"] of [
  ["nothing without idle time", undefined, null],
  ["from when the fee runs, before it does", RUNNING, "idle.soon"],
  ["that it runs from that moment on", { ...RUNNING, feeBeginsAt: "2026-03-01T12:00:00.000Z" }, "idle.runs"],
  ["what it is so far", { ...RUNNING, fee: 200 }, "idle.runs"],
  ["the same while the charge is not over", { ...RUNNING, fee: 200 }, "idle.runs", "Charging"],
  ["that it has reached its maximum", { ...RUNNING, fee: 1000 }, "idle.most"],
  ["what it was while the car charges again", { seconds: 1800, fee: 200 }, "idle.paused"],
  ["nothing of a spell that cost nothing", { seconds: 60, fee: 0 }, null],
  ["nothing where no fee will begin", { seconds: 60, fee: 0, since: SINCE }, null],
  ["nothing once the car is gone", { seconds: 1800, fee: 200 }, null, "Completed"],
]) {
  test(`f68 of idle time a driver is told ${name}`, () => {
    assert.equal(decisions.idleNotice(session(status, { idle, tariff: IDLE }), NOW), key);
  });
}

for (const [name, changes, late] of [
  ["after it was cancelled", { failureCode: "CancelledByDriver", steps: [{ event: "PaymentCameTooLate" }] }, true],
  ["after its time", { failureCode: "PaymentTimeout", money: "releasing" }, true],
  ["not at all", { failureCode: "PaymentTimeout", money: "none" }, false],
  ["in time, and cancelled then", { failureCode: "CancelledByDriver", money: "released" }, false],
]) {
  test(`f64 a session that was paid ${name} ${late ? "says" : "does not say"} that it was too late`, () => {
    assert.equal(decisions.paidTooLate(session("Cancelled", changes)), late);
  });
}

test("f64 a payment that is in time is not too late", () => {
  assert.equal(decisions.paidTooLate(session("Authorized", { money: "authorised" })), false);
});

for (const [status, changes, what] of [
  ["Completed", { amount: 645 }, "capture"],
  ["Completed", { amount: 0 }, "release"],
  ["Failed", { amount: 0 }, "release"],
  ["Completed", { amount: 288, capturedAmount: 645 }, "refund"],
]) {
  test(`f63 a ${status} session with ${JSON.stringify(changes)} says that a human sees to its ${what}`, () => {
    assert.equal(decisions.reviewed(session(status, { money: "needs_review", ...changes })), what);
  });
}

test("f58 a session whose meter is checked says so first, and finishes when a person has billed it", () => {
  const checked = session("Completed", { money: "needs_review", amount: 1835, meterDoubted: true });
  const marks = decisions.progress(checked).map(({ state }) => state);

  assert.equal(decisions.reviewed(checked), "meter");
  assert.equal(decisions.headline(checked, null), "Checking");
  assert.equal(marks.at(-1), "current");
  assert.equal(decisions.isChecked({ ...checked, money: "capturing" }), false);
  assert.equal(decisions.isChecked({ ...checked, meterDoubted: undefined }), false);
  assert.equal(decisions.headline({ ...checked, meterDoubted: undefined }, null), "Completed");
});

test("f58 a doubted session that was released says that nothing is charged", () => {
  const released = session("Completed", { money: "released", amount: 0, maxAmount: 1835, meterDoubted: true });

  assert.equal(decisions.headline(released, null), "NoCharge");
  assert.equal(decisions.reviewed({ ...released, money: "needs_review" }), "release");
});

for (const status of ["Charging", "WaitingForDisconnect", "Completed"]) {
  test(`f58 a ${status} session shows no figure of a meter that is doubted`, () => {
    const sound = session(status, { amount: 1835, maxAmount: 1835, powerW: 7000 });
    const charging = status === "Charging";

    assert.deepEqual(decisions.figures(sound), { energy: true, power: charging, cost: true });
    assert.deepEqual(decisions.figures({ ...sound, meterDoubted: true }), { energy: false, power: false, cost: false });
    assert.equal(decisions.willBeChecked({ ...sound, meterDoubted: true }), status !== "Completed");
    assert.equal(decisions.willBeChecked(sound), false);
  });
}

test("f58 a session that waits for a human is followed slowly, not left", () => {
  const reviewed = session("Completed", { money: "needs_review" });

  assert.equal(decisions.isSettled(reviewed), false);
  assert.ok(decisions.refreshPause(reviewed) > decisions.refreshPause(session("Completed", { money: "capturing" })));
});

test("a page is followed until its money is at rest, too", () => {
  assert.equal(decisions.isSettled(session("Completed", { money: "capturing" })), false);
  assert.equal(decisions.isSettled(session("Completed", { money: "captured" })), true);
  assert.equal(decisions.isSettled(session("Completed", { money: "refunding" })), false);
  assert.equal(decisions.isSettled(session("Charging", { money: "authorised" })), false);
});

test("confirming is tried again ever more rarely, and not for ever", () => {
  const pauses = [];
  for (let tries = 1; decisions.confirmPause(tries) !== null; tries += 1) pauses.push(decisions.confirmPause(tries));

  assert.ok(pauses.length > 0);
  assert.deepEqual(pauses, pauses.toSorted((a, b) => a - b));
  assert.ok(pauses.reduce((sum, pause) => sum + pause) <= 60_000);
});

test("a conflict and a silent service may pass; a wrong address and a lost network are no answers to wait for", () => {
  assert.deepEqual([409, 429, 500, 502, 503].map(decisions.mayPass), [true, true, true, true, true]);
  assert.deepEqual([400, 404, undefined].map(decisions.mayPass), [false, false, false]);
});
