// Numbers and times as text. Pure: no DOM, no clock.

const LOCALE = "en";
// Day first, and the month as a word.
const DATES = "en-GB";

// An amount in minor units; a price per kWh may have a fraction of a minor unit.
export function money(minor, { currency, exponent }, extraDigits = 0) {
  const digits = { minimumFractionDigits: exponent, maximumFractionDigits: exponent + extraDigits };
  const format = { style: "currency", currency, ...digits };
  return new Intl.NumberFormat(LOCALE, format).format(Number(minor) / 10 ** exponent);
}

export function energy(wattHours) {
  return `${fixed(wattHours / 1000, 2)} kWh`;
}

// The energy to the watt-hour, without trailing zeros.
export function exactEnergy(wattHours) {
  return `${new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 3 }).format(wattHours / 1000)} kWh`;
}

export function minutes(number) {
  return new Intl.NumberFormat(LOCALE, { style: "unit", unit: "minute", unitDisplay: "long" }).format(number);
}

export function percent(number) {
  return new Intl.NumberFormat(LOCALE, { style: "percent", maximumFractionDigits: 2 }).format(number / 100);
}

export function power(watts) {
  return `${fixed(watts / 1000, 1)} kW`;
}

// mm:ss, or h:mm:ss from one hour; 00:00 for a negative duration.
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const rest = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

// The time left, rounded up to seconds, so that 00:00 is shown only when it is over.
export function countdown(until, now) {
  return duration(Math.ceil((Date.parse(until) - now) / 1000) * 1000);
}

export function clock(iso) {
  return new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

// The date and time in the station's time zone, with the zone's name.
export function dateTime(iso, timeZone) {
  const fields = { year: "numeric", month: "long", day: "numeric", hour: "2-digit", minute: "2-digit" };
  const format = { ...fields, hourCycle: "h23", timeZone, timeZoneName: "short" };
  return new Intl.DateTimeFormat(DATES, format).format(new Date(iso)).replace(" at ", ", ");
}

function fixed(number, digits) {
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(LOCALE, format).format(number);
}
