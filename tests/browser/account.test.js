// What a receipt's lines and sums say.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lines, payments, sums } from "../../web/driver/account.js";

const RECEIPT = {
  currency: "EUR",
  exponent: 2,
  lines: [
    { kind: "Energy", amount: 595, energyWh: 10_000, pricePerKwh: "59.5" },
    { kind: "SessionFee", amount: 50 },
  ],
  total: 645,
  authorizedAmount: 1835,
  capturedAmount: 645,
  card: { brand: "visa", last4: "4242" },
};
const IDLE = { kind: "IdleFee", amount: 200, idleSeconds: 1859, graceMinutes: 10, pricePerMinute: "10", maximum: 600 };

function only(line) {
  const [{ name, detail, amount }] = lines({ ...RECEIPT, lines: [line] });
  return `${name} | ${detail} | ${amount}`.replaceAll("\u00a0", " ");
}

for (const [name, line, text] of [
  ["energy", RECEIPT.lines[0], "Energy | 10 kWh at €0.595 per kWh | €5.95"],
  ["session fee", RECEIPT.lines[1], "Session fee |  | €0.50"],
  ["idle fee after grace", IDLE, "Idle fee | 30 minutes, the first 10 minutes free, then €0.10 per minute | €2.00"],
  ["idle fee without grace", { ...IDLE, graceMinutes: 0 }, "Idle fee | 30 minutes, €0.10 per minute | €2.00"],
  [
    "idle fee at its maximum",
    { ...IDLE, amount: 600, idleSeconds: 9000 },
    "Idle fee | 150 minutes, the first 10 minutes free, then €0.10 per minute, at most €6.00 | €6.00",
  ],
  ["amount beyond the hold", { kind: "Limit", amount: -76 }, "Not charged | beyond the €18.35 held | -€0.76"],
  ["operator adjustment", { kind: "Adjustment", amount: -45 }, "Adjusted by the operator |  | -€0.45"],
]) {
  test(`receipt line: ${name}`, () => {
    assert.equal(only(line), text);
  });
}

test("VAT in the total is itemised", () => {
  const vat = { percent: "19.0", amount: 103, net: 542 };

  assert.deepEqual(sums(RECEIPT), [{ name: "Total", amount: "€6.45", total: true }]);
  assert.deepEqual(sums({ ...RECEIPT, vat }).slice(1), [
    { name: "of which 19% VAT", amount: "€1.03" },
    { name: "Net", amount: "€5.42" },
  ]);
});

test("payment names card brand and digits", () => {
  const named = (card) => payments({ ...RECEIPT, card })[0].detail;

  assert.equal(named({ brand: "visa", last4: "4242" }), "Visa ending in 4242");
  assert.equal(named({ brand: "amex", last4: "0005" }), "American Express ending in 0005");
  assert.equal(named({ last4: "4242" }), "Card ending in 4242");
  assert.equal(named(undefined), "");
});

test("completed and pending refunds are separate", () => {
  const rows = (changes) => payments({ ...RECEIPT, ...changes }).map(({ name, amount }) => `${name} ${amount}`);

  assert.deepEqual(rows({}), ["Charged to your card €6.45"]);
  assert.deepEqual(rows({ refundedAmount: 300, amountToRefund: 57 }), [
    "Charged to your card €6.45",
    "Refunded -€3.00",
    "On its way back to your card -€0.57",
  ]);
});
