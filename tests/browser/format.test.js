// How money, energy and time read on the pages.

import assert from "node:assert/strict";
import { test } from "node:test";

import { countdown, dateTime, duration, energy, exactEnergy, minutes, money, percent, power } from "../../web/driver/format.js";

const NOW = Date.parse("2026-03-01T12:00:00.000Z");
const spaced = (text) => text.replaceAll("\u00a0", " ");

for (const [minor, currency, exponent, text] of [
  [1835, "EUR", 2, "€18.35"],
  [5, "EUR", 2, "€0.05"],
  [0, "EUR", 2, "€0.00"],
  [2930, "JPY", 0, "¥2,930"],
  [1820, "BHD", 3, "BHD 1.820"],
  [123456789, "EUR", 2, "€1,234,567.89"],
]) {
  test(`${minor} minor units read ${text}`, () => {
    assert.equal(spaced(money(minor, { currency, exponent })), text);
  });
}

for (const [price, currency, exponent, text] of [
  ["59.5", "EUR", 2, "€0.595"],
  ["60", "EUR", 2, "€0.60"],
  ["0.05", "EUR", 2, "€0.0005"],
  ["95.5", "JPY", 0, "¥95.5"],
  ["95", "JPY", 0, "¥95"],
  ["59.5", "BHD", 3, "BHD 0.0595"],
]) {
  test(`price of ${price} ${currency} keeps its fraction`, () => {
    assert.equal(spaced(money(price, { currency, exponent }, 2)), text);
  });
}

test("energy reads kWh and power kW", () => {
  assert.equal(energy(13_374), "13.37 kWh");
  assert.equal(exactEnergy(30_000), "30 kWh");
  assert.equal(exactEnergy(15_974), "15.974 kWh");
  assert.equal(power(7_360), "7.4 kW");
  assert.equal(power(0), "0.0 kW");
});

test("shares read percent and grace minutes", () => {
  assert.deepEqual(["19", "8.1", "19.00", "0.25"].map(percent), ["19%", "8.1%", "19%", "0.25%"]);
  assert.deepEqual([1, 20].map(minutes), ["1 minute", "20 minutes"]);
});

for (const [seconds, text] of [
  [0, "00:00"],
  [59.9, "00:59"],
  [754, "12:34"],
  [3599, "59:59"],
  [4754, "1:19:14"],
  [-5, "00:00"],
]) {
  test(`a duration of ${seconds} s reads ${text}`, () => {
    assert.equal(duration(seconds * 1000), text);
  });
}

for (const [until, text] of [
  ["2026-03-01T12:10:00.000Z", "10:00"],
  ["2026-03-01T12:00:01.000Z", "00:01"],
  ["2026-03-01T12:00:00.001Z", "00:01"],
  ["2026-03-01T12:00:00.000Z", "00:00"],
  ["2026-03-01T11:59:00.000Z", "00:00"],
]) {
  test(`countdown to ${until} reads ${text}`, () => {
    assert.equal(countdown(until, NOW), text);
  });
}

for (const [zone, text] of [
  ["Europe/Berlin", "1 March 2026, 13:05 CET"],
  ["UTC", "1 March 2026, 12:05 UTC"],
  ["Asia/Tokyo", "1 March 2026, 21:05 GMT+9"],
]) {
  test(`moment reads local time in ${zone}`, () => {
    assert.equal(dateTime("2026-03-01T12:05:00.000Z", zone), text);
  });
}
